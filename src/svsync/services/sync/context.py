"""What the stages of one run share: who it is, what it uses, what it counts."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Protocol

from svsync.domain.federation import BackendSpec, Mode, PathSettings, Writes
from svsync.domain.globs import Glob
from svsync.domain.guards import Allow
from svsync.domain.ids import RemotePath
from svsync.domain.mapping import RuleSet
from svsync.domain.runs import Report, SkipReason, Stage
from svsync.observe.tracer import UNTRACED_RUN, RunSpan
from svsync.ports import Backend, Connection
from svsync.services.pushes import Sender
from svsync.services.sealing import TenantKeys
from svsync.store.database import Database, Transaction
from svsync.store.pairs import Mapping
from svsync.store.queue import Claimed
from svsync.store.staging import PushRules


class Progress(Protocol):
    """Told how far a run has got; draws a bar, or nothing."""

    def __call__(self, stage: Stage, done: int, total: int | None, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Planned:
    """One thing that a dry run would do. No value, no fingerprint. `to`: the local path that a
    pair moves to, which `detail` names."""

    path: str
    remote_path: str
    action: str
    detail: str = ""
    to: str | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """What a targeted run looks at: globs over local paths, and remote paths by name."""

    globs: tuple[Glob, ...] = ()
    remotes: tuple[RemotePath, ...] = ()


class Stopping(Protocol):
    """Is this process to end? Then a run gives itself back between two batches."""

    def __call__(self) -> bool: ...


def never() -> bool:
    return False


@dataclass
class Run:
    """One run at work.

    Attributes:
        dry: decide and count, write nothing but the work tables.
        plan: what a dry run would do, at most PLAN_LIMIT entries.
        leaving: remote paths of pairs that a dry run would detach, or that cannot be
            detached yet: nothing else is done with them.
        blocked: some of them wait for their push to be settled, so the mapping does not
            count as applied.
        renumbered: the new rule of those that it would keep under a changed mapping.
        first: no pair of this backend has a base yet.
        todo: length of the work list.
        ids: draws a new unique id with a prefix (`evt`, `cfl`).
        now: the database's time, carried on by the monotonic clock.
        pieces: paths that may kill the worker, each piece to be taken up alone.
        listed_all: no folder of the listing was denied or failed.
        keeps_stage: the listing is complete in the stage, and another worker could go on by it.
        deciding: held while a batch is decided and committed, one at a time.
        brought: what `meanwhile.py` has brought in.
        listed_from: when this run's listing began; None where it did not list.
        untold: secrets that it listed, of whose value the listing told nothing; None where it
            did not list.
        span: who traces it.
        lease_left: seconds for which this run surely holds its lease.
    """

    db: Database
    claimed: Claimed
    spec: BackendSpec
    rules: RuleSet
    mapping: Mapping
    backend: Backend = field(init=False)
    lease_left: Callable[[], float] = field(init=False)
    keys: TenantKeys
    allow: Allow
    ids: Callable[[str], str]
    now: Callable[[], datetime]
    random: Callable[[], float]
    progress: Progress
    dry: bool = False
    first: bool = False
    todo: int = 0
    report: Report = field(default_factory=Report)
    plan: list[Planned] = field(default_factory=list)
    blocked: bool = False
    leaving: set[RemotePath] = field(default_factory=set)
    renumbered: dict[RemotePath, int] = field(default_factory=dict)
    connection: Connection | None = None
    failed_in: Stage | None = None
    listed_all: bool = False
    keeps_stage: bool = False
    stopping: Stopping = never
    pieces: list[list[RemotePath]] = field(default_factory=list)
    span: RunSpan = UNTRACED_RUN
    deciding: asyncio.Lock = field(default_factory=asyncio.Lock)
    brought: set[RemotePath] = field(default_factory=set)
    listed_from: datetime | None = None
    untold: int | None = None
    _settings: dict[int, PathSettings] = field(default_factory=dict)

    @asynccontextmanager
    async def transaction(
        self, *, lookups: bool = False, scratch: bool = False
    ) -> AsyncIterator[Transaction]:
        """A transaction under this run's fence: `lookups` where it finds rows by key only,
        `scratch` where it writes nothing but the run's own work rows and place."""
        held = self.claimed.held
        async with self.db.transaction(
            held.tenant, held=held, lookups=lookups, scratch=scratch
        ) as tx:
            yield tx

    @contextmanager
    def spending(self, stage: Stage) -> Iterator[None]:
        """Count the time of the block to a stage; the first error is of the stage it broke.

        Stages overlap (one batch is fetched while another is committed), so the
        times of a run add up to more than its duration.
        """
        began = time.perf_counter()
        try:
            with self.span.stage(stage):
                yield
        except Exception:
            self.failed_in = self.failed_in or stage
            raise
        finally:
            self.report.spend(stage, (time.perf_counter() - began) * 1000)

    @cached_property
    def push_rules(self) -> PushRules:
        """Which rules write to the backend, and how far."""
        found = PushRules([], [], [])
        for n, rule in enumerate(self.spec.rules):
            settings = self.settings_of(n)
            if rule.exclude or settings.mode is Mode.PROXY:
                continue
            if settings.writes is Writes.WRITE_THROUGH:
                found.write.append(n)
                if settings.propagate_deletes:
                    found.delete.append(n)
                if settings.seed_remote:
                    found.seed.append(n)
        return found

    @property
    def sender(self) -> Sender:
        """Who makes this run's pushes: under its fence, as long as it holds its lease."""
        return Sender(
            transaction=self.transaction,
            spec=self.spec,
            rules=self.rules,
            base_pair=self.mapping.base_pair,
            backend=self.backend,
            keys=self.keys,
            now=self.now,
            ids=self.ids,
            time_left=self.lease_left,
            run=self.claimed.run_id,
        )

    def skip(self, remote_path: RemotePath | str, reason: SkipReason, detail: str = "") -> None:
        self.report.skip(remote_path, reason, detail)

    def settings_of(self, rule: int) -> PathSettings:
        if rule not in self._settings:
            self._settings[rule] = self.spec.for_rule(self.rules.spec(rule))
        return self._settings[rule]


PLAN_LIMIT = 10_000
