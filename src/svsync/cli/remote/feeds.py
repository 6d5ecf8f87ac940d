"""Secrets of change feeds, by a service."""

import argparse

from svsync.cli import feeds as here
from svsync.cli.remote.federation import id_of
from svsync.cli.remote.opening import asked
from svsync.client import Client
from svsync.client.records import FeedSecret
from svsync.domain.errors import NotFoundError


async def add(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        backend = await id_of(client, args.backend)
        made = await client.federation.feed_secrets.create(backend, args.feed)
    here.tell_made(args, made)
    return 0


async def list_secrets(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        found = await _every(client, args.backend)
    here.tell_secrets(args, found)
    return 0


async def revoke(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        whose = [one["backend_id"] for one in await _every(client) if one["id"] == args.secret_id]
        if not whose:
            raise NotFoundError(
                "there is no such secret of a feed: `svsync feeds list` shows those there are",
                code="feed_secret_not_found",
            )
        await client.federation.feed_secrets.revoke(whose[0], args.secret_id)
    here.tell_revoked(args)
    return 0


async def _every(client: Client, backend: str | None = None) -> list[FeedSecret]:
    """Those of one backend, or of all: the API has them under their backend."""
    if backend is not None:
        return list(await client.federation.feed_secrets.list(await id_of(client, backend)))
    return [
        secret
        for one in await client.federation.backends.list()
        for secret in await client.federation.feed_secrets.list(one["id"])
    ]
