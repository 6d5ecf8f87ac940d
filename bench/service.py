"""`svsync serve` as a process: how soon it is ready, and what it holds while it idles."""

import asyncio
import os
import re
import signal
import sys
import time
import urllib.request
from pathlib import Path
from typing import Final

from bench.programs import Result

_IDLE_S: Final = 5.0


async def idle_service(dsn: str, state: Path) -> Result:
    """Seconds until it says that it serves, on a database that it has served before; MB of
    memory after some seconds without anything to do."""
    await _start(dsn, state)  # makes the schema
    return await _start(dsn, state)


async def _start(dsn: str, state: Path) -> Result:
    environ = os.environ | {
        "DATABASE_URL": dsn,
        "SVSYNC_STATE_DIR": str(state),
        "BIND_ADDRESS": "127.0.0.1:0",
        "METRICS_ADDRESS": "off",
        "LOG_FORMAT": "json",
    }
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "svsync"),
        "serve",
        cwd=state,
        env=environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    address = ""
    async for line in process.stderr:
        if b'"serving"' in line:
            found = re.search(rb'"address": "([^"]+)"', line)
            assert found is not None
            address = found.group(1).decode()
            break
    ready = time.perf_counter() - began
    with await asyncio.to_thread(urllib.request.urlopen, f"{address}/readyz") as answered:
        assert answered.status == 200
    await asyncio.sleep(_IDLE_S)
    memory = _resident_mb(process.pid)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    return {"ready_s": ready, "idle_mb": memory}


def _resident_mb(pid: int) -> float:
    """Memory that a process has in use, in MB (10^6 bytes)."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024 / 1e6
