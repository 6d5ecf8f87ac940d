"""Backends paused, resumed and removed, by a service."""

import argparse

from svsync.cli import lifecycle as here
from svsync.cli.arguments import by_itself
from svsync.cli.remote.federation import id_of
from svsync.cli.remote.opening import asked
from svsync.domain.errors import UsageError


async def pause(args: argparse.Namespace) -> int:
    _refuse_all(args)
    async with asked(args) as client:
        done = await client.federation.backends.pause(await id_of(client, args.backend))
    here.tell_state(args, done["id"], done["state"])
    return 0


async def resume(args: argparse.Namespace) -> int:
    _refuse_all(args)
    async with asked(args) as client:
        done = await client.federation.backends.resume(await id_of(client, args.backend))
    here.tell_state(args, done["id"], done["state"])
    return 0


async def remove(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        gone = await client.federation.backends.delete(
            await id_of(client, args.backend), local_copies=args.local_copies
        )
    here.tell_removed(
        args,
        {
            "id": gone["id"],
            "secrets_kept": gone["kept"],
            "copies_destroyed": gone["destroyed"],
            "conflicts_closed": gone["conflicts_closed"],
            "pushes_withdrawn": gone["pushes_withdrawn"],
        },
    )
    return 0


def _refuse_all(args: argparse.Namespace) -> None:
    if here.means_all(args):
        raise UsageError(
            f"--all stops the runs of every tenant, which no token may: {by_itself(args)} and run"
            " it on the machine of the store"
        )
