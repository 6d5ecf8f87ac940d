"""May a caller lend a backend what it would use? Asked of the policies, and recorded.

A backend reads with a credential and writes where its mapping says: `use` on the path of the
one, and `write` over the whole of each local pattern of the other. A sample does not do:
what policies give must cover all that a pattern matches, and a path that shows where they
do not is named.
"""

import asyncio
import json
from typing import Final

from svsync.domain.access import Call, ForbiddenError
from svsync.domain.audit import Decision
from svsync.domain.authorisations import authorised_of
from svsync.domain.federation import BackendSpec, Writes
from svsync.domain.languages import Budget, UndecidedError
from svsync.domain.mapping import RuleSet
from svsync.domain.policies import Permission, Permissions
from svsync.services.authorizing import Authorizing

_DONE: Final = {Permission.WRITE: "write", Permission.DELETE: "delete"}


class BackendRights:
    """What callers may lend to backends, of every tenant."""

    def __init__(self, authorizing: Authorizing) -> None:
        self._authorizing = authorizing

    async def lend(
        self,
        call: Call,
        permissions: Permissions,
        spec: BackendSpec,
        rules: RuleSet,
        action: str,
    ) -> None:
        """Raises ForbiddenError, recorded, where the caller may not lend the backend what it
        would use; what they lend is recorded else."""
        asked = authorised_of(spec)
        path = asked.credential
        if path and permissions.decide(path, Permission.USE) is None:
            await self._authorizing.note(
                call, action, path=path, backend=spec.id, decision=Decision.DENY
            )
            raise ForbiddenError(f"no policy lets you use {path} as a backend's credential")
        await self.require_over(call, permissions, Permission.WRITE, spec, rules, action)
        patterns = [rule.local for rule in spec.rules if not rule.exclude]
        await self.note(
            call, action, spec, path=path or None, endpoint=asked.origin, local=patterns
        )

    async def require_over(
        self,
        call: Call,
        permissions: Permissions,
        permission: Permission,
        spec: BackendSpec,
        rules: RuleSet,
        action: str,
    ) -> None:
        """Raises ForbiddenError, recorded, where a permission is not given on the whole of
        each local pattern of a mapping; the message names a path where it is not."""
        found = await asyncio.to_thread(_uncovered, permissions, permission, rules)
        if found is None:
            return
        where, witness = found
        await self._authorizing.note(
            call, action, path=witness, backend=spec.id, decision=Decision.DENY
        )
        if witness is None:
            raise ForbiddenError(
                f"whether policies let you {_DONE[permission]} all of {where} cannot be told,"
                " for the patterns are too entangled: use fewer wildcards"
            )
        raise ForbiddenError(
            f"no policy lets you {_DONE[permission]} {witness}, which {where} covers: ask for it"
            " on the whole pattern, or narrow the mapping"
        )

    async def note(
        self, call: Call, action: str, spec: BackendSpec, path: str | None = None, **about: object
    ) -> None:
        """Record something that was allowed, with what there is to tell of it."""
        await self._authorizing.note(
            call, action, path=path, backend=spec.id, detail=json.dumps(about)
        )


_LENT: Final = ("standby_for", "allow_hide", "allow_blind_push")
"""Further keys by which a backend does more with what its maker lent it."""


def lends_more(was: BackendSpec, now: BackendSpec) -> bool:
    """Is a change authorised as a creation: another endpoint, credential or mapping, or one by
    which more than before goes out to the backend, or out of sight here?"""

    def writes(spec: BackendSpec) -> bool:
        settings = (spec.for_rule(rule) for rule in spec.rules if not rule.exclude)
        return any(one.writes is Writes.WRITE_THROUGH for one in settings)

    def outward(spec: BackendSpec) -> tuple[object, ...]:
        return (writes(spec), spec.seed_remote, spec.propagate_deletes)

    return (
        authorised_of(was) != authorised_of(now)
        or was.rules != now.rules
        or was.events != now.events
        or outward(was) != outward(now)
        or any(was.extra.get(key) != now.extra.get(key) for key in _LENT)
    )


def _uncovered(
    permissions: Permissions, permission: Permission, rules: RuleSet
) -> tuple[str, str | None] | None:
    """The first rule over whose local pattern a permission is not given, as its place and a
    path that shows it (None: it cannot be told); None: it is given on all of them."""
    budget = Budget()
    for rule in rules.rules:
        if rule.spec.exclude or rule.local is None:
            continue
        where = f"path_mapping[{rule.index}].local"
        try:
            witness = permissions.uncovered(rule.local, permission, budget)
        except UndecidedError:
            return where, None
        if witness is not None:
            return where, witness
    return None
