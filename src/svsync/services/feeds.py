"""Who hears what: change feeds on one side, backends that wait for news on the other.

Backends that name the same address share one feed. What it tells is mapped by namespace
and by each backend's own rules, gathered over a short window, and handed over as the
paths of one event; too many of them, or a gap, are one full run (`owed`). Nothing here is
kept: a notice is a hint, and the schedule is what finds every change in the end.
"""

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from svsync.domain.errors import SvsyncError
from svsync.domain.federation import BackendSpec, Mode
from svsync.domain.feeds import HTTP_FEEDS
from svsync.domain.ids import BackendId, RemotePath, TenantId
from svsync.domain.mapping import Mapped, RuleSet
from svsync.domain.readers import plain_namespace
from svsync.observe.logs import get_logger
from svsync.ports import ChangeFeed, Notice
from svsync.services.owed import WINDOW_S, Owed, TakeNotice

KEEPING_S: Final = 600.0
"""Seconds for which a place that keeps messages surely keeps them: Pub/Sub's shortest time.
After a longer absence, anything may have changed."""

_SHORTEST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0

Entry = Mapping[str, object]
OpenFeed = Callable[[Entry, BackendSpec, TenantId], ChangeFeed]
"""Opens the feed of one entry of a backend's `events`. Raises ConfigError."""


@dataclass(frozen=True, slots=True)
class Listening:
    """A backend that may have feeds; `rules` are those it is synced by."""

    tenant: TenantId
    spec: BackendSpec
    rules: RuleSet

    @property
    def key(self) -> tuple[TenantId, BackendId]:
        return self.tenant, self.spec.id

    def syncs(self, rule: int) -> bool:
        return self.spec.for_rule(self.rules.spec(rule)).mode is Mode.SYNC

    def beginnings(self) -> Iterator[str]:
        """The first segments of the remote paths that it syncs; empty: any."""
        for rule in self.rules.rules:
            if not rule.spec.exclude and self.syncs(rule.index):
                first, slash, _ = rule.literal.partition("/")
                yield first if slash else ""


@dataclass(frozen=True, slots=True)
class FeedState:
    """What is to be said of one feed.

    Attributes:
        listen: the address that it listens on; empty where it goes to its backend.
        problem: why it does not listen now; empty when it does.
        heard: notices that named a path. `unmapped`: those that no backend federates.
        gaps: times at which anything may have changed.
        invalid, dropped: as the feed counts them, since this process began.
    """

    feed: str
    listen: str
    backends: tuple[BackendId, ...]
    problem: str
    heard: int
    unmapped: int
    gaps: int
    invalid: int
    dropped: int


@dataclass(slots=True, eq=False)
class _Source:
    """One feed and the backends that share it.

    Attributes:
        listens: whether it did, since it was opened this time.
        left_at: when it last stopped listening; None: it never did in this process.
    """

    feed: str
    entry: Entry
    members: tuple[Listening, ...] = ()
    index: dict[tuple[str, str], list[Listening]] = field(default_factory=dict)
    problem: str = "it was not opened yet"
    heard: int = 0
    unmapped: int = 0
    gaps: int = 0
    invalid: int = 0
    dropped: int = 0
    listens: bool = False
    left_at: float | None = None
    opened: ChangeFeed | None = None

    @property
    def listen(self) -> str:
        return str(self.entry.get("listen", ""))

    @property
    def state(self) -> FeedState:
        return FeedState(
            feed=self.feed,
            listen=self.listen,
            backends=tuple(member.spec.id for member in self.members),
            problem=self.problem,
            heard=self.heard,
            unmapped=self.unmapped,
            gaps=self.gaps,
            invalid=self.invalid + (self.opened.invalid if self.opened else 0),
            dropped=self.dropped + (self.opened.dropped if self.opened else 0),
        )

    def closed(self) -> None:
        """Keep the counts of a feed that ended."""
        if self.opened is not None:
            self.invalid += self.opened.invalid
            self.dropped += self.opened.dropped
            self.opened = None

    def serve(self, members: Iterable[Listening]) -> None:
        """From now on these backends hear what it tells."""
        self.members = tuple(members)
        index = defaultdict(list)
        for member in self.members:
            namespace = plain_namespace(str(member.spec.config.get("namespace", "")))
            for first in set(member.beginnings()):
                index[namespace, first].append(member)
        self.index = dict(index)

    def who_syncs(self, namespace: str, path: RemotePath) -> Iterator[tuple[Listening, RemotePath]]:
        """Whose secret this is, and how each of them names it.

        What lies in the namespace `a/b` may be reached from there, from `a` as
        `b/PATH`, and from the root as `a/b/PATH`.
        """
        namespace = plain_namespace(namespace)
        outer = namespace.split("/") if namespace else []
        for depth in range(len(outer) + 1):
            remote = RemotePath("/".join((*outer[depth:], path)))
            for beginning in (remote.partition("/")[0], ""):
                for member in self.index.get(("/".join(outer[:depth]), beginning), ()):
                    mapped = member.rules.to_local(remote)
                    if isinstance(mapped, Mapped) and member.syncs(mapped.rule):
                        yield member, remote


class Feeds:
    """All change feeds of this process. `follow` says whose; `run` runs them.

    Args:
        open_feed: as the registry has it.
        take_notice: called once a window and backend, never twice at a time. After an
            error of the store it is called again with what is owed by then.
        sleep: for the window, and between two tries of what failed.
        spread: 0 to 1; keeps feeds that lost one server from coming back at once.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        open_feed: OpenFeed,
        take_notice: TakeNotice,
        *,
        window_s: float = WINDOW_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        spread: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_feed = open_feed
        self._sleep = sleep
        self._spread = spread
        self._clock = clock
        self._sources: dict[str, _Source] = {}
        self._changed = asyncio.Event()
        self._owed = Owed(take_notice, window_s=window_s, sleep=sleep)

    def follow(self, backends: Iterable[Listening]) -> None:
        """These backends, and no others, are listened for; may be called at any time.

        A feed that goes on is not interrupted. A backend that joins one is told that
        anything may have changed, since it did not hear what came before.
        """
        wanted: dict[str, list[Listening]] = defaultdict(list)
        entries: dict[str, Entry] = {}
        for backend in backends:
            if not list(backend.beginnings()):
                continue  # all of it is proxied: nothing here could be out of date
            for entry in backend.spec.events:
                if entry.get("feed") in HTTP_FEEDS:
                    continue  # it comes to whoever answers the API (`notices`)
                key = _address(entry, backend)
                entries[key] = entry
                wanted[key].append(backend)
        for key in self._sources.keys() - wanted.keys():
            del self._sources[key]
        for key, members in wanted.items():
            source = self._sources.get(key)
            if source is None:
                source = _Source(str(entries[key]["feed"]), entries[key])
                self._sources[key] = source
            else:
                known = {member.key for member in source.members}
                for member in members:
                    if member.key not in known:
                        self._owed.owe(member.key, source.feed, None)
            source.serve(members)
        self._changed.set()

    def states(self) -> tuple[FeedState, ...]:
        """How each feed stands, for status and metrics."""
        return tuple(source.state for source in self._sources.values())

    async def run(self) -> None:
        """Run the feeds that are followed, until cancelled."""
        running: dict[_Source, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._owed.hand_over())
            while True:
                await self._changed.wait()
                self._changed.clear()
                followed = set(self._sources.values())
                ended = [running.pop(source) for source in running.keys() - followed]
                for task in ended:
                    task.cancel()
                if ended:
                    # Their addresses are free before others may take them.
                    await asyncio.wait(ended)
                for source in followed - running.keys():
                    running[source] = tasks.create_task(self._listen(source))

    # --- from feed to backend -----------------------------------------------------

    async def _listen(self, source: _Source) -> None:
        """Keep one feed open. Why it is not is told once, and it is tried again."""
        wait = _SHORTEST_WAIT
        while True:
            source.listens = False
            try:
                first = source.members[0]
                source.opened = self._open_feed(source.entry, first.spec, first.tenant)
                await source.opened.listen(_Told(self, source))
            except SvsyncError as error:
                if str(error) != source.problem:
                    get_logger().warning(
                        "change_feed_failed",
                        feed=source.feed,
                        listen=source.listen,
                        detail=str(error),
                    )
                source.problem = str(error)
            except Exception as bug:  # noqa: BLE001 - a defect in one feed ends no other, nor the service
                get_logger().error("change_feed_broke", feed=source.feed, exc_info=bug)
                source.problem = f"it broke in a way it should not ({type(bug).__name__})"
            finally:
                source.closed()
            if source.listens:
                source.left_at = self._clock()
                wait = _SHORTEST_WAIT
            await self._sleep(wait * (0.5 + self._spread() / 2))
            wait = min(2 * wait, _LONGEST_WAIT)

    def goes_on(self, source: _Source) -> None:
        """See `ports.Tell.listening`."""
        if not source.listens:
            left_at = source.left_at
            if left_at is None or self._clock() - left_at > KEEPING_S:
                self.tell(source, Notice("", None))
        source.listens, source.problem = True, ""

    def tell(self, source: _Source, notice: Notice) -> None:
        """See `ports.Tell`."""
        source.listens, source.problem = True, ""
        if notice.path is None:
            source.gaps += 1
            for member in source.members:
                self._owed.owe(member.key, source.feed, None)
            return
        source.heard += 1
        found = list(source.who_syncs(notice.namespace, notice.path))
        for member, path in found:
            self._owed.owe(member.key, source.feed, (path,))
        source.unmapped += not found

    async def kept(self, source: _Source) -> None:
        """See `ports.Tell`."""
        await self._owed.kept(member.key for member in source.members)


@dataclass(frozen=True, slots=True)
class _Told:
    """See `ports.Tell`."""

    feeds: Feeds
    source: _Source

    def __call__(self, notice: Notice, /) -> None:
        self.feeds.tell(self.source, notice)

    def listening(self) -> None:
        self.feeds.goes_on(self.source)

    async def kept(self) -> None:
        await self.feeds.kept(self.source)


def _address(entry: Entry, backend: Listening) -> str:
    """What tells two feeds apart: what they listen on, or where they go and as whom.

    Two backends of one login that name one queue share the feed: of two that take from
    it, each would hear half.
    """
    if "listen" in entry:
        return json.dumps([entry["feed"], entry["listen"]])
    spec = backend.spec
    whose = [backend.tenant, spec.type, spec.managed_by, dict(spec.config), dict(entry)]
    return json.dumps(whose, sort_keys=True)
