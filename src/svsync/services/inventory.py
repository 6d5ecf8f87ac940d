"""Surveys of stores that are to be moved off, and of who still reads there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final

from svsync.domain.errors import DeniedError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import RemotePath, TenantId
from svsync.domain.inventory import Surveyed, SurveyPage, Tally
from svsync.domain.mapping import Mapped, RuleSet
from svsync.domain.readers import Readers
from svsync.ports import AccessLog, Backend, SurveyableBackend
from svsync.services.counted_calls import open_counted
from svsync.services.runs import Backends
from svsync.services.secrets import time_of
from svsync.store import federation
from svsync.store import inventory as store
from svsync.store.database import Database

_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Inventories:
    """Inventories of every tenant's backends."""

    def __init__(self, db: Database, backends: Backends) -> None:
        self._db = db
        self._backends = backends

    async def of_backend(self, tenant: TenantId, backend: str, *, depth: int) -> dict[str, Any]:
        """What a configured backend holds, also where no rule federates it.

        Raises:
            NotFoundError: there is no such backend.
            BackendError: it is unreachable, refuses the login, or shows nothing at all.
        """
        async with self._db.transaction(tenant, read_only=True) as tx:
            spec = (await federation.get(tx, backend)).spec
        rules = self._backends.mapping(spec)
        async with open_counted(self._db, self._backends, spec, tenant) as opened:
            return await take_inventory(opened.backend, spec, rules, depth=depth)

    async def readers(
        self, tenant: TenantId, prefix: str, since: datetime | None, *, most: int
    ) -> dict[str, Any]:
        """Which applications read what here, by our own audit log: as `tell_readers` tells it of
        a file."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            rows = await store.readers(tx, prefix, since or _EVER, most + 1)
        return {
            "readers": [
                {
                    "path": row["path"],
                    "reader": row["identity_id"],
                    "reader_type": row["identity_type"],
                    "reads": row["reads"],
                    "first_read_at": time_of(row["first_at"]),
                    "last_read_at": time_of(row["last_at"]),
                }
                for row in rows[:most]
            ],
            "truncated": len(rows) > most,
        }


async def take_inventory(
    backend: Backend, spec: BackendSpec, rules: RuleSet | None, *, depth: int
) -> dict[str, Any]:
    """The same of an open backend; without rules nothing of it is federated.

    Raises BackendError.
    """

    def federates(path: RemotePath) -> bool:
        return rules is not None and isinstance(rules.to_local(path), Mapped)

    tally = Tally(depth, federates)
    async for page in _pages(backend, rules):
        tally.take(page)
    if tally.saw_nothing:
        raise DeniedError("the login may list nothing there: grant it LIST", operation="list")
    return {"type": spec.type, "backend_id": None if rules is None else spec.id, **tally.report()}


async def _pages(backend: Backend, rules: RuleSet | None) -> AsyncIterator[SurveyPage]:
    """A survey, or what the rules list of a store that makes none."""
    if isinstance(backend, SurveyableBackend):
        async with aclosing(backend.survey()) as surveyed:
            async for found in surveyed:
                yield found
        return
    prefixes = ("",) if rules is None else rules.list_prefixes()
    async with aclosing(backend.list_entries(prefixes, tokens=False)) as listed:
        async for page in listed:
            secrets = tuple(Surveyed(entry.remote_path, entry.gone) for entry in page.entries)
            yield SurveyPage((), secrets, page.scopes, page.rejected)


async def tell_readers(log: AccessLog, readers: Readers, *, most: int) -> dict[str, Any]:
    """Who reads what, as a log tells it. At most so many rows, by path.

    Raises UsageError: a file is no such log.
    """
    files: dict[str, list[int]] = {}
    for block in log.blocks():
        readers.take(block)
        counts = files.setdefault(block.file, [0, 0])
        counts[0] += block.lines
        counts[1] += block.broken
        await asyncio.sleep(0)  # a signal ends it between two blocks
    found = readers.found()
    return {
        "files": [
            {"file": name, "lines": lines, "broken": broken}
            for name, (lines, broken) in files.items()
        ],
        "begin": time_of(readers.begin),
        "end": time_of(readers.end),
        "entries": readers.entries,
        "broken_lines": readers.broken,
        "readers": [
            {
                "path": path,
                "namespace": namespace,
                "reader": who.name,
                "role": who.role or None,
                "entity_id": who.entity or None,
                "reads": reader.reads,
                "first_read_at": time_of(reader.first),
                "last_read_at": time_of(reader.last),
                "last_address": reader.address or None,
            }
            for namespace, path, who, reader in found[:most]
        ],
        "readers_more": max(0, len(found) - most),
        "reads_left_off": readers.left_off,
    }
