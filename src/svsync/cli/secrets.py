"""Secrets from the command line. Values are shown by `get` alone."""

import argparse
import os
import pwd
from collections.abc import Mapping, Sequence
from typing import Any, Final

from svsync.cli.arguments import add_command, add_group
from svsync.cli.output import Output, say
from svsync.cli.values import field_of, payload_of, refuse_unprintable, tags_of, with_data
from svsync.domain.errors import SvsyncError, UsageError

MOST_VERSIONS: Final = 10_000


def add_commands(subparsers: Any) -> None:
    secrets = add_group(subparsers, "secrets", "read, list, write, delete and restore secrets")
    got = add_command(secrets, "get", "show a secret with its value", get)
    got.add_argument("path", metavar="PATH")
    got.add_argument("--field", metavar="NAME", help="print the value of this field only")
    got.add_argument("--version", type=int, metavar="N", help="default: the current one")
    listed = add_command(secrets, "list", "secrets by path, without values", list_secrets)
    listed.add_argument("--prefix", default="", metavar="PREFIX", help="what the path begins with")
    past = add_command(secrets, "history", "versions of a secret, newest first", history)
    past.add_argument("path", metavar="PATH")
    written = add_command(secrets, "write", "write a secret, or a new version of it", write)
    written.add_argument("path", metavar="PATH")
    written.add_argument(
        "fields",
        metavar="K=V",
        nargs="*",
        help="a field; K=@FILE takes it from a file, K=@- from stdin",
    )
    written.add_argument(
        "--json-file", metavar="FILE", help="all fields as one JSON object; - is stdin"
    )
    written.add_argument("--type", metavar="TYPE", help="a label: json, api_key, password, …")
    written.add_argument(
        "--tag", action="append", metavar="A,B", help="tags in place of those it has (repeatable)"
    )
    written.add_argument("--owner", metavar="OWNER")
    written.add_argument("--description", metavar="TEXT")
    written.set_defaults(rest="fields")
    written.add_argument(
        "--max-versions", type=int, metavar="N", help="versions that are kept of it"
    )
    written.add_argument(
        "--skip-if-equal", action="store_true", help="no new version where the value is the same"
    )
    written.add_argument(
        "--cas", type=int, metavar="N", help="only if it is at version N; 0: only if there is none"
    )
    buried = add_command(secrets, "delete", "delete a secret; its history stays for a time", delete)
    buried.add_argument("path", metavar="PATH")
    buried.add_argument("--cas", type=int, metavar="N", help="only if it is at version N")
    brought = add_command(
        secrets, "restore", "bring back a deleted secret, or an earlier value of one", restore
    )
    brought.add_argument("path", metavar="PATH")
    brought.add_argument(
        "--version", type=int, metavar="N", help="default: the last one of a deleted secret"
    )


# --- reading --------------------------------------------------------------------------


async def get(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record
    from svsync.domain.paths import parse_local

    refuse_field_of_all(args)
    path = _usable(parse_local, args.path)
    async with opened(args) as (app, tenant):
        try:
            read: tuple[dict[str, Any], bytes] = await app.secrets.get(tenant, path, args.version)
        except SvsyncError:
            await record(app, tenant, "secret.read", path=path, version=args.version)
            raise
        about, data = read
        backend = (about["federation"] or {}).get("backend_id")
        await record(
            app, tenant, "secret.read", path=path, version=about["version"], backend=backend
        )
    tell_secret(args, about, data)
    return 0


def refuse_field_of_all(args: argparse.Namespace) -> None:
    if args.field is not None and args.json:
        raise UsageError("--field prints one value and --json the whole secret: leave one out")


def tell_secret(args: argparse.Namespace, about: dict[str, Any], data: bytes) -> None:
    """A secret with its value; `data` is its exact text."""
    out: Output = args.out
    if out.json:
        out.raw_document(with_data(about, data))
    elif args.field is not None:
        end = b"\n" if out.on_terminal else b""
        out.raw(field_of(data, args.field) + end)
    else:
        _show(out, about, data)


def _show(out: Output, about: dict[str, Any], data: bytes) -> None:
    from svsync.domain.values import slice_members

    metadata, federation = about["metadata"], about["federation"]
    made = (about["version"], about["created_at"])  # a backend may not tell when
    out.heading(about["path"])
    out.facts(
        [
            ("version", " of ".join(map(str, filter(None, made)))),
            ("type", about["secret_type"]),
            ("tags", ", ".join(metadata["tags"]) or None),
            ("owner", metadata["owner"]),
            ("description", metadata["description"]),
            ("from", federation and f"{federation['backend_id']}, {federation['status']}"),
        ]
    )
    out.line()
    names = slice_members(data.decode())
    out.table(("field", "value"), [(n, field_of(data, n).decode()) for n in names])


async def list_secrets(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record
    from svsync.domain.policies import ADMIN
    from svsync.services.secrets import MAX_PAGE

    found: list[Any] = []
    incomplete = False
    async with opened(args) as (app, tenant):
        await record(app, tenant, "secret.list", path=args.prefix or None)
        cursor = ""
        while True:
            page: Any = await app.listing.page(
                tenant, ADMIN, args.prefix, limit=MAX_PAGE, cursor=cursor
            )
            found += page["secrets"]
            incomplete |= page["incomplete"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    tell_list(args, found, incomplete=incomplete)
    return 0


def tell_list(
    args: argparse.Namespace, found: Sequence[Mapping[str, Any]], *, incomplete: bool = False
) -> None:
    """Secrets without values. `incomplete`: a backend did not tell all that is read through."""
    out: Output = args.out
    if out.json:
        out.document({"secrets": found, "next_cursor": None, "incomplete": incomplete})
    elif not found:
        out.line(
            f"There is no secret below {args.prefix!r}." if args.prefix else "There is no secret."
        )
    else:
        rows = [
            (
                s["path"],
                s["version"],
                s["secret_type"],
                s["status"],
                ", ".join(s["metadata"]["tags"]),
                (s["updated_at"] or "")[:19].replace("T", " "),
            )
            for s in found
        ]
        out.table(("path", "version", "type", "status", "tags", "updated (UTC)"), rows)
    if incomplete:
        say("some of what is read through may be missing: a backend did not list it")


async def history(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record
    from svsync.domain.paths import parse_local

    path = _usable(parse_local, args.path)
    versions: list[Any] = []
    async with opened(args) as (app, tenant):
        await record(app, tenant, "secret.history", path=path)
        before = 2**31 - 1
        while True:
            page: Any = await app.secrets.history(tenant, path, limit=1000, before=before)
            versions += page["versions"]
            before = page["next_cursor"]
            if before is None:
                break
    tell_history(args, path, versions)
    return 0


def tell_history(
    args: argparse.Namespace, path: str, versions: Sequence[Mapping[str, Any]]
) -> None:
    """Versions of a secret, newest first."""
    out: Output = args.out
    if out.json:
        out.document({"path": path, "versions": versions, "next_cursor": None})
        return
    columns = ("version", "state", "origin", "there", "made (UTC)", "by", "from run")
    rows = [
        (
            v["version"],
            v["state"],
            v["origin"],
            v["remote_version"],
            v["created_at"][:19].replace("T", " "),
            v["created_by"],
            v["run_id"],
        )
        for v in versions
    ]
    out.table(columns, rows)
    states = {v["state"] for v in versions}
    for state in ("pending", "destroyed"):
        if state in states:
            out.line(_STATES[state])


_STATES: Final = {
    "pending": "A pending version is not current: its backend has yet to say that it took it.",
    "destroyed": "A destroyed version was never current: its backend did not take it.",
}


# --- writing --------------------------------------------------------------------------


async def write(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record
    from svsync.domain.paths import parse_local
    from svsync.services.write_rows import Put

    path = _usable(parse_local, args.path)
    put = Put(
        payload=payload_of(args.fields, args.json_file),
        secret_type=args.type,
        tags=None if args.tag is None else tags_of(args.tag),
        owner=args.owner,
        description=args.description,
        max_versions=counted(args.max_versions),
        cas=args.cas,
        skip_if_equal=args.skip_if_equal,
    )
    refuse_unprintable_labels(args)
    async with opened(args) as (app, tenant):
        args.backend = await app.writes.backend_of(tenant, path)
        await record(app, tenant, "secret.write", path=path, backend=args.backend)
        written = await app.writes.put(tenant, path, put, by=f"cli:{_user()}")
    tell_written(args, path, written)
    return 0


def refuse_unprintable_labels(args: argparse.Namespace) -> None:
    for name in ("type", "owner", "description"):
        refuse_unprintable(f"--{name}", getattr(args, name))


def tell_written(args: argparse.Namespace, path: str, written: Mapping[str, Any]) -> None:
    """How a write ended."""
    out: Output = args.out
    if out.json:
        out.document(written)
    else:
        out.line(f"{path} is at version {written['version']} now.")
        _tell_backend(out, written)


async def delete(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record
    from svsync.domain.paths import parse_local

    path = _usable(parse_local, args.path)
    async with opened(args) as (app, tenant):
        args.backend = await app.writes.backend_of(tenant, path)
        await record(app, tenant, "secret.delete", path=path, backend=args.backend)
        deleted = await app.writes.delete(tenant, path, by=f"cli:{_user()}", cas=args.cas)
    tell_deleted(args, path, deleted)
    return 0


def tell_deleted(args: argparse.Namespace, path: str, deleted: Mapping[str, Any]) -> None:
    """How a delete ended."""
    out: Output = args.out
    if out.json:
        out.document(deleted)
    else:
        out.line(f"{path} is deleted; `svsync secrets restore {path}` brings it back.")
        _tell_backend(out, deleted)


async def restore(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record
    from svsync.domain.paths import parse_local

    path = _usable(parse_local, args.path)
    async with opened(args) as (app, tenant):
        args.backend = await app.writes.backend_of(tenant, path)
        await record(app, tenant, "secret.restore", path=path, backend=args.backend)
        restored = await app.writes.restore(tenant, path, args.version, by=f"cli:{_user()}")
    tell_restored(args, path, restored)
    return 0


def tell_restored(args: argparse.Namespace, path: str, restored: Mapping[str, Any]) -> None:
    """How a restore ended."""
    out: Output = args.out
    if out.json:
        out.document(restored)
    else:
        out.line(f"{path} is back: it is at version {restored['version']} now.")
        _tell_backend(out, restored)


def _tell_backend(out: Output, answer: Mapping[str, Any]) -> None:
    """How far the write went, where its path is written through."""
    through = answer["write_through"]
    match through["state"]:
        case "applied":
            out.line("Its backend has taken it too.")
        case "pending" if through["push_id"] is not None:
            push = through["push_id"]
            out.line(f"Its backend has not taken it yet: the next run sees to that ({push}).")
        case "pending":
            out.line("Its backend has not taken it: the next run decides what becomes of it there.")


def counted(given: int | None) -> int | None:
    if given is not None and not 1 <= given <= MOST_VERSIONS:
        raise UsageError(f"--max-versions takes a number from 1 to {MOST_VERSIONS:,}")
    return given


def _usable(parse: Any, text: str) -> Any:
    """A path from the command line; a wrong one is wrong usage."""
    try:
        return parse(text)
    except SvsyncError as error:
        raise UsageError(f"the path cannot be one: {error.message}") from None


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
