"""A small world for the model test: one backend, three names, and whatever may go wrong.

`World` does what a history asks of it and keeps the book that svsync is held to: which
values somebody was told are kept, which version held what, who deleted what. It looks
at the tables and at the store there; nothing it asserts came through the code that it
asserts about, but for opening what is sealed.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.house import ALLOW_ALL, TENANT, WORK, House
from tests.model.profiles import Profile

from svsync.app import new_id
from svsync.domain.envelope import Purpose
from svsync.domain.errors import (
    BackendUnreachableError,
    FenceLostError,
    StoreError,
    SvsyncError,
    ThrottledError,
)
from svsync.domain.federation import BackendSpec, RuleSpec, Writes
from svsync.domain.globs import Glob
from svsync.domain.ids import BackendId, ConflictId, KeyId, LocalPath, SecretId, TenantId
from svsync.domain.resolutions import Resolution
from svsync.domain.values import Payload
from svsync.ports import Backend, CallGuard, CredentialSource
from svsync.services.conflicts import Conflicts
from svsync.services.run_ends import Ended
from svsync.services.runs import Request, Runs
from svsync.services.sealing import Sealed
from svsync.services.secret_writes import SecretWrites
from svsync.services.write_rows import Put
from svsync.store.database import Database, Transaction
from svsync.testing.memory import FEATURES, MemoryBackend, MemoryDriver, MemoryStore

NAMES: Final = ("a", "b", "c")
QUIET: Final = WORK | {"runs", "run_skips", "leases", "outbox", "backend_health", "data_keys"}


class Killed(Exception):
    """Stands for a process that is gone."""


@dataclass
class Mortal:
    """A process's way to the database; once it is dead, nothing of it gets through."""

    db: Database
    dies_at: int | None = None
    after_commit: bool = False
    seen: int = 0
    dead: bool = False

    @asynccontextmanager
    async def transaction(self, tenant: TenantId, **how: Any) -> AsyncIterator[Transaction]:
        if self.dead:
            raise Killed
        self.seen += 1
        mine = self.seen == self.dies_at
        async with Database.transaction(self.db, tenant, **how) as tx:
            yield tx
            if self.dead:
                raise Killed
            if mine and not self.after_commit:
                self.dead = True
                raise Killed
        if mine:
            self.dead = True
            raise Killed


class Street(MemoryDriver):
    """A store of its own for each backend, all of one profile."""

    def __init__(self) -> None:
        super().__init__()
        self.stores: dict[str, MemoryStore] = {}
        self.be(Profile(FEATURES))

    def be(self, profile: Profile) -> None:
        """What comes next is on stores of another kind."""
        self.profile, self.features = profile, profile.features

    def build(self, backend: str) -> MemoryStore:
        made = MemoryStore(recoverable=self.profile.recoverable, marks=self.profile.marks)
        self.stores[backend] = made
        return made

    def open(
        self, spec: BackendSpec, credential: CredentialSource, guard: CallGuard
    ) -> AbstractAsyncContextManager[Backend]:
        return aclosing(MemoryBackend(self.stores[spec.id], spec, guard, self.features))


@dataclass(frozen=True)
class Weather:
    """What goes wrong during one step, at its nth call to the backend or transaction."""

    kind: str = "fair"
    at: int = 1


@dataclass
class World:
    """See the module."""

    house: House
    street: Street
    number: int
    there: MemoryStore = field(init=False)
    spec: BackendSpec = field(init=False)
    past: list[Any] = field(default_factory=list)
    """Moments that a read may still show, oldest first."""
    kept: dict[str, dict[str, str]] = field(default_factory=dict)
    """Values by name that somebody was told are kept, each with who told."""
    held: dict[tuple[int, int], str] = field(default_factory=dict)
    """What each version number of each secret has held."""
    deletes_asked: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.id = BackendId(f"fed_m{self.number}")
        self.there = self.street.build(self.id)
        rules = (RuleSpec(f"{self.id}/**", "kv/**"),)
        self.spec = replace(
            self.house.spec, id=self.id, name=self.id, rules=rules, max_versions=100
        )

    def local(self, name: str) -> LocalPath:
        return LocalPath(f"{self.id}/{name}")

    # --- settings -----------------------------------------------------------------

    async def configure(self, **changes: Any) -> None:
        try:
            spec = replace(self.spec, **changes)
            await self.house.app.federation.apply([spec])
        except SvsyncError as refused:
            self.log.append(f"refused {refused.code}")
            return
        self.spec = spec

    async def map_without(self, name: str | None) -> None:
        rules = [RuleSpec(f"{self.id}/**", "kv/**")]
        if name is not None:
            rules.insert(0, RuleSpec(f"{self.id}/{name}", f"kv/{name}", exclude=True))
        await self.configure(rules=tuple(rules))

    # --- there --------------------------------------------------------------------

    def put_there(self, name: str, value: str) -> None:
        self.past.append(self.there.moment())
        self.there.put(f"kv/{name}", {"k": value})
        self.keep(name, value, "there")

    def change_there(self, name: str, what: str) -> None:
        """delete, undelete, destroy, remove or rollback, where there is something and such a
        store knows it."""
        path = f"kv/{name}"
        secret = self.there.secret(path)
        if secret is None or what not in self.street.profile.forms:
            return
        self.past.append(self.there.moment())
        match what:
            case "delete" if not secret.gone:
                self.there.delete(path)
            case "undelete" if secret.gone and not secret.versions[secret.current].destroyed:
                self.there.undelete(path)
            case "destroy":
                self._forget(name, [secret.current])
                self.there.destroy(path)
            case "remove":
                self._forget(name, list(secret.versions))
                self.there.remove(path)
            case "rollback" if secret.current - 1 in secret.versions:
                self._forget(name, [secret.current])
                self.there.rollback(path, secret.current - 1)

    def _forget(self, name: str, versions: list[int]) -> None:
        """A person destroyed these there; only what is kept here as well can be asked for."""
        secret = self.there.secret(f"kv/{name}")
        assert secret is not None
        for number in versions:
            if number in secret.versions:
                value = _value(secret.versions[number].payload)
                if self.kept.get(name, {}).get(value) == "there":
                    del self.kept[name][value]

    def keep(self, name: str, value: str, by: str) -> None:
        told = self.kept.setdefault(name, {})
        told[value] = "here" if told.get(value) == "here" else by

    # --- a step with its weather --------------------------------------------------

    @asynccontextmanager
    async def process(
        self, weather: Weather, meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[Mortal]:
        """A process that lives through one step, or does not."""
        self.past.append(self.there.moment())
        mortal = Mortal(self.house.app.db)
        calls = 0

        async def before(operation: str, path: str) -> None:
            nonlocal calls
            calls += 1
            if mortal.dead:
                raise Killed
            if calls != weather.at:
                return
            match weather.kind:
                case "meanwhile" if meanwhile is not None:
                    self.there.before = self.there.after = None
                    await meanwhile()
                    self.there.before, self.there.after = before, after
                case "down":
                    raise BackendUnreachableError("down", operation=operation, sent=False)
                case "throttled":
                    raise ThrottledError("slow down", operation=operation, sent=False)
                case "killed at a call":
                    mortal.dead = True
                    raise Killed

        async def after(operation: str, path: str) -> None:
            if operation not in ("write", "delete"):
                return
            match weather.kind:
                case "answer lost":
                    self.there.after = None
                    raise BackendUnreachableError("lost", operation=operation)
                case "killed after a write":
                    mortal.dead = True
                    raise Killed

        async def lose(operation: str, path: str) -> None:
            await before(operation, path)
            if operation in ("write", "delete") and weather.kind == "write lost":
                self.there.before = before
                raise BackendUnreachableError("lost", operation=operation)

        async def hang(operation: str, path: str) -> None:
            await before(operation, path)
            if operation in ("write", "delete"):
                self.there.before = before
                await asyncio.Event().wait()

        if weather.kind == "killed before a commit":
            mortal.dies_at = weather.at
        if weather.kind == "killed after a commit":
            mortal.dies_at, mortal.after_commit = weather.at, True
        if weather.kind == "lag":
            self.there.lag()
        if weather.kind == "stale" and self.street.profile.lags:
            self.there.fall_behind(self.past[max(0, len(self.past) - 1 - weather.at)])
        self.there.before = hang if weather.kind == "hang" else lose
        self.there.after = after
        try:
            yield mortal
        finally:
            self.there.before = self.there.after = None
            self.there.catch_up()
            if mortal.dead:
                await self.house.admin.execute(
                    "UPDATE leases SET expires_at = now() - interval '1 s'"
                    " WHERE backend_id = $1 AND holder IS NOT NULL",
                    self.id,
                )

    async def run(
        self,
        weather: Weather = Weather(),
        *,
        paths: tuple[str, ...] = (),
        meanwhile: Callable[[], Awaitable[None]] | None = None,
    ) -> Ended | None:
        """A run in a process of its own; None where it died, failed to start or was lost."""
        request = Request(
            self.id, paths=tuple(Glob(self.local(n)) for n in paths) or None, allow=ALLOW_ALL
        )
        writes_before = self.there.calls["write"] + self.there.calls["delete"]
        deletes_before = self.there.calls["delete"]
        app, ended = self.house.app, None
        async with self.process(weather, meanwhile) as mortal:
            runs = Runs(
                mortal, app.sealing, app.registry, holder=f"p{id(mortal)}", ids=new_id,  # type: ignore[arg-type]
                random=lambda: 0.0,
            )  # fmt: skip
            try:
                ended = await runs.run(TENANT, request, lambda stage, done, total: None)
            except Killed:
                self.log.append("died")
            except SvsyncError as error:
                self._told("run", error)
        if ended is not None and ended.record.error is not None:
            code = ended.record.error.code
            assert code not in (StoreError.code, "internal"), ended.record.error
        if meanwhile is None and self.spec.writes is not Writes.WRITE_THROUGH:
            made = self.there.calls["write"] + self.there.calls["delete"] - writes_before
            assert made == 0, "a write to the backend without write-through"
        if meanwhile is None and not self.deletes_asked:
            assert self.there.calls["delete"] == deletes_before, "a delete nobody asked for"
        return ended

    async def second_worker(self) -> None:
        """The lease of the run that is under way expires, and another worker takes over."""
        await self.house.admin.execute(
            "UPDATE leases SET expires_at = now() - interval '1 s'"
            " WHERE backend_id = $1 AND holder IS NOT NULL",
            self.id,
        )
        await self.run()

    # --- here ---------------------------------------------------------------------

    async def put_here(
        self,
        name: str,
        value: str,
        weather: Weather = Weather(),
        meanwhile: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        async with self.process(weather, meanwhile) as mortal:
            writes = self._writes(mortal)
            put = Put(Payload.from_fields({"k": value}))
            try:
                answer = await writes.put(TENANT, self.local(name), put, by="sa:model")
            except Killed:
                self.log.append("died")
            except SvsyncError as refused:
                self._told("put", refused)
            else:
                self.keep(name, value, "here")
                assert await self.readable_here(name, value), "an answered write is not there"
                through: Any = answer["write_through"]
                if through["state"] == "applied" and weather.kind == "fair":
                    secret = self.there.secret(f"kv/{name}")
                    assert secret is not None
                    assert any(_value(v.payload) == value for v in secret.versions.values())

    async def delete_here(self, name: str, weather: Weather = Weather()) -> None:
        self.deletes_asked.add(name)
        async with self.process(weather) as mortal:
            with suppress(Killed, SvsyncError):
                await self._writes(mortal).delete(TENANT, self.local(name), by="sa:model")

    async def restore_here(self, name: str, weather: Weather = Weather()) -> None:
        async with self.process(weather) as mortal:
            with suppress(Killed, SvsyncError):
                await self._writes(mortal).restore(TENANT, self.local(name), by="sa:model")

    async def resolve(
        self, name: str, how: Resolution, value: str, weather: Weather = Weather()
    ) -> None:
        async with self.process(weather) as mortal:
            app = self.house.app
            conflicts = Conflicts(mortal, app.sealing, app.registry, ids=new_id)  # type: ignore[arg-type]
            payload = Payload.from_fields({"k": value}) if how is Resolution.USE_VALUE else None
            try:
                await conflicts.resolve(
                    TENANT, self.id, self.local(name), how, payload=payload, by="sa:model"
                )
            except Killed:
                self.log.append("died")
            except SvsyncError as refused:
                self._told("resolve", refused)
            else:
                if payload is not None:
                    self.keep(name, value, "here")

    def _told(self, what: str, error: SvsyncError) -> None:
        """What is refused is told; the store itself refuses nothing."""
        lost = isinstance(error, FenceLostError)
        assert lost or not isinstance(error, StoreError), f"{what}: {error}"
        self.log.append(f"{what}: {error.code}")

    def _writes(self, mortal: Mortal) -> SecretWrites:
        app = self.house.app
        return SecretWrites(mortal, app.sealing, app.registry, ids=new_id)  # type: ignore[arg-type]

    async def time_passes(self) -> None:
        """Every sender has had its time, and so has what was in hand when workers died; no
        read shows any more what was."""
        self.past.clear()
        await self.house.admin.execute(
            "UPDATE sync_state SET base_moved_at = base_moved_at - interval '1 h'"
            " WHERE backend_id = $1",
            self.id,
        )
        await self.house.admin.execute(
            "UPDATE pushes SET ended_at = ended_at - interval '1 h' WHERE backend_id = $1", self.id
        )
        await self.house.admin.execute(
            "UPDATE pushes SET deadline = now() - interval '1 s' WHERE backend_id = $1", self.id
        )
        await self.house.admin.execute(
            "UPDATE sync_state SET retry_at = now() WHERE backend_id = $1 AND retry_at > now()",
            self.id,
        )

    # --- what must hold -----------------------------------------------------------

    async def check(self) -> None:
        """After every step: nothing that was told is lost, no number held two values."""
        for name in NAMES:
            await self._check_versions(name)
            for value, by in self.kept.get(name, {}).items():
                somewhere = await self.readable_here(name, value) or self.readable_there(
                    name, value
                )
                assert somewhere, f"{name}: {value}, which was kept {by}, is lost"

    async def _check_versions(self, name: str) -> None:
        for row in await self._versions(name):
            key = (row["secret_id"], row["version"])
            if row["sealed"] is None:
                continue
            value = await self._open(name, row)
            assert self.held.setdefault(key, value) == value, f"{name}: a number used twice"

    async def _versions(self, name: str) -> list[Any]:
        return list(
            await self.house.admin.fetch(
                "SELECT v.*, s.state AS secret_state, s.current_version FROM versions v"
                " JOIN secrets s USING (tenant_id, secret_id) WHERE s.path = $1 ORDER BY version",
                self.local(name),
            )
        )

    async def _open(self, name: str, row: Any) -> str:
        keys = await self.house.app.sealing.for_tenant(TENANT)
        sealed = Sealed(KeyId(row["key_id"]), row["nonce"], row["sealed"])
        data = await keys.open(
            Purpose.VALUE, SecretId(row["secret_id"]), self.local(name), row["version"], sealed
        )
        return str(json.loads(data)["k"])

    async def readable_here(self, name: str, value: str) -> bool:
        for row in await self._versions(name):
            live = row["state"] == "live" and row["sealed"] is not None
            if live and await self._open(name, row) == value:
                return True
        return value in await self._conflict_values(name)

    def readable_there(self, name: str, value: str) -> bool:
        secret = self.there.secret(f"kv/{name}")
        if secret is None:
            return False
        kept = (v for v in secret.versions.values() if not v.destroyed)
        return any(_value(v.payload) == value for v in kept)

    async def _conflict_values(self, name: str) -> set[str]:
        keys = await self.house.app.sealing.for_tenant(TENANT)
        found = set()
        for row in await self.house.admin.fetch(
            "SELECT * FROM conflicts WHERE path = $1", self.local(name)
        ):
            for side, purpose in (
                ("local", Purpose.CONFLICT_LOCAL),
                ("remote", Purpose.CONFLICT_REMOTE),
            ):
                if row[f"{side}_sealed"] is None:
                    continue
                sealed = Sealed(
                    KeyId(row[f"{side}_key_id"]), row[f"{side}_nonce"], row[f"{side}_sealed"]
                )
                data = await keys.open(
                    purpose, SecretId(row["secret_id"]), self.local(name), 0, sealed,
                    extra=ConflictId(row["sealed_as"]),
                )  # fmt: skip
                found.add(str(json.loads(data)["k"]))
        return found

    async def settle(self) -> None:
        """The weather clears, every sender has had its time, and runs go through."""
        self.there.hidden.clear()
        self.there.denied.clear()
        await self.map_without(None)
        for _ in range(3):  # the first finds what was in hand when workers died, and leaves it
            await self.time_passes()
            ended = await self.run()
            assert ended is not None
            failed = ended.record.error
        assert failed is None, failed
        before = await self.house.dump(without=QUIET)
        calls = dict(self.there.calls)
        ended = await self.run()
        assert ended is not None
        assert await self.house.dump(without=QUIET) == before, "a quiet run wrote something"
        for operation in ("write", "delete"):
            assert self.there.calls[operation] == calls.get(operation, 0), "a quiet run pushed"
        await self.check()
        await self._check_sides()

    async def _check_sides(self) -> None:
        """Equal sides are not in conflict; written through, both sides end equal."""
        unfinished = await self.house.admin.fetchval(
            "SELECT count(*) FROM pushes WHERE backend_id = $1"
            " AND state IN ('planned', 'sent', 'unknown')",
            self.id,
        )
        assert unfinished == 0, "a push that nobody settles"
        for name in NAMES:
            here, gone_by = await self._side_here(name)
            secret = self.there.secret(f"kv/{name}")
            there = None
            if secret is not None and not secret.gone:
                there = _value(secret.versions[secret.current].payload)
            frozen = await self.house.admin.fetchval(
                "SELECT count(*) FROM conflicts WHERE path = $1 AND state = 'open'",
                self.local(name),
            )
            assert not (frozen and here == there), f"{name}: equal sides are in conflict"
            if frozen or self.spec.writes is not Writes.WRITE_THROUGH or here == there:
                continue
            status = await self.house.admin.fetchval(
                "SELECT status FROM sync_state WHERE path = $1"
                " AND status NOT IN ('detached', 'standby')",
                self.local(name),
            )
            assert (status, here is None, there is None) in (
                ("retained", False, True),  # gone there, and kept here
                ("diverged", True, False),  # a tombstone that does not propagate
                (None, False, True),  # of before the mapping: never exported
            ), f"{name}: {here!r} here, {there!r} there, {status}, {gone_by}"

    async def _side_here(self, name: str) -> tuple[str | None, str]:
        rows = await self._versions(name)
        for row in rows:
            if row["version"] == row["current_version"] and row["secret_state"] == "live":
                return await self._open(name, row), ""
        return None, rows[-1]["secret_state"] if rows else "no row"


def _value(payload: Payload) -> str:
    return str(json.loads(payload.data_text())["k"])
