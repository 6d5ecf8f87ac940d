"""Starts the program as a fork of one that has loaded it, for commands that run to their end.

Most of the time of a command is the start of Python and its imports, the same each time.
Whatever a command has of its own it has here too: a process, arguments, an environment, a
folder, standard streams, the end of the interpreter with its exit code. How the program
itself is started and what it loads is asked by those that start it as people do.

A worker of the tests has one loader, which ends with it: it runs this file as a script.
"""

import asyncio
import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final, NamedTuple

HERE: Final = hasattr(os, "pidfd_open")
"""Whether this system has what is needed; else each command starts by itself."""
LONGEST: Final = 65_536
"""Bytes of a request."""
_LOADED: Final = ("svsync.app", "svsync.cli.main", "svsync.cli.opening", "svsync.backends.vault")


class Ended(NamedTuple):
    code: int
    out: bytes
    err: bytes


class Loader:
    """The process that has the program loaded."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=kept,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    async def run(self, asked: bytes, stdin: bytes) -> Ended:
        """What `request` made, to its end; killed where nobody waits for that any more."""
        ours, theirs = socket.socketpair()
        with ours, TemporaryFile() as out, TemporaryFile() as err:
            with theirs, TemporaryFile() as given:
                given.write(stdin)
                given.seek(0)
                streams = [file.fileno() for file in (given, out, err, theirs)]
                socket.send_fds(self._ours, [asked], streams)
            ours.setblocking(False)
            code = await asyncio.get_running_loop().sock_recv(ours, 16)
            out.seek(0)
            err.seek(0)
            return Ended(int(code), out.read(), err.read())

    def close(self) -> None:
        self._ours.close()
        self._process.wait()


@cache
def loader() -> Loader:
    """This worker's."""
    made = Loader()
    atexit.register(made.close)
    return made


def request(args: Sequence[str], folder: Path, environment: Mapping[str, str]) -> bytes:
    return json.dumps([list(args), str(folder), dict(environment)]).encode()


# --- in the loader --------------------------------------------------------------------


def _serve(control: socket.socket) -> None:
    """Return in a process that is to be the program, or where nobody asks any more."""
    for name in _LOADED:
        import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who tell of an end are not waited for
    while True:
        asked, streams, _, _ = socket.recv_fds(control, LONGEST, 4)
        if not asked:
            os._exit(0)
        if os.fork() == 0:
            break
        for stream in streams:
            os.close(stream)
    control.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=streams.pop()) as teller:
        if program := os.fork():
            _tell_the_end(program, teller)
    _become(json.loads(asked), streams)


def _tell_the_end(program: int, teller: socket.socket) -> None:
    """Wait for it, and kill it first where whoever started it has gone."""
    ended = os.pidfd_open(program)
    ready, _, _ = select.select([ended, teller.fileno()], [], [])
    if ended not in ready:
        os.kill(program, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    with contextlib.suppress(OSError):
        teller.send(str(code).encode())
    os._exit(0)


def _become(asked: Any, streams: Sequence[int]) -> None:
    args, folder, environment = asked
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.argv[1:] = args


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from svsync.cli.main import run

    run()
