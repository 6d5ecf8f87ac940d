"""Where does the API listen, by which certificate, and what becomes of open requests?"""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web
from tests.integration.test_http_limits import let_pass
from tests.patience import PATIENCE_S
from tests.program import until

from svsync.config.model import Settings
from svsync.domain.errors import ConfigError, SetupError
from svsync.http.connections import ANSWER_S, Connections
from svsync.http.listening import listening


@dataclass
class Door:
    """A listener's files, and the application behind it, whose one request waits."""

    settings: Settings
    folder: Path
    authority: trustme.CA
    entered: asyncio.Event
    go: asyncio.Event
    app: web.Application

    def certify(self, authority: trustme.CA | None = None) -> None:
        """Put a new certificate into the files."""
        made = (authority or self.authority).issue_cert("127.0.0.1")
        (self.folder / "server.pem").write_bytes(
            b"".join(pem.bytes() for pem in made.cert_chain_pems)
        )
        made.private_key_pem.write_to_path(str(self.folder / "server.key"))

    def with_tls(self, *, client_ca: Path | None = None) -> Settings:
        self.certify()
        return replace(
            self.settings,
            tls_cert_file=str(self.folder / "server.pem"),
            tls_key_file=str(self.folder / "server.key"),
            tls_client_ca_file=None if client_ca is None else str(client_ca),
        )


@pytest.fixture
def door(tmp_path: Path) -> Door:
    entered, go = asyncio.Event(), asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        entered.set()
        await go.wait()
        return web.Response(text="done")

    async def at_once(_request: web.Request) -> web.Response:
        return web.Response(text="here")

    app = web.Application()
    app.add_routes([web.get("/wait", wait), web.get("/", at_once)])
    settings = Settings(state_dir=str(tmp_path), bind_address="127.0.0.1:0")
    return Door(settings, tmp_path, trustme.CA(), entered, go, app)


def trusting(authority: trustme.CA, client: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    return context


async def get(url: str, context: ssl.SSLContext | None = None) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, ssl=context or True) as answer,
    ):
        return await answer.text()


async def test_a_port_that_is_left_open_is_found(door: Door) -> None:
    async with listening(door.app, door.settings, grace=1) as listener:
        assert listener.port > 0
        assert await get(listener.url) == "here"


async def test_ipv6_is_listened_on_as_it_is_written(door: Door) -> None:
    settings = replace(door.settings, bind_address="[::1]:0")
    async with listening(door.app, settings, grace=1) as listener:
        assert listener.url.startswith("http://[::1]:")
        assert await get(listener.url) == "here"


async def test_an_address_that_somebody_has_is_refused_with_the_remedy(door: Door) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = replace(door.settings, bind_address=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(SetupError, match="a port that is free") as refused:
            async with listening(door.app, settings, grace=1):
                pass
    assert refused.value.code == "cannot_listen"


async def test_with_a_certificate_nothing_is_served_in_the_clear(door: Door) -> None:
    async with listening(door.app, door.with_tls(), grace=1) as listener:
        assert await get(listener.url, trusting(door.authority)) == "here"
        with pytest.raises(aiohttp.ClientError):
            await get(listener.url.replace("https", "http"))


def connections_of(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Those that are made from now on."""
    opened: list[Any] = []
    let_in = Connections.let_in

    def let(all_of: Connections, connection: Any) -> bool:
        opened.append(connection)
        return let_in(all_of, connection)

    monkeypatch.setattr(Connections, "let_in", let)
    return opened


async def test_over_tls_requests_are_answered_one_after_another_and_nobody_is_waited_for(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is taken is seen to be taken: what comes behind it is answered, and a
    connection that waits for a request keeps nobody who stops."""
    opened = connections_of(monkeypatch)
    async with asyncio.timeout(PATIENCE_S):
        async with listening(door.app, door.with_tls(), grace=600) as listener:
            reader, writer = await asyncio.open_connection(
                listener.host, listener.port, ssl=trusting(door.authority)
            )
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
            for _ in range(5):
                assert await reader.readuntil(b"here")
            assert opened[0].is_idle
        assert await reader.read() == b""
        writer.close()


async def test_handshake_that_does_not_come_is_not_waited_for(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svsync.http.listening.HEAD_S", 0.05)
    async with (
        listening(door.app, door.with_tls(), grace=1) as listener,
        asyncio.timeout(PATIENCE_S),
    ):
        reader, writer = await asyncio.open_connection(listener.host, listener.port)
        assert await reader.read() == b""
        writer.close()
        assert await get(listener.url, trusting(door.authority)) == "here"


async def test_over_tls_who_takes_nothing_of_an_answer_is_cut_off_in_its_time(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of it is encrypted already, and waits where only the system sees it."""
    opened = connections_of(monkeypatch)

    async def much(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(8 * 1024 * 1024))

    door.app.router.add_get("/much", much)
    limit = asyncio.timeout(ANSWER_S + 20)
    async with listening(door.app, door.with_tls(), grace=1) as listener, limit:
        context = trusting(door.authority)

        async def asked() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            made = await asyncio.open_connection(listener.host, listener.port, ssl=context)
            made[1].write(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
            return made

        reader, writer = await asked()
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        await reader.readexactly(8 * 1024 * 1024)
        _, idle = await asked()
        idle.transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: len(opened) == 2 and opened[1]._arrival.answers == 1)
        let_pass(ANSWER_S + 1, monkeypatch)
        await until(lambda: opened[1].transport is None)
        assert opened[0].transport is not None
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.readuntil(b"here")
        idle.transport.abort()
        writer.close()


async def test_old_tls_is_not_spoken(door: Door) -> None:
    old = trusting(door.authority)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with _no_warning():
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with listening(door.app, door.with_tls(), grace=1) as listener:
        with pytest.raises(aiohttp.ClientError):
            await get(listener.url, old)


@contextmanager
def _no_warning() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


async def test_a_client_without_a_certificate_is_turned_away_where_one_is_needed(
    door: Door,
) -> None:
    clients = trustme.CA()
    clients.cert_pem.write_to_path(str(door.folder / "clients.pem"))
    settings = door.with_tls(client_ca=door.folder / "clients.pem")
    async with listening(door.app, settings, grace=1) as listener:
        known = trusting(door.authority, clients.issue_cert("client"))
        assert await get(listener.url, known) == "here"
        for stranger in (
            trusting(door.authority),
            trusting(door.authority, trustme.CA().issue_cert("client")),
        ):
            with pytest.raises(aiohttp.ClientError):
                await get(listener.url, stranger)


async def test_a_renewed_certificate_is_used_once_it_is_asked_for(door: Door) -> None:
    renewed = trustme.CA()
    async with listening(door.app, door.with_tls(), grace=1) as listener:
        door.certify(renewed)
        assert await get(listener.url, trusting(door.authority)) == "here"
        listener.reload_certificate()
        assert await get(listener.url, trusting(renewed)) == "here"
        with pytest.raises(aiohttp.ClientError):
            await get(listener.url, trusting(door.authority))


async def test_broken_files_keep_the_certificate_in_use(door: Door) -> None:
    async with listening(door.app, door.with_tls(), grace=1) as listener:
        (door.folder / "server.pem").write_text("no certificate")
        with pytest.raises(ConfigError, match=r"tls_cert_file: .*cannot be used"):
            listener.reload_certificate()
        door.certify()
        trustme.CA().issue_cert("x").private_key_pem.write_to_path(str(door.folder / "server.key"))
        with pytest.raises(ConfigError, match="tls_cert_file"):
            listener.reload_certificate()
        assert await get(listener.url, trusting(door.authority)) == "here"


async def test_without_a_certificate_there_is_nothing_to_reload(door: Door) -> None:
    async with listening(door.app, door.settings, grace=1) as listener:
        listener.reload_certificate()
        assert await get(listener.url) == "here"


async def test_files_that_are_not_there_are_named(door: Door) -> None:
    settings = door.with_tls(client_ca=door.folder / "nowhere.pem")
    with pytest.raises(ConfigError, match=r"tls_client_ca_file: .*nowhere\.pem"):
        async with listening(door.app, settings, grace=1):
            pass
    (door.folder / "server.key").unlink()
    with pytest.raises(ConfigError, match=r"tls_cert_file: .*server\.key"):
        async with listening(door.app, settings, grace=1):
            pass


async def test_an_open_request_is_answered_before_the_listener_is_gone(door: Door) -> None:
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        async with listening(door.app, door.settings, grace=30) as listener:
            asked = group.create_task(_text(session, f"{listener.url}/wait"))
            await door.entered.wait()
            url = listener.url

            async def let_go_once_nobody_is_let_in() -> None:
                while True:
                    try:
                        assert await get(url) == "here"
                    except aiohttp.ClientError:
                        door.go.set()
                        return

            group.create_task(let_go_once_nobody_is_let_in())
        assert await asked == "done"


async def test_a_request_that_does_not_end_within_the_grace_is_cut_off(door: Door) -> None:
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        async with listening(door.app, door.settings, grace=0.05) as listener:
            asked = group.create_task(_ended(session, f"{listener.url}/wait"))
            await door.entered.wait()
        assert await asked == "cut off"


async def _text(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as answer:
        return await answer.text()


async def _ended(session: aiohttp.ClientSession, url: str) -> str:
    try:
        return await _text(session, url)
    except aiohttp.ClientError:
        return "cut off"
