"""Static tokens as an operator hands them out: shown once, listed, revoked."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from svsync.cli.arguments import acting_user, add_command, add_group
from svsync.cli.output import Output
from svsync.domain.access import Identity, Scope, is_token_id
from svsync.domain.errors import ConfigError, UsageError

_EXPIRES: Final = "90d"


def add_commands(subparsers: Any) -> None:
    tokens = add_group(subparsers, "tokens", "static tokens, with which programs call the API")
    made = add_command(tokens, "create", "make a token and show it, this once", create)
    made.add_argument(
        "--identity", metavar="ID", required=True, help="who calls with it: sa:NAME or user:NAME"
    )
    made.add_argument(
        "--scope",
        metavar="SCOPE",
        nargs="+",
        action="extend",
        required=True,
        choices=[str(scope) for scope in Scope],
        help=f"what it is good for: {', '.join(Scope)}; admin stands for all",
    )
    made.add_argument(
        "--expires",
        metavar="TIME",
        default=_EXPIRES,
        help=f"how long it is good: 12h, 30d, or never (default: {_EXPIRES})",
    )
    add_command(tokens, "list", "every token of a tenant, without its text", list_tokens)
    gone = add_command(tokens, "revoke", "let a token count no more", revoke)
    gone.add_argument("token_id", metavar="TOKEN_ID", help="tok_…, as `tokens list` shows it")


async def create(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    identity = Identity.parse(args.identity)
    scopes = [Scope(scope) for scope in args.scope]
    seconds = _seconds(args.expires)
    asked = {"identity_id": identity.id, "scopes": list(map(str, scopes)), "expires_in": seconds}
    async with opened(args) as (app, tenant):
        await record(app, tenant, "token.create", about=asked)
        made = await app.access.create(
            tenant, identity, scopes, expires_in=seconds, by=f"cli:{acting_user()}"
        )
    tell_made(args, {"token_id": made.token_id, "token": made.text.reveal(), **made.about})
    return 0


def tell_made(args: argparse.Namespace, made: Mapping[str, Any]) -> None:
    """A new token, with its text."""
    out: Output = args.out
    if out.json:
        out.document(made)
        return
    out.line(made["token"])  # on a line of its own, which no table folds
    out.line()
    out.facts(
        [
            ("id", made["token_id"]),
            ("identity", made["identity_id"]),
            ("scopes", ", ".join(made["scopes"])),
            ("expires", made["expires_at"] or "never"),
        ]
    )
    out.line("Keep the token now: it is shown this once.")


async def list_tokens(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened

    async with opened(args) as (app, tenant):
        found: list[dict[str, Any]] = await app.access.list_tokens(tenant)
    tell_tokens(args, found)
    return 0


def tell_tokens(args: argparse.Namespace, found: Sequence[Mapping[str, Any]]) -> None:
    """Tokens, in a line each."""
    out: Output = args.out
    if out.json:
        out.document({"tokens": found})
        return
    if not found:
        out.line("There are no tokens: `svsync tokens create` makes one.")
        return
    out.table(
        ("id", "identity", "scopes", "state", "expires", "last used"),
        [
            (
                token["token_id"],
                token["identity_id"],
                " ".join(token["scopes"]),
                token["state"],
                (token["expires_at"] or "never")[:10],
                token["last_used_on"] or "never",
            )
            for token in found
        ],
    )


async def revoke(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    # What is no id may be the token's own text.
    named = {"token_id": args.token_id} if is_token_id(args.token_id) else None
    async with opened(args) as (app, tenant):
        await record(app, tenant, "token.revoke", about=named)
        await app.access.revoke(tenant, args.token_id)
    tell_revoked(args)
    return 0


def tell_revoked(args: argparse.Namespace) -> None:
    """A token that counts no more."""
    out: Output = args.out
    if out.json:
        out.document({"token_id": args.token_id, "state": "revoked"})
    else:
        out.line(f"{args.token_id} is revoked.")


def refuse_lifetime(text: str) -> None:
    """Raises UsageError: no token can be good for so long."""
    _seconds(text)


def _seconds(text: str) -> int | None:
    """How long a token is to be good; None: for ever."""
    from svsync.config.document import Node, resolve_plain
    from svsync.config.kinds import duration

    if text == "never":
        return None
    try:
        seconds: int = duration(60, 3650 * 86_400).read(Node(resolve_plain(text)))
    except ConfigError as error:
        raise UsageError(f"--expires {error.message}; or never") from None
    return seconds
