"""Whatever is sent: is one request answered once, by no other path than it names, and without
a word of what was in it? `SVSYNC_GENERATED=50` asks fifty times as often, otherwise each time."""

import json
import re
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tests.api import Front, open_front
from tests.canary import Canary
from tests.house import BACKEND, backend, open_house
from tests.integration.test_http_access import log
from tests.overheard import Overheard, overhearing
from tests.rawhttp import answered, fuzzed, request_of

from svsync.domain.federation import Mode, RuleSpec

__all__ = ["log"]

SECRET: Final = re.compile(r"/v1/kv/data(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)+")
LOCAL: Final = re.compile(r"(?!\.{1,2}(/|$))[A-Za-z0-9._-]+(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)*")


# --- paths ----------------------------------------------------------------------------

PIECES: Final = (
    b".. . ... a A-1 b.c ext kv data metadata sys v1 restore"
    b" %2e%2e %2E%2E .%2e %2e %252e%252e %2f %2F %5c \\ %5C.. ..%2f.. %2e%2e%2fsys %2e%2e%5csys"
    b" %00 a%00b %0a %0d%0aX:y %20 + %7f %ff %c0%af %c0%ae %72estore"
    b" %ef%bc%8f %e2%80%ae e%cc%81 %c3%a9 %d0%b0 %ed%a0%80 \xc3\xa9 \xff"
    b" % %2 %zz %u002e ..; ;a=b a;b * ** {id} ~ @ : $(x)"
).split()
BEGINNINGS: Final = (
    b"/v1/secrets/ext/",
    b"/v1/secrets/ext",
    b"/v1/secrets/",
    b"/v1/secrets//ext/",
    b"//v1/secrets/ext/",
    b"/v1//secrets/ext/",
    b"/v1/./secrets/ext/",
    b"/v1/x/../secrets/ext/",
    b"/%76%31/secrets/ext/",
    b"/v1/secrets/ext/a/../",
    b"http://svsync/v1/secrets/ext/",
    b"http://elsewhere:1/v1/secrets/ext/",
    b"https://svsync/v1/secrets/ext/",
    b"//elsewhere/v1/secrets/ext/",
    b"http://a@svsync/v1/secrets/ext/",
)
TARGETS: Final = st.builds(
    lambda beginning, pieces, end: beginning + b"/".join(pieces) + end,
    st.sampled_from(BEGINNINGS),
    st.lists(
        st.sampled_from([*PIECES, b"", b"a b", b"a" * 200]) | st.binary(max_size=4), max_size=5
    ),
    st.sampled_from(b"\n/\n?\n?version=1\n?versions=true\n#x\n?a=%00\n??\n?%".split(b"\n")),
)


@pytest.fixture
async def store(canary: Canary) -> AsyncIterator[Overheard]:
    async with overhearing({"k": canary.marker}) as opened:
        yield opened


@pytest.fixture
async def through(
    database_url: str, admin_url: str, state_dir: Path, store: Overheard
) -> AsyncIterator[Front]:
    """The API of a house that reads `ext/**` through to the store that listens."""
    spec = backend(
        (RuleSpec("ext/**", "kv/data/**"),),
        type="hashicorp-vault",
        mode=Mode.PROXY,
        config={"endpoint": store.url, "auth_method": "token", "auth_config_path": "env:TOKEN"},
    )
    environ = {"TOKEN": "s.token"}
    async with (
        open_house(database_url, admin_url, state_dir, spec, environ=environ) as house,
        open_front(house) as front,
    ):
        yield front


@fuzzed
@given(
    target=TARGETS,
    method=st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE"]),
)
@example(target=b"/v1/secrets/ext/a", method="GET")
@example(target=b"/v1/secrets/ext/%2e%2e/%2e%2e/sys/raw/x", method="GET")
@example(target=b"/v1/secrets/ext/a%2fb", method="GET")
@example(target=b"*", method="OPTIONS")
@example(target=b"svsync:443", method="CONNECT")
@example(target=b"", method="GET")
@example(target=b"/v1/secrets/ext/a HTTP/1.1\r\nX: y", method="GET")
async def test_no_path_leads_elsewhere_in_a_backend(
    through: Front, store: Overheard, target: bytes, method: str
) -> None:
    assume(b"\r" not in target or target.startswith(b"/v1/secrets/ext/a HTTP"))
    store.targets.clear()
    sent = request_of(through, method, target, b"X-Request-Id: mine")
    answer = await answered(through, sent, head=method == "HEAD")
    for verb, arrived in store.targets:
        if arrived == "/v1/auth/token/lookup-self":
            continue
        assert verb == "GET"
        place = arrived.replace("/v1/sys/internal/ui/mounts/kv/", "/v1/kv/", 1)
        assert SECRET.fullmatch(place), arrived
    if answer.status == 200 and method == "GET" and b"ext/" in target:
        assert LOCAL.fullmatch(answer.json()["path"]), target


async def test_a_path_that_is_read_through_arrives_as_it_was_named(
    through: Front, store: Overheard
) -> None:
    """So what the other tests here overhear is what the backend is asked."""
    for path in ("a", "a/b", "A-1/b.c/d_e"):
        answer = await answered(
            through, request_of(through, "GET", f"/v1/secrets/ext/{path}".encode())
        )
        assert answer.status == 200
        assert store.targets[-1] == ("GET", f"/v1/kv/data/{path}")


@pytest.mark.parametrize("path", ["a%0ab", "%0a", "a%0d%0a/b", "a%00", "a/", "..%2fa", "%2e%2e"])
async def test_a_path_that_no_secret_can_have_is_told_as_that_by_each_method(
    front: Front, path: str
) -> None:
    for method in ("GET", "PUT", "DELETE"):
        sent = request_of(front, method, f"/v1/secrets/{path}".encode(), body=b'{"data": {}}')
        answer = await answered(front, sent)
        assert (answer.status, answer.code) == (422, "illegal_path")


# --- bodies ---------------------------------------------------------------------------

NUMBERS: Final = (
    *["1E400", "-1E400", "1e-400", "-0", "1.10", "12345678901234567890123", "NaN", "Infinity"],
    *["0x1", "01", "1.", ".5", "+1", "1_000"],
    "9" * 400,
    "9" * 5_000,
)


def texts(marker: str) -> st.SearchStrategy[str]:
    """The text of a value with the marker in it: JSON, or nearly."""
    quoted = json.dumps(marker)
    odd = [
        f'"{marker}{end}'
        for end in ('"', "", '\\ud800"', '\\u0000"', '\\x"', '\t"', '",', '\u2028"')
    ]
    leaf = st.sampled_from(
        [quoted, f"'{marker}'", f"/* {marker} */ 1", "null", "true", *odd, *NUMBERS]
    )

    def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        names = st.sampled_from([f'"{marker}"', '"a"', '"a"', '""', '"__proto__"', '"\\u0061"'])
        members = st.lists(st.tuples(names, inner), max_size=3)
        return st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]") | members.map(
            lambda pairs: "{" + ",".join(f"{name}: {value}" for name, value in pairs) + "}"
        )

    nested = st.integers(0, 70).map(lambda n: '{"a":' * n + json.dumps(marker) + "}" * n)
    return st.recursive(leaf, deeper, max_leaves=6) | nested


@fuzzed
@given(data=st.data())
async def test_a_value_is_kept_to_the_byte_or_refused_without_a_word_of_it(
    front: Front, canary: Canary, log: StringIO, data: st.DataObject
) -> None:
    log.truncate(0)
    text = data.draw(texts(canary.marker))
    before = data.draw(st.sampled_from(["", " ", "\ufeff", '"data": 1, ']))
    body = f'{{{before}"data": {text}}}'.encode("utf-8", "surrogatepass")
    answer = await answered(front, request_of(front, "PUT", b"/v1/secrets/app/a", body=body))
    assert answer.status in (200, 201, 400, 422), text
    assert not canary.found_in(log.getvalue())
    if answer.status >= 400:
        assert not canary.found_in(answer.body)
        return
    found = await answered(front, request_of(front, "GET", b"/v1/secrets/app/a"))
    assert f'"data":{text},'.encode() in found.body
    assert json.loads(found.body)["data"] == json.loads(text)


HOUSE: Final = f"/v1/federation/backends/{BACKEND}"
PLACES: Final = (
    "GET /v1/secrets?cursor={}",
    "GET /v1/secrets/app/a?version={}",
    "GET /v1/audit/logs?from={}",
    "GET /v1/audit/logs?cursor={}",
    "GET /v1/audit/logs?token={}",
    "GET /v1/federation/backends?cursor={}",
    f"GET {HOUSE}/conflicts?path={{}}",
    f"GET {HOUSE}/secrets?state={{}}",
    f"GET {HOUSE}/secrets?prefix={{}}",
    "DELETE /v1/policies/x?{}=1",
)
FORMS: Final = ("{}", "%00{}", "%ff{}", "{}%0d%0aX:%20y", "%ed%a0%80{}")


@pytest.mark.parametrize("place", PLACES)
async def test_what_stands_in_a_query_is_neither_logged_nor_a_mistake_of_ours(
    front: Front, canary: Canary, log: StringIO, place: str
) -> None:
    method, target = place.split()
    for form in FORMS:
        text = form.format(canary.marker)
        answer = await answered(front, request_of(front, method, target.format(text).encode()))
        assert answer.status in (200, 404, 422)
        assert not canary.found_in(log.getvalue())


KEYS: Final = [
    "name",
    "type",
    "config",
    "path_mapping",
    "rules",
    "path",
    "permission",
    "identity_id",
    "identity_type",
    "resolution",
    "paths",
    "secret_type",
    "metadata",
    "options",
    "data",
    "url",
    "types",
]
ODD: Final = [
    "\x00",
    "\u202e",
    "é",
    "../..",
    "env:HOME",
    "file:/etc/passwd",
    "https://169.254.169.254/",
    "http://[::1]/",
    "**",
    "a/**",
    "sa:robot",
    "memory",
    "hashicorp-vault",
]
ANY_JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
    | st.sampled_from(ODD),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=10,
)
TAKERS: Final = (
    "POST /v1/federation/backends",
    f"PATCH {HOUSE}",
    f"POST {HOUSE}/conflicts/resolve",
    "POST /v1/policies",
    "POST /v1/policies/test",
    "POST /v1/policies/p/bindings",
    "PATCH /v1/policies/p",
    "PUT /v1/secrets/app/a",
    "POST /v1/secrets/app/a/restore",
)


@fuzzed
@given(
    taker=st.sampled_from(TAKERS),
    body=st.dictionaries(st.sampled_from(KEYS), ANY_JSON, max_size=6),
)
async def test_no_body_of_json_is_a_mistake_of_ours(
    front: Front, taker: str, body: dict[str, Any]
) -> None:
    method, path = taker.split()
    sent = request_of(front, method, path.encode(), body=json.dumps(body).encode())
    assert (await answered(front, sent)).status < 500
