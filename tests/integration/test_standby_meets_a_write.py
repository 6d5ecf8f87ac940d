"""A standby lets go of its pairs while a person writes to their paths."""

import asyncio
from functools import partial

import pytest
from tests.house import BACKEND, TENANT, House, failure
from tests.integration.test_fence import somebody_waits_for_a_lock, until
from tests.integration.test_write_meets_removal import Gate

from svsync.domain.federation import Writes
from svsync.domain.ids import LocalPath
from svsync.services.sync import standby
from svsync.store import secrets as store


async def test_standby_and_a_write_do_not_lock_each_other_out(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.configure(writes=Writes.WRITE_THROUGH, propagate_deletes=True)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    # A tombstone that asks for a delete there: to let go of its pair writes to it as well.
    await house.bury("ext/a")
    await house.admin.execute("UPDATE secrets SET propagate = true")
    await house.configure(extra={"standby_for": "fed_other"}, writes=Writes.LOCAL)
    with Gate(monkeypatch, store, "mark_written") as gate:
        writing = asyncio.create_task(house.write("ext/a", {"k": "2"}))
        await gate.reached.wait()
        running = asyncio.create_task(house.run())
        await until(partial(somebody_waits_for_a_lock, house))
    assert await writing == 2
    assert failure(await running) is None
    assert [row["status"] for row in await house.rows("sync_state")] == ["detached"]


async def test_standby_lets_go_of_every_page_of_pairs(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby, "_PAGE", 2)
    for name in "abcde":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    await house.configure(extra={"standby_for": "fed_other"})
    await house.run()
    assert {row["status"] for row in await house.rows("sync_state")} == {"detached"}
    assert len(await house.paths()) == 5


async def test_pair_whose_push_is_on_its_way_stays_and_the_others_go(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby, "_PAGE", 1)
    for name in "ab":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    await house.admin.execute(
        "INSERT INTO pushes (tenant_id, push_id, backend_id, path, remote_path, kind, secret_id,"
        " version, row_rev, state, deadline, created_by) SELECT $1, 'psh_1', $2, path, 'kv/a',"
        " 'put', secret_id, 1, row_rev, 'sent', now() + interval '1 min', 'sa:test'"
        " FROM secrets WHERE path = $3",
        TENANT,
        BACKEND,
        LocalPath("ext/a"),
    )
    await house.configure(extra={"standby_for": "fed_other"})
    await house.run()
    states = {row["path"]: row["status"] for row in await house.rows("sync_state")}
    assert states == {"ext/a": "in_sync", "ext/b": "detached"}
