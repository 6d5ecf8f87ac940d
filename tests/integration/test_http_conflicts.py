"""Conflicts over HTTP: who sees what of them, and what a decision takes."""

import json
from typing import Any

import pytest
from tests.api import BACKENDS, Answer, Client, Front
from tests.house import BACKEND, TENANT
from tests.integration.test_conflicts import HERE, THERE, disagree

from svsync.domain.access import Scope
from svsync.domain.bindings import Bound
from svsync.domain.federation import ConflictPolicy, Mode, Writes
from svsync.domain.policies import Permission
from svsync.services.policies import NewRule

HOUSE = f"{BACKENDS}/{BACKEND}"
AT = f"{HOUSE}/conflicts"
READ, WRITE, LIST, REVEAL = Permission.READ, Permission.WRITE, Permission.LIST, Permission.REVEAL
DELETE = Permission.DELETE


async def holder(front: Front, *permissions: Permission, pattern: str = "ext/*") -> Client:
    """Somebody with the scopes of federation, and these permissions on some paths."""
    if permissions:
        policies = front.house.app.policies
        name = f"p{len(await front.house.rows('policies'))}"
        await policies.create(TENANT, name, [NewRule(pattern, permissions)], by="cli:test")
        await policies.bind(TENANT, name, Bound.parse("sa:robot"), by="cli:test")
    token = await front.token(Scope.FEDERATION_READ, Scope.FEDERATION_WRITE)
    return front.client.with_token(token)


@pytest.fixture
async def frozen(front: Front) -> Front:
    """`ext/a` in an open conflict."""
    await open_conflict(front, "modify_modify")
    return front


async def open_conflict(front: Front, kind: str) -> None:
    await front.house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    await disagree(front.house, kind)
    await front.house.run()
    assert await front.house.status("ext/a") == "conflict"


async def listed(client: Client, query: str = "") -> Any:
    answer = await client.get(AT + query)
    assert answer.status == 200
    return answer.body["conflicts"]


async def resolve(client: Client, resolution: str, **more: Any) -> Answer:
    body = {"path": "ext/a", "resolution": resolution, **more}
    return await client.post(f"{AT}/resolve", json=body)


async def recorded(front: Front, action: str) -> list[tuple[str, str | None]]:
    rows = await front.house.admin.fetch(
        "SELECT decision, secret_path FROM audit WHERE action = $1 ORDER BY at", action
    )
    return [(row["decision"], row["secret_path"]) for row in rows]


def of_values(conflicts: Any) -> list[str]:
    """The values of both sides, where any stands in an answer."""
    text = json.dumps(conflicts)
    return [value for value in (HERE["k"], THERE["k"]) if f'"k": "{value}"' in text]


# --- looked at ------------------------------------------------------------------------


async def test_a_list_has_no_value_and_only_paths_that_may_be_known(frozen: Front) -> None:
    [conflict] = await listed(frozen.client)
    assert (conflict["path"], conflict["kind"], conflict["state"]) == (
        "ext/a",
        "modify_modify",
        "open",
    )
    assert "values" not in conflict
    assert "fields" not in conflict
    assert of_values(conflict) == []
    assert await listed(await holder(frozen)) == []
    assert await listed(await holder(frozen, WRITE)) == []
    assert len(await listed(await holder(frozen, LIST))) == 1


async def test_values_are_shown_to_who_may_reveal_and_each_look_is_recorded(frozen: Front) -> None:
    client = await holder(frozen, LIST, READ)
    [conflict] = await listed(client, "?reveal=true")
    assert conflict["values"] is None
    assert of_values(conflict) == []
    assert await recorded(frozen, "conflict.reveal") == [("deny", "ext/a")]
    [conflict] = await listed(await holder(frozen, REVEAL), "?reveal=true")
    assert conflict["values"] == {"local": HERE, "remote": THERE}
    assert await recorded(frozen, "conflict.reveal") == [("deny", "ext/a"), ("allow", "ext/a")]


async def test_no_value_is_opened_that_cannot_be_recorded(frozen: Front) -> None:
    await frozen.house.admin.execute(
        "CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.action = 'conflict.reveal' THEN RAISE EXCEPTION 'no'; END IF;"
        " RETURN NEW; END $$"
    )
    await frozen.house.admin.execute(
        "CREATE TRIGGER away BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION away()"
    )
    answer = await frozen.client.get(f"{AT}?reveal=true")
    assert answer.told == (503, "audit_unavailable")
    assert of_values(answer.body) == []


async def test_one_path_is_compared_field_by_field(frozen: Front) -> None:
    [conflict] = await listed(await holder(frozen, READ), "?path=ext/a")
    assert conflict["fields"] == [
        {
            "name": "k",
            "compared": "different",
            "local": {"type": "string", "bytes": len(HERE["k"])},
            "remote": {"type": "string", "bytes": len(THERE["k"])},
        }
    ]
    assert "values" not in conflict
    assert of_values(conflict) == []
    assert await recorded(frozen, "conflict.show") == [("allow", "ext/a")]


async def test_names_of_fields_are_not_for_who_may_only_list(frozen: Front) -> None:
    client = await holder(frozen, LIST)
    [conflict] = await listed(client, "?path=ext/a")
    assert "fields" not in conflict
    assert await recorded(frozen, "conflict.show") == []


async def test_what_may_not_be_known_is_as_what_is_not_there(frozen: Front) -> None:
    stranger = await holder(frozen)
    known = await stranger.get(f"{AT}?path=ext/a")
    unknown = await stranger.get(f"{AT}?path=ext/nothing")
    assert known.status == unknown.status == 200
    assert known.body == unknown.body == {
        "backend_id": BACKEND,
        "conflicts": [],
        "next_cursor": None,
    }  # fmt: skip


async def test_lists_are_paged_and_go_on_behind_what_is_not_shown(front: Front) -> None:
    await front.house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    for name in ("b", "c", "no/d", "e"):
        front.house.there.put(f"kv/{name}", {"k": "base"})
    await front.house.run()
    for name in ("b", "c", "no/d", "e"):
        await front.house.write(f"ext/{name}", {"k": "here"})
        front.house.there.put(f"kv/{name}", {"k": "there"})
        await front.house.run()  # so that their ids are in this order
    client = await holder(front, LIST)
    seen, query = [], "?limit=1"
    while True:
        page = (await client.get(AT + query)).body
        seen.append([c["path"] for c in page["conflicts"]])
        if page["next_cursor"] is None:
            break
        query = f"?limit=1&cursor={page['next_cursor']}"
    assert seen == [["ext/b"], ["ext/c"], [], ["ext/e"]]


async def test_settled_conflicts_are_listed_where_all_are(frozen: Front) -> None:
    assert (await resolve(frozen.client, "use_local")).status == 200
    assert await listed(frozen.client) == []
    [conflict] = await listed(frozen.client, "?state=all")
    assert (conflict["state"], conflict["resolved_by"]) == ("resolved", "sa:robot")


async def test_values_that_are_not_kept_any_more_are_not_there(frozen: Front) -> None:
    assert (await resolve(frozen.client, "use_local")).status == 200
    await frozen.house.admin.execute(
        "UPDATE conflicts SET local_sealed = NULL, remote_sealed = NULL"
    )
    [conflict] = await listed(frozen.client, "?state=all&reveal=true")
    assert conflict["remote"] == "unreadable"
    assert conflict["values"]["remote"] is None


async def test_queries_that_mean_nothing_are_refused(front: Front) -> None:
    for query in ("state=x", "cursor=x", "path=../a", "conflict_id=cfl_" + "0" * 32, "reveal=1"):
        assert (await front.client.get(f"{AT}?{query}")).status == 422, query


# --- resolved -------------------------------------------------------------------------


async def test_a_decision_takes_the_right_to_write(frozen: Front) -> None:
    client = await holder(frozen, LIST, READ, REVEAL)
    for resolution in ("use_local", "use_remote"):
        assert (await resolve(client, resolution)).told == (403, "forbidden")
    assert (await resolve(client, "use_value", data={"k": "v"})).told == (403, "forbidden")
    assert {decision for decision, _ in await recorded(frozen, "conflict.resolve")} == {"deny"}
    assert await frozen.house.data("ext/a") == HERE
    done = await resolve(await holder(frozen, WRITE), "use_remote")
    assert (done.status, done.body["resolution"]) == (200, "use_remote")
    assert await frozen.house.data("ext/a") == THERE
    assert (await recorded(frozen, "conflict.resolve"))[-1] == ("allow", "ext/a")


async def test_nobody_learns_which_path_is_in_conflict(frozen: Front) -> None:
    stranger = await holder(frozen)
    known = await resolve(stranger, "use_local")
    unknown = await resolve(stranger, "use_local", path="ext/nothing")
    assert known.told == unknown.told == (403, "forbidden")
    words = [answer.body["error"]["message"] for answer in (known, unknown)]
    assert words[0].replace("ext/a", "") == words[1].replace("ext/nothing", "")


async def test_to_take_a_deletion_takes_the_right_to_delete(front: Front) -> None:
    await open_conflict(front, "modify_delete")
    refused = await resolve(await holder(front, WRITE, READ), "use_remote")
    assert refused.told == (403, "forbidden")
    assert "ext/a" in await front.house.paths()
    done = await resolve(await holder(front, DELETE), "use_remote")
    assert (done.status, done.body["version"]) == (200, None)
    assert "ext/a" not in await front.house.paths()


async def test_to_keep_a_deletion_takes_the_right_to_delete_what_is_there(front: Front) -> None:
    await open_conflict(front, "delete_modify")
    refused = await resolve(await holder(front, WRITE, READ), "use_local")
    assert refused.told == (403, "forbidden")
    assert (await recorded(front, "conflict.resolve"))[-1] == ("deny", "ext/a")
    assert await front.house.status("ext/a") == "conflict"
    done = await resolve(await holder(front, DELETE), "use_local")
    assert (done.status, done.body["version"]) == (200, None)


@pytest.mark.parametrize(
    ("kind", "resolution", "remote"),
    [("modify_modify", "use_local", False), ("modify_modify", "use_remote", True)],
)
async def test_a_side_that_comes_to_be_deleted_is_not_taken_without_that_right(
    front: Front, monkeypatch: pytest.MonkeyPatch, kind: str, resolution: str, remote: bool
) -> None:
    await open_conflict(front, kind)
    client = await holder(front, WRITE, READ)
    standing = front.house.app.conflicts.standing

    async def overtaken(*args: Any, **named: Any) -> Any:
        found = await standing(*args, **named)
        monkeypatch.undo()
        if remote:
            front.house.there.delete("kv/a")
            await front.house.run()
        else:
            await front.house.bury("ext/a")
        return found

    monkeypatch.setattr(front.house.app.conflicts, "standing", overtaken)
    assert (await resolve(client, resolution)).told == (409, "conflict_changed")


async def test_a_decision_that_is_sent_again_is_made_once(frozen: Front) -> None:
    body = {"path": "ext/a", "resolution": "use_value", "data": {"k": "mine"}}
    key = {"Idempotency-Key": "decided"}
    first = await frozen.client.post(f"{AT}/resolve", json=body, headers=key)
    again = await frozen.client.post(f"{AT}/resolve", json=body, headers=key)
    assert (again.status, again.body) == (first.status, first.body) == (200, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (await frozen.client.post(f"{AT}/resolve", json=body)).told == (
        404,
        "conflict_not_found",
    )
    other = await frozen.client.post(f"{AT}/resolve", json={**body, "data": {}}, headers=key)
    assert other.told == (422, "idempotency_key_reused")


async def test_a_value_is_kept_as_it_was_sent(frozen: Front) -> None:
    exact = '{"k": 1.10, "big": 12345678901234567890123}'
    body = f'{{"path": "ext/a", "resolution": "use_value", "data": {exact}}}'
    done = await frozen.client.post(f"{AT}/resolve", data=body.encode())
    assert (done.status, done.body["version"]) == (200, 3)
    read = await frozen.client.get("/v1/secrets/ext/a")
    assert read.status == 200
    _, text = await frozen.house.app.secrets.get(TENANT, done.body["path"])
    assert text == exact.encode()


async def test_what_was_looked_at_may_be_named(frozen: Front) -> None:
    [conflict] = await listed(frozen.client)
    seen = {name: conflict[name] for name in ("conflict_id", "local_version", "remote_token")}
    frozen.house.there.put("kv/a", {"k": "moved"})
    await frozen.house.run()
    answer = await resolve(frozen.client, "use_local", **seen)
    assert answer.told == (409, "conflict_changed")
    [now] = await listed(frozen.client)
    assert answer.body["error"]["conflict"] == now
    assert now["remote_token"] != conflict["remote_token"]
    seen = {name: now[name] for name in seen}
    assert (await resolve(frozen.client, "use_local", **seen)).status == 200
    assert (await resolve(frozen.client, "use_local")).told == (404, "conflict_not_found")


async def test_bodies_that_mean_nothing_are_refused_and_repeat_no_value(frozen: Front) -> None:
    for body, field in (
        ({"resolution": "use_local"}, "path"),
        ({"path": "ext/a"}, "resolution"),
        ({"path": "ext/a", "resolution": "use_value"}, "data"),
        ({"path": "ext/a", "resolution": "use_local", "data": {"k": "hunter2"}}, "data"),
        ({"path": "ext/a", "resolution": "use_value", "data": "hunter2"}, "data"),
        ({"path": "ext/a", "resolution": "use_value", "data": ["hunter2"]}, "data"),
        ({"path": "../a", "resolution": "use_local"}, "path"),
        ({"path": "ext/a", "resolution": "use_local", "conflict_id": "x"}, "conflict_id"),
        ({"path": "ext/a", "resolution": "use_local", "local_version": -1}, "local_version"),
    ):
        answer = await frozen.client.post(f"{AT}/resolve", json=body)
        assert (answer.status, answer.body["error"]["field"]) == (422, field), body
        assert "hunter2" not in json.dumps(answer.body)
    assert await frozen.house.status("ext/a") == "conflict"


async def test_a_value_for_a_path_that_takes_none_is_not_allowed(frozen: Front) -> None:
    await frozen.house.configure(writes=Writes.DISABLED)
    answer = await resolve(frozen.client, "use_value", data={"k": "v"})
    assert answer.told == (405, "federated_path_read_only")
    assert frozen.house.spec.mode is Mode.SYNC


async def test_a_decision_is_written_through(front: Front) -> None:
    await open_conflict(front, "modify_modify")
    await front.house.configure(writes=Writes.WRITE_THROUGH)
    done = await resolve(front.client, "use_local")
    assert (done.status, done.body["write_through"]["state"]) == (200, "applied")
    secret = front.house.there.secret("kv/a")
    assert secret is not None
    assert json.loads(secret.versions[secret.current].payload.data_text()) == HERE


async def test_a_write_on_its_way_is_waited_for(frozen: Front) -> None:
    await frozen.house.admin.execute(
        "INSERT INTO pushes (tenant_id, push_id, backend_id, path, remote_path, kind, state,"
        " secret_id, version, row_rev, created_by, deadline)"
        " SELECT 1, 'psh_1', $1, path, 'kv/a', 'put', 'unknown', secret_id, 2, 1, 'x', now()"
        " FROM secrets WHERE path = 'ext/a'",
        BACKEND,
    )
    answer = await resolve(frozen.client, "use_local")
    assert answer.told == (409, "write_in_progress")
    assert answer.headers["Retry-After"] == "1"
