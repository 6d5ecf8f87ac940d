"""A small Entra over TLS on loopback: it publishes a directory's keys and signs tokens.

It answers as its pages say: where the keys are stands in the directory's own configuration
[OpenID Connect on the Microsoft identity platform, identity-platform/v2-protocols-oidc]; a
token of version 1 names who signed in as `appid` and one of version 2 as `azp` [Access token
claims reference, identity-platform/access-token-claims-reference]; a key may say whose tokens
it is for [Access tokens, identity-platform/access-tokens].
"""

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import trustme
from aiohttp import web
from tests.scaikey import Key, joined

DIRECTORY: Final = "72f988bf-86f1-41af-91ab-2d7cd011db47"
OTHER: Final = "00000000-1111-2222-3333-444444444444"
AUDIENCE: Final = "api://svsync"
EVENT_GRID_APP: Final = "4962773b-9cdb-44cf-a8bf-237846a00ab7"
PINNED: Final = {
    "feed": "azure-eventgrid",
    "entra_tenant_id": DIRECTORY,
    "entra_audience": AUDIENCE,
    "entra_app_id": EVENT_GRID_APP,
}


@dataclass
class Entra:
    """The directories, which share their keys, as those of the public cloud do.

    Attributes:
        url: where it answers, over TLS.
        tls: trusts its certificate.
        keys: that it publishes now; the first signs.
        key_issuer: whose tokens the keys say that they are for; None: they do not say.
        status: of its answers.
        asked: paths that were asked for.
    """

    tls: ssl.SSLContext
    url: str = ""
    keys: list[Key] = field(default_factory=lambda: [Key.new("one", "RS256")])
    key_issuer: str | None = None
    status: int = 200
    asked: list[str] = field(default_factory=list)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Of Event Grid, version 2; None takes a claim away."""
        now = int(time.time())
        said: dict[str, Any] = {
            "iss": f"https://login.microsoftonline.com/{DIRECTORY}/v2.0",
            "aud": AUDIENCE,
            "tid": DIRECTORY,
            "azp": EVENT_GRID_APP,
            "iat": now - 300,
            "nbf": now - 300,
            "exp": now + 86400,
            "ver": "2.0",
        } | changes
        return {name: value for name, value in said.items() if value is not None}

    def token(self, key: Key | None = None, **changes: Any) -> str:
        key = key or self.keys[0]
        about = {"alg": key.algorithm, "kid": key.kid, "typ": "JWT"}
        return joined(about, self.claims(**changes), key.sign)

    def version_1(self, **changes: Any) -> str:
        """A token of version 1."""
        old = {"iss": f"https://sts.windows.net/{DIRECTORY}/", "azp": None, "ver": "1.0"}
        return self.token(**old | {"appid": EVENT_GRID_APP} | changes)

    @property
    def keys_asked(self) -> int:
        return sum(path.endswith("/keys") for path in self.asked)

    async def _discovery(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        directory = request.match_info["directory"]
        about = {
            "issuer": f"{self.url}/{directory}/v2.0",
            "jwks_uri": f"{self.url}/{directory}/discovery/v2.0/keys",
        }
        return web.json_response(about, status=self.status)

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        said = {} if self.key_issuer is None else {"issuer": self.key_issuer}
        return web.json_response({"keys": [k.jwk | said for k in self.keys]}, status=self.status)


@cache
def _certified() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server shows, and what trusts it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return server, trusting


@asynccontextmanager
async def open_entra() -> AsyncIterator[Entra]:
    """One on a free port."""
    server, trusting = _certified()
    entra = Entra(trusting)
    app = web.Application()
    app.add_routes(
        [
            web.get("/{directory}/v2.0/.well-known/openid-configuration", entra._discovery),
            web.get("/{directory}/discovery/v2.0/keys", entra._keys),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server).start()
        entra.url = f"https://localhost:{runner.addresses[0][1]}"
        yield entra
    finally:
        await runner.cleanup()
