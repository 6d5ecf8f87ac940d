"""A Key Vault with keys alone, and the Entra that signs in to it: HTTPS on localhost, below the
real SDK.

Each rule names the page of Microsoft's documentation that it follows. It is a vault on
loopback, so nothing of it is checked against Azure's own names.
"""

import base64
import json
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from svsync.embedded.openbao import TlsFiles

TENANT: Final = "72f988bf-86f1-41af-91ab-2d7cd011db47"
CLIENT: Final = "5f2e0d34-7c11-4c5e-9d6c-0d9f6d1f6a10"
SECRET: Final = "the-client-secret-of-nobody"
CREDENTIAL: Final = json.dumps({"tenant_id": TENANT, "client_id": CLIENT, "client_secret": SECRET})
_OAEP: Final = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


@dataclass
class Key:
    """One key with its versions, the newest last."""

    versions: dict[str, rsa.RSAPrivateKey] = field(default_factory=dict)
    enabled: bool = True
    operations: tuple[str, ...] = ("wrapKey", "unwrapKey")

    def rotate(self) -> str:
        """A new version; its name."""
        version = secrets.token_hex(16)
        self.versions[version] = rsa.generate_private_key(65537, 2048)
        return version


@dataclass
class FakeVault:
    """Where it listens, and what a person changes in it. `seen`: method and path of each call."""

    url: str = ""
    keys: dict[str, Key] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    fault: int = 0
    """A status that each call to a key is answered with."""
    _tokens: set[str] = field(default_factory=set)

    def add(self, name: str) -> Key:
        self.keys[name] = key = Key()
        key.rotate()
        return key

    async def token(self, request: web.Request) -> web.Response:
        """Client credentials [Microsoft identity platform and the OAuth 2.0 client credentials
        flow, identity-platform/v2-oauth2-client-creds-grant-flow]."""
        form = await request.post()
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, SECRET):
            told = {
                "error": "invalid_client",
                "error_description": f"AADSTS7000215: Invalid client secret {SECRET} provided.",
            }
            return web.json_response(told, status=401)
        made = secrets.token_urlsafe(24)
        self._tokens.add(made)
        return web.json_response({"token_type": "Bearer", "expires_in": 3599, "access_token": made})

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append(f"{request.method} {request.path}")
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self._tokens:
            # Without a token the vault says where one is to be had [Authentication, requests
            # and responses, key-vault/general/authentication-requests-and-responses].
            asks = f'Bearer authorization="{self.url}/{TENANT}", resource="https://vault.azure.net"'
            return web.json_response(
                {"error": {"code": "Unauthorized", "message": "no token"}},
                status=401,
                headers={"WWW-Authenticate": asks},
            )
        if not request.query.get("api-version"):
            return _error(400, "BadParameter")
        if self.fault:
            return _error(self.fault, "Throttled" if self.fault == 429 else "InternalServerError")
        found = self.keys.get(request.match_info["name"])
        version = request.match_info.get("version") or (found and list(found.versions)[-1])
        if found is None or version not in found.versions:
            return _error(404, "KeyNotFound")
        if request.method == "GET":
            return web.json_response(self._shown(request.match_info["name"], found, version))
        return await self._unwrap(request, found, version)

    def _shown(self, name: str, key: Key, version: str) -> dict[str, Any]:
        """[Get Key, rest/api/keyvault/keys/get-key]"""
        public = key.versions[version].public_key().public_numbers()
        return {
            "key": {
                "kid": f"{self.url}/keys/{name}/{version}",
                "kty": "RSA",
                "key_ops": list(key.operations),
                "n": _base64url(public.n.to_bytes(256, "big")),
                "e": _base64url(public.e.to_bytes(3, "big")),
            },
            "attributes": {"enabled": key.enabled, "created": 1, "updated": 1},
        }

    async def _unwrap(self, request: web.Request, key: Key, version: str) -> web.Response:
        """[Unwrap Key, rest/api/keyvault/keys/unwrap-key]; a disabled key is not used, and a key
        only for its operations [About keys, key-vault/keys/about-keys-details, "Key attributes"
        and "Key access control"]."""
        if not key.enabled:
            return _error(403, "Forbidden", "KeyDisabled")
        if "unwrapKey" not in key.operations:
            # Seen in azure-sdk-for-net issue 11518, of another operation.
            return _error(403, "Forbidden", "KeyOperationForbidden")
        asked = await request.json()
        if asked.get("alg") != "RSA-OAEP-256":
            return _error(400, "BadParameter")
        try:
            plain = key.versions[version].decrypt(_from_base64url(asked["value"]), _OAEP)
        except ValueError:
            return _error(400, "BadParameter")
        kid = f"{self.url}{request.path.removesuffix('/unwrapkey')}"
        return web.json_response({"kid": kid, "value": _base64url(plain)})


def _error(status: int, code: str, inner: str = "") -> web.Response:
    """[Azure Key Vault REST API error codes, key-vault/general/rest-error-codes]"""
    error: dict[str, Any] = {"code": code, "message": f"{SECRET} is never shown"}
    if inner:
        error["innererror"] = {"code": inner}
    return web.json_response({"error": error}, status=status)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@asynccontextmanager
async def fake_key_vault(tls: TlsFiles) -> AsyncIterator[FakeVault]:
    """Listens on localhost until the block ends."""
    fake = FakeVault()
    app = web.Application()
    app.router.add_post(f"/{TENANT}/oauth2/v2.0/token", fake.token)
    app.router.add_route("*", "/keys/{name}", fake.handle)
    app.router.add_route("*", "/keys/{name}/{version}", fake.handle)
    app.router.add_route("*", "/keys/{name}/{version}/unwrapkey", fake.handle)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.certificate, tls.key)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        fake.url = f"https://localhost:{runner.addresses[0][1]}"
        yield fake
    finally:
        await runner.cleanup()
