"""The console as people meet it: a real Chromium, on a real daemon, over a real OpenBao.

One daemon a module. Whatever a page asks for, says and breaks is watched: a request to anywhere
else, a mistake of the script or a violation of its policy fails the test that met it.
"""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import (
    APIResponse,
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Route,
    expect,
)
from tests.acceptance.conftest import Desk, open_desk
from tests.acceptance.serving import Served, new_token, start_serving
from tests.browser import browser
from tests.patience import PATIENCE_S
from tests.postgres import connected
from tests.program import until

from svsync.embedded.openbao import OpenBaoServer
from svsync.embedded.postgres import EmbeddedPostgres

__all__ = ["browser"]

ZONE: Final = "Asia/Kolkata"
OFFSET: Final = timedelta(hours=5, minutes=30)
"""Of the person who looks: far from UTC, and the same all year."""
PATIENCE_MS: Final = PATIENCE_S * 1000
"""Far more than anything takes: nothing waits for it but a test that fails."""
expect.set_options(timeout=PATIENCE_MS)

MARKUP: Final = "<img src=x onerror=\"document.title='owned'\">"
"""What a backend is named, and what its secrets are, to become markup where text is not told."""
BACKEND: Final = "fed_apps"
EVIL: Final = "fed_evil"
AWAY: Final = "fed_away"
LIVE: Final = "fed_live"
GUARDED: Final = "fed_guarded"
"""Of which a guard stopped the last run: everything had vanished there."""


@dataclass
class Site:
    """A daemon with its OpenBao.

    Attributes:
        token: for everything.
        changes: of its environment.
    """

    desk: Desk
    file: str
    changes: dict[str, str]
    served: Served
    token: str = ""
    drawn: int = 0

    @property
    def url(self) -> str:
        return f"http://{self.changes['BIND_ADDRESS']}"

    async def call(
        self, method: str, path: str, body: object = None, *, token: str = ""
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, json=body, headers=headers) as answer,
        ):
            return answer.status, await answer.json(content_type=None)

    async def token_of(self, *scopes: str, identity: str = "user:ada") -> tuple[str, str]:
        """A token with these scopes, and its id."""
        asked = [part for scope in scopes for part in ("--scope", scope)]
        made = await self.desk.program("tokens", "create", "--identity", identity, *asked, "--json")
        return str(made.json["token"]), str(made.json["token_id"])

    async def run(self, backend: str = BACKEND) -> dict[str, Any]:
        """A run of it that was asked for, once it has ended."""
        status, made = await self.call("POST", f"/v1/federation/backends/{backend}/sync", {})
        assert status == 202, made
        found: dict[str, Any] = {}

        async def ended() -> bool:
            at = f"/v1/federation/backends/{backend}/runs/{made['run_id']}"
            found.update((await self.call("GET", at))[1])
            return found["state"] in ("completed", "failed", "superseded")

        await until(ended)
        return found

    async def quarrel(self, backend: str = BACKEND, key: str = "k") -> str:
        """A path in an open conflict: its values differ in `key` alone, and hold the marker."""
        self.drawn += 1
        path = f"{backend.removeprefix('fed_')}/quarrel-{self.drawn}"
        marker = self.desk.program.canary.marker
        await self.desk.bao.put(path, {key: "base", "same": marker})
        await self.run(backend)
        ours = {"data": {key: f"{marker}-here", "same": marker}}
        status, told = await self.call("PUT", f"/v1/secrets/{path}", ours)
        assert status == 200, told
        await self.desk.bao.put(path, {key: f"{marker}-there", "same": marker})
        await self.run(backend)
        return path

    async def value(self, path: str) -> Any:
        return (await self.call("GET", f"/v1/secrets/{path}"))[1]["data"]

    async def start(self) -> None:
        self.served = await start_serving(self.desk.program, "--config", self.file, **self.changes)
        await self.served.says("serving")

    async def stop(self) -> None:
        await self.served.stopped()
        await self.served.aclose()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _spec(desk: Desk, backend: str, name: str, **changes: Any) -> dict[str, Any]:
    folder = backend.removeprefix("fed_")
    rule = {"local": f"{folder}/**", "remote": f"{desk.bao.mount}/data/{folder}/**"}
    config = {
        "endpoint": desk.bao.url,
        "auth_method": "token",
        "auth_config_path": "env:BAO_TOKEN",
        **changes.pop("config", {}),
    }
    return {
        "id": backend,
        "name": name,
        "type": "hashicorp-vault",
        "mode": "sync",
        "config": config,
        "path_mapping": [rule],
        "conflict_resolution": "manual",
        "sync_interval": "7d",
        **changes,
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(
    postgres: EmbeddedPostgres, openbao: OpenBaoServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    async with open_desk(postgres, openbao, tmp_path_factory.mktemp("console")) as desk:
        marker = desk.program.canary.marker
        for name in ("billing/db", "billing/stripe", "search/index", "web/session"):
            await desk.bao.put(f"apps/{name}", {"user": "svc", "password": f"{marker}-{name}"})
        await desk.bao.put("apps/no name", {"v": marker})  # a path that cannot be one here
        await desk.bao.put(f"evil/{MARKUP.replace('/', '')}", {"v": marker})
        guarded = [f"guarded/{name}" for name in ("a", "b", "c")]
        for name in guarded:
            await desk.bao.put(name, {"v": marker})
        await desk.bao.put("live/read", {"v": marker})
        backends = [
            _spec(desk, BACKEND, "applications"),
            _spec(desk, EVIL, "evil"),
            _spec(desk, LIVE, "live-reads", mode="proxy"),
            _spec(desk, AWAY, "data-centre-west", config={"endpoint": "http://127.0.0.1:9"}),
            _spec(desk, GUARDED, "guarded"),
        ]
        document = {
            "allow_loopback": True,
            "allow_private_targets": True,
            "backends": backends,
        }
        changes = {"BIND_ADDRESS": f"127.0.0.1:{_free_port()}"}
        nowhere: Any = None
        made = Site(desk, str(desk.file(document)), changes, nowhere)
        await made.start()
        try:
            made.token = await new_token(desk.program)
            for backend in (BACKEND, EVIL, GUARDED):
                await made.run(backend)
            for name in guarded:
                await desk.bao.remove(name)
            await made.run(GUARDED)
            # The configuration takes no such name; what was stored by other means is told all
            # the same.
            async with connected(desk.database) as admin:
                await admin.execute(
                    "UPDATE backends SET name = $1,"
                    " spec = jsonb_set(spec::jsonb, '{name}', to_jsonb($1::text))::text"
                    " WHERE backend_id = $2",
                    MARKUP,
                    EVIL,
                )
            yield made
        finally:
            await made.served.aclose()


@dataclass
class Seen:
    """What a browser did that it should not have."""

    origins: tuple[str, ...]
    strange: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext) -> None:
        context.on("request", self._request)
        context.on("console", self._console)
        context.on("weberror", lambda error: self.strange.append(f"broke: {error.error}"))

    def _request(self, request: Request) -> None:
        if not request.url.startswith(tuple(f"{origin}/" for origin in self.origins)):
            self.strange.append(f"asked elsewhere: {request.url}")
        if "token=" in request.url or "svt_" in request.url:
            self.strange.append("a token stood in an address")

    def _console(self, message: ConsoleMessage) -> None:
        # An answer that is no success is told by the browser itself, and is the test's to expect.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.strange.append(f"said: {message.text}")


@dataclass
class Door:
    """A browser of one person."""

    site: Site
    context: BrowserContext

    async def enter(self, place: str = "", *, token: str = "") -> Page:
        """A tab that is signed in, at a place in the console."""
        page = await self.context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        await page.goto(f"{self.site.url}/ui/#/{place}")
        await page.get_by_label("Token").fill(token or self.site.token)
        await page.get_by_role("button", name="Sign in", exact=True).click()
        await page.get_by_role("button", name="Sign out").wait_for()
        return page


async def see_no_change(context: BrowserContext) -> None:
    """What is told of a backend stays what it is told first, as between two looks at it."""
    first: list[APIResponse] = []

    async def same(route: Route) -> None:
        if not first:
            first.append(await route.fetch())
        await route.fulfill(response=first[0])

    await context.route("**/v1/federation/status?backend_ids=*", same)


@pytest_asyncio.fixture(loop_scope="session")
async def door(site: Site, browser: Browser) -> AsyncIterator[Door]:
    async with entering(site, browser) as opened:
        yield opened


@asynccontextmanager
async def entering(
    site: Site, browser: Browser, options: Mapping[str, Any] | None = None, *also: str
) -> AsyncIterator[Door]:
    """A browser whose deeds are watched; `options` of its context, `also` where it may ask."""
    context = await browser.new_context(
        **{"locale": "en-GB", "timezone_id": ZONE, **(options or {})}
    )
    seen = Seen((site.url, *also))
    seen.watch(context)
    try:
        yield Door(site, context)
        for page in context.pages:
            assert not await page.evaluate("localStorage.length + sessionStorage.length")
            assert "owned" not in await page.title()
    finally:
        await context.close()
    assert not seen.strange
