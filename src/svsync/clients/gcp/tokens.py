"""Access tokens: how an identity becomes one.

- a service account signs what it is, and Google's token endpoint gives a token for it
  (Using OAuth 2.0 for Server to Server Applications);
- workload identity federation exchanges a token of somebody else's, which stands in a
  file or is given by a URL, at Google's Security Token Service, and where a service
  account is named, asks for a token of that one (AIP-4117);
- a machine of Google's is given one by its metadata server (Compute Engine, "Authenticate
  workloads using service accounts").

What Google says of a refusal is compared with known words and never shown.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from google.auth import crypt, jwt

from svsync.clients.gcp.token_http import Said, TokenHttp
from svsync.domain.errors import ConfigError, LoginError
from svsync.domain.values import Credential, SecretValue

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_URL: Final = "https://oauth2.googleapis.com/token"
"""Where service accounts ask, and whom their assertion is made out to in any case."""
_STS_URL: Final = "https://sts.googleapis.com/v1/token"
_JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
_LASTS_S: Final = 3600
_CLOCK: Final = "reasonable timeframe"
"""By which a wrong clock is told from a wrong key: Google says `invalid_grant` of both."""
_ADC: Final = "GOOGLE_APPLICATION_CREDENTIALS"
_METADATA: Final = "/computeMetadata/v1/instance/service-accounts/default/token"


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and for how many seconds it was given."""

    text: SecretValue
    lasts: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """Asks for tokens. Raises LoginError, ConfigError, and what `TokenHttp` raises.

    Attributes:
        federated: identities may name files and addresses of this machine.
        clock: seconds since 1970, by which assertions are dated.
        environ: where a file of credentials, or another metadata server, is named.
    """

    http: TokenHttp
    federated: bool = False
    clock: Callable[[], float] = time.time
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    async def of(self, credential: Credential) -> Token:
        """For an identity that was given as a credential."""
        info = {key: _field(credential[key].reveal()) for key in credential}
        if info.get("type") == "external_account" and not self.federated:
            raise ConfigError(
                "workload identity federation names files and addresses of this machine: it is"
                " for backends of the operator's file; store a service account's key",
                where=credential.where,
            )
        return await self._of_info(info, credential.where)

    async def of_process(self) -> Token:
        """For this process's own identity."""
        file = self.environ.get(_ADC, "")
        if not file:
            return await self._of_machine()
        try:
            info = json.loads(await asyncio.to_thread(Path(file).read_text, encoding="utf-8"))
        except (OSError, ValueError):
            info = None
        if not isinstance(info, dict):
            raise LoginError(
                f"{_ADC} names no file of credentials that can be read: {file}",
                operation="login",
                sent=False,
            )
        return await self._of_info(info, file)

    async def _of_info(self, info: Mapping[str, Any], where: str) -> Token:
        match info.get("type"):
            case "service_account":
                return await self._of_service_account(info, where)
            case "external_account":
                return await self._of_federation(info, where)
        raise ConfigError(
            "the credential's field 'type' is neither service_account nor external_account:"
            " store the JSON key of a service account as Google gives it",
            where=where,
        )

    # --- a service account --------------------------------------------------------

    async def _of_service_account(self, info: Mapping[str, Any], where: str) -> Token:
        email = _require(info, "client_email", where)
        key_id = str(info.get("private_key_id") or "") or None
        now = int(self.clock())
        claims = {
            "iss": email,
            "scope": _SCOPE,
            "aud": _TOKEN_URL,
            "iat": now,
            "exp": now + _LASTS_S,
        }
        try:
            # A key of another kind is taken, and fails when it is to sign.
            signer = _signer_of(_require(info, "private_key", where), key_id)
            assertion = _signed(signer, claims)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ConfigError(
                "the credential's field 'private_key' is no RSA key in PEM", where=where
            ) from None
        said = await self.http.post(
            str(info.get("token_uri") or _TOKEN_URL),
            where=f"{where}: token_uri",
            form={"grant_type": _JWT_GRANT, "assertion": assertion},
        )
        if said.status == 400 and _CLOCK in str(said.json().get("error_description")):
            raise LoginError(
                "this machine's clock and that of Google are too far apart: set the clock, by NTP",
                operation="login",
                code="clock_skew",
                sent=False,
            )
        return _token_in(
            said,
            f"Google refuses the service account's key at {where}: it may be deleted or disabled;"
            " store a new one",
        )

    # --- federation ---------------------------------------------------------------

    async def _of_federation(self, info: Mapping[str, Any], where: str) -> Token:
        subject = await self._subject_token(info, where)
        said = await self.http.post(
            str(info.get("token_url") or _STS_URL),
            where=f"{where}: token_url",
            form={
                "grant_type": _EXCHANGE,
                "audience": _require(info, "audience", where),
                "scope": _SCOPE,
                "requested_token_type": _ACCESS_TOKEN,
                "subject_token": subject,
                "subject_token_type": _require(info, "subject_token_type", where),
            },
        )
        token = _token_in(
            said,
            "Google's token service refuses the token that this machine's identity provider"
            " gave: it may have expired, or the pool's provider does not take it",
        )
        url = info.get("service_account_impersonation_url")
        return await self._as_account(str(url), token, where) if url else token

    async def _subject_token(self, info: Mapping[str, Any], where: str) -> str:
        source = info.get("credential_source")
        source = source if isinstance(source, Mapping) else {}
        form = source.get("format")
        form = form if isinstance(form, Mapping) else {}
        if file := source.get("file"):
            try:
                text = await asyncio.to_thread(Path(str(file)).read_text, encoding="utf-8")
            except (OSError, ValueError):
                raise LoginError(
                    f"the token of this machine's identity provider cannot be read: {file}",
                    operation="login",
                    sent=False,
                ) from None
        elif url := source.get("url"):
            headers = source.get("headers")
            named = headers if isinstance(headers, Mapping) else {}
            said = await self.http.get(str(url), {str(k): str(v) for k, v in named.items()})
            text = said.text if said.status == 200 else ""
        else:
            raise ConfigError(
                "the credential's field 'credential_source' names neither a file nor a url:"
                " other sources are not served",
                where=where,
            )
        if form.get("type") == "json":
            field = Said(200, text).json().get(str(form.get("subject_token_field_name")))
            text = field if isinstance(field, str) else ""
        if not text.strip():
            raise LoginError(
                "this machine's identity provider gives no token where the credential's field"
                " 'credential_source' says",
                operation="login",
                sent=False,
            )
        return text.strip()

    async def _as_account(self, url: str, token: Token, where: str) -> Token:
        said = await self.http.post(
            url,
            where=f"{where}: service_account_impersonation_url",
            body={"scope": [_SCOPE], "lifetime": f"{_LASTS_S}s"},
            headers={"Authorization": f"Bearer {token.text.reveal()}"},
        )
        given = said.json().get("accessToken")
        if said.status != 200 or not isinstance(given, str) or not given:
            raise LoginError(
                "the federated identity may not act as the service account that is named:"
                " roles/iam.workloadIdentityUser on the account grants it",
                operation="login",
                status=said.status,
                sent=False,
            )
        return Token(SecretValue(given), _LASTS_S)

    # --- a machine of Google's ------------------------------------------------------

    async def _of_machine(self) -> Token:
        host = self.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
        said = await self.http.get(f"http://{host}{_METADATA}", {"Metadata-Flavor": "Google"})
        return _token_in(
            said,
            "this machine's metadata server gives no token: attach a service account to it, or"
            f" set config.credentials_path, or {_ADC}",
        )


_signer_of: Callable[[str, str | None], Any] = crypt.RSASigner.from_string
_encode: Callable[[Any, Mapping[str, object]], bytes] = jwt.encode


def _signed(signer: Any, claims: Mapping[str, object]) -> str:
    return _encode(signer, claims).decode()


def _field(text: str) -> Any:
    """A field of a credential: its text, or what its JSON stands for."""
    if text.startswith(("{", "[")):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _require(info: Mapping[str, Any], field: str, where: str) -> str:
    value = info.get(field)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"the credential has no field {field!r}", where=where)
    return value


def _token_in(said: Said, refused: str) -> Token:
    """The token of an answer; LoginError, in these words, where it holds none."""
    given = said.json()
    token, lasts = given.get("access_token"), given.get("expires_in")
    if said.status != 200 or not isinstance(token, str) or not token:
        raise LoginError(refused, operation="login", status=said.status, sent=False)
    try:
        seconds = float(lasts)  # type: ignore[arg-type]  # a text, or nothing, too
    except (TypeError, ValueError):
        seconds = _LASTS_S
    return Token(SecretValue(token), max(60.0, seconds))
