"""The audited read path: what is decided, found, recorded and answered."""

import json
from typing import Any

from tests.api import ROBOT, Front, front
from tests.house import TENANT, house

from svsync.domain.access import Scope

__all__ = ["front", "house"]


async def logs(front: Front) -> list[Any]:
    return await front.house.admin.fetch("SELECT * FROM audit ORDER BY chain_id, seq")


async def allow(front: Front, pattern: str, *permissions: str, identity: str = ROBOT.id) -> None:
    admin = front.house.admin
    await admin.execute(
        "INSERT INTO policies (tenant_id, policy_id, name) VALUES ($1, 'pol_1', 'one')"
        " ON CONFLICT DO NOTHING",
        TENANT,
    )
    await admin.execute(
        "INSERT INTO policy_rules SELECT $1, 'pol_1', count(*), $2, $3 FROM policy_rules",
        TENANT, pattern, list(permissions),
    )  # fmt: skip
    await admin.execute(
        "INSERT INTO bindings (tenant_id, policy_id, identity_type, identity_id)"
        " VALUES ($1, 'pol_1', 'service_account', $2) ON CONFLICT DO NOTHING",
        TENANT, identity,
    )  # fmt: skip
    await admin.execute("UPDATE tenants SET auth_epoch = auth_epoch + 1")


async def test_secret_is_read_and_recorded(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    answer = await front.client.get("/v1/secrets/app/a")
    assert answer.status == 200
    assert answer.body["data"] == {"k": "1"}
    assert answer.headers["ETag"] == '"v1"'
    [row] = await logs(front)
    assert (row["action"], row["secret_path"], row["decision"]) == ("secret.read", "app/a", "allow")
    assert (row["identity_id"], row["version"]) == (ROBOT.id, 1)
    assert row["request_id"] == answer.headers["X-Request-Id"]
    assert json.loads(answer.body["data"]["k"]) == 1


async def test_without_a_policy_nothing_is_read_and_nothing_is_told(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    client = front.client.with_token(await front.token(Scope.SECRETS_READ))
    there = await client.get("/v1/secrets/app/a")
    missing = await client.get("/v1/secrets/app/b")
    assert there.told == missing.told == (404, "secret_not_found")
    assert [row["decision"] for row in await logs(front)] == ["deny", "deny"]


async def test_policy_taken_away_counts_for_the_next_read(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    await allow(front, "app/**", "read")
    client = front.client.with_token(await front.token(Scope.SECRETS_READ))
    for _ in range(3):
        assert (await client.get("/v1/secrets/app/a")).status == 200
    await front.house.admin.execute("DELETE FROM policies")
    await front.house.admin.execute("UPDATE tenants SET auth_epoch = auth_epoch + 1")
    assert (await client.get("/v1/secrets/app/a")).status == 404
