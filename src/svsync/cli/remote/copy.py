"""Copies, by a service."""

import argparse

from svsync.cli import copy as here
from svsync.cli.remote.access import ByService
from svsync.cli.remote.opening import asked
from svsync.config.copy_mapping import load_copy_mapping


async def copy(args: argparse.Namespace) -> int:
    mapping = load_copy_mapping(args.mapping)
    async with asked(args, looks=True) as client:
        return await here.copy_by(args, mapping, ByService(client))
