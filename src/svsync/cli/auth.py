"""Whom a token vouches for; without one, who runs this program."""

import argparse
from collections.abc import Mapping
from typing import Any

from svsync.cli.arguments import acting_user, add_command, add_group, token_of
from svsync.cli.output import Output


def add_commands(subparsers: Any) -> None:
    auth = add_group(subparsers, "auth", "who calls")
    add_command(auth, "whoami", "whom a token vouches for, and what it is good for", whoami)


async def whoami(args: argparse.Namespace) -> int:
    from svsync.app import open_vouching
    from svsync.cli.opening import opened
    from svsync.services.access import describe

    out: Output = args.out
    token = token_of(args)
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
    tell(out, told)
    return 0


def tell(out: Output, told: Mapping[str, Any]) -> None:
    """Whose a token is."""
    if out.json:
        out.document(told)
        return
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
