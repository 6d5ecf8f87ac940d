"""Static tokens, by a service; for whoever has one with the scope `admin`."""

import argparse

from svsync.cli import tokens as here
from svsync.cli.remote.opening import asked
from svsync.domain.access import Identity, is_token_id
from svsync.services.access import unknown_token


async def create(args: argparse.Namespace) -> int:
    identity = Identity.parse(args.identity)
    here.refuse_lifetime(args.expires)
    async with asked(args) as client:
        made = await client.tokens.create(identity.id, args.scope, expires_in=args.expires)
    here.tell_made(args, made)
    return 0


async def list_tokens(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        found = await client.tokens.list()
    here.tell_tokens(args, found)
    return 0


async def revoke(args: argparse.Namespace) -> int:
    if not is_token_id(args.token_id):
        raise unknown_token()  # it may be a token's own text, which goes into no address
    async with asked(args) as client:
        await client.tokens.revoke(args.token_id)
    here.tell_revoked(args)
    return 0
