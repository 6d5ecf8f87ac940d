"""Conflicts, by a service."""

import argparse

from svsync.cli import conflicts as here
from svsync.cli.arguments import local_path
from svsync.cli.output import say
from svsync.cli.remote.federation import id_of
from svsync.cli.remote.opening import asked
from svsync.client.exact import encode
from svsync.client.records import Conflict, ResolutionKind
from svsync.domain.errors import SvsyncError


async def list_conflicts(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        backend = await id_of(client, args.backend)
        found = await client.federation.conflicts(backend, settled=args.all)
    here.tell_conflicts(args, {"backend_id": backend, "next_cursor": None}, found)
    return 0


async def show(args: argparse.Namespace) -> int:
    path = local_path(args.path)
    async with asked(args) as client:
        backend = await id_of(client, args.backend)
        found = await client.federation.conflict(
            backend, path, conflict_id=args.conflict_id, reveal=args.reveal
        )
    if args.reveal and found.get("values") is None:
        raise SvsyncError("the token may not reveal the values of this path", code="forbidden")
    if args.reveal:
        say("the values of both sides are printed")
    if args.out.json:
        args.out.raw_document(encode(found).encode())
    else:
        here.tell_sides(args.out, found, *_texts(found))
    return 0


def _texts(found: Conflict) -> tuple[bytes | None, bytes | None]:
    """The exact texts of both values, where they were asked for."""
    values = found.get("values") or {"local": None, "remote": None}
    local, remote = values["local"], values["remote"]
    return (
        None if local is None else encode(local).encode(),
        None if remote is None else encode(remote).encode(),
    )


async def resolve(args: argparse.Namespace) -> int:
    path = local_path(args.path)
    resolution, payload = here.asked_resolution(args)
    kind: ResolutionKind = resolution.value
    async with asked(args) as client:
        done = await client.federation.resolve(
            await id_of(client, args.backend),
            path,
            kind,
            text=None if payload is None else payload.data_text().decode(),
            conflict_id=args.conflict_id,
        )
    here.tell_resolved(args, path, done)
    return 0
