"""Random histories: writes on both sides, deletes, deaths, lost answers, two workers.

Each history is lived by a whole svsync on a real PostgreSQL with a backend in memory,
and after each of its steps everything that somebody was told is kept must be readable
somewhere, and no version number may have held two values. At its end the weather
clears: after two more runs nothing moves any more, equal sides are in no conflict, and
where writes go through both sides are equal, but for what the rules name.

They are lived on the store that the backend in memory is by itself, and on one for each
type of backend that svsync speaks to, which lags, takes conditions, numbers its versions
and loses values as that type declares.

`SVSYNC_HISTORIES=10000 pytest tests/model -n 2` lives many, drawn anew each time; without
it a few are lived, the same each time.
"""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from tests.house import House, open_house
from tests.model import profiles
from tests.model.world import NAMES, Street, Weather, World

from svsync import registry
from svsync.backends.guarded import BackendGuard, BreakerPolicy, RetryPolicy
from svsync.domain.federation import ConflictPolicy, OnRemoteDelete, RemoteChanges, Writes
from svsync.domain.resolutions import Resolution
from svsync.services import sending

MANY = int(os.environ.get("SVSYNC_HISTORIES", "0"))
FEW = 30
PARTS = 20
STEPS = 14

names = st.sampled_from(NAMES)
fates = st.sampled_from(
    [
        "fair", "fair", "fair", "fair", "lag", "stale", "stale", "down", "throttled", "hang",
        "answer lost", "write lost", "killed at a call",
        "killed after a write", "killed before a commit", "killed after a commit",
    ]
)  # fmt: skip
weather = st.builds(Weather, fates, st.integers(1, 12))


class Histories(RuleBasedStateMachine):
    """One history, in a world of its own."""

    house: ClassVar[House]
    street: ClassVar[Street]
    runner: ClassVar[asyncio.Runner]
    counter: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).counter += 1
        self.world = World(self.house, self.street, self.counter)
        self.values = 0

    def do(self, work: Coroutine[Any, Any, Any]) -> None:
        self.runner.run(work)

    def step(self, work: Coroutine[Any, Any, Any]) -> None:
        async def stepped() -> None:
            await work
            await self.world.check()

        self.runner.run(stepped())

    def fresh(self) -> str:
        self.values += 1
        return f"v{self.values}"

    @initialize(
        policy=st.sampled_from(ConflictPolicy),
        writes=st.sampled_from([Writes.WRITE_THROUGH, Writes.WRITE_THROUGH, Writes.LOCAL]),
        changes=st.sampled_from([None, RemoteChanges.PULL, RemoteChanges.HOLD]),
        deletes=st.booleans(),
        on_delete=st.sampled_from(OnRemoteDelete),
        there=st.lists(names, unique=True),
    )
    def begin(
        self,
        policy: ConflictPolicy,
        writes: Writes,
        changes: RemoteChanges | None,
        deletes: bool,
        on_delete: OnRemoteDelete,
        there: list[str],
    ) -> None:
        self.do(
            self.world.configure(
                conflict_resolution=policy,
                writes=writes,
                remote_changes=changes,
                propagate_deletes=deletes and writes is Writes.WRITE_THROUGH,
                on_remote_delete=on_delete,
            )
        )
        for name in there:
            self.world.put_there(name, self.fresh())
        self.step(self.world.run())

    # --- people -------------------------------------------------------------------

    @rule(name=names)
    def somebody_writes_there(self, name: str) -> None:
        self.world.put_there(name, self.fresh())

    @rule(name=names, what=st.sampled_from(["delete", "undelete", "destroy", "remove", "rollback"]))
    def somebody_changes_there(self, name: str, what: str) -> None:
        self.world.change_there(name, what)

    @rule(name=names, weather=weather)
    def somebody_writes_here(self, name: str, weather: Weather) -> None:
        self.step(self.world.put_here(name, self.fresh(), weather))

    @rule(name=names)
    def both_write_the_same(self, name: str) -> None:
        value = self.fresh()
        self.world.put_there(name, value)
        self.step(self.world.put_here(name, value))

    @rule(name=names, weather=weather)
    def somebody_deletes_here(self, name: str, weather: Weather) -> None:
        self.step(self.world.delete_here(name, weather))

    @rule(name=names, weather=weather)
    def somebody_restores_here(self, name: str, weather: Weather) -> None:
        self.step(self.world.restore_here(name, weather))

    @rule(
        name=names,
        how=st.sampled_from(Resolution),
        weather=weather,
    )
    def somebody_resolves(self, name: str, how: Resolution, weather: Weather) -> None:
        self.step(self.world.resolve(name, how, self.fresh(), weather))

    # --- runs ---------------------------------------------------------------------

    @rule(weather=weather)
    def run(self, weather: Weather) -> None:
        self.step(self.world.run(weather))

    @rule(name=names)
    def run_of_one(self, name: str) -> None:
        self.step(self.world.run(paths=(name,)))

    @rule(name=names, at=st.integers(1, 12))
    def somebody_writes_here_meanwhile(self, name: str, at: int) -> None:
        value = self.fresh()
        self.step(
            self.world.run(
                Weather("meanwhile", at), meanwhile=lambda: self.world.put_here(name, value)
            )
        )

    @rule(name=names, at=st.integers(1, 12))
    def somebody_writes_there_meanwhile(self, name: str, at: int) -> None:
        value = self.fresh()

        async def write() -> None:
            self.world.put_there(name, value)

        self.step(self.world.run(Weather("meanwhile", at), meanwhile=write))

    @rule(name=names, at=st.integers(1, 4))
    def a_write_meets_another_there(self, name: str, at: int) -> None:
        mine, theirs = self.fresh(), self.fresh()

        async def write() -> None:
            self.world.put_there(name, theirs)

        self.step(self.world.put_here(name, mine, Weather("meanwhile", at), write))

    @rule(name=names, at=st.integers(1, 4))
    def a_run_meets_a_write(self, name: str, at: int) -> None:
        async def run() -> None:
            await self.world.run()

        self.step(self.world.put_here(name, self.fresh(), Weather("meanwhile", at), run))

    @rule(at=st.integers(1, 12))
    def another_worker_takes_over(self, at: int) -> None:
        self.step(self.world.run(Weather("meanwhile", at), meanwhile=self.world.second_worker))

    @rule()
    def time_passes(self) -> None:
        self.do(self.world.time_passes())

    # --- what may not be seen, and what is configured -----------------------------

    @rule(name=names, hidden=st.booleans())
    def a_name_is_hidden(self, name: str, hidden: bool) -> None:
        (self.world.there.hidden.add if hidden else self.world.there.hidden.discard)(f"kv/{name}")

    @rule(name=st.none() | names)
    def the_mapping_changes(self, name: str | None) -> None:
        self.do(self.world.map_without(name))

    @rule(
        policy=st.sampled_from(ConflictPolicy),
        writes=st.sampled_from([Writes.WRITE_THROUGH, Writes.LOCAL]),
        changes=st.sampled_from([None, RemoteChanges.PULL, RemoteChanges.HOLD]),
    )
    def settings_change(
        self, policy: ConflictPolicy, writes: Writes, changes: RemoteChanges | None
    ) -> None:
        deletes = self.world.spec.propagate_deletes and writes is Writes.WRITE_THROUGH
        self.do(
            self.world.configure(
                conflict_resolution=policy,
                writes=writes,
                remote_changes=changes,
                propagate_deletes=deletes,
            )
        )

    def teardown(self) -> None:
        async def end() -> None:
            try:
                await self.world.settle()
            finally:
                await self.house.admin.execute(_EMPTY)
                self.street.stores.clear()

        self.runner.run(end())


_EMPTY = (
    "TRUNCATE backends, backend_health, leases, secrets, versions, sync_state, pushes, runs,"
    " run_skips, stage, todo, stage_scopes, conflicts, outbox CASCADE"
)


@pytest.fixture
def lived_in(
    database_url: str, admin_url: str, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[Histories]]:
    """The machine, with a house open; calls that fail are not tried again."""
    once = partial(
        BackendGuard, retry=RetryPolicy(attempts=1), breaker=BreakerPolicy(failures=10**9)
    )
    monkeypatch.setattr(registry, "BackendGuard", once)
    monkeypatch.setattr(sending, "CALL_S", 0.3)  # a hang is a call that nobody answers in time
    with asyncio.Runner() as runner:
        opened = open_house(database_url, admin_url, state_dir)
        house = runner.run(opened.__aenter__())
        Histories.house, Histories.runner, Histories.street = house, runner, Street()
        house.app.registry._drivers["memory"] = Histories.street
        yield Histories
        runner.run(opened.__aexit__(None, None, None))


@pytest.mark.parametrize("part", range(PARTS if MANY else 1))
def test_no_history_loses_a_write(lived_in: type[Histories], part: int) -> None:
    live(lived_in, MANY // PARTS or FEW)


@pytest.mark.parametrize("kind", profiles.names())
@pytest.mark.parametrize("part", range(PARTS if MANY else 1))
def test_no_history_loses_a_write_whatever_a_backend_declares(
    lived_in: type[Histories], kind: str, part: int
) -> None:
    lived_in.street.be(profiles.profile(kind))
    live(lived_in, MANY // PARTS or FEW // 2)


def live(lived_in: type[Histories], many: int) -> None:
    run_state_machine_as_test(
        lived_in,
        settings=settings(
            max_examples=many,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not MANY,
            database=None,
            phases=[Phase.generate] if MANY else [Phase.generate, Phase.shrink],
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


# --- histories that once failed ---------------------------------------------------


def test_path_that_was_in_hand_when_workers_died_settles_once_its_time_is_over(
    lived_in: type[Histories],
) -> None:
    state = lived_in()
    dies = Weather("killed after a commit", 11)
    try:
        state.begin(
            writes=Writes.WRITE_THROUGH,
            there=[],
            policy=ConflictPolicy.MANUAL,
            on_delete=OnRemoteDelete.SOFT_DELETE,
            changes=None,
            deletes=True,
        )
        state.run(weather=dies)
        for at in (3, 4):
            state.a_write_meets_another_there(at=at, name="b")
        state.run(weather=dies)
        state.a_write_meets_another_there(at=2, name="b")
        state.run(weather=dies)
        state.somebody_changes_there(name="c", what="destroy")
        for at, name in ((3, "b"), (1, "a"), (2, "c"), (2, "a")):
            state.a_write_meets_another_there(at=at, name=name)
    finally:
        state.teardown()
