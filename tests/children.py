"""What is asked of each server that runs as a child process."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import ModuleType
from typing import Protocol

import pytest

from svsync.embedded.processes import free_port


class Child(Protocol):
    @property
    def pid(self) -> int: ...


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def cancel_owner(opened: Callable[[], AbstractAsyncContextManager[Child]]) -> int:
    """Cancel whoever has the server open; the number of its process."""
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def own() -> None:
        async with opened() as server:
            started.set_result(server.pid)
            await asyncio.Event().wait()

    owner = asyncio.create_task(own())
    pid = await started
    assert is_alive(pid)
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    return pid


@asynccontextmanager
async def first_port_taken(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> AsyncIterator[int]:
    """The first free port that this module finds is not free any more when it is used."""
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = taken.sockets[0].getsockname()[1]
    ports = iter([port])
    monkeypatch.setattr(module, "free_port", lambda: next(ports, None) or free_port())
    async with taken:
        yield port
