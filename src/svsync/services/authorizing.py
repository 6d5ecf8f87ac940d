"""May they? Asked of the policies, and recorded, before anything is done.

What does not go the way of a read (`reading`) asks here: the answer is recorded first, so
that nothing is done and nothing is shown that the audit log does not tell of. Who is asking
was verified after the request began, so no epoch has to be compared.
"""

from svsync.domain.access import Call, Caller, ForbiddenError, Scope
from svsync.domain.audit import Decision
from svsync.domain.errors import NotFoundError, SvsyncError
from svsync.domain.policies import Permission, Permissions
from svsync.services.recording import Recorder

_DONE = {
    Permission.READ: "read",
    Permission.WRITE: "write",
    Permission.LIST: "list",
    Permission.DELETE: "delete",
    Permission.REVEAL: "reveal the values of",
    Permission.USE: "use",
}


class Authorizing:
    """Decides and records, for every tenant."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def note(
        self,
        call: Call,
        action: str,
        *,
        path: str | None = None,
        version: int | None = None,
        backend: str | None = None,
        detail: str | None = None,
        decision: Decision = Decision.ALLOW,
    ) -> None:
        """Record an access that needs no permission on a path, or was decided elsewhere.

        `detail` is JSON text without any value.

        Raises:
            AuditUnavailableError, OverloadedError, StoreUnavailableError: it is not recorded,
                so it must not be done.
        """
        entry = call.entry(
            action, decision, path=path, version=version, backend=backend, detail=detail
        )
        await self._recorder.record(entry)

    async def require_scope(self, call: Call, scope: Scope, action: str) -> None:
        """Raises ForbiddenError, recorded, where the token lacks a scope; and as `note`."""
        if not call.caller.has(scope):
            await self.note(call, action, decision=Decision.DENY)
            call.caller.require(scope)

    async def require(
        self,
        call: Call,
        permissions: Permissions,
        permission: Permission,
        path: str,
        action: str,
        *,
        scope: Scope,
        version: int | None = None,
        backend: str | None = None,
        detail: str | None = None,
        compares: bool = False,
    ) -> None:
        """Record whether the caller may do something with a path, and go on only if so.
        `compares`: they ask to be told whether a value is the one that is there, which is for
        those who may read it.

        Raises:
            ForbiddenError: they may not, and may know of the path.
            NotFoundError: `secret_not_found`: they may not even know of it. Who asks for
                something that is not there is told the same.
            Others as `note`.
        """
        allowed = call.caller.has(scope) and permissions.decide(path, permission) is not None
        guesses = compares and not may_read(call.caller, permissions, path)
        decision = Decision.ALLOW if allowed and not guesses else Decision.DENY
        await self.note(
            call, action, path=path, version=version, backend=backend, detail=detail,
            decision=decision,
        )  # fmt: skip
        if not allowed:
            raise refused(call, permissions, permission, path, scope)
        if guesses:
            raise ForbiddenError(
                f"skip_if_equal tells whether a value is the one at {path}, so it needs the"
                f" permission read there, and the scope {Scope.SECRETS_READ}: leave it out"
            )


def may_read(caller: Caller, permissions: Permissions, path: str) -> bool:
    """May they learn the value at a path? Else no answer tells how it compares with theirs."""
    return caller.has(Scope.SECRETS_READ) and permissions.decide(path, Permission.READ) is not None


def refused(
    call: Call, permissions: Permissions, permission: Permission, path: str, scope: Scope
) -> SvsyncError:
    """What somebody is told who may not do what they asked for: nothing of whether the path
    is there, unless they may read or list it, or may write it anyway."""
    if not call.caller.has(scope):
        return ForbiddenError(f"this needs a token with the scope {scope}")
    known = (Permission.READ, Permission.LIST)
    if permission is Permission.WRITE or any(permissions.decide(path, p) for p in known):
        return ForbiddenError(f"no policy lets you {_DONE[permission]} {path}")
    return absent(path)


def absent(path: str) -> NotFoundError:
    """The one answer for what is not there, and for what the caller may not know of."""
    return NotFoundError(f"there is no secret at {path}", code="secret_not_found")
