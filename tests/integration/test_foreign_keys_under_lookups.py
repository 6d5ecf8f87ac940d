"""How does a run's transaction find the rows that its new rows name?"""

from typing import Any

import pytest
from tests.house import House

from svsync.store.database import Transaction

ANEW = ("force_custom_plan", "on")
KEPT_AND_BY_INDEX = ("auto", "off")


async def test_foreign_keys_are_looked_up_by_one_plan_and_all_else_is_planned_anew(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: dict[str, tuple[str, ...]] = {}

    for verb in ("fetch", "execute"):
        original = getattr(Transaction, verb)

        async def told(
            self: Transaction, name: str, *args: object, original: Any = original
        ) -> Any:
            settings = await self._connection.fetchrow(
                "SELECT current_setting('plan_cache_mode'), current_setting('enable_seqscan')"
            )
            assert settings is not None
            planned[name] = tuple(settings)
            return await original(self, name, *args)

        monkeypatch.setattr(Transaction, verb, told)
    for name in ("a", "b", "c"):
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    assert planned["secrets.create"] == planned["secrets.add_versions"] == KEPT_AND_BY_INDEX
    assert planned["pairs.load_new"] == planned["pairs.upsert"] == ANEW
