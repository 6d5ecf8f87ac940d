"""Connections to one server, and what goes wrong with them in svsync's own words.

The library tries nothing again by itself, follows no other server, and connects to no
address that svsync's network rules do not allow: each is judged as it is connected to.
No message holds text of the server, which may quote a key or a value.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from redis import exceptions as told
from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool, Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    DeniedError,
    LoginError,
    ProtocolError,
    ThrottledError,
)
from svsync.network import AddressRefusedError, NetworkPolicy, socket_guard
from svsync.ports import CredentialSource

Command = Sequence[str | bytes | int]

_TIMEOUT_S: Final = 10.0
_CONNECTIONS: Final = 16
_NO_HASH: Final = "WRONGTYPE "
"""What a command for hashes is told of any other key: that one is spoiled, not the server."""
_BUSY: Final = ("BUSY ", "LOADING ", "TRYAGAIN ", "MASTERDOWN ", "CLUSTERDOWN ")


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Attributes:
    tls: what a `rediss` address is checked with; None: a plain connection.
    """

    host: str
    port: int
    database: int
    tls: ssl.SSLContext | None


class _GuardedConnection(Connection):
    """Connects a socket that the network rules have judged."""

    def __init__(
        self, *, policy: NetworkPolicy, context: ssl.SSLContext | None, **about: Any
    ) -> None:
        super().__init__(**about)
        self._policy = policy
        self._context = context
        self._socket: socket.socket | None = None

    async def _connect(self) -> None:
        async with asyncio.timeout(_TIMEOUT_S):
            self._socket = await _connected(self.host, self.port, self._policy)
        try:
            await super()._connect()  # type: ignore[no-untyped-call]  # the library has none
        except BaseException:
            self._socket.close()
            raise

    def _connection_arguments(self) -> dict[str, Any]:
        tls = {"ssl": self._context, "server_hostname": self.host} if self._context else {}
        return {"sock": self._socket, **tls}


async def _connected(host: str, port: int, policy: NetworkPolicy) -> socket.socket:
    """A socket to the first address of a name that takes a connection, and may be called."""
    loop = asyncio.get_running_loop()
    make = socket_guard(policy, host)
    failure: OSError = OSError("the name has no address")
    for info in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        made = make(info)
        made.setblocking(False)
        try:
            await loop.sock_connect(made, info[4])
        except OSError as error:
            made.close()
            failure = error
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise failure


class _Asked(CredentialProvider):
    """Asks for the credential at each connection, so that a changed one is picked up."""

    def __init__(self, source: CredentialSource) -> None:
        self._source = source

    def get_credentials(self) -> NoReturn:
        raise NotImplementedError("connections here are asynchronous")

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        credential = await self._source()
        name = credential.get("username")
        word = "password" if "password" in credential else "token"
        password = credential.require(word).reveal()
        return (name.reveal(), password) if name else (password,)


class Link:
    """One connection that is signed in, for as long as its block lasts.

    Of the library only connections are used: its own transactions tell a lost answer and a
    watched key that changed by one error, and only the second of them is surely no write.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection

    async def ask(self, *commands: Command) -> list[Any]:
        """Send all, then read all answers; the first that is an error is raised."""
        await self._connection.send_packed_command(self._connection.pack_commands(commands))
        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(await self._connection.read_response())
            except told.ResponseError as refused:
                answers.append(refused)  # the others' answers follow
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def transact(self, *commands: Command) -> bool:
        """All of them or none. False: a watched key changed, so nothing was done."""
        *_, made = await self.ask(("MULTI",), *commands, ("EXEC",))
        for answer in made or ():
            if isinstance(answer, Exception):
                raise answer
        return made is not None


class RedisSession:
    """Connections to one server with one login. Safe for concurrent use."""

    def __init__(
        self, settings: RedisSettings, credential: CredentialSource, policy: NetworkPolicy
    ) -> None:
        self._closed = False
        self._pool = BlockingConnectionPool(
            connection_class=_GuardedConnection,
            max_connections=_CONNECTIONS,
            timeout=_TIMEOUT_S,
            policy=policy,
            context=settings.tls,
            host=settings.host,
            port=settings.port,
            db=settings.database,
            credential_provider=_Asked(credential),
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
            protocol=2,
        )

    async def aclose(self) -> None:
        """Close the connections; may run twice. Redis has no login that could be revoked."""
        if not self._closed:
            self._closed = True
            await self._pool.disconnect()

    async def ask(self, operation: str, shown: str | None, *commands: Command) -> list[Any]:
        """The answers to some commands, sent together; the first that is an error is raised:
        ValueError for a key that holds no hash, else a BackendError.

        Args:
            operation: list, metadata, read, write, delete or connect; for errors.
            shown: the remote path asked for, for errors.
        """
        async with self.linked(operation, shown) as link:
            return await link.ask(*commands)

    @asynccontextmanager
    async def linked(self, operation: str, shown: str | None) -> AsyncIterator[Link]:
        """A connection of one's own. What fails in the block is told in svsync's words, and
        the connection, whose next answer is then anybody's, is used no more."""
        if self._closed:
            raise BackendUnreachableError("the backend is closed", operation=operation, sent=False)
        async with _translated(operation, shown):
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                yield Link(connection)
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            finally:
                await self._pool.release(connection)


@asynccontextmanager
async def _translated(operation: str, shown: str | None) -> AsyncIterator[None]:
    try:
        yield
    except (told.RedisError, OSError, TimeoutError) as error:
        if str(error).startswith(_NO_HASH):
            raise ValueError("a key that holds no hash") from None
        raise _meant(error, operation, shown) from None


def _meant(error: Exception, operation: str, shown: str | None) -> BackendError:
    """What an error of the library means. `sent` is true where the server may have acted."""
    about: dict[str, Any] = {"operation": operation, "path": shown}
    where = f"{operation} of {shown}" if shown else operation
    if _refused_address(error):
        return BackendError(
            "the endpoint is at an address that may not be called: see allow_loopback and"
            " allowed_backend_hosts",
            code="endpoint_refused",
            sent=False,
            **about,
        )
    match error:
        case told.BusyLoadingError():
            return ThrottledError("the server is still loading its data", sent=False, **about)
        case told.AuthenticationError() | told.AuthorizationError():
            return LoginError(
                "the server refuses the login: check username and password", sent=False, **about
            )
        case told.NoPermissionError():
            return DeniedError(f"the server denies {where}", sent=False, **about)
        case told.ReadOnlyError() | told.OutOfMemoryError():
            return BackendError(
                f"the server takes no write now ({where}): it is a replica, or full",
                sent=False,
                **about,
            )
        case told.ResponseError() if str(error).startswith(_BUSY):
            return ThrottledError(f"the server asks to come again ({where})", sent=False, **about)
        case told.ResponseError():
            return BackendError(f"the server refuses {where}", sent=False, **about)
        case told.InvalidResponse():
            return ProtocolError("the endpoint does not speak as a Redis does", **about)
    return BackendUnreachableError("the server does not answer", **about)


def _refused_address(error: BaseException | None) -> bool:
    """The library wraps what a connect fails with, and keeps it as the context."""
    while error is not None:
        if isinstance(error, AddressRefusedError):
            return True
        error = error.__cause__ or error.__context__
    return False
