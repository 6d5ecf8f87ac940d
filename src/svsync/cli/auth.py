"""Whom a token vouches for; without one, who runs this program."""

import argparse
import os
from typing import Any, Final

from svsync.cli.arguments import acting_user, add_command, add_group
from svsync.cli.output import Output

TOKEN: Final = "SVSYNC_TOKEN"
"""A token in the environment is seen by nobody who lists processes."""


def add_commands(subparsers: Any) -> None:
    auth = add_group(subparsers, "auth", "who calls")
    asked = add_command(auth, "whoami", "whom a token vouches for, and what it is good for", whoami)
    asked.add_argument(
        "--token",
        metavar="TOKEN",
        help=f"default: {TOKEN}; without either, who runs this program",
    )


async def whoami(args: argparse.Namespace) -> int:
    from svsync.app import open_vouching
    from svsync.cli.opening import opened
    from svsync.services.access import describe

    out: Output = args.out
    token: str | None = args.token or os.environ.get(TOKEN)
    async with opened(args) as (app, _):
        found = None
        if token is not None:
            async with open_vouching(app) as vouching:
                caller, _ = await vouching.vouch(token)
            found = describe(caller)
    told: dict[str, Any] = found or {
        "identity_type": "operator",
        "identity_id": f"cli:{acting_user()}",
        "tenant": args.tenant,
        "scopes": ["admin"],
        "groups": [],
        "token_id": None,
        "expires_at": None,
    }
    if out.json:
        out.document(told)
        return 0
    out.facts(
        [
            ("identity", told["identity_id"]),
            ("tenant", told["tenant"]),
            ("scopes", ", ".join(told["scopes"])),
            ("groups", ", ".join(told["groups"]) or "none"),
            ("token", told["token_id"] or "none: on the store itself"),
            ("expires", told["expires_at"] or "never"),
        ]
    )
    return 0
