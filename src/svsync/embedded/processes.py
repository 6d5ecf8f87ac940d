"""How child processes end, and how loopback ports are found: the same for every server."""

import asyncio
import contextlib
import socket
from asyncio.subprocess import Process


async def end_process(process: Process, grace: float) -> None:
    """Ask `process` to end (SIGTERM), and make it end (SIGKILL) after `grace` seconds.

    Returns once the process is reaped. When cancelled meanwhile it kills at
    once, still reaps, and lets the cancellation through: no child is left.
    """
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        await _kill(process)
    except asyncio.CancelledError:
        await _kill(process)
        raise


async def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def free_port() -> int:
    """A loopback TCP port that nobody listens on right now.

    Between this answer and its use somebody may take it: callers try again.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
