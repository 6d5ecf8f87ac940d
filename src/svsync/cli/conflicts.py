"""Conflicts from the command line: listed, shown side by side, resolved. Values are
shown by `show --reveal` alone."""

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import acting_user, add_command, add_group, backend_option, local_path
from svsync.cli.output import Output, ago, say
from svsync.domain.errors import UsageError

if TYPE_CHECKING:
    from svsync.domain.resolutions import Resolution
    from svsync.domain.values import Payload
    from svsync.services.conflict_sides import Shown

_ONE_ID: Final = "--conflict-id"


def add_commands(subparsers: Any) -> None:
    conflicts = add_group(subparsers, "conflicts", "paths where both sides disagree")
    listing = add_command(
        conflicts, "list", "conflicts of a backend, without values", list_conflicts
    )
    backend_option(listing)
    listing.add_argument("--all", action="store_true", help="those that are settled, too")
    shown = add_command(conflicts, "show", "both sides of a conflict, field by field", show)
    backend_option(shown)
    shown.add_argument("path", metavar="PATH")
    shown.add_argument("--reveal", action="store_true", help="print both values")
    shown.add_argument(
        _ONE_ID, metavar="ID", help="this one (default: the path's open or latest one)"
    )
    resolved = add_command(conflicts, "resolve", "settle the open conflict of a path", resolve)
    backend_option(resolved)
    resolved.add_argument("path", metavar="PATH")
    how = resolved.add_mutually_exclusive_group(required=True)
    how.add_argument("--use-local", action="store_true", help="the local side stays")
    how.add_argument("--use-remote", action="store_true", help="the remote side is taken")
    how.add_argument(
        "--use-value", metavar="FILE", help="neither: this value, one JSON object; - is stdin"
    )
    resolved.add_argument(_ONE_ID, metavar="ID", help="only if it is this one that waits")


# --- list -----------------------------------------------------------------------------


async def list_conflicts(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened

    found: list[Any] = []
    async with opened(args) as (app, tenant):
        cursor = ""
        while cursor is not None:
            page: Any = await app.conflicts.list_conflicts(
                tenant, args.backend, closed=args.all, cursor=cursor
            )
            found += page["conflicts"]
            cursor = page["next_cursor"]
    tell_conflicts(args, page, found)
    return 0


def tell_conflicts(
    args: argparse.Namespace, page: Mapping[str, Any], found: Sequence[Mapping[str, Any]]
) -> None:
    """Conflicts of a backend; `page` is the last one of them."""
    out: Output = args.out
    if out.json:
        out.document({**page, "conflicts": found})
    elif not found:
        settled = "" if args.all else "; --all shows those that are settled"
        out.line(f"No conflict waits in {page['backend_id']}{settled}.")
    else:
        now = datetime.now(UTC)
        columns = ("path", "kind", "state", "here", "backend", "found", "changed")
        out.table(columns, [_row(c, now) for c in found])


def _row(c: Mapping[str, Any], now: datetime) -> Sequence[object]:
    return (
        c["path"],
        c["kind"],
        c["state"],
        _here(c),
        c["remote"],
        ago(c["detected_at"], now),
        ago(c["updated_at"], now),
    )


def _here(c: Mapping[str, Any]) -> str:
    version = c["local_version"]
    return f"{c['local']}, version {version}" if version else str(c["local"])


# --- show -----------------------------------------------------------------------------

_WORDS: Final = {
    "same": "same",
    "different": "different",
    "only_local": "only here",
    "only_remote": "only there",
    "unknown": "not known",
}


async def show(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    path = local_path(args.path)
    out: Output = args.out
    async with opened(args) as (app, tenant):
        backend = (await app.federation.spec(tenant, args.backend)).id
        action = "conflict.reveal" if args.reveal else "conflict.show"
        await record(app, tenant, action, path=path, backend=backend)
        found = await app.conflicts.show(tenant, backend, path, conflict_id=args.conflict_id)
    if args.reveal:
        say("the values of both sides are printed")
    if out.json:
        out.raw_document(_with_values(found) if args.reveal else json.dumps(found.about).encode())
    else:
        texts = (None if v is None else v.data_text() for v in (found.local, found.remote))
        tell_sides(out, found.about, *(texts if args.reveal else (None, None)))
    return 0


def _with_values(found: "Shown") -> bytes:
    """The document with both values, each byte for byte as it is kept."""
    sides = {b"local": found.local, b"remote": found.remote}
    values = b", ".join(
        b'"%b": %b' % (side, b"null" if value is None else value.data_text())
        for side, value in sides.items()
    )
    return json.dumps(found.about).encode().removesuffix(b"}") + b', "values": {%b}}' % values


def tell_sides(
    out: Output, about: Mapping[str, Any], local: bytes | None, remote: bytes | None
) -> None:
    """Both sides of a conflict, field by field; with their values, where they are given."""
    now = datetime.now(UTC)
    written, version = about["local_created_at"], about["remote_order"]
    out.facts(
        [
            ("path", about["path"]),
            ("conflict", f"{about['conflict_id']}, {about['kind']}, {about['state']}"),
            ("found", ago(about["detected_at"], now)),
            ("changed", ago(about["updated_at"], now)),
            ("here", _here(about) + (f", {ago(written, now)}" if written else "")),
            ("backend", about["remote"] + (f", version {version}" if version else "")),
            ("settled", about["closed_at"] and ago(about["closed_at"], now)),
            ("settled by", about["resolved_by"]),
            ("earlier sides", "\n".join(about["earlier"]["conflict_ids"]) or None),
        ]
    )
    if not about["fields"]:
        return
    out.line()
    ours, theirs = (_fields(side) for side in (local, remote))
    rows = [
        (
            f["name"],
            _WORDS[f["compared"]],
            ours.get(f["name"], _shape(f["local"])),
            theirs.get(f["name"], _shape(f["remote"])),
        )
        for f in about["fields"]
    ]
    out.table(("field", "is", "here", "backend"), rows)


def _fields(data: bytes | None) -> dict[str, str]:
    """The fields of a value as people read them."""
    from svsync.cli.values import field_of
    from svsync.domain.values import slice_members

    if data is None:
        return {}
    return {name: field_of(data, name).decode() for name in slice_members(data.decode())}


def _shape(shape: Mapping[str, Any] | None) -> str | None:
    return None if shape is None else f"{shape['type']}, {shape['bytes']} B"


# --- resolve --------------------------------------------------------------------------


async def resolve(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    path = local_path(args.path)
    resolution, payload = asked_resolution(args)
    async with opened(args) as (app, tenant):
        backend = (await app.federation.spec(tenant, args.backend)).id
        about = {"resolution": str(resolution)}
        await record(app, tenant, "conflict.resolve", path=path, backend=backend, about=about)
        done: Any = await app.conflicts.resolve(
            tenant,
            backend,
            path,
            resolution,
            payload=payload,
            conflict_id=args.conflict_id,
            by=f"cli:{acting_user()}",
        )
    tell_resolved(args, path, done)
    return 0


def asked_resolution(args: argparse.Namespace) -> tuple["Resolution", "Payload | None"]:
    """What counts, and the value that it brings. Raises UsageError."""
    from svsync.domain.resolutions import Resolution

    if args.use_value is not None:
        return Resolution.USE_VALUE, _value_of(args.use_value)
    return Resolution.USE_LOCAL if args.use_local else Resolution.USE_REMOTE, None


def tell_resolved(args: argparse.Namespace, path: str, done: Mapping[str, Any]) -> None:
    """How a conflict was settled."""
    out: Output = args.out
    if out.json:
        out.document(done)
        return
    stands = "is deleted" if done["version"] is None else f"is at version {done['version']}"
    out.line(f"The conflict of {path} is resolved: it {stands} now.")
    match done["write_through"]["state"]:
        case "applied":
            out.line(f"{done['backend_id']} has the same.")
        case "pending":
            out.line(f"{done['backend_id']} does not have it yet: the next run goes on with it.")


def _value_of(file: str) -> "Payload":
    """As `secrets write --json-file` reads it. Raises UsageError, which names this option."""
    from svsync.cli.values import payload_of

    try:
        return payload_of([], file)
    except UsageError as error:
        said = error.message.replace("--json-file", "--use-value", 1)
        raise UsageError(said) from None
