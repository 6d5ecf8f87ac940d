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
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Refused, RemoteWrite


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


# --- deletes whose answer was lost ------------------------------------------------------


async def find(bao: Bao, asked: RemoteWrite) -> Landed | Refused | None:
    async with opened(spec_of(bao), await bao.token(writing_policy(bao.mount))) as backend:
        return await backend.find_delete(asked)


async def asked_for(bao: Bao) -> RemoteWrite:
    """A delete of the version that is there now."""
    await bao.put("a", {"k": "ours"})
    async with opened(spec_of(bao), await bao.token(writing_policy(bao.mount))) as backend:
        return await order(backend, bao, PushKind.DELETE)


async def test_delete_is_told_by_the_times_of_two_versions(kv2: Bao) -> None:
    asked = await asked_for(kv2)
    await kv2.request("POST", f"{kv2.mount}/delete/a", {"versions": [1]})
    await kv2.put("a", {"k": "theirs"})
    assert await find(kv2, asked) == Landed(order=1)
    assert await deleted(kv2) == {"1": True, "2": False}


async def test_version_that_was_written_over_and_not_deleted_was_not(kv2: Bao) -> None:
    asked = await asked_for(kv2)
    await kv2.put("a", {"k": "theirs"})
    assert await find(kv2, asked) == Refused(REMOTE_CHANGED)


async def test_older_version_that_a_lost_delete_met_is_brought_back(kv2: Bao) -> None:
    asked = await asked_for(kv2)
    await kv2.put("a", {"k": "theirs"})
    await kv2.request("POST", f"{kv2.mount}/delete/a", {"versions": [1]})
    assert await find(kv2, asked) == Refused(REMOTE_CHANGED)
    assert await deleted(kv2) == {"1": False, "2": False}


async def test_version_that_is_not_kept_any_more_tells_nothing(kv2: Bao) -> None:
    asked = await asked_for(kv2)
    await kv2.request("POST", f"{kv2.mount}/metadata/a", {"max_versions": 1})
    await kv2.put("a", {"k": "theirs"})
    assert await find(kv2, asked) is None


async def test_name_made_anew_right_after_its_delete_was_deleted(kv2: Bao) -> None:
    """The look after a delete meets what somebody wrote after it, not before."""

    async def delete_and_write(request: web.Request) -> web.Response:
        answer = await kv2.request("POST", f"{kv2.mount}/delete/a", {"versions": [1]})
        assert not answer
        await kv2.put("a", {"k": "theirs"})
        return web.Response(status=204)

    await kv2.put("a", {"k": "ours"})
    async with Front(kv2.url) as front:
        front.answer("^POST .*/delete/", delete_and_write)
        token = await kv2.token(writing_policy(kv2.mount))
        async with opened(spec_of(kv2, url=front.url), token) as backend:
            assert await write(backend, kv2, PushKind.DELETE) == Landed(order=1)
    assert await deleted(kv2) == {"1": True, "2": False}
