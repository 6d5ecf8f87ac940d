"""Whole cycles over Azure Key Vault: what they bring, what they cost, what goes through."""

import json
from collections.abc import AsyncIterator
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from tests.api import BACKENDS, Front, open_front
from tests.aws_house import Database
from tests.azure import KEYS
from tests.azure_fake import OTHER_TENANT, AzureFake
from tests.azure_fake import TENANT as TENANT_ID
from tests.azure_house import house_of
from tests.azure_vault import Vault
from tests.canary import Canary
from tests.house import BACKEND, ENDINGS, TENANT, WORK, counts, failure, skips
from tests.program import Program
from tests.waiting import try_once, work_all
from tests.writes import overdue

from svsync.domain.errors import WriteOutcomeUnknownError
from svsync.domain.federation import (
    ConflictPolicy,
    HistoryMode,
    Mode,
    OnRemoteDelete,
    RuleSpec,
    Writes,
)
from svsync.domain.ids import LocalPath
from svsync.domain.runs import RunResult


def calls(ended: Any) -> dict[str, int]:
    return {kind: n for kind, n in ended.report.calls.items() if n}


async def test_cycle_brings_what_changed_and_nothing_else(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    vault.put("db", '{"password": "1"}', tags={"team": "x"})
    vault.put("text", "hunter2")
    removal = OnRemoteDelete.SOFT_DELETE
    async with house_of(azure_fake, vault, database, on_remote_delete=removal) as house:
        ended = await house.run()
        assert (ended.record.result, counts(ended)) == (RunResult.OK, {"listed": 2, "created": 2})
        assert await house.data("ext/db") == {"password": "1"}
        assert await house.data("ext/text") == {"value": "hunter2"}
        row = await house.row("secrets", path="ext/db")
        assert (row["tags"], json.loads(row["custom"])) == (["team=x"], {"team": "x"})

        before = await house.dump(without=WORK | ENDINGS)
        ended = await house.run()
        assert counts(ended) == {"listed": 2, "unchanged": 2}
        assert calls(ended) == {"list": 2, "login": 1}
        assert await house.dump(without=WORK | ENDINGS) == before

        vault.put("db", '{"password": "2"}', tags={"team": "x"})
        vault.touch("text", tags={"team": "y"})
        vault.put("new", '{"k": "v"}')
        found = counts(await house.run())
        assert (found["created"], found["updated"]) == (1, 1)
        assert await house.versions("ext/db") == [{"password": "1"}, {"password": "2"}]
        assert (await house.row("secrets", path="ext/text"))["tags"] == ["team=y"]

        vault.delete("db")
        assert counts(await house.run())["deleted"] == 1
        vault.restore("db")
        await house.run()
        assert await house.data("ext/db") == {"password": "2"}
        vault.remove("new")
        assert counts(await house.run())["deleted"] == 1
        assert await house.paths() == ["ext/db", "ext/text"]


async def test_what_was_read_in_the_second_of_its_change_is_read_once_more(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    vault.add("a", '{"k": "1"}')
    async with house_of(azure_fake, vault, database) as house:
        await house.run()
        vault.add("a", '{"k": "2"}')  # in the same second: nothing of a listing tells
        assert counts(await house.run()) == {"listed": 1, "unchanged": 1}
        vault.now += 10
        assert counts(await house.run())["updated"] == 1
        assert await house.data("ext/a") == {"k": "2"}
        assert calls(await house.run()) == {"list": 2, "login": 1}, "and then no more"


async def test_first_import_and_quiet_cycle_cost_no_more_than_they_must(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    n = 130
    for number in range(n):
        vault.add(f"n{number:03}", '{"k": "v"}')
    vault.now += 10
    async with house_of(azure_fake, vault, database) as house:
        ended = await house.run()
        assert counts(ended)["created"] == n
        assert calls(ended) == {"list": ceil(n / 25) + 1, "read": n, "login": 1}
        azure_fake.seen.clear()
        ended = await house.run()
        assert counts(ended) == {"listed": n, "unchanged": n}
        listing = ["GET /secrets"] * ceil(n / 25)
        assert azure_fake.seen == [*listing, "GET /deletedsecrets"]


@pytest.mark.parametrize("history", [None, HistoryMode.FULL])
async def test_earlier_versions_come_where_they_are_asked_for(
    azure_fake: AzureFake, vault: Vault, database: Database, history: HistoryMode | None
) -> None:
    for n in (1, 2, 3):
        vault.put("a", json.dumps({"k": n}))
    async with house_of(azure_fake, vault, database, history=history) as house:
        await house.run()
        vault.put("a", '{"k": 4}')
        vault.put("a", '{"k": 5}')
        await house.run()
        wanted = [3, 5] if history is None else [1, 2, 3, 4, 5]
        assert await house.versions("ext/a") == [{"k": n} for n in wanted]


async def test_disabled_and_expired_secrets_are_kept_here_and_said_to_be_gone(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    for name in ("off", "old", "soon", "stays"):
        vault.put(name, '{"k": "1"}')
    async with house_of(azure_fake, vault, database) as house:
        await house.run()
        vault.touch("off", enabled=False)
        vault.touch("old", exp=vault.now)
        vault.put("soon", '{"k": "2"}', nbf=vault.now + 5000)
        assert skips(await house.run()) == {"soon": "unreadable"}
        assert [await house.status(f"ext/{name}") for name in ("off", "old")] == ["retained"] * 2
        assert await house.data("ext/soon") == {"k": "1"}, "what is not valid yet changes nothing"
        vault.touch("off", enabled=True)
        vault.now += 6000
        await house.run()
        assert await house.status("ext/off") == "in_sync"
        assert await house.data("ext/soon") == {"k": "2"}


async def test_secret_that_cannot_be_read_stops_no_other(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    for name in ("a", "b", "c"):
        vault.put(name, '{"k": "v"}')
    vault.denied = {("get", "b")}
    async with house_of(azure_fake, vault, database) as house:
        ended = await house.run()
        assert (ended.record.result, skips(ended)) == (RunResult.PARTIAL, {"b": "denied"})
        assert await house.paths() == ["ext/a", "ext/c"]


async def test_separator_and_escape_bring_paths_and_take_them_back(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    vault.put("prod--team--db-x2Emain", '{"k": "1"}')
    vault.put("prod--a---b", '{"k": "1"}')
    rules = (RuleSpec("ext/**", "prod--**", separator="--", escape=True),)
    async with house_of(
        azure_fake, vault, database, rules=rules, writes=Writes.WRITE_THROUGH
    ) as house:
        assert skips(await house.run()) == {"prod--a---b": "ambiguous_separator"}
        assert await house.data("ext/team/db.main") == {"k": "1"}
        await house.write("ext/team/db_2", {"k": "2"})
        assert json.loads(vault.value("prod--team--db-x5F2")) == {"k": "2"}


async def test_another_vault_behind_the_name_fails_the_run(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    vault.put("a", '{"k": "1"}')
    environ = {"AZURE_KEYS": KEYS}
    async with house_of(azure_fake, vault, database, environ=environ) as house:
        await house.run()
        vault.tenant = azure_fake.entra.tenant = OTHER_TENANT
        environ["AZURE_KEYS"] = KEYS.replace(TENANT_ID, OTHER_TENANT)
        vault.remove("a")
        assert failure(await house.run()) == "backend_identity_changed"
        assert await house.data("ext/a") == {"k": "1"}


async def test_no_value_stays_anywhere_but_sealed(
    azure_fake: AzureFake, vault: Vault, database: Database, canary: Canary
) -> None:
    vault.put("a", json.dumps({"k": canary.value("azure")}))
    async with house_of(azure_fake, vault, database, writes=Writes.WRITE_THROUGH) as house:
        await house.run()
        await house.write("ext/a", {"k": canary.value("written")})
        vault.put("b", canary.value("as text"))
        azure_fake.refuse_as("^GET /secrets/b", 400, "BadParameter")
        ended = await house.run()
        assert canary.found_in(repr(ended) + str(await house.dump())) == set()


# --- writes -------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ConflictPolicy)
async def test_write_goes_through_and_comes_back_as_nothing_new(
    azure_fake: AzureFake, vault: Vault, database: Database, policy: ConflictPolicy
) -> None:
    vault.put("a", '{"k": "1"}', tags={"team": "x"})
    settings: dict[str, Any] = {"writes": Writes.WRITE_THROUGH, "conflict_resolution": policy}
    async with house_of(azure_fake, vault, database, **settings) as house:
        await house.run()
        await house.write("ext/a", {"k": "2"})
        await house.write("ext/a", {"k": "3"})
        await house.write("ext/new", {"k": "1"})
        assert [json.loads(text)["k"] for text in vault.values("a")] == ["1", "2", "3"]
        assert json.loads(vault.value("new")) == {"k": "1"}
        tags = vault.tags("a")
        assert tags.pop("svsync-push")
        assert tags == {"team": "x", "svsync-managed": "true"}
        vault.now += 10
        for _ in range(2):
            found = counts(await house.run())
            assert found.keys() <= {"listed", "unchanged", "retokened"}
        assert "retokened" not in found
        assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}, {"k": "3"}]


async def test_write_upon_another_version_of_one_second_is_refused(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    vault.add("a", '{"k": "1"}')
    settings: dict[str, Any] = {
        "writes": Writes.WRITE_THROUGH,
        "conflict_resolution": ConflictPolicy.LOCAL_WINS,
    }
    async with house_of(azure_fake, vault, database, **settings) as house:
        await house.run()
        vault.add("a", '{"k": "theirs"}')
        await house.write("ext/a", {"k": "2"})
        assert json.loads(vault.value("a")) == {"k": "theirs"}
        assert (await house.row("pushes"))["state"] == "refused"


async def test_version_that_was_written_over_is_recorded_with_its_value(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    vault.put("a", '{"k": "1"}')
    settings: dict[str, Any] = {
        "writes": Writes.WRITE_THROUGH,
        "conflict_resolution": ConflictPolicy.LOCAL_WINS,
    }
    async with house_of(azure_fake, vault, database, **settings) as house:
        await house.run()

        async def answer(request: web.Request) -> web.StreamResponse:
            vault.add("a", '{"k": "theirs"}')  # after the look
            return await azure_fake.forward(request)

        azure_fake.answer("^PUT", answer)
        await house.write("ext/a", {"k": "2"})
        row = await house.row("conflicts")
        assert (row["kind"], row["state"]) == ("overwritten", "kept_local")
        assert row["remote_sealed"] is not None
        assert json.loads(vault.value("a")) == {"k": "2"}


async def test_delete_goes_through_and_can_be_undone_there(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    vault.put("a", '{"k": "1"}')
    settings: dict[str, Any] = {"writes": Writes.WRITE_THROUGH, "propagate_deletes": True}
    async with house_of(azure_fake, vault, database, **settings) as house:
        await house.run()
        await house.app.writes.delete(TENANT, LocalPath("ext/a"), by="sa:test")
        assert "a" in vault.deleted
        assert counts(await house.run()).keys() <= {"listed", "unchanged"}
        vault.restore("a")
        await house.run()
        assert await house.data("ext/a") == {"k": "1"}


async def test_write_to_a_deleted_name_recovers_it(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    vault.lag = 2
    vault.put("a", '{"k": "1"}')
    async with house_of(azure_fake, vault, database, writes=Writes.WRITE_THROUGH) as house:
        await house.run()
        vault.delete("a")
        await house.run()
        assert await house.status("ext/a") == "retained"
        await house.write("ext/a", {"k": "2"})
        assert [json.loads(text)["k"] for text in vault.values("a")] == ["1", "2"]
        vault.now += 10
        await house.run()
        assert await house.status("ext/a") == "in_sync"


def lose_the_answers(fake: AzureFake, pattern: str) -> None:
    """It is done, and nobody is told so."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await fake.forward(request)
        return web.Response(status=502)

    fake.answer(pattern, answer)


@pytest.fixture
def _once(monkeypatch: pytest.MonkeyPatch) -> None:
    try_once(monkeypatch)


@pytest.mark.usefixtures("_once")
async def test_push_without_an_answer_is_found_under_a_newer_version(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    vault.put("a", '{"k": "1"}')
    async with house_of(azure_fake, vault, database, writes=Writes.WRITE_THROUGH) as house:
        await house.run()
        lose_the_answers(azure_fake, "^PUT")
        with pytest.raises(WriteOutcomeUnknownError):
            await house.write("ext/a", {"k": "2"})
        vault.put("a", '{"k": "theirs"}')
        azure_fake.rules.clear()
        await overdue(house)
        await house.run()
        assert (await house.row("pushes"))["state"] == "landed"
        assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}, {"k": "theirs"}]


@pytest.mark.usefixtures("_once")
async def test_late_call_of_a_push_that_was_given_up_is_known_by_its_tag(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    vault.put("a", '{"k": "1"}')
    settings: dict[str, Any] = {
        "writes": Writes.WRITE_THROUGH,
        "conflict_resolution": ConflictPolicy.LOCAL_WINS,
    }
    async with house_of(azure_fake, vault, database, **settings) as house:
        await house.run()
        azure_fake.refuse_as("^PUT", 500, "InternalServerError")
        await house.write("ext/a", {"k": "2"})
        push = (await house.row("pushes"))["push_id"]
        azure_fake.rules.clear()
        await house.configure(writes=Writes.LOCAL)
        await overdue(house)
        await house.run()
        assert (await house.row("pushes"))["state"] == "withdrawn"
        await house.write("ext/a", {"k": "3"})
        vault.put("a", '{"k": "2"}', tags={"svsync-push": push})  # only now it arrives
        await house.configure(writes=Writes.WRITE_THROUGH)
        await house.admin.execute("UPDATE pushes SET ended_at = now() - interval '1 h'")
        await house.run()
        assert json.loads(vault.value("a")) == {"k": "3"}
        assert await house.rows("conflicts") == []


# --- the program --------------------------------------------------------------------


async def test_program_runs_a_cycle_on_a_vault_of_loopback(
    azure_fake: AzureFake, vault: Vault, database_url: str, tmp_path: Path, canary: Canary
) -> None:
    azure_fake.on_loopback = vault
    here = f"https://localhost:{azure_fake.resolver.port}"
    vault.put("db", json.dumps({"password": canary.value("azure")}))
    backend = {
        "id": "fed_azure",
        "name": "azure",
        "type": "azure-key-vault",
        "mode": "sync",
        "config": {
            "vault_url": here,
            "auth_method": "client_secret",
            "credentials_path": "env:AZURE_KEYS",
            "tls_verify": azure_fake.pem,
        },
        "path_mapping": [{"local": "ext/*", "remote": "*"}],
        "events": [{"feed": "azure-eventgrid", "secret_path": "infra/azure/eventgrid"}],
    }
    file = tmp_path / "svsync.yaml"
    file.write_text(json.dumps({"allow_loopback": True, "backends": [backend]}))
    environ = {
        "DATABASE_URL": database_url,
        "SVSYNC_STATE_DIR": str(tmp_path),
        "AZURE_KEYS": KEYS,
        "AZURE_AUTHORITY_HOST": here,
    }
    program = Program(environ, tmp_path, canary)
    at = ("--config", str(file))
    said = await program("run-once", "--backend", "fed_azure", "--json", *at)
    assert said.code == 0, said.err
    run = said.json
    assert (run["result"], run["counts"]["created"]) == ("ok", 1)
    made = {kind: n for kind, n in run["api_calls"].items() if n}
    assert made == {"list": 2, "login": 1, "read": 1}
    tested = await program("backends", "test", "fed_azure", *at)
    assert tested.code == 0
    vault.permissions = {"list"}
    tested = await program("backends", "test", "fed_azure", *at)
    assert "Key Vault Secrets User" in tested.out + tested.err


# --- Event Grid ---------------------------------------------------------------------


@pytest_asyncio.fixture
async def told(azure_fake: AzureFake, vault: Vault, database: Database) -> AsyncIterator[Front]:
    """The API of a house whose vault tells of new versions."""
    events = ({"feed": "azure-eventgrid"},)
    async with (
        house_of(azure_fake, vault, database, events=events) as house,
        open_front(house) as front,
    ):
        yield front


async def test_event_brings_the_new_version_and_reads_nothing_else(
    azure_fake: AzureFake, vault: Vault, told: Front
) -> None:
    for name in ("a", "b"):
        vault.put(name, '{"k": "1"}')
    house = told.house
    await house.run()
    for name in ("a", "b"):
        vault.put(name, '{"k": "2"}')
    made = await told.client.post(
        f"{BACKENDS}/{BACKEND}/feed-secrets", json={"feed": "azure-eventgrid"}
    )
    newest = vault.live["a"].newest
    event = {
        "id": "1",
        "eventType": "Microsoft.KeyVault.SecretNewVersionCreated",
        "subject": "a",
        "data": {
            "Id": f"{vault.url}/secrets/a/{newest.id}",
            "VaultName": vault.name,
            "ObjectType": "Secret",
            "ObjectName": "a",
            "Version": newest.id,
        },
    }
    sender = told.client.with_token(made.body["secret"])
    answer = await sender.post(f"/v1/events/azure-eventgrid/{BACKEND}", json=[event])
    assert (answer.status, answer.body) == (202, {"paths": 1, "full_run": False})
    azure_fake.seen.clear()
    assert await work_all(house) == ["targeted"]
    assert await house.data("ext/a") == {"k": "2"}
    assert await house.data("ext/b") == {"k": "1"}
    assert azure_fake.calls("/b") == 0


# --- read through -------------------------------------------------------------------


async def test_read_that_passes_through_is_answered_and_recorded(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    vault.put("db", '{"k": "1"}')
    vault.put("off", '{"k": "1"}', enabled=False)
    async with (
        house_of(azure_fake, vault, database, mode=Mode.PROXY) as house,
        open_front(house) as front,
    ):
        answer = await front.client.get("/v1/secrets/ext/db")
        assert (answer.status, answer.body["data"]) == (200, {"k": "1"})
        assert answer.body["version"] == 1, "as of a store that does not number"
        for path in ("ext/off", "ext/never", "ext/DB"):
            assert (await front.client.get(f"/v1/secrets/{path}")).status in (404, 502)
        listed = await front.client.get("/v1/secrets?prefix=ext/")
        assert [one["path"] for one in listed.body["secrets"]] == ["ext/db"]
        assert listed.body["incomplete"] is False
        vault.forbids = "ForbiddenByFirewall"
        assert (await front.client.get("/v1/secrets/ext/db")).told == (502, "backend_denied")
        assert await house.rows("secrets") == []
