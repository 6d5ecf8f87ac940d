"""What the stand-in for a Key Vault's keys does, rule by rule.

Each test names the page that its rule is from, [title, path below learn.microsoft.com/azure
or rest/api/keyvault/keys]; where none says it, where it was seen.
"""

import base64
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tests.azure_keys import CLIENT, SECRET, TENANT, FakeVault

from svsync.embedded.openbao import TlsFiles

OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
KEY = b"\x07" * 32


def text_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def bytes_of(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Caller:
    """Calls with a token, unless there is none."""

    vault: FakeVault
    session: aiohttp.ClientSession
    token: str = ""

    async def sign_in(self, secret: str = SECRET) -> tuple[int, Any]:
        form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": secret}
        url = f"{self.vault.url}/{TENANT}/oauth2/v2.0/token"
        async with self.session.post(url, data=form) as answer:
            return answer.status, await answer.json()

    async def call(
        self, method: str, path: str, body: Any = None, *, version: str = "7.4"
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        url = f"{self.vault.url}{path}?api-version={version}"
        async with self.session.request(method, url, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def unwrap(self, path: str, wrapped: bytes, alg: str = "RSA-OAEP-256") -> tuple[int, Any]:
        return await self.call("POST", f"{path}/unwrapkey", {"alg": alg, "value": text_of(wrapped)})


@pytest_asyncio.fixture
async def caller(key_vault: FakeVault, tls_files: TlsFiles) -> AsyncIterator[Caller]:
    tls = ssl.create_default_context(cafile=str(tls_files.ca))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
        made = Caller(key_vault, session)
        made.token = (await made.sign_in())[1]["access_token"]
        yield made


def told(answer: tuple[int, Any]) -> tuple[int, str]:
    """Status and the innermost code."""
    status, body = answer
    error = body["error"]
    return status, error.get("innererror", error)["code"]


async def shown(caller: Caller, path: str = "/keys/root") -> tuple[str, Any]:
    """The path of the version that is told, and its public half."""
    status, body = await caller.call("GET", path)
    assert status == 200
    n, e = (int.from_bytes(bytes_of(body["key"][one]), "big") for one in ("n", "e"))
    address: str = body["key"]["kid"]
    return address.removeprefix(caller.vault.url), rsa.RSAPublicNumbers(e, n).public_key()


# --- who asks ---------------------------------------------------------------------------


async def test_secret_that_is_right_gives_a_token_and_another_one_none(caller: Caller) -> None:
    """[The OAuth 2.0 client credentials flow, entra/identity-platform/
    v2-oauth2-client-creds-grant-flow; Microsoft Entra authentication and authorization error
    codes, entra/identity-platform/reference-error-codes]"""
    status, body = await caller.sign_in()
    assert (status, body["token_type"]) == (200, "Bearer")
    assert body["expires_in"] > 0
    status, body = await caller.sign_in("another")
    assert (status, body["error"]) == (401, "invalid_client")
    assert "AADSTS7000215" in body["error_description"]


@pytest.mark.parametrize("token", ["", "of-nobody"])
async def test_call_without_a_token_is_told_where_to_get_one(caller: Caller, token: str) -> None:
    """[Authentication, requests and responses,
    key-vault/general/authentication-requests-and-responses]"""
    caller.vault.add("root")
    caller.token = token
    url = f"{caller.vault.url}/keys/root?api-version=7.4"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with caller.session.get(url, headers=headers) as answer:
        assert answer.status == 401
        challenge = answer.headers["WWW-Authenticate"]
    assert f'authorization="{caller.vault.url}/{TENANT}"' in challenge
    assert 'resource="https://vault.azure.net"' in challenge


# --- [Get Key] --------------------------------------------------------------------------


async def test_key_is_told_by_its_public_half_and_the_newest_version(caller: Caller) -> None:
    key = caller.vault.add("root")
    first, _ = await shown(caller)
    newest = key.rotate()
    path, public = await shown(caller)
    assert re.fullmatch(r"/keys/root/[0-9a-f]{32}", path)
    assert path == f"/keys/root/{newest}" != first
    assert public.public_numbers() == key.versions[newest].public_key().public_numbers()
    old, _ = await shown(caller, first)
    assert old == first, "a version that is named is told"


async def test_key_tells_what_it_may_be_used_for_and_whether_it_is_enabled(
    caller: Caller,
) -> None:
    """[About keys, key-vault/keys/about-keys-details: key attributes, key access control]"""
    key = caller.vault.add("root")
    key.enabled, key.operations = False, ("sign",)
    _, body = await caller.call("GET", "/keys/root")
    assert (body["key"]["kty"], body["key"]["key_ops"]) == ("RSA", ["sign"])
    assert body["attributes"]["enabled"] is False
    assert "d" not in body["key"], "never the private half"


@pytest.mark.parametrize("path", ["/keys/none", f"/keys/root/{'0' * 32}"])
async def test_what_is_not_there_is_not_found(caller: Caller, path: str) -> None:
    """[Azure Key Vault REST API error codes, key-vault/general/rest-error-codes]"""
    caller.vault.add("root")
    assert told(await caller.call("GET", path)) == (404, "KeyNotFound")
    assert told(await caller.unwrap(path, b"x")) == (404, "KeyNotFound")


async def test_call_names_the_version_of_the_interface(caller: Caller) -> None:
    """[Authentication, requests and responses: api-version]"""
    caller.vault.add("root")
    assert told(await caller.call("GET", "/keys/root", version="")) == (400, "BadParameter")


# --- [Unwrap Key] -----------------------------------------------------------------------


async def test_version_that_wrapped_unwraps_and_another_one_does_not(caller: Caller) -> None:
    key = caller.vault.add("root")
    first, public = await shown(caller)
    wrapped = public.encrypt(KEY, OAEP)
    second = f"/keys/root/{key.rotate()}"
    status, body = await caller.unwrap(first, wrapped)
    assert (status, bytes_of(body["value"])) == (200, KEY)
    assert body["kid"] == f"{caller.vault.url}{first}"
    assert told(await caller.unwrap(second, wrapped)) == (400, "BadParameter")
    assert told(await caller.unwrap(first, wrapped[:-1] + b"\x00")) == (400, "BadParameter")


async def test_another_algorithm_does_not_unwrap(caller: Caller) -> None:
    """[JsonWebKeyEncryptionAlgorithm, in Unwrap Key]"""
    caller.vault.add("root")
    path, public = await shown(caller)
    wrapped = public.encrypt(KEY, OAEP)
    assert told(await caller.unwrap(path, wrapped, "RSA9000")) == (400, "BadParameter")


async def test_key_that_is_disabled_or_not_for_it_does_not_unwrap(caller: Caller) -> None:
    """Seen in azure-sdk-for-python issue 45342 and azure-sdk-for-net issue 11518."""
    key = caller.vault.add("root")
    path, public = await shown(caller)
    wrapped = public.encrypt(KEY, OAEP)
    key.enabled = False
    assert told(await caller.unwrap(path, wrapped)) == (403, "KeyDisabled")
    key.enabled, key.operations = True, ("wrapKey",)
    assert told(await caller.unwrap(path, wrapped)) == (403, "KeyOperationForbidden")


@pytest.mark.parametrize(
    ("status", "code"), [(429, "Throttled"), (500, "InternalServerError"), (503, "")]
)
async def test_fault_is_told_as_an_error_of_key_vault(
    caller: Caller, status: int, code: str
) -> None:
    """[Azure Key Vault REST API error codes]"""
    caller.vault.add("root")
    caller.vault.fault = status
    for answer in (await caller.call("GET", "/keys/root"), await caller.unwrap("/keys/root", b"")):
        assert answer[0] == status
        assert code in answer[1]["error"]["code"]
