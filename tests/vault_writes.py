"""What tests of writes to a real OpenBao need beside `openbao` and `servers`."""

from functools import partial
from typing import Any

import aiohttp
from aiohttp import web
from tests.openbao import Bao
from tests.servers import Front

from svsync.domain.changes import RemoteGone, RemoteValue, Tags
from svsync.domain.decide import PushKind
from svsync.domain.ids import PushId, RemotePath
from svsync.domain.pushes import Landed, Ready, Refused, RemoteWrite
from svsync.domain.values import Payload
from svsync.ports import Backend


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


# --- writes ------------------------------------------------------------------------

NEW = Payload.from_fields({"k": "new"})


async def order(
    backend: Backend, bao: Bao, kind: PushKind, payload: Payload = NEW, name: str = "a"
) -> RemoteWrite:
    """A write upon the state that stands now."""
    path = RemotePath(f"{bao.mount}/data/{name}" if bao.version == 2 else f"{bao.mount}/{name}")
    [state] = await backend.read([path])
    assert isinstance(state, RemoteValue | RemoteGone)
    value = payload if kind in (PushKind.PUT, PushKind.CREATE) else None
    return RemoteWrite(PushId("push_1"), path, kind, state.value_token, state.order, value)


async def ready_for(backend: Backend, asked: RemoteWrite) -> Ready:
    ready = await backend.check(asked)
    assert isinstance(ready, Ready), ready
    return ready


async def write(
    backend: Backend, bao: Bao, kind: PushKind, tags: Tags | None = None, **given: Any
) -> Landed | Refused:
    asked = await order(backend, bao, kind, **given)
    return await backend.write(asked, await ready_for(backend, asked), tags)


async def metadata(bao: Bao, name: str = "a") -> dict[str, Any]:
    answer = (await bao.request("GET", f"{bao.mount}/metadata/{name}"))["data"]
    assert isinstance(answer, dict)
    return answer
