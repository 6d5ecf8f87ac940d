"""Does ScaiKey sign people in, with a code that is of use to nobody else?"""

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from aiohttp import web
from playwright.async_api import Browser, expect
from tests.acceptance.conftest import open_desk
from tests.acceptance.serving import serving
from tests.console.conftest import Door, Site, entering
from tests.scaikey import ScaiKey, joined, open_scaikey

from svsync.embedded.openbao import OpenBaoServer
from svsync.embedded.postgres import EmbeddedPostgres

pytestmark = pytest.mark.asyncio(loop_scope="session")

_OPEN = {"Access-Control-Allow-Origin": "*"}


@dataclass
class Counter:
    """Where ScaiKey asks who somebody is: it is always Ada, and she agrees.

    Attributes:
        asked, answered: what the two endpoints were sent.
        nonce: in place of the one that was asked for.
        state: in place of the one that was sent along.
    """

    issuer: ScaiKey | None = None
    asked: dict[str, str] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)
    nonce: str | None = None
    state: str | None = None

    async def authorize(self, request: web.Request) -> web.Response:
        self.asked = dict(request.query)
        said = urlencode({"code": "one-code", "state": self.state or self.asked["state"]})
        return web.Response(
            status=302, headers={"Location": f"{self.asked['redirect_uri']}?{said}"}
        )

    async def token(self, request: web.Request) -> web.Response:
        assert self.issuer is not None
        form = {name: values[0] for name, values in parse_qs(await request.text()).items()}
        self.answered = form
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if form["code"] != "one-code" or challenge != self.asked["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400, headers=_OPEN)
        nonce = {"nonce": self.nonce or self.asked["nonce"]}
        told = {
            "access_token": self.issuer.token(scope="federation:read"),
            "id_token": joined({"alg": "none"}, nonce, lambda _: b""),
        }
        return web.json_response(told, headers=_OPEN)


@dataclass
class Place:
    site: Site
    counter: Counter
    door: Door


@asynccontextmanager
async def place(
    postgres: EmbeddedPostgres, openbao: OpenBaoServer, folder: Path, browser: Browser
) -> AsyncIterator[Place]:
    counter = Counter()
    routes = (web.get("/authorize", counter.authorize), web.post("/token", counter.token))
    async with open_scaikey(*routes) as issuer, open_desk(postgres, openbao, folder) as desk:
        counter.issuer = issuer
        issuer.headers = _OPEN
        issuer.says = {
            "authorization_endpoint": f"{issuer.url}/authorize",
            "token_endpoint": f"{issuer.url}/token",
        }
        changes: Any = {
            "SCAIKEY_URL": issuer.url,
            "SVSYNC_ALLOW_LOOPBACK": "true",
            "SVSYNC_CONSOLE_CLIENT_ID": "svsync-console",
        }
        async with serving(desk.program, **changes) as served:
            at = {"BIND_ADDRESS": urlsplit(served.url).netloc}
            site = Site(desk, "", at, served)
            async with entering(site, browser, None, issuer.url) as door:
                yield Place(site, counter, door)


async def test_code_of_scaikey_becomes_a_visit_and_leaves_nothing_behind(
    postgres: EmbeddedPostgres, openbao: OpenBaoServer, tmp_path: Path, browser: Browser
) -> None:
    async with place(postgres, openbao, tmp_path, browser) as here:
        page = await here.door.context.new_page()
        await page.goto(f"{here.site.url}/ui/")
        await page.get_by_role("button", name="Sign in with ScaiKey").click()
        await expect(page.get_by_text("user:ada · default")).to_be_visible()
        asked: dict[str, Any] = here.counter.asked
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        assert asked["client_id"] == here.counter.answered["client_id"] == "svsync-console"
        assert asked["redirect_uri"] == f"{here.site.url}/ui/"
        assert page.url == f"{here.site.url}/ui/"
        assert await page.evaluate("sessionStorage.length") == 0

        # Whoever brings a code that was not asked for here gets nowhere.
        before = here.counter.answered
        await page.goto(f"{here.site.url}/ui/?code=one-code&state=of-somebody")
        await expect(page.get_by_role("alert")).to_contain_text("not begun in this tab")
        assert here.counter.answered is before
        assert page.url == f"{here.site.url}/ui/"

        for name, told in (("state", "not begun in this tab"), ("nonce", "another sign-in")):
            setattr(here.counter, name, "of-another")
            await page.get_by_role("button", name="Sign in with ScaiKey").click()
            await expect(page.get_by_role("alert")).to_contain_text(told)
            setattr(here.counter, name, None)

        assert here.counter.issuer is not None
        here.counter.issuer.says["token_endpoint"] = "https://elsewhere.example.com/token"
        await page.get_by_role("button", name="Sign in with ScaiKey").click()
        await expect(page.get_by_role("alert")).to_contain_text("says that it is somebody else")
