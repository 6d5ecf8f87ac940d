"""A tenant is made once, also where its making was broken off."""

import pytest
from tests.house import House
from tests.shredded import done_to, shred

from svsync.domain.errors import NotFoundError, SvsyncError
from svsync.domain.ids import TenantId
from svsync.store import tenants as store


async def test_a_tenant_whose_making_was_broken_off_is_gone_on_with(house: House) -> None:
    made = await house.app.tenants.begin("acme")
    assert await house.app.tenants.begin("acme") == made
    await house.app.tenants.open(made, "acme")
    with pytest.raises(SvsyncError) as taken:
        await house.app.tenants.begin("acme")
    assert taken.value.code == "tenant_exists"
    with pytest.raises(SvsyncError) as taken:
        await house.app.tenants.open(made, "acme")
    assert taken.value.code == "tenant_exists"


async def test_a_checkpoint_that_came_between_does_not_take_its_slug(house: House) -> None:
    """It signs that the tenant is being made, with the tenant's first key."""
    made = await house.app.tenants.begin("acme")
    await house.app.recorder.record(done_to(made, "tenant.create"))
    await house.app.checkpoints.run()
    [key] = await house.rows("data_keys", tenant_id=made)
    assert key["purpose"] == "audit_sign"
    assert await house.app.tenants.begin("acme") == made
    await house.app.tenants.open(made, "acme")
    assert (await house.row("tenants", slug="acme"))["status"] == "active"


async def test_the_slug_of_a_shredded_tenant_is_taken_for_good(house: House) -> None:
    await shred(house)
    with pytest.raises(SvsyncError) as taken:
        await house.app.tenants.begin("default")
    assert (taken.value.code, "shredded" in taken.value.message) == ("tenant_exists", True)
    with pytest.raises(NotFoundError):
        await house.app.tenants.find("nobody")
    assert TenantId(1) in await store.shredded(house.app.db)
