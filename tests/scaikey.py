"""A small ScaiKey on loopback: it publishes keys and signs tokens, and can be made to fail."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
AUDIENCE: Final = "scaivault"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int, size: int | None = None) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8))


@dataclass(frozen=True)
class Key:
    """A key pair of the issuer."""

    kid: str
    algorithm: str
    private: Private

    @classmethod
    def new(cls, kid: str, algorithm: str = "EdDSA", *, bits: int = 2048) -> "Key":
        match algorithm:
            case "RS256":
                return cls(kid, algorithm, rsa.generate_private_key(65537, bits))
            case "ES256":
                return cls(kid, algorithm, ec.generate_private_key(ec.SECP256R1()))
            case _:
                return cls(kid, algorithm, ed25519.Ed25519PrivateKey.generate())

    @property
    def jwk(self) -> dict[str, Any]:
        """As it is published."""
        about = {"kid": self.kid, "alg": self.algorithm, "use": "sig"}
        match self.private.public_key():
            case rsa.RSAPublicKey() as public:
                numbers = public.public_numbers()
                return about | {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
            case ec.EllipticCurvePublicKey() as public:
                point = public.public_numbers()
                x, y = _number(point.x, 32), _number(point.y, 32)
                return about | {"kty": "EC", "crv": "P-256", "x": x, "y": y}
            case ed25519.Ed25519PublicKey() as public:
                return about | {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}
            case _:
                raise AssertionError

    @property
    def pem(self) -> bytes:
        """The public half, as people pass it around."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, data: bytes) -> bytes:
        match self.private:
            case rsa.RSAPrivateKey() as key:
                return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
            case ec.EllipticCurvePrivateKey() as curve:
                r, s = decode_dss_signature(curve.sign(data, ec.ECDSA(hashes.SHA256())))
                return r.to_bytes(32) + s.to_bytes(32)
            case edwards:
                return edwards.sign(data)


def joined(header: dict[str, Any], payload: bytes | dict[str, Any], sign: Any) -> str:
    """A token of any header and payload; `sign` makes its signature."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    text = f"{b64(json.dumps(header).encode())}.{b64(body)}"
    return f"{text}.{b64(sign(text.encode()))}"


def hmac_sign(secret: bytes) -> Any:
    return lambda data: hmac.new(secret, data, hashlib.sha256).digest()


@dataclass
class ScaiKey:
    """The issuer.

    Attributes:
        elsewhere: another address at which it answers.
        keys: that it publishes now; the first signs.
        published: what it publishes in place of those, if anything.
        status: of its answers.
        now: the moment at which its tokens are made.
        asked: paths that were asked for.
        announced: where it says that its keys are; None: where they are.
        named: who it says that it is; None: itself.
        headers: of what it says of itself.
        says: of itself besides, as where people sign in.
    """

    url: str = ""
    elsewhere: str = ""
    now: Callable[[], int] = lambda: int(time.time())
    keys: list[Key] = field(default_factory=lambda: [Key.new("one")])
    published: Any = None
    status: int = 200
    asked: list[str] = field(default_factory=list)
    announced: str | None = None
    named: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=dict)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Of a user of the default tenant; None takes a claim away."""
        now = self.now()
        said: dict[str, Any] = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ada",
            "iat": now - 30,
            "nbf": now - 30,
            "exp": now + 3600,
            "tenant": "default",
            "scope": "openid secrets:read",
        } | changes
        return {name: value for name, value in said.items() if value is not None}

    def token(self, key: Key | None = None, **changes: Any) -> str:
        """A token with these claims in place of the usual ones."""
        key = key or self.keys[0]
        about = {"alg": key.algorithm, "kid": key.kid, "typ": "JWT"}
        return joined(about, self.claims(**changes), key.sign)

    @property
    def jwks_asked(self) -> int:
        """How often its keys were asked for."""
        return self.asked.count("/keys")

    async def _discovery(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        about = {"issuer": self.named or self.url, "jwks_uri": self.announced or f"{self.url}/keys"}
        return web.json_response(about | self.says, status=self.status, headers=self.headers)

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        shown = self.published
        if shown is None:
            shown = {"keys": [key.jwk for key in self.keys]}
        if isinstance(shown, bytes):
            return web.Response(body=shown, status=self.status)
        return web.json_response(shown, status=self.status)


@asynccontextmanager
async def open_scaikey(*more: web.RouteDef) -> AsyncIterator[ScaiKey]:
    """One on a free port, with routes of the test's own."""
    issuer = ScaiKey()
    app = web.Application()
    app.add_routes(
        [
            web.get("/.well-known/openid-configuration", issuer._discovery),
            web.get("/keys", issuer._keys),
            *more,
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        # Another address of this machine, for what is announced elsewhere.
        await web.TCPSite(runner, "127.0.0.2", port).start()
        issuer.url, issuer.elsewhere = f"http://127.0.0.1:{port}", f"http://127.0.0.2:{port}"
        yield issuer
    finally:
        await runner.cleanup()
