"""Several processes of the service on one port, and the one that looks after them.

The first has all the roles that are asked for, the others answer the API alone: so each
change feed has one listener, and each is a process of the service as any other. The first
one starts alone, and makes the schema, the keys and an embedded PostgreSQL where there are
none; the others follow. The kernel deals new connections out among those that listen
(SO_REUSEPORT).

Each tells the parent how it is by the protocol of sd_notify(3), at a socket of its own, as
it would tell a service manager; the parent tells the service manager of all of them. One
that ends is started again, at once and then less and less often; one whose loop is stuck,
where a watchdog is asked for, is killed first. They end with the parent, whatever ends it.
"""

import asyncio
import os
import secrets
import signal
import socket
import struct
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

from svsync.config.model import Settings
from svsync.daemon.beside import VARIABLE, Beside
from svsync.daemon.systemd import Notify
from svsync.domain.errors import ConfigError, SetupError, SvsyncError
from svsync.domain.roles import Role
from svsync.observe.logs import get_logger

AGAIN_S: Final = 0.5
"""Seconds until one that ended is started again; twice as many each time after that."""
LONGEST_S: Final = 30.0
STEADY_S: Final = 60.0
"""Seconds after which one that ended is started at once again."""
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid (unix(7))

Argv = Callable[[Collection[Role]], Sequence[str]]
"""The command line of a process with these roles."""
LoadSettings = Callable[[], Settings]


async def serve_processes(
    settings: Settings,
    load: LoadSettings,
    *,
    many: int,
    roles: Collection[Role],
    argv: Argv,
    environ: Mapping[str, str] | None = None,
    told: Callable[[str], None],
) -> int:
    """Run so many processes until SIGTERM or SIGINT; the exit code. SIGHUP is for them all.

    `told` is called with the address once all of them serve.

    Raises:
        SetupError: the address cannot be listened on.
        ConfigError: there are not enough ports for the metrics of each.
    """
    environ = os.environ if environ is None else environ
    with ExitStack() as stack:
        port = stack.enter_context(_reserved(settings.bind_address)).getsockname()[1]
        host = settings.bind_address.rpartition(":")[0]
        metrics = _metrics_addresses(settings.metrics_address, many)
        children = []
        for number in range(many):
            others = {at for at in metrics if at is not None and at != metrics[number]}
            child = _Child(
                number,
                argv(roles if number == 0 else (Role.API,)),
                {
                    **environ,
                    "BIND_ADDRESS": f"{host}:{port}",
                    "METRICS_ADDRESS": metrics[number] or "off",
                    VARIABLE: Beside(os.getpid(), frozenset(map(_split, others))).written(),
                },
            )
            children.append(child)
            stack.callback(child.signs.close)
        scheme = "http" if settings.tls_cert_file is None else "https"
        parent = _Parent(children, Notify(environ), settings, load)
        return await parent.run(lambda: told(f"{scheme}://{host}:{port}"))


class _Signs:
    """The socket at which one process tells how it is."""

    def __init__(self) -> None:
        name = f"svsync-{secrets.token_hex(16)}"
        self.address = f"@{name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        # Any process of this machine may send to an abstract socket: the kernel says who does.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0{name}")

    def fileno(self) -> int:
        return self._socket.fileno()

    def of(self, pid: int) -> Iterator[tuple[str, str]]:
        """What that process has told since: names and values."""
        with suppress(BlockingIOError):
            while True:
                data, extra, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(12))
                senders = [_CREDENTIALS.unpack(held)[0] for _, _, held in extra if len(held) == 12]
                if senders == [pid]:
                    for line in data.decode(errors="replace").splitlines():
                        name, _, value = line.partition("=")
                        yield name, value

    def close(self) -> None:
        self._socket.close()


@dataclass(eq=False)
class _Child:
    """One process, and whoever takes its place.

    Attributes:
        ready: set while it serves.
        reloading: it was told to read its configuration anew, and has not yet.
        seen: when it gave its last sign of life, in monotonic seconds.
    """

    number: int
    argv: Sequence[str]
    environ: Mapping[str, str]
    signs: _Signs = field(default_factory=_Signs)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    process: Process | None = None
    reloading: bool = False
    seen: float = 0.0
    status: str = ""

    async def run(self) -> int:
        """Start it, and wait for its end; how it ended."""
        self.process = await asyncio.create_subprocess_exec(
            *self.argv,
            stdin=DEVNULL,
            env={**self.environ, "NOTIFY_SOCKET": self.signs.address},
            # Ctrl-C at a terminal is for the parent, which tells them once.
            start_new_session=True,
        )
        try:
            return await self.process.wait()
        finally:
            self.ready.clear()
            self.reloading = False
            self.process = None

    def tell(self, number: int) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


class _Parent:
    def __init__(
        self,
        children: Sequence[_Child],
        notify: Notify,
        settings: Settings,
        load: LoadSettings,
    ) -> None:
        self._children = children
        self._notify = notify
        self._settings = settings
        self._load = load
        self._up = False
        self._reloading = False
        self._signals: list[int] = []
        self._stop = asyncio.Event()
        self._news = asyncio.Event()

    async def run(self, told: Callable[[], None]) -> int:
        """All of them, until they are told to end; or until one does before all are up."""
        self._listen()
        kept: list[asyncio.Task[int]] = []
        alive: asyncio.Task[None] | None = None
        try:
            for some in (self._children[:1], self._children[1:]):
                kept += [asyncio.create_task(self._keep(child)) for child in some]
                if not await self._are_ready(some, kept):
                    break
            else:
                self._up = True
                self._notify.ready()
                get_logger().info("processes_up", count=len(self._children))
                told()
                if self._notify.watchdog_s is not None:
                    alive = asyncio.create_task(self._keep_alive(self._notify.watchdog_s))
                await self._stop.wait()
        finally:
            self._stop.set()
            self._notify.stopping()
            for child in self._children:
                child.tell(signal.SIGTERM)
            if alive is not None:
                alive.cancel()
            codes = await asyncio.gather(*kept)
            self._deafen()
        return self._code(codes)

    def _code(self, codes: Sequence[int]) -> int:
        if len(self._signals) > 1 or (self._signals and not self._up):
            return 128 + self._signals[0]
        return next((code if code > 0 else 1 for code in codes if code), 0)

    # --- one process ------------------------------------------------------------------

    async def _keep(self, child: _Child) -> int:
        """Start it, and again whenever it has ended, until all are to end; how it ended."""
        quick = 0
        while True:
            began = time.monotonic()
            code = await child.run()
            self._news.set()
            if self._stop.is_set() or not self._up:
                return code
            quick = 0 if time.monotonic() - began >= STEADY_S else quick + 1
            delay = min(AGAIN_S * 2 ** max(0, quick - 1), LONGEST_S)
            get_logger().error("process_ended", count=child.number + 1, status=code, delay=delay)
            self._say_status()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay)
                return 0

    async def _are_ready(self, some: Sequence[_Child], kept: Sequence[asyncio.Task[int]]) -> bool:
        """Wait until these serve; False: one has ended, or all are to end."""
        while not all(child.ready.is_set() for child in some):
            self._news.clear()
            await self._news.wait()
            await asyncio.sleep(0)  # whoever has ended is done by then
            if self._stop.is_set() or any(task.done() for task in kept):
                return False
        return True

    async def _keep_alive(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            self._notify.alive()
            for child in self._children:
                if child.ready.is_set() and time.monotonic() - child.seen > 2 * every_s:
                    get_logger().error("process_stuck", count=child.number + 1)
                    child.tell(signal.SIGKILL)

    # --- what comes in ----------------------------------------------------------------

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for child in self._children:
            loop.add_reader(child.signs.fileno(), self._take, child)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _deafen(self) -> None:
        loop = asyncio.get_running_loop()
        for child in self._children:
            loop.remove_reader(child.signs.fileno())

    def _end(self, number: int) -> None:
        """The first signal ends them in order, a second one where they stand."""
        self._signals.append(number)
        if self._stop.is_set():
            for child in self._children:
                child.tell(signal.SIGTERM)
        self._stop.set()
        self._news.set()

    def _reload(self) -> None:
        """Those that serve read their configuration anew; whoever starts does so anyway."""
        self._notify.reloading()
        self._reloading = True
        for child in self._children:
            if child.ready.is_set():
                child.reloading = True
                child.tell(signal.SIGHUP)
        with suppress(SvsyncError):  # the processes say what is wrong with it
            wanted = self._load()
            names = ("bind_address", "metrics_address")
            if changed := [n for n in names if getattr(wanted, n) != getattr(self._settings, n)]:
                get_logger().warning(
                    "restart_needed",
                    detail=f"changed, and taken at the next start: {', '.join(changed)}",
                )
        self._reloaded()

    def _reloaded(self) -> None:
        if self._reloading and not any(child.reloading for child in self._children):
            self._reloading = False
            self._notify.ready()

    def _take(self, child: _Child) -> None:
        if child.process is None:
            return
        for name, value in child.signs.of(child.process.pid):
            if name == "READY":
                child.ready.set()
                child.reloading = False
                child.seen = time.monotonic()
                self._reloaded()
            elif name == "WATCHDOG":
                child.seen = time.monotonic()
            elif name == "STATUS" and child.status != value:
                child.status = value
                self._say_status()
        self._news.set()

    def _say_status(self) -> None:
        if self._up:
            up = sum(child.ready.is_set() for child in self._children)
            all_of = f"{up} of {len(self._children)} processes up"
            self._notify.status(f"{all_of}; {self._children[0].status}")


# --- addresses ------------------------------------------------------------------------


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _reserved(address: str) -> socket.socket:
    """A socket that holds the port, and never listens.

    Raises SetupError: somebody else listens there, or nobody can.
    """
    host, port = _split(address)
    try:
        family, kind, proto, _, at = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Sharing a port is for processes of one user, of whatever service: ask first whether
        # it is free to somebody who does not share.
        with socket.socket(family, kind, proto) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(at)
            at = alone.getsockname()
        holder = socket.socket(family, kind, proto)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(at)
        except OSError:
            holder.close()
            raise
    except OSError as error:
        raise SetupError(
            f"nobody can listen on {address} ({error.strerror or 'no reason'}): set bind_address"
            " to an address of this machine, and to a port that is free",
            code="cannot_listen",
        ) from None
    return holder


def _metrics_addresses(address: str | None, many: int) -> list[str | None]:
    """For each process: the port that is configured, and those that follow it.

    Raises ConfigError where there are none.
    """
    if address is None:
        return [None] * many
    host, _, port = address.rpartition(":")
    first = int(port)
    if first + many - 1 > 65535:
        raise ConfigError(
            f"metrics_address {address} leaves no ports for {many} processes: each has the next"
            " one; set a lower port",
            where="metrics_address",
        )
    if first:
        return [f"{host}:{first + number}" for number in range(many)]
    with ExitStack() as stack:  # all at once, so that no two are the same
        taken = [stack.enter_context(socket.socket(_family(host))) for _ in range(many)]
        for one in taken:
            one.bind((host.strip("[]"), 0))
        return [f"{host}:{one.getsockname()[1]}" for one in taken]


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
