"""What a delete undoes where somebody was faster, on a real OpenBao, and what it leaves."""

from collections.abc import Callable
from functools import partial

import aiohttp
import pytest
from aiohttp import web
from tests.openbao import Bao
from tests.servers import Front
from tests.vault_writes import metadata, older_policy, order, ready_for, write, writing_policy
from tests.vaults import opened, spec_of

from svsync.domain.decide import PushKind
from svsync.domain.pushes import REMOTE_CHANGED, Refused


async def deleted(bao: Bao) -> dict[str, bool]:
    """Which versions are deleted."""
    versions = (await metadata(bao))["versions"]
    return {number: version["deletion_time"] != "" for number, version in versions.items()}


@pytest.mark.parametrize("policy", [writing_policy, older_policy])
async def test_version_that_somebody_made_and_deleted_meanwhile_stays_deleted(
    kv2: Bao, policy: Callable[[str], str]
) -> None:
    await kv2.put("a", {"k": "ours"})
    async with opened(spec_of(kv2), await kv2.token(policy(kv2.mount))) as backend:
        asked = await order(backend, kv2, PushKind.DELETE)
        ready = await ready_for(backend, asked)
        await kv2.put("a", {"k": "theirs"})
        await kv2.request("POST", f"{kv2.mount}/delete/a", {"versions": [2]})
        assert await backend.write(asked, ready, None) == Refused(REMOTE_CHANGED)
    assert await deleted(kv2) == {"1": False, "2": True}


async def write_and_hand_on(bao: Bao, request: web.Request) -> web.Response:
    """Somebody writes while a delete of what is current is on its way."""
    await bao.put("a", {"k": "theirs"})
    headers = {"X-Vault-Token": request.headers["X-Vault-Token"]}
    async with (
        aiohttp.ClientSession() as session,
        session.request(request.method, f"{bao.url}{request.raw_path}", headers=headers) as answer,
    ):
        return web.Response(status=answer.status)


async def test_version_that_a_delete_of_the_current_one_met_on_its_way_is_brought_back(
    kv2: Bao,
) -> None:
    await kv2.put("a", {"k": "ours"})
    async with Front(kv2.url) as front:
        front.answer("^DELETE ", partial(write_and_hand_on, kv2))
        token = await kv2.token(older_policy(kv2.mount))
        async with opened(spec_of(kv2, url=front.url), token) as backend:
            assert await write(backend, kv2, PushKind.DELETE) == Refused(REMOTE_CHANGED)
    assert await deleted(kv2) == {"1": False, "2": False}
