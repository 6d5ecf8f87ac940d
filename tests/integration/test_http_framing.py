"""Where does a request end, and which headers does it have? Of one request there is one answer,
or the connection ends: no second reader of the same bytes sees another request in them."""

import gzip
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.api import Front
from tests.rawhttp import PROBE, answered, exchange, fuzzed, request_of

PAUSE: Final = b"/v1/federation/backends/fed_house/pause"
A: Final = b"/v1/secrets/app/a"
SMUGGLED: Final = "the-smuggled"
IDS: Final = ["first", SMUGGLED, PROBE]
LENGTHS: Final = (
    *b"5 0 05 +5 -1 5,5 5; 0x5 5\x00 \xd9\xa5".split(b" "),
    b"",
    b"5, 5",
    b"5 5",
    b"9" * 40,
)
CODINGS: Final = (
    *b'chunked Chunked identity xchunked "chunked"'.split(),
    b"",
    b"chunked\x0b",
    b"chunked, identity",
    b"gzip, chunked",
    b"chunked, chunked",
)
NAMES: Final = (b"%b:", b"%b: ", b"%b :", b"%b\t:", b" %b:", b"\t%b:", b"X%b:", b"%b\x00:")
BEHIND: Final = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: the-smuggled\r\n\r\n"
BODIES: Final = (
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"5;x=y\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhelloX\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    b"0\r\nX-Request-Id: the-smuggled\r\n\r\n",
)


@st.composite
def framings(draw: st.DrawFn) -> list[bytes]:
    """Headers that say where the body ends, in ways that two readers may take differently."""
    lengths = draw(st.lists(st.sampled_from(LENGTHS), max_size=2))
    codings = draw(st.lists(st.sampled_from(CODINGS), max_size=2))
    pairs = [(b"Content-Length", value) for value in lengths]
    pairs += [(b"Transfer-Encoding", value) for value in codings]
    names = st.sampled_from(NAMES[:2]) | st.sampled_from(NAMES)
    found = [draw(names) % name + value for name, value in pairs]
    return list(draw(st.permutations(found)))


def is_plain(headers: list[bytes]) -> bool:
    """Does every reader find the same end? One length in digits, or `chunked` alone and last."""
    pairs = [header.partition(b":") for header in headers if not header.startswith(b"X")]
    if any(name.strip() != name for name, _, _ in pairs):
        return False
    lengths = [value.strip() for name, _, value in pairs if name == b"Content-Length"]
    codings = [value.strip().lower() for name, _, value in pairs if name == b"Transfer-Encoding"]
    if codings:
        return not lengths and len(codings) == 1 and codings[0] in (b"chunked", b"gzip, chunked")
    return not lengths or (len(lengths) == 1 and lengths[0] in (b"5", b"0", b"05"))


@fuzzed
@given(framing=framings(), body=st.sampled_from(BODIES), end=st.sampled_from([b"\r\n", b"\n"]))
@example(framing=[b"Content-Length: 5", b"Transfer-Encoding: chunked"], body=BODIES[2], end=b"\r\n")
@example(framing=[b"Content-Length: 5", b"Content-Length: 0"], body=BODIES[0], end=b"\r\n")
@example(framing=[b"Transfer-Encoding : chunked"], body=BODIES[2], end=b"\r\n")
@example(framing=[b"Transfer-Encoding: chunked"], body=BODIES[1], end=b"\r\n")
@example(framing=[b"Content-Length: 5"], body=BODIES[0], end=b"\r\n")
async def test_two_readers_find_the_same_end_of_a_request_or_it_is_the_last_one(
    front: Front, framing: list[bytes], body: bytes, end: bytes
) -> None:
    lines = [
        b"POST %b HTTP/1.1" % PAUSE,
        b"Host: x",
        b"X-Request-Id: first",
        f"Authorization: Bearer {front.client.token}".encode(),
        *framing,
    ]
    sent = end.join([*lines, b"", body]) + BEHIND
    answers = await exchange(front.listener.port, sent)
    assert answers, "each request is answered"
    if not is_plain(framing):
        assert [answer.status for answer in answers] == [400], framing
        assert answers[0].code == "malformed_request"
        assert answers[0].is_last
        return
    ids = [answer.id for answer in answers]
    named = [one for one in ids if one in IDS]
    assert named == IDS[: len(named)], "each is answered once, in their order"
    assert len(ids) - len(named) <= 1
    broken = [a for a in answers if a.status == 400 and a.code == "malformed_request"]
    if broken:
        assert answers[-1] is broken[0], "nothing is answered after what was not understood"


async def test_requests_that_are_whole_are_answered_one_by_one(front: Front) -> None:
    """The test above could not fail if nothing was ever answered behind a body."""
    for framing, body in (
        (b"Content-Length: 2", b"{}"),
        (b"Transfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"),
    ):
        sent = request_of(front, "POST", PAUSE, framing)
        answers = await exchange(front.listener.port, sent + body + BEHIND)
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert [answer.id for answer in answers][1:] == [SMUGGLED, PROBE]


# --- headers --------------------------------------------------------------------------

MANY: Final = [b"X-%d: y" % n for n in range(120)]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([b"X: " + b"y" * 8_300], 431),
        ([b"X" * 8_300 + b": y"], 431),
        (MANY, 400),
        ([b"X: a\x00b"], 400),
        ([b"X: a\rb"], 400),
        ([b"X"], 400),
        ([b": x"], 400),
        ([b"X(: y"], 400),
        ([b"X: y", b" folded"], 400),
        ([b"Authorization: Bearer other"], 401),
        ([b"Idempotency-Key: a", b"Idempotency-Key: b"], 422),
        ([b"If-Match: \"v1\"", b"If-Match: \"v2\""], 422),
        ([b"If-None-Match: *", b"If-Match: \"v1\""], 422),
        ([b"Idempotency-Key: \xff"], 422),
        ([b"If-Match: \xff"], 422),
        ([b"Content-Encoding: gzip"], 415),
        ([b"Content-Encoding: gzip, identity"], 415),
        ([b"Expect: 200-ok"], 417),
        ([b"Content-Type: text/xml"], 201),
        ([b"Content-Type: \xff"], 201),
        ([b"Accept: text/html"], 201),
        ([b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: x"], 201),
        ([b"X-Request-Id: a", b"X-Request-Id: b"], 201),
        ([b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /v1/secrets/app/b"], 201),
        ([b"X-Forwarded-For: 127.0.0.1", b"Forwarded: for=127.0.0.1"], 201),
        ([b"Host: other"], 400),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
async def test_headers_are_refused_or_without_effect(
    front: Front, headers: list[bytes], status: int
) -> None:
    sent = request_of(front, "PUT", A, *headers, body=b'{"data": {}}')
    assert (await answered(front, sent)).status == status


async def test_a_bomb_is_not_unpacked(front: Front) -> None:
    packed = gzip.compress(bytes(50_000_000))
    for coding in (b"gzip", b"GZIP", b"x-gzip"):
        sent = request_of(front, "PUT", A, b"Content-Encoding: " + coding, body=packed)
        assert (await answered(front, sent)).status == 415
