"""`svsync status`: how the backends stand, once, or as they change."""

import argparse
from typing import Any

from svsync.cli.arguments import add_command, backend_option
from svsync.cli.standing import of_backend, show


def add_commands(subparsers: Any) -> None:
    parser = add_command(subparsers, "status", "how the backends are, now", status)
    backend_option(parser, required=False)
    parser.add_argument("--watch", action="store_true", help="look again each second, until Ctrl-C")


async def status(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened

    if args.watch:
        from svsync.cli.status_view import watch

        return await watch(args)
    async with opened(args) as (app, tenant):
        named = args.backend and (await app.federation.spec(tenant, args.backend)).id
        look = await app.overview.look(tenant)
    show(args.out, of_backend(look, named), one=bool(named))
    return 0
