"""Groups of identities whose tokens do not say them: told by hand, where no directory does."""

import argparse
from typing import Any

from svsync.cli.arguments import add_command, add_group
from svsync.cli.output import Output
from svsync.domain.access import Identity


def add_commands(subparsers: Any) -> None:
    groups = add_group(subparsers, "groups", "which groups identities are in")
    add_command(groups, "list", "identities of which groups are known", list_groups)
    told = add_command(
        groups, "set", "say which groups an identity is in, in place of those known", set_groups
    )
    told.add_argument("identity", metavar="IDENTITY", help="sa:NAME or user:NAME")
    told.add_argument("groups", metavar="GROUP", nargs="*", help="none: it is in no group")
    told.set_defaults(rest="groups")


async def list_groups(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    out: Output = args.out
    async with opened(args) as (app, tenant):
        await record(app, tenant, "groups.list")
        found: list[dict[str, Any]] = await app.groups.list_groups(tenant)
    if out.json:
        out.document({"identities": found})
    elif not found:
        out.line("Nobody's groups are known: `svsync groups set` tells them.")
    else:
        out.table(
            ("identity", "groups", "told (UTC)"),
            [
                (one["identity_id"], ", ".join(one["groups"]), one["refreshed_at"][:19])
                for one in found
            ],
        )
    return 0


async def set_groups(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record
    from svsync.domain.bindings import group_name

    out: Output = args.out
    identity = Identity.parse(args.identity)
    names = [group_name(name) for name in args.groups]
    async with opened(args) as (app, tenant):
        about = {"identity_id": identity.id, "groups": names}
        await record(app, tenant, "groups.set", about=about)
        found = await app.groups.set_groups(tenant, identity, names)
    if out.json:
        out.document({"identity_id": identity.id, "groups": found})
    else:
        out.line(f"{identity.id} is in {', '.join(found) or 'no group'}.")
    return 0
