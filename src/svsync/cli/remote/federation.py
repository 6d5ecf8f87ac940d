"""Backends as they are configured, by a service."""

import argparse
from typing import Any

from svsync.cli import federation as here
from svsync.cli.remote.opening import asked
from svsync.cli.values import read_file
from svsync.client import Client
from svsync.client import SvsyncError as Answered
from svsync.config.document import Node, read_yaml
from svsync.domain.errors import BackendUnreachableError, UsageError


async def list_backends(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        backends = await client.federation.backends.list()
    here.tell_backends(args, backends)
    return 0


async def show(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        found = await client.federation.backends.get(await id_of(client, args.backend))
    here.tell_backend(args, found)
    return 0


async def add(args: argparse.Namespace) -> int:
    document = _plain(read_yaml(read_file(args.file, "FILE"), args.file))
    if not isinstance(document, dict):
        raise UsageError("FILE: it is no mapping: give the keys of one backend")
    async with asked(args) as client:
        made = await client.federation.backends.create(
            document, require_healthy=args.require_healthy
        )
    here.tell_added(args, made)
    return 0


def _plain(node: Node) -> Any:
    """A document without its places."""
    match node.value:
        case dict():
            return {name: _plain(member) for name, member in node.value.items()}
        case list():
            return [_plain(member) for member in node.value]
        case scalar:
            return scalar


async def test(args: argparse.Namespace) -> int:
    """Exit 0 also where a part is denied: `degraded` is told, and the rest works."""
    async with asked(args) as client:
        found = await client.federation.backends.test(await id_of(client, args.backend))
    if found["status"] == "unreachable":
        why = "; ".join(found["warnings"]) or "it does not answer"
        raise BackendUnreachableError(why, operation="connect")
    here.tell_tested(args, found)
    return 0


async def map_test(args: argparse.Namespace) -> int:
    """By the mapping in force. Where only the environment has an address, by that of the file."""
    if args.service is None:
        return await here.map_test(args)
    async with asked(args) as client:
        backend = await id_of(client, args.backend)
        found = await client.federation.test_mapping(backend, args.paths)
    return here.tell_mapped(args, found)


async def id_of(client: Client, backend: str) -> str:
    """The id of a backend that is named by its id or its name, as on the store itself.

    Raises svsync.client.SvsyncError: `backend_not_found` and others.
    """
    try:
        found = await client.federation.status(backend)
        return found["id"]
    except Answered as error:
        if error.code not in ("backend_not_found", "not_found"):
            raise
        named = [b for b in await client.federation.backends.list() if b["name"] == backend]
        if len(named) != 1:
            raise error from None
        return named[0]["id"]
