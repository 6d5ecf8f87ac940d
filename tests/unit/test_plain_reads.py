"""What is a plain read, by the byte: nothing that two readers could take for two things."""

from collections.abc import Callable
from typing import Final

import pytest

from svsync.http.short_way import LONGEST, _path, headers_of, line

PLAIN: Final = b"GET /v1/secrets/app/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n"


def plain(data: bytes) -> tuple[str, dict[str, str]] | None:
    """The path and the headers of a plain read; None: it is none."""
    if (found := line(data)) is None or (given := headers_of(found[1])) is None:
        return None
    return found[0], given


def swapped(old: bytes, new: bytes) -> bytes:
    assert old in PLAIN
    return PLAIN.replace(old, new)


def test_a_plain_read_is_one() -> None:
    found = plain(swapped(b"Host: x", b"hOST: x\r\nX-Forwarded-For: 1.2.3.4, 5.6.7.8"))
    assert found is not None
    path, given = found
    assert (path, given["token"], given["x-forwarded-for"]) == ("app/a", "t", "1.2.3.4, 5.6.7.8")


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
    assert plain(sent) is None


def test_what_is_no_path_is_not_remembered() -> None:
    remembered = _path.cache_info().currsize
    for n in range(10):
        assert plain(swapped(b"app/a", b"%d" % n + b"a" * 3000)) is None
        assert plain(swapped(b"app/a", b"%%%d" % n)) is None
    assert _path.cache_info().currsize == remembered


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
            found = plain(mutated(at, byte))
            assert found is None or (found[0], found[1]["token"]) != ("app/a", "t"), (at, byte)
