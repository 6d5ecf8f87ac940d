"""Are keys told of by age and state, and nothing that is the operator's?"""

import asyncio
import json

import pytest
from tests.api import Front
from tests.house import TENANT

from svsync.domain.access import Scope
from svsync.domain.ids import KeyId
from svsync.services.keys import AT_ONCE
from svsync.store import rewrapping
from svsync.store.database import Transaction
from svsync.store.rewrapping import Named

KEYS = "/v1/keys"


async def test_keys_are_told_with_age_state_and_what_they_seal(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    await front.house.app.keys.rotate(TENANT)
    await front.house.write("app/b", {"k": "1"})
    await front.house.admin.execute("UPDATE data_keys SET created_at = now() - interval '1 day'")
    keys = (await front.client.get(KEYS)).body["keys"]
    root, *data = keys
    assert (root["kind"], root["state"], root["wrapped_by"]) == ("root", "active", None)
    values = [key for key in data if key["purpose"] == "value"]
    assert [key["state"] for key in values] == ["decrypt_only", "active"]
    assert [key["sealed"] for key in values] == [1, 1]
    assert {key["wrapped_by"] for key in data} == {root["id"]}
    assert all(86_400 <= key["age_s"] < 90_000 for key in data)


async def test_nothing_that_wraps_a_root_key_is_told(front: Front) -> None:
    await front.house.admin.execute("UPDATE root_keys SET kms_ref = 'kms:somewhere'")
    told = json.dumps((await front.client.get(KEYS)).body)
    [row] = await front.house.rows("root_keys")
    assert "kms:somewhere" not in told
    assert row["wrapped"].hex() not in told


async def test_another_tenant_sees_its_own_data_keys_alone(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    stranger = front.client.with_token(await front.other_tenant())
    assert {key["kind"] for key in (await stranger.get(KEYS)).body["keys"]} == {"root"}


async def test_a_process_counts_what_so_many_seal_at_once_and_goes_on_after_them(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, all_wait = asyncio.Event(), asyncio.Event()
    waiting: list[int] = []
    count = rewrapping.count

    async def hold(tx: Transaction) -> dict[KeyId, Named]:
        waiting.append(tx.tenant)
        if len(waiting) == AT_ONCE:
            all_wait.set()
        if len(waiting) <= AT_ONCE:
            await go.wait()
        return await count(tx)

    monkeypatch.setattr(rewrapping, "count", hold)
    asked = [asyncio.create_task(front.client.get(KEYS)) for _ in range(AT_ONCE)]
    await all_wait.wait()
    one_more = await front.client.get(KEYS)
    go.set()
    assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
    assert one_more.status == 503
    assert one_more.code == "overloaded"
    assert (await front.client.get(KEYS)).status == 200


async def test_no_lesser_scope_is_told_of_keys(front: Front) -> None:
    lesser = front.client.with_token(await front.token(*(set(Scope) - {Scope.ADMIN})))
    assert (await lesser.get(KEYS)).told == (403, "forbidden")


async def test_that_keys_were_looked_at_is_recorded(front: Front) -> None:
    await front.client.get(KEYS)
    assert (await front.house.row("audit", action="keys.status"))["decision"] == "allow"
