"""What tests of writes to a real OpenBao need beside `openbao` and `servers`."""

from functools import partial

import aiohttp
from aiohttp import web
from tests.servers import Front


def writing_policy(mount: str, *, version: int = 2) -> str:
    """What svsync needs to write, as docs/backends/vault.md prints it; nothing more."""
    if version == 1:
        return f'path "{mount}/*" {{ capabilities = ["read", "list", "create", "update"] }}'
    return (
        f'path "{mount}/data/*" {{ capabilities = ["read", "create", "update"] }}\n'
        f'path "{mount}/metadata/*" {{ capabilities = ["read", "list", "patch"] }}\n'
        f'path "{mount}/delete/*" {{ capabilities = ["update"] }}\n'
        f'path "{mount}/undelete/*" {{ capabilities = ["update"] }}\n'
    )


def older_policy(mount: str) -> str:
    """Writes as they were allowed before versions could be deleted and keys be patched."""
    return (
        f'path "{mount}/data/*" {{ capabilities = ["read", "create", "update", "delete"] }}\n'
        f'path "{mount}/metadata/*" {{ capabilities = ["read", "list", "create", "update"] }}\n'
        f'path "{mount}/undelete/*" {{ capabilities = ["update"] }}\n'
    )


def hand_patches_on(front: Front) -> None:
    """A PATCH says by its type how it is meant, and `front` hands no types on."""
    front.answer("^PATCH ", partial(_patch, front.target))


async def _patch(target: str, request: web.Request) -> web.Response:
    kept = ("Content-Type", "X-Vault-Token", "X-Vault-Request")
    headers = {name: request.headers[name] for name in kept if name in request.headers}
    async with (
        aiohttp.ClientSession() as session,
        session.patch(
            f"{target}{request.raw_path}", data=await request.read(), headers=headers
        ) as answer,
    ):
        return web.Response(
            status=answer.status, body=await answer.read(), content_type=answer.content_type
        )
