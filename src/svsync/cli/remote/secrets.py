"""Secrets, by a service."""

import argparse

from svsync.cli import secrets as here
from svsync.cli.arguments import local_path
from svsync.cli.remote.opening import asked
from svsync.cli.values import payload_of, tags_of


async def get(args: argparse.Namespace) -> int:
    here.refuse_field_of_all(args)
    path = local_path(args.path)
    async with asked(args) as client:
        secret = await client.secrets.read(path, version=args.version)
    about = {
        "path": secret.path,
        "secret_type": secret.secret_type,
        "version": secret.version,
        "created_at": secret.created_at,
        "metadata": secret.metadata,
        "federation": secret.federation,
    }
    here.tell_secret(args, about, secret.text.encode())
    return 0


async def list_secrets(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        found = await client.secrets.list(args.prefix)
    here.tell_list(args, found.secrets, incomplete=found.incomplete)
    return 0


async def history(args: argparse.Namespace) -> int:
    path = local_path(args.path)
    async with asked(args) as client:
        versions = await client.secrets.history(path)
    here.tell_history(args, path, versions)
    return 0


async def write(args: argparse.Namespace) -> int:
    path = local_path(args.path)
    payload = payload_of(args.fields, args.json_file)
    here.refuse_unprintable_labels(args)
    tags = None if args.tag is None else list(tags_of(args.tag))
    labels = {"tags": tags, "owner": args.owner, "description": args.description}
    metadata = {name: label for name, label in labels.items() if label is not None}
    async with asked(args) as client:
        written = await client.secrets.write(
            path,
            text=payload.data_text().decode(),
            secret_type=args.type,
            metadata=metadata or None,
            max_versions=here.counted(args.max_versions),
            cas=args.cas,
            skip_if_equal=args.skip_if_equal,
        )
    here.tell_written(args, path, written)
    return 0


async def delete(args: argparse.Namespace) -> int:
    path = local_path(args.path)
    async with asked(args) as client:
        deleted = await client.secrets.delete(path, cas=args.cas)
    here.tell_deleted(args, path, deleted)
    return 0


async def restore(args: argparse.Namespace) -> int:
    path = local_path(args.path)
    async with asked(args) as client:
        restored = await client.secrets.restore(path, args.version)
    here.tell_restored(args, path, restored)
    return 0
