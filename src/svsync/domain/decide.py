"""What happens to one federated path: the decision table, and what it promises.

Both sides are compared with **base**, the last remote state that was settled for
the pair. What changed on one side goes to the other, as far as `writes` and
`remote_changes` allow. What changed on both sides to the same value moves base
and nothing else. What changed on both sides to different values is a conflict.

The invariant, for every row, policy and setting:

- No value is destroyed. A remote value only ever becomes a *new version* on top
  of a local one, and where somebody had written locally since both sides last
  agreed, a conflict record keeps both values under every policy.
- Nothing is deleted here unless the backend itself said of this one name that it
  is gone, base is a value, and `soft_delete` is configured without `hold`.
- Nothing is written there without write-through, and nothing is deleted there
  without `propagate_deletes` and a tombstone that was made to be propagated.
- What is unknown moves nothing. What no history can lead to raises.
- A decision that was applied, asked again of the same remote state, changes
  nothing more: it answers nothing, or asks for the push that is still due.

A decision is a value. It says what is to become of the local secret, of base, of
the conflict and of the backend; `services/sync/apply.py` makes writes of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product
from typing import Final

from svsync.domain.changes import BaseKind, PairStatus
from svsync.domain.federation import ConflictPolicy, OnRemoteDelete
from svsync.domain.runs import Count, SkipReason
from svsync.domain.situation import ImpossibleSituation, LocalState, RemoteKind, Situation

# --- the answer -------------------------------------------------------------


class Effect(StrEnum):
    """What becomes of the local secret. A pull is a new version with the remote
    value on the row that is there, a tombstone's too: version numbers go on. A
    tombstone made here never deletes remotely (`propagate` false)."""

    NOTHING = "nothing"
    CREATE = "create"
    PULL = "pull"
    TOMBSTONE = "tombstone"


class BaseMove(StrEnum):
    """What becomes of base. Retoken: the same state under the tokens of this read;
    nothing to write where they are the same."""

    KEEP = "keep"
    RETOKEN = "retoken"
    TO_REMOTE = "to_remote"
    TO_ABSENT = "to_absent"


class PushKind(StrEnum):
    PUT = "put"
    CREATE = "create"
    DELETE = "delete"
    METADATA = "metadata"
    """Tags and custom metadata alone. The table never asks for it: it is due where
    both sides agree on the value and the local tags moved away from base."""


class ConflictKind(StrEnum):
    """How both sides came to disagree; the closed, published list.

    The first five are decided by the conflict policy. `overwritten` is found
    after a push without condition. `drift` (a remote change that was held) is
    recorded closed; `diverged` (a local change that is not written through) has
    no record: it is what such a path is listed as.
    """

    MODIFY_MODIFY = "modify_modify"
    ADD_ADD = "add_add"
    MODIFY_DELETE = "modify_delete"
    DELETE_MODIFY = "delete_modify"
    ADD_DELETE = "add_delete"
    OVERWRITTEN = "overwritten"
    DRIFT = "drift"
    DIVERGED = "diverged"


class ConflictState(StrEnum):
    """State of a conflict record. `kept_local` and `took_remote` tell which side's
    state a local read gives afterwards."""

    OPEN = "open"
    KEPT_LOCAL = "kept_local"
    TOOK_REMOTE = "took_remote"
    CONVERGED = "converged"
    RESOLVED = "resolved"
    SUPERSEDED = "superseded"
    DETACHED = "detached"
    BACKEND_REMOVED = "backend_removed"


@dataclass(frozen=True, slots=True)
class Decision:
    """What one path's run does. The defaults do nothing.

    Attributes:
        row: the row of the table; 0 where an overlay answered before it.
        status: the pair's state from now on; None keeps what it is.
        settles: `settled_version` moves to the local version that is current once
            the effect is applied.
        conflict: record one of this kind, once for a local version and remote
            token, in `conflict_state`. Where it is None and a state is given, the
            open conflict takes that state; OPEN: its sides are refreshed.
        push: a write to the backend that is due; it moves base when it lands.
        skip_reason: why nothing was done, for the report.
        count: the report's counter for the local side. Pushes are counted when
            they land, conflicts when their record is new.
    """

    row: int
    status: PairStatus | None
    effect: Effect = Effect.NOTHING
    base_move: BaseMove = BaseMove.KEEP
    settles: bool = False
    conflict: ConflictKind | None = None
    conflict_state: ConflictState | None = None
    push: PushKind | None = None
    skip_reason: SkipReason | None = None
    count: Count | None = None


# --- the outcomes -----------------------------------------------------------------

Outcome = Callable[[int, Situation], Decision]


def _skip(row: int, reason: SkipReason, status: PairStatus | None = None) -> Decision:
    return Decision(row, status, skip_reason=reason)


def _unknown(row: int, s: Situation) -> Decision:
    denied = s.unknown_reason is SkipReason.DENIED
    return _skip(row, s.unknown_reason, PairStatus.DENIED if denied else None)


def _local_lost(row: int, s: Situation) -> Decision:
    return _skip(row, SkipReason.LOCAL_LOST)


def _no_pair(row: int, s: Situation) -> Decision:
    return Decision(row, PairStatus.INITIAL)


def _both_gone(row: int, s: Situation) -> Decision:
    return Decision(row, PairStatus.IN_SYNC, base_move=BaseMove.RETOKEN)


def _still_retained(row: int, s: Situation) -> Decision:
    return Decision(row, PairStatus.RETAINED, base_move=BaseMove.RETOKEN)


def _settle_absent(row: int, s: Situation) -> Decision:
    return Decision(row, PairStatus.IN_SYNC, base_move=BaseMove.TO_ABSENT, settles=True)


def _unchanged(row: int, s: Situation) -> Decision:
    return Decision(
        row,
        PairStatus.IN_SYNC,
        base_move=BaseMove.RETOKEN,
        settles=True,
        count=Count.UNCHANGED,
    )


def _take(row: int, effect: Effect, count: Count) -> Decision:
    """Both sides are the remote value from here on."""
    return Decision(
        row,
        PairStatus.IN_SYNC,
        effect=effect,
        base_move=BaseMove.TO_REMOTE,
        settles=True,
        count=count,
    )


def _create(row: int, s: Situation) -> Decision:
    return _take(row, Effect.CREATE, Count.CREATED)


def _pull(row: int, s: Situation) -> Decision:
    return _take(row, Effect.PULL, Count.UPDATED)


def _adopt(row: int, s: Situation) -> Decision:
    return _take(row, Effect.NOTHING, Count.ATTACHED)


def _converge(row: int, s: Situation) -> Decision:
    return _take(row, Effect.NOTHING, Count.UNCHANGED)


def _keep_local(row: int, s: Situation, base_move: BaseMove, push: PushKind) -> Decision:
    """The local value stays and is not settled; it is pushed where written through."""
    if s.write_through:
        return Decision(row, PairStatus.PENDING_PUSH, base_move=base_move, push=push)
    return Decision(row, PairStatus.DIVERGED, base_move=base_move)


def _keep_value(row: int, s: Situation) -> Decision:
    return _keep_local(row, s, BaseMove.TO_REMOTE, PushKind.PUT)


def _keep_tombstone(row: int, s: Situation) -> Decision:
    return Decision(row, PairStatus.DIVERGED, base_move=BaseMove.TO_REMOTE)


def _keep_delete(row: int, s: Situation) -> Decision:
    """What is there now is not what was deleted here, so it is kept before anything is
    deleted there: a delete that is to go there is asked of row 16, by the next run."""
    kept = _keep_tombstone(row, s)
    return replace(kept, status=PairStatus.PENDING_PUSH) if s.deletes_there else kept


def _keep_where_gone(row: int, s: Situation) -> Decision:
    """Base stays the lost value until the push lands; without write-through it is absent."""
    move = BaseMove.KEEP if s.write_through else BaseMove.TO_ABSENT
    return _keep_local(row, s, move, PushKind.CREATE)


def _rewritten(row: int, s: Situation) -> Decision:
    return _keep_local(row, s, BaseMove.RETOKEN, PushKind.CREATE)


def _only_local(row: int, s: Situation) -> Decision:
    """A mapping never exports what was there before it, unless it was told to seed, and
    then never what the backend once had and gave up."""
    create = Decision(row, PairStatus.PENDING_PUSH, push=PushKind.CREATE)
    if s.write_through and s.written_after_claim:
        return create
    if s.write_through and s.settings.seed_remote:
        return _skip(row, SkipReason.RETIRED_REMOTELY, PairStatus.INITIAL) if s.traced else create
    return Decision(row, PairStatus.INITIAL)


def _remote_change(row: int, s: Situation) -> Decision:
    """Nobody wrote here: the remote value is taken, or held off with both values kept."""
    if s.pulls:
        return _pull(row, s)
    keep = _keep_delete if s.local is LocalState.TOMBSTONE else _keep_value
    return _record(keep(row, s), ConflictKind.DRIFT)


def _remote_delete(row: int, s: Situation) -> Decision:
    """A backup's deletion must not delete the primary, so `hold` always retains."""
    if s.settings.on_remote_delete is OnRemoteDelete.SOFT_DELETE and s.pulls:
        return replace(_settle_absent(row, s), effect=Effect.TOMBSTONE, count=Count.DELETED)
    return replace(_settle_absent(row, s), status=PairStatus.RETAINED, count=Count.RETAINED)


def _local_change(row: int, s: Situation) -> Decision:
    if s.held and s.pulls:
        return _pull(row, s)
    keep = _keep_local(row, s, BaseMove.RETOKEN, PushKind.PUT)
    return keep if keep.push else replace(keep, count=Count.UNCHANGED)


def _local_delete(row: int, s: Situation) -> Decision:
    if s.deletes_there:
        return _keep_local(row, s, BaseMove.RETOKEN, PushKind.DELETE)
    return Decision(row, PairStatus.DIVERGED, base_move=BaseMove.RETOKEN, count=Count.UNCHANGED)


def _record(decision: Decision, kind: ConflictKind) -> Decision:
    stays = decision.effect is Effect.NOTHING
    state = ConflictState.KEPT_LOCAL if stays else ConflictState.TOOK_REMOTE
    return replace(decision, conflict=kind, conflict_state=state)


def _conflict(kind: ConflictKind, *, backend_wins: Outcome, local_wins: Outcome) -> Outcome:
    def settle(row: int, s: Situation) -> Decision:
        match s.settings.conflict_resolution:
            case ConflictPolicy.BACKEND_WINS:
                return _record(backend_wins(row, s), kind)
            case ConflictPolicy.LOCAL_WINS:
                return _record(local_wins(row, s), kind)
            case ConflictPolicy.MANUAL:
                return Decision(
                    row, PairStatus.CONFLICT, conflict=kind, conflict_state=ConflictState.OPEN
                )

    return settle


def _unless_held(outcome: Outcome, *, held: Outcome) -> Outcome:
    return lambda row, s: held(row, s) if s.held else outcome(row, s)


_add_delete = _conflict(ConflictKind.ADD_DELETE, backend_wins=_pull, local_wins=_keep_tombstone)
_add_add = _conflict(ConflictKind.ADD_ADD, backend_wins=_pull, local_wins=_keep_value)
_modify_modify = _unless_held(
    _conflict(ConflictKind.MODIFY_MODIFY, backend_wins=_pull, local_wins=_keep_value),
    held=_remote_change,
)
_modify_delete = _unless_held(
    _conflict(ConflictKind.MODIFY_DELETE, backend_wins=_remote_delete, local_wins=_keep_where_gone),
    held=_remote_delete,
)
_delete_modify = _conflict(ConflictKind.DELETE_MODIFY, backend_wins=_pull, local_wins=_keep_delete)

# --- the table --------------------------------------------------------------------

NONE, VALUE, ABSENT = BaseKind.NONE, BaseKind.VALUE, BaseKind.ABSENT
NO_ROW, TOMBSTONE = LocalState.NO_ROW, LocalState.TOMBSTONE
CLEAN, DIRTY = LocalState.CLEAN, LocalState.DIRTY
GONE, UNKNOWN, OTHER = RemoteKind.GONE, RemoteKind.UNKNOWN, RemoteKind.OTHER
EQUAL_BASE, EQUAL_LOCAL = RemoteKind.EQUAL_BASE, RemoteKind.EQUAL_LOCAL

_Row = tuple[int, BaseKind, tuple[LocalState, ...], tuple[RemoteKind, ...], Outcome]

# fmt: off
_ROWS: Final[tuple[_Row, ...]] = (
    # row  base    local                       remote                              outcome
    ( 1,   NONE,   (NO_ROW, TOMBSTONE, DIRTY), (UNKNOWN,),                         _unknown),
    ( 1,   VALUE,  (TOMBSTONE, CLEAN, DIRTY),  (UNKNOWN,),                         _unknown),
    ( 1,   ABSENT, (TOMBSTONE, CLEAN, DIRTY),  (UNKNOWN,),                         _unknown),
    ( 2,   NONE,   (NO_ROW,),                  (GONE,),                            _no_pair),
    ( 3,   NONE,   (NO_ROW,),                  (OTHER,),                           _create),
    ( 4,   NONE,   (TOMBSTONE,),               (GONE,),                            _no_pair),
    ( 5,   NONE,   (TOMBSTONE,),               (OTHER,),                           _add_delete),
    ( 6,   NONE,   (DIRTY,),                   (GONE,),                            _only_local),
    ( 7,   NONE,   (DIRTY,),                   (EQUAL_LOCAL,),                     _adopt),
    ( 8,   NONE,   (DIRTY,),                   (OTHER,),                           _add_add),
    ( 9,   VALUE,  (CLEAN,),                   (EQUAL_BASE,),                      _unchanged),
    (10,   VALUE,  (CLEAN,),                   (OTHER,),                           _remote_change),
    (11,   VALUE,  (CLEAN,),                   (GONE,),                            _remote_delete),
    (12,   VALUE,  (DIRTY,),                   (EQUAL_BASE,),                      _local_change),
    (13,   VALUE,  (DIRTY,),                   (EQUAL_LOCAL,),                     _converge),
    (14,   VALUE,  (DIRTY,),                   (OTHER,),                           _modify_modify),
    (15,   VALUE,  (DIRTY,),                   (GONE,),                            _modify_delete),
    (16,   VALUE,  (TOMBSTONE,),               (EQUAL_BASE,),                      _local_delete),
    (17,   VALUE,  (TOMBSTONE,),               (OTHER,),                           _delete_modify),
    (18,   VALUE,  (TOMBSTONE,),               (GONE,),                            _settle_absent),
    (19,   VALUE,  (NO_ROW,),                  (GONE, EQUAL_BASE, OTHER, UNKNOWN), _local_lost),
    (19,   ABSENT, (NO_ROW,),                  (GONE, OTHER, UNKNOWN),             _local_lost),
    (20,   ABSENT, (TOMBSTONE,),               (GONE,),                            _both_gone),
    (21,   ABSENT, (TOMBSTONE,),               (OTHER,),                           _remote_change),
    (22,   ABSENT, (CLEAN,),                   (GONE,),                            _still_retained),
    (23,   ABSENT, (DIRTY,),                   (GONE,),                            _rewritten),
    (24,   ABSENT, (CLEAN, DIRTY),             (EQUAL_LOCAL,),                     _converge),
    (25,   ABSENT, (CLEAN,),                   (OTHER,),                           _remote_change),
    (26,   ABSENT, (DIRTY,),                   (OTHER,),                           _add_add),
)
# fmt: on

_TABLE: Final = {
    combination: (row, outcome)
    for row, base, locals_, remotes, outcome in _ROWS
    for combination in product((base,), locals_, remotes)
}


def decide(s: Situation) -> Decision:
    """The decision for one path.

    Raises:
        ImpossibleSituation: base, local and remote state contradict each other.
    """
    cell = _TABLE.get((s.base, s.local, s.remote))
    if cell is None or (s.held and (s.base, s.local) != (VALUE, DIRTY)):
        held = ", held" if s.held else ""
        raise ImpossibleSituation(
            f"Base {s.base}, local {s.local}{held}, remote {s.remote} cannot be together;"
            " report this as a bug. Nothing was done with the path."
        )
    if s.push_unfinished:
        return _skip(0, SkipReason.WRITE_IN_PROGRESS, PairStatus.PENDING_PUSH)
    if s.conflict_open:
        return _frozen(s)
    if s.quarantined:
        return _skip(0, SkipReason.QUARANTINED, PairStatus.QUARANTINED)
    row, outcome = cell
    return outcome(row, s)


def _frozen(s: Situation) -> Decision:
    """An open conflict waits for a person, whatever the policy is by now, until
    both sides say the same of their own accord."""
    if s.local is NO_ROW:
        return _skip(0, SkipReason.LOCAL_LOST, PairStatus.CONFLICT)
    if s.remote is UNKNOWN:
        return _skip(0, s.unknown_reason, PairStatus.CONFLICT)
    if s.remote is EQUAL_LOCAL or (s.local is CLEAN and s.remote is EQUAL_BASE):
        return replace(_converge(0, s), conflict_state=ConflictState.CONVERGED)
    if s.local is TOMBSTONE and s.remote is GONE:
        return replace(_settle_absent(0, s), conflict_state=ConflictState.CONVERGED)
    return Decision(0, PairStatus.CONFLICT, conflict_state=ConflictState.OPEN)
