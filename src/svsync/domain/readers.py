"""Who reads what in a store, as the store's own log tells it: metadata alone, no value.

A log may be long, and its files may come in any order, so what is kept of it is bounded and
depends on no order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from svsync.domain.ids import RemotePath

MOST_READERS: Final = 200_000
"""Pairs of a path and who reads it that are kept; further ones are counted."""
SLOTS: Final = 10
"""A silence that is longer than one of so many parts of a time leaves something out."""


def plain_namespace(namespace: str) -> str:
    """Without slashes around it; empty is the outermost one, of which `root` is a name."""
    outer = namespace.strip("/")
    return "" if outer == "root" else outer


def whole_path(namespace: str, path: str) -> str:
    """A path as it is named from the root: what one caller gives as the namespace, another
    writes as the beginning of the path."""
    outer = plain_namespace(namespace)
    return f"{outer}/{path}" if outer else path


@dataclass(frozen=True, slots=True)
class Login:
    """Whoever signed in to a store, as its log names them; empty: it does not.

    Attributes:
        name: the display name. All roles of one login method may share it.
        role: the role that was signed in as.
        entity: the store's own id of them.
    """

    name: str = ""
    role: str = ""
    entity: str = ""

    @property
    def can_be_told(self) -> bool:
        """What has neither entity nor role has the same name as many others."""
        return bool(self.entity or self.role)

    def is_same(self, other: "Login") -> bool:
        """Surely the same one."""
        if self.entity or other.entity:
            return self.entity == other.entity
        return self.can_be_told and (self.name, self.role) == (other.name, other.role)

    def __str__(self) -> str:
        return f"{self.name} ({self.role})" if self.role else self.name or "-"


@dataclass(frozen=True, slots=True)
class Logged:
    """One entry of a log.

    Attributes:
        paths: the secrets that were read, in remote path form; empty: none was.
        maybe: names that were read, and may be those of secrets or of something else.
        changed: the secrets that were written, deleted or brought back, or may have been.
    """

    at: datetime
    who: Login = Login()
    namespace: str = ""
    address: str = ""
    paths: tuple[RemotePath, ...] = ()
    maybe: tuple[RemotePath, ...] = ()
    changed: tuple[RemotePath, ...] = ()


@dataclass(frozen=True, slots=True)
class LogBlock:
    """Some lines of a log. `broken`: how many of them are no entries; `file` they are from."""

    file: str
    lines: int
    broken: int
    entries: Sequence[Logged]


@dataclass(slots=True)
class Reader:
    """Who reads one path: how often, when last, and from where that time."""

    reads: int = 0
    first: datetime | None = None
    last: datetime | None = None
    address: str = ""

    def saw(self, logged: Logged) -> None:
        self.reads += 1
        if self.first is None or logged.at < self.first:
            self.first = logged.at
        if self.last is None or logged.at >= self.last:
            self.last, self.address = logged.at, logged.address


class Readers:
    """Takes the blocks of a log, and tells who reads what.

    Attributes:
        begin, end: the moments of the first and last entry, None while there is none.
        left_off: reads of those that found no more room.
    """

    def __init__(
        self,
        wanted: Callable[[str], bool],
        since: datetime | None = None,
        *,
        doubtful: bool = False,
        most: int = MOST_READERS,
    ) -> None:
        """
        Args:
            wanted: is this path, as it is named from the root, asked about?
            since: reads before this moment do not count; None: all do.
            doubtful: what may be a secret's name counts as one.
            most: pairs of a path and a reader that are kept.
        """
        self._wanted = wanted
        self._since = since
        self._doubtful = doubtful
        self._most = most
        self._found: dict[tuple[str, str, Login], Reader] = {}
        self.begin: datetime | None = None
        self.end: datetime | None = None
        self.entries = self.lines = self.broken = self.left_off = 0

    def take(self, block: LogBlock) -> None:
        self.lines += block.lines
        self.broken += block.broken
        self.entries += len(block.entries)
        for logged in block.entries:
            if self.begin is None or logged.at < self.begin:
                self.begin = logged.at
            if self.end is None or logged.at > self.end:
                self.end = logged.at
            if self._since is not None and logged.at < self._since:
                continue
            for path in logged.paths + (logged.maybe if self._doubtful else ()):
                if self._wanted(whole_path(logged.namespace, path)):
                    self._saw((logged.namespace, path, logged.who), logged)

    def found(self) -> list[tuple[str, str, Login, Reader]]:
        """Namespace, path, who, and their reads; by path, the latest reader first."""
        rows = [(*key, reader) for key, reader in self._found.items()]
        return sorted(rows, key=lambda row: (row[0], row[1], -_moment(row[3].last), str(row[2])))

    def _saw(self, key: tuple[str, str, Login], logged: Logged) -> None:
        reader = self._found.get(key)
        if reader is None:
            if len(self._found) >= self._most:
                self.left_off += 1
                return
            reader = self._found[key] = Reader()
        reader.saw(logged)


class Coverage:
    """Does a log tell of the whole of a time? No silence in it may be longer than a tenth.

    A log that begins too late, ends too early or lacks a rotated file in the middle has a
    longer one. A store that svsync syncs is called in each of its cycles, so that one that
    nobody calls for so long is none that is synced.

    Of each tenth the first and the last entry are kept, in whatever order they come: a silence
    that is longer than a tenth lies between two of these.
    """

    def __init__(self, begin: datetime, end: datetime) -> None:
        self._begin, self._end = begin, end
        self._part = (end - begin) / SLOTS
        self._held: list[tuple[datetime, datetime] | None] = [None] * SLOTS

    def saw(self, at: datetime) -> None:
        number = (at - self._begin) // self._part
        if 0 <= number < SLOTS:
            first, last = self._held[number] or (at, at)
            self._held[number] = min(first, at), max(last, at)

    def gap(self) -> tuple[datetime, datetime] | None:
        """The longest time of which the log says nothing, where it is too long."""
        gaps = []
        silent = self._begin
        for held in self._held:
            if held is not None:
                gaps.append((silent, held[0]))
                silent = held[1]
        begin, end = max((*gaps, (silent, self._end)), key=lambda gap: gap[1] - gap[0])
        return (begin, end) if end - begin > self._part else None


def _moment(at: datetime | None) -> float:
    return 0.0 if at is None else at.timestamp()
