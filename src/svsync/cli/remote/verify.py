"""Copies compared with their sources, and secrets with a `.env` file, by a service."""

import argparse

from svsync.cli import verify as here
from svsync.cli.arguments import by_itself
from svsync.cli.remote.access import ByService
from svsync.cli.remote.opening import asked
from svsync.config.copy_mapping import load_copy_mapping
from svsync.domain.errors import UsageError


async def verify(args: argparse.Namespace) -> int:
    if args.backend is not None:
        raise UsageError(
            "`svsync verify --backend` asks no service, which gives nobody a backend's values for"
            f" that: {by_itself(args)} and run it on the machine of the store, or compare copies by"
            " --mapping"
        )
    only = here.glob_of(args)
    if args.env is not None:
        env_map, variables = here.env_of(args)
        async with asked(args, looks=True) as client:
            return await here.verify_env(args, env_map, variables, ByService(client), only)
    mapping = load_copy_mapping(args.mapping)
    async with asked(args, looks=True) as client:
        return await here.verify_copies(args, mapping, ByService(client), only)
