"""Is the whole shown as it changes, on a terminal and to a program; and are all runs stopped
and begun again by name?"""

import asyncio
import fcntl
import json
import os
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.acceptance.conftest import Desk
from tests.patience import PATIENCE_S
from tests.program import until


@dataclass
class Terminal:
    """A program on a pseudo terminal, and all that it wrote there."""

    process: asyncio.subprocess.Process
    written: bytearray

    async def shows(self, words: str) -> None:
        await until(lambda: words.encode() in self.written or self.process.returncode is not None)
        assert words.encode() in self.written, bytes(self.written)[-2000:]

    async def ends(self) -> int:
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


@asynccontextmanager
async def on_terminal(
    desk: Desk, *args: str, columns: int = 120, lines: int = 24, term: str = "xterm-256color"
) -> AsyncIterator[Terminal]:
    """The program with its stdout and stderr on a terminal of this size."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {"PATH": os.environ["PATH"], "TERM": term, **desk.program.environment}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "svsync", *args,
        cwd=desk.folder, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=theirs,
        stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    terminal = Terminal(process, bytearray())
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            terminal.written += os.read(ours, 65_536)
        except OSError:  # the other end is closed
            loop.remove_reader(ours)

    loop.add_reader(ours, read)
    try:
        yield terminal
        assert not desk.program.canary.found_in(bytes(terminal.written))
        assert b"Traceback" not in terminal.written
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        loop.remove_reader(ours)
        os.close(ours)


@pytest.fixture
async def synced(desk: Desk) -> tuple[str, Path]:
    """A backend that was run once."""
    await desk.bao.put("apps/db", {"password": desk.program.canary.value()})
    backend, file = desk.backend()
    assert (await desk.program("run-once", "--backend", backend, "--config", str(file))).code == 0
    return backend, file


async def test_watch_draws_each_second_and_leaves_the_terminal_as_it_was(
    desk: Desk, synced: tuple[str, Path]
) -> None:
    backend, file = synced
    at = ("--config", str(file))
    async with on_terminal(desk, "status", "--watch", *at) as terminal:
        await terminal.shows("Ctrl-C ends this")
        await terminal.shows(backend)
        await terminal.shows("healthy")
        assert (await desk.program("backends", "pause", "--all", *at)).code == 0
        try:
            await terminal.shows("All runs are stopped")
        finally:
            assert (await desk.program("backends", "resume", "--all", *at)).code == 0
        assert await terminal.ends() == 0
        await terminal.shows("\x1b[?1049l")  # the screen of before
        await terminal.shows("\x1b[?25h")  # and its cursor
        assert terminal.written.count(b"\x1b[?1049h") == 1


async def test_watch_where_nothing_can_be_drawn_over_writes_a_table_each_second(
    desk: Desk, synced: tuple[str, Path]
) -> None:
    backend, file = synced
    at = ("--config", str(file), "--backend", backend)
    async with on_terminal(desk, "status", "--watch", *at, term="dumb") as terminal:
        await until(lambda: terminal.written.count(b"healthy") >= 2)
        assert await terminal.ends() == 0
        assert b"\x1b[?1049h" not in terminal.written


async def test_watch_gives_programs_one_object_a_line(desk: Desk, synced: tuple[str, Path]) -> None:
    backend, file = synced
    process = await desk.program.start("status", "--json", "--watch", "--config", str(file))
    assert process.stdout is not None
    looks = [json.loads(await process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 0
    assert looks[0]["at"] < looks[1]["at"]
    for look in looks:
        assert look["signals"] == "local"
        [shown] = [b for b in look["backends"] if b["id"] == backend]
        assert (shown["status"], shown["tls_verify"], shown["run"]) == ("healthy", True, None)
        assert shown["rate_per_s"] is None


async def test_watch_ends_when_its_reader_went_away(desk: Desk, synced: tuple[str, Path]) -> None:
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "svsync", "status", "--json", "--watch", "--config", str(synced[1]),
        cwd=desk.folder, env={"PATH": os.environ["PATH"], **desk.program.environment},
        stdout=writing, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writing)
    os.close(reading)
    async with asyncio.timeout(PATIENCE_S):
        assert await process.wait() == 0


async def test_all_runs_are_stopped_and_begun_again(desk: Desk, synced: tuple[str, Path]) -> None:
    backend, file = synced
    at = ("--config", str(file), "--json")
    stopped = await desk.program("backends", "pause", "--all", *at)
    try:
        assert stopped.json["stopped"]["by"]
        refused = await desk.program("run-once", "--backend", backend, *at)
        assert (refused.code, refused.json["error"]["code"]) == (1, "stopped")
        assert refused.json["run_id"] is None
        assert "svsync backends resume --all" in refused.sentence
        dry = await desk.program("plan", "--backend", backend, *at)
        assert dry.code == 0
        status = await desk.program("status", *at)
        assert status.json["stopped"] == stopped.json["stopped"]
        one = await desk.program("status", "--backend", backend, *at)
        assert (one.json["id"], one.json["stopped"]) == (backend, stopped.json["stopped"])
        told = await desk.program("status", "--config", str(file))
        assert "All runs are stopped, by " in told.out
        assert " stopped " in told.out
    finally:
        resumed = await desk.program("backends", "resume", "--all", *at)
    assert resumed.json == {"stopped": None}
    assert (await desk.program("run-once", "--backend", backend, *at)).code == 0


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_one_backend_is_named_or_all_of_them(desk: Desk, verb: str) -> None:
    for words in ((), ("fed_a", "--all")):
        said = await desk.program("backends", verb, *words)
        assert said.code == 2
        assert "name one backend, or give --all" in said.sentence


async def test_missing_check_of_the_certificate_is_told_of_in_status(desk: Desk) -> None:
    backend, file = desk.backend(config={"tls_verify": False})
    said = await desk.program("status", "--config", str(file))
    assert f"{backend}: tls_verify is off" in said.out
    shown = await desk.program("status", "--backend", backend, "--json", "--config", str(file))
    assert shown.json["tls_verify"] is False
    async with on_terminal(desk, "status", "--config", str(file)) as terminal:
        await terminal.shows(f"\x1b[1;31m{backend}: tls_verify is off")
