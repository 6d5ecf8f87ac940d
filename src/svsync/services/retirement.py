"""What may be deleted at its source, now that it is read here; nothing is deleted.

Whether both sides are equal is taken from what the last full run settled. Who still reads a
secret at its source is told by the source: by the log of its audit device, or by the store
itself. What nobody tells of is no proof that nobody reads it.
"""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from svsync.domain.errors import UsageError
from svsync.domain.federation import BackendSpec, Mode, PathSettings
from svsync.domain.globs import Glob
from svsync.domain.ids import BackendId, LocalPath, RemotePath, TenantId
from svsync.domain.inventory import Trait
from svsync.domain.mapping import Mapped
from svsync.domain.readers import Login, whole_path
from svsync.domain.retirement import WHY, Deletion, Facts, Held, Source, held_by
from svsync.ports import AccessLog, SurveyableBackend
from svsync.services.counted_calls import open_counted
from svsync.services.runs import Backends
from svsync.services.secrets import time_of
from svsync.services.source_logs import LookedFor, Read, read_log
from svsync.store import audit, federation
from svsync.store import retirement as store
from svsync.store.database import Database, Row, Transaction
from svsync.store.federation import StoredBackend

MOST: Final = 50_000
"""Secrets of one plan."""
_PAGE: Final = 1_000
LATE: Final = 3
"""Intervals after which a backend's last full run says nothing of today."""
_SOMEBODY: Final = "somebody, or svsync itself,"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be retired.

    Attributes:
        pattern: of local paths.
        idle: so long nobody may have read it at its source.
        backend: id or name; None: every one.
        ours: roles, or display names of logins without role and entity, by which a log names
            svsync itself.
        trusts_broken: a line of the log that cannot be read is taken for no read.
    """

    pattern: Glob
    idle: timedelta
    backend: str | None = None
    ours: Sequence[str] = ()
    trusts_broken: bool = False


@dataclass(slots=True)
class _Pairs:
    """The pairs that are asked about, and what is known of them here."""

    now: datetime
    backends: dict[BackendId, StoredBackend]
    looked_at: dict[BackendId, Row]
    rows: list[Row] = field(default_factory=list)
    copies: dict[LocalPath, list[LocalPath]] = field(default_factory=dict)
    reads: dict[LocalPath, Row] = field(default_factory=dict)

    def read_here(self, path: LocalPath) -> tuple[LocalPath, Row] | None:
        """The last read of a secret or of a copy of it."""
        known = [(one, self.reads[one]) for one in (path, *self.copies.get(path, ()))
                 if one in self.reads]  # fmt: skip
        return max(known, key=lambda one: one[1]["at"], default=None)


@dataclass(slots=True)
class _There:
    """What the backends themselves tell: commands, days of reads, what is rotated, and our own
    logins."""

    commands: dict[tuple[BackendId, RemotePath], Deletion] = field(default_factory=dict)
    days: dict[tuple[BackendId, RemotePath], date] = field(default_factory=dict)
    rotated: set[tuple[BackendId, RemotePath]] = field(default_factory=set)
    logins: dict[BackendId, Login] = field(default_factory=dict)


class Retirement:
    """Plans for every tenant."""

    def __init__(self, db: Database, backends: Backends) -> None:
        self._db = db
        self._backends = backends

    async def plan(self, tenant: TenantId, asked: Asked, log: AccessLog | None) -> dict[str, Any]:
        """What is ready, with its commands, and of the rest why it is not.

        Raises:
            NotFoundError: there is no such backend.
            UsageError: the pattern covers too much, or the log is none, or might be of either
                of two backends.
            BackendError: a backend cannot be asked.
        """
        pairs = await self._pairs(tenant, asked)
        logged = self._backend_of(pairs, log)
        there = await self._ask(tenant, pairs)
        since = pairs.now - asked.idle
        read = None
        if log is not None and logged is not None:
            read = await read_log(log, _looked_for(pairs, logged, there, asked))
        ready: list[dict[str, object]] = []
        held: list[dict[str, object]] = []
        for row in pairs.rows:
            source = _source(row, there, read, since)
            here = pairs.read_here(LocalPath(row["path"]))
            command = there.commands.get((row["backend_id"], row["remote_path"]))
            facts = Facts(
                equal=row["equal"],
                looked_at=self._looked_at(pairs, row),
                settings=settings_of(pairs.backends[row["backend_id"]].spec, row["rule_ord"]),
                read_here=here is not None,
                source=source,
                command=command,
                elsewhere=self._elsewhere(pairs, row),
            )
            about = _described(row, here)
            reasons = list(held_by(facts))
            if not reasons and command is not None:
                ready.append(about | _command(command))
            else:
                told = [_reason(one, row, facts, since) for one in reasons]
                held.append(about | {"reasons": told})
        return {
            "pattern": asked.pattern.text,
            "idle_s": int(asked.idle.total_seconds()),
            "as_of": time_of(pairs.now),
            "audit_log": None if read is None else read.told,
            "ready": ready,
            "held": held,
            "read_through": sorted(_read_through(pairs, asked)),
        }

    async def _pairs(self, tenant: TenantId, asked: Asked) -> _Pairs:
        async with self._db.transaction(tenant, read_only=True) as tx:
            named = None
            if asked.backend is not None:
                named = (await federation.get(tx, asked.backend)).spec.id
            found = _Pairs(
                await audit.now(tx),
                {stored.spec.id: stored for stored in await federation.list_backends(tx)},
                await store.looked_at(tx),
            )
            after, more = "", True
            while more:
                rows = await store.pairs(tx, after, asked.pattern.literal_prefix, named, _PAGE)
                more = len(rows) == _PAGE
                after = rows[-1]["path"] if rows else after
                kept = [row for row in rows if asked.pattern(row["path"])]
                found.rows += kept
                if len(found.rows) > MOST:
                    raise UsageError(
                        f"the pattern {asked.pattern.text!r} covers more than {MOST:,} secrets:"
                        " narrow it"
                    )
                await _look(tx, found, kept, found.now - asked.idle)
        return found

    def _backend_of(self, pairs: _Pairs, log: AccessLog | None) -> BackendId | None:
        """Whose log it is: that of one server says nothing of another."""
        if log is None:
            return None
        kinds = {row["backend_id"]: pairs.backends[row["backend_id"]] for row in pairs.rows}
        fit = sorted(one for one, stored in kinds.items() if stored.spec.type == log.kind)
        if len(fit) > 1:
            raise UsageError(
                f"--audit-log is of one server, and the pattern covers {', '.join(fit)}: name one"
                " with --backend"
            )
        return fit[0] if fit else None

    def _looked_at(self, pairs: _Pairs, row: Row) -> bool:
        """Did a full run of late see it, under the mapping and in the store of now?"""
        spec = pairs.backends[row["backend_id"]].spec
        _, mapping = self._backends.rules(spec)
        ago = pairs.looked_at[spec.id]["seconds_ago"]
        return (
            ago is not None
            and ago <= LATE * spec.sync_interval
            and (row["mapping_hash"], row["base_pair"]) == (mapping.hash, mapping.base_pair)
        )

    def _elsewhere(self, pairs: _Pairs, row: Row) -> str:
        """Another backend of the tenant whose mapping has the same secret of the same store."""
        this = pairs.backends[row["backend_id"]]
        path = whole_path(_place(this.spec), row["remote_path"])
        for other in pairs.backends.values():
            outer = whole_path(_place(other.spec), "")
            if other is this or not path.startswith(outer) or not _may_be_one(this, other):
                continue
            rules = self._backends.mapping(other.spec)
            if isinstance(rules.to_local(RemotePath(path.removeprefix(outer))), Mapped):
                return str(other.spec.id)
        return ""

    async def _ask(self, tenant: TenantId, pairs: _Pairs) -> _There:
        """Ask each backend about those of its secrets that may be ready."""
        there = _There()
        wanted: dict[BackendId, set[RemotePath]] = {}
        for row in pairs.rows:
            if row["equal"]:
                wanted.setdefault(row["backend_id"], set()).add(row["remote_path"])
        for backend, paths in wanted.items():
            spec = pairs.backends[backend].spec
            async with open_counted(self._db, self._backends, spec, tenant) as opened:
                if isinstance(opened.backend, SurveyableBackend):
                    await _survey(there, backend, opened.backend, paths)
        return there


async def _look(tx: Transaction, found: _Pairs, rows: Sequence[Row], since: datetime) -> None:
    """Copies of a page's secrets, and who read them here."""
    equal = [
        (LocalPath(row["path"]), row["base_fp"], row["base_fp_key"]) for row in rows if row["equal"]
    ]
    copied = await store.copies(tx, equal)
    for path, copy in copied:
        found.copies.setdefault(path, []).append(copy)
    paths = {*(LocalPath(row["path"]) for row in rows), *(copy for _, copy in copied)}
    found.reads |= await store.last_reads(tx, sorted(paths), since)


def _looked_for(pairs: _Pairs, backend: BackendId, there: _There, asked: Asked) -> LookedFor:
    own = there.logins.get(backend)
    return LookedFor(
        backend,
        _place(pairs.backends[backend].spec),
        frozenset(row["remote_path"] for row in pairs.rows if row["backend_id"] == backend),
        pairs.now - asked.idle,
        pairs.now,
        pairs.looked_at[backend]["began_at"],
        own,
        asked.ours,
        trusts_broken=asked.trusts_broken,
    )


async def _survey(
    there: _There, name: BackendId, backend: SurveyableBackend, paths: set[RemotePath]
) -> None:
    login = await backend.own_login()
    if login is not None:
        there.logins[name] = login
    for path in sorted(paths):
        command = await backend.deletion(path)
        # What does not print could not be shown as it is, and would name another secret.
        if command is not None and all(word.isprintable() for word in command.words):
            there.commands[name, path] = command
    if not backend.tells_reads:
        return
    async with aclosing(backend.survey()) as pages:
        async for page in pages:
            for secret in page.secrets:
                if secret.path in paths and secret.read_on is not None:
                    there.days[name, secret.path] = secret.read_on
                if secret.path in paths and Trait.ROTATED in secret.traits:
                    there.rotated.add((name, secret.path))


def _source(row: Row, there: _There, log: Read | None, since: datetime) -> Source:
    """What is known of reads of one secret at its source."""
    place = (row["backend_id"], row["remote_path"])
    day = there.days.get(place)
    if day is not None:
        ends = datetime.combine(day, time(), UTC) + timedelta(days=1)
        at = datetime.combine(day, time(), UTC) if ends > since else None
        return Source(told=True, reader=_SOMEBODY, at=at, rotates=place in there.rotated)
    if log is None or log.backend != row["backend_id"]:
        return Source(rotates=place in there.rotated)
    who, at = log.reads.get(row["remote_path"], (None, None))
    return Source(
        told=True,
        reader=str(who or ""),
        at=at,
        problem=log.problem,
        foreign=log.foreign,
        changed=row["remote_path"] in log.changed,
    )


def _place(spec: BackendSpec) -> str:
    """The namespace in which a backend's paths lie."""
    return str(spec.config.get("namespace") or "")


def _may_be_one(this: StoredBackend, other: StoredBackend) -> bool:
    """May both be the same store? An address proves nothing, for one server may have several;
    what was never connected to has told no identity yet."""
    kinds = [(one.spec.type, one.spec.config.get("region")) for one in (this, other)]
    identities = {this.identity, other.identity}
    return kinds[0] == kinds[1] and (None in identities or len(identities) == 1)


def settings_of(spec: BackendSpec, rule: int) -> PathSettings | None:
    """Those of a pair's rule; None where it keeps nothing here any more."""
    if rule >= len(spec.rules) or spec.rules[rule].exclude:
        return None
    settings = spec.for_rule(spec.rules[rule])
    return settings if settings.mode is Mode.SYNC else None


def _read_through(pairs: _Pairs, asked: Asked) -> Iterator[str]:
    """Local patterns of rules that keep nothing here, and may be meant."""
    for stored in pairs.backends.values():
        spec = stored.spec
        if asked.backend not in (None, spec.id, spec.name):
            continue
        for rule in spec.rules:
            if not rule.exclude and spec.for_rule(rule).mode is Mode.PROXY:
                begins = Glob(rule.local).literal_prefix, asked.pattern.literal_prefix
                shorter, longer = sorted(begins, key=len)
                if longer.startswith(shorter):
                    yield rule.local


def _described(row: Row, here: tuple[LocalPath, Row] | None) -> dict[str, object]:
    read = None
    if here is not None:
        path, last = here
        read = {"path": path, "at": time_of(last["at"]), "identity_id": last["identity_id"]}
    return {
        "path": row["path"],
        "backend_id": row["backend_id"],
        "remote_path": row["remote_path"],
        "version": row["version"],
        "last_read_here": read,
    }


def _command(command: Deletion) -> dict[str, object]:
    return {
        "command": list(command.words),
        "command_line": shlex.join(command.words),
        "recoverable": command.recoverable,
    }


def _reason(held: Held, row: Row, facts: Facts, since: datetime) -> dict[str, str]:
    source = facts.source
    about = {
        "status": row["status"] + (", and it was changed there since" if source.changed else ""),
        "backend": row["backend_id"],
        "elsewhere": facts.elsewhere,
        "since": f"{since:%Y-%m-%d %H:%M} UTC",
        "reader": source.reader,
        "at": "" if source.at is None else f"{source.at:%Y-%m-%d %H:%M} UTC",
        "problem": source.problem,
    }
    return {"reason": str(held), "why": WHY[held].format(**about)}
