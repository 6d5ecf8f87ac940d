"""The calls of one GCP backend: through the guard, to Secret Manager."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Final, TypeVar

from svsync.clients.gcp import GcpRefusedError, GcpSession
from svsync.domain.errors import DeniedError
from svsync.domain.pushes import REMOTE_CHANGED, Refused
from svsync.ports import CallGuard, Operation

T = TypeVar("T")

PERMISSIONS: Final[Mapping[str, str]] = {
    "list_secrets": "secretmanager.secrets.list",
    "get_secret": "secretmanager.secrets.get",
    "create_secret": "secretmanager.secrets.create",
    "update_secret": "secretmanager.secrets.update",
    "get_secret_version": "secretmanager.versions.get",
    "list_secret_versions": "secretmanager.versions.list",
    "access_secret_version": "secretmanager.versions.access",
    "add_secret_version": "secretmanager.versions.add",
    "disable_secret_version": "secretmanager.versions.disable",
    "enable_secret_version": "secretmanager.versions.enable",
}
"""What each call needs (IAM, "Secret Manager roles and permissions")."""

_CHANGED: Final[Mapping[str, tuple[str, ...]]] = {
    "create_secret": ("ALREADY_EXISTS",),
    "add_secret_version": ("NOT_FOUND",),
    "update_secret": ("NOT_FOUND", "FAILED_PRECONDITION"),
    "disable_secret_version": ("NOT_FOUND", "FAILED_PRECONDITION"),
    "enable_secret_version": ("NOT_FOUND", "FAILED_PRECONDITION"),
}
"""Refusals that say that somebody made, removed or changed it meanwhile. A stale etag is
FAILED_PRECONDITION ("Use entity tags for optimistic concurrency control"); of a call that
takes none it speaks of a key in Cloud KMS, or of a policy."""


async def run_all(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. The first error ends them all, and is raised as it is."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class GcpCalls:
    """Each passes the guard and makes one call. Raises as `GcpSession.call`.

    Attributes:
        parent: `projects/P`, or `projects/P/locations/L`.
    """

    def __init__(self, session: GcpSession, guard: CallGuard, parent: str) -> None:
        self.session = session
        self.parent = parent
        self._guard = guard

    def name(self, path: str, version: int | str | None = None) -> str:
        """The resource name of a secret, or of a version of it."""
        name = f"{self.parent}/secrets/{path}"
        return name if version is None else f"{name}/versions/{version}"

    async def request(
        self, operation: Operation, method: str, shown: str | None = None, **request: Any
    ) -> Any:
        """One call, such as `("metadata", "get_secret", path, name=…)`; the SDK's answer."""
        return await self._guard.call(
            operation,
            lambda: self.session.call(method, request, operation=operation, shown=shown),
        )

    async def send(self, operation: Operation, method: str, path: str, **request: Any) -> Any:
        """One call that writes; the SDK's answer. Refused: Google says that nothing was done.

        Raises what leaves that open, or speaks of the backend as a whole.
        """
        try:
            return await self.request(operation, method, path, **request)
        except DeniedError:
            return Refused("denied", f"{PERMISSIONS[method]} is not granted")
        except GcpRefusedError as error:
            if error.reason in _CHANGED[method]:
                return Refused(REMOTE_CHANGED)
            return Refused("push_refused", error.reason)

    async def secret(self, path: str) -> Any | None:
        """A secret without its value; None: there is none."""
        try:
            return await self.request("metadata", "get_secret", path, name=self.name(path))
        except GcpRefusedError as error:
            if error.reason == "NOT_FOUND":
                return None
            raise

    async def version(self, path: str, number: int | str) -> Any | None:
        """A version without its value, by its number or `latest`; None: there is none."""
        name = self.name(path, number)
        try:
            return await self.request("metadata", "get_secret_version", path, name=name)
        except GcpRefusedError as error:
            if error.reason == "NOT_FOUND":
                return None
            raise

    async def access(self, path: str, number: int | str) -> Any:
        """A version with its value. Raises GcpRefusedError where it has none to give."""
        name = self.name(path, number)
        return await self.request("read", "access_secret_version", path, name=name)
