"""What the log of a source tells of secrets that may be deleted there."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from svsync.domain.ids import BackendId, RemotePath
from svsync.domain.readers import Coverage, Login, Readers, whole_path
from svsync.ports import AccessLog
from svsync.services.secrets import time_of


@dataclass(frozen=True, slots=True)
class LookedFor:
    """What is to be found out.

    Attributes:
        backend: whose log it is.
        namespace: in which its paths lie.
        paths: the secrets.
        since, now: the time of which the log has to tell.
        looked_at: when the last full run began; None: there was none.
        own: svsync's login there, where that is known.
        ours: roles, or display names of logins without role and entity, by which the log names
            svsync itself.
        trusts_broken: a line that cannot be read is taken for no read.
    """

    backend: BackendId
    namespace: str
    paths: frozenset[RemotePath]
    since: datetime
    now: datetime
    looked_at: datetime | None
    own: Login | None
    ours: Sequence[str]
    trusts_broken: bool

    def is_ours(self, who: Login) -> bool:
        """Is it svsync itself? A display name counts only where the log has nothing better, for
        all roles of a login method share it."""
        if self.own is not None and self.own.is_same(who):
            return True
        return who.role in self.ours if who.can_be_told else who.name in self.ours


@dataclass(frozen=True, slots=True)
class Read:
    """What a log tells.

    Attributes:
        reads: who but svsync read a secret last within the time, and when.
        changed: secrets that somebody else changed since the last full run began.
        problem: what it leaves out; empty: nothing.
        foreign: it tells nothing of svsync's own calls.
        told: what a plan shows of it.
    """

    backend: BackendId
    reads: Mapping[RemotePath, tuple[Login, datetime]]
    changed: frozenset[RemotePath]
    problem: str
    foreign: bool
    told: dict[str, object]


async def read_log(log: AccessLog, asked: LookedFor) -> Read:
    """The whole log: a read may stand anywhere in it. Raises UsageError: a file is no such log."""
    wanted = {whole_path(asked.namespace, path): path for path in asked.paths}
    readers = Readers(wanted.__contains__, asked.since, doubtful=True)
    coverage = Coverage(asked.since, asked.now)
    own, seen = asked.own, False
    changed: set[RemotePath] = set()
    for block in log.blocks():
        readers.take(block)
        for logged in block.entries:
            coverage.saw(logged.at)
            seen = seen or (
                logged.at >= asked.since and own is not None and own.is_same(logged.who)
            )
            late = asked.looked_at is None or logged.at >= asked.looked_at
            if late and logged.changed and not asked.is_ours(logged.who):
                names = {whole_path(logged.namespace, path) for path in logged.changed}
                changed |= {wanted[name] for name in names & wanted.keys()}
        await asyncio.sleep(0)  # a signal ends it between two blocks
    last: dict[RemotePath, tuple[Login, datetime]] = {}
    for namespace, name, who, reader in readers.found():
        if asked.is_ours(who) or reader.last is None:
            continue
        path = wanted[whole_path(namespace, name)]
        if path not in last or reader.last > last[path][1]:
            last[path] = who, reader.last
    return Read(
        asked.backend,
        last,
        frozenset(changed),
        _problem(readers, coverage, trusts_broken=asked.trusts_broken),
        foreign=own is not None and own.can_be_told and not seen,
        told={
            "begin": time_of(readers.begin),
            "end": time_of(readers.end),
            "entries": readers.entries,
            "broken_lines": readers.broken,
        },
    )


def _problem(readers: Readers, coverage: Coverage, *, trusts_broken: bool) -> str:
    if readers.left_off:
        return "it names more readers than are kept: narrow the pattern"
    if readers.broken and not trusts_broken:
        return (
            f"{readers.broken:,} of its lines cannot be read, and each may be a read"
            " (--trust-broken-lines takes them for none)"
        )
    gap = coverage.gap()
    if gap is None:
        return ""
    begin, end = (moment.strftime("%Y-%m-%d %H:%M:%S") for moment in gap)
    return f"it holds nothing of {begin} to {end} UTC: give the rotated files too"
