"""Who reads what here, by a service's audit log.

What a store holds no service tells: it is listed with the backend's own login, which is
lent to nobody.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from svsync.cli import inventory as here
from svsync.cli.arguments import by_itself
from svsync.cli.remote.opening import asked
from svsync.client import Client
from svsync.client.records import AuditEntry
from svsync.domain.audit import LOOK
from svsync.domain.errors import SvsyncError, UsageError

_PAGE: Final = 1_000
_KEPT: Final = 100_000
"""Paths with a reader that are counted at once."""


class _Reader(NamedTuple):
    path: str
    type: str
    id: str


@dataclass(slots=True)
class _Reads:
    many: int
    first: str
    last: str


async def inventory(args: argparse.Namespace) -> int:
    """A source that is not configured is looked at from here; `--url` is a mistake then."""
    if args.service is None and (args.vault_addr or args.aws_region):
        return await here.inventory(args)
    raise UsageError(
        "`svsync inventory` asks no service, which lends nobody a backend's login:"
        f" {by_itself(args)} and run it on the machine of the store, or name a store by"
        " --vault-addr or --aws-region"
    )


async def readers(args: argparse.Namespace) -> int:
    since = here.asked_since(args)
    if args.audit_log:
        if args.service is None:
            return await here.readers(args)
        raise UsageError("--audit-log reads a file of this machine: leave --url out")
    start = None if since is None else since.isoformat()
    async with asked(args) as client:
        found = await _count(client, args.prefix, start)
    told = sorted(found)
    told.sort(key=lambda who: found[who].last, reverse=True)
    told.sort(key=lambda who: who.path)  # the latest reader of each first
    rows = [_row(who, found[who]) for who in told[: args.limit]]
    here.tell_readers_here(args, {"readers": rows, "truncated": len(told) > args.limit})
    return 0


async def _count(client: Client, prefix: str, start: str | None) -> dict[_Reader, _Reads]:
    """The reads of applications below a prefix, by path and reader.

    Raises SvsyncError: there are more of these than are counted.
    """
    folder = prefix.rpartition("/")[0]
    found: dict[_Reader, _Reads] = {}
    cursor = None
    while True:
        page = await client.audit.query(
            secret_path=f"{folder}/**" if folder else None,
            action="secret.read",
            decision="allow",
            start=start,
            limit=_PAGE,
            cursor=cursor,
        )
        for entry in page["logs"]:
            if (path := entry["secret_path"]) is not None and _is_read(entry, path, prefix):
                _add(found, path, entry)
        if len(found) > _KEPT:
            raise SvsyncError(
                f"more than {_KEPT:,} readers fit: narrow it by --prefix or --start",
                code="too_many_readers",
            )
        if (cursor := page["next_cursor"]) is None:
            return found


def _is_read(entry: AuditEntry, path: str, prefix: str) -> bool:
    """By an application: no operator's look, nor a read for our own commands."""
    looks = (entry["request_id"] or "").startswith(LOOK)
    return path.startswith(prefix) and entry["identity_type"] != "operator" and not looks


def _add(found: dict[_Reader, _Reads], path: str, entry: AuditEntry) -> None:
    """The log is told newest first."""
    at = entry["timestamp"]
    reader = _Reader(path, entry["identity_type"], entry["identity_id"])
    known = found.setdefault(reader, _Reads(0, at, at))
    known.many += 1
    known.first = at


def _row(who: _Reader, reads: _Reads) -> Mapping[str, Any]:
    return {
        "path": who.path,
        "reader": who.id,
        "reader_type": who.type,
        "reads": reads.many,
        "first_read_at": reads.first,
        "last_read_at": reads.last,
    }
