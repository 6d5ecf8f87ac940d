"""Which rules a new configuration turns from proxy to sync, or the other way.

A rule is known by its local pattern, since rules may be moved, split and joined in
the same edit. Whether two patterns can claim one path is asked of their languages, so
paths that change their rule are found as well as rules that change their mode.
"""

from collections.abc import Sequence

from svsync.domain.federation import BackendSpec, Mode, RuleSpec
from svsync.domain.languages import Budget, UndecidedError, find_path
from svsync.domain.paths import MAX_LOCAL_BYTES
from svsync.domain.patterns import Pattern


def proxied_rules(spec: BackendSpec) -> frozenset[int]:
    """The numbers of the rules that read through."""
    return frozenset(
        n
        for n, rule in enumerate(spec.rules)
        if not rule.exclude and spec.for_rule(rule).mode is Mode.PROXY
    )


def modes(spec: BackendSpec) -> tuple[tuple[RuleSpec, Mode], ...]:
    """What decides in which mode a path is: the rules in their order, each with its mode."""
    return tuple((rule, spec.for_rule(rule).mode) for rule in spec.rules)


def initial_after(
    before: BackendSpec | None, after: BackendSpec, initial: Sequence[str]
) -> tuple[str, ...]:
    """Local patterns of `after` that sync what was read through until now.

    `initial` are those that wait already for the full run that brings them in. A rule
    that was in sync mode before waits again only where a proxied one left it paths.
    """
    if before is None:
        return ()
    was_proxied = _patterns(before, Mode.PROXY) | set(initial)
    still_proxied = _patterns(after, Mode.PROXY)
    was_synced = _patterns(before, Mode.SYNC) - set(initial)
    waiting = []
    for n, rule in enumerate(after.rules):
        if rule.exclude or after.for_rule(rule).mode is Mode.PROXY:
            continue
        behind = was_proxied - still_proxied if rule.local in was_synced else was_proxied
        earlier = [r.local for r in after.rules[:n] if r.local]
        if rule.local in initial or any(_claims(rule.local, p, earlier) for p in behind):
            waiting.append(rule.local)
    return tuple(waiting)


def _patterns(spec: BackendSpec, mode: Mode) -> set[str]:
    return {r.local for r in spec.rules if not r.exclude and spec.for_rule(r).mode is mode}


def _claims(pattern: str, other: str, earlier: Sequence[str]) -> bool:
    """Does a rule get paths of another pattern, behind the rules before it? In doubt, yes."""
    wanted = [Pattern.parse(pattern), Pattern.parse(other)]
    unwanted = [Pattern.parse(one) for one in earlier]
    try:
        found = find_path(wanted, unwanted, budget=Budget(), max_length=MAX_LOCAL_BYTES)
    except UndecidedError:
        return True
    return found is not None
