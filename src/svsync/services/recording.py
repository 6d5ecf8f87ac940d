"""Every access becomes a row of the audit log before anybody gets an answer.

Accesses that wait are taken together as soon as the batch before them is done, or takes
long: one alone leaves at once, and under load batches grow by themselves. A batch is two
statements, each committed by itself: what stands now of all that is asked, with the epoch
of who may do what; then the rows. So an answer costs a share of a commit, and a change of
rights is met by the next batch, on every replica, without anybody being told of it.

Each slot appends to chains of its own, one a tenant, so no writer waits for another and
the order of a chain is that of its commits. A commit of which nobody knows the outcome
ends its chains: nothing is numbered anew. What cannot be recorded is not answered, and
whoever waits is told so in time, also where the connection does not come back to rest.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from svsync.domain import audit
from svsync.domain.audit import Entry
from svsync.domain.errors import StoreUnavailableError, SvsyncError
from svsync.domain.ids import TenantId
from svsync.observe.logs import get_logger
from svsync.store import audit as store
from svsync.store.audit import Linked, linked
from svsync.store.database import Database, Line, Row

SLOTS: Final = 2
"""Batches under way at one time, where one takes long."""
LONG_S: Final = 0.02
"""Seconds after which the next batch does not wait any more for the one before it. Until then
what comes is gathered: two small batches cost nearly twice what one costs."""
BATCH: Final = 256
"""Accesses in one batch."""
ROOM: Final = 4096
"""Accesses that wait; beyond it they are told to come again."""
LOOK_S: Final = 5.0
"""Seconds in which what stands is known."""
MANY: Final = 10_000
"""Rows of this process after which a checkpoint does not wait for its time."""
IDLE: Final = timedelta(hours=6)
"""A chain without a row for so long is not gone on with: checkpoints look for its rows no
longer than a day."""
_END_S: Final = 2.0
_UNENDED: Final = 1_000
"""Ends of chains that could not be told yet; the oldest are left untold."""


class AuditUnavailableError(StoreUnavailableError):
    """The audit log takes no row, so nothing is answered."""

    code = "audit_unavailable"


class OverloadedError(StoreUnavailableError):
    """More wait here than can be answered soon."""

    code = "overloaded"


class Told:
    """What came of an access, told by a call as soon as it is known: of thousands a second none
    waits for another turn of the loop.

    Attributes:
        error: what kept it from being decided on or recorded.
        gone: called where nobody wants to know any more, before it is known.
    """

    __slots__ = ("_over", "_tell", "error", "gone")

    def __init__(self, tell: Callable[[], None]) -> None:
        """`tell` is called once at most, and raises nothing."""
        self._tell: Callable[[], None] | None = tell
        self._over = False
        self.error: BaseException | None = None
        self.gone: Callable[[], None] | None = None

    def done(self) -> bool:
        return self._over

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        gone, self.gone = self.gone, None
        over, self._over, self._tell = self._over, True, None
        if gone is not None and not over:
            gone()

    def set_result(self, result: None) -> None:
        # Let go: it may lead back to here, and what is left to Python's search for cycles
        # stays in memory until then, a value with it.
        tell, self._tell, self.gone = self._tell, None, None
        self._over = True
        if tell is not None:
            tell()

    def set_exception(self, error: BaseException) -> None:
        self.error = error
        self.set_result(None)


class Access(ABC):
    """One access: what it asks for, and what comes of it.

    Attributes:
        tenant: whose.
        path: what is looked up; empty: nothing is.
        version: of that, None for the current one.
        known: nonce of a ciphertext that is at hand, and `row_rev` of its secret: what has
            these is left out then.
        done: told what came of it; there from when it was taken in.
    """

    __slots__ = ("done", "known", "path", "tenant", "version")
    done: "asyncio.Future[None] | Told"

    def __init__(
        self,
        tenant: TenantId,
        path: str = "",
        version: int | None = None,
        known: tuple[bytes, int] | None = None,
    ) -> None:
        self.tenant = tenant
        self.path = path
        self.version = version
        self.known = known

    @abstractmethod
    def settle(self, row: Row) -> Entry | None:
        """Decide on what stands, and say what is to be recorded; None: nothing was decided.

        It awaits nothing. What it raises is what the caller of `submit` is told.
        """


class _Noted(Access):
    """An access that was decided on."""

    __slots__ = ("_entry",)

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.tenant)
        self._entry = entry

    def settle(self, row: Row) -> Entry | None:
        return self._entry


@dataclass(slots=True)
class _Chain:
    id: int
    seq: int
    hash: bytes
    at: datetime | None = None


_End = tuple[TenantId, int, int, bytes]


class _Slot:
    """One writer: a chain for each tenant, and one batch at a time."""

    def __init__(self, db: Database, writer: str, audit_timeout: float) -> None:
        self._db = db
        self._writer = writer
        self._timeout = audit_timeout
        self._chains: dict[TenantId, _Chain] = {}
        self._unended: deque[_End] = deque(maxlen=_UNENDED)

    async def append(self, line: Line, entries: Sequence[Entry], at: datetime) -> None:
        """Raises AuditUnavailableError: whether the rows are there nobody knows."""
        rows: list[Linked] = []
        touched = {entry.tenant for entry in entries}
        try:
            await self._leave_idle(line, touched, at)
            await self._open(line, touched)
            ends = {tenant: replace(self._chains[tenant]) for tenant in touched}
            for chain in ends.values():
                # A clock that was set back must not put a row before the one that it follows.
                chain.at = at if chain.at is None else max(at, chain.at)
            for entry in entries:
                chain = ends[entry.tenant]
                assert chain.at is not None
                chain.seq += 1
                chain.hash = audit.link(chain.hash, chain.id, chain.seq, chain.at, entry)
                rows.append(linked(entry, chain.id, chain.seq, chain.at, chain.hash))
            await store.record(line, rows, self._timeout)
        except BaseException as failed:
            self._give_up(touched)
            if isinstance(failed, SvsyncError):
                raise _not_recorded() from None
            raise
        self._chains.update(ends)

    async def _open(self, line: Line, tenants: Collection[TenantId]) -> None:
        new = [tenant for tenant in tenants if tenant not in self._chains]
        if not new:
            return
        made = await store.open_chains(line, new, self._writer, self._timeout)
        for tenant, number in made.items():
            start = audit.genesis(tenant, number, self._writer)
            self._chains[tenant] = _Chain(number, 0, start)

    def _give_up(self, tenants: Collection[TenantId]) -> None:
        """Their next rows open new chains. That these end is told later: whoever waits for an
        answer does not wait for that."""
        self._unended.extend(self._taken([tenant for tenant in tenants if tenant in self._chains]))

    async def tell_ends(self) -> None:
        """Tell of the chains that were given up, once the database answers again. What cannot
        be told is told next time; a chain without an end is one whose writer died."""
        if self._unended and await self._end(self._db, list(self._unended), "outcome_unknown"):
            self._unended.clear()

    async def _leave_idle(self, line: Line, tenants: Collection[TenantId], at: datetime) -> None:
        idle = [
            tenant
            for tenant in tenants
            if (chain := self._chains.get(tenant)) and chain.at and at - chain.at > IDLE
        ]
        if idle:
            await self._end(line, self._taken(idle), "idle")

    async def close(self) -> None:
        await self.tell_ends()
        await self._end(self._db, self._taken(list(self._chains)), "closed")

    def _taken(self, tenants: Sequence[TenantId]) -> list[_End]:
        chains = {tenant: self._chains.pop(tenant) for tenant in tenants}
        return [(tenant, chain.id, chain.seq, chain.hash) for tenant, chain in chains.items()]

    async def _end(self, db: Database | Line, ends: Sequence[_End], reason: str) -> bool:
        if ends:
            try:
                await store.end_chains(db, ends, reason, _END_S)
            except SvsyncError:
                return False
        return True


class Recorder:
    """Takes accesses, decides and records them in batches. Made by `open_recorder`."""

    def __init__(self, db: Database, writer: str, *, audit_timeout: float) -> None:
        self._db = db
        # Kept: to ask for the loop that runs is a system call, and there are thousands a second.
        self._loop = asyncio.get_running_loop()
        self._slots = [
            _Slot(db, f"{writer}:{number}", audit_timeout) for number in range(1, SLOTS + 1)
        ]
        self._waiting: OrderedDict[TenantId, deque[Access]] = OrderedDict()
        self._many = 0
        self._filled = asyncio.Event()
        self._turn = asyncio.Semaphore(1)
        self._timeout = audit_timeout
        self._written = 0
        self._due = asyncio.Event()
        self._closed = False

    async def record(self, entry: Entry) -> None:
        """Record one access that was decided on.

        Raises:
            AuditUnavailableError, OverloadedError, StoreUnavailableError: it is not recorded,
                or nobody knows; it must not be answered.
        """
        await self.submit(_Noted(entry))

    async def submit(self, access: Access) -> None:
        """Until the access was decided on, and that is recorded. Raises: as `record`, and what
        its `settle` raised."""
        done = self._loop.create_future()
        self.take_in(access, done)
        await done

    def take_in(self, access: Access, done: "asyncio.Future[None] | Told") -> None:
        """The same for whoever does not wait here; `done` ends as `submit` does.

        Raises AuditUnavailableError, OverloadedError: it is not taken in.
        """
        if self._closed:  # nobody would ever take it
            raise _stopping()
        if self._many >= ROOM:
            raise OverloadedError("more requests wait than can be answered soon: try again")
        access.done = done
        self._waiting.setdefault(access.tenant, deque()).append(access)
        self._many += 1
        self._filled.set()

    async def wait_for_rows(self, seconds: float) -> bool:
        """True once so many rows were committed that a checkpoint is due, False after so many
        seconds without. Then it is counted anew."""
        try:
            await asyncio.wait_for(self._due.wait(), seconds)
        except TimeoutError:
            return False
        finally:
            self._written = 0
            self._due.clear()
        return True

    async def serve(self) -> None:
        """Work until cancelled; whatever waits then, or comes after, is refused."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for slot in self._slots:
                    tasks.create_task(self._keep_flushing(slot))
        finally:
            self._closed = True
            _fail(self._take(self._many), _stopping())

    async def close(self) -> None:
        """End the chains."""
        for slot in self._slots:
            await slot.close()

    async def _keep_flushing(self, slot: _Slot) -> None:
        while True:
            await self._filled.wait()
            await self._turn.acquire()
            batch = self._take(BATCH)
            if not batch:
                self._filled.clear()
                self._turn.release()
                continue
            try:
                with self._in_turn():
                    await self._flush(slot, batch)
                await slot.tell_ends()
            except SvsyncError as error:
                _fail(batch, error)
            except Exception as bug:  # noqa: BLE001 - one batch fails, not the log
                get_logger().error("batch_failed", exc_info=bug)
                _fail(batch, _not_recorded())
            except BaseException:
                _fail(batch, _stopping())
                raise
            del batch  # a value that was read is not kept until the next one is

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """The next batch may begin once this one is done, or has taken long."""
        given = ExitStack()
        given.callback(self._turn.release)
        late = self._loop.call_later(LONG_S, given.close)
        try:
            yield
        finally:
            late.cancel()
            given.close()

    def _take(self, most: int) -> list[Access]:
        """Of each tenant in turn, so that none waits for the storm of another."""
        taken: list[Access] = []
        while self._waiting and len(taken) < most:
            tenant, queue = self._waiting.popitem(last=False)
            access = queue.popleft()
            if queue:
                self._waiting[tenant] = queue
            self._many -= 1
            if not access.done.done():  # its caller has not gone
                taken.append(access)
        return taken

    async def _flush(self, slot: _Slot, batch: Sequence[Access]) -> None:
        async with AsyncExitStack() as stack:
            unknown = StoreUnavailableError("the database does not answer")
            with _at_most(LOOK_S, batch, unknown):
                line = await stack.enter_async_context(self._db.line(LOOK_S))
                asked = [(a.tenant, a.path, a.version, *(a.known or (None, None))) for a in batch]
                rows = await store.look(line, asked, LOOK_S)
            settled, entries = _settled(batch, rows)
            if entries:
                with _at_most(self._timeout, settled, _not_recorded()):
                    await slot.append(line, entries, rows[0]["at"])
                self._written += len(entries)
                if self._written >= MANY:
                    self._due.set()
            for access in settled:
                if not access.done.done():
                    access.done.set_result(None)
            # What has no row is of a tenant that is not there.
            _fail(batch, StoreUnavailableError("the tenant is not there any more"))


def _settled(batch: Sequence[Access], rows: Sequence[Row]) -> tuple[list[Access], list[Entry]]:
    """Those that were decided on, and what is to be recorded; who is refused is told so."""
    settled: list[Access] = []
    entries: list[Entry] = []
    for row in rows:
        access = batch[row["n"] - 1]
        if access.done.done():  # its caller has gone, or was told that it took too long
            continue
        try:
            entry = access.settle(row)
        except SvsyncError as refused:
            _fail([access], refused)
            continue
        settled.append(access)
        if entry is not None:
            entries.append(entry)
    return settled, entries


def _not_recorded() -> AuditUnavailableError:
    return AuditUnavailableError(
        "the access could not be recorded, so it is not answered: try again"
    )


def _stopping() -> AuditUnavailableError:
    return AuditUnavailableError("svsync is stopping")


@contextmanager
def _at_most(seconds: float, batch: Sequence[Access], error: SvsyncError) -> Iterator[None]:
    """Whoever waits is told after so many seconds. The slot goes on until its connection is
    at rest, which may take longer where the database hangs."""
    late = asyncio.get_running_loop().call_later(seconds, _fail, batch, error)
    try:
        yield
    finally:
        late.cancel()


def _fail(batch: Sequence[Access], error: SvsyncError) -> None:
    for access in batch:
        if not access.done.done():
            access.done.set_exception(error)


@asynccontextmanager
async def open_recorder(
    db: Database, writer: str, *, audit_timeout: float
) -> AsyncIterator[Recorder]:
    """The audit log of this process; its chains end when the block does.

    Args:
        writer: the process, as host and number.
        audit_timeout: seconds in which a batch of rows must be committed.
    """
    recorder = Recorder(db, writer, audit_timeout=audit_timeout)
    serving = asyncio.create_task(recorder.serve(), name="audit")
    try:
        yield recorder
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await recorder.close()
