"""`svsync serve` as a process: what it says, what it answers, and how it ends.

A process ends with its block, whatever the test did to it. Its log is read as it is
written, so that it never waits for its reader, and is looked through for the canary.
"""

import asyncio
import json
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from tests.canary import Canary
from tests.patience import PATIENCE_S
from tests.program import Program, let_go, until

LISTEN = {"BIND_ADDRESS": "127.0.0.1:0", "METRICS_ADDRESS": "127.0.0.1:0"}
"""Addresses that nobody else has; the log says which they became."""


@dataclass
class Served:
    """One process of the service.

    Attributes:
        lines: its log, a line an object, as far as it is written.
        sentences: what it says to people; nothing but the reason why it did not start.
    """

    process: Process
    canary: Canary
    lines: list[dict[str, Any]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    reading: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """Take what it says until it ends."""
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            assert not self.canary.found_in(line), "a value turned up in the log"
            if line.startswith(b"svsync: "):
                self.sentences.append(line.decode().rstrip())
            else:
                self.lines.append(json.loads(line))

    def told(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        return [line for line in self.lines if line["event"] == event]

    async def says(self, event: str, times: int = 1) -> dict[str, Any]:
        """The line of an event, once it is written so many times."""
        await until(lambda: len(self.told(event)) >= times or self.process.returncode is not None)
        assert len(self.told(event)) >= times, (self.process.returncode, self.sentences)
        return self.told(event)[times - 1]

    @property
    def url(self) -> str:
        """Where its API is. It must be serving."""
        return str(self.told("serving")[0]["address"])

    @property
    def metrics(self) -> str:
        return str(self.told("serving")[0]["endpoint"])

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def code(self) -> int:
        """How it ended, once it has."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    async def stopped(self) -> int:
        """How it ends when it is told to."""
        self.tell(signal.SIGTERM)
        return await self.code()

    async def aclose(self) -> None:
        """End it, if it has not ended, and take the rest of what it said."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        if self.reading is not None:
            await self.reading
        await let_go(self.process)


async def start_serving(program: Program, *args: str, **changes: str) -> Served:
    """A new process of `svsync serve`; whoever has it ends it with `aclose`."""
    process = await program.start("serve", *args, **{**LISTEN, **changes})
    served = Served(process, program.canary)
    served.reading = asyncio.create_task(served.read())
    return served


@asynccontextmanager
async def serving(
    program: Program, *args: str, ready: bool = True, **changes: str
) -> AsyncIterator[Served]:
    """`svsync serve` until the block ends; with `ready`, from when it serves."""
    served = await start_serving(program, *args, **changes)
    try:
        if ready:
            await served.says("serving")
        yield served
    finally:
        await served.aclose()


@dataclass(frozen=True)
class Answer:
    """`request_id`: every answer of svsync has one; none: somebody else is at that port."""

    status: int
    text: str
    request_id: str | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.text)


async def ask(
    url: str,
    path: str = "",
    *,
    token: str = "",
    body: Mapping[str, object] | None = None,
    timeout: float = 10.0,
) -> Answer:
    """GET, or POST where there is a body."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    method = "GET" if body is None else "POST"
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout)) as session,
        session.request(method, f"{url}{path}", json=body, headers=headers) as answer,
    ):
        return Answer(answer.status, await answer.text(), answer.headers.get("X-Request-Id"))


async def new_token(program: Program, *args: str) -> str:
    """A token for everything, as an operator makes it."""
    made = await program(
        "tokens", "create", "--identity", "sa:test", "--scope", "admin", "--json", *args
    )
    return str(made.json["token"])
