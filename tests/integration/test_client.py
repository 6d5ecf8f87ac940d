"""The client against a real service: what it does there, and what comes back."""

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.api import ROBOT, Front, open_front
from tests.canary import Canary
from tests.house import BACKEND, House
from tests.integration.test_conflicts import HERE, THERE, disagree

from svsync.client import Client, SvsyncError, SyncClient
from svsync.client import calls as transport
from svsync.domain.access import Scope
from svsync.domain.federation import ConflictPolicy

EXACT = '{"n": 1.10, "big": 12345678901234567890123, "s": "\\u00e4"}'


@pytest.fixture
async def client(front: Front) -> AsyncIterator[Client]:
    """With a token of the scope `admin`."""
    assert front.client.token is not None
    async with Client(front.listener.url, front.client.token) as made:
        yield made


async def refused(awaited: Any) -> SvsyncError:
    with pytest.raises(SvsyncError) as caught:
        await awaited
    return caught.value


# --- secrets --------------------------------------------------------------------------


async def test_the_life_of_a_secret(client: Client, canary: Canary) -> None:
    path = "environments/production/billing/stripe"
    written = await client.secrets.write(
        path=path,
        data={"secret_key": canary.value()},
        secret_type="api_key",
        metadata={"tags": ["billing", "stripe"], "owner": "team:billing"},
        cas=0,
    )
    assert (written["version"], written["write_through"]["state"]) == (1, "not_configured")
    read = await client.secrets.read(path)
    assert canary.found_in(read.data["secret_key"])
    assert (read.path, read.version, read.secret_type) == (path, 1, "api_key")
    assert (read.metadata["tags"], read.metadata["owner"]) == (
        ["billing", "stripe"],
        "team:billing",
    )
    assert (read.federation, read.source, read.in_conflict) == (None, "store", False)
    assert not canary.found_in(repr(read))

    assert (await client.secrets.write(path, {"secret_key": "2"}, cas=1))["version"] == 2
    same = await client.secrets.write(path, {"secret_key": "2"}, skip_if_equal=True)
    assert same["version"] == 2
    assert canary.found_in((await client.secrets.read(path, version=1)).text)
    assert [one["version"] for one in await client.secrets.history(path)] == [2, 1]

    assert (await refused(client.secrets.delete(path, cas=1))).code == "version_conflict"
    gone = await client.secrets.delete(path, cas=2)
    assert gone == {"path": path, "write_through": {"state": "not_configured", "push_id": None}}
    assert (await client.secrets.restore(path))["version"] == 3
    assert (await client.secrets.restore(path, 1))["version"] == 4


async def test_value_comes_and_goes_to_the_byte(client: Client) -> None:
    await client.secrets.write("exact/a", text=EXACT)
    read = await client.secrets.read("exact/a")
    assert read.text == EXACT
    await client.secrets.write("exact/b", read.data)
    again = (await client.secrets.read("exact/b")).data
    assert [str(again[name]) for name in ("n", "big")] == ["1.10", "12345678901234567890123"]


async def test_error_is_that_of_the_api(client: Client, front: Front) -> None:
    told = await refused(client.secrets.read("app/none"))
    assert (told.code, told.status) == ("secret_not_found", 404)
    assert told.request_id is not None
    rows = await front.house.rows("audit")
    assert told.request_id in {row["request_id"] for row in rows}
    assert (await refused(client.secrets.restore("app/none"))).code == "secret_not_found"
    unusable = await refused(client.secrets.write("app/a", {}, max_versions=0))
    assert (unusable.status, unusable.field) == (422, "options.max_versions")


async def test_list_goes_on_to_its_end(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svsync.client.secrets._PAGE", 2)
    for name in "abcde":
        await client.secrets.write(f"listed/{name}", {"k": "v"})
    for version in range(2, 5):
        await client.secrets.write("listed/a", {"k": str(version)})
    found = await client.secrets.list("listed/")
    assert [one["path"] for one in found] == [f"listed/{name}" for name in "abcde"]
    assert (len(found), found.incomplete) == (5, False)
    versions = await client.secrets.history("listed/a")
    assert [one["version"] for one in versions] == [4, 3, 2, 1]
    page = await client.secrets.page("listed/", limit=3)
    assert (len(page["secrets"]), page["next_cursor"]) == (3, "listed/c")


async def test_write_that_was_answered_and_lost_is_not_done_twice(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt reaches the service, and its answer is lost on the way."""
    once = transport.Calls._once
    lost: list[str] = []

    async def losing(self: Any, *args: Any) -> Any:
        answer = await once(self, *args)
        if not lost:
            lost.append(answer.text)
            raise transport._UnansweredError("the connection broke", sent=True)
        return answer

    monkeypatch.setattr(transport.Calls, "_once", losing)
    assert (await client.secrets.write("app/a", {"k": "v"}))["version"] == 1
    assert lost
    assert [one["version"] for one in await client.secrets.history("app/a")] == [1]


# --- federation -----------------------------------------------------------------------


async def test_backends_and_their_runs(client: Client, front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    run = (await front.house.run()).record.run_id
    [backend] = await client.federation.backends.list()
    assert (backend["id"], backend["secrets_synced"]) == (BACKEND, 1)
    assert (await client.federation.status(BACKEND))["secrets_synced"] == 1
    look = await client.federation.overview()
    assert [(one["id"], one["secrets_synced"]) for one in look["backends"]] == [(BACKEND, 1)]
    assert (await client.federation.backends.get(BACKEND))["mode"] == "sync"
    [brief] = (await client.federation.runs(BACKEND))["runs"]
    whole = await client.federation.run(BACKEND, run)
    assert (brief["run_id"], whole["skipped"]) == (run, [])
    [secret] = await client.federation.secrets(BACKEND)
    assert (secret["path"], secret["status"]) == ("ext/a", "in_sync")
    asked = await client.federation.sync(BACKEND, paths=["ext/a"], allow=["mass_delete"])
    assert not asked["coalesced"]
    assert (await client.federation.run(BACKEND, asked["run_id"]))["state"] == "queued"
    assert (await client.federation.backends.pause(BACKEND))["state"] == "paused"
    assert (await client.federation.backends.resume(BACKEND))["state"] == "active"
    assert (await client.federation.backends.test(BACKEND))["status"] == "healthy"
    changed = await refused(client.federation.backends.patch(BACKEND, {"name": "other"}))
    assert changed.code == "managed_by_file"
    assert (await refused(client.federation.status("fed_none"))).code == "backend_not_found"


async def test_what_would_become_of_a_backend_is_asked(client: Client, front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    plan = await client.federation.plan(BACKEND)
    assert [(one["path"], one["action"]) for one in plan["plan"]] == [("ext/a", "create")]
    assert (plan["planned"], plan["hidden"], plan["guards"]) == (1, 0, [])
    run = (await front.house.run()).record.run_id
    some = await client.federation.plan(BACKEND, paths=["ext/a"])
    assert (some["kind"], some["plan"]) == ("dry", [])
    [path] = (await client.federation.test_mapping(BACKEND, ["kv/a"]))["paths"]
    assert path["as_remote"] is not None
    assert (path["as_remote"]["local"], path["as_remote"]["captures"]) == (
        "ext/a", [{"name": "**", "value": "a"}]
    )  # fmt: skip
    [last] = await client.federation.last_runs([BACKEND, "fed_none"], last=5)
    assert (last["id"], [one["run_id"] for one in last["runs"]]) == (BACKEND, [run])


async def test_conflict_is_looked_at_and_settled(client: Client, front: Front) -> None:
    await front.house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    await disagree(front.house, "modify_modify")
    await front.house.run()
    [conflict] = await client.federation.conflicts(BACKEND)
    assert "values" not in conflict
    shown = await client.federation.conflict(BACKEND, "ext/a", reveal=True)
    assert shown["values"] == {"local": HERE, "remote": THERE}
    assert (await client.secrets.read("ext/a")).in_conflict
    stale = await refused(
        client.federation.resolve(
            BACKEND, "ext/a", "use_local", local_version=conflict["local_version"] + 1
        )
    )
    assert stale.code == "conflict_changed"
    assert stale.conflict is not None
    assert stale.conflict["conflict_id"] == conflict["conflict_id"]
    done = await client.federation.resolve(BACKEND, "ext/a", "use_value", data={"k": "mine"})
    assert done["resolution"] == "use_value"
    assert (await client.secrets.read("ext/a")).data == {"k": "mine"}
    assert await client.federation.conflicts(BACKEND) == ()
    assert len(await client.federation.conflicts(BACKEND, settled=True)) == 1
    absent = await refused(client.federation.conflict(BACKEND, "ext/bystander"))
    assert absent.code == "conflict_not_found"


# --- who may do what ------------------------------------------------------------------


async def test_policy_lets_another_token_in(client: Client, front: Front) -> None:
    await client.secrets.write("apps/a", {"k": "v"})
    async with Client(front.listener.url, await front.token(Scope.SECRETS_READ)) as robot:
        assert (await refused(robot.secrets.read("apps/a"))).code == "secret_not_found"
        policy = await client.policies.create(
            "readers", [{"path_pattern": "apps/**", "permissions": ["read"]}]
        )
        assert not (await client.policies.test("apps/a", "read", identity=ROBOT.id))["allowed"]
        bound = await client.policies.bind("readers", ROBOT.id)
        assert bound["policy_id"] == policy["id"]
        assert [one["identity_id"] for one in await client.policies.bindings("readers")] == [
            ROBOT.id
        ]
        assert (await robot.secrets.read("apps/a")).data == {"k": "v"}
        whoami = await robot.auth.whoami()
        assert (whoami["identity_id"], whoami["scopes"]) == (ROBOT.id, ["secrets:read"])
        rules: Any = [{"path_pattern": "other/**", "permissions": ["read"]}]
        changed = await client.policies.patch("readers", rules=rules, rev=policy["rev"])
        assert changed["rules"] == rules
        assert (await refused(robot.secrets.read("apps/a"))).code == "secret_not_found"
        stale = await refused(client.policies.delete("readers", rev=policy["rev"]))
        assert (stale.code, stale.status) == ("version_conflict", 412)
        await client.policies.unbind("readers", ROBOT.id)
        await client.policies.delete("readers")
        assert await client.policies.list() == ()
        logs = await client.audit.query(secret_path="apps/**", decision="deny", start="1 hour ago")
        assert [row["action"] for row in logs["logs"]] == ["secret.read", "secret.read"]
        assert (await refused(robot.audit.query())).code == "forbidden"


async def test_endpoint_of_webhooks_is_made_and_looked_after(client: Client) -> None:
    made = await client.webhooks.create(
        "https://hooks.example.com/svsync", types=["federation.sync.failed"], only_if_changed=True
    )
    assert made["secret"].startswith("whsec_")
    [listed] = await client.webhooks.list()
    assert (listed["id"], listed["types"]) == (made["id"], ["federation.sync.failed"])
    off = await client.webhooks.patch(made["id"], state="disabled", types=[])
    assert (off["state"], off["types"]) == ("disabled", [])
    assert (await client.webhooks.deliveries(made["id"]))["deliveries"] == []
    turned = await client.webhooks.rotate(made["id"], at_once=True)
    assert turned["secret"] not in ("", made["secret"])
    assert (await client.webhooks.get(made["id"]))["reason"] == "by_request"
    assert (await refused(client.webhooks.replay(made["id"]))).code == "endpoint_disabled"
    for stale in (
        client.webhooks.patch(made["id"], state="active", rev=made["rev"]),
        client.webhooks.delete(made["id"], rev=made["rev"]),
    ):
        assert (await refused(stale)).code == "version_conflict"
    await client.webhooks.delete(made["id"], rev=off["rev"])
    assert (await refused(client.webhooks.get(made["id"]))).code == "webhook_not_found"


async def test_secret_of_a_feed_is_made_shown_once_and_revoked(
    client: Client, front: Front
) -> None:
    secrets = client.federation.feed_secrets
    assert await secrets.list(BACKEND) == ()
    unnamed = await refused(secrets.create(BACKEND))
    assert (unnamed.status, unnamed.field) == (422, "feed")
    await front.house.configure(events=({"feed": "http"},))
    made = await secrets.create(BACKEND, "http")
    assert made["secret"].startswith("svf_")
    [listed] = await secrets.list(BACKEND)
    assert (listed["id"], listed["feed"]) == (made["id"], "http")
    await secrets.revoke(BACKEND, made["id"])
    assert await secrets.list(BACKEND) == ()
    assert (await refused(secrets.revoke(BACKEND, made["id"]))).code == "feed_secret_not_found"


# --- over TLS -------------------------------------------------------------------------


async def test_certificate_is_checked_by_the_ca_that_is_given(house: House, tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    for name, pems in (("server", server.cert_chain_pems), ("ca", [authority.cert_pem])):
        (tmp_path / name).write_bytes(b"".join(pem.bytes() for pem in pems))
    server.private_key_pem.write_to_path(str(tmp_path / "key"))
    other.cert_pem.write_to_path(str(tmp_path / "other"))
    tls: Any = {"tls_cert_file": str(tmp_path / "server"), "tls_key_file": str(tmp_path / "key")}
    async with open_front(house, **tls) as front:
        assert front.client.token is not None
        async with Client(front.listener.url, front.client.token, ca=tmp_path / "ca") as known:
            assert (await known.auth.whoami())["identity_id"] == ROBOT.id
        async with Client(front.listener.url, front.client.token, ca=tmp_path / "other") as wrong:
            told = await refused(wrong.auth.whoami())
    assert told.code == "service_unreachable"
    assert "certificate" in told.message
    with pytest.raises(SvsyncError, match="ca is no readable file"):
        Client("https://127.0.0.1", "svt_1", ca=tmp_path / "none")


# --- programs that wait ---------------------------------------------------------------


async def test_waiting_client_is_shared_by_threads(front: Front) -> None:
    assert front.client.token is not None
    client = SyncClient(front.listener.url, front.client.token)

    def work(name: str) -> str:
        client.secrets.write(f"app/{name}", {"k": name})
        return str(client.secrets.read(f"app/{name}").data["k"])

    names = [str(number) for number in range(8)]
    assert await asyncio.gather(*(asyncio.to_thread(work, name) for name in names)) == names

    def ended() -> None:
        with pytest.raises(SvsyncError, match="app/none"):
            client.secrets.read("app/none")
        assert client.federation.backends.list()[0]["id"] == BACKEND
        client.close()
        client.close()
        with pytest.raises(SvsyncError, match="the client is closed"):
            client.auth.whoami()

    await asyncio.to_thread(ended)


async def test_waiting_client_that_nobody_holds_any_more_is_closed(front: Front) -> None:
    assert front.client.token is not None

    def use() -> Any:
        client = SyncClient(front.listener.url, front.client.token or "")
        client.auth.whoami()
        return client._thread

    thread = await asyncio.to_thread(use)
    await asyncio.to_thread(gc.collect)
    assert thread._loop.is_closed()
    assert not thread._thread.is_alive()


FORKED = """
import os, sys
from svsync.client import SyncClient

client = SyncClient(os.environ["URL"], os.environ["TOKEN"], timeout=10)
print(client.auth.whoami()["identity_id"], flush=True)
child = os.fork()
print(client.auth.whoami()["identity_id"], flush=True)
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


async def test_waiting_client_goes_on_in_a_child_and_ends_with_its_program(front: Front) -> None:
    """Nothing is said of what was left open."""
    environment = {**os.environ, "URL": front.listener.url, "TOKEN": front.client.token or ""}
    told = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", FORKED],
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (told.returncode, told.stderr) == (0, b"")
    assert told.stdout.decode().split() == [ROBOT.id] * 3


# --- for administrators ---------------------------------------------------------------


async def test_tokens_keys_and_chains(client: Client, front: Front) -> None:
    made = await client.tokens.create("sa:robot", ["secrets:read"], expires_in="1h")
    assert (made["identity_id"], made["scopes"]) == ("sa:robot", ["secrets:read"])
    async with Client(front.listener.url, made["token"]) as robot:
        assert (await robot.auth.whoami())["token_id"] == made["token_id"]
        assert (await refused(robot.tokens.list())).code == "forbidden"
        await client.tokens.revoke(made["token_id"])
        assert (await refused(robot.auth.whoami())).code == "unauthenticated"
    states = {one["token_id"]: one["state"] for one in await client.tokens.list()}
    assert states[made["token_id"]] == "revoked"
    await client.secrets.write("app/a", {"k": "v"})
    kinds = {(key["kind"], key["purpose"]) for key in await client.keys.list()}
    assert {("root", "root"), ("data", "value")} <= kinds
    chains = await client.audit.chains()
    assert (chains["checkpoint"], chains["next_cursor"]) == (None, None)
    assert {chain["state"] for chain in chains["chains"]} == {"open"}
