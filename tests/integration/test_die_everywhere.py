"""A run that dies anywhere leaves a store that the next run completes.

One life (create, pull, history, tags, conflict, divergence, deletion, a secret that
cannot be read) is lived once without disturbance, and once for each transaction of
its second run with a death there: before it commits, and after. The next run must
bring the store to the very state that it has where nobody died.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.house import BACKEND, House, backend, failure, open_house
from tests.patience import PATIENCE_S

from svsync.domain.changes import RemoteUnknown
from svsync.domain.errors import BackendBusyError, StoreUnavailableError, SvsyncError
from svsync.domain.federation import BackendSpec, ConflictPolicy, OnRemoteDelete, RuleSpec
from svsync.domain.ids import BackendId, TenantId
from svsync.ports import Backend, CallGuard, CredentialSource
from svsync.services.sync import intake
from svsync.store.database import Database, Transaction
from svsync.testing.memory import MemoryBackend, MemoryDriver, MemoryStore

LIVES = 90
"""More than a run has transactions; a life that is not needed is not lived."""
Moment = Literal["before the commit", "after the commit"]


class Killed(Exception):
    """Stands for a process that is gone."""


@dataclass
class Death:
    """Ends the store's work for this process at one transaction; later ones fail as well.

    `strike` is what happens then: it raises, or does something to the database and returns.
    """

    db: Database
    at: int
    moment: Moment
    strike: Callable[[], Awaitable[None]]
    seen: int = 0
    dead: bool = False

    @asynccontextmanager
    async def transaction(self, tenant: TenantId, **how: Any) -> AsyncIterator[Transaction]:
        if self.dead:
            await self.strike()
        self.seen += 1
        mine = self.seen == self.at
        async with Database.transaction(self.db, tenant, **how) as tx:
            yield tx
            if mine and self.moment == "before the commit":
                self.dead = True
                await self.strike()
        if mine and self.moment == "after the commit":
            self.dead = True
            await self.strike()

    @property
    def was_met(self) -> bool:
        return self.seen >= self.at


class Street(MemoryDriver):
    """A store of its own for each backend."""

    def __init__(self) -> None:
        super().__init__()
        self.stores: dict[str, MemoryStore] = {}

    def open(
        self, spec: BackendSpec, credential: CredentialSource, guard: CallGuard
    ) -> AbstractAsyncContextManager[Backend]:
        return aclosing(MemoryBackend(self.stores[spec.id], spec, guard))


@dataclass
class Life:
    """One backend with its own part of the store; all lives are alike."""

    house: House
    there: MemoryStore
    id: BackendId

    @property
    def prefix(self) -> str:
        return f"{self.id}/"

    async def begin(self) -> None:
        """What both sides have when the second run begins."""
        for name in "abcdefgk":
            self.there.put(f"kv/{name}", {"k": "1"})
        assert failure(await self.house.run(backend=self.id)) is None
        self.there.put("kv/a", {"k": "2"})
        self.there.put("kv/a", {"k": "3"})
        self.there.delete("kv/b")
        self.there.tag("kv/c", {"team": "x"})
        self.there.put("kv/d", {"k": "there"})
        await self.house.write(self.prefix + "d", {"k": "here"})
        await self.house.write(self.prefix + "e", {"k": "here"})
        self.there.remove("kv/f")
        self.there.put("kv/g", {"k": "1"})
        for name in "hij":
            self.there.put(f"kv/{name}", {"k": "1"})
        self.there.unreadable["kv/k"] = RemoteUnknown("undecodable")
        self.there.put("kv/k", {"k": "2"})

    async def state(self) -> dict[str, object]:
        """All that this life left in the store, without ids and times."""
        secrets = await self.house.admin.fetch(
            "SELECT substr(path, $2) AS name, path, state, current_version, tags, custom, propagate"
            " FROM secrets WHERE starts_with(path, $1) ORDER BY path",
            self.prefix, len(self.prefix) + 1,
        )  # fmt: skip
        values = {s["name"]: await self.house.versions(s["path"]) for s in secrets}
        versions = await self.house.admin.fetch(
            "SELECT substr(s.path, $2) AS name, v.version, v.state, v.origin, v.remote_version,"
            " encode(v.fp, 'hex') FROM versions v JOIN secrets s USING (tenant_id, secret_id)"
            " WHERE starts_with(s.path, $1) ORDER BY s.path, v.version",
            self.prefix, len(self.prefix) + 1,
        )  # fmt: skip
        pairs = await self.house.admin.fetch(
            "SELECT remote_path, status, base_kind, encode(base_fp, 'hex'), base_value_token,"
            " base_meta_token, base_order, base_tokens_left, remote_tags, settled_version,"
            " base_raw_sealed IS NULL, recheck, failures, reason FROM sync_state"
            " WHERE backend_id = $1 ORDER BY remote_path",
            self.id,
        )
        conflicts = await self.house.admin.fetch(
            "SELECT remote_path, kind, state, local_version, local_state, remote_token,"
            " remote_gone, encode(remote_fp, 'hex'), local_sealed IS NULL, remote_sealed IS NULL"
            " FROM conflicts WHERE backend_id = $1 ORDER BY remote_path, detected_at",
            self.id,
        )
        return {
            "secrets": [tuple(row)[0:1] + tuple(row)[2:] for row in secrets],
            "values": values,
            "versions": list(map(tuple, versions)),
            "pairs": list(map(tuple, pairs)),
            "conflicts": list(map(tuple, conflicts)),
        }

    async def sync_events(self) -> list[str]:
        rows = await self.house.admin.fetch(
            "SELECT sequence, type, payload FROM outbox WHERE backend_id = $1 ORDER BY sequence",
            self.id,
        )
        assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
        ended = [row for row in rows if row["type"].startswith("federation.sync.")]
        runs = [json.loads(row["payload"])["run_id"] for row in ended]
        assert len(set(runs)) == len(runs)
        return runs


@pytest.fixture
async def lives(
    database_url: str, admin_url: str, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Awaitable[Life]]]:
    """Begins a new life, with small batches, so that there are several of each."""
    monkeypatch.setattr(intake, "BATCH", 4)
    monkeypatch.setattr(intake, "STAGE_ROWS", 1)
    street, specs = Street(), [backend()]
    async with open_house(database_url, admin_url, state_dir) as house:
        house.app.registry._drivers["memory"] = street
        street.stores[BACKEND] = house.there

        async def begin(**settings: Any) -> Life:
            id = BackendId(f"fed_{len(specs):03}")
            specs.append(backend((RuleSpec(f"{id}/**", "kv/**"),), id, **settings))
            await house.app.federation.apply(specs)
            street.stores[id] = MemoryStore()
            life = Life(house, street.stores[id], id)
            await life.begin()
            return life

        yield begin


@asynccontextmanager
async def death(
    house: House, at: int, moment: Moment, strike: Callable[[], Awaitable[None]]
) -> AsyncIterator[Death]:
    db = house.app.db
    fate = Death(db, at, moment, strike)
    db.transaction = fate.transaction  # type: ignore[method-assign]
    try:
        yield fate
    finally:
        del db.transaction


async def complete(life: Life) -> None:
    """What the next worker does, once the lease of the dead one is over."""
    await life.house.admin.execute(
        "UPDATE leases SET expires_at = now() WHERE backend_id = $1", life.id
    )
    await life.house.run(backend=life.id)


async def lost_store() -> None:
    raise StoreUnavailableError("the connection to the database was lost")


async def killed() -> None:
    raise Killed


def _cancelling(task: asyncio.Task[Any]) -> Callable[[], Awaitable[None]]:
    async def cancel() -> None:
        task.cancel()

    return cancel


def _crashing(house: House, fate: Death) -> Callable[[], Awaitable[None]]:
    async def crash() -> None:
        fate.dead = False
        await house.admin.execute("TRUNCATE stage, todo")

    return crash


@pytest.mark.parametrize(
    ("moment", "strike", "settings"),
    [
        ("before the commit", killed, {}),
        (
            "after the commit",
            lost_store,
            {
                "conflict_resolution": ConflictPolicy.MANUAL,
                "on_remote_delete": OnRemoteDelete.SOFT_DELETE,
            },
        ),
    ],
    ids=["killed before", "store lost after"],
)
async def test_next_run_completes_what_a_dead_one_began(
    lives: Callable[..., Awaitable[Life]],
    moment: Moment,
    strike: Callable[[], Awaitable[None]],
    settings: dict[str, Any],
) -> None:
    undisturbed = await lives(**settings)
    await undisturbed.house.run(backend=undisturbed.id)
    expected = await undisturbed.state()
    for at in range(1, LIVES):
        life = await lives(**settings)
        async with death(life.house, at, moment, strike) as fate:
            with suppress(Killed, SvsyncError):
                await life.house.run(backend=life.id)
        if not fate.was_met:
            break
        await complete(life)
        left = await life.state()
        assert left == _with_failures(expected, left), f"died at transaction {at}, {moment}"
        begun = await life.house.rows("runs", backend_id=life.id)
        assert set(await life.sync_events()) == {row["run_id"] for row in begun}
    assert 15 < at < LIVES - 1


def _with_failures(expected: dict[str, object], left: dict[str, object]) -> dict[str, object]:
    """A secret that cannot be read has failed once more where a run died after that."""
    failed = [(name, pair[-2]) for name, *pair in left["pairs"]]  # type: ignore[attr-defined]
    assert all(n in ((1, 2) if name == "kv/k" else (0,)) for name, n in failed)
    counts = dict(failed)
    pairs: Any = expected["pairs"]
    return expected | {"pairs": [(*p[:-2], counts[p[0]], p[-1]) for p in pairs]}


async def test_next_run_completes_what_a_cancelled_one_began(
    lives: Callable[..., Awaitable[Life]],
) -> None:
    undisturbed = await lives()
    await undisturbed.house.run(backend=undisturbed.id)
    expected = await undisturbed.state()
    for at in range(1, LIVES, 2):
        life = await lives()
        async with death(life.house, at, "before the commit", killed) as fate:
            running = asyncio.create_task(life.house.run(backend=life.id))
            fate.strike = _cancelling(running)
            await asyncio.wait([running])
        if not fate.was_met:
            break
        assert running.cancelled() or running.exception() is None
        await complete(life)
        left = await life.state()
        assert left == _with_failures(expected, left), f"cancelled at transaction {at}"
    assert at > 15


async def test_stage_that_the_server_lost_is_listed_again_and_nothing_is_deleted(
    lives: Callable[..., Awaitable[Life]],
) -> None:
    """A crash of the server empties what is unlogged, and the run goes on (E5, S29)."""
    undisturbed = await lives()
    await undisturbed.house.run(backend=undisturbed.id)
    expected = await undisturbed.state()
    for at in range(1, LIVES):
        life = await lives()
        async with death(life.house, at, "after the commit", killed) as fate:
            fate.strike = _crashing(life.house, fate)
            ended = await life.house.run(backend=life.id)
        if not fate.was_met:
            break
        assert failure(ended) is None, f"stage lost after transaction {at}"
        left = await life.state()
        assert left == _with_failures(expected, left), f"stage lost after transaction {at}"
    assert at > 15


_WORKER = """
import asyncio, sys
from pathlib import Path
from tests.house import Pause, open_house

async def work(database_url, admin_url, state_dir):
    async with open_house(database_url, admin_url, Path(state_dir)) as house:
        house.there.generate("kv/", 1200)
        pause = Pause(house.there, "read", "kv/0001/0001100")
        running = asyncio.create_task(house.run())
        await pause.reached.wait()
        print("in the middle", flush=True)
        await running

asyncio.run(work(*sys.argv[1:]))
"""


async def test_worker_that_was_really_killed_is_followed_by_one_that_completes(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WORKER, database_url, admin_url, str(state_dir),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert worker.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        assert await worker.stdout.readline() == b"in the middle\n"
        worker.kill()
        await worker.wait()
    async with open_house(database_url, admin_url, state_dir) as house:
        house.there.generate("kv/", 1200)
        with pytest.raises(BackendBusyError):
            await house.run()
        await house.admin.execute("UPDATE leases SET expires_at = now()")
        assert failure(await house.run()) is None
        assert len(await house.paths()) == 1200
        assert {row["status"] for row in await house.rows("sync_state")} == {"in_sync"}
        assert len(await house.rows("versions")) == 1200
        lost = await house.row("runs", state="failed")
        assert lost["error_code"] == "worker_lost"
