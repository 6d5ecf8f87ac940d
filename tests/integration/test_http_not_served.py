"""Routes of other parts of ScaiVault: told as such, to whoever has a token."""

import pytest
from tests.api import Front, front
from tests.house import house

from svsync.domain.access import Scope

__all__ = ["front", "house"]


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/v1/rotation", "rotation policies"),
        ("/v1/rotation/policies/rot_api-key-90d/assign", "rotation policies"),
        ("/v1/dynamic/engines/db/creds/reader", "dynamic engines"),
        ("/v1/pki/cas", "PKI"),
        ("/v1/transit/encrypt/key", "transit"),
        ("/v1/certificates/c1", "certificate storage"),
    ],
)
async def test_it_is_one_sentence_by_any_method(front: Front, path: str, word: str) -> None:
    client = front.client.with_token(await front.token(Scope.SECRETS_READ))
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        answer = await client.call(method, path)
        assert answer.told == (404, "not_served_here")
        assert word in answer.body["error"]["message"]


async def test_without_a_token_nothing_is_told(front: Front) -> None:
    assert (await front.client.with_token(None).get("/v1/pki/cas")).status == 401


@pytest.mark.parametrize("path", ["/v1/rotations", "/v1/x/pki", "/v2/pki", "/pki", "/v1"])
async def test_other_paths_are_not_found_as_ever(front: Front, path: str) -> None:
    assert (await front.client.get(path)).told == (404, "not_found")
