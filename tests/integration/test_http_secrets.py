"""Secrets over HTTP: written, deleted, restored, and their history; what is kept and told."""

import json
from io import BytesIO, StringIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api import ROBOT, Answer, Client, Front, open_front
from tests.house import House
from tests.integration.test_http_access import log
from tests.integration.test_reading import allow
from tests.writes import fall_down, lose, through

from svsync.domain.access import Scope
from svsync.domain.federation import ConflictPolicy, Mode, Writes

__all__ = ["log", "through"]

A = "/v1/secrets/app/a"
MARK = "canary-5f1c"


async def put(client: Client, path: str = A, data: Any = None, **more: Any) -> Answer:
    headers = more.pop("headers", {})
    body = {"data": {"k": "1"} if data is None else data, **more}
    return await client.call("PUT", path, json=body, headers=headers)


async def put_text(client: Client, data: str, path: str = A) -> Answer:
    return await client.call("PUT", path, data=BytesIO(f'{{"data": {data}}}'.encode()))


async def writer(front: Front, *permissions: str, pattern: str = "app/**") -> Client:
    """Somebody with both scopes and these permissions."""
    if permissions:
        await allow(front, pattern, *permissions)
    token = await front.token(Scope.SECRETS_READ, Scope.SECRETS_WRITE)
    return front.client.with_token(token)


async def recorded(front: Front) -> list[tuple[str, str | None, str]]:
    rows = await front.house.admin.fetch(
        "SELECT action, secret_path, decision FROM audit ORDER BY at, chain_id, seq"
    )
    return [tuple(row) for row in rows]


# --- put ----------------------------------------------------------------------------


async def test_a_secret_is_made_and_written_again(front: Front) -> None:
    made = await put(front.client, data={"k": "1"}, metadata={"tags": ["b", "a"], "owner": "me"})
    assert (made.status, made.headers["ETag"]) == (201, '"v1"')
    assert made.body["metadata"] == {
        "tags": ["a", "b"], "owner": "me", "description": None, "custom": {},
    }  # fmt: skip
    assert made.body["write_through"] == {"state": "not_configured", "push_id": None}
    again = await put(front.client, data={"k": "2"}, secret_type="password")
    assert (again.status, again.body["version"], again.headers["ETag"]) == (200, 2, '"v2"')
    assert again.body["metadata"]["tags"] == ["a", "b"]
    found = (await front.client.get(A)).body
    assert (found["data"], found["secret_type"]) == ({"k": "2"}, "password")
    rows = await front.house.rows("versions")
    assert {row["created_by"] for row in rows} == {ROBOT.id}


async def test_null_takes_owner_and_description_away(front: Front) -> None:
    await put(front.client, metadata={"owner": "me", "description": "two\nlines"})
    kept = await put(front.client, metadata={"tags": ["t"]})
    assert (kept.body["metadata"]["owner"], kept.body["metadata"]["tags"]) == ("me", ["t"])
    gone = await put(front.client, metadata={"owner": None, "description": None})
    assert gone.body["metadata"]["owner"] is gone.body["metadata"]["description"] is None


@pytest.mark.parametrize(
    "text",
    [
        '{"n": 1.10}',
        '{"n": 12345678901234567890123}',
        '{ "n" :\t-0, "m": 1e0, "deep": [ {"x": 0.1000} ] }',
        '{"s": "\\u00e9\\/é"}',
        "{}",
    ],
)
async def test_data_is_kept_to_the_byte(front: Front, text: str) -> None:
    body = f'{{"secret_type": "x" , "data" : {text} , "metadata": {{}}}}'.encode()
    assert (await front.client.call("PUT", A, data=body)).status == 201
    async with front.client.session.get(
        front.client.url + A, headers={"Authorization": f"Bearer {front.client.token}"}
    ) as response:
        assert f'"data":{text},'.encode() in await response.read()


@pytest.mark.parametrize(
    ("data", "told", "word"),
    [
        ('{"n": 1E400}', (400, "malformed_body"), "range of doubles"),
        ('{"n": 1' + "0" * 400 + "}", (400, "malformed_body"), "range of doubles"),
        ('{"n": 1' + "0" * 5000 + "}", (400, "malformed_body"), "range of doubles"),
        ('{"n": NaN}', (400, "malformed_body"), "NaN"),
        ('{"k": 1, "k": 2}', (400, "malformed_body"), "same name"),
        ('{"k": "\\ud800"}', (400, "malformed_body"), "surrogate"),
        ('{"k": ' * 65 + "1" + "}" * 65, (422, "too_deep"), "64 levels"),
        ('{"k": ' * 20_000 + "1" + "}" * 20_000, (400, "malformed_body"), "too deeply"),
        ('"text"', (422, "invalid_field"), "must be an object"),
        ("[1]", (422, "invalid_field"), "must be an object"),
        ("null", (422, "invalid_field"), "must be an object"),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_a_value_that_readers_read_differently_is_refused(
    front: Front, data: str, told: tuple[int, str], word: str
) -> None:
    answer = await put_text(front.client, data)
    assert answer.told == told
    assert word in answer.body["error"]["message"]
    assert not await front.house.rows("secrets")


async def test_a_value_may_have_a_mebibyte_and_no_more(front: Front) -> None:
    room = 1024 * 1024 - len('{"k": ""}')
    assert (await put_text(front.client, f'{{"k": "{"x" * room}"}}')).status == 201
    answer = await put_text(front.client, f'{{"k": "{"x" * (room + 1)}"}}')
    assert (answer.told, answer.body["error"]["field"]) == ((422, "value_too_large"), "data")
    much = b'{"data": {}}'.ljust(1024 * 1024 + 256 * 1024 + 1)
    assert (await front.client.call("PUT", A, data=BytesIO(much))).told == (413, "body_too_large")


async def test_the_room_for_a_value_is_no_room_for_other_bodies(front: Front) -> None:
    await put(front.client)
    much = b"{}".ljust(1024 * 1024 + 1)
    answer = await front.client.post(f"{A}/restore", data=BytesIO(much))
    assert answer.told == (413, "body_too_large")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "data"),
        ({"data": {}, "dat": 1}, "dat"),
        ({"data": {}, "secret_type": ""}, "secret_type"),
        ({"data": {}, "secret_type": "x" * 65}, "secret_type"),
        ({"data": {}, "metadata": []}, "metadata"),
        ({"data": {}, "metadata": {"tag": []}}, "metadata.tag"),
        ({"data": {}, "metadata": {"tags": ["a", ""]}}, "metadata.tags[1]"),
        ({"data": {}, "metadata": {"tags": ["a\u0000"]}}, "metadata.tags[0]"),
        ({"data": {}, "metadata": {"tags": ["a"] * 101}}, "metadata.tags"),
        ({"data": {}, "metadata": {"owner": 1}}, "metadata.owner"),
        ({"data": {}, "metadata": {"custom": {"a": 1}}}, "metadata.custom.a"),
        ({"data": {}, "metadata": {"custom": {"": "1"}}}, "metadata.custom"),
        ({"data": {}, "options": {"cas": -1}}, "options.cas"),
        ({"data": {}, "options": {"cas": 2**31}}, "options.cas"),
        ({"data": {}, "options": {"cas": True}}, "options.cas"),
        ({"data": {}, "options": {"max_versions": 0}}, "options.max_versions"),
        ({"data": {}, "options": {"skip_if_equal": 1}}, "options.skip_if_equal"),
    ],
)
async def test_what_cannot_be_used_is_refused_by_its_name(
    front: Front, body: dict[str, Any], field: str
) -> None:
    answer = await front.client.call("PUT", A, json=body)
    assert (answer.status, answer.body["error"]["field"]) == (422, field)


async def test_a_name_without_end_is_not_repeated_whole(front: Front) -> None:
    body = {"data": {}, "metadata": {"n" * 100_000: 1}}
    answer = await front.client.call("PUT", "/v1/secrets/app/a", json=body)
    assert answer.told == (422, "invalid_field")
    assert len(json.dumps(answer.body)) < 1_000


async def test_a_path_that_is_none_is_refused_for_every_write(front: Front) -> None:
    for path in ("a//b", "a%5cb", "a%00b", "a%20b", "%e2%82%ac", "a" * 513):
        for method, end in (("PUT", ""), ("DELETE", ""), ("POST", "/restore")):
            answer = await front.client.call(method, f"/v1/secrets/{path}{end}")
            assert (answer.status, answer.code) == (422, "illegal_path")


async def test_an_equal_value_makes_no_version_where_it_is_asked_for(front: Front) -> None:
    await put(front.client, data={"n": 1.1})
    same = await put(front.client, data={"n": 1.1}, options={"skip_if_equal": True})
    assert (same.status, same.body["version"]) == (200, 1)
    assert (await put(front.client, data={"n": 1.1})).body["version"] == 2


# --- conditions ---------------------------------------------------------------------


async def test_cas_that_does_not_match_is_409_and_if_match_is_412(front: Front) -> None:
    await put(front.client)
    assert (await put(front.client, options={"cas": 2})).told == (409, "version_conflict")
    answer = await put(front.client, headers={"If-Match": '"v2"'})
    assert (answer.told, answer.body["error"]["field"]) == ((412, "version_conflict"), "If-Match")
    gone = await front.client.call("DELETE", A, headers={"If-Match": '"v2"'})
    assert gone.told == (412, "version_conflict")
    back = await front.client.post(
        f"{A}/restore", json={"version": 1}, headers={"If-Match": '"v2"'}
    )
    assert back.told == (412, "version_conflict")
    assert (await front.house.row("secrets"))["current_version"] == 1
    etag = (await front.client.get(A)).headers["ETag"]
    assert (await put(front.client, headers={"If-Match": etag})).body["version"] == 2
    assert (await put(front.client, options={"cas": 2})).body["version"] == 3
    gone = await front.client.call("DELETE", A, headers={"If-Match": '"v3"'})
    assert gone.status == 204


async def test_a_secret_is_only_made_where_there_is_none(front: Front) -> None:
    only = {"If-None-Match": "*"}
    assert (await put(front.client, headers=only)).status == 201
    assert (await put(front.client, headers=only)).told == (412, "version_conflict")
    assert (await put(front.client, options={"cas": 0})).told == (409, "version_conflict")


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": "*"},
        {"If-Match": "v1"},
        {"If-Match": 'W/"v1"'},
        {"If-Match": '"v1", "v2"'},
        {"If-Match": '"v0"'},
        {"If-Match": '"v9999999999"'},
        {"If-None-Match": '"v1"'},
        {"If-Match": '"v1"', "If-None-Match": "*"},
    ],
    ids=str,
)
async def test_a_condition_that_means_nothing_here_is_refused(
    front: Front, headers: dict[str, str]
) -> None:
    await put(front.client)
    assert (await put(front.client, headers=headers)).told == (422, "invalid_field")
    assert (await front.house.row("secrets"))["current_version"] == 1


async def test_conditions_that_contradict_each_other_are_refused(front: Front) -> None:
    await put(front.client)
    answer = await put(front.client, headers={"If-Match": '"v1"'}, options={"cas": 2})
    assert answer.told == (422, "invalid_field")


# --- delete, restore, history --------------------------------------------------------


async def test_a_secret_is_deleted_and_brought_back(front: Front) -> None:
    await put(front.client, data={"k": "1"})
    await put(front.client, data={"k": "2"})
    gone = await front.client.call("DELETE", A)
    assert (gone.status, gone.headers["X-SVSync-Write-Through"]) == (204, "not_configured")
    assert (await front.client.get(A)).told == (404, "secret_not_found")
    assert (await front.client.call("DELETE", A)).told == (404, "secret_not_found")
    back = await front.client.post(f"{A}/restore")
    assert (back.status, back.body["version"], back.headers["ETag"]) == (200, 3, '"v3"')
    assert (await front.client.get(A)).body["data"] == {"k": "2"}
    assert (await front.client.post(f"{A}/restore")).told == (409, "not_deleted")
    older = await front.client.post(f"{A}/restore", json={"version": 1})
    assert older.body["version"] == 4
    assert (await front.client.get(A)).body["data"] == {"k": "1"}
    none = await front.client.post(f"{A}/restore", json={"version": 9})
    assert none.told == (404, "version_not_found")
    assert (await front.client.post("/v1/secrets/app/b/restore")).status == 404
    assert (await put(front.client, "/v1/secrets/app/b")).status == 201


async def test_a_path_that_was_deleted_is_made_anew(front: Front) -> None:
    await put(front.client)
    await front.client.call("DELETE", A)
    anew = await put(front.client)
    assert (anew.status, anew.body["version"]) == (201, 2)


async def test_restore_of_a_deleted_secret_overwrites_nothing_that_came_meanwhile(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(front.client, data={"k": "old"})
    await front.client.call("DELETE", A)
    writes = front.house.app.writes
    bring = type(writes).write

    async def overtaken(self: Any, *args: Any, **named: Any) -> Any:
        monkeypatch.setattr(type(writes), "write", bring)
        await front.house.write("app/a", {"k": "theirs"})
        return await bring(self, *args, **named)

    monkeypatch.setattr(type(writes), "write", overtaken)
    assert (await front.client.post(f"{A}/restore")).told == (409, "version_conflict")
    assert await front.house.data("app/a") == {"k": "theirs"}


async def test_history_is_told_newest_first_and_in_pages(front: Front) -> None:
    for n in range(3):
        await put(front.client, data={"k": MARK + str(n)})
    await front.client.call("DELETE", A)
    whole = (await front.client.get(f"{A}?versions=true")).body
    assert [v["version"] for v in whole["versions"]] == [3, 2, 1]
    assert whole["next_cursor"] is None
    assert {v["created_by"] for v in whole["versions"]} == {ROBOT.id}
    assert MARK not in json.dumps(whole)
    first = (await front.client.get(f"{A}?versions=true&limit=2")).body
    assert [v["version"] for v in first["versions"]] == [3, 2]
    rest = (await front.client.get(f"{A}?versions=true&cursor={first['next_cursor']}")).body
    assert [v["version"] for v in rest["versions"]] == [1]
    for query in ("limit=1", "versions=false&cursor=1", "versions=true&version=1"):
        assert (await front.client.get(f"{A}?{query}")).status == 422


async def test_history_is_for_whoever_may_read_or_list(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    client = await writer(front, "write", "delete")
    assert (await client.get(f"{A}?versions=true")).told == (404, "secret_not_found")
    for permission in ("list", "read"):
        await front.house.admin.execute("DELETE FROM policy_rules")
        await allow(front, "app/**", permission)
        assert (await client.get(f"{A}?versions=true")).status == 200
        missing = await client.get("/v1/secrets/app/b?versions=true")
        assert missing.told == (404, "secret_not_found")
    assert [row[0] for row in await recorded(front)] == ["secret.history"] * 5


# --- who may ------------------------------------------------------------------------


async def test_each_write_needs_its_permission_and_is_recorded(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    client = await writer(front, "read")
    assert (await put(client)).told == (403, "forbidden")
    assert (await client.call("DELETE", A)).told == (403, "forbidden")
    assert (await client.post(f"{A}/restore")).told == (403, "forbidden")
    assert await recorded(front) == [
        ("secret.write", "app/a", "deny"),
        ("secret.delete", "app/a", "deny"),
        ("secret.restore", "app/a", "deny"),
    ]
    await allow(front, "app/**", "write", "delete")
    assert (await put(client)).status == 200
    assert (await client.call("DELETE", A)).status == 204
    assert (await client.post(f"{A}/restore")).status == 200
    assert [row[2] for row in await recorded(front)] == ["deny"] * 3 + ["allow"] * 3


async def test_who_may_not_know_of_a_path_learns_nothing_by_writing(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    client = await writer(front)
    for method, end in (("PUT", ""), ("DELETE", ""), ("POST", "/restore")):
        body: dict[str, Any] = {"data": {}} if method == "PUT" else {}
        there = await client.call(method, f"{A}{end}", json=body)
        missing = await client.call(method, f"/v1/secrets/app/b{end}", json=body)
        assert there.told == missing.told
        texts = [one.body["error"]["message"] for one in (there, missing)]
        assert texts[0].replace("app/a", "") == texts[1].replace("app/b", "")
    assert await front.house.data("app/a") == {"k": "1"}


async def test_another_tenants_secrets_are_not_there(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    stranger = front.client.with_token(await front.other_tenant())
    for method, end in (("GET", ""), ("DELETE", ""), ("POST", "/restore"), ("GET", "?versions=1")):
        answer = await stranger.call(method, f"{A}{end.replace('=1', '=true')}")
        assert answer.told == (404, "secret_not_found")
    assert (await stranger.get("/v1/secrets")).body["secrets"] == []
    assert (await put(stranger, data={"k": "theirs"})).status == 201
    assert await front.house.data("app/a") == {"k": "1"}
    assert [s["path"] for s in (await stranger.get("/v1/secrets")).body["secrets"]] == ["app/a"]


# --- write-through ------------------------------------------------------------------


async def test_a_write_goes_through_and_says_so(through: House) -> None:
    async with open_front(through) as front:
        answer = await put(front.client, "/v1/secrets/ext/a", {"k": "2"})
        assert (answer.status, answer.body["write_through"]["state"]) == (200, "applied")
        assert answer.body["write_through"]["push_id"].startswith("psh_")


async def test_a_change_in_the_backend_that_nobody_saw_is_409(through: House) -> None:
    through.there.put("kv/a", {"k": MARK})
    async with open_front(through) as front:
        answer = await put(front.client, "/v1/secrets/ext/a", {"k": "2"})
    assert answer.told == (409, "remote_changed")
    assert MARK not in json.dumps(answer.body)


async def test_a_backend_that_is_away_is_502(through: House) -> None:
    fall_down(through)
    async with open_front(through) as front:
        answer = await put(front.client, "/v1/secrets/ext/a", {"k": "2"})
        assert answer.told == (502, "backend_unreachable")
        assert (await front.client.get("/v1/secrets/ext/a")).body["data"] == {"k": "1"}


async def test_a_lost_answer_is_504_with_its_push_also_when_it_is_repeated(
    through: House,
) -> None:
    lose(through, applied=True)
    key = {"Idempotency-Key": "once"}
    async with open_front(through) as front:
        answer = await put(front.client, "/v1/secrets/ext/a", {"k": "2"}, headers=key)
        assert answer.told == (504, "write_outcome_unknown")
        push = await through.row("pushes")
        assert answer.body["error"]["push_id"] == push["push_id"]
        again = await put(front.client, "/v1/secrets/ext/a", {"k": "2"}, headers=key)
        assert again.told == answer.told
        assert again.body["error"]["push_id"] == push["push_id"]
        assert len(await through.rows("pushes")) == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"writes": Writes.DISABLED}, "federated_path_read_only"),
        ({"mode": Mode.PROXY}, "proxied_path_read_only"),
    ],
    ids=["disabled", "proxy"],
)
async def test_a_path_that_is_written_elsewhere_is_405(
    house: House, changes: dict[str, Any], code: str
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.configure(**changes)
    async with open_front(house) as front:
        bodies: dict[str, Any] = {"PUT": {"data": {}}, "DELETE": {}}
        for method, body in bodies.items():
            answer = await front.client.call(method, "/v1/secrets/ext/a", json=body)
            assert answer.told == (405, code)
            assert answer.headers["Allow"] == "GET, HEAD"


async def test_under_local_wins_an_outage_blocks_nobody(through: House) -> None:
    await through.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    fall_down(through)
    async with open_front(through) as front:
        answer = await put(front.client, "/v1/secrets/ext/a", {"k": "2"})
        assert (answer.status, answer.body["write_through"]["state"]) == (200, "pending")
        assert (await front.client.get("/v1/secrets/ext/a")).body["data"] == {"k": "2"}


# --- whatever is sent ---------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "data",
                    "metadata",
                    "options",
                    "tags",
                    "owner",
                    "custom",
                    "cas",
                    "secret_type",
                    "x",
                    "",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
_SECRET = st.text(max_size=12).map(lambda text: MARK + text)
_BODIES = (
    st.binary(max_size=64)
    | _JSON.map(lambda value: json.dumps(value).encode())
    | st.tuples(_SECRET, _JSON).map(
        lambda pair: json.dumps({"data": {pair[0]: pair[0]}, "metadata": pair[1]}).encode()
    )
    | st.tuples(_SECRET, st.text(alphabet='{}[]":,\\u0Ee1-', max_size=12)).map(
        lambda pair: b'{"data": {"k": ' + json.dumps(pair[0]).encode() + pair[1].encode()
    )
    | st.text(alphabet='{}[]":,0data\\ud\x00', max_size=40).map(str.encode)
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=_BODIES)
async def test_no_body_is_a_mistake_of_ours_and_no_value_is_told(
    front: Front, log: StringIO, body: bytes
) -> None:
    answer = await front.client.call("PUT", A, data=body)
    assert answer.status in (200, 201, 400, 422)
    if answer.status >= 400:
        assert MARK not in json.dumps(answer.body)
    for method, path in (("DELETE", f"{A}x"), ("POST", f"{A}x/restore")):
        answer = await front.client.call(method, path, data=body)
        assert answer.status in (400, 404, 422)
    assert MARK not in log.getvalue()
