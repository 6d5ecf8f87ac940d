"""Who hears what: change feeds on one side, backends that wait for news on the other.

Backends that name the same address share one feed. What it tells is mapped by namespace
and by each backend's own rules, gathered over a short window, and handed over as the
paths of one event; too many of them, or a gap, are one full run. Nothing here is kept:
a notice is a hint, and the schedule is what finds every change in the end.
"""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from svsync.domain.errors import StoreError, SvsyncError
from svsync.domain.federation import BackendSpec, Mode
from svsync.domain.feeds import HTTP_FEEDS, MOST_PATHS
from svsync.domain.ids import BackendId, RemotePath, TenantId
from svsync.domain.mapping import Mapped, RuleSet
from svsync.observe.logs import get_logger
from svsync.ports import ChangeFeed, Notice

WINDOW_S: Final = 0.1
"""Seconds from the first notice of a burst to its handing over."""

_SHORTEST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0


Entry = Mapping[str, object]
OpenFeed = Callable[[Entry, BackendSpec, TenantId], ChangeFeed]
"""Opens the feed of one entry of a backend's `events`. Raises ConfigError."""

TakeNotice = Callable[[TenantId, BackendId, Collection[RemotePath] | None, str], Awaitable[None]]
"""Asks for a run of these remote paths, or of all (None), because this feed told so.

Raises StoreError where it could not be written down; a backend that is gone, or paused,
is no error."""


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
    """One feed and the backends that share it."""

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
            namespace = str(member.spec.config.get("namespace", "")).strip("/")
            for first in set(member.beginnings()):
                index[namespace, first].append(member)
        self.index = dict(index)

    def who_syncs(self, namespace: str, path: RemotePath) -> Iterator[tuple[Listening, RemotePath]]:
        """Whose secret this is, and how each of them names it.

        What lies in the namespace `a/b` may be reached from there, from `a` as
        `b/PATH`, and from the root as `a/b/PATH`.
        """
        outer = namespace.split("/") if namespace else []
        for depth in range(len(outer) + 1):
            remote = RemotePath("/".join((*outer[depth:], path)))
            for beginning in (remote.partition("/")[0], ""):
                for member in self.index.get(("/".join(outer[:depth]), beginning), ()):
                    mapped = member.rules.to_local(remote)
                    if isinstance(mapped, Mapped) and member.syncs(mapped.rule):
                        yield member, remote


@dataclass(slots=True)
class _Owed:
    """What a backend is to be told: some paths, or (None) that anything may have changed."""

    feed: str
    paths: set[RemotePath] | None = field(default_factory=set)

    def add(self, paths: Iterable[RemotePath] | None) -> None:
        if paths is None or self.paths is None:
            self.paths = None
            return
        self.paths.update(paths)
        if len(self.paths) > MOST_PATHS:
            self.paths = None


class Feeds:
    """All change feeds of this process. `follow` says whose; `run` runs them.

    Args:
        open_feed: as the registry has it.
        take_notice: called once a window and backend, never twice at a time. After an
            error of the store it is called again with what is owed by then.
        sleep: for the window, and between two tries of what failed.
        spread: 0 to 1; keeps feeds that lost one server from coming back at once.
    """

    def __init__(
        self,
        open_feed: OpenFeed,
        take_notice: TakeNotice,
        *,
        window_s: float = WINDOW_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._open_feed = open_feed
        self._take_notice = take_notice
        self._window_s = window_s
        self._sleep = sleep
        self._spread = spread
        self._sources: dict[str, _Source] = {}
        self._changed = asyncio.Event()
        self._owed: dict[tuple[TenantId, BackendId], _Owed] = {}
        self._something = asyncio.Event()

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
                        self._owe(member, source.feed, None)
            source.serve(members)
        self._changed.set()

    def states(self) -> tuple[FeedState, ...]:
        """How each feed stands, for status and metrics."""
        return tuple(source.state for source in self._sources.values())

    async def run(self) -> None:
        """Run the feeds that are followed, until cancelled."""
        running: dict[_Source, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hand_over())
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
            gaps = source.gaps
            try:
                first = source.members[0]
                source.opened = self._open_feed(source.entry, first.spec, first.tenant)
                await source.opened.listen(partial(self._tell, source))
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
            if source.gaps > gaps:  # it did listen
                wait = _SHORTEST_WAIT
            await self._sleep(wait * (0.5 + self._spread() / 2))
            wait = min(2 * wait, _LONGEST_WAIT)

    def _tell(self, source: _Source, notice: Notice) -> None:
        source.problem = ""
        if notice.path is None:
            source.gaps += 1
            for member in source.members:
                self._owe(member, source.feed, None)
            return
        source.heard += 1
        found = list(source.who_syncs(notice.namespace, notice.path))
        for member, path in found:
            self._owe(member, source.feed, (path,))
        source.unmapped += not found

    def _owe(self, member: Listening, feed: str, paths: Iterable[RemotePath] | None) -> None:
        self._owed.setdefault(member.key, _Owed(feed)).add(paths)
        self._something.set()

    async def _hand_over(self) -> None:
        while True:
            await self._something.wait()
            await self._sleep(self._window_s)
            self._something.clear()
            owed, self._owed = self._owed, {}
            failed: StoreError | None = None
            for (tenant, backend), what in owed.items():
                try:
                    await self._take_notice(tenant, backend, what.paths, what.feed)
                except StoreError as error:
                    failed = error
                    again = self._owed.setdefault((tenant, backend), _Owed(what.feed))
                    again.add(what.paths)
            if failed is not None:
                get_logger().warning("change_notice_failed", error=failed, count=len(self._owed))
                await self._sleep(_SHORTEST_WAIT)
                self._something.set()


def _address(entry: Entry, backend: Listening) -> str:
    """What tells two feeds apart: what they listen on, or whose they are and where it is."""
    if "listen" in entry:
        return json.dumps([entry["feed"], entry["listen"]])
    whose = [backend.tenant, backend.spec.id, dict(backend.spec.config), dict(entry)]
    return json.dumps(whose, sort_keys=True)
