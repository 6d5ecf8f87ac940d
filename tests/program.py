"""The program as its users meet it: a process, its exit code, and what it prints where."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import forks, printed
from tests.canary import Canary
from tests.patience import PATIENCE_S


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended. `sentences` are its own lines on stderr, without the log's."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def sentences(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("svsync: ")]

    @property
    def sentence(self) -> str:
        """The only one. Whatever else is on stderr is log lines, each a JSON object."""
        rest = [line for line in self.err.splitlines() if not line.startswith("svsync: ")]
        assert all(isinstance(json.loads(line), dict) for line in rest), rest
        [only] = self.sentences
        return only


@dataclass
class Program:
    """Starts `svsync` with an environment of its own.

    Whatever it prints is looked through for the marker of `canary`, but for the
    output of commands that are there to show values; with `--json` it is held to the
    command's schema. What runs to its end is forked off
    one that is loaded (`tests.forks`), unless `alone`.
    """

    environment: Mapping[str, str]
    folder: Path
    canary: Canary = field(default_factory=Canary)
    alone: bool = False
    _asked: dict[int, tuple[str, ...]] = field(default_factory=dict, init=False)
    """Arguments of processes that were started, by their ids."""

    def _environment(self, changes: Mapping[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {**kept, **self.environment, **changes}

    async def start(self, *args: str, **changes: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "svsync",
            *args,
            cwd=self.folder,
            env=self._environment(changes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._asked[process.pid] = args
        return process

    async def ended(self, process: Process, stdin: bytes = b"", *, reveals: bool = False) -> Said:
        try:
            async with asyncio.timeout(PATIENCE_S):
                out, err = await process.communicate(stdin)
        finally:
            await let_go(process)
        assert process.returncode is not None
        args = self._asked.pop(process.pid, ())
        return self._looked_through(args, process.returncode, out, err, reveals)

    def _looked_through(
        self, args: Sequence[str], code: int, out: bytes, err: bytes, reveals: bool
    ) -> Said:
        for name, written in (("stderr", err), *(() if reveals else (("stdout", out),))):
            assert not self.canary.found_in(written), f"a value turned up on {name}"
        assert b"Traceback" not in out + err
        printed.check(args, code, out.decode())
        return Said(code, out.decode(), err.decode())

    async def __call__(
        self, *args: str, stdin: bytes = b"", reveals: bool = False, **changes: str
    ) -> Said:
        environment = self._environment(changes)
        asked = forks.request(args, self.folder, environment)
        of_python = any(name.startswith("PYTHON") for name in environment)
        if self.alone or of_python or len(asked) > forks.LONGEST or not forks.HERE:
            return await self.ended(await self.start(*args, **changes), stdin, reveals=reveals)
        async with asyncio.timeout(PATIENCE_S):
            ended = await forks.loader().run(asked, stdin)
        return self._looked_through(args, *ended, reveals)

    async def interrupted(self, process: Process, number: signal.Signals) -> Said:
        process.send_signal(number)
        return await self.ended(process)


async def let_go(process: Process) -> None:
    """A process that is no more, and nothing of it that the garbage collector finds: what its
    own children have open of its pipes would be told of in some later test."""
    if process.returncode is None:
        process.kill()
        await process.wait()
    transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]
    transport.close()  # there is no public way to it


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Return when something outside of this process is so."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)
