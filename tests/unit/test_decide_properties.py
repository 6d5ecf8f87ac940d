"""Does any history of both sides lose a value, delete wrongly, or never come to rest?

Two kinds of questions. Over every single decision: what may never be among its
parts. Over histories: a small world of one pair, in which people write and delete
on both sides, settings change, and runs apply decisions, with pushes that land or
do not.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from svsync.domain.bases import move_base
from svsync.domain.changes import (
    Base,
    BaseKind,
    Local,
    LocalKind,
    Pair,
    PairStatus,
    RemoteGone,
    RemoteUnknown,
    RemoteValue,
)
from svsync.domain.decide import (
    BaseMove,
    ConflictState,
    Decision,
    Effect,
    PushKind,
    decide,
)
from svsync.domain.federation import (
    ConflictPolicy,
    Mode,
    OnRemoteDelete,
    PathSettings,
    RemoteChanges,
    Writes,
)
from svsync.domain.ids import KeyId, LocalPath, RemotePath
from svsync.domain.situation import (
    ImpossibleSituation,
    LocalState,
    RemoteKind,
    Situation,
    classify,
)
from svsync.domain.values import Encoding, Payload

SYNC = PathSettings(
    mode=Mode.SYNC,
    writes=Writes.LOCAL,
    conflict_resolution=ConflictPolicy.BACKEND_WINS,
    remote_changes=RemoteChanges.PULL,
    on_remote_delete=OnRemoteDelete.RETAIN,
    propagate_deletes=False,
    seed_remote=False,
)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = KeyId(1)
PAYLOAD = Payload(Encoding.TEXT, b"not looked at")


# --- every single decision --------------------------------------------------------


def every_decision() -> Iterator[tuple[Situation, Decision]]:
    for base, local, remote in product(BaseKind, LocalState, RemoteKind):
        for w, policy, changes, deletion, flags in product(
            Writes,
            ConflictPolicy,
            RemoteChanges,
            OnRemoteDelete,
            product((False, True), repeat=4),
        ):
            propagates, seeds, flag, held = flags
            s = Situation(
                base=base,
                local=local,
                remote=remote,
                settings=replace(
                    SYNC,
                    writes=w,
                    conflict_resolution=policy,
                    remote_changes=changes,
                    on_remote_delete=deletion,
                    propagate_deletes=propagates,
                    seed_remote=seeds,
                ),
                held=held,
                written_after_claim=flag,
                propagate=flag,
            )
            try:
                yield s, decide(s)
            except ImpossibleSituation:
                continue


DECISIONS = tuple(every_decision())


def test_nothing_is_pushed_without_write_through() -> None:
    pushing = [s for s, d in DECISIONS if d.push is not None]
    assert pushing
    assert all(s.settings.writes is Writes.WRITE_THROUGH for s in pushing)


def test_a_remote_delete_needs_the_setting_and_a_tombstone_that_carries_it() -> None:
    deleting = [s for s, d in DECISIONS if d.push is PushKind.DELETE]
    assert deleting
    for s in deleting:
        assert s.settings.propagate_deletes
        assert s.propagate
        assert s.local is LocalState.TOMBSTONE
        assert s.remote is RemoteKind.EQUAL_BASE


def test_a_tombstone_is_made_only_of_a_value_that_is_gone_and_not_held() -> None:
    deleting = [s for s, d in DECISIONS if d.effect is Effect.TOMBSTONE]
    assert deleting
    for s in deleting:
        assert (s.base, s.remote) == (BaseKind.VALUE, RemoteKind.GONE)
        assert s.settings.on_remote_delete is OnRemoteDelete.SOFT_DELETE
        assert s.settings.remote_changes is RemoteChanges.PULL


def test_replacing_what_somebody_wrote_is_recorded_with_both_values() -> None:
    replacing = [
        (s, d)
        for s, d in DECISIONS
        if d.effect in (Effect.PULL, Effect.TOMBSTONE) and s.local is LocalState.DIRTY
    ]
    assert replacing
    for s, d in replacing:
        assert s.held or d.conflict_state is ConflictState.TOOK_REMOTE


def test_what_is_unknown_moves_nothing() -> None:
    unknown = [d for s, d in DECISIONS if s.remote is RemoteKind.UNKNOWN]
    assert unknown
    for d in unknown:
        assert d.skip_reason is not None
        assert d == Decision(d.row, d.status, skip_reason=d.skip_reason)


def test_a_skipped_path_is_left_as_it_is() -> None:
    for _, d in DECISIONS:
        if d.skip_reason is not None:
            assert (d.effect, d.base_move, d.settles) == (Effect.NOTHING, BaseMove.KEEP, False)
            assert (d.conflict, d.push, d.count) == (None, None, None)


def test_base_moves_to_what_was_read_and_never_elsewhere() -> None:
    for s, d in DECISIONS:
        if d.base_move is BaseMove.TO_REMOTE:
            assert s.remote not in (RemoteKind.GONE, RemoteKind.UNKNOWN)
        if d.base_move is BaseMove.TO_ABSENT:
            assert s.remote is RemoteKind.GONE
        if d.effect in (Effect.CREATE, Effect.PULL):
            assert s.remote in (RemoteKind.OTHER, RemoteKind.EQUAL_BASE)
            assert d.settles


def test_what_stays_unlike_the_remote_side_is_not_settled() -> None:
    for _, d in DECISIONS:
        if d.push is not None or d.status in (PairStatus.DIVERGED, PairStatus.CONFLICT):
            assert not d.settles


# --- a world of one pair ----------------------------------------------------------


@dataclass
class World:
    """Both sides of one pair, and what was settled and recorded between them."""

    settings: PathSettings
    versions: list[bytes] = field(default_factory=list)
    local: LocalKind = LocalKind.NO_ROW
    written_after_claim: bool = False
    propagate: bool = False
    remote: bytes | None = None
    traced: bool = False
    tokens: int = 0
    base: Base = field(default_factory=Base)
    status: PairStatus = PairStatus.INITIAL
    conflict_open: bool = False
    records: dict[tuple[int, str | None], tuple[bytes | None, bytes | None]] = field(
        default_factory=dict
    )
    remote_seen: set[bytes] = field(default_factory=set)
    clock: datetime = NOON

    @property
    def value(self) -> bytes | None:
        return self.versions[-1] if self.local is LocalKind.LIVE else None

    def local_write(self, value: bytes) -> None:
        self.versions.append(value)
        self.local, self.propagate = LocalKind.LIVE, False
        self.written_after_claim = True

    def local_delete(self) -> None:
        if self.local is LocalKind.LIVE:
            self.local = LocalKind.TOMBSTONE
            self.propagate = (
                self.settings.writes is Writes.WRITE_THROUGH
                and self.settings.propagate_deletes
                and self.base.kind is not BaseKind.NONE
            )

    def remote_write(self, value: bytes | None) -> None:
        self.traced = self.traced or self.remote is not None
        self.remote = value
        self.tokens += 1

    def read(self) -> RemoteValue | RemoteGone:
        token = f"t{self.tokens}"
        if self.remote is not None:
            return RemoteValue(PAYLOAD, value_token=token)
        return RemoteGone(token, reason="deleted" if self.traced else "not_found")

    def pair(self) -> Pair:
        local = Local(
            kind=self.local,
            version=len(self.versions),
            fingerprint=self.value,
            fingerprint_key=KEY if self.value is not None else None,
            written_after_claim=self.written_after_claim,
            propagate=self.propagate,
        )
        return Pair(
            RemotePath("kv/data/a"),
            LocalPath("a"),
            0,
            base=self.base,
            local=local,
            status=self.status,
            conflict_open=self.conflict_open,
        )

    def state(self) -> tuple[object, ...]:
        return (
            tuple(self.versions),
            self.local,
            self.remote,
            self.tokens,
            self.base,
            self.status,
            self.conflict_open,
            dict(self.records),
        )

    def run(self, *, lands: bool, readable: bool = True) -> Decision:
        """One run: point read, decision, commit, and its push if it reaches the backend."""
        self.clock += timedelta(hours=1)
        if not readable:
            unknown = RemoteUnknown("unreadable")
            decision = decide(classify(self.pair(), unknown, None, self.settings, now=self.clock))
            self.commit(decision, unknown)
            return decision
        remote = self.read()
        decision = decide(classify(self.pair(), remote, self.remote, self.settings, now=self.clock))
        self.commit(decision, remote)
        if decision.push is not None and lands:
            self.land(decision.push)
        return decision

    def commit(self, d: Decision, remote: RemoteValue | RemoteGone | RemoteUnknown) -> None:
        if d.conflict_state in (ConflictState.OPEN, ConflictState.CONVERGED) or d.conflict:
            token = remote.value_token if not isinstance(remote, RemoteUnknown) else None
            self.records.setdefault((len(self.versions), token), (self.value, self.remote))
        if d.conflict_state is not None:
            self.conflict_open = d.conflict_state is ConflictState.OPEN
        if d.effect in (Effect.CREATE, Effect.PULL):
            assert self.remote is not None
            self.versions.append(self.remote)
            self.local, self.written_after_claim = LocalKind.LIVE, False
        if d.effect is Effect.TOMBSTONE:
            self.local, self.propagate = LocalKind.TOMBSTONE, False
        self.base = self.moved(d, remote)
        self.status = self.status if d.status is None else d.status

    def moved(self, d: Decision, remote: RemoteValue | RemoteGone | RemoteUnknown) -> Base:
        return move_base(
            self.base,
            d,
            remote,
            fingerprint=self.remote,
            fingerprint_key=KEY,
            version=len(self.versions),
            now=self.clock,
        )

    def land(self, push: PushKind) -> None:
        if push is PushKind.DELETE:
            assert self.remote is not None
            assert self.is_kept(self.remote)
            self.remote_write(None)
            self.base = self.moved(
                Decision(0, None, base_move=BaseMove.TO_ABSENT, settles=True), self.read()
            )
        else:
            assert self.value is not None
            assert (self.remote is None) == (push is PushKind.CREATE)
            assert self.value != self.remote, "an equal value is never pushed"
            assert self.remote is None or self.is_kept(self.remote)
            self.remote_write(self.value)
            self.base = self.moved(
                Decision(0, None, base_move=BaseMove.TO_REMOTE, settles=True), self.read()
            )
        self.status = PairStatus.IN_SYNC

    def is_kept(self, value: bytes) -> bool:
        """Can this value be read here, in the history or in a conflict record?"""
        recorded = {v for sides in self.records.values() for v in sides}
        return value in self.versions or value in recorded

    def agrees(self) -> bool:
        return self.value == self.remote


VALUES = st.sampled_from((b"a", b"b", b"c"))
ANY_SETTINGS = st.builds(
    PathSettings,
    mode=st.just(Mode.SYNC),
    writes=st.sampled_from(Writes),
    conflict_resolution=st.sampled_from(ConflictPolicy),
    remote_changes=st.sampled_from(RemoteChanges),
    on_remote_delete=st.sampled_from(OnRemoteDelete),
    propagate_deletes=st.booleans(),
    seed_remote=st.booleans(),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("local_write"), VALUES),
        st.tuples(st.just("local_delete"), st.none()),
        st.tuples(st.just("remote_write"), VALUES),
        st.tuples(st.just("remote_delete"), st.none()),
        st.tuples(st.just("run"), st.booleans()),
        st.tuples(st.just("run"), st.booleans()),
        st.tuples(st.just("blind_run"), st.none()),
        st.tuples(st.just("configure"), ANY_SETTINGS),
    ),
    max_size=14,
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A world after any history; each run in it keeps what every run must keep."""
    world = World(draw(ANY_SETTINGS))
    if draw(st.booleans()):
        world.local_write(draw(VALUES))
        world.written_after_claim = False
    for step, argument in draw(STEPS):
        match step, argument:
            case "local_write", bytes(value):
                world.local_write(value)
            case "local_delete", None:
                world.local_delete()
            case "remote_write", bytes(value):
                world.remote_write(value)
            case "remote_delete", None:
                world.remote_write(None)
            case "run", bool(lands):
                checked_run(world, lands=lands)
            case "blind_run", None:
                checked_run(world, lands=True, readable=False)
            case "configure", PathSettings() as new:
                world.settings = new
    return world


def checked_run(world: World, *, lands: bool, readable: bool = True) -> Decision:
    value, before, open_before = world.value, list(world.versions), world.conflict_open
    remote_before = world.remote
    decision = world.run(lands=lands, readable=readable)
    assert world.versions[: len(before)] == before, "history is only added to"
    if open_before and decision.conflict_state is not ConflictState.CONVERGED:
        assert (world.value, world.remote) == (value, remote_before), "frozen"
    if world.value is None and value is not None:
        assert remote_before is None, "deleted although it was not gone"
    if readable and world.status is PairStatus.IN_SYNC:
        assert world.agrees()
    if readable and world.status in (PairStatus.CONFLICT, PairStatus.DIVERGED):
        assert not world.agrees()
    if readable and world.status is PairStatus.RETAINED:
        assert world.value is not None
        assert world.remote is None
    return decision


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_every_history_comes_to_rest_within_two_quiet_runs(world: World) -> None:
    checked_run(world, lands=True)
    checked_run(world, lands=True)
    before = world.state()
    decision = checked_run(world, lands=True)
    assert decision.push is None
    assert world.state() == before


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_a_decision_applied_twice_is_applied_once_also_when_its_push_is_lost(
    world: World,
) -> None:
    checked_run(world, lands=False)
    checked_run(world, lands=False)
    before = world.state()
    first = checked_run(world, lands=False)
    assert world.state() == before
    assert checked_run(world, lands=False) == first


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_at_rest_equal_values_are_in_sync_and_never_in_conflict(world: World) -> None:
    for _ in range(2):
        checked_run(world, lands=True)
    if world.agrees() and world.value is not None:
        assert world.status is PairStatus.IN_SYNC
    if world.agrees():
        assert not world.conflict_open
        assert world.status in (PairStatus.IN_SYNC, PairStatus.INITIAL)


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_under_write_through_both_sides_end_equal_but_for_what_is_named(world: World) -> None:
    world.settings = replace(world.settings, writes=Writes.WRITE_THROUGH)
    for _ in range(2):
        checked_run(world, lands=True)
    if world.agrees():
        return
    match world.status:
        case PairStatus.CONFLICT:
            assert world.conflict_open
        case PairStatus.RETAINED:  # gone remotely, kept here, never re-created by itself
            assert world.remote is None
        case PairStatus.INITIAL:  # here before the mapping, never exported
            assert (world.base.kind, world.remote) == (BaseKind.NONE, None)
        case _:  # a tombstone that may not delete remotely
            assert world.status is PairStatus.DIVERGED
            assert world.local is LocalKind.TOMBSTONE
