"""Which statements of a run may be lost in a crash: its own work rows, and reads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.house import House

from svsync.store.database import Database, Transaction

MAY_BE_LOST = {
    "staging.clear_all",
    "staging.clear",
    "staging.clear_todo",
    "staging.add_scopes",
    "staging.count",
    "staging.diff",
    "staging.guard_numbers",
    "staging.blinded",
    "staging.unseen",
    "staging.quarantined",
    "staging.mark_equal",
    "staging.page",
    "staging.add_named",
    "queue.record_staged",
    "queue.record_todo",
    "queue.advance",
    "pairs.load",
    "schedule.dirty_first",
    "pairs.load_new",
    "pairs.active",
    "pairs.active_below",
    "secrets.next_ids",
    "secrets.sealed_current",
}


async def test_nothing_but_work_rows_is_committed_without_waiting_for_the_disk(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: set[tuple[bool, str]] = set()
    original = Database.transaction

    @asynccontextmanager
    async def transaction(self: Database, *args: Any, **kwargs: Any) -> AsyncIterator[Transaction]:
        async with original(self, *args, **kwargs) as tx:
            scratch = bool(kwargs.get("scratch"))
            for verb in ("fetch", "fetchrow", "fetchval", "execute"):
                run_it = getattr(tx, verb)

                async def told(name: str, *rest: object, run_it: Any = run_it) -> Any:
                    said.add((scratch, name))
                    return await run_it(name, *rest)

                setattr(tx, verb, told)
            yield tx

    monkeypatch.setattr(Database, "transaction", transaction)
    for name in ("a", "b", "c"):
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    await house.run()
    lost = {name for scratch, name in said if scratch}
    kept = {name for scratch, name in said if not scratch}
    assert lost <= MAY_BE_LOST
    assert {"secrets.add_versions", "pairs.upsert", "outbox.add", "queue.finish"} <= kept
