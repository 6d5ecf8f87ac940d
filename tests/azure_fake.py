"""Servers that stand in for Azure, below the real SDK: vaults and Entra over HTTPS under
their real names, and the metadata service of a machine.

Pages are named as in `tests.azure_vault`.
"""

import base64
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from typing import Any, Final

import jwt
import trustme
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from tests.azure_vault import Json, Refusal, Vault

AUTHORITY: Final = "login.microsoftonline.com"
RESOURCE: Final = "https://vault.azure.net"
TENANT: Final = "72f988bf-86f1-41af-91ab-2d7cd011db47"
OTHER_TENANT: Final = "00000000-1111-2222-3333-444444444444"
CLIENT: Final = "11111111-2222-3333-4444-555555555555"
SECRET: Final = "canary-of-a-client-secret"
LASTS: Final = 3600

Handler = Callable[[web.Request], web.StreamResponse | Awaitable[web.StreamResponse]]


@dataclass
class Entra:
    """Who signs in, and what has been given out.

    Attributes:
        applications: secrets by client id.
        certificate: PEM of the public certificate that the application has; None: none.
        federated: assertions that are taken, as a token file holds them.
        identities: client ids of the machine's identities; "" the one it has by itself.
        ahead: seconds by which Entra's clock is ahead of ours.
        refuses: an AADSTS number that every sign-in ends in.
        forms: what was asked.
    """

    tenant: str = TENANT
    applications: dict[str, str] = field(default_factory=lambda: {CLIENT: SECRET})
    certificate: bytes | None = None
    federated: set[str] = field(default_factory=set)
    identities: set[str] = field(default_factory=lambda: {""})
    ahead: int = 0
    lasts: int = LASTS
    status: int = 0
    refuses: int = 0
    forms: list[dict[str, str]] = field(default_factory=list)
    issued: set[str] = field(default_factory=set)

    def issue(self, tenant: str) -> str:
        """A token, which tells whose it is by `tid` [Access token claims reference,
        identity-platform/access-token-claims-reference]."""
        claims = {"tid": tenant, "n": len(self.forms)}
        middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        token = f"e30.{middle}.signature"
        self.issued.add(token)
        return token

    def revoke(self) -> None:
        self.issued.clear()

    def sign_in(self, tenant: str, form: dict[str, str]) -> tuple[int, Json]:
        """[Microsoft identity platform and the OAuth 2.0 client credentials flow,
        identity-platform/v2-oauth2-client-creds-grant-flow]"""
        self.forms.append(form)
        if self.status:
            return self.status, {}
        if number := self.refuses or self._refusal(tenant, form):
            # [Microsoft Entra authentication and authorization error codes,
            # identity-platform/reference-error-codes]
            told = f"AADSTS{number}: it is told here why, and of {form.get('client_id')}"
            body = {"error": "invalid_client", "error_description": told, "error_codes": [number]}
            return 401 if number == 7000215 else 400, body
        return 200, {
            "token_type": "Bearer",
            "expires_in": self.lasts,
            "access_token": self.issue(tenant),
        }

    def _refusal(self, tenant: str, form: dict[str, str]) -> int:
        if tenant != self.tenant:
            return 90002
        if form.get("client_id") not in self.applications:
            return 700016
        if "client_secret" in form:
            return 0 if form["client_secret"] == self.applications[form["client_id"]] else 7000215
        assertion = form.get("client_assertion", "")
        if assertion in self.federated:
            return 0
        if self.certificate is None:
            return 700213
        try:
            self._verify(assertion)
        except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
            return 700024
        except jwt.InvalidTokenError:
            return 700027
        return 0

    def _verify(self, assertion: str) -> None:
        """[Microsoft identity platform application authentication certificate credentials,
        identity-platform/certificate-credentials]"""
        assert self.certificate is not None
        key: Any = x509.load_pem_x509_certificate(self.certificate).public_key()
        jwt.decode(
            assertion,
            key,
            algorithms=["RS256", "PS256"],
            options={"verify_aud": False, "require": ["exp", "nbf", "iss", "sub"]},
            leeway=-self.ahead if self.ahead else 0,
        )

    def of_machine(self, client: str) -> tuple[int, Json]:
        """[How to use managed identities on a VM to get a token,
        managed-identities-azure-resources/how-to-use-vm-token]"""
        self.forms.append({"client_id": client})
        if self.status:
            return self.status, {"error": "temporarily"}
        if client not in self.identities:
            return 400, {"error": "invalid_request", "error_description": "Identity not found"}
        return 200, {
            "access_token": self.issue(self.tenant),
            "expires_in": str(self.lasts),
            "resource": RESOURCE,
            "token_type": "Bearer",
        }


class Pin(AbstractResolver):
    """Every name is the fake's address; aiohttp connects to the port that is told."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[str] = []
        self.unknown: set[str] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host in self.unknown:
            raise OSError(socket.EAI_NONAME, "Name or service not known")
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=self.port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class AzureFake:
    """All servers.

    Attributes:
        pem: the authority that signed their certificate.
        seen: what vaults were asked, `METHOD /path`, calls without a token included.
        rules: what is answered otherwise, the first that matches such a line.
        machine_url: of the metadata service.
        challenge: told in place of the right one.
        on_loopback: the vault that is imitated as `localhost`, Entra beside it.
    """

    pem: str
    resolver: Pin
    entra: Entra = field(default_factory=Entra)
    vaults: dict[str, Vault] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    rules: list[tuple[re.Pattern[str], Handler]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    bodies: list[Json] = field(default_factory=list)
    machine_url: str = ""
    challenge: str = ""
    on_loopback: Vault | None = None

    def vault(self, name: str, tenant: str = TENANT) -> Vault:
        return self.vaults.setdefault(name, Vault(name, tenant))

    def answer(self, pattern: str, handler: Handler) -> None:
        self.rules.append((re.compile(pattern), handler))

    def refuse_as(
        self, pattern: str, status: int, code: str = "", inner: str = "", **headers: str
    ) -> None:
        body = Refusal(status, code, inner).body
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self.answer(pattern, lambda _: web.json_response(body, status=status, headers=named))

    def calls(self, pattern: str) -> int:
        """With a token, and matching."""
        return sum(bool(re.search(pattern, line)) for line in self.seen)

    async def over_tls(self, request: web.BaseRequest) -> web.StreamResponse:
        host = (request.host or "").partition(":")[0].lower()
        signs_in = request.path.endswith("/oauth2/v2.0/token")
        if host == AUTHORITY or (host == "localhost" and signs_in):
            return await self._entra(request)
        name, _, rest = host.partition(".")
        if host == "localhost" and self.on_loopback is not None:
            return await self._vault(self.on_loopback, request)
        if rest != "vault.azure.net" or name not in self.vaults:
            return web.Response(status=404, text="no such host")
        return await self._vault(self.vaults[name], request)

    async def _entra(self, request: web.BaseRequest) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        if request.path.endswith("/.well-known/openid-configuration"):
            base = f"https://{AUTHORITY}/{parts[0]}"
            return web.json_response({"token_endpoint": f"{base}/oauth2/v2.0/token"})
        if parts[1:] != ["oauth2", "v2.0", "token"]:
            return web.Response(status=404)
        form = {key: str(text) for key, text in (await request.post()).items()}
        status, body = self.entra.sign_in(parts[0], form)
        return web.json_response(body, status=status)

    async def _vault(self, vault: Vault, request: web.BaseRequest) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        line = f"{request.method} {request.path}"
        headers = {"Date": formatdate(vault.now, usegmt=True)}
        if token not in self.entra.issued or _tenant_of(token) != vault.tenant:
            # [Authentication, requests and responses,
            # key-vault/general/authentication-requests-and-responses]
            challenge = self.challenge or (
                f'Bearer authorization="https://{AUTHORITY}/{vault.tenant}", resource="{RESOURCE}"'
            )
            return web.json_response(
                Refusal(401, "Unauthorized").body,
                status=401,
                headers={**headers, "WWW-Authenticate": challenge},
            )
        self.seen.append(line)
        self.tokens.append(token)
        for pattern, handler in self.rules:
            if pattern.search(line):
                made = handler(request)  # type: ignore[arg-type]
                return made if isinstance(made, web.StreamResponse) else await made
        return await self.forward(request)

    async def forward(self, request: web.BaseRequest) -> web.StreamResponse:
        """What the vault itself answers."""
        vault = self.vaults.get(request.host.partition(".")[0].lower()) or self.on_loopback
        assert vault is not None
        raw = await request.read()
        body = json.loads(raw) if raw else {}
        if body:
            self.bodies.append(body)
        try:
            told = vault.handle(request.method, request.path, request.query, body)
            status = 204 if told is None else 200
        except Refusal as refusal:
            status, told = refusal.status, refusal.body
        headers = {"Date": formatdate(vault.now, usegmt=True)}
        if told is None:
            return web.Response(status=status, headers=headers)
        return web.json_response(told, status=status, headers=headers)

    async def on_machine(self, request: web.BaseRequest) -> web.StreamResponse:
        client = request.query.get("client_id", "")
        if request.path == "/metadata/identity/oauth2/token":
            if request.headers.get("Metadata") != "true":
                return web.json_response({"error": "bad_request"}, status=400)
        # [How to use managed identities for App Service, app-service/overview-managed-identity]
        elif request.path != "/msi/token" or request.headers.get("X-IDENTITY-HEADER") != "header":
            return web.Response(status=404)
        if request.query.get("resource") != RESOURCE:
            return web.json_response({"error": "invalid_resource"}, status=400)
        status, body = self.entra.of_machine(client)
        return web.json_response(body, status=status)


def _tenant_of(token: str) -> str:
    middle = token.split(".")[1]
    claims: Json = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return str(claims["tid"])


@cache
def _certified() -> tuple[str, ssl.SSLContext]:
    """An authority's PEM, and a certificate of its for the names that are imitated."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("*.vault.azure.net", AUTHORITY, "localhost").configure_cert(context)
    return authority.cert_pem.bytes().decode(), context


@asynccontextmanager
async def open_fake() -> AsyncIterator[AzureFake]:
    """Servers on loopback, ended with the block."""
    pem, context = _certified()
    fake = AzureFake(pem, Pin(0))
    runners = [web.ServerRunner(web.Server(h)) for h in (fake.over_tls, fake.on_machine)]
    try:
        ports = []
        for runner, tls in zip(runners, (context, None), strict=True):
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            ports.append(runner.addresses[0][1])
        fake.resolver.port = ports[0]
        fake.machine_url = f"http://127.0.0.1:{ports[1]}"
        yield fake
    finally:
        for runner in runners:
            await runner.cleanup()
