"""Secrets brought in from files, by a service."""

import argparse

from svsync.cli import imports as here
from svsync.cli.remote.access import ByService
from svsync.cli.remote.opening import asked


async def import_env(args: argparse.Namespace) -> int:
    env_map, variables = here.read_files(args.map, args.file)
    async with asked(args, looks=True) as client:
        return await here.import_by(args, env_map, variables, ByService(client))
