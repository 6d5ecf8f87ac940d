"""What does each row of the decision table do, under every setting?

The table below is written by hand from the rules, not from the code. Each of the
60 combinations of base, local and remote state, under each setting, is claimed
by exactly one of its lines.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import pytest

from svsync.domain.changes import BaseKind, PairStatus
from svsync.domain.decide import (
    BaseMove,
    ConflictKind,
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
from svsync.domain.runs import Count, SkipReason
from svsync.domain.situation import ImpossibleSituation, LocalState, RemoteKind, Situation

# Columns: row, base, local, remote, when: effect, base, settled, status, conflict, push, counted.
# `wt`: write-through; `after_claim`: the local version is younger than the backend's claim;
# `traced`: the backend still knows the gone name; `carries`: the tombstone carries `propagate`.
# `!` is not, `-` is nothing, `?` in status is "as it was", `~` counts as skipped.
TABLE = """
 1 none         no_row|tombstone|dirty unknown     denied                   - - - denied - - ~denied
 1 none         no_row|tombstone|dirty unknown     !denied                  - - - ? - - ~lagging
 1 value|absent tombstone|clean|dirty  unknown     denied                   - - - denied - - ~denied
 1 value|absent tombstone|clean|dirty  unknown     !denied                  - - - ? - - ~lagging

 2 none   no_row      gone        -                              - - - initial - - -
 3 none   no_row      other       -                              create to_remote settles in_sync - - created
 4 none   tombstone   gone        -                              - - - initial - - -
 5 none   tombstone   other       backend_wins                   pull to_remote settles in_sync add_delete/took_remote - updated
 5 none   tombstone   other       local_wins                     - to_remote - diverged add_delete/kept_local - -
 5 none   tombstone   other       manual                         - - - conflict add_delete/open - -
 6 none   dirty       gone        !wt                            - - - initial - - -
 6 none   dirty       gone        wt,after_claim                 - - - pending_push - create -
 6 none   dirty       gone        wt,!after_claim,!seed          - - - initial - - -
 6 none   dirty       gone        wt,!after_claim,seed,!traced   - - - pending_push - create -
 6 none   dirty       gone        wt,!after_claim,seed,traced    - - - initial - - ~retired_remotely
 7 none   dirty       equal_local -                              - to_remote settles in_sync - - attached
 8 none   dirty       other       backend_wins                   pull to_remote settles in_sync add_add/took_remote - updated
 8 none   dirty       other       local_wins,wt                  - to_remote - pending_push add_add/kept_local put -
 8 none   dirty       other       local_wins,!wt                 - to_remote - diverged add_add/kept_local - -
 8 none   dirty       other       manual                         - - - conflict add_add/open - -

 9 value  clean       equal_base  -                              - retoken settles in_sync - - unchanged
10 value  clean       other       pull                           pull to_remote settles in_sync - - updated
10 value  clean       other       hold,wt                        - to_remote - pending_push drift/kept_local put -
10 value  clean       other       hold,!wt                       - to_remote - diverged drift/kept_local - -
11 value  clean       gone        pull,soft_delete               tombstone to_absent settles in_sync - - deleted
11 value  clean       gone        pull,!soft_delete              - to_absent settles retained - - retained
11 value  clean       gone        hold                           - to_absent settles retained - - retained
12 value  dirty       equal_base  held,pull                      pull to_remote settles in_sync - - updated
12 value  dirty       equal_base  held,hold,wt                   - retoken - pending_push - put -
12 value  dirty       equal_base  held,hold,!wt                  - retoken - diverged - - unchanged
12 value  dirty       equal_base  !held,wt                       - retoken - pending_push - put -
12 value  dirty       equal_base  !held,!wt                      - retoken - diverged - - unchanged
13 value  dirty       equal_local -                              - to_remote settles in_sync - - unchanged
14 value  dirty       other       held,pull                      pull to_remote settles in_sync - - updated
14 value  dirty       other       held,hold,wt                   - to_remote - pending_push drift/kept_local put -
14 value  dirty       other       held,hold,!wt                  - to_remote - diverged drift/kept_local - -
14 value  dirty       other       !held,backend_wins             pull to_remote settles in_sync modify_modify/took_remote - updated
14 value  dirty       other       !held,local_wins,wt            - to_remote - pending_push modify_modify/kept_local put -
14 value  dirty       other       !held,local_wins,!wt           - to_remote - diverged modify_modify/kept_local - -
14 value  dirty       other       !held,manual                   - - - conflict modify_modify/open - -
15 value  dirty       gone        held,pull,soft_delete          tombstone to_absent settles in_sync - - deleted
15 value  dirty       gone        held,pull,!soft_delete         - to_absent settles retained - - retained
15 value  dirty       gone        held,hold                      - to_absent settles retained - - retained
15 value  dirty       gone        !held,backend_wins,pull,soft_delete  tombstone to_absent settles in_sync modify_delete/took_remote - deleted
15 value  dirty       gone        !held,backend_wins,pull,!soft_delete - to_absent settles retained modify_delete/kept_local - retained
15 value  dirty       gone        !held,backend_wins,hold        - to_absent settles retained modify_delete/kept_local - retained
15 value  dirty       gone        !held,local_wins,wt            - - - pending_push modify_delete/kept_local create -
15 value  dirty       gone        !held,local_wins,!wt           - to_absent - diverged modify_delete/kept_local - -
15 value  dirty       gone        !held,manual                   - - - conflict modify_delete/open - -
16 value  tombstone   equal_base  wt,propagate_deletes,carries   - retoken - pending_push - delete -
16 value  tombstone   equal_base  wt,propagate_deletes,!carries  - retoken - diverged - - unchanged
16 value  tombstone   equal_base  wt,!propagate_deletes          - retoken - diverged - - unchanged
16 value  tombstone   equal_base  !wt                            - retoken - diverged - - unchanged
17 value  tombstone   other       backend_wins                   pull to_remote settles in_sync delete_modify/took_remote - updated
17 value  tombstone   other       local_wins,wt,propagate_deletes,carries - to_remote - pending_push delete_modify/kept_local - -
17 value  tombstone   other       local_wins,wt,propagate_deletes,!carries - to_remote - diverged delete_modify/kept_local - -
17 value  tombstone   other       local_wins,wt,!propagate_deletes        - to_remote - diverged delete_modify/kept_local - -
17 value  tombstone   other       local_wins,!wt                 - to_remote - diverged delete_modify/kept_local - -
17 value  tombstone   other       manual                         - - - conflict delete_modify/open - -
18 value  tombstone   gone        -                              - to_absent settles in_sync - - -
19 value  no_row      gone|equal_base|other|unknown  -           - - - ? - - ~local_lost
19 absent no_row      gone|other|unknown             -           - - - ? - - ~local_lost

20 absent tombstone   gone        -                              - retoken - in_sync - - -
21 absent tombstone   other       pull                           pull to_remote settles in_sync - - updated
21 absent tombstone   other       hold,wt,propagate_deletes,carries       - to_remote - pending_push drift/kept_local - -
21 absent tombstone   other       hold,wt,propagate_deletes,!carries      - to_remote - diverged drift/kept_local - -
21 absent tombstone   other       hold,wt,!propagate_deletes     - to_remote - diverged drift/kept_local - -
21 absent tombstone   other       hold,!wt                       - to_remote - diverged drift/kept_local - -
22 absent clean       gone        -                              - retoken - retained - - -
23 absent dirty       gone        wt                             - retoken - pending_push - create -
23 absent dirty       gone        !wt                            - retoken - diverged - - -
24 absent clean|dirty equal_local -                              - to_remote settles in_sync - - unchanged
25 absent clean       other       pull                           pull to_remote settles in_sync - - updated
25 absent clean       other       hold,wt                        - to_remote - pending_push drift/kept_local put -
25 absent clean       other       hold,!wt                       - to_remote - diverged drift/kept_local - -
26 absent dirty       other       backend_wins                   pull to_remote settles in_sync add_add/took_remote - updated
26 absent dirty       other       local_wins,wt                  - to_remote - pending_push add_add/kept_local put -
26 absent dirty       other       local_wins,!wt                 - to_remote - diverged add_add/kept_local - -
26 absent dirty       other       manual                         - - - conflict add_add/open - -
"""  # noqa: E501 - a table is read across

IMPOSSIBLE = """
none|absent       no_row|tombstone|clean|dirty equal_base
none              clean                        gone|equal_local|other|unknown
none|value|absent no_row|tombstone             equal_local
value             clean                        equal_local
"""


@dataclass(frozen=True)
class Line:
    when: frozenset[str]
    unless: frozenset[str]
    decision: Decision

    def claims(self, facts: frozenset[str]) -> bool:
        return self.when <= facts and not (self.unless & facts)


def cells(bases: str, locals_: str, remotes: str) -> Iterator[tuple[str, str, str]]:
    yield from product(bases.split("|"), locals_.split("|"), remotes.split("|"))


def parse_line(text: str) -> tuple[Iterator[tuple[str, str, str]], Line]:
    row, base, local, remote, when, effect, move, settled, status, conflict, push, count = (
        text.split()
    )
    words = [] if when == "-" else when.split(",")
    kind, _, state = conflict.partition("/")
    decision = Decision(
        row=int(row),
        status=None if status == "?" else PairStatus(status),
        effect=Effect.NOTHING if effect == "-" else Effect(effect),
        base_move=BaseMove.KEEP if move == "-" else BaseMove(move),
        settles=settled == "settles",
        conflict=ConflictKind(kind) if state else None,
        conflict_state=ConflictState(state) if state else None,
        push=None if push == "-" else PushKind(push),
        skip_reason=SkipReason(count[1:]) if count.startswith("~") else None,
        count=None if count[0] in "-~" else Count(count),
    )
    line = Line(
        when=frozenset(w for w in words if not w.startswith("!")),
        unless=frozenset(w[1:] for w in words if w.startswith("!")),
        decision=decision,
    )
    return cells(base, local, remote), line


def parse(table: str) -> dict[tuple[str, str, str], list[Line]]:
    lines: dict[tuple[str, str, str], list[Line]] = {}
    for text in filter(str.strip, table.splitlines()):
        where, line = parse_line(text)
        for cell in where:
            lines.setdefault(cell, []).append(line)
    return lines


ALL = set(product(BaseKind, LocalState, RemoteKind))
EXPECTED = parse(TABLE)
RAISES = {
    cell for text in filter(str.strip, IMPOSSIBLE.splitlines()) for cell in cells(*text.split())
}


def settings() -> Iterator[PathSettings]:
    for writes, policy, changes, deletion, propagate, seed in product(
        Writes, ConflictPolicy, RemoteChanges, OnRemoteDelete, (False, True), (False, True)
    ):
        yield PathSettings(
            mode=Mode.SYNC,
            writes=writes,
            conflict_resolution=policy,
            remote_changes=changes,
            on_remote_delete=deletion,
            propagate_deletes=propagate,
            seed_remote=seed,
        )


SETTINGS = tuple(settings())
NO = (False,)
BOTH = (False, True)


def situations(base: BaseKind, local: LocalState, remote: RemoteKind) -> Iterator[Situation]:
    """Every situation of one combination, each input varied where it can be told apart."""
    unknown = remote is RemoteKind.UNKNOWN
    reasons = (SkipReason.DENIED, SkipReason.LAGGING) if unknown else (SkipReason.UNREADABLE,)
    may_be_held = base is BaseKind.VALUE and local is LocalState.DIRTY
    for given, held, after_claim, carries, traced, reason in product(
        SETTINGS,
        BOTH if may_be_held else NO,
        BOTH,
        BOTH if local is LocalState.TOMBSTONE else NO,
        BOTH if remote is RemoteKind.GONE else NO,
        reasons,
    ):
        yield Situation(
            base=base,
            local=local,
            remote=remote,
            settings=given,
            held=held,
            written_after_claim=after_claim,
            propagate=carries,
            traced=traced,
            unknown_reason=reason,
        )


def facts(s: Situation) -> frozenset[str]:
    words = {str(s.settings.conflict_resolution), str(s.settings.remote_changes)}
    for holds, word in (
        (s.settings.writes is Writes.WRITE_THROUGH, "wt"),
        (s.settings.on_remote_delete is OnRemoteDelete.SOFT_DELETE, "soft_delete"),
        (s.settings.propagate_deletes, "propagate_deletes"),
        (s.settings.seed_remote, "seed"),
        (s.held, "held"),
        (s.written_after_claim, "after_claim"),
        (s.propagate, "carries"),
        (s.traced, "traced"),
        (s.unknown_reason is SkipReason.DENIED, "denied"),
    ):
        if holds:
            words.add(word)
    return frozenset(words)


def test_each_of_the_60_combinations_is_a_row_or_impossible() -> None:
    assert len(ALL) == 60
    assert set(EXPECTED) | RAISES == ALL
    assert not set(EXPECTED) & RAISES
    assert len(RAISES) == 19


@pytest.mark.parametrize("cell", sorted(EXPECTED), ids="-".join)
def test_every_situation_is_decided_as_its_line_says(cell: tuple[str, str, str]) -> None:
    base, local, remote = cell
    used: set[int] = set()
    for s in situations(BaseKind(base), LocalState(local), RemoteKind(remote)):
        claiming = [i for i, line in enumerate(EXPECTED[cell]) if line.claims(facts(s))]
        assert len(claiming) == 1, f"{len(claiming)} lines claim {s}"
        assert decide(s) == EXPECTED[cell][claiming[0]].decision, s
        used.update(claiming)
    assert used == set(range(len(EXPECTED[cell]))), "a line that nothing reaches"


@pytest.mark.parametrize("cell", sorted(RAISES), ids="-".join)
def test_a_contradiction_raises_whatever_the_settings(cell: tuple[str, str, str]) -> None:
    base, local, remote = cell
    for s in situations(BaseKind(base), LocalState(local), RemoteKind(remote)):
        with pytest.raises(ImpossibleSituation, match="cannot be together"):
            decide(s)


def test_a_contradiction_raises_before_an_overlay_is_asked() -> None:
    known = Situation(BaseKind.NONE, LocalState.CLEAN, RemoteKind.UNKNOWN, SETTINGS[0])
    for overlaid in (
        replace(known, push_unfinished=True),
        replace(known, conflict_open=True),
        replace(known, quarantined=True),
    ):
        with pytest.raises(ImpossibleSituation):
            decide(overlaid)


@pytest.mark.parametrize(
    ("base", "local"),
    [
        (BaseKind.NONE, LocalState.DIRTY),
        (BaseKind.VALUE, LocalState.CLEAN),
        (BaseKind.ABSENT, LocalState.DIRTY),
    ],
)
def test_only_a_dirty_secret_with_a_base_value_can_be_held(
    base: BaseKind, local: LocalState
) -> None:
    with pytest.raises(ImpossibleSituation, match="held"):
        decide(Situation(base, local, RemoteKind.GONE, SETTINGS[0], held=True))


# --- overlays ---------------------------------------------------------------------

POSSIBLE = sorted((BaseKind(b), LocalState(lo), RemoteKind(r)) for b, lo, r in EXPECTED)


@pytest.mark.parametrize("given", SETTINGS[:: len(SETTINGS) // 6])
def test_an_unfinished_push_comes_before_every_other_question(given: PathSettings) -> None:
    for base, local, remote in POSSIBLE:
        s = Situation(
            base, local, remote, given, push_unfinished=True, conflict_open=True, quarantined=True
        )
        assert decide(s) == Decision(
            0, PairStatus.PENDING_PUSH, skip_reason=SkipReason.WRITE_IN_PROGRESS
        )


BOTH_EQUAL = {
    (BaseKind.NONE, LocalState.DIRTY, RemoteKind.EQUAL_LOCAL),
    (BaseKind.VALUE, LocalState.DIRTY, RemoteKind.EQUAL_LOCAL),
    (BaseKind.VALUE, LocalState.CLEAN, RemoteKind.EQUAL_BASE),
    (BaseKind.ABSENT, LocalState.CLEAN, RemoteKind.EQUAL_LOCAL),
    (BaseKind.ABSENT, LocalState.DIRTY, RemoteKind.EQUAL_LOCAL),
}


def frozen(base: BaseKind, local: LocalState, remote: RemoteKind) -> Decision:
    """What an open conflict makes of a combination, under any setting."""
    if (base, local, remote) in BOTH_EQUAL:
        return Decision(
            0,
            PairStatus.IN_SYNC,
            base_move=BaseMove.TO_REMOTE,
            settles=True,
            conflict_state=ConflictState.CONVERGED,
            count=Count.UNCHANGED,
        )
    if (local, remote) == (LocalState.TOMBSTONE, RemoteKind.GONE):
        return Decision(
            0,
            PairStatus.IN_SYNC,
            base_move=BaseMove.TO_ABSENT,
            settles=True,
            conflict_state=ConflictState.CONVERGED,
        )
    if local is LocalState.NO_ROW:
        return Decision(0, PairStatus.CONFLICT, skip_reason=SkipReason.LOCAL_LOST)
    if remote is RemoteKind.UNKNOWN:
        return Decision(0, PairStatus.CONFLICT, skip_reason=SkipReason.DENIED)
    return Decision(0, PairStatus.CONFLICT, conflict_state=ConflictState.OPEN)


@pytest.mark.parametrize("given", SETTINGS[:: len(SETTINGS) // 12])
@pytest.mark.parametrize("quarantined", BOTH)
def test_an_open_conflict_is_frozen_until_both_sides_agree(
    given: PathSettings, quarantined: bool
) -> None:
    for base, local, remote in POSSIBLE:
        s = Situation(
            base,
            local,
            remote,
            given,
            unknown_reason=SkipReason.DENIED,
            conflict_open=True,
            quarantined=quarantined,
        )
        assert decide(s) == frozen(base, local, remote), s


def test_a_quarantined_path_is_skipped_until_it_is_due() -> None:
    for base, local, remote in POSSIBLE:
        s = Situation(base, local, remote, SETTINGS[0], quarantined=True)
        assert decide(s) == Decision(0, PairStatus.QUARANTINED, skip_reason=SkipReason.QUARANTINED)
