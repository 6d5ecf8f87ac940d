"""The calls of one Vault backend: through the guard, within its mounts."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from svsync.backends.vault.kv import Mount, parse_mount
from svsync.clients.vault import Answer, VaultSession
from svsync.domain.errors import BackendError, LoginError, ProtocolError, ThrottledError
from svsync.domain.paths import encode_segments
from svsync.ports import CallGuard, Operation

T = TypeVar("T")


async def run_all(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. The first error ends them all, and is raised as it is."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_of_one_path(error: BackendError) -> bool:
    """Does this status speak of the path that was asked for, and of no other?

    400 and its like do, and 500, which a server also answers for one damaged entry;
    502 to 504, 429 and everything without a status speak of the whole.
    """
    if isinstance(error, ThrottledError | LoginError | ProtocolError) or error.status is None:
        return False
    return 400 <= error.status <= 500


class VaultCalls:
    """Requests below known mounts; each passes the guard and makes one call.

    What was found mounted is kept: KV engines do not change their version while
    they hold data, and a mount that vanishes shows itself at the next call.
    """

    def __init__(self, session: VaultSession, guard: CallGuard) -> None:
        self.session = session
        self._guard = guard
        self._mounts: list[Mount] = []

    async def find_mount(self, path: str) -> Mount:
        """The mount that a remote path or prefix lies in.

        Raises DeniedError where no policy of ours reaches below it, which is
        what a missing mount answers too, and ProtocolError for another engine.
        """
        for mount in self._mounts:
            if path.startswith(f"{mount.path}/"):
                return mount
        place = encode_segments(path.rstrip("/"))
        answer = await self.request("list", "GET", f"sys/internal/ui/mounts/{place}", path)
        mount = parse_mount(answer)
        if mount not in self._mounts:
            self._mounts.append(mount)
        return mount

    async def request(
        self, operation: Operation, method: str, url: str, shown: str, body: object = None
    ) -> Answer:
        """One request. `url` comes from `Mount.url`, or names no secret at all."""
        return await self._guard.call(
            operation,
            lambda: self.session.request(method, url, operation=operation, shown=shown, body=body),
        )

    async def ask_server(self, path: str) -> Answer:
        """A question about the server itself, without token and namespace."""
        return await self._guard.call("metadata", lambda: self.session.ask_server(path))
