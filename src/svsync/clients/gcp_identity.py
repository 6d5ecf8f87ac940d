"""Who svsync is in Google Cloud, as Vault's `gcp` login wants it proved: by a JWT for
`vault/ROLE`. Needs nothing of Google's SDK.

Whose key signs it:

- a service account's own, where its JSON key is given, or `GOOGLE_APPLICATION_CREDENTIALS`
  names one: signed here ("Google Cloud auth method", vault/docs/auth/gcp, "Generating JWTs").
- Google's, for the machine: the identity token of the metadata server ("Verify the identity
  of a VM", compute/docs/instances/verifying-instance-identity).
- Google's, for a service account that this process may sign as: IAM's signJwt ("Method:
  projects.serviceAccounts.signJwt", iam/docs/reference/credentials/rest/v1).
"""

import asyncio
import base64
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from svsync.domain.errors import BackendUnreachableError, ConfigError, LoginError
from svsync.domain.values import Credential, SecretValue
from svsync.network import NetworkPolicy, guarded_connector, tls_context

IAM_URL: Final = "https://iamcredentials.googleapis.com"
_METADATA_HOST: Final = "metadata.google.internal"
_ACCOUNT: Final = "/computeMetadata/v1/instance/service-accounts/default/"
_FLAVOR: Final = {"Metadata-Flavor": "Google"}
"""Sent with each question, and told with each answer, of a metadata server."""
_SECONDS: Final = 300
"""How long a JWT is good for: less than the quarter of an hour that a role allows."""
_MAX_ANSWER: Final = 64 * 1024
_TIMEOUT_S: Final = 10.0
_OWN: Final = "svsync's own identity in Google Cloud"
_JWT: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


class GcpAttestor:
    """See `ports.Attestor`.

    Args:
        sign_as: the service account that IAM is asked to sign as; empty: the machine's
            own identity token. Neither counts where there is a key.
        iam_url: where IAM is, for tests.
        now: seconds since 1970, for the times in a JWT.
        environ: where a key or another metadata server is named.
    """

    def __init__(
        self,
        sign_as: str,
        policy: NetworkPolicy,
        *,
        iam_url: str = IAM_URL,
        now: Callable[[], float] = time.time,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._sign_as = sign_as
        self._policy = policy
        self._iam_url = iam_url
        self._now = now
        self._environ = environ

    async def attest(self, role: str, credential: Credential | None) -> Credential:
        key = credential or await self._named_key()
        if key is not None:
            claims = self._claims(role, key.require("client_email").reveal())
            return _proof(_signed(claims, key), key.where)
        if self._sign_as:
            return _proof(await self._signed_by_iam(role), _OWN)
        # The form that Vault's documentation gives for a machine's token.
        audience = quote(f"http://vault/{role}", safe="")
        token = await self._ask_metadata(f"identity?audience={audience}&format=full")
        return _proof(token.strip(), _OWN)

    def _claims(self, role: str, account: str) -> dict[str, str | int]:
        now = int(self._now())
        return {"sub": account, "aud": f"vault/{role}", "iat": now, "exp": now + _SECONDS}

    async def _named_key(self) -> Credential | None:
        """The key of a service account that the environment names, read anew each time."""
        name = self._environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        if not name:
            return None
        try:
            text = await asyncio.to_thread(Path(name).read_text, encoding="utf-8")
        except (OSError, ValueError):
            raise LoginError(
                "the file that GOOGLE_APPLICATION_CREDENTIALS names cannot be read",
                operation="login",
                sent=False,
            ) from None
        return Credential.parse(text, "GOOGLE_APPLICATION_CREDENTIALS")

    async def _signed_by_iam(self, role: str) -> str:
        told = _object(await self._ask_metadata("token"))
        token = told.get("access_token")
        if not isinstance(token, str):
            raise _no_identity()
        account = quote(self._sign_as, safe="@")
        connector = guarded_connector(
            self._policy, "", tls=tls_context(True, self._policy), limit=1
        )
        status, _, text = await _ask(
            connector,
            "POST",
            f"{self._iam_url}/v1/projects/-/serviceAccounts/{account}:signJwt",
            {"Authorization": f"Bearer {token}"},
            {"payload": json.dumps(self._claims(role, self._sign_as))},
        )
        signed = _object(text).get("signedJwt") if status == 200 else None
        if not isinstance(signed, str):
            raise LoginError(
                f"IAM does not sign as {self._sign_as}: grant this machine's service account"
                " roles/iam.serviceAccountTokenCreator on it, and let its scopes include"
                " cloud-platform",
                operation="login",
                status=status,
                sent=False,
            )
        return signed

    async def _ask_metadata(self, question: str) -> str:
        """Its address is one that no backend may have; it is asked only for who we are."""
        host = self._environ.get("GCE_METADATA_HOST") or _METADATA_HOST
        status, headers, text = await _ask(
            aiohttp.TCPConnector(limit=1), "GET", f"http://{host}{_ACCOUNT}{question}", _FLAVOR
        )
        if status != 200 or headers.get("Metadata-Flavor") != "Google":
            raise _no_identity()
        return text


def attestor(config: Mapping[str, object], policy: NetworkPolicy) -> GcpAttestor:
    """As a Vault backend's configuration says."""
    return GcpAttestor(str(config.get("gcp_service_account", "")), policy)


def _proof(jwt: str, where: str) -> Credential:
    if not _JWT.fullmatch(jwt):
        raise LoginError("what was signed is no JWT", operation="login", sent=False)
    return Credential({"jwt": SecretValue(jwt)}, where)


def _signed(claims: Mapping[str, str | int], key: Credential) -> str:
    """A JWT by the private key of a service account. Raises ConfigError naming where the
    key is from."""
    header = {"alg": "RS256", "typ": "JWT", "kid": key.require("private_key_id").reveal()}
    pem = key.require("private_key").reveal().encode()
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, rsa.RSAPrivateKey):
        raise ConfigError(
            "the field 'private_key' is no RSA key of a service account", where=key.where
        )
    text = f"{_part(header)}.{_part(claims)}"
    signature = private.sign(text.encode(), padding.PKCS1v15(), SHA256())
    return f"{text}.{_bare(signature)}"


def _part(content: Mapping[str, object]) -> str:
    return _bare(json.dumps(content, separators=(",", ":")).encode())


def _bare(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def _ask(
    connector: aiohttp.TCPConnector,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: object = None,
) -> tuple[int, Mapping[str, str], str]:
    """One call: its status, headers and text. Raises BackendUnreachableError."""
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            ) as http,
            http.request(method, url, headers=headers, json=body, allow_redirects=False) as answer,
        ):
            raw = await answer.content.read(_MAX_ANSWER + 1)
            while len(raw) <= _MAX_ANSWER and (more := await answer.content.read(_MAX_ANSWER)):
                raw += more
            status = answer.status
            if len(raw) > _MAX_ANSWER or status >= 500:
                raise _away(status)
            return status, answer.headers, raw.decode()
    except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError):
        raise _away() from None


def _away(status: int | None = None) -> BackendUnreachableError:
    return BackendUnreachableError(
        "Google's metadata server or IAM does not tell who svsync is: outside of Google Cloud"
        " give a service account's key by config.auth_config_path",
        operation="login",
        status=status,
        sent=False,
    )


def _no_identity() -> LoginError:
    return LoginError(
        "this machine has no service account in Google Cloud: give it one, or a key by"
        " config.auth_config_path",
        operation="login",
        sent=False,
    )


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
