"""What is a plain read, by the byte: nothing that two readers could take for two things."""

from collections.abc import Callable
from typing import Final

import pytest

from svsync.domain.access import token_hash
from svsync.domain.ids import LocalPath
from svsync.http.short_way import LONGEST, Asked, read

PLAIN: Final = b"GET /v1/secrets/app/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n"


def swapped(old: bytes, new: bytes) -> bytes:
    assert old in PLAIN
    return PLAIN.replace(old, new)


def test_a_plain_read_is_one() -> None:
    sent = swapped(b"Host: x", b"hOST: x\r\nX-Forwarded-For: 1.2.3.4, 5.6.7.8")
    forwarded = ("1.2.3.4, 5.6.7.8",)
    assert read(sent) == Asked(LocalPath("app/a"), token_hash("t"), forwarded, None)


@pytest.mark.parametrize(
    ("given", "taken"), [("r-1.2_3", "r-1.2_3"), ("r 1", None), ("x" * 129, None)]
)
def test_an_id_may_be_brought(given: str, taken: str | None) -> None:
    found = read(swapped(b"Host: x", f"Host: x\r\nX-Request-Id: {given}".encode()))
    assert found is not None
    assert found.request_id == taken


@pytest.mark.parametrize(
    "sent",
    [
        swapped(b"GET", b"HEAD"),
        swapped(b"GET", b"get"),
        swapped(b"GET ", b"GET  "),
        swapped(b"HTTP/1.1", b"HTTP/1.0"),
        swapped(b"HTTP/1.1", b"HTTP/1.1 "),
        swapped(b"app/a", b"app/a?version=1"),
        swapped(b"app/a", b"app/a#x"),
        swapped(b"app/a", b"app%2Fa"),
        swapped(b"app/a", b"app//a"),
        swapped(b"app/a", b"app/../a"),
        swapped(b"app/a", b"app/a/"),
        swapped(b"app/a", b""),
        swapped(b"app/a", "app/ä".encode()),
        swapped(b"app/a", b"app/a HTTP/1.1\r\nX: y"),
        swapped(b"app/a", b"a" * 513),
        swapped(b"Host: x\r\n", b""),
        swapped(b"Host: x", b"Host: x\r\nHost: x"),
        swapped(b"Host: x", b"Host: x\r\nhost: y"),
        swapped(b"Host: x", b"Host : x"),
        swapped(b"Host: x", b"Host:x"),
        swapped(b"Host: x", b"Host: x\n"),
        swapped(b"Host: x", b"Host: x\r\n y"),
        swapped(b"Host: x", b"Host: x\x00"),
        swapped(b"Host: x", b"Host: \xc3\xa4"),
        swapped(b"Host: x", b"Host: x\r\nContent-Length: 0"),
        swapped(b"Host: x", b"Host: x\r\nTransfer-Encoding: chunked"),
        swapped(b"Host: x", b"Host: x\r\nConnection: close"),
        swapped(b"Host: x", b"Host: x\r\nConnection: upgrade"),
        swapped(b"Host: x", b"Host: x\r\nExpect: 100-continue"),
        swapped(b"Host: x", b"Host: x\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2"),
        swapped(b"Host: x", b"Host: x\r\nIf-None-Match: *"),
        swapped(b"Bearer t", b"Basic t"),
        swapped(b"Authorization: Bearer t\r\n", b""),
        swapped(b"Bearer t", b"Bearer t\r\nAuthorization: Bearer u"),
        PLAIN[:-2],
        PLAIN[:-1],
        PLAIN + b"x",
        PLAIN + PLAIN,
        b"\r\n" + PLAIN,
        PLAIN.replace(b"\r\n", b"\n"),
        swapped(b"Host: x", b"User-Agent: " + b"x" * LONGEST + b"\r\nHost: x"),
        b"",
    ],
)
def test_anything_else_goes_the_long_way(sent: bytes) -> None:
    assert read(sent) is None


def _mutated(data: bytes) -> Callable[[int, int], bytes]:
    return lambda at, byte: data[:at] + bytes([byte]) + data[at + 1 :]


def test_one_byte_changed_changes_what_is_understood_or_nothing_is() -> None:
    """No byte of the request's frame may be another one and be read over."""
    mutated = _mutated(PLAIN)
    frame = [at for at in range(len(PLAIN)) if PLAIN[at : at + 1] in b" \r\n:/" or at < 3]
    for at in frame:
        for byte in b"\x00\t\n\r :;,/\\%?#@\x7f\xa0\xff":
            if PLAIN[at] == byte:
                continue
            found = read(mutated(at, byte))
            assert found is None or (found.path, found.token) != ("app/a", token_hash("t")), (
                at,
                byte,
            )
