"""The stand-in for Cloud KMS does what Google's pages say, as the SDK's client sees it.

Pages are of docs.cloud.google.com/kms/docs, unless another is named.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import google_crc32c
import grpc
import pytest
import pytest_asyncio
from google.api_core import exceptions
from google.cloud.kms_v1 import KeyManagementServiceAsyncClient
from google.cloud.kms_v1.services.key_management_service.transports.grpc_asyncio import (
    KeyManagementServiceGrpcAsyncIOTransport,
)
from grpc import aio
from tests.gcp_kms import MOST, FakeKms

from svsync.embedded.openbao import TlsFiles

Call = Callable[..., Awaitable[Any]]
KEY = b"\x07" * 32
BOUND = b"the context"


@pytest_asyncio.fixture
async def token(cloud_kms: FakeKms) -> str:
    async with aiohttp.ClientSession() as session, session.post(cloud_kms.token_url) as answer:
        given: str = (await answer.json())["access_token"]
        return given


@pytest_asyncio.fixture
async def call(cloud_kms: FakeKms, tls_files: TlsFiles, token: str) -> AsyncIterator[Call]:
    """One call of the SDK's client as it is; `token` in place of the good one."""
    credentials = grpc.ssl_channel_credentials(tls_files.ca.read_bytes())
    target = f"localhost:{cloud_kms.port}"
    async with aio.secure_channel(target, credentials) as channel:
        transport = KeyManagementServiceGrpcAsyncIOTransport(channel=channel)
        client = KeyManagementServiceAsyncClient(transport=transport)

        async def made(method: str, *, by: str | None = token, **request: Any) -> Any:
            metadata = [] if by is None else [("authorization", f"Bearer {by}")]
            does = getattr(client, method)
            return await does(request=request, retry=None, timeout=20, metadata=metadata)

        yield made


async def sealed(call: Call, key: str, data: bytes = KEY, bound: bytes = BOUND) -> Any:
    return await call("encrypt", name=key, plaintext=data, additional_authenticated_data=bound)


# --- who asks ---------------------------------------------------------------------------


@pytest.mark.parametrize("by", [None, "of-nobody"])
async def test_request_without_a_good_token_is_unauthenticated(
    cloud_kms: FakeKms, call: Call, by: str | None
) -> None:
    """google.rpc.Code, UNAUTHENTICATED."""
    key = cloud_kms.add("root")
    for method, field in (("encrypt", "plaintext"), ("decrypt", "ciphertext")):
        with pytest.raises(exceptions.Unauthenticated):
            await call(method, by=by, name=key, **{field: b"x"})


async def test_credential_is_a_service_accounts_key(cloud_kms: FakeKms) -> None:
    """("Create and delete service account keys", docs.cloud.google.com/iam/docs)"""
    info = json.loads(cloud_kms.credential)
    assert info["type"] == "service_account"
    assert info["token_uri"] == cloud_kms.token_url
    assert info["private_key"].startswith("-----BEGIN PRIVATE KEY-----")


# --- Encrypt and Decrypt ------------------------------------------------------------------


async def test_what_was_sealed_opens_with_what_was_bound_and_with_nothing_else(
    cloud_kms: FakeKms, call: Call
) -> None:
    """("Additional authenticated data"; CryptoKeys, method decrypt)"""
    key, other = cloud_kms.add("root"), cloud_kms.add("other")
    said = await sealed(call, key)
    assert said.name.startswith(f"{key}/cryptoKeyVersions/")
    assert KEY not in said.ciphertext
    assert said.ciphertext != (await sealed(call, key)).ciphertext

    async def opened(name: str = key, data: bytes = said.ciphertext, bound: bytes = BOUND) -> Any:
        return await call(
            "decrypt", name=name, ciphertext=data, additional_authenticated_data=bound
        )

    assert (await opened()).plaintext == KEY
    for wrong in (
        opened(bound=b"another"),
        opened(bound=b""),
        opened(name=other),
        opened(data=said.ciphertext[:-1] + b"\x00"),
        opened(data=b"x"),
    ):
        with pytest.raises(exceptions.InvalidArgument):
            await wrong


async def test_key_that_is_not_there_is_not_found(cloud_kms: FakeKms, call: Call) -> None:
    """google.rpc.Code, NOT_FOUND."""
    key = cloud_kms.add("root")
    said = await sealed(call, key)
    with pytest.raises(exceptions.NotFound):
        await sealed(call, f"{key}-missing")
    with pytest.raises(exceptions.NotFound):
        await call("decrypt", name=f"{key}-missing", ciphertext=said.ciphertext)


async def test_key_that_is_disabled_is_used_for_nothing(cloud_kms: FakeKms, call: Call) -> None:
    """("Key version states")"""
    key = cloud_kms.add("root")
    said = await sealed(call, key)
    cloud_kms.disabled.add(key)
    with pytest.raises(exceptions.FailedPrecondition):
        await sealed(call, key)
    with pytest.raises(exceptions.FailedPrecondition):
        await call("decrypt", name=key, ciphertext=said.ciphertext)
    cloud_kms.disabled.clear()
    assert (await sealed(call, key)).ciphertext


@pytest.mark.parametrize(("data", "bound"), [(MOST + 1, 0), (1, MOST + 1)])
async def test_more_than_64_kib_is_not_taken(
    cloud_kms: FakeKms, call: Call, data: int, bound: int
) -> None:
    """(EncryptRequest, for keys of the level SOFTWARE)"""
    key = cloud_kms.add("root")
    with pytest.raises(exceptions.InvalidArgument):
        await sealed(call, key, b"x" * data, b"x" * bound)
    assert (await sealed(call, key, b"x" * min(data, MOST), b"x" * min(bound, MOST))).ciphertext


# --- checksums, by "Verify end-to-end data integrity" --------------------------------------


async def test_checksum_that_fits_is_told_to_be_verified_and_one_that_lacks_is_not(
    cloud_kms: FakeKms, call: Call
) -> None:
    key = cloud_kms.add("root")
    said = await call(
        "encrypt",
        name=key,
        plaintext=KEY,
        plaintext_crc32c=google_crc32c.value(KEY),
        additional_authenticated_data=BOUND,
    )
    assert said.verified_plaintext_crc32c
    assert not said.verified_additional_authenticated_data_crc32c
    assert said.ciphertext_crc32c == google_crc32c.value(said.ciphertext)
    back = await call(
        "decrypt", name=key, ciphertext=said.ciphertext, additional_authenticated_data=BOUND
    )
    assert back.plaintext_crc32c == google_crc32c.value(KEY)


@pytest.mark.parametrize("field", ["plaintext", "additional_authenticated_data"])
async def test_checksum_that_does_not_fit_is_refused(
    cloud_kms: FakeKms, call: Call, field: str
) -> None:
    key = cloud_kms.add("root")
    given = {"plaintext": KEY, "additional_authenticated_data": BOUND, f"{field}_crc32c": 1}
    with pytest.raises(exceptions.InvalidArgument):
        await call("encrypt", name=key, **given)
    said = await sealed(call, key)
    with pytest.raises(exceptions.InvalidArgument):
        await call("decrypt", name=key, ciphertext=said.ciphertext, ciphertext_crc32c=1)


async def test_what_is_damaged_or_not_verified_shows_by_its_checksums(
    cloud_kms: FakeKms, call: Call
) -> None:
    key = cloud_kms.add("root")
    cloud_kms.damage = cloud_kms.unverified = True
    said = await call("encrypt", name=key, plaintext=KEY, plaintext_crc32c=google_crc32c.value(KEY))
    assert said.ciphertext_crc32c != google_crc32c.value(said.ciphertext)
    assert not said.verified_plaintext_crc32c
