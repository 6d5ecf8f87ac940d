"""What the status of a backend says after runs that failed, broke, died, or saw a part."""

import json

import pytest
from tests.house import BACKEND, TENANT, House, failure

from svsync.domain.changes import RemoteUnknown
from svsync.domain.errors import KeyServiceError, ProtocolError, StoreUnavailableError
from svsync.domain.ids import RunId
from svsync.services.sealing import Sealing
from svsync.store import queue
from svsync.store.queue import Wanted

OF_THE_WHOLE = ("last_success_at", "next_sync_at", "skipped", "calls_per_cycle")


async def status(house: House) -> dict[str, object]:
    return await house.app.federation.status(TENANT, BACKEND)


async def settled(house: House) -> dict[str, object]:
    """Six secrets, one of which may not be read."""
    for n in range(6):
        house.there.put(f"kv/{n}", {"k": "1"})
    house.there.unreadable["kv/0"] = RemoteUnknown("denied")
    await house.run()
    return await status(house)


async def test_targeted_run_says_nothing_of_the_whole(house: House) -> None:
    before = await settled(house)
    assert before["skipped"] == 1
    assert all(before[name] is not None for name in OF_THE_WHOLE)
    house.there.put("kv/3", {"k": "2"})
    assert failure(await house.run("ext/3")) is None
    after = await status(house)
    assert {name: after[name] for name in OF_THE_WHOLE} == {n: before[n] for n in OF_THE_WHOLE}
    assert after["last_sync_at"] != before["last_sync_at"]
    assert after["last_run"] != before["last_run"]


async def test_targeted_run_does_not_end_a_row_of_failures(house: House) -> None:
    await settled(house)
    house.there.fail("login", ProtocolError("not a vault", operation="login"))
    assert failure(await house.run()) is not None
    assert failure(await house.run("ext/3")) is None
    after = await status(house)
    assert (after["consecutive_failures"], after["status"]) == (1, "degraded")
    assert after["last_error"] is not None
    assert failure(await house.run()) is None
    after = await status(house)
    assert (after["consecutive_failures"], after["last_error"]) == (0, None)


async def test_failed_run_is_never_healthy(house: House) -> None:
    await house.run()
    assert (await status(house))["status"] == "healthy"
    house.there.fail("login", ProtocolError("not a vault", operation="login"))
    assert failure(await house.run()) is not None
    after = await status(house)
    assert (after["status"], after["consecutive_failures"]) == ("degraded", 1)


async def test_defect_of_ours_ends_the_run_as_an_internal_failure_of_the_backend(
    house: House,
) -> None:
    before = await settled(house)

    async def break_off(operation: str, path: str) -> None:
        if operation == "list":
            raise ZeroDivisionError("hunter2")

    house.there.before = break_off
    with pytest.raises(ZeroDivisionError):
        await house.run()
    row = (await house.rows("runs"))[-1]
    assert (row["state"], row["result"], row["error_code"]) == ("failed", "failed", "internal")
    event = json.loads((await house.rows("outbox", type="federation.sync.failed"))[-1]["payload"])
    assert event["error"]["code"] == "internal"
    assert "hunter2" not in str(event)
    after = await status(house)
    assert (after["consecutive_failures"], after["last_error"]) == (1, "internal")
    assert after["last_success_at"] == before["last_success_at"]
    assert after["lease"] is None


@pytest.mark.parametrize("error", [KeyServiceError("no key"), StoreUnavailableError("no store")])
async def test_run_that_cannot_have_its_keys_leaves_no_lease_behind(
    house: House, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def no_keys(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Sealing, "for_tenant", no_keys)
        with pytest.raises(type(error)):
            await house.run()
    assert (await status(house))["lease"] is None
    assert failure(await house.run()) is None  # at once, not when a lease has run out


async def test_run_whose_worker_died_counts_as_a_failure(house: House) -> None:
    before = await settled(house)
    async with house.app.db.transaction(TENANT) as tx:
        await queue.claim(tx, BACKEND, RunId("run_dead"), Wanted("full", "run_once"), holder="a:1")
    await house.admin.execute("UPDATE leases SET expires_at = now()")
    house.there.fail("login", ProtocolError("not a vault", operation="login"))
    assert failure(await house.run()) is not None
    after = await status(house)
    assert after["consecutive_failures"] == 2
    assert after["last_success_at"] == before["last_success_at"]
