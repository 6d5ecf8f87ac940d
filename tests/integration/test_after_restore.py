"""A database that was restored from a backup: nobody of after it goes on, nothing is lost."""

import asyncio
import json

import pytest
from tests.api import Front, front
from tests.house import BACKEND, House, Pause, failure, house
from tests.integration.test_reading import allow

from svsync.app import App, new_id
from svsync.domain.access import Scope
from svsync.domain.audit import SVSYNC
from svsync.domain.errors import BackendUnreachableError, FenceLostError, SvsyncError
from svsync.domain.federation import Mode, Writes
from svsync.services.recording import AuditUnavailableError
from svsync.services.restore import Restored, after_restore
from svsync.store import restore

__all__ = ["front", "house"]


async def restored(app: App) -> Restored:
    return await after_restore(app.db, app.recorder, by=SVSYNC, ids=new_id)


async def test_worker_of_after_the_backup_commits_nothing(house: House) -> None:
    """The backup knows a lower fence than the one the worker holds."""
    house.there.put("kv/a", {"k": "1"})
    pause = Pause(house.there, "read")
    running = asyncio.create_task(house.run())
    await pause.reached.wait()
    before = await house.row("leases")
    await house.admin.execute("UPDATE leases SET fence = 1, holder = NULL")
    done = await restored(house.app)
    pause.let_go()
    with pytest.raises(FenceLostError):
        await running
    assert done.fences == 1
    assert (await house.row("leases"))["fence"] == 1 + 2**32 > before["fence"]
    assert await house.paths() == []


async def test_run_that_the_backup_shows_as_running_is_ended_with_its_event(house: House) -> None:
    await house.run()
    await house.admin.execute("UPDATE runs SET state = 'running', result = NULL, ended_at = NULL")
    assert (await restored(house.app)).runs == 1
    run = await house.row("runs")
    assert (run["state"], run["error_code"]) == ("failed", "restored")
    assert await house.events() == ["federation.sync.completed", "federation.sync.failed"]
    assert (await house.row("backend_health"))["last_error"] == "restored"
    assert (await restored(house.app)).runs == 0
    assert failure(await house.run()) is None


@pytest.mark.parametrize("backed_up", ["planned", "sent"])
async def test_push_that_the_backup_shows_as_unfinished_is_asked_about(
    house: House, backed_up: str
) -> None:
    await house.configure(writes=Writes.WRITE_THROUGH)
    house.there.put("kv/a", {"k": "1"})
    await house.run()

    async def lost(operation: str, path: str) -> None:
        if operation == "write":
            raise BackendUnreachableError("no answer", operation="write")

    house.there.after = lost
    with pytest.raises(SvsyncError):
        await house.write("ext/a", {"k": "2"})
    house.there.after = None
    await house.admin.execute(
        "UPDATE pushes SET state = $1, sent_at = CASE WHEN $1 = 'sent' THEN sent_at END,"
        " deadline = now() + interval '1 hour'",
        backed_up,
    )
    assert (await restored(house.app)).pushes == 1
    await house.run()
    assert (await house.row("pushes"))["state"] == "landed"
    assert await house.data("ext/a") == {"k": "2"}


async def test_another_server_or_timeline_is_noticed_until_it_is_dealt_with(house: House) -> None:
    db = house.app.db
    assert not await restore.has_moved(db)
    for change in ("timeline = timeline + 1", "system = '1'"):
        await house.admin.execute(f"UPDATE store_home SET {change}")
        assert await restore.has_moved(db)
        await restore.remember(db, only_first=True)
        assert await restore.has_moved(db), "opening the store settles nothing"
        await restored(house.app)
        assert not await restore.has_moved(db)


async def test_role_that_may_not_ask_is_told_nothing(house: House) -> None:
    await house.admin.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    assert await restore.home(house.app.db) is None
    assert not await restore.has_moved(house.app.db)
    assert (await restored(house.app)).fences == 1
    assert (await house.row("backends"))["backend_id"] == BACKEND


async def test_nobody_goes_by_rights_or_backends_of_after_the_backup(front: Front) -> None:
    """A process remembers them under numbers that the restored database comes to again."""
    house = front.house
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    backup = await house.row("tenants")
    client = front.client.with_token(await front.token(Scope.SECRETS_READ))
    await allow(front, "ext/**", "read")
    assert (await client.get("/v1/secrets/ext/a")).status == 200
    now = await house.row("tenants")
    # The backup knew neither the token nor the policy.
    await house.admin.execute("DELETE FROM tokens WHERE identity_id <> 'sa:robot'")
    await house.admin.execute("DELETE FROM bindings")
    await house.admin.execute(
        "UPDATE tenants SET auth_epoch = $1, federation_epoch = $2",
        backup["auth_epoch"], backup["federation_epoch"],
    )  # fmt: skip
    await restored(house.app)
    found = await house.row("tenants")
    for epoch in ("auth_epoch", "federation_epoch"):
        assert found[epoch] == backup[epoch] + 2**32 > now[epoch]
    assert (await client.get("/v1/secrets/ext/a")).status == 404


async def test_each_tenants_log_tells_where_it_was_restored(house: House) -> None:
    other = await house.app.tenants.begin("acme")
    await restored(house.app)
    rows = await house.rows("audit")
    assert {(row["tenant_id"], row["action"], row["identity_id"]) for row in rows} == {
        (1, "store.restored", "svsync"),
        (other, "store.restored", "svsync"),
    }
    home = await restore.home(house.app.db)
    assert home is not None
    assert json.loads(rows[0]["detail"]) == {"system": home.system, "timeline": home.timeline}


async def test_restore_that_cannot_be_recorded_is_not_dealt_with(house: House) -> None:
    before = await house.row("leases")
    await house.admin.execute("ALTER TABLE audit ADD CONSTRAINT no_more CHECK (false) NOT VALID")
    with pytest.raises(AuditUnavailableError):
        await restored(house.app)
    assert await house.row("leases") == before
