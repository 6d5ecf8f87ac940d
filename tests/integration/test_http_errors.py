"""Does every answer keep to one form, whatever was sent?"""

import json
from io import BytesIO
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api import BACKENDS, Front, open_front
from tests.house import BACKEND, House

from svsync.domain.errors import BackendError, KeyServiceError
from svsync.domain.ids import TenantId

SYNC = f"{BACKENDS}/{BACKEND}/sync"

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["paths", "full", "allow", "x", ""]), inner, max_size=4)
    ),
    max_leaves=8,
)
BODIES = (
    st.binary(max_size=64)
    | ANY_JSON.map(lambda value: json.dumps(value).encode())
    | st.text(max_size=32).map(lambda text: json.dumps({"paths": [text]}).encode())
    | st.text(alphabet='{}[]":,0pathsfull\\ud\x00', max_size=40).map(str.encode)
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=BODIES)
async def test_no_body_is_a_mistake_of_ours(front: Front, body: bytes) -> None:
    answer = await front.client.post(SYNC, data=body)
    assert answer.status in (202, 400, 422)


async def test_a_body_that_is_no_json_object_is_malformed(front: Front) -> None:
    for body, word in (
        (b"{", "line 1, column 2"),
        (b"[]", "must be a JSON object"),
        (b'"a"', "must be a JSON object"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"full": true, "full": true}', "full: stands twice"),
        (b'{"paths": [{"a": 1, "a": 2}]}', "a: stands twice"),
        (b'{"full": NaN}', "NaN is not JSON"),
        (b'{"full": -Infinity}', "-Infinity is not JSON"),
        (b'{"full": 1e999}', "beyond the range"),
        (b'{"full": ' + b"9" * 5000 + b"}", "too long"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"full": true} {}', "line 1, column 16"),
    ):
        answer = await front.client.post(SYNC, data=body)
        assert answer.told == (400, "malformed_body")
        assert word in answer.body["error"]["message"]


async def test_a_body_nested_beyond_its_kinds_is_refused(front: Front) -> None:
    body = b'{"paths": ' + b"[" * 200 + b"]" * 200 + b"}"
    assert (await front.client.post(SYNC, data=body)).status == 422


async def test_a_body_is_limited_in_size(front: Front) -> None:
    just = b'{"full": true}'.ljust(1024 * 1024)
    assert (await front.client.post(SYNC, data=BytesIO(just))).status == 202
    answer = await front.client.post(SYNC, data=BytesIO(just + b" "))
    assert answer.told == (413, "body_too_large")


async def test_a_body_in_a_coding_is_not_unpacked(front: Front) -> None:
    packed = b"\x1f\x8b" + bytes(100)
    answer = await front.client.post(SYNC, data=packed, headers={"Content-Encoding": "gzip"})
    assert answer.told == (415, "unsupported_coding")


async def test_a_body_is_for_those_that_take_one(front: Front) -> None:
    for verb in ("pause", "resume"):
        path = f"{BACKENDS}/{BACKEND}/{verb}"
        assert (await front.client.post(path, json={})).status == 200
        answer = await front.client.post(path, json={"for": "1h"})
        assert (answer.told, answer.body["error"]["field"]) == ((422, "unknown_field"), "for")


async def test_what_a_query_may_not_hold_is_refused_by_its_name(front: Front) -> None:
    for query, field in (
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=run_x", "cursor"),
        ("cursor=%00", "cursor"),
        ("limt=2", "limt"),
        ("access_token=secret-text", "access_token"),
    ):
        answer = await front.client.get(f"{BACKENDS}/{BACKEND}/runs?{query}")
        assert (answer.status, answer.body["error"]["field"]) == (422, field)
        assert "secret-text" not in json.dumps(answer.body)


async def test_paths_and_methods_that_are_not_there_keep_the_form(front: Front) -> None:
    for path in ("/", "/v1", "/v1/", "/v1/nothing", f"{SYNC}/", "//v1/federation/backends"):
        assert (await front.client.get(path)).told == (404, "not_found")
    for method in ("OPTIONS", "PUT", "PATCH", "DELETE", "GET"):
        answer = await front.client.call(method, SYNC)
        assert answer.told == (405, "method_not_allowed")
        assert answer.headers["Allow"] == "POST"


async def test_head_says_what_get_would_without_its_body(front: Front) -> None:
    for path, status in ((BACKENDS, 200), (f"{BACKENDS}/nobody", 404), (SYNC, 405)):
        answer = await front.client.call("HEAD", path)
        assert (answer.status, answer.body) == (status, "")


async def test_a_request_keeps_the_id_it_brings_where_it_is_one(front: Front) -> None:
    for given_id in ("a", "Req.1_2-3", "x" * 128):
        answer = await front.client.get(BACKENDS, headers={"X-Request-Id": given_id})
        assert answer.headers["X-Request-Id"] == given_id
    for given_id in ("", "a b", "x" * 129, "ä", 'a"b'):
        answer = await front.client.get("/v1/no", headers={"X-Request-Id": given_id})
        made = answer.headers["X-Request-Id"]
        assert made.startswith("req_")
        assert answer.body["error"]["request_id"] == made


async def test_no_answer_is_kept_by_a_cache_or_tells_of_the_server(front: Front) -> None:
    for path in (BACKENDS, "/healthz", "/readyz", "/v1/no"):
        headers = (await front.client.get(path)).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Server"] == "svsync"


async def test_a_mistake_of_ours_tells_nothing_but_that(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_tenant: TenantId) -> Any:
        raise RuntimeError("with a value in it")

    monkeypatch.setattr(house.app.federation, "list_backends", broken)
    async with open_front(house) as front:
        answer = await front.client.get(BACKENDS)
    assert answer.told == (500, "internal")
    assert "value" not in json.dumps(answer.body)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        # A backend of somebody else's may have codes of its own; the list is closed all the same.
        (BackendError("m", operation="read", code="odd_vendor_code"), (502, "backend_error")),
        # What no wait mends is no 503.
        (KeyServiceError("m", code="value_unreadable"), (500, "value_unreadable")),
        (KeyServiceError("m"), (503, "key_unavailable")),
        (web.HTTPGone(), (500, "internal")),
    ],
)
async def test_a_code_is_one_of_the_list_whatever_was_raised(
    house: House, monkeypatch: pytest.MonkeyPatch, error: Exception, told: tuple[int, str]
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(house.app.reading, "read", broken)
    async with open_front(house) as front:
        answer = await front.client.get("/v1/secrets/app/a")
    assert answer.told == told
    assert ("Retry-After" in answer.headers) == (answer.status == 503)
