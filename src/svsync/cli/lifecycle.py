"""What becomes of backends: their file brought in, paused, resumed, all stopped, removed."""

import argparse
from collections.abc import Mapping
from typing import Any

from svsync.cli.arguments import acting_user, add_command
from svsync.cli.output import Output
from svsync.domain.errors import UsageError


def add_verbs(backends: Any) -> None:
    """Verbs of the group `backends`."""
    applied = add_command(
        backends, "apply", "bring the file's backends in, as every command does", apply
    )
    applied.add_argument(
        "--force",
        metavar="ID",
        action="append",
        default=[],
        help="let this backend's flip to proxy mode hide what the backend does not have",
    )
    paused = add_command(backends, "pause", "begin no run of a backend any more", pause)
    resumed = add_command(backends, "resume", "begin runs of a paused backend again", resume)
    removed = add_command(backends, "remove", "let go of a backend and its pairs", remove)
    removed.add_argument("backend", metavar="ID", help="a backend's id or name")
    for parser, words in (
        (paused, "begin no run at all, of any tenant, until `resume --all`"),
        (resumed, "end the stop of `pause --all`"),
    ):
        parser.add_argument("backend", metavar="ID", nargs="?", help="a backend's id or name")
        parser.add_argument("--all", action="store_true", help=words)
    removed.add_argument(
        "--local-copies",
        choices=("keep", "purge"),
        default="keep",
        help="its secrets become ordinary local ones, or are destroyed (default: keep)",
    )


async def apply(args: argparse.Namespace) -> int:
    from svsync.app import open_app
    from svsync.cli.opening import compiled, operator, record, settings_of

    out: Output = args.out
    settings = settings_of(args)
    compiled(settings)
    async with open_app(settings, apply_backends=False) as app:
        tenant = await app.tenant(args.tenant)
        await record(app, tenant, "federation.apply", about={"force": args.force})
        changed = await app.federation.apply(settings.backends, force=args.force, by=operator())
    if out.json:
        out.document({"changed": changed})
    else:
        named = ", ".join(changed)
        out.line(f"Changed: {named}." if changed else "Every backend is as the file has it.")
    return 0


async def pause(args: argparse.Namespace) -> int:
    return await (_stop(args) if means_all(args) else _set(args, "paused"))


async def resume(args: argparse.Namespace) -> int:
    return await (_go_on(args) if means_all(args) else _set(args, "active"))


def means_all(args: argparse.Namespace) -> bool:
    if args.all == (args.backend is not None):
        raise UsageError("name one backend, or give --all")
    return bool(args.all)


async def _stop(args: argparse.Namespace) -> int:
    """Runs under way end as ever; each backend stays as it is, active or paused."""
    from svsync.cli.opening import opened, record
    from svsync.services.overview import RESUME, stopped_json

    out: Output = args.out
    async with opened(args) as (app, tenant):
        await record(app, tenant, "federation.pause", about={"all": True})
        stopped = stopped_json(await app.overview.stop(acting_user()))
    if out.json:
        out.document({"stopped": stopped})
    else:
        out.line(f"No run begins any more, of any tenant; those at work end. {RESUME} ends this.")
    return 0


async def _go_on(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    out: Output = args.out
    async with opened(args) as (app, tenant):
        await record(app, tenant, "federation.resume", about={"all": True})
        await app.overview.go_on()
    if out.json:
        out.document({"stopped": None})
    else:
        out.line("Runs begin again; a backend that is paused itself stays so.")
    return 0


async def _set(args: argparse.Namespace, state: str) -> int:
    from svsync.cli.opening import opened, record

    async with opened(args) as (app, tenant):
        backend = (await app.federation.spec(tenant, args.backend)).id
        if state == "paused":
            await record(app, tenant, "federation.pause", backend=backend)
            await app.removal.pause(tenant, backend)
        else:
            await record(app, tenant, "federation.resume", backend=backend)
            await app.removal.resume(tenant, backend)
    tell_state(args, backend, state)
    return 0


def tell_state(args: argparse.Namespace, backend: str, state: str) -> None:
    """The state that a backend is in now."""
    out: Output = args.out
    if out.json:
        out.document({"id": backend, "state": state})
    else:
        out.line(f"{backend} is {state}.")


async def remove(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    purge = args.local_copies == "purge"
    async with opened(args) as (app, tenant):
        backend = (await app.federation.spec(tenant, args.backend)).id
        about = {"purge": purge}
        await record(app, tenant, "federation.delete", backend=backend, about=about)
        done = await app.removal.remove(tenant, backend, purge=purge)
    told = {
        "id": done.backend,
        "secrets_kept": done.kept,
        "copies_destroyed": done.destroyed,
        "conflicts_closed": done.conflicts,
        "pushes_withdrawn": done.withdrawn,
    }
    tell_removed(args, told)
    return 0


def tell_removed(args: argparse.Namespace, told: Mapping[str, Any]) -> None:
    """A backend that is gone, and what became of what it had."""
    out: Output = args.out
    if out.json:
        out.document(told)
        return
    out.line(f"{told['id']} is removed; its runs and events are kept.")
    out.facts([(name.replace("_", " "), many) for name, many in told.items() if name != "id"])
