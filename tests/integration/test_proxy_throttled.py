"""Reads that pass through to a backend that asks for fewer calls, or fails for a moment."""

import pytest
from tests.api import Front, front
from tests.house import house

from svsync.domain.errors import BackendUnreachableError, SvsyncError, ThrottledError
from svsync.domain.federation import Mode

__all__ = ["front", "house"]

URL = "/v1/secrets/ext/a"


async def test_a_long_pause_is_told_at_once_and_not_waited_for(front: Front) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    house.there.fail("read", ThrottledError("slow down", operation="read", retry_after=30))
    answer = await front.client.get(URL)
    assert (answer.told, answer.headers["Retry-After"]) == ((502, "throttled"), "30")
    assert house.there.calls["read"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        ThrottledError("slow down", operation="read"),
        BackendUnreachableError("reset", operation="read"),
    ],
)
async def test_a_moment_is_passed_over(front: Front, fault: SvsyncError) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    house.there.fail("read", fault)
    assert (await front.client.get(URL)).status == 200
    assert house.there.calls["read"] == 2
