"""A write that meets a run, another write, a new configuration or another clock.

Each ends as if one of the two had come first: nothing due is forgotten, and nothing is
called done that is not.
"""

import asyncio
from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from tests.house import BACKEND, EVERYTHING, TENANT, House, Pause, skips
from tests.writes import (
    delete,
    fall_down,
    lose,
    overdue,
    put,
    run_listed_before,
    state,
    there,
    through,
)

from svsync.domain.changes import RemoteUnknown
from svsync.domain.errors import FenceLostError, SvsyncError, WriteOutcomeUnknownError
from svsync.domain.federation import ConflictPolicy, RuleSpec
from svsync.domain.ids import LocalPath
from svsync.domain.resolutions import Resolution
from svsync.services import resolving
from svsync.services.sync import lease

__all__ = ["through"]


# --- a write meets a run ---------------------------------------------------------------


async def test_push_that_is_due_outlives_a_change_of_tags_in_an_older_listing(
    through: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await through.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    through.there.tag("kv/a", {"env": "a"})

    async def write() -> None:
        fall_down(through)
        assert state(await put(through, "ext/a", {"k": "2"})) == "pending"

    await run_listed_before(through, monkeypatch, write)
    await through.run()
    assert there(through, "kv/a") == {"k": "2"}
    assert await through.status("ext/a") == "in_sync"


async def test_change_of_tags_waits_for_a_push_that_nobody_knows_the_end_of(
    through: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    through.there.tag("kv/a", {"env": "a"})

    async def write() -> None:
        lose(through, applied=False)
        with pytest.raises(WriteOutcomeUnknownError):
            await put(through, "ext/a", {"k": "2"}, tags=("x=y",))

    ended = await run_listed_before(through, monkeypatch, write)
    assert skips(ended) == {"kv/a": "write_in_progress"}


async def test_secret_written_while_a_run_finds_its_name_gone_is_not_forgotten(
    through: House,
) -> None:
    await through.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    through.there.put("kv/n", {"k": "theirs"})
    through.there.unreadable["kv/n"] = RemoteUnknown("unreadable")
    await through.run()
    await through.admin.execute("UPDATE sync_state SET retry_at = NULL")
    del through.there.unreadable["kv/n"]
    through.there.remove("kv/n")
    pause = Pause(through.there, "metadata", "kv/n")
    running = asyncio.create_task(through.run())
    await pause.reached.wait()
    fall_down(through)
    assert state(await put(through, "ext/n", {"k": "ours"})) == "pending"
    pause.let_go()
    await running
    await through.run()
    assert there(through, "kv/n") == {"k": "ours"}


async def test_value_that_cannot_be_read_leaves_what_a_write_said_of_the_pair(
    house: House,
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    house.there.unreadable["kv/a"] = RemoteUnknown("unreadable")
    pause = Pause(house.there, "read")
    running = asyncio.create_task(house.run())
    await pause.reached.wait()
    await house.write("ext/a", {"k": "ours"})
    assert await house.status("ext/a") == "diverged"
    pause.let_go()
    await running
    assert await house.status("ext/a") == "diverged"
    await house.run()
    assert await house.status("ext/a") == "diverged"
    await house.run()
    assert await house.status("ext/a") == "quarantined"


# --- a write meets another one ---------------------------------------------------------


async def test_applied_is_not_said_while_an_earlier_push_is_on_its_way(through: House) -> None:
    await through.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    lose(through, applied=True)
    assert state(await put(through, "ext/a", {"k": "2"})) == "pending"
    assert state(await put(through, "ext/a", {"k": "1"})) == "pending"
    await overdue(through)
    await through.run()
    assert there(through, "kv/a") == {"k": "1"} == await through.data("ext/a")


@pytest.mark.parametrize("skip", [True, False])
async def test_applied_is_not_said_of_tags_that_are_still_due(through: House, skip: bool) -> None:
    answer = await put(through, "ext/a", {"k": "1"}, tags=("env=b",), skip_if_equal=skip)
    assert state(answer) == "pending"
    await through.run()
    secret = through.there.secret("kv/a")
    assert secret is not None
    assert secret.tags["env"] == "b"


async def test_delete_waits_for_a_create_that_nobody_knows_the_end_of(through: House) -> None:
    await through.configure(propagate_deletes=True, conflict_resolution=ConflictPolicy.LOCAL_WINS)
    fall_down(through)
    await put(through, "ext/new", {"k": "1"})
    lose(through, applied=True)
    await through.run()
    await through.configure(conflict_resolution=ConflictPolicy.BACKEND_WINS)
    with pytest.raises(SvsyncError) as waits:
        await delete(through, "ext/new")
    assert waits.value.code == "write_in_progress"
    await overdue(through)
    await through.run()
    assert state(await delete(through, "ext/new")) == "applied"
    assert there(through, "kv/new") is None
    assert await through.paths() == ["ext/a"]


# --- a write meets a new configuration -------------------------------------------------


async def test_create_that_is_due_outlives_a_change_of_the_mapping(through: House) -> None:
    await through.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    fall_down(through)
    assert state(await put(through, "ext/new", {"k": "1"})) == "pending"
    await through.configure(rules=(*EVERYTHING, RuleSpec("other/**", "kv2/**")))
    await through.run()
    await through.run()
    assert there(through, "kv/new") == {"k": "1"}
    assert await through.status("ext/new") == "in_sync"


# --- clocks and leases -----------------------------------------------------------------


async def test_base_of_a_resolved_conflict_is_dated_by_the_database(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.configure(
        conflict_resolution=ConflictPolicy.MANUAL, extra={"consistency_window": 600}
    )
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.write("ext/a", {"k": "ours"})
    house.there.put("kv/a", {"k": "theirs"})
    await house.run()

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(hours=6)

    monkeypatch.setattr(resolving, "datetime", Ahead)
    await house.app.conflicts.resolve(
        TENANT, BACKEND, LocalPath("ext/a"), Resolution.USE_REMOTE, by="sa:test"
    )
    row = await house.row("sync_state", path="ext/a")
    assert row["base_moved_at"] <= datetime.now(UTC) + timedelta(minutes=1)


async def test_end_of_a_run_that_lost_its_lease_is_told_of(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lease, "DEADLINE_S", 0.1)
        pause = Pause(house.there, "list")
        with pytest.raises(FenceLostError):
            await house.run()
        assert pause.reached.is_set()
    await house.admin.execute("UPDATE leases SET expires_at = now()")
    await house.run()
    assert sorted(await house.events()) == [
        "federation.sync.completed",
        "federation.sync.failed",
    ]
