"""Programs of the benchmark: started with one JSON object, answering with another."""

import asyncio
import json
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

Result = dict[str, Any]
_PEAK = "VmHWM:"


async def run_program(module: str, **arguments: object) -> Result:
    """Run `python -m module` with these arguments, and wait for its answer.

    Raises:
        RuntimeError: it ended otherwise than well.
    """
    return await ended(module, await started(module, **arguments))


async def started(module: str, **arguments: object) -> Process:
    """`python -m module`, begun; for one that works until its input ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    # The first line of its input: ten thousand tokens are too long for an argument.
    process.stdin.write(json.dumps(arguments).encode() + b"\n")
    return process


async def ended(module: str, process: Process) -> Result:
    """End its input, and wait for its answer. Raises as `run_program`."""
    answer, complaints = await process.communicate(b"")
    if process.returncode != 0:
        raise RuntimeError(f"{module} ended with code {process.returncode}:\n{complaints.decode()}")
    result: Result = json.loads(answer.splitlines()[-1])
    return result


def answer(
    work: Callable[[Result], Coroutine[Any, Any, Result]],
    *,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """The main function of a program: one JSON object in, one out, with its peak memory.
    `loop`: makes the loop that it runs on."""
    with asyncio.Runner(loop_factory=loop) as runner:
        found = runner.run(work(json.loads(sys.stdin.readline())))
    print(json.dumps({"peak_mb": peak_mb(), **found}))


def peak_mb() -> float:
    """Most memory this process had since `forget_peak`, in MB (10^6 bytes)."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(_PEAK))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def forget_peak() -> None:
    """Count the peak anew from what is in use now (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
