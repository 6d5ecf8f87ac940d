"""A stand-in for what gives access tokens: Google's token endpoint, its Security Token
Service, the credentials service of IAM, and a machine's metadata server. HTTP over TLS,
told apart by the name that is asked for; the metadata server in the clear, as it is.
"""

import json
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ACCOUNT: Final = "svsync@acme.iam.gserviceaccount.com"
AUDIENCE: Final = (
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/p"
)
ACCOUNTS: Final = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts"
_TOKEN_URL: Final = "https://oauth2.googleapis.com/token"
_JWT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
CANARY: Final = "canary-of-gcp-tokens"


@dataclass(frozen=True)
class Key:
    """A service account's key pair."""

    private: rsa.RSAPrivateKey

    @classmethod
    def make(cls) -> "Key":
        return cls(rsa.generate_private_key(65537, 2048))

    def json(self, **changes: Any) -> str:
        """As Google gives it ("Create and delete service account keys")."""
        pem = self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        info = {
            "type": "service_account",
            "project_id": "acme",
            "private_key_id": "k1",
            "private_key": pem.decode(),
            "client_email": ACCOUNT,
            "client_id": "1",
            "token_uri": _TOKEN_URL,
        } | changes
        return json.dumps({name: one for name, one in info.items() if one is not None})


def federation(source: dict[str, Any], **changes: Any) -> str:
    """A configuration of workload identity federation (AIP-4117)."""
    info = {
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": source,
    }
    return json.dumps(info | changes)


@dataclass
class FakeTokens:
    """Gives tokens, each into `given`, which Secret Manager takes.

    Attributes:
        key: whose assertions are good.
        subjects: tokens of the machine's identity provider that are exchanged.
        lasts: seconds for which a token is given.
        asked: `host path`, each request.
        federated: tokens that STS gave; what they may do by themselves is up to the test.
        may_act: the federated identity may act as the service account.
        fault: status and body with which every request ends, where it is set.
        skew: seconds by which this side's clock is ahead.
    """

    key: Key
    given: set[str]
    subjects: set[str] = field(default_factory=set)
    lasts: int = 3600
    asked: list[str] = field(default_factory=list)
    federated: set[str] = field(default_factory=set)
    may_act: bool = True
    fault: tuple[int, str] | None = None
    skew: float = 0.0
    metadata: str = ""
    _numbers: Any = field(default_factory=lambda: count(1))

    def _give(self) -> str:
        token = f"ya29.{CANARY}.{next(self._numbers)}"
        self.given.add(token)
        return token

    async def answer(self, request: web.Request) -> web.StreamResponse:
        host = request.host.partition(":")[0]
        self.asked.append(f"{host} {request.path}")
        if self.fault is not None:
            status, body = self.fault
            moved = {"Location": "https://elsewhere.example.com/"} if 300 <= status < 400 else {}
            return web.Response(status=status, text=body, headers=moved)
        if host == "oauth2.googleapis.com":
            return self._of_assertion(dict(await request.post()))
        if host == "sts.googleapis.com":
            return self._of_subject(dict(await request.post()))
        if host == "iamcredentials.googleapis.com":
            return await self._of_account(request)
        if request.headers.get("Metadata-Flavor") == "Google":
            return self._token()
        return web.Response(status=403)

    def _token(self, **more: str) -> web.Response:
        token = {"access_token": self._give(), "expires_in": self.lasts, "token_type": "Bearer"}
        return web.json_response(token | more)

    def _of_assertion(self, form: dict[str, Any]) -> web.Response:
        """An assertion of an hour at most, made out to this endpoint; a clock that is wrong
        and a key that is unknown are both `invalid_grant` ("Using OAuth 2.0 for Server to
        Server Applications")."""
        try:
            claims = jwt.decode(
                form["assertion"],
                self.key.private.public_key(),
                algorithms=["RS256"],
                audience=_TOKEN_URL,
                options={"verify_exp": False, "verify_iat": False},
            )
        except (jwt.InvalidTokenError, KeyError):
            return _refused("invalid_grant", f"Invalid JWT Signature. {CANARY}")
        now = time.time() + self.skew
        if not claims["iat"] - 60 <= now <= claims["exp"] <= claims["iat"] + 3600:
            said = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a"
            return _refused("invalid_grant", f"{said} reasonable timeframe. {CANARY}")
        good = form["grant_type"] == _JWT and claims["iss"] == ACCOUNT and claims["scope"]
        return self._token() if good else _refused("invalid_grant", CANARY)

    def _of_subject(self, form: dict[str, Any]) -> web.Response:
        """RFC 8693, as AIP-4117 has it."""
        good = (
            form.get("grant_type") == _EXCHANGE
            and form.get("audience") == AUDIENCE
            and form.get("subject_token") in self.subjects
            and form.get("subject_token_type") == "urn:ietf:params:oauth:token-type:jwt"
        )
        if not good:
            return _refused("invalid_grant", f"The given credential is stale. {CANARY}")
        answer = self._token(issued_token_type="urn:ietf:params:oauth:token-type:access_token")
        token = json.loads(answer.text or "{}")["access_token"]
        self.federated.add(token)
        return answer

    async def _of_account(self, request: web.Request) -> web.Response:
        """`generateAccessToken` (IAM Service Account Credentials API)."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        body = await request.json()
        named = re.fullmatch(
            rf"/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken", request.path
        )
        if not (self.may_act and named and token in self.federated and body["scope"]):
            return web.json_response({"error": {"message": CANARY}}, status=403)
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return web.json_response({"accessToken": self._give(), "expireTime": until})


def _refused(error: str, description: str) -> web.Response:
    return web.json_response({"error": error, "error_description": description}, status=400)


@asynccontextmanager
async def giving(fake: FakeTokens, tls: ssl.SSLContext) -> AsyncIterator[int]:
    """The fake on a port of loopback, and its metadata server on another."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        secured = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await secured.start()
        plain = web.TCPSite(runner, "127.0.0.1", 0)
        await plain.start()
        ports = [int(address[1]) for address in runner.addresses]
        fake.metadata = f"127.0.0.1:{ports[1]}"
        yield ports[0]
    finally:
        await runner.cleanup()
