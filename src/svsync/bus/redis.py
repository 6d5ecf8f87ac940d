"""Talking to Redis or Valkey: which server to speak with, what is asked, what went wrong.

Nobody else knows the library, and of the library only its connections are used: one
task owns each of them, and nothing is tried twice behind its back.

The keys of all rates are in one slot of a cluster, and publishing reaches all of it.
So in a cluster, too, there is one server to speak with: the owner of that slot.
"""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from redis import exceptions as redis_errors
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)

from svsync.bus.address import Host, Login, RedisAddress, Shape

Command = tuple[str | int, ...]

_TURN: Final = "svsync:{turn}:"

# The turn after the last one that was booked, and one interval later the next may begin.
# A booking farther ahead than anybody waits means that the clock went back, as it may
# when another server takes over: it counts no more. Times are in microseconds.
_BOOK_TURN: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local due = tonumber(redis.call('GET', KEYS[1]) or now) or now
if due > now + tonumber(ARGV[2]) then due = 0 end
due = math.max(due, now + tonumber(ARGV[3]))
local next = due + tonumber(ARGV[1])
redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000) + 1)
return due - now
"""
_LONGEST_QUEUE_US: Final = 60_000_000
"""Bookings count up to a minute ahead, and ten turns more where a rate is slow."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long what takes. Durations in seconds.

    Attributes:
        connect: for a connection to stand.
        answer: for the answers to one round trip; longer is as good as away.
        beat: between two proofs that this process is heard and hears.
        first, longest: bounds of the pause before the next attempt, which doubles.
        confirm: between two questions to the sentinels who the master is.
        start: that opening waits for the first attempt to end.
    """

    connect: float = 2.0
    answer: float = 1.0
    beat: float = 1.0
    first: float = 0.05
    longest: float = 5.0
    confirm: float = 10.0
    start: float = 1.0


def booking(key: str, per_second: float, alone: float = 0.0) -> Command:
    """Book the next turn of a rate; answered by the microseconds until it is due.

    It is not due before `alone` seconds have passed: for so long the caller has turns
    that it took when nobody could be asked.
    """
    interval = max(1, math.ceil(1e6 / per_second))
    longest = _LONGEST_QUEUE_US + 10 * interval
    return ("EVAL", _BOOK_TURN, 1, _TURN + key, interval, longest, math.ceil(alone * 1e6))


class LostError(Exception):
    """The others are away for a reason that no library tells: `reason`, in a word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Link:
    """One connection that is signed in; made by `Servers.linked`, used by one task."""

    def __init__(self, connection: AbstractConnection, answer: float) -> None:
        self._connection = connection
        self._answer = answer

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send all, then read all answers; the first that is an error is raised.

        Raises TimeoutError when that takes too long; the connection is of no use then.
        """
        packed = self._connection.pack_commands(commands)
        async with asyncio.timeout(self._answer):
            await self._connection.send_packed_command(packed)
            return [await self._connection.read_response() for _ in commands]

    async def next_message(self) -> Any:
        """What comes next of that to which this connection is subscribed."""
        return await self._connection.read_response(timeout=math.inf)


class Servers:
    """The servers of an address: which of them to speak with, and how."""

    def __init__(self, address: RedisAddress, pace: Pace) -> None:
        self._address = address
        self._pace = pace

    async def find(self) -> Host:
        """The server that takes bookings. Raises RedisError or LostError."""
        match self._address.shape:
            case Shape.SINGLE:
                return self._address.hosts[0]
            case Shape.SENTINEL:
                return await self._first_answer(self._master_by)
            case Shape.CLUSTER:
                return await self._first_answer(self._owner_by)

    async def confirm(self, host: Host) -> None:
        """Return only where nobody need be asked; else raise once the master is another.

        A master that was cut off goes on answering those who are cut off with it.
        """
        while self._address.shape is Shape.SENTINEL:
            await asyncio.sleep(self._pace.confirm)
            try:
                master = await self.find()
            except (redis_errors.RedisError, LostError, TimeoutError):
                continue  # sentinels that are away change nothing
            if master != host:
                raise LostError("master_moved")

    @asynccontextmanager
    async def linked(self, host: Host, *, sentinel: bool = False) -> AsyncIterator[Link]:
        """A connection that is signed in and ends with the block."""
        login = self._address.sentinel_login if sentinel else self._address.login
        connection = self._connection(host, login, 0 if sentinel else self._address.database)
        try:
            async with asyncio.timeout(self._pace.connect):
                await connection.connect()  # type: ignore[no-untyped-call]
            yield Link(connection, self._pace.answer)
        finally:
            with suppress(redis_errors.RedisError, OSError):
                await connection.disconnect(nowait=True)

    def _connection(self, host: Host, login: Login, database: int) -> AbstractConnection:
        shared: dict[str, Any] = {
            "db": database,
            "username": login.user,
            "password": login.password.reveal() if login.password else None,
            "socket_connect_timeout": self._pace.connect,
            # With a limit of its own the library waits by asyncio.wait_for, which in Python
            # 3.11 may swallow that the task is cancelled. The limits are set around it.
            "socket_timeout": None,
            "protocol": 2,  # understood by every server; pushes come on a connection of their own
            "driver_info": None,
        }
        if not host.port:
            return UnixDomainSocketConnection(path=host.name, **shared)
        if self._address.tls is None:
            return Connection(host=host.name, port=host.port, **shared)
        shared |= self._address.tls
        return SSLConnection(host=host.name, port=host.port, **shared)

    async def _first_answer(self, ask: Callable[[Host], Awaitable[Host]]) -> Host:
        """What the first of the hosts says that can be asked."""
        failed: Exception | None = None
        for host in self._address.hosts:
            try:
                return await ask(host)
            except (redis_errors.RedisError, LostError, TimeoutError) as e:
                failed = e
        assert failed is not None
        raise failed

    async def _master_by(self, sentinel: Host) -> Host:
        async with self.linked(sentinel, sentinel=True) as link:
            question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.master)
            match await link.ask([question]):
                case [[bytes(name), bytes(port)]]:
                    return Host(name.decode(), int(port))
        raise LostError("master_unknown")

    async def _owner_by(self, node: Host) -> Host:
        async with self.linked(node) as link:
            try:
                await link.ask([booking("owner", 1e6)])
            except redis_errors.MovedError as e:
                # `SLOT HOST:PORT`, without the host where it is the one that was asked.
                name, _, port = str(e).split()[-1].rpartition(":")
                return Host(name.strip("[]") or node.name, int(port))
        return node


def reason_of(error: BaseException) -> str:
    """A word for what went wrong; what the library says in full may quote the password."""
    match error:
        case LostError():
            return error.reason
        case redis_errors.AuthenticationError():
            return "login_refused"
        case redis_errors.NoPermissionError():
            return "not_permitted"
        case redis_errors.ReadOnlyError():
            return "read_only"
        case redis_errors.OutOfMemoryError():
            return "out_of_memory"
        case redis_errors.AskError() | redis_errors.ClusterDownError():
            return "cluster_changing"
        case redis_errors.TimeoutError() | TimeoutError():
            return "no_answer"
        case redis_errors.ResponseError():
            return "refused"
        case redis_errors.ConnectionError():
            cause = error.__context__
            return "tls_failed" if isinstance(cause, ssl.SSLError) else "no_connection"
    return "unexpected"
