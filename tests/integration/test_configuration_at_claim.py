"""A run works by the configuration that is in force once it holds the lease."""

from typing import Any

import pytest
from tests.house import House, failure

from svsync.domain.federation import OnRemoteDelete, RuleSpec
from svsync.domain.guards import Allow
from svsync.store import queue


async def change_before_the_claim(
    house: House, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> None:
    """Another process brings a new configuration in just before the lease is taken."""
    claim = queue.claim

    async def claim_late(*args: Any, **settings: Any) -> Any:
        monkeypatch.setattr(queue, "claim", claim)
        await house.configure(**changes)
        return await claim(*args, **settings)

    monkeypatch.setattr(queue, "claim", claim_late)


async def test_deletion_that_was_switched_off_before_the_claim_deletes_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.configure(on_remote_delete=OnRemoteDelete.SOFT_DELETE)
    for name in "ab":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    house.there.remove("kv/a")
    await change_before_the_claim(house, monkeypatch, on_remote_delete=OnRemoteDelete.RETAIN)
    assert failure(await house.run(allow=Allow())) is None
    assert await house.paths() == ["ext/a", "ext/b"]


async def test_rules_that_changed_before_the_claim_are_those_of_the_run(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await change_before_the_claim(house, monkeypatch, rules=(RuleSpec("ext/a", "kv/a"),))
    assert failure(await house.run()) is None
    assert await house.paths() == ["ext/a"]
