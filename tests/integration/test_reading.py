"""The audited read path: what is decided, found, recorded and answered."""

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.api import ROBOT, Front, front
from tests.house import TENANT, house

from svsync.domain.access import Call, Scope, token_name
from svsync.domain.ids import LocalPath
from svsync.domain.policies import ADMIN
from svsync.services.answers import Secret
from svsync.services.authority import Rights
from svsync.services.reading import Reading
from svsync.services.recording import Access

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


async def test_who_was_known_and_is_no_more_is_counted_among_the_strangers(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    text = await front.token(Scope.ADMIN)
    client = front.client.with_token(text)
    for _ in range(2):
        assert (await client.get("/v1/secrets/app/a")).status == 200
    named = token_name(text)
    assert named is not None
    await front.access.revoke(*named)
    assert (await client.get("/v1/secrets/app/a")).told == (401, "unauthenticated")
    await front.house.app.strangers.record()
    [failed] = [row for row in await logs(front) if row["action"] == "auth.fail"]
    told = json.loads(failed["detail"])
    assert (failed["source_ip"], told) == (
        "127.0.0.1",
        {"count": 1, "codes": {"unauthenticated": 1}},
    )


async def reader(front: Front, room: int) -> Callable[[str], Awaitable[Secret]]:
    """Reads with so many bytes for ciphertexts."""
    app = front.house.app
    caller = await front.access.verify(front.client.token or "")
    call, rights = Call(caller, "req_1", "127.0.0.1"), Rights(caller, ADMIN, math.inf)
    reading = Reading(app.db, app.recorder, app.sealing, app.proxying, room=room)

    async def read(path: str) -> Secret:
        return await reading.read(call, rights, LocalPath(path), None, fresh=True)

    return read


async def test_a_ciphertext_that_is_dropped_while_its_read_is_recorded_is_answered(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"app/{n}" for n in range(20)]
    for name in names:
        await front.house.write(name, {"k": "x" * 1000})
    read = await reader(front, room=16 * 1100)
    await read(names[0])
    submit = front.house.app.recorder.submit

    async def overtaken(access: Access) -> None:
        monkeypatch.undo()
        await submit(access)
        for name in names[1:]:
            await read(name)

    monkeypatch.setattr(front.house.app.recorder, "submit", overtaken)
    assert b"x" * 1000 in (await read(names[0])).body


async def test_metadata_counts_for_the_room_that_it_takes(front: Front) -> None:
    app = front.house.app
    for n in range(3):
        await front.house.write(f"app/{n}", {"k": "1"}, description="d" * 4000, owner="o")
    for n in range(3):
        answer = await front.client.get(f"/v1/secrets/app/{n}")
        assert answer.body["metadata"]["description"] == "d" * 4000
    assert app.reading._bytes > 3 * 4000
