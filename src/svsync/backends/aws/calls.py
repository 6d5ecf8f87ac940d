"""The calls of one AWS backend: through the guard, to Secrets Manager and STS."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Final, TypeVar

from svsync.clients.aws import AwsRefusedError, AwsSession, no_answer
from svsync.domain.errors import DeniedError
from svsync.domain.pushes import REMOTE_CHANGED, Refused
from svsync.ports import CallGuard, Operation

T = TypeVar("T")

_TOLD: Final[Mapping[str, tuple[str, ...]]] = {
    "list_secrets": ("SecretList",),
    "describe_secret": ("Name",),
    "get_secret_value": ("VersionId",),
    "batch_get_secret_value": ("SecretValues", "Errors"),
    "create_secret": ("ARN",),
    "put_secret_value": ("VersionId",),
    "update_secret_version_stage": ("ARN",),
    "delete_secret": ("ARN",),
    "restore_secret": ("ARN",),
}
"""What an answer holds, whatever else. The SDK takes any page for an answer that says
nothing, and that is neither an empty listing nor a write that was made."""

_CHANGED: Final = (
    "ResourceExistsException",
    "ResourceNotFoundException",
    "InvalidRequestException",
)
"""Somebody made, removed, deleted or restored it meanwhile."""


def action_of(method: str) -> str:
    """What a policy calls the right to a call, without its service."""
    return "".join(word.capitalize() for word in method.split("_"))


async def run_all(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. The first error ends them all, and is raised as it is."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class AwsCalls:
    """Each passes the guard and makes one call. Raises as `AwsSession.call`."""

    def __init__(self, session: AwsSession, guard: CallGuard) -> None:
        self.session = session
        self._guard = guard

    async def request(
        self, operation: Operation, method: str, shown: str | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """One call to Secrets Manager, such as `("metadata", "describe_secret", …)`.

        Raises ProtocolError, too, for an answer that lacks what such a call is answered.
        """

        async def attempt() -> dict[str, Any]:
            answer = await self.session.call(
                "secretsmanager", method, parameters, operation=operation, shown=shown
            )
            if not any(name in answer for name in _TOLD.get(method, answer)):
                raise no_answer(operation, shown)
            return answer

        return await self._guard.call(operation, attempt)

    async def send(
        self, operation: Operation, method: str, path: str, **parameters: Any
    ) -> Refused | None:
        """One call that writes; None: it was done. Refused: AWS says that nothing was.

        Raises what leaves that open, or speaks of the backend as a whole.
        """
        try:
            await self.request(operation, method, path, **parameters)
        except DeniedError:
            return Refused("denied", f"secretsmanager:{action_of(method)} is not granted")
        except AwsRefusedError as error:
            # Of a secret that is only made now, what is not found is its key in KMS.
            of_key = method == "create_secret" and error.reason == "ResourceNotFoundException"
            if error.reason in _CHANGED and not of_key:
                return Refused(REMOTE_CHANGED)
            return Refused("push_refused", error.reason or f"status {error.status}")
        return None

    async def describe(self, path: str) -> dict[str, Any]:
        return await self.request("metadata", "describe_secret", path, SecretId=path)

    async def caller_account(self) -> str:
        """The account whose keys these are; STS asks for no permission for it."""
        answer = await self._guard.call(
            "metadata",
            lambda: self.session.call("sts", "get_caller_identity", {}, operation="connect"),
        )
        return str(answer.get("Account", ""))
