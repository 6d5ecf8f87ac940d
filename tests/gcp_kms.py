"""Cloud KMS's Encrypt and Decrypt, and the endpoint that gives tokens for them: gRPC over TLS
on localhost, below the real client.

Each rule names the page of Google's documentation that it follows.
"""

import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import google_crc32c
import grpc
from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud.kms_v1.types import (
    DecryptRequest,
    DecryptResponse,
    EncryptRequest,
    EncryptResponse,
)

from svsync.embedded.openbao import TlsFiles

RING: Final = "projects/acme/locations/europe-west3/keyRings/svsync/cryptoKeys"
MOST: Final = 64 * 1024
_NAME: Final = "google.cloud.kms.v1.KeyManagementService"


@dataclass
class FakeKms:
    """Where it listens, and what a person changes in it."""

    port: int = 0
    token_url: str = ""
    keys: dict[str, AESGCM] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    damage: bool = False
    """Answers lose a bit on their way."""
    unverified: bool = False
    """The checksums that were sent did not arrive."""
    _tokens: set[str] = field(default_factory=set)

    def add(self, name: str) -> str:
        """A new key; its resource name."""
        self.keys[f"{RING}/{name}"] = AESGCM(AESGCM.generate_key(256))
        return f"{RING}/{name}"

    @property
    def credential(self) -> str:
        """A service account's key, as Google gives it."""
        return json.dumps(
            {
                "type": "service_account",
                "project_id": "acme",
                "private_key_id": "k1",
                "private_key": _private_key(),
                "client_email": "svsync@acme.iam.gserviceaccount.com",
                "token_uri": self.token_url,
            }
        )

    async def token(self, _: web.Request) -> web.Response:
        """[Using OAuth 2.0 for Server to Server Applications]"""
        made = secrets.token_urlsafe(24)
        self._tokens.add(made)
        return web.json_response({"access_token": made, "expires_in": 3599, "token_type": "Bearer"})

    async def encrypt(self, asked: EncryptRequest, call: Any) -> EncryptResponse:
        """[Method: cryptoKeys.encrypt, kms/docs/reference/rest]"""
        key = await self._key(asked.name, call)
        aad = asked.additional_authenticated_data
        checked = await self._check(asked, "plaintext", call)
        aad_checked = await self._check(asked, "additional_authenticated_data", call)
        nonce = os.urandom(12)
        made = nonce + key.encrypt(nonce, asked.plaintext, aad)
        return EncryptResponse(
            name=f"{asked.name}/cryptoKeyVersions/1",
            ciphertext=self._sent(made),
            ciphertext_crc32c=google_crc32c.value(made),
            verified_plaintext_crc32c=checked and not self.unverified,
            verified_additional_authenticated_data_crc32c=aad_checked and not self.unverified,
        )

    async def decrypt(self, asked: DecryptRequest, call: Any) -> DecryptResponse:
        """[Method: cryptoKeys.decrypt]; what does not open is INVALID_ARGUMENT
        [Additional authenticated data, kms/docs/additional-authenticated-data]."""
        key = await self._key(asked.name, call)
        aad = asked.additional_authenticated_data
        await self._check(asked, "ciphertext", call)
        await self._check(asked, "additional_authenticated_data", call)
        try:
            plain = key.decrypt(asked.ciphertext[:12], asked.ciphertext[12:], aad)
        except (InvalidTag, ValueError):
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed")
        return DecryptResponse(
            plaintext=self._sent(plain), plaintext_crc32c=google_crc32c.value(plain)
        )

    def _sent(self, data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:] if self.damage else data

    async def _key(self, name: str, call: Any) -> AESGCM:
        self.calls.append(name)
        told = dict(call.invocation_metadata())
        if told.get("authorization", "").removeprefix("Bearer ") not in self._tokens:
            await call.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        if name not in self.keys:
            await call.abort(grpc.StatusCode.NOT_FOUND, f"CryptoKey {name} not found")
        if name in self.disabled:
            # [Key version states, kms/docs/key-states]
            await call.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{name} is not enabled")
        return self.keys[name]

    @staticmethod
    async def _check(asked: Any, field: str, call: Any) -> bool:
        """Was a checksum sent? One that does not fit is INVALID_ARGUMENT [Verifying end-to-end
        data integrity, kms/docs/data-integrity-guidelines], as is more than 64 KiB of a text to
        be sealed or of what is bound to it (EncryptRequest)."""
        data, sent = getattr(asked, field), f"{field}_crc32c" in asked
        if field != "ciphertext" and len(data) > MOST:
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{field} is too long")
        if sent and getattr(asked, f"{field}_crc32c") != google_crc32c.value(data):
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "the checksum does not match")
        return sent


@cache
def _private_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _served(
    does: Callable[[Any, Any], Awaitable[Any]], asked: Any, answered: Any
) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        does,
        request_deserializer=asked.deserialize,
        response_serializer=answered.serialize,
    )


@asynccontextmanager
async def fake_cloud_kms(tls: TlsFiles) -> AsyncIterator[FakeKms]:
    """Listens on localhost until the block ends."""
    fake = FakeKms()
    server = grpc.aio.server()
    methods = {
        "Encrypt": _served(fake.encrypt, EncryptRequest, EncryptResponse),
        "Decrypt": _served(fake.decrypt, DecryptRequest, DecryptResponse),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_NAME, methods)])
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    fake.port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    app = web.Application()
    app.router.add_post("/token", fake.token)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await server.start()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        fake.token_url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
        yield fake
    finally:
        await runner.cleanup()
        await server.stop(None)
