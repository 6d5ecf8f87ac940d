"""Does a failed write to a real OpenBao say whether it may have been made?"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from aiohttp import web
from tests.openbao import Bao
from tests.servers import FaultyTcp, Front, hanging_server
from tests.vault_writes import metadata, order, ready_for, writing_policy
from tests.vaults import LOOPBACK, opened, spec_of

from svsync.backends.guarded import BackendGuard, BreakerPolicy
from svsync.clients.vault import VaultSettings
from svsync.clients.vault.transport import VaultTransport
from svsync.domain.decide import PushKind
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    LoginError,
    ProtocolError,
    ThrottledError,
)
from svsync.domain.federation import BackendSpec
from svsync.domain.pushes import Landed, Ready, RemoteWrite
from svsync.embedded.openbao import OpenBaoServer
from svsync.embedded.processes import free_port
from svsync.network import NetworkPolicy
from svsync.ports import Backend


@asynccontextmanager
async def sending(
    url: str, *, timeout: float = 5.0, policy: NetworkPolicy = LOOPBACK
) -> AsyncIterator[VaultTransport]:
    transport = VaultTransport(VaultSettings(url, "token", timeout=timeout), policy)
    try:
        yield transport
    finally:
        await transport.aclose()


async def approle_of(bao: Bao) -> Mapping[str, str]:
    login = await bao.approle(writing_policy(bao.mount))
    return {"role_id": login.role_id, "secret_id": login.secret_id}


def approle_spec(bao: Bao, front: Front) -> BackendSpec:
    return spec_of(bao, url=front.url, config={"auth_method": "approle"})


async def prepared(backend: Backend, bao: Bao) -> tuple[RemoteWrite, Ready]:
    await bao.put("a", {"k": "v"})
    asked = await order(backend, bao, PushKind.PUT)
    return asked, await ready_for(backend, asked)


@pytest.mark.parametrize(("fault", "version"), [("reset", 1), ("cut", 2)])
async def test_connection_that_broke_leaves_a_write_open(
    kv2: Bao, fault: Literal["reset", "cut"], version: int
) -> None:
    """Whether it broke before or after the write was made looks alike from here."""
    async with FaultyTcp(("127.0.0.1", kv2.server.port)) as proxy:
        spec = spec_of(kv2, url=f"http://127.0.0.1:{proxy.port}")
        async with opened(spec, kv2.root_token) as backend:
            asked, ready = await prepared(backend, kv2)
            proxy.fault = fault
            with pytest.raises(BackendUnreachableError) as raised:
                await backend.write(asked, ready, None)
    assert raised.value.sent
    assert (await metadata(kv2))["current_version"] == version


async def test_answer_that_does_not_come_leaves_a_write_open() -> None:
    async with hanging_server() as url, sending(url, timeout=0.05) as transport:
        with pytest.raises(BackendUnreachableError) as raised:
            await transport.send("POST", "kv/data/a", operation="write", body=b"{}")
    assert raised.value.sent


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
async def test_write_that_found_no_connection_was_not_sent(method: str) -> None:
    async with sending(f"http://127.0.0.1:{free_port()}") as transport:
        with pytest.raises(BackendUnreachableError) as raised:
            await transport.send(method, "kv/data/a", operation="write", body=b"{}")
    assert not raised.value.sent


async def test_delete_whose_connection_broke_is_sent_once_and_left_open() -> None:
    """Upon a version that somebody wrote meanwhile a second one would be another delete."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            seen.append(head.split(b" ")[0])
            if seen[-1] == b"DELETE":
                break
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, sending(f"http://127.0.0.1:{port}") as transport:
        await transport.send("GET", "kv/data/a", operation="read")
        with pytest.raises(BackendUnreachableError) as raised:
            await transport.send("DELETE", "kv/data/a", operation="delete")
    assert raised.value.sent
    assert seen == [b"GET", b"DELETE"]


async def test_write_to_a_name_that_does_not_resolve_was_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", unknown)
    async with sending("https://vault.invalid:8200") as transport:
        with pytest.raises(BackendUnreachableError) as raised:
            await transport.send("POST", "kv/data/a", operation="write", body=b"{}")
    assert not raised.value.sent


async def test_write_to_a_certificate_that_is_not_trusted_was_not_sent(
    openbao_tls: OpenBaoServer,
) -> None:
    async with sending(openbao_tls.url) as transport:
        with pytest.raises(BackendUnreachableError) as raised:
            await transport.send("POST", "kv/data/a", operation="write", body=b"{}")
    assert not raised.value.sent


async def test_write_to_an_address_that_the_policy_refuses_was_not_sent() -> None:
    policy = NetworkPolicy(file_managed=True)
    async with sending("https://localhost:8200", policy=policy) as transport:
        with pytest.raises(BackendError) as raised:
            await transport.send("POST", "kv/data/a", operation="write", body=b"{}")
    assert raised.value.code == "endpoint_refused"
    assert not raised.value.sent


@pytest.mark.parametrize(
    ("status", "kind", "sent"),
    [
        (429, ThrottledError, False),
        (307, ProtocolError, False),
        (412, BackendUnreachableError, True),
        (500, BackendUnreachableError, True),
        (502, BackendUnreachableError, True),
        (503, BackendUnreachableError, True),
    ],
)
async def test_answer_tells_whether_a_write_may_have_been_made(
    kv2: Bao, status: int, kind: type[BackendError], sent: bool
) -> None:
    async with (
        Front(kv2.url) as front,
        opened(spec_of(kv2, url=front.url), kv2.root_token) as backend,
    ):
        asked, ready = await prepared(backend, kv2)
        front.refuse("^POST .*/data/", status)
        with pytest.raises(kind) as raised:
            await backend.write(asked, ready, None)
    assert type(raised.value) is kind
    assert raised.value.sent is sent


@pytest.mark.parametrize("text", ["", "{}", '{"data":{"version":"2"}}', "nonsense"])
async def test_answer_that_cannot_be_read_leaves_a_write_open(kv2: Bao, text: str) -> None:
    async with Front(kv2.url) as front:

        async def answer(request: web.Request) -> web.Response:
            await front.forward(request)
            return web.Response(text=text, content_type="application/json")

        async with opened(spec_of(kv2, url=front.url), kv2.root_token) as backend:
            asked, ready = await prepared(backend, kv2)
            front.answer("^POST .*/data/", answer)
            with pytest.raises(ProtocolError) as raised:
                await backend.write(asked, ready, None)
    assert raised.value.sent
    assert (await metadata(kv2))["current_version"] == 2


async def test_token_that_ended_is_replaced_and_the_write_made_once(kv2: Bao) -> None:
    tokens: list[str] = []
    async with Front(kv2.url) as front:

        async def note(request: web.Request) -> web.StreamResponse:
            tokens.append(request.headers["X-Vault-Token"])
            return await front.forward(request)

        front.answer("^GET .*/metadata/", note)
        async with opened(approle_spec(kv2, front), await approle_of(kv2)) as backend:
            asked, ready = await prepared(backend, kv2)
            await kv2.request("POST", "auth/token/revoke-orphan", {"token": tokens[-1]})
            landed = await backend.write(asked, ready, None)
    assert isinstance(landed, Landed)
    assert (await metadata(kv2))["current_version"] == landed.order == 2
    assert front.seen.count(f"POST /v1/{kv2.mount}/data/a") == 2  # refused, and made


async def test_login_that_fails_in_mid_write_leaves_nothing_open(kv2: Bao) -> None:
    dead = '{"errors":["permission denied"]}'
    async with (
        Front(kv2.url) as front,
        opened(approle_spec(kv2, front), await approle_of(kv2)) as backend,
    ):
        asked, ready = await prepared(backend, kv2)
        front.refuse("^POST .*/data/", 403, dead)
        front.refuse("lookup-self", 403, dead)
        front.refuse("/login", 503)
        with pytest.raises(BackendUnreachableError) as raised:
            await backend.write(asked, ready, None)
        assert not raised.value.sent
        front.rules.pop()
        with pytest.raises(LoginError) as refused:
            await backend.write(asked, ready, None)
        assert not refused.value.sent
    assert (await metadata(kv2))["current_version"] == 1


async def test_write_to_a_backend_that_is_left_alone_was_not_sent(kv2: Bao) -> None:
    guard = BackendGuard(breaker=BreakerPolicy(failures=1, after=0.0, pause=3600.0))
    async with (
        Front(kv2.url) as front,
        opened(spec_of(kv2, url=front.url), kv2.root_token, guard) as backend,
    ):
        asked, ready = await prepared(backend, kv2)
        front.refuse("^POST .*/data/", 503)
        with pytest.raises(BackendUnreachableError) as failed:
            await backend.write(asked, ready, None)
        with pytest.raises(BackendUnreachableError) as left_alone:
            await backend.write(asked, ready, None)
    assert (failed.value.sent, left_alone.value.sent) == (True, False)
    assert front.seen.count(f"POST /v1/{kv2.mount}/data/a") == 1
