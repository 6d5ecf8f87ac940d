"""Who gets in, with which scope, and what do the others learn?"""

import asyncio
import json
import re
from collections.abc import Iterator
from io import StringIO

import pytest
from multidict import CIMultiDict
from tests.api import BACKENDS, DOCUMENT, Front, documented, open_front
from tests.house import BACKEND, House

from svsync.config.model import LogFormat, LogLevel
from svsync.domain.access import Scope
from svsync.observe.logs import configure

HOUSE = f"{BACKENDS}/{BACKEND}"
NOBODYS = {"run": "run_" + "0" * 32, "path": "app/a", "secret_id": "fds_" + "0" * 32}
NOBODYS["token_id"] = "tok_" + "0" * 32
"""What stands in a path for each name in it, where it is no backend's."""

BODIES = {
    "/resolve": {"path": "ext/a", "resolution": "use_local"},
    "/feed-secrets": {"feed": "http"},
    "/map/test": {"paths": ["ext/a"]},
}
"""Of routes that look at their body first, by how they end."""


def _filled(path: str) -> str:
    def value(name: re.Match[str]) -> str:
        backends = path.startswith(BACKENDS) and name[1] == "id"
        return BACKEND if backends else NOBODYS.get(name[1], "0" * 32)

    return re.sub(r"\{(\w+)\}", value, path)


def _scope(method: str, path: str) -> Scope | None:
    about = DOCUMENT["paths"][path][method.lower()]["description"]
    named = re.search(r"Scope: `([a-z:]+)`", about)
    return Scope(named[1]) if named else None


GUARDED = sorted(
    (method, _filled(path), _scope(method, path))
    for method, path in documented()
    if path.startswith("/v1/")
)
OF_BACKENDS = [(method, path) for method, path, _ in GUARDED if path.startswith(BACKENDS)]


@pytest.fixture
def log() -> Iterator[StringIO]:
    """What is logged, as JSON lines."""
    stream = StringIO()
    configure(LogLevel.DEBUG, LogFormat.JSON, stream)
    yield stream
    configure(LogLevel.INFO, LogFormat.JSON)


async def test_no_route_answers_without_a_token(front: Front) -> None:
    nobody = front.client.with_token(None)
    for method, path, _ in GUARDED:
        answer = await nobody.call(method, path)
        assert answer.told == (401, "unauthenticated")
        front.now[0] += 1  # there are more routes than failures that are told why
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="svsync"'


async def test_each_route_needs_its_scope_and_no_other_does(front: Front) -> None:
    for method, path, needed in GUARDED:
        if needed is None:
            continue
        others = front.client.with_token(await front.token(*(set(Scope) - {needed, Scope.ADMIN})))
        answer = await others.call(method, path)
        assert answer.told == (403, "forbidden")
        assert needed in answer.body["error"]["message"]
        holder = front.client.with_token(await front.token(needed))
        answered = await holder.call(method, path)
        if answered.status == 403:  # the scope suffices, and no policy gives anything
            assert "policy" in answered.body["error"]["message"]
        else:
            assert answered.status in (200, 202, 404, 409, 422)


async def test_another_tenants_ids_are_as_unknown_as_those_of_nobody(front: Front) -> None:
    ended = await front.house.run()
    stranger = front.client.with_token(await front.other_tenant())
    for method, path in OF_BACKENDS:
        if path == BACKENDS:
            assert (await stranger.get(path)).body["backends"] == []
            continue
        sent = method == "POST"
        body = next((b for end, b in BODIES.items() if sent and path.endswith(end)), None)
        theirs = path.replace("run_" + "0" * 32, ended.record.run_id)
        foreign = await stranger.call(method, theirs, json=body)
        unknown = await stranger.call(method, theirs.replace(BACKEND, "fed_nobody"), json=body)
        assert foreign.told == unknown.told == (404, "backend_not_found")
        told = [answer.body["error"]["message"] for answer in (foreign, unknown)]
        assert told[0].replace(BACKEND, "") == told[1].replace("fed_nobody", "")
    assert (await front.house.row("backends"))["state"] == "active"
    assert len(await front.house.rows("runs")) == 1


async def test_a_token_in_another_tenants_name_does_not_count(front: Front) -> None:
    assert front.client.token is not None
    other = (await front.other_tenant()).split("_")[1]
    for text in (
        front.client.token.replace("svt_1_", f"svt_{other}_"),
        front.client.token.replace("svt_1_", "svt_2147483647_"),
        front.client.token[:-1] + ("0" if front.client.token[-1] != "0" else "1"),
    ):
        answer = await front.client.with_token(text).get(BACKENDS)
        assert answer.told == (401, "unauthenticated")
        assert answer.body["error"]["message"] == "the token is not valid here"


async def test_a_token_that_is_over_does_not_count_and_its_holder_learns_why(front: Front) -> None:
    expired = await front.token(Scope.ADMIN, expires_in=0)
    revoked = await front.token(Scope.ADMIN)
    await front.access.revoke((await front.access.verify(revoked)).tenant, _id(revoked))
    for text, word in ((expired, "expired"), (revoked, "revoked")):
        answer = await front.client.with_token(text).get(BACKENDS)
        assert answer.told == (401, "unauthenticated")
        assert word in answer.body["error"]["message"]


def _id(text: str) -> str:
    return f"tok_{text.split('_')[2]}"


async def test_revoking_holds_from_the_next_request_on(front: Front) -> None:
    text = await front.token(Scope.FEDERATION_READ)
    client = front.client.with_token(text)
    assert (await client.get(BACKENDS)).status == 200
    await front.access.revoke((await front.access.verify(text)).tenant, _id(text))
    assert (await client.get(BACKENDS)).status == 401


async def test_a_suspended_tenant_is_shut(front: Front) -> None:
    await front.house.admin.execute("UPDATE tenants SET status = 'suspended' WHERE tenant_id = 1")
    assert (await front.client.get(BACKENDS)).told == (403, "tenant_shut")


async def test_another_header_is_no_token(front: Front) -> None:
    nobody = front.client.with_token(None)
    for header in ("", "Bearer", "Bearer ", "Basic YTpi", "svt_1_x", "Bearer \xe4", "Bearer a b"):
        answer = await nobody.get(BACKENDS, headers={"Authorization": header})
        assert answer.told == (401, "unauthenticated")
    twice = CIMultiDict([("Authorization", f"Bearer {front.client.token}")] * 2)
    assert (await nobody.get(BACKENDS, headers=twice)).told == (401, "unauthenticated")


async def test_bytes_that_are_no_text_are_no_token(front: Front) -> None:
    for path in (BACKENDS, "/v1/secrets/app/a"):
        reader, writer = await asyncio.open_connection(front.listener.host, front.listener.port)
        head = (
            f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer svt_1_"
        )
        writer.write(head.encode() + b"\xff\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
        writer.close()


async def test_the_word_bearer_may_be_written_in_any_case(front: Front) -> None:
    given = {"Authorization": f"bEARER {front.client.token}"}
    assert (await front.client.with_token(None).get(BACKENDS, headers=given)).status == 200


async def test_failures_are_limited_and_a_valid_token_is_not(front: Front) -> None:
    nobody = front.client.with_token("svt_wrong")
    answers = [await nobody.get(BACKENDS) for _ in range(21)]
    assert [answer.status for answer in answers] == [401] * 20 + [429]
    assert answers[-1].code == "too_many_failures"
    assert answers[-1].headers["Retry-After"] == "10"
    assert (await front.client.get(BACKENDS)).status == 200
    front.now[0] += 10
    assert (await nobody.get(BACKENDS)).status == 401


async def test_failures_are_counted_by_the_client_behind_a_trusted_proxy(house: House) -> None:
    async with open_front(house, trusted_proxies=("127.0.0.0/8",)) as front:
        nobody = front.client.with_token(None)
        for address, status in (("192.0.2.1", 401), ("192.0.2.1", 429), ("192.0.2.2", 401)):
            for _ in range(20 if status == 401 else 1):
                answer = await nobody.get(BACKENDS, headers={"X-Forwarded-For": address})
                assert answer.status == status


async def test_what_cannot_be_known_is_not_guessed(front: Front) -> None:
    """Without its table no token counts, and nobody is told of the table."""
    await front.house.admin.execute("ALTER TABLE tokens RENAME TO gone")
    answer = await front.client.get(BACKENDS)
    assert answer.told == (500, "internal")
    assert "SQLSTATE" not in answer.body["error"]["message"]


async def test_each_request_is_one_line_without_token_and_query(
    front: Front, log: StringIO
) -> None:
    await front.client.get(f"{HOUSE}/runs?limit=7", headers={"X-Request-Id": "mine-1"})
    await front.client.get("/v1/any/thing%0ahere?token=xyzzy")
    await front.client.with_token("svt_1_wrong").get(BACKENDS)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    first, second, third = (line for line in lines if line["event"] == "request")
    assert (first["request_id"], first["method"], first["status"]) == ("mine-1", "GET", 200)
    assert first["route"] == f"{BACKENDS}/{{id}}/runs"
    assert first["path"] == f"{HOUSE}/runs"
    assert (first["tenant"], first["identity_id"]) == ("default", "sa:robot")
    assert first["address"] == "127.0.0.1"
    assert (second["status"], second["route"], second["path"]) == (404, None, None)
    assert (third["status"], third["error_code"]) == (401, "unauthenticated")
    told = log.getvalue()
    assert front.client.token is not None
    for word in (front.client.token, "limit=7", "xyzzy", "thing", "wrong", "dropped_fields"):
        assert word not in told
