"""Whom the token vouches for."""

import argparse

from svsync.cli.auth import tell
from svsync.cli.remote.opening import asked


async def whoami(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        told = await client.auth.whoami()
    tell(args.out, told)
    return 0
