"""`svsync serve` as a process: how soon it is ready, and what it holds while it idles."""

import asyncio
import os
import re
import signal
import sys
import time
import urllib.request
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.programs import Result

PROGRAM: Final = str(Path(sys.executable).parent / "svsync")
_IDLE_S: Final = 5.0


async def idle_service(dsn: str, state: Path) -> Result:
    """Seconds until it says that it serves, on a database that it has served before; MB of
    memory after some seconds without anything to do."""
    await _start(dsn, state)  # makes the schema
    return await _start(dsn, state)


async def _start(dsn: str, state: Path) -> Result:
    began = time.perf_counter()
    async with serving(dsn, state) as service:
        ready = time.perf_counter() - began
        with await asyncio.to_thread(urllib.request.urlopen, f"{service.url}/readyz") as answered:
            assert answered.status == 200
        await asyncio.sleep(_IDLE_S)
        return {"ready_s": ready, "idle_mb": _resident_mb(service.pid)}


@dataclass(frozen=True, slots=True)
class Service:
    """A process that serves at `url`."""

    url: str
    pid: int


@asynccontextmanager
async def serving(dsn: str, state: Path, *arguments: str, **environ: str) -> AsyncIterator[Service]:
    """`svsync serve`, from when it says that it serves until it was told to stop."""
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        "serve",
        *arguments,
        cwd=state,
        env=os.environ | environment(dsn, state) | environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    reading: asyncio.Task[None] | None = None
    try:
        url = await _address(process)
        reading = asyncio.create_task(_drop_lines(process))
        yield Service(url, process.pid)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if reading is not None:
            await reading


def environment(dsn: str, state: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": dsn,
        "SVSYNC_STATE_DIR": str(state),
        "BIND_ADDRESS": "127.0.0.1:0",
        "METRICS_ADDRESS": "off",
        "LOG_FORMAT": "json",
    }


async def _address(process: Process) -> str:
    """Where it serves, once it says so."""
    assert process.stderr is not None
    said = []
    async for line in process.stderr:
        said.append(line.decode())
        if b'"serving"' in line:
            found = re.search(rb'"address": "([^"]+)"', line)
            assert found is not None
            return found.group(1).decode()
    raise RuntimeError(f"svsync serve ended without serving:\n{''.join(said)}")


async def _drop_lines(process: Process) -> None:
    """Read what it says, so that it never waits for a reader."""
    assert process.stderr is not None
    while await process.stderr.read(65536):
        pass


def _resident_mb(pid: int) -> float:
    """Memory that a process has in use, in MB (10^6 bytes)."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024 / 1e6
