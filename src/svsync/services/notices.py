"""Notices of changes that arrive over HTTP: from what a sender names to a run.

A notice is a hint, as that of any feed (`feeds`). It is written down before it is answered,
in the same way: as paths of the next targeted run, or as one full run where it names more
than a run should be told of. Paths that the backend does not sync are counted and dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass

from svsync.domain.errors import NotFoundError
from svsync.domain.federation import BackendSpec
from svsync.domain.feeds import MOST_PATHS
from svsync.domain.ids import RemotePath
from svsync.domain.mapping import Mapped
from svsync.observe.meter import SILENT, Meter
from svsync.ports import Arrived, ArrivingFeed
from svsync.services.feed_secrets import Sender
from svsync.services.feeds import Listening
from svsync.services.owed import TakeNotice
from svsync.services.runs import Backends
from svsync.store import federation
from svsync.store.database import Database


@dataclass(frozen=True, slots=True)
class Door:
    """What reads the notices of one sender, and the backend that they are for."""

    sender: Sender
    spec: BackendSpec
    reader: ArrivingFeed

    def read(self, said: object) -> Arrived:
        """What a body says. Raises ConfigError: it has not the feed's form."""
        return self.reader.read(said, self.spec.config)


class Notices:
    """Takes notices, for every tenant."""

    def __init__(
        self,
        db: Database,
        backends: Backends,
        arriving: Callable[[str], ArrivingFeed | None],
        take_notice: TakeNotice,
        *,
        meter: Meter = SILENT,
    ) -> None:
        """`arriving` finds what reads a feed that comes over HTTP, by its name."""
        self._db = db
        self._backends = backends
        self._arriving = arriving
        self._take_notice = take_notice
        self._meter = meter

    async def door(self, sender: Sender, feed: str, backend: str) -> Door:
        """Where a sender's notices of this feed and backend go.

        Raises NotFoundError: `feed_not_served`: its secret is for another one, there is no
        such feed, or the backend does not name it.
        """
        reader = self._arriving(feed)
        if reader is None or (sender.feed, sender.backend) != (feed, backend):
            raise _not_served()
        async with self._db.transaction(sender.caller.tenant, read_only=True) as tx:
            found = await federation.find(tx, sender.backend)
        if found is None or all(entry.get("feed") != feed for entry in found.spec.events):
            raise _not_served()
        return Door(sender, found.spec, reader)

    async def take(self, door: Door, arrived: Arrived) -> bool:
        """Ask for the run that a notice stands for; whether that is a full one.

        A backend that is paused, or syncs nothing, is asked for none.

        Raises StoreError: it may not be written down.
        """
        sender, feed = door.sender, door.sender.feed
        whole = len(arrived.paths) + arrived.unusable > MOST_PATHS
        paths = None if whole else self._synced(door, arrived)
        if whole:
            self._meter.feed_noticed(feed, "gap")
        else:
            told = len(paths or ())
            self._meter.feed_noticed(feed, "told", told)
            dropped = len(set(arrived.paths)) - told + arrived.unusable
            self._meter.feed_noticed(feed, "unmapped", dropped)
        if whole or paths:
            await self._take_notice(sender.caller.tenant, sender.backend, paths, feed)
        return whole

    def _synced(self, door: Door, arrived: Arrived) -> set[RemotePath]:
        """Those that the backend syncs."""
        rules = self._backends.mapping(door.spec)
        listening = Listening(door.sender.caller.tenant, door.spec, rules)
        found = set()
        for path in arrived.paths:
            mapped = rules.to_local(path)
            if isinstance(mapped, Mapped) and listening.syncs(mapped.rule):
                found.add(path)
        return found


def _not_served() -> NotFoundError:
    return NotFoundError(
        "no such feed of such a backend is served to this secret: it is good for the path that"
        " was told with it, while the backend names the feed under events",
        code="feed_not_served",
    )
