"""Are tokens made once, kept as hashes, and good for no longer than they say?"""

import hmac
import secrets

import pytest
from tests.house import TENANT, House

from svsync.app import new_id
from svsync.domain.access import Identity, IdentityType, Scope, UnauthenticatedError
from svsync.domain.errors import NotFoundError, UsageError
from svsync.domain.ids import TenantId
from svsync.services.access import Access

ROBOT = Identity.parse("sa:robot")


@pytest.fixture
def access(house: House) -> Access:
    return Access(house.app.db, ids=new_id, random=secrets.token_bytes)


async def made(access: Access, *scopes: Scope, expires_in: float | None = 60) -> str:
    created = await access.create(TENANT, ROBOT, scopes, expires_in=expires_in, by="cli:test")
    return created.text.reveal()


async def test_a_token_vouches_for_its_identity_tenant_and_scopes(access: Access) -> None:
    text = await made(access, Scope.FEDERATION_READ, Scope.SECRETS_READ, Scope.SECRETS_READ)
    caller = await access.verify(text)
    assert (caller.tenant, caller.slug, caller.identity) == (TENANT, "default", ROBOT)
    assert caller.identity.type is IdentityType.SERVICE_ACCOUNT
    assert caller.scopes == {Scope.FEDERATION_READ, Scope.SECRETS_READ}


async def test_nothing_of_a_tokens_secret_is_stored(house: House, access: Access) -> None:
    text = await made(access, Scope.ADMIN)
    secret = text.rpartition("_")[2]
    for lines in (await house.dump()).values():
        assert not [line for line in lines if secret in line or text in line]


async def test_a_new_token_shows_itself_only_where_it_is_asked_to(access: Access) -> None:
    created = await access.create(TENANT, ROBOT, [Scope.ADMIN], expires_in=60, by="cli:test")
    assert created.text.reveal().rpartition("_")[2] not in repr(created)
    [listed] = await access.list_tokens(TENANT)
    assert listed["token_id"] == created.token_id
    assert not set(listed) & {"hash", "token", "text"}


async def test_a_token_needs_a_scope(access: Access) -> None:
    with pytest.raises(UsageError, match="at least one"):
        await made(access)


async def test_its_time_is_over_by_the_databases_clock(house: House, access: Access) -> None:
    text = await made(access, Scope.ADMIN, expires_in=60)
    await access.verify(text)
    await house.admin.execute("UPDATE tokens SET expires_at = now()")
    with pytest.raises(UnauthenticatedError, match="has expired"):
        await access.verify(text)
    [listed] = await access.list_tokens(TENANT)
    assert listed["state"] == "expired"


async def test_a_token_without_an_end_has_none(house: House, access: Access) -> None:
    await made(access, Scope.ADMIN, expires_in=None)
    assert (await house.row("tokens"))["expires_at"] is None


async def test_a_revoked_token_stays_so_since_the_first_time(house: House, access: Access) -> None:
    text = await made(access, Scope.ADMIN)
    token_id = (await access.verify(text)).token_id
    await access.revoke(TENANT, token_id)
    first = (await house.row("tokens"))["revoked_at"]
    await access.revoke(TENANT, token_id)
    assert (await house.row("tokens"))["revoked_at"] == first
    with pytest.raises(UnauthenticatedError, match="was revoked"):
        await access.verify(text)
    [listed] = await access.list_tokens(TENANT)
    assert listed["state"] == "revoked"


async def test_nobody_revokes_what_is_not_theirs(house: House, access: Access) -> None:
    text = await made(access, Scope.ADMIN)
    token_id = (await access.verify(text)).token_id
    await house.admin.execute("INSERT INTO tenants (tenant_id, slug) VALUES (2, 'other')")
    for tenant, named in ((TenantId(2), token_id), (TENANT, "tok_" + "0" * 32), (TENANT, text)):
        with pytest.raises(NotFoundError) as refused:
            await access.revoke(tenant, named)
        assert named not in refused.value.message
    assert await access.list_tokens(TenantId(2)) == []
    await access.verify(text)


async def test_every_text_is_compared_whether_its_row_is_there_or_not(
    access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same work is done for an id that nobody has as for a wrong secret."""
    text = await made(access, Scope.ADMIN)
    compared, compare = [], hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    start, _, secret = text.rpartition("_")
    for wrong in (f"{start}_{'0' * 64}", f"svt_1_{'0' * 32}_{secret}"):
        with pytest.raises(UnauthenticatedError, match="is not valid here"):
            await access.verify(wrong)
    assert compared == [(32, 32)] * 2


async def test_the_day_of_its_last_use_is_written_once_a_day(house: House, access: Access) -> None:
    text = await made(access, Scope.ADMIN)
    version = "SELECT xmin::text FROM tokens"
    await access.verify(text)
    first = await house.admin.fetchval(version)
    await access.verify(text)
    assert await house.admin.fetchval(version) == first
    await house.admin.execute("UPDATE tokens SET last_used_on = last_used_on - 1")
    await access.verify(text)
    row = await house.row("tokens")
    assert row["last_used_on"] == await house.admin.fetchval(
        "SELECT (now() AT TIME ZONE 'UTC')::date"
    )


async def test_a_scope_of_a_newer_svsync_is_good_for_nothing(house: House, access: Access) -> None:
    text = await made(access, Scope.AUDIT_READ)
    await house.admin.execute("UPDATE tokens SET scopes = scopes || '{all:everything}'::text[]")
    assert (await access.verify(text)).scopes == {Scope.AUDIT_READ}
