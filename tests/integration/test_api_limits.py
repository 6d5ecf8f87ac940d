"""Who calls too often waits; who fails to sign in is in the audit log, in aggregate."""

import json
from typing import Any

import pytest
from tests.api import BACKENDS, Front, front, open_front
from tests.house import House, house

from svsync.domain.access import Scope, token_text
from svsync.domain.ids import TenantId
from svsync.domain.limits import ApiRates
from svsync.services import strangers
from svsync.services.recording import AuditUnavailableError

__all__ = ["front", "house"]


async def test_who_calls_too_often_is_told_to_wait_and_others_are_not(house: House) -> None:
    async with open_front(house, rates=ApiRates(federation=0.2)) as front:
        for _ in range(2):
            assert (await front.client.get(BACKENDS)).status == 200
        answer = await front.client.get(BACKENDS)
        assert answer.told == (429, "rate_limited")
        assert answer.headers["Retry-After"] == "5"
        assert (await front.client.get("/v1/auth/whoami")).status == 200
        # The identity is what is limited, not its token.
        same = front.client.with_token(await front.token(Scope.FEDERATION_READ))
        assert (await same.get(BACKENDS)).told == (429, "rate_limited")
        other = front.client.with_token(await front.other_tenant())
        assert (await other.get(BACKENDS)).status == 200
        front.now[0] += 5
        assert (await front.client.get(BACKENDS)).status == 200


async def test_reads_have_their_limit_too_where_one_is_set(house: House) -> None:
    await house.write("app/a", {"k": "1"})
    async with open_front(house, rates=ApiRates(secrets_read=0.1)) as front:
        assert (await front.client.get("/v1/secrets/app/a")).status == 200
        assert (await front.client.get("/v1/secrets/app/a")).told == (429, "rate_limited")


# --- who was turned away ------------------------------------------------------------


async def failures(front: Front) -> list[Any]:
    return await front.house.admin.fetch(
        "SELECT * FROM audit WHERE action = 'auth.fail' ORDER BY tenant_id, source_ip"
    )


async def test_failures_are_one_row_for_each_address(house: House) -> None:
    async with open_front(house, trusted_proxies=("127.0.0.0/8",)) as front:
        nobody = front.client.with_token("svt_wrong")
        for address, times in (("192.0.2.1", 21), ("192.0.2.2", 1), ("2001:db8::1:2:3:4", 2)):
            for _ in range(times):
                await nobody.get(BACKENDS, headers={"X-Forwarded-For": address})
        await house.app.strangers.record()
        rows = await failures(front)
        told = {row["source_ip"]: json.loads(row["detail"]) for row in rows}
        once = {"count": 1, "codes": {"unauthenticated": 1}}
        assert told == {
            "192.0.2.1": {"count": 21, "codes": {"unauthenticated": 21}},
            "192.0.2.2": once,
            "2001:db8::/64": {"count": 2, "codes": {"unauthenticated": 2}},
        }
        for row in rows:
            assert (row["tenant_id"], row["decision"]) == (1, "deny")
            assert (row["identity_type"], row["identity_id"]) == ("anonymous", "anonymous")
            assert "wrong" not in str(dict(row))
        await house.app.strangers.record()
        assert len(await failures(front)) == 3


async def test_a_row_stands_with_the_tenant_that_the_token_names_if_it_is_there(
    front: Front,
) -> None:
    await front.house.admin.execute("INSERT INTO tenants (tenant_id, slug) VALUES (7, 'other')")
    for tenant in (7, 8, 2**31 - 1):
        text = token_text(TenantId(tenant), "tok_" + "0" * 32, b"0" * 32)
        assert (await front.client.with_token(text).get(BACKENDS)).status == 401
    assert (await front.client.with_token(None).get(BACKENDS)).status == 401
    await front.house.app.strangers.record()
    rows = await failures(front)
    told = [(row["tenant_id"], json.loads(row["detail"])["count"]) for row in rows]
    assert told == [(1, 3), (7, 1)]


async def test_a_tenant_that_is_shut_is_told_apart(front: Front) -> None:
    await front.house.admin.execute("UPDATE tenants SET status = 'suspended'")
    for _ in range(25):  # the token is good, so nobody is guessing
        assert (await front.client.get(BACKENDS)).told == (403, "tenant_shut")
    await front.house.app.strangers.record()
    [row] = await failures(front)
    assert json.loads(row["detail"]) == {"count": 25, "codes": {"tenant_shut": 25}}


async def test_many_addresses_cannot_fill_the_log(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "ADDRESSES", 3)
    for n in range(10):
        front.house.app.strangers.count(f"192.0.2.{n}", None, "unauthenticated")
    await front.house.app.strangers.record()
    told = [(row["source_ip"], json.loads(row["detail"])["count"]) for row in await failures(front)]
    assert told == [("192.0.2.0", 1), ("192.0.2.1", 1), ("192.0.2.2", 1), (None, 7)]


async def test_what_could_not_be_recorded_counts_the_next_time(front: Front) -> None:
    seen = front.house.app.strangers
    seen.count("192.0.2.1", None, "unauthenticated")
    await front.house.admin.execute("ALTER TABLE audit RENAME TO elsewhere")
    with pytest.raises(AuditUnavailableError):
        await seen.record()
    await front.house.admin.execute("ALTER TABLE elsewhere RENAME TO audit")
    seen.count("192.0.2.1", None, "unauthenticated")
    await seen.record()
    [row] = await failures(front)
    assert json.loads(row["detail"])["count"] == 2
