"""A push that was given up: what is made of it after that, and what is taken for it.

Whoever gave it up was a writer who was told so, a run that found it overdue, or a
configuration that asks for no pushes any more.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.house import House, Pause, backend, failure, open_house
from tests.writes import delete, fall_down, lose, overdue, put, state, there, through

from svsync.domain.errors import (
    BackendUnreachableError,
    DeniedError,
    FenceLostError,
    SvsyncError,
    WriteOutcomeUnknownError,
)
from svsync.domain.federation import BackendSpec, ConflictPolicy, RemoteChanges, Writes
from svsync.domain.ids import PushId
from svsync.ports import CallGuard
from svsync.services import write_through
from svsync.services.pushes import AT_ONCE, Made, Sender
from svsync.services.sending import deliver
from svsync.testing.memory import FEATURES, MemoryBackend, MemoryStore

__all__ = ["through"]

REMOTE_FIRST = [ConflictPolicy.BACKEND_WINS, ConflictPolicy.MANUAL]


# --- what was not made, and somebody else writes the same ----------------------------


@pytest.mark.parametrize("policy", REMOTE_FIRST)
async def test_write_by_hand_after_a_failed_one_is_not_taken_for_our_late_call(
    through: House, policy: ConflictPolicy
) -> None:
    await through.configure(conflict_resolution=policy)
    fall_down(through)
    with pytest.raises(BackendUnreachableError):
        await put(through, "ext/a", {"k": "2"})
    through.there.put("kv/a", {"k": "2"})
    await through.run()
    assert there(through, "kv/a") == {"k": "2"}
    assert await through.data("ext/a") == {"k": "2"}


@pytest.mark.parametrize("policy", REMOTE_FIRST)
async def test_rotation_that_writes_the_backend_and_then_here_is_not_undone(
    through: House, policy: ConflictPolicy
) -> None:
    await through.configure(conflict_resolution=policy)
    through.there.put("kv/a", {"k": "rotated"})
    with pytest.raises(SvsyncError) as refused:
        await put(through, "ext/a", {"k": "rotated"})
    assert refused.value.code == "remote_changed"
    await through.run()
    assert there(through, "kv/a") == {"k": "rotated"}
    assert await through.data("ext/a") == {"k": "rotated"}


# --- what was withdrawn is not made ----------------------------------------------------


async def test_delete_that_a_run_withdrew_is_not_made_by_its_writer(
    through: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await through.configure(propagate_deletes=True)

    async def stalled(sender: Sender, ids: Sequence[PushId]) -> list[Made]:
        await overdue(through)
        await through.run()
        assert (await through.row("pushes"))["state"] == "withdrawn"
        return await deliver(sender, ids)

    monkeypatch.setattr(write_through, "deliver", stalled)
    with pytest.raises(SvsyncError):
        await delete(through, "ext/a")
    assert (await through.row("pushes"))["state"] == "withdrawn"
    assert there(through, "kv/a") == {"k": "1"} == await through.data("ext/a")


async def test_pushes_that_wait_their_turn_are_not_made_once_they_are_withdrawn(
    house: House,
) -> None:
    names = [f"{n:02}" for n in range(20)]
    for name in names:
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    for name in names:
        await house.write(f"ext/{name}", {"k": "2"})
    await house.configure(writes=Writes.WRITE_THROUGH)
    reached, go = asyncio.Event(), asyncio.Event()
    written: set[str] = set()

    async def before(operation: str, path: str) -> None:
        if operation == "metadata":
            reached.set()
            await go.wait()
        if operation == "write":
            written.add(path)

    house.there.before = before
    running = asyncio.create_task(house.run())
    await reached.wait()
    await overdue(house)
    await house.configure(writes=Writes.LOCAL)
    await house.run()
    assert {row["state"] for row in await house.rows("pushes")} == {"withdrawn"}
    go.set()
    with pytest.raises(FenceLostError):
        await running
    assert len(written) <= AT_ONCE < len(names)


# --- what nobody knows the end of ------------------------------------------------------


async def test_path_that_cannot_be_asked_after_stops_no_run(through: House) -> None:
    lose(through, applied=False)
    with pytest.raises(WriteOutcomeUnknownError):
        await put(through, "ext/a", {"k": "2"})
    through.there.put("kv/a", {"k": "theirs"})
    through.there.put("kv/b", {"k": "1"})
    await overdue(through)

    async def deny(operation: str, path: str) -> None:
        if (operation, path) == ("metadata", "kv/a"):
            raise DeniedError("no", operation="metadata", path=path)

    through.there.before = deny
    assert failure(await through.run()) is None
    assert await through.paths() == ["ext/a", "ext/b"]
    assert (await through.row("pushes"))["state"] == "unknown"


PRIMARY_THAT_PULLS: dict[str, Any] = {
    "propagate_deletes": True,
    "conflict_resolution": ConflictPolicy.LOCAL_WINS,
    "remote_changes": RemoteChanges.PULL,
}


async def pushes_in_order(house: House) -> Sequence[Any]:
    return await house.admin.fetch("SELECT state FROM pushes ORDER BY planned_at, push_id")


@pytest.mark.parametrize("landed", [True, False])
async def test_delete_without_an_answer_is_found_where_somebody_wrote_on_top_of_it(
    through: House, landed: bool
) -> None:
    """What was deleted and made anew is not deleted again; what was not deleted, but
    changed, is a conflict, in which the delete wins here."""
    await through.configure(**PRIMARY_THAT_PULLS)
    lose(through, applied=landed, operation="delete")
    assert state(await delete(through, "ext/a")) == "pending"
    through.there.put("kv/a", {"k": "theirs"})
    await overdue(through)
    await through.run()
    await through.run()
    first, *others = [row["state"] for row in await pushes_in_order(through)]
    if landed:
        assert (first, others) == ("landed", [])
        assert there(through, "kv/a") == {"k": "theirs"} == await through.data("ext/a")
        assert await through.rows("conflicts") == []
    else:
        assert (first, others) == ("refused", ["landed"])
        assert there(through, "kv/a") is None
        assert (await through.row("conflicts"))["kind"] == "delete_modify"


async def test_pending_delete_that_landed_and_was_written_over_brings_in_what_came_after(
    through: House,
) -> None:
    await through.configure(propagate_deletes=True, conflict_resolution=ConflictPolicy.MANUAL)
    lose(through, applied=True, operation="delete")
    with pytest.raises(WriteOutcomeUnknownError):
        await delete(through, "ext/a")
    through.there.put("kv/a", {"k": "theirs"})
    await overdue(through)
    await through.run()
    assert (await through.row("pushes"))["state"] == "landed"
    assert there(through, "kv/a") == {"k": "theirs"} == await through.data("ext/a")
    assert await through.rows("conflicts") == []


async def test_delete_of_which_nothing_tells_is_not_asked_for_again_on_top_of_another_value(
    through: House,
) -> None:
    await through.configure(**PRIMARY_THAT_PULLS)
    lose(through, applied=True, operation="delete")
    assert state(await delete(through, "ext/a")) == "pending"
    through.there.remove("kv/a")
    through.there.put("kv/a", {"k": "theirs"})
    await overdue(through)
    await through.run()
    await through.run()
    assert there(through, "kv/a") == {"k": "theirs"} == await through.data("ext/a")


async def test_write_whose_caller_went_away_ends_the_same_on_both_sides(through: House) -> None:
    pause = Pause(through.there, "write")
    writing = asyncio.create_task(put(through, "ext/a", {"k": "2"}))
    await pause.reached.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert (await through.row("pushes"))["state"] == "sent"
    await overdue(through)
    await through.run()
    assert (await through.row("pushes"))["state"] == "landed"
    assert there(through, "kv/a") == {"k": "2"} == await through.data("ext/a")


class Blind(MemoryBackend):
    """Takes no condition, so that a write goes over whatever is there."""

    def __init__(self, store: MemoryStore, spec: BackendSpec, guard: CallGuard) -> None:
        super().__init__(store, spec, guard, replace(FEATURES, compare_and_set=False))


@pytest.mark.parametrize("lost", [False, True])
async def test_overwritten_value_is_recorded_also_where_the_answer_was_lost(
    database_url: str, admin_url: str, state_dir: Path, lost: bool
) -> None:
    spec = backend(writes=Writes.WRITE_THROUGH)
    async with open_house(database_url, admin_url, state_dir, spec, made=Blind) as house:
        house.there.put("kv/a", {"k": "1"})
        await house.run()

        async def somebody_is_faster(operation: str, path: str) -> None:
            if operation == "write":
                house.there.before = None
                house.there.put("kv/a", {"k": "theirs"})

        if lost:
            lose(house, applied=True)
        house.there.before = somebody_is_faster
        if lost:
            with pytest.raises(WriteOutcomeUnknownError):
                await put(house, "ext/a", {"k": "2"})
        else:
            assert state(await put(house, "ext/a", {"k": "2"})) == "applied"
        await overdue(house)
        await house.run()
        assert (await house.row("pushes"))["state"] == "landed"
        assert there(house, "kv/a") == {"k": "2"} == await house.data("ext/a")
        assert (await house.row("conflicts"))["kind"] == "overwritten"
