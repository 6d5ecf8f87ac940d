"""Flips between sync and proxy: what they do to the copies that are here.

From sync to proxy the backend is read at once, so what is here alone would go out of
sight: such a flip is refused until it has been pushed or somebody forces it. The copies
are hidden, their pairs detached, and after `proxy_purge_after` they are destroyed. Who
flips back before that has them as they were: the next run attaches the pairs again.

From proxy to sync nothing is here yet. Local writes wait for the first full run that
listed everything (`BackendSpec` rules in *initial sync*), because before it nobody can
tell a new name from one that was not brought in yet.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Final

from svsync.domain.errors import ConfigError, SvsyncError
from svsync.domain.federation import BackendSpec
from svsync.domain.flips import initial_after, modes, proxied_rules
from svsync.domain.ids import LocalPath, TenantId
from svsync.domain.mapping import Mapped, RuleSet
from svsync.services.withdrawal import withdraw
from svsync.store import federation, flips, pairs
from svsync.store.database import Database, Transaction
from svsync.store.federation import StoredBackend
from svsync.store.flips import Paired

PURGE_AFTER_S: Final = 7 * 24 * 3600
"""`proxy_purge_after` where it was not given."""
_PAGE: Final = 1_000
_NAMED: Final = 10
_WHY: Final = {
    "changed": "changed here",
    "deleted": "deleted here",
    "retained": "gone in the backend, kept here",
    "conflict": "in conflict",
    "push": "being written",
}


async def flip(
    tx: Transaction,
    before: StoredBackend | None,
    spec: BackendSpec,
    rules: RuleSet,
    *,
    force: bool,
) -> None:
    """Bring the local copies of a backend in line with the modes of its rules, in the
    transaction that stores them, under the lease's lock.

    Raises:
        ConfigError: `hides_local_secrets`, `unpushed_local_changes`.
        SvsyncError: `write_in_progress`: even a forced flip waits for a push's sender.
    """
    if spec.is_standby:
        return  # another backend owns its paths, and what is here of them
    was = None if before is None else before.spec
    if was is not None and modes(was) == modes(spec):
        return
    initial = initial_after(was, spec, () if before is None else before.initial)
    await federation.set_initial(tx, spec.id, initial)
    proxied = proxied_rules(spec)
    await _show_again(tx, spec, rules, proxied)
    if spec.extra.get("allow_hide") is not True:
        await _refuse_to_hide_what_is_local(tx, spec, rules, proxied)
    await _hide(tx, spec, rules, proxied, force=force)


def _reads_through(rules: RuleSet, proxied: frozenset[int], path: LocalPath) -> bool:
    mapped = rules.to_remote(path)
    return isinstance(mapped, Mapped) and mapped.rule in proxied


def _prefixes(rules: RuleSet, proxied: Iterable[int]) -> list[str]:
    """Literal beginnings of the rules' local sides, none within another."""
    patterns = (rules.rules[n].local for n in proxied)
    found = {pattern.literal for pattern in patterns if pattern is not None}
    return [p for p in sorted(found) if not any(p.startswith(o) for o in found - {p})]


async def _show_again(
    tx: Transaction, spec: BackendSpec, rules: RuleSet, proxied: frozenset[int]
) -> None:
    """Copies whose paths are read through no more are secrets again, as they were."""
    after = ""
    while True:
        rows = await flips.hidden(tx, spec.id, after, _PAGE)
        back = [r["secret_id"] for r in rows if not _reads_through(rules, proxied, r["path"])]
        await flips.lock_secrets(tx, back)
        await flips.show_again(tx, back)
        if len(rows) < _PAGE:
            return
        after = rows[-1]["path"]


async def _refuse_to_hide_what_is_local(
    tx: Transaction, spec: BackendSpec, rules: RuleSet, proxied: frozenset[int]
) -> None:
    """A proxied rule may not cover secrets that are here and were not brought in by it."""
    covered: list[LocalPath] = []
    for prefix in _prefixes(rules, proxied):
        after = ""
        while page := await flips.alone_below(tx, spec.id, after, prefix, _PAGE):
            covered.extend(path for path in page if _reads_through(rules, proxied, path))
            after = page[-1]
    if covered:
        raise ConfigError(
            f"{len(covered)} local secrets would be hidden by {spec.id}, which reads through"
            f" ({', '.join(covered[:_NAMED])}): move them, exclude them in its mapping, or set"
            " `allow_hide: true`",
            code="hides_local_secrets",
        )


async def _hide(
    tx: Transaction, spec: BackendSpec, rules: RuleSet, proxied: frozenset[int], *, force: bool
) -> None:
    left: list[tuple[LocalPath, str]] = []
    async for page in _flipping(tx, spec, rules, proxied):
        paths = [p.path for p in page]
        await pairs.lock_secrets(tx, paths)
        unpushed = await flips.unpushed(tx, spec.id, paths)
        if not force:
            left.extend(unpushed)
        if left:
            continue  # refused; the others are looked at so that all are counted
        await _give_up_pushes(tx, spec, [path for path, why in unpushed if why == "push"])
        await pairs.detach(tx, spec.id, [(p.remote_path, None) for p in page])
        await flips.hide(tx, spec.id, [p.secret for p in page if p.secret is not None])
    if left:
        named = ", ".join(f"{path} ({_WHY[why]})" for path, why in left[:_NAMED])
        raise ConfigError(
            f"{len(left)} paths of {spec.id} hold what the backend does not have, and proxy mode"
            f" would hide it: {named}; push or settle them, or flip with `svsync backends apply"
            f" --force {spec.id}`, or over HTTP with `force: true`",
            code="unpushed_local_changes",
        )


async def _flipping(
    tx: Transaction, spec: BackendSpec, rules: RuleSet, proxied: frozenset[int]
) -> AsyncIterator[list[Paired]]:
    """Active pairs whose paths are read through from now on, a page at a time."""
    for prefix in _prefixes(rules, proxied):
        after = ""
        while page := await flips.paired_below(tx, spec.id, after, prefix, _PAGE):
            yield [p for p in page if _reads_through(rules, proxied, p.path)]
            after = page[-1].path


async def _give_up_pushes(tx: Transaction, spec: BackendSpec, paths: list[LocalPath]) -> None:
    if not paths:
        return
    unfinished = await flips.unfinished(tx, spec.id, paths)
    held = any(one.in_hand for one in unfinished)
    if held or await withdraw(tx, unfinished, "proxied") < len(unfinished):
        raise SvsyncError(
            f"a write to {spec.id} is on its way: flip again in a minute", code="write_in_progress"
        )


def purge_after(spec: BackendSpec) -> float:
    """Seconds for which a copy stays hidden before it is destroyed."""
    given = spec.extra.get("proxy_purge_after")
    return float(given) if isinstance(given, int | float) else PURGE_AFTER_S


async def purge_hidden(db: Database, tenant: TenantId) -> int:
    """Destroy the copies whose time is over, in batches; how many there were."""
    destroyed = 0
    async with db.transaction(tenant, read_only=True) as tx:
        backends = [stored.spec for stored in await federation.list_backends(tx)]
    for spec in backends:
        seconds, batch = purge_after(spec), _PAGE
        while batch == _PAGE:
            async with db.transaction(tenant) as tx:
                due = await flips.overdue_hidden(tx, spec.id, seconds, _PAGE)
                await flips.destroy_sides(tx, spec.id, due)
                await flips.destroy(tx, spec.id, due)
            batch = len(due)
            destroyed += batch
    return destroyed
