"""May a caller have a receiver told of these events? Asked of the policies, and recorded.

Some events name secrets. Whoever asks for those needs `list` over the whole of each pattern
that they ask for, or of everything where they give none: else a webhook would tell names
that a list keeps from them. The others name backends and numbers, and the scope suffices.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Final

from svsync.domain.access import Call, ForbiddenError
from svsync.domain.audit import Decision
from svsync.domain.languages import Budget, UndecidedError
from svsync.domain.patterns import Pattern
from svsync.domain.policies import Permission, Permissions
from svsync.domain.webhooks import NAMING, Subscription
from svsync.services.authorizing import Authorizing

_EVERYTHING: Final = ("**",)


class WebhookRights:
    """What callers may have told to receivers, of every tenant."""

    def __init__(self, authorizing: Authorizing) -> None:
        self._authorizing = authorizing

    async def require(
        self,
        call: Call,
        permissions: Permissions,
        wants: Subscription,
        action: str,
        about: Mapping[str, object],
    ) -> None:
        """Record whether the caller may ask for these events, and go on only if so.

        Args:
            wants: checked already.
            about: what the audit log tells beside.

        Raises:
            ForbiddenError: names a pattern, and a path of it that they may not list.
            AuditUnavailableError, OverloadedError, StoreUnavailableError: it is not recorded.
        """
        found = None
        if not wants.types or NAMING.intersection(wants.types):
            found = await asyncio.to_thread(_unlisted, permissions, wants)
        decision = Decision.ALLOW if found is None else Decision.DENY
        path = None if found is None else found[1]
        detail = json.dumps(about)
        await self._authorizing.note(call, action, path=path, detail=detail, decision=decision)
        if found is None:
            return
        pattern, witness = found
        if witness is None:
            raise ForbiddenError(
                f"whether policies let you list all of {pattern} cannot be told, for the patterns"
                " are too entangled: use fewer wildcards"
            )
        raise ForbiddenError(
            f"no policy lets you list {witness}, which {pattern} covers: give path_patterns that"
            " you may list, or types that name no secret"
        )


def _unlisted(permissions: Permissions, wants: Subscription) -> tuple[str, str | None] | None:
    """The first pattern that may not be listed as a whole, and a path that shows it (None: it
    cannot be told); None: all may be."""
    budget = Budget()
    for text in wants.path_patterns or _EVERYTHING:
        try:
            witness = permissions.uncovered(Pattern.parse(text), Permission.LIST, budget)
        except UndecidedError:
            return text, None
        if witness is not None:
            return text, witness
    return None
