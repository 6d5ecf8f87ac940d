"""Does the audit log tell of what an operator does on the store itself, before it is done?"""

import argparse
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from tests.house import BACKEND, TENANT, House

from svsync.app import App
from svsync.cli.main import build_parser
from svsync.cli.output import Output
from svsync.domain.errors import SvsyncError
from svsync.domain.ids import TenantId
from svsync.services.recording import AuditUnavailableError

ENDPOINT = "whk_" + "0" * 32
AT = ("--backend", BACKEND)
VERBS: Sequence[tuple[str, tuple[str, ...], dict[str, Any]]] = (
    ("federation.pause", ("backends", "pause", BACKEND), {"backend_id": BACKEND}),
    ("federation.resume", ("backends", "resume", BACKEND), {"backend_id": BACKEND}),
    ("federation.pause", ("backends", "pause", "--all"), {"detail": {"all": True}}),
    ("federation.resume", ("backends", "resume", "--all"), {"detail": {"all": True}}),
    (
        "federation.delete",
        ("backends", "remove", BACKEND, "--local-copies", "purge"),
        {"backend_id": BACKEND, "detail": {"purge": True}},
    ),
    (
        "conflict.resolve",
        ("conflicts", "resolve", "ext/a", *AT, "--use-local"),
        {"secret_path": "ext/a", "backend_id": BACKEND, "detail": {"resolution": "use_local"}},
    ),
    ("conflict.show", ("conflicts", "show", "ext/a", *AT), {"secret_path": "ext/a"}),
    ("conflict.reveal", ("conflicts", "show", "ext/a", *AT, "--reveal"), {"secret_path": "ext/a"}),
    ("secret.list", ("secrets", "list", "--prefix", "ext/"), {"secret_path": "ext/"}),
    ("secret.history", ("secrets", "history", "ext/a"), {"secret_path": "ext/a"}),
    ("secret.read", ("secrets", "get", "ext/a"), {"secret_path": "ext/a"}),
    ("secret.write", ("secrets", "write", "ext/a", "k=2"), {"secret_path": "ext/a"}),
    ("secret.delete", ("secrets", "delete", "ext/a"), {"secret_path": "ext/a"}),
    ("secret.restore", ("secrets", "restore", "ext/a"), {"secret_path": "ext/a"}),
    (
        "federation.sync",
        ("run-once", *AT, "--path", "ext/**", "--allow-mass-delete"),
        {"backend_id": BACKEND, "detail": {"paths": ["ext/**"], "allow": ["mass_delete"]}},
    ),
    ("federation.inventory", ("inventory", "--backend", BACKEND), {"backend_id": BACKEND}),
    ("audit.query", ("inventory", "readers"), {}),
    (
        "retirement.plan",
        ("retire", "plan", "ext/**", "--idle", "7d"),
        {"detail": {"pattern": "ext/**", "idle": "7d"}},
    ),
    ("retention.run", ("retention", "run"), {"detail": None}),
    ("keys.status", ("keys", "status"), {}),
    ("keys.rotate", ("keys", "rotate"), {"detail": {"root": False}}),
    ("keys.rotate", ("keys", "rotate", "--root"), {"detail": {"root": True}}),
    ("keys.rewrap", ("keys", "rewrap"), {}),
    ("token.revoke", ("tokens", "revoke", "svt_1_x"), {"detail": None}),
    ("groups.set", ("groups", "set", "sa:a", "ops"), {}),
    (
        "webhook.create",
        ("webhooks", "add", "https://user.example/hidden", "--type", "federation.sync.failed"),
        {"detail": {"types": ["federation.sync.failed"], "path_patterns": []}},
    ),
    ("webhook.test", ("webhooks", "test", ENDPOINT), {"detail": {"webhook": ENDPOINT}}),
    ("webhook.replay", ("webhooks", "replay", ENDPOINT), {"detail": {"webhook": ENDPOINT}}),
    ("webhook.delete", ("webhooks", "remove", "whsec_mine"), {"detail": {}}),
    (
        "webhook.rotate",
        ("webhooks", "rotate", ENDPOINT, "--at-once"),
        {"detail": {"webhook": ENDPOINT, "at_once": True}},
    ),
)


async def do(house: House, words: Sequence[str]) -> None:
    """A command on a house's store."""
    args = build_parser().parse_args(words)
    args.out = Output(json=True)
    await args.command(args)


@pytest.fixture
async def desk(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    house.there.put("kv/a", {"k": "1"})
    await house.run()

    @asynccontextmanager
    async def opened(args: argparse.Namespace) -> AsyncIterator[tuple[App, TenantId]]:
        yield house.app, TENANT

    @asynccontextmanager
    async def opened_store(args: argparse.Namespace) -> AsyncIterator[App]:
        yield house.app

    monkeypatch.setattr("svsync.cli.opening.opened", opened)
    monkeypatch.setattr("svsync.cli.opening.opened_store", opened_store)
    return house


@pytest.mark.parametrize(("action", "words", "told"), VERBS)
async def test_what_an_operator_does_is_recorded_whatever_comes_of_it(
    desk: House, action: str, words: tuple[str, ...], told: dict[str, Any]
) -> None:
    with suppress(SvsyncError):  # some of it cannot be done here
        await do(desk, words)
    row = await desk.row("audit", action=action)
    assert (row["identity_type"], row["identity_id"][:4], row["decision"]) == (
        "operator",
        "cli:",
        "allow",
    )
    found = {name: row[name] for name in told}
    if "detail" in found and found["detail"] is not None:
        found["detail"] = json.loads(found["detail"])
    assert found == told
    assert "hidden" not in str(row)


@pytest.mark.parametrize(("action", "words", "told"), VERBS)
async def test_what_cannot_be_recorded_is_not_done(
    desk: House,
    action: str,
    words: tuple[str, ...],
    told: dict[str, Any],
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    await desk.admin.execute(
        "CREATE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE EXCEPTION 'no'; END$$;"
        "CREATE TRIGGER no_more BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION no_more()"
    )
    work = frozenset({"audit_chains", "data_keys", "instances"})
    before = await desk.dump(without=work)
    with pytest.raises(AuditUnavailableError):
        await do(desk, words)
    assert await desk.dump(without=work) == before
    assert not capsysbinary.readouterr().out


async def test_a_run_that_writes_nothing_is_not_recorded(desk: House) -> None:
    await do(desk, ("run-once", *AT, "--dry-run"))
    await do(desk, ("plan", *AT))
    assert not await desk.rows("audit")


async def test_what_retention_removed_is_counted_in_the_log(desk: House) -> None:
    await do(desk, ("retention", "run"))
    assert [row["action"] for row in await desk.rows("audit")] == ["retention.run"]
    await desk.write("app/a", {"k": "1"}, max_versions=1)
    await desk.write("app/a", {"k": "2"})
    await desk.admin.execute("UPDATE versions SET stored_at = stored_at - interval '1 day'")
    await do(desk, ("retention", "run"))
    row = await desk.row("audit", action="retention.removed")
    assert json.loads(row["detail"]) == {"removed": {"versions": 1}}
    assert (row["identity_type"], row["identity_id"][:4]) == ("operator", "cli:")


async def test_the_service_tells_what_its_retention_removed(desk: House) -> None:
    await desk.app.retention.run_all()
    assert not await desk.rows("audit")
    await desk.write("app/a", {"k": "1"}, max_versions=1)
    await desk.write("app/a", {"k": "2"})
    await desk.admin.execute("UPDATE versions SET stored_at = stored_at - interval '1 day'")
    await desk.app.retention.run_all()
    row = await desk.row("audit")
    assert (row["action"], row["identity_type"], row["identity_id"]) == (
        "retention.removed", "system", "svsync",
    )  # fmt: skip
