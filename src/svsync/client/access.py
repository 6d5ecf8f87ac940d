"""Who calls, and who did what."""

from typing import Literal

from svsync.client.calls import Calls
from svsync.client.records import AuditChains, AuditLogs, Whoami


class Auth:
    """`client.auth`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def whoami(self) -> Whoami:
        """Whom the token vouches for. Raises SvsyncError: `unauthenticated` and others."""
        told: Whoami = await self._calls.get("/v1/auth/whoami")
        return told


class Audit:
    """`client.audit`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def query(
        self,
        *,
        identity_id: str | None = None,
        secret_path: str | None = None,
        action: str | None = None,
        decision: Literal["allow", "deny"] | None = None,
        start: str | None = None,
        end: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> AuditLogs:
        """A page of accesses, allowed and denied, newest first; the look is one itself.

        Args:
            identity_id: whose, as `sa:billing`.
            secret_path: to which secret; with `/**` at its end whatever is below a path.
            action: which, as `secret.read`.
            start, end: from when on, and before when: RFC 3339, or `1 hour ago`.
            limit: at most 1,000.
            cursor: the `next_cursor` of the page before.

        Raises:
            SvsyncError: `forbidden`, `invalid_field` and others.
        """
        asked = {"from": start, "to": end}
        page: AuditLogs = await self._calls.get(
            "/v1/audit/logs",
            identity_id=identity_id,
            secret_path=secret_path,
            action=action,
            decision=decision,
            limit=limit,
            cursor=cursor,
            **asked,
        )
        return page

    async def chains(self, *, limit: int = 100, cursor: str | None = None) -> AuditChains:
        """A page of the log's hash chains, newest first: how far each goes, and how far that is
        signed and kept outside, as the store says of itself. Raises SvsyncError."""
        page: AuditChains = await self._calls.get("/v1/audit/chains", limit=limit, cursor=cursor)
        return page
