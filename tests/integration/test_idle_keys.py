"""Plain keys of a tenant that nobody used for ten minutes are dropped; time is the test's own."""

import os
from pathlib import Path

import pytest
from tests.house import TENANT, House

from svsync.domain.envelope import Purpose
from svsync.domain.ids import LocalPath, SecretId, TenantId
from svsync.domain.values import Payload
from svsync.kms.local import LocalKeyService
from svsync.ports import KeyServices
from svsync.services.sealing import Sealed, Sealing, TenantKeys

OTHER = TenantId(2)
VALUE = Payload.from_fields({"k": "1"})
WHERE = (SecretId(1), LocalPath("ext/a"), 1)


class Time:
    def __init__(self) -> None:
        self.now = 1_000.0

    def clock(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def sealing(house: House, state_dir: Path, time: Time) -> Sealing:
    """The keys of the house, in a process of its own as it were, with another tenant."""
    await house.admin.execute("INSERT INTO tenants (tenant_id, slug) VALUES (2, 'other')")
    service = LocalKeyService.open(state_dir / "kms.key", create=False)
    made = Sealing(house.app.db, KeyServices(service, None), os.urandom, clock=time.clock)
    await made.open_root()
    return made


async def seal(keys: TenantKeys) -> Sealed:
    return (await keys.reserve(1)).seal(Purpose.VALUE, *WHERE, b"plain")


async def test_idle_keys_are_dropped_when_another_tenant_asks_and_prepared_anew(
    sealing: Sealing, time: Time
) -> None:
    keys = await sealing.for_tenant(TENANT)
    sealed, printed = await seal(keys), keys.fingerprint(VALUE)
    time.now += 601
    await sealing.for_tenant(OTHER)
    assert TENANT not in sealing._tenants
    anew = await sealing.for_tenant(TENANT)
    assert anew is not keys
    assert anew.fingerprint(VALUE) == printed
    assert await anew.open(Purpose.VALUE, *WHERE, sealed) == b"plain"
    assert (await seal(anew)).key_id == sealed.key_id, "the same data key, another block"


async def test_tenant_that_comes_back_after_a_pause_gets_its_keys_anew(
    sealing: Sealing, time: Time
) -> None:
    keys = await sealing.for_tenant(TENANT)
    time.now += 600
    assert await sealing.for_tenant(TENANT) is keys
    time.now += 601
    assert await sealing.for_tenant(TENANT) is not keys


@pytest.mark.parametrize("use", ["reserve", "open", "fingerprint"])
async def test_each_use_keeps_the_keys(sealing: Sealing, time: Time, use: str) -> None:
    keys = await sealing.for_tenant(TENANT)
    sealed = await seal(keys)
    time.now += 400
    if use == "reserve":
        await keys.reserve(1)
    elif use == "open":
        await keys.open(Purpose.VALUE, *WHERE, sealed)
    else:
        keys.fingerprint(VALUE)
    time.now += 400
    await sealing.for_tenant(OTHER)
    assert await sealing.for_tenant(TENANT) is keys


async def test_keys_that_a_run_holds_work_on_after_they_were_dropped(
    sealing: Sealing, time: Time
) -> None:
    held = await sealing.for_tenant(TENANT)
    before = await seal(held)
    time.now += 601
    others = await sealing.for_tenant(TENANT)
    assert others is not held
    after = await seal(held)
    assert held.fingerprint(VALUE) == others.fingerprint(VALUE)
    for sealed in (before, after):
        assert await others.open(Purpose.VALUE, *WHERE, sealed) == b"plain"


async def test_block_of_dropped_keys_is_lost_and_never_used_again(
    sealing: Sealing, time: Time, house: House
) -> None:
    await seal(await sealing.for_tenant(TENANT))
    reserved = "SELECT sum(reserved) FROM data_keys WHERE purpose = 'value' AND tenant_id = 1"
    before = await house.admin.fetchval(reserved)
    time.now += 601
    await seal(await sealing.for_tenant(TENANT))
    assert await house.admin.fetchval(reserved) == 2 * before
