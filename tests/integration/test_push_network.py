"""Writes that go through to a real OpenBao while the network between fails.

A lost answer never loses a write, nor makes it twice: each test counts the versions
that OpenBao holds in the end.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.house import BACKEND, TENANT, House, counts, failure, open_house, skips
from tests.openbao import Bao
from tests.program import Program, until
from tests.servers import Fault, FaultyTcp
from tests.vault_writes import metadata
from tests.vaults import put, there, versions_there, writing_house
from tests.writes import overdue

from svsync import registry
from svsync.backends.guarded import BackendGuard, RetryPolicy
from svsync.domain.errors import (
    BackendUnreachableError,
    FenceLostError,
    SvsyncError,
    WriteOutcomeUnknownError,
)
from svsync.domain.federation import ConflictPolicy, Writes
from svsync.domain.ids import LocalPath
from svsync.embedded.openbao import OpenBaoServer
from svsync.services import pushes, sending

T = TypeVar("T")

A = LocalPath("ext/a")
ONE, TWO, THREE = {"k": "1"}, {"k": "2"}, {"k": "3"}
BACKEND_WINS, LOCAL_WINS = ConflictPolicy.BACKEND_WINS, ConflictPolicy.LOCAL_WINS
MADE: list[Fault] = ["cut", "mute"]
"""The request arrives, and its answer does not."""
LOST: list[Fault] = ["reset", "tear", "hang"]
"""The request does not arrive, which looks alike from here."""
BROKEN: list[Fault] = ["cut", "reset"]
"""One of each, where nobody has to wait for the end of patience."""


@pytest.fixture
def database(database_url: str, admin_url: str, state_dir: Path) -> tuple[str, str, Path]:
    return database_url, admin_url, state_dir


@pytest.fixture
async def proxy(openbao: OpenBaoServer) -> AsyncIterator[FaultyTcp]:
    async with FaultyTcp(("127.0.0.1", openbao.port)) as between:
        yield between


@pytest.fixture(autouse=True)
def _asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is not tried again."""
    monkeypatch.setattr(
        registry, "BackendGuard", partial(BackendGuard, retry=RetryPolicy(attempts=1))
    )


@pytest.fixture
def _impatient(proxy: FaultyTcp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call's time is up as soon as the proxy keeps it, or its answer, back."""

    async def within(seconds: float, work: Awaitable[T]) -> T | None:
        task = asyncio.ensure_future(work)
        kept = asyncio.create_task(proxy.kept.wait())
        await asyncio.wait({task, kept}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        proxy.kept.clear()
        kept.cancel()
        return await pushes.within(0.0, task)

    monkeypatch.setattr(sending, "within", within)


async def synced(house: House, bao: Bao, *names: str) -> None:
    """These secrets on both sides, `a` alone if none is named."""
    for name in names or ("a",):
        await bao.put(name, ONE)
    await house.run()


async def write_lost(house: House, path: str, value: dict[str, str], **options: Any) -> None:
    """A write whose caller is not told that it landed."""
    if house.spec.conflict_resolution is LOCAL_WINS:
        assert await put(house, path, value, **options) == "pending"
        assert await house.data(path) == value
        return
    before = await house.rows("versions", state="live")
    with pytest.raises(WriteOutcomeUnknownError) as lost:
        await put(house, path, value, **options)
    assert (await house.row("pushes", push_id=lost.value.push_id))["state"] == "unknown"
    assert await house.rows("versions", state="live") == before


async def make_dirty(house: House, *names: str) -> None:
    """These secrets changed here, and not there yet."""
    await house.configure(writes=Writes.LOCAL)
    for name in names:
        await house.write(f"ext/{name}", TWO)
    await house.configure(writes=Writes.WRITE_THROUGH)


async def next_run(house: House) -> dict[str, int]:
    """What the next run counts, once every push has had its time."""
    await overdue(house)
    ended = await house.run()
    assert failure(ended) is None
    return counts(ended)


async def agree(house: House, bao: Bao, value: dict[str, str], versions: int, *names: str) -> None:
    """Both sides hold the value, OpenBao in so many versions, and nothing is left to do."""
    for _ in range(2):
        for name in names or ("a",):
            assert await there(bao, name) == value == await house.data(f"ext/{name}")
            assert await house.status(f"ext/{name}") == "in_sync"
            assert await versions_there(bao, name) == versions
        assert (await next_run(house)).keys() <= {"listed", "unchanged"}


# --- one write --------------------------------------------------------------------


@pytest.mark.parametrize("policy", ConflictPolicy)
async def test_refused_connection_changes_nothing_or_waits(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp, policy: ConflictPolicy
) -> None:
    async with writing_house(kv2, database, url=proxy.url, conflict_resolution=policy) as house:
        await synced(house, kv2)
        await proxy.shut()
        if policy is LOCAL_WINS:
            assert await put(house, A, TWO) == "pending"
            assert failure(await house.run()) == "backend_unreachable"
            await proxy.open()
            assert (await next_run(house))["pushed"] == 1
        else:
            with pytest.raises(BackendUnreachableError):
                await put(house, A, TWO)
            assert await house.data(A) == ONE == await there(kv2)
            assert (await house.row("pushes"))["state"] == "withdrawn"
            await proxy.open()
            assert await put(house, A, TWO) == "applied"
        await agree(house, kv2, TWO, 2)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("policy", ConflictPolicy)
async def test_lost_answers_are_healed_to_one_new_version(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp, policy: ConflictPolicy
) -> None:
    faults = [*MADE, *LOST]
    async with writing_house(kv2, database, url=proxy.url, conflict_resolution=policy) as house:
        await synced(house, kv2, *faults)
        for fault in faults:
            proxy.strike(f"POST /v1/{kv2.mount}/data/{fault} ", fault)
            await write_lost(house, f"ext/{fault}", TWO)
            assert await versions_there(kv2, fault) == (2 if fault in MADE else 1)
        waiting = {f"{kv2.mount}/data/{fault}": "write_in_progress" for fault in faults}
        assert skips(await house.run()) == waiting
        assert (await next_run(house))["pushed"] == len(faults)
        assert {row["state"] for row in await house.rows("pushes")} == {"landed"}
        await agree(house, kv2, TWO, 2, *faults)


async def test_look_that_is_not_answered_in_time_changes_nothing(
    kv2: Bao,
    database: tuple[str, str, Path],
    proxy: FaultyTcp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with writing_house(kv2, database, url=proxy.url) as house:
        await synced(house, kv2)
        proxy.strike(f"GET /v1/{kv2.mount}/metadata/a ", "hang")
        with monkeypatch.context() as short:
            short.setattr(sending, "CALL_S", 0.2)
            with pytest.raises(BackendUnreachableError):
                await put(house, A, TWO)
        assert (await house.row("pushes"))["state"] == "withdrawn"
        assert await house.data(A) == ONE == await there(kv2)
        assert await put(house, A, TWO) == "applied"
        await agree(house, kv2, TWO, 2)


@pytest.mark.parametrize("policy", [BACKEND_WINS, LOCAL_WINS])
async def test_tags_of_a_write_whose_answer_was_lost_go_out_with_the_next_run(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp, policy: ConflictPolicy
) -> None:
    async with writing_house(kv2, database, url=proxy.url, conflict_resolution=policy) as house:
        await synced(house, kv2, *BROKEN)
        for fault in BROKEN:
            proxy.strike(f"POST /v1/{kv2.mount}/data/{fault} ", fault)
            await write_lost(house, f"ext/{fault}", TWO, tags=("team=pay",))
        await next_run(house)
        for fault in BROKEN:
            shown, _ = await house.app.secrets.get(TENANT, LocalPath(f"ext/{fault}"))
            assert shown["metadata"]["tags"] == ["team=pay"]  # type: ignore[index]
            assert (await metadata(kv2, fault))["custom_metadata"]["team"] == "pay"
        await agree(house, kv2, TWO, 2, *BROKEN)


async def test_tags_whose_own_answer_was_lost_are_there_after_the_next_run(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp
) -> None:
    async with writing_house(kv2, database, url=proxy.url) as house:
        await synced(house, kv2, *BROKEN)
        for fault in BROKEN:
            proxy.strike(f"PATCH /v1/{kv2.mount}/metadata/{fault} ", fault)
            assert await put(house, f"ext/{fault}", TWO, tags=("team=pay",)) == "applied"
        await next_run(house)
        for fault in BROKEN:
            assert (await metadata(kv2, fault))["custom_metadata"]["team"] == "pay"
        await agree(house, kv2, TWO, 2, *BROKEN)


async def test_lost_answer_of_a_store_without_versions_is_told_by_the_value(
    kv1: Bao, database: tuple[str, str, Path], proxy: FaultyTcp
) -> None:
    blind = {"allow_blind_push": True}
    async with writing_house(kv1, database, url=proxy.url, extra=blind) as house:
        await synced(house, kv1, *BROKEN)
        for fault in BROKEN:
            proxy.strike(f"POST /v1/{kv1.mount}/{fault} ", fault)
            await write_lost(house, f"ext/{fault}", TWO)
            assert await there(kv1, fault) == (TWO if fault in MADE else ONE)
        assert (await next_run(house))["pushed"] == len(BROKEN)
        for fault in BROKEN:
            assert await there(kv1, fault) == TWO == await house.data(f"ext/{fault}")
        assert (await next_run(house)).keys() <= {"listed", "unchanged"}


# --- a call that arrives late -----------------------------------------------------


@pytest.mark.usefixtures("_impatient")
async def test_late_call_that_was_made_again_is_refused_by_its_condition(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp
) -> None:
    async with writing_house(kv2, database, url=proxy.url) as house:
        await synced(house, kv2)
        proxy.strike(f"POST /v1/{kv2.mount}/data/a ", "hold")
        await write_lost(house, A, TWO)
        assert (await next_run(house))["pushed"] == 1
        assert await put(house, A, THREE) == "applied"
        proxy.let_go()
        await until(lambda: proxy.arrived == 1)
        await agree(house, kv2, THREE, 3)


@pytest.mark.usefixtures("_impatient")
async def test_late_call_of_a_push_that_was_given_up_is_known_for_our_own(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp
) -> None:
    async with writing_house(kv2, database, url=proxy.url, conflict_resolution=LOCAL_WINS) as house:
        await synced(house, kv2)
        proxy.strike(f"POST /v1/{kv2.mount}/data/a ", "hold")
        await write_lost(house, A, TWO)
        await house.configure(writes=Writes.LOCAL)
        await house.write(A, THREE)
        await next_run(house)
        assert (await house.row("pushes"))["state"] == "withdrawn"
        assert await versions_there(kv2) == 1
        proxy.let_go()
        await until(lambda: proxy.arrived == 1)
        assert await there(kv2) == TWO
        await house.configure(writes=Writes.WRITE_THROUGH)
        assert (await next_run(house))["pushed"] == 1
        assert await house.rows("conflicts") == []
        await agree(house, kv2, THREE, 3)


# --- delete and restore -----------------------------------------------------------


@pytest.mark.parametrize("policy", [BACKEND_WINS, LOCAL_WINS])
async def test_lost_answer_of_a_delete_is_healed_and_can_be_undone_there(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp, policy: ConflictPolicy
) -> None:
    async with writing_house(
        kv2, database, url=proxy.url, conflict_resolution=policy, propagate_deletes=True
    ) as house:
        await synced(house, kv2, *BROKEN)
        for fault in BROKEN:
            proxy.strike(f"POST /v1/{kv2.mount}/delete/{fault} ", fault)
            await delete_lost(house, f"ext/{fault}")
        assert (await next_run(house))["pushed"] == len(BROKEN)
        assert await house.paths() == []
        for fault in BROKEN:
            version = (await metadata(kv2, fault))["versions"]["1"]
            assert (version["deletion_time"] != "", version["destroyed"]) == (True, False)
        assert (await next_run(house)).keys() <= {"listed", "unchanged"}
        if policy is BACKEND_WINS:
            for fault in BROKEN:
                await kv2.undelete(fault, [1])
            await next_run(house)
            assert await house.paths() == [f"ext/{fault}" for fault in BROKEN]
            await agree(house, kv2, ONE, 1, *BROKEN)


async def delete_lost(house: House, path: str) -> None:
    """A delete whose caller is not told that it landed."""
    if house.spec.conflict_resolution is LOCAL_WINS:
        answer: Any = await house.app.writes.delete(TENANT, LocalPath(path), by="sa:test")
        assert answer["write_through"]["state"] == "pending"
        return
    with pytest.raises(WriteOutcomeUnknownError):
        await house.app.writes.delete(TENANT, LocalPath(path), by="sa:test")
    assert path in await house.paths()


async def test_lost_answer_of_a_restore_is_healed_to_one_new_version(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp
) -> None:
    async with writing_house(kv2, database, url=proxy.url, propagate_deletes=True) as house:
        await synced(house, kv2, *BROKEN)
        for fault in BROKEN:
            path = LocalPath(f"ext/{fault}")
            await house.app.writes.delete(TENANT, path, by="sa:test")
            proxy.strike(f"POST /v1/{kv2.mount}/data/{fault} ", fault)
            with pytest.raises(WriteOutcomeUnknownError):
                await house.app.writes.restore(TENANT, path, by="sa:test")
            with pytest.raises(SvsyncError) as waits:
                await house.app.writes.restore(TENANT, path, by="sa:test")
            assert waits.value.code == "write_in_progress"
        assert await house.paths() == []
        assert (await next_run(house))["pushed"] == len(BROKEN)
        await agree(house, kv2, ONE, 2, *BROKEN)


# --- runs -------------------------------------------------------------------------


async def test_many_pushes_over_a_bad_line_are_each_made_once(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp
) -> None:
    names = [f"s{n:02}" for n in range(30)]
    async with writing_house(kv2, database, url=proxy.url) as house:
        await synced(house, kv2, *names)
        await make_dirty(house, *names)
        posts = f"POST /v1/{kv2.mount}/data/"
        proxy.strike(posts, "reset", every=7, times=30)
        proxy.strike(posts, "cut", every=11, times=30)
        first = await house.run()
        assert failure(first) == "backend_unreachable"
        assert counts(first)["pushed"] == 30 - proxy.struck
        for _ in range(2):
            await overdue(house)
            await house.run()
        for name in names:
            assert await there(kv2, name) == TWO
            assert await versions_there(kv2, name) == 2
            assert await house.status(f"ext/{name}") == "in_sync"
        assert (await next_run(house)).keys() == {"listed", "unchanged"}


async def test_worker_that_lost_its_lease_in_mid_push_leaves_it_to_the_next(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp
) -> None:
    async with writing_house(kv2, database, url=proxy.url) as house:
        await synced(house, kv2)
        await make_dirty(house, "a")
        proxy.strike(f"POST /v1/{kv2.mount}/data/a ", "hold")
        async with open_house(
            *database, house.spec, environ={"BAO_TOKEN": kv2.root_token}
        ) as other:
            running = asyncio.create_task(house.run())
            await until(lambda: proxy.struck == 1)
            await house.admin.execute("UPDATE leases SET expires_at = now()")
            taken = await other.run()
            assert skips(taken) == {f"{kv2.mount}/data/a": "write_in_progress"}
            proxy.let_go()
            with pytest.raises(FenceLostError):
                await running
            assert await versions_there(kv2) == 2
            assert (await house.row("pushes"))["state"] == "sent"
            assert (await next_run(other))["pushed"] == 1
        await agree(house, kv2, TWO, 2)


# --- the program ------------------------------------------------------------------


def program_of(house: House, database: tuple[str, str, Path], bao: Bao) -> tuple[Program, str]:
    """The program on the same store with the same backend; and its file."""
    dsn, _, folder = database
    spec = house.spec
    document = {
        "allow_loopback": True,
        "backends": [
            {
                "id": spec.id,
                "name": spec.name,
                "type": spec.type,
                "mode": str(spec.mode),
                "config": dict(spec.config),
                "path_mapping": [{"local": r.local, "remote": r.remote} for r in spec.rules],
                "writes": str(spec.writes),
                "conflict_resolution": str(spec.conflict_resolution),
            }
        ],
    }
    file = folder / "svsync.yaml"
    file.write_text(json.dumps(document))
    environment = {
        "DATABASE_URL": dsn,
        "SVSYNC_STATE_DIR": str(folder),
        "BAO_TOKEN": bao.root_token,
    }
    return Program(environment, folder), str(file)


async def test_run_once_tells_of_pushes_that_were_cut_and_its_next_run_ends_them(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp
) -> None:
    data = f"{kv2.mount}/data"
    async with writing_house(kv2, database, url=proxy.url) as house:
        await synced(house, kv2, "a", "b", "c")
        await make_dirty(house, "a", "b", "c")
        program, file = program_of(house, database, kv2)
        proxy.strike(f"POST /v1/{data}/b ", "cut")
        proxy.strike(f"POST /v1/{data}/c ", "reset")
        said = await program("run-once", "--backend", BACKEND, "--config", file, "--json")
        assert (said.code, said.json["error"]["code"]) == (3, "backend_unreachable")
        assert said.json["counts"]["pushed"] == 1
        assert {s["remote_path"]: s["reason"] for s in said.json["skipped"]} == {
            f"{data}/b": "write_outcome_unknown",
            f"{data}/c": "write_outcome_unknown",
        }
        assert (await next_run(house))["pushed"] == 2
        assert [await versions_there(kv2, name) for name in "abc"] == [2, 2, 2]


async def test_write_by_the_program_tells_what_became_of_it(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp
) -> None:
    async with writing_house(kv2, database, url=proxy.url) as house:
        await synced(house, kv2)
        program, file = program_of(house, database, kv2)
        write = ("secrets", "write", A, "k=@-", "--config", file, "--json")
        proxy.strike(f"POST /v1/{kv2.mount}/data/a ", "cut")
        lost = await program(*write, stdin=b"2")
        assert (lost.code, lost.json["error"]["code"]) == (1, "write_outcome_unknown")
        push = await house.row("pushes", push_id=lost.json["error"]["push_id"])
        assert push["state"] == "unknown"
        assert (await next_run(house))["pushed"] == 1
        await agree(house, kv2, TWO, 2)


async def test_run_that_is_killed_in_mid_push_is_finished_by_the_next(
    kv2: Bao, database: tuple[str, str, Path], proxy: FaultyTcp
) -> None:
    async with writing_house(kv2, database, url=proxy.url) as house:
        await synced(house, kv2, "a", "b")
        await make_dirty(house, "a", "b")
        program, file = program_of(house, database, kv2)
        proxy.strike(f"POST /v1/{kv2.mount}/data/b ", "hold")
        process = await program.start("run-once", "--backend", BACKEND, "--config", file)

        async def half_made() -> bool:
            return proxy.struck == 1 and await versions_there(kv2) == 2

        await until(half_made)
        said = await program.interrupted(process, signal.SIGKILL)
        assert said.code == -signal.SIGKILL
        assert {row["state"] for row in await house.rows("pushes")} == {"sent"}
        await house.admin.execute("UPDATE leases SET expires_at = now()")
        assert (await next_run(house))["pushed"] == 2
        proxy.let_go()
        await until(lambda: proxy.arrived == 1)
        assert [await versions_there(kv2, name) for name in "ab"] == [2, 2]
        assert await there(kv2, "b") == TWO
        assert [e for e in await house.events() if "failed" in e] == ["federation.sync.failed"]
        await agree(house, kv2, TWO, 2)
