"""Backends over HTTP: who may make and change one, what is bound to it, and what is refused."""

import asyncio
import json
import re
from typing import Any

import pytest
from tests.api import BACKENDS, Answer, Client, Front
from tests.house import BACKEND, TENANT, backend, failure

from svsync.domain.access import Scope
from svsync.domain.bindings import Bound
from svsync.domain.errors import ConfigError, MappingError
from svsync.domain.federation import RuleSpec
from svsync.domain.ids import BackendId
from svsync.domain.languages import Budget
from svsync.domain.policies import Permission
from svsync.services.policies import NewRule

HOUSE = f"{BACKENDS}/{BACKEND}"
CREDENTIAL = "infra/new/token"
NEW: dict[str, Any] = {
    "name": "new",
    "type": "memory",
    "mode": "sync",
    "config": {"endpoint": "https://Vault.internal", "auth_config_path": CREDENTIAL},
    "path_mapping": {"team/**": "kv/**"},
}
WRITE, USE, LIST, DELETE = Permission.WRITE, Permission.USE, Permission.LIST, Permission.DELETE


async def holder(front: Front, *rules: tuple[str, Permission]) -> Client:
    """Somebody with the scopes of federation and these permissions alone."""
    if rules:
        made = [NewRule(pattern, [permission]) for pattern, permission in rules]
        name = f"p{len(await front.house.rows('policies'))}"
        policies = front.house.app.policies
        await policies.create(TENANT, name, made, by="cli:test")
        await policies.bind(TENANT, name, Bound.parse("sa:robot"), by="cli:test")
    token = await front.token(Scope.FEDERATION_WRITE, Scope.FEDERATION_READ)
    return front.client.with_token(token)


async def make(front: Front, **changes: Any) -> Answer:
    return await make_as(front.client, **changes)


async def make_as(client: Client, **changes: Any) -> Answer:
    return await client.post(BACKENDS, json={**NEW, **changes})


async def made(front: Front, **changes: Any) -> str:
    answer = await make(front, **changes)
    assert answer.status == 201, answer.body
    return f"{BACKENDS}/{answer.body['id']}"


async def patch(front: Front, at: str, body: Any, client: Client | None = None) -> Answer:
    return await (client or front.client).call("PATCH", at, json=body)


async def recorded(front: Front, action: str) -> list[tuple[str, str | None]]:
    rows = await front.house.admin.fetch(
        "SELECT decision, secret_path FROM audit WHERE action = $1 ORDER BY at", action
    )
    return [(row["decision"], row["secret_path"]) for row in rows]


# --- made -----------------------------------------------------------------------------


async def test_a_backend_is_made_tried_and_run(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    answer = await make(front)
    assert (answer.status, answer.body["status"]) == (201, "healthy")
    assert re.fullmatch(r"fed_[a-z2-7]{12}", answer.body["id"])
    assert answer.body["checks"] == [{"name": "read kv/", "state": "granted", "hint": ""}]
    assert answer.headers["Location"] == f"{BACKENDS}/{answer.body['id']}"
    shown = await front.client.get(answer.headers["Location"])
    assert (shown.body["managed_by"], shown.body["rev"]) == ("api", 1)
    assert shown.body["path_mapping"] == [{"local": "team/**", "remote": "kv/**"}]
    await front.house.run(backend=answer.body["id"])
    assert await front.house.data("team/a") == {"k": "1"}


async def test_a_backend_is_made_once_for_a_key_and_its_maker_is_asked_each_time(
    front: Front,
) -> None:
    maker = await holder(front, (CREDENTIAL, USE), ("team/**", WRITE))
    key = {"Idempotency-Key": "k"}
    first, again = [await maker.post(BACKENDS, json=NEW, headers=key) for _ in range(2)]
    assert (first.status, again.status, again.body) == (201, 201, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert len(await front.house.rows("backends")) == 2
    await front.house.admin.execute("DELETE FROM bindings")
    await front.house.admin.execute("UPDATE tenants SET auth_epoch = auth_epoch + 1")
    assert (await maker.post(BACKENDS, json=NEW, headers=key)).told == (403, "forbidden")
    told = [decision for decision, _ in await recorded(front, "federation.create")]
    assert told == ["allow", "allow", "deny"]


async def test_one_that_is_not_healthy_is_made_unless_it_has_to_be(front: Front) -> None:
    front.house.there.denied.add("kv/")
    refused = await front.client.post(f"{BACKENDS}?require_healthy=true", json=NEW)
    assert refused.told == (422, "backend_not_healthy")
    assert len(await front.house.rows("backends")) == 1
    answer = await make(front)
    assert (answer.status, answer.body["status"]) == (201, "denied")
    status = await front.client.get(f"{answer.headers['Location']}/status")
    assert status.body["status"] == "denied"


async def test_one_that_does_not_answer_in_time_is_unreachable(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svsync.services.backend_trials.TRIAL_S", 0.0)
    never = asyncio.Event()

    async def wait(operation: str, path: str) -> None:
        await never.wait()

    front.house.there.before = wait
    answer = await make(front)
    assert (answer.status, answer.body["status"]) == (201, "unreachable")
    assert "did not answer" in answer.body["warnings"][0]


async def test_an_id_or_name_that_names_another_is_refused(front: Front) -> None:
    await made(front, id="fed_one", name="one", path_mapping={"one/**": "kv/**"})
    for changes in ({"id": "fed_one"}, {"name": "one"}, {"name": "fed_one"}, {"id": "one"}):
        assert (await make(front, **changes)).told == (409, "backend_exists"), changes


async def test_two_that_are_made_at_once_do_not_claim_one_path(front: Front) -> None:
    answers = await asyncio.gather(*(make(front, name=f"n{n}") for n in range(3)))
    assert sorted(a.status for a in answers) == [201, 409, 409]
    assert {a.code for a in answers if a.status == 409} == {"mapping_overlap"}


# --- who may --------------------------------------------------------------------------


async def test_a_maker_needs_the_use_of_the_credential(front: Front) -> None:
    client = await holder(front, ("team/**", WRITE), ("infra/**", Permission.READ))
    answer = await make_as(client)
    assert answer.told == (403, "forbidden")
    assert CREDENTIAL in answer.body["error"]["message"]
    assert await recorded(front, "federation.create") == [("deny", CREDENTIAL)]
    client = await holder(front, ("infra/new/*", USE))
    assert (await make_as(client)).status == 201
    assert (await recorded(front, "federation.create"))[-1] == ("allow", CREDENTIAL)


async def test_a_maker_needs_to_write_all_that_the_mapping_covers(front: Front) -> None:
    await holder(front, (CREDENTIAL, USE))
    client = await holder(front, ("team/a/**", WRITE), ("team/*", WRITE))
    answer = await make_as(client)
    assert answer.told == (403, "forbidden")
    [witness] = re.findall(r"write (team/\S+),", answer.body["error"]["message"])
    assert not re.fullmatch(r"team/[^/]+|team/a/.*", witness)
    assert await recorded(front, "federation.create") == [("deny", witness)]
    assert len(await front.house.rows("backends")) == 1
    assert front.house.there.calls == {}, "nothing was asked before"
    narrower = {"team/a/**": "kv/**", "team/*": "old/*"}
    assert (await make_as(client, path_mapping=narrower)).status == 201


async def test_what_cannot_be_told_is_not_allowed(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svsync.services.backend_rights.Budget", lambda: Budget(units=1))
    await holder(front, (CREDENTIAL, USE))
    answer = await make_as(await holder(front, ("team/**", WRITE)))
    assert answer.told == (403, "forbidden")
    assert "path_mapping[0].local" in answer.body["error"]["message"]


async def test_what_only_the_file_may_say_is_refused(front: Front) -> None:
    vault = {"endpoint": "https://vault.internal", "auth_method": "token"}
    credential = {"auth_config_path": CREDENTIAL}
    for config, told, field in (
        ({"auth_config_path": "env:TOKEN"}, "reference_not_allowed", "config.auth_config_path"),
        ({"auth_config_path": "file:/x"}, "reference_not_allowed", "config.auth_config_path"),
        (credential | {"tls_verify": False}, "file_only_setting", "config.tls_verify"),
        (credential | {"tls_verify": "/etc/ca.pem"}, "file_only_setting", "config.tls_verify"),
        (
            {"auth_method": "kubernetes", "role": "r"},
            "ambient_identity_not_allowed",
            "config.auth_config_path",
        ),
        (credential | {"token": "hunter2"}, "literal_credential", "config.token"),
    ):
        answer = await make(
            front,
            type="hashicorp-vault",
            config=vault | config,
            path_mapping={"t/**": "kv/data/**"},
        )
        assert (*answer.told, answer.body["error"]["field"]) == (422, told, field)
        assert "hunter2" not in json.dumps(answer.body)
    answer = await make(front, tenant="other")
    assert (answer.status, answer.body["error"]["field"]) == (422, "tenant")


# --- what is bound --------------------------------------------------------------------


async def tamper(front: Front, **config: str) -> None:
    """Another configuration of the backend of the API, past everybody who is asked."""
    row = await front.house.row("backends", managed_by="api")
    spec = json.loads(row["spec"])
    spec["config"] |= config
    await front.house.admin.execute(
        "UPDATE backends SET spec = $2 WHERE backend_id = $1", row["backend_id"], json.dumps(spec)
    )


@pytest.mark.parametrize(
    "config",
    [{"endpoint": "https://elsewhere.internal"}, {"auth_config_path": "infra/other"}],
    ids=["endpoint", "credential"],
)
async def test_nothing_goes_out_for_what_nobody_authorised(
    front: Front, config: dict[str, str]
) -> None:
    at = await made(front)
    front.house.there.put("kv/a", {"k": "1"})
    await tamper(front, **config)
    calls = dict(front.house.there.calls)
    ended = await front.house.run(backend=BackendId(at.rpartition("/")[2]))
    assert failure(ended) == "authorisation_changed"
    assert (await front.client.post(f"{at}/test")).told == (409, "authorisation_changed")
    assert front.house.there.calls == calls
    [bound] = await front.house.rows("backend_authorisations")
    assert (bound["credential"], bound["origin"]) == (CREDENTIAL, "https://vault.internal:443")
    # Whoever may, authorises it as it is now; who may not, does not.
    assert (await patch(front, at, {"name": "new"}, await holder(front))).status == 403
    assert (await patch(front, at, {"name": "new"})).status == 200
    assert (await front.client.post(f"{at}/test")).status == 200


async def test_a_proxied_read_does_not_go_out_either(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    await made(front, mode="proxy")
    await tamper(front, endpoint="https://elsewhere.internal")
    answer = await front.client.get("/v1/secrets/team/a")
    assert answer.told == (502, "backend_unusable")
    assert "read" not in front.house.there.calls


async def test_a_backend_of_the_file_needs_nobodys_authorisation(front: Front) -> None:
    assert await front.house.rows("backend_authorisations") == []
    assert failure(await front.house.run()) is None


async def test_the_file_may_take_a_backend_over(front: Front) -> None:
    at = await made(front, id="fed_new")
    mine = backend([RuleSpec("team/**", "kv/**")], id=BackendId("fed_new"))
    await front.house.app.federation.apply([front.house.spec, mine])
    assert (await front.client.get(at)).body["managed_by"] == "file"
    assert await front.house.rows("backend_authorisations") == []
    assert (await patch(front, at, {"name": "x"})).told == (409, "managed_by_file")
    assert failure(await front.house.run(backend=BackendId("fed_new"))) is None


async def test_the_file_does_not_claim_what_the_api_gave_away(front: Front) -> None:
    await made(front)
    mine = backend([RuleSpec("team/a/*", "kv/*")], id=BackendId("fed_mine"))
    with pytest.raises(MappingError, match=r"team/a/"):
        await front.house.app.federation.apply([front.house.spec, mine])
    named = backend([RuleSpec("mine/*", "kv/*")], id=BackendId("fed_mine"), name="new")
    with pytest.raises(ConfigError) as caught:
        await front.house.app.federation.apply([front.house.spec, named])
    assert caught.value.code == "backend_exists"


# --- changed --------------------------------------------------------------------------


async def test_a_change_is_merged_and_raises_the_revision(front: Front) -> None:
    at = await made(front, max_staleness="1h")
    before = await front.client.get(at)
    assert before.headers["ETag"] == '"r1"'
    answer = await patch(front, at, {"sync_interval": "1h", "max_staleness": None})
    assert (answer.status, answer.headers["ETag"]) == (200, '"r2"')
    assert answer.body["sync_interval"] == "1h"
    assert "max_staleness" not in answer.body
    assert answer.body["config"] == NEW["config"]


async def test_a_change_may_name_the_revision_that_it_is_for(front: Front) -> None:
    at = await made(front)
    change = {"sync_interval": "1h"}
    for given, told in (('"r2"', (412, "version_conflict")), ("r1", (422, "invalid_field"))):
        answer = await front.client.call("PATCH", at, json=change, headers={"If-Match": given})
        assert answer.told == told
    first = await front.client.call("PATCH", at, json=change, headers={"If-Match": '"r1"'})
    assert first.status == 200


async def test_only_what_the_maker_lent_is_asked_for_again(front: Front) -> None:
    at = await made(front)
    client = await holder(front)
    for change in (
        {"sync_interval": "1h"},
        {"mode": "proxy"},
        {"mode": "sync", "conflict_resolution": "local_wins"},
        {"name": "renamed"},
    ):
        assert (await patch(front, at, change, client)).status == 200
    for lent in (
        {"path_mapping": {"team/**": "kv/b/**"}},
        {"path_mapping": {"other/**": "kv/**"}},
        {"config": {"endpoint": "https://elsewhere.internal"}},
        {"config": {"auth_config_path": "infra/other"}},
        {"config": {"extra": "1"}},
        {"writes": "write_through"},
        {"write_through": True},
        {"allow_hide": True},
        {"force": True},
    ):
        assert (await patch(front, at, lent, client)).told == (403, "forbidden"), lent
    assert {d for d, _ in (await recorded(front, "federation.update"))[-9:]} == {"deny"}
    await holder(front, (CREDENTIAL, USE))
    client = await holder(front, ("team/**", WRITE))
    assert (await patch(front, at, {"path_mapping": {"team/**": "kv/b/**"}}, client)).status == 200
    assert failure(await front.house.run(backend=BackendId(at.rpartition("/")[2]))) != (
        "authorisation_changed"
    )


async def test_what_a_backend_is_cannot_be_changed(front: Front) -> None:
    at = await made(front)
    for change, field in (({"id": "fed_x"}, "id"), ({"tenant": "other"}, "tenant")):
        answer = await patch(front, at, change)
        assert (*answer.told, answer.body["error"]["field"]) == (422, "invalid_field", field)


async def test_a_backend_of_the_file_is_changed_there(front: Front) -> None:
    assert (await patch(front, HOUSE, {"mode": "proxy"})).told == (409, "managed_by_file")
    assert (await front.client.call("DELETE", HOUSE)).told == (409, "managed_by_file")
    assert (await front.client.get(HOUSE)).body["mode"] == "sync"


# --- states that do not allow it ------------------------------------------------------


async def test_an_overlap_names_a_path_that_shows_it(front: Front) -> None:
    answer = await make(front, path_mapping={"ext/a/**": "kv/**"})
    assert answer.told == (409, "mapping_overlap")
    assert "ext/a/" in answer.body["error"]["message"]
    at = await made(front)
    moved = await patch(front, at, {"path_mapping": {"ext/*": "kv/*"}})
    assert moved.told == (409, "mapping_overlap")


async def test_a_standby_stands_for_one_that_is_there(front: Front) -> None:
    over = {"path_mapping": {"ext/**": "kv/**"}}
    unknown = await make(front, standby_for="fed_nobody", **over)
    assert (unknown.status, unknown.body["error"]["field"]) == (422, "standby_for")
    assert (await make(front, standby_for=BACKEND, **over)).status == 201


async def test_a_credential_may_not_come_out_of_what_it_opens(front: Front) -> None:
    for path in ("team/token", "ext/token"):
        config = {"auth_config_path": path}
        answer = await make(front, config=config)
        if path == "team/token":
            assert answer.told == (422, "circular_credential")
        else:
            assert answer.status == 201  # another one serves it, whose own is elsewhere


async def test_local_secrets_are_hidden_only_with_leave(front: Front) -> None:
    await front.house.write("team/mine", {"k": "1"})
    answer = await make(front, mode="proxy")
    assert answer.told == (409, "hides_local_secrets")
    assert "team/mine" in answer.body["error"]["message"]
    assert (await make(front, mode="proxy", allow_hide=True)).status == 201


async def test_what_is_here_alone_is_hidden_only_by_force(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    at = await made(front)
    await front.house.run(backend=BackendId(at.rpartition("/")[2]))
    await front.house.write("team/a", {"k": "mine"})
    answer = await patch(front, at, {"mode": "proxy"})
    assert answer.told == (409, "unpushed_local_changes")
    assert "team/a" in answer.body["error"]["message"]
    assert (await front.client.get(at)).body["rev"] == 1
    forced = await patch(front, at, {"mode": "proxy", "force": True})
    assert (forced.status, forced.body["hidden_copies"]) == (200, 1)


async def test_an_interval_in_which_no_cycle_fits_is_refused(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    at = await made(front)
    await front.house.run(backend=BackendId(at.rpartition("/")[2]))
    slow = {"rate_limit": {"list": {"per_second": 0.01}}, "sync_interval": "1m"}
    assert (await patch(front, at, slow)).told == (422, "interval_unreachable")


# --- removed --------------------------------------------------------------------------


async def test_a_removed_backend_leaves_its_copies(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    at = await made(front)
    await front.house.run(backend=BackendId(at.rpartition("/")[2]))
    answer = await front.client.call("DELETE", at)
    assert (answer.status, answer.body["kept"], answer.body["destroyed"]) == (200, 1, 0)
    assert await front.house.data("team/a") == {"k": "1"}
    assert (await front.client.call("DELETE", at)).told == (404, "backend_not_found")
    assert await front.house.rows("backend_authorisations") == []


async def test_to_purge_takes_the_right_to_delete_all_of_it(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    at = await made(front)
    await front.house.run(backend=BackendId(at.rpartition("/")[2]))
    client = await holder(front, ("team/*", DELETE))
    refused = await client.call("DELETE", f"{at}?local_copies=purge")
    assert refused.told == (403, "forbidden")
    assert await front.house.paths() == ["team/a"]
    client = await holder(front, ("team/**", DELETE))
    answer = await client.call("DELETE", f"{at}?local_copies=purge")
    assert (answer.status, answer.body["destroyed"]) == (200, 1)
    assert await front.house.paths() == []
    assert (await front.client.call("DELETE", f"{at}?local_copies=x")).status == 422


async def test_a_narrower_mapping_purges_nothing_that_may_not_be_deleted(front: Front) -> None:
    """Pairs of the mapping before stay until a run has let go of them."""
    for name in "ab":
        front.house.there.put(f"kv/{name}", {"k": "1"})
    at = await made(front)
    await front.house.run(backend=BackendId(at.rpartition("/")[2]))
    own = ("mine/**", WRITE), ("mine/**", DELETE), ("infra/mine", USE), ("team/b", DELETE)
    client = await holder(front, *own)
    narrowed = {"path_mapping": {"mine/**": "kv/**"}, "config": {"auth_config_path": "infra/mine"}}
    assert (await patch(front, at, narrowed, client)).status == 200
    answer = await client.call("DELETE", f"{at}?local_copies=purge")
    assert (answer.status, answer.body["kept"], answer.body["destroyed"]) == (200, 1, 1)
    assert await front.house.paths() == ["team/a"]


async def test_copies_that_are_hidden_are_purged_only_where_they_may_be_deleted(
    front: Front,
) -> None:
    for name in "ab":
        front.house.there.put(f"kv/{name}", {"k": "1"})
    at = await made(front)
    named = BackendId(at.rpartition("/")[2])
    await front.house.run(backend=named)
    assert (await patch(front, at, {"mode": "proxy"})).body["hidden_copies"] == 2
    done = await front.house.app.removal.remove(
        TENANT, named, purge=True, may_delete=lambda path: path == "team/b"
    )
    assert (done.kept, done.destroyed) == (1, 1)
    assert await front.house.paths() == ["team/a"]


async def test_a_removal_may_name_the_revision_that_it_is_for(front: Front) -> None:
    at = await made(front)
    assert (await patch(front, at, {"sync_interval": "1h"})).status == 200
    late = await front.client.call("DELETE", at, headers={"If-Match": '"r1"'})
    assert late.told == (412, "version_conflict")
    assert (await front.client.call("DELETE", at, headers={"If-Match": "r2"})).status == 422
    assert (await front.client.get(at)).body["state"] == "active"
    await front.house.admin.execute(
        "UPDATE backends SET state = 'deleting', rev = 3 WHERE backend_id = $1",
        at.rpartition("/")[2],
    )
    begun = await front.client.call("DELETE", at, headers={"If-Match": '"r2"'})
    assert begun.status == 200, "what has begun goes on"


async def test_a_change_that_destroys_copies_takes_the_right_to_delete(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    at = await made(front)
    await front.house.run(backend=BackendId(at.rpartition("/")[2]))
    await front.house.write("team/a", {"k": "mine"})
    own = ("mine/**", WRITE), ("mine/**", DELETE)
    client = await holder(front, (CREDENTIAL, USE), ("team/**", WRITE), *own)
    moved = {"path_mapping": {"mine/**": "kv/**"}}
    for change in (
        {"mode": "proxy", "force": True},
        {"proxy_purge_after": 0},
        {"proxy_purge_after": "1d", "mode": "proxy"},
        {"proxy_purge_after": 0, **moved},
    ):
        assert (await patch(front, at, change, client)).told == (403, "forbidden"), change
    assert {d for d, _ in await recorded(front, "federation.update")} == {"deny"}
    assert await front.house.paths() == ["team/a"]
    assert (await patch(front, at, {"proxy_purge_after": "30d"}, client)).status == 200
    client = await holder(front, ("team/**", DELETE))
    forced = {"mode": "proxy", "force": True, "proxy_purge_after": 0}
    assert (await patch(front, at, forced, client)).status == 200
    assert (await front.house.row("secrets", path="team/a"))["state"] == "void"


# --- the state of each secret ---------------------------------------------------------


async def test_states_are_shown_of_what_the_caller_may_list(front: Front) -> None:
    for name in ("a", "b", "c", "no/d", "e"):
        front.house.there.put(f"kv/{name}", {"k": "1"})
    await front.house.run()
    await front.house.write("ext/b", {"k": "mine"})
    await front.house.run()
    client = await holder(front, ("ext/*", LIST))
    first = await client.get(f"{HOUSE}/secrets?limit=3")
    assert [s["path"] for s in first.body["secrets"]] == ["ext/a", "ext/b", "ext/c"]
    rest = await client.get(f"{HOUSE}/secrets", params={"cursor": first.body["next_cursor"]})
    assert [s["path"] for s in rest.body["secrets"]] == ["ext/e"]
    assert rest.body["next_cursor"] is None
    [diverged] = (await client.get(f"{HOUSE}/secrets?state=diverged")).body["secrets"]
    assert (diverged["path"], diverged["remote_path"]) == ("ext/b", "kv/b")
    assert (diverged["version"], diverged["status"]) == (2, "diverged")
    everything = (await front.client.get(f"{HOUSE}/secrets")).body["secrets"]
    assert "ext/no/d" in [s["path"] for s in everything]
    for query in ("state=nothing", "cursor=x"):
        assert (await client.get(f"{HOUSE}/secrets?{query}")).status == 422


async def test_states_are_asked_for_by_what_their_paths_begin_with(front: Front) -> None:
    for name in ("a/x", "b/x", "b/y", "bc", "no/b"):
        front.house.there.put(f"kv/{name}", {"k": "1"})
    await front.house.run()
    client = await holder(front, ("ext/a/*", LIST), ("ext/b*", LIST), ("ext/b/**", LIST))

    async def below(prefix: str) -> list[str]:
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            asked = {"prefix": prefix, "limit": 1, **({"cursor": cursor} if cursor else {})}
            page = (await client.get(f"{HOUSE}/secrets", params=asked)).body
            seen += [secret["path"] for secret in page["secrets"]]
            cursor = page["next_cursor"]
        return seen

    assert await below("ext/b/") == ["ext/b/x", "ext/b/y"]
    assert await below("ext/b") == ["ext/b/x", "ext/b/y", "ext/bc"]
    assert await below("ext/b/x") == ["ext/b/x"]
    assert await below("e") == ["ext/a/x", "ext/b/x", "ext/b/y", "ext/bc"]
    assert await below("ext/no/") == await below("f") == []
    behind = {"prefix": "ext/b/", "cursor": "ext/b/x|kv/b/x"}
    rest = (await client.get(f"{HOUSE}/secrets", params=behind)).body["secrets"]
    assert [secret["path"] for secret in rest] == ["ext/b/y"]
    assert (await client.get(f"{HOUSE}/secrets?prefix=c4n4ry%20x")).status == 422


async def test_states_of_what_several_rules_give_come_in_order_and_by_pages(front: Front) -> None:
    for name in ("a/x", "b/x", "b/y", "c/x", "d/x"):
        front.house.there.put(f"kv/{name}", {"k": "1"})
    await front.house.run()
    nothing = await holder(front, ("other/**", LIST))
    assert (await nothing.get(f"{HOUSE}/secrets")).body["secrets"] == []
    client = await holder(front, ("ext/d/*", LIST), ("ext/b/*", LIST), ("ext/a/no", LIST))
    seen: list[str] = []
    cursor: str | None = "ext/a|"
    for _ in range(3):
        page = (await client.get(f"{HOUSE}/secrets", params={"limit": 1, "cursor": cursor})).body
        seen += [secret["path"] for secret in page["secrets"]]
        cursor = page["next_cursor"]
    assert (seen, cursor) == (["ext/b/x", "ext/b/y", "ext/d/x"], None)


# --- what is no backend ---------------------------------------------------------------


async def test_a_backend_is_of_its_tenant(front: Front) -> None:
    at = await made(front)
    stranger = front.client.with_token(await front.other_tenant())
    for method, path in (("PATCH", at), ("DELETE", at), ("POST", f"{at}/test")):
        assert (await stranger.call(method, path)).told == (404, "backend_not_found")
    theirs = await stranger.post(BACKENDS, json=NEW)
    assert theirs.status == 201, "their paths, ids and names are their own"
    assert (await stranger.get(theirs.headers["Location"])).body["tenant"] == "other"


async def test_no_body_makes_a_mistake_of_ours(front: Front) -> None:
    for body in (
        {},
        {"name": 1},
        {**NEW, "path_mapping": []},
        {**NEW, "path_mapping": [None]},
        {**NEW, "config": None},
        {**NEW, "config": []},
        {**NEW, "events": [{"feed": "vault-audit", "listen": "unix:/run/x"}]},
        {**NEW, "nonsense": 1},
        {**NEW, "id": "../x"},
        {**NEW, "path_mapping": {"team/{a}": "kv/{b}"}},
    ):
        answer = await front.client.post(BACKENDS, json=body)
        assert answer.status == 422, body
        assert answer.body["error"]["field"]
    at = await made(front)
    for change in ({"path_mapping": None}, {"config": 1}, {"force": "yes"}, {"nonsense": None}):
        assert (await patch(front, at, change)).status in (200, 422)
