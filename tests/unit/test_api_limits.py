"""How many calls of one identity are let through, and when are there more?"""

import pytest

from svsync.domain.access import Caller, Identity
from svsync.domain.ids import TenantId
from svsync.domain.limits import ApiRates, Category
from svsync.http.limits import Limits, RateLimitedError, category_of

POLICIES = ("POST", "/v1/policies")


def caller(name: str = "sa:a", tenant: int = 1) -> Caller:
    return Caller(TenantId(tenant), "t", Identity.parse(name), "tok", frozenset())


def let_through(limits: Limits, who: Caller, method: str, path: str, at_most: int = 1000) -> int:
    """How many calls in a row, until one has to wait."""
    for n in range(at_most):
        try:
            limits.take(who, category_of(method, path))
        except RateLimitedError:
            return n
    return at_most


@pytest.mark.parametrize(
    ("method", "path", "category"),
    [
        ("GET", "/v1/secrets/app/a", Category.SECRETS_READ),
        ("HEAD", "/v1/secrets/app/a", Category.SECRETS_READ),
        ("GET", "/v1/secrets", Category.SECRETS_READ),
        ("PUT", "/v1/secrets/app/a", Category.SECRETS_WRITE),
        ("DELETE", "/v1/secrets/app/a", Category.SECRETS_WRITE),
        ("POST", "/v1/secrets/app/a/restore", Category.SECRETS_WRITE),
        ("GET", "/v1/federation/backends", Category.FEDERATION),
        ("POST", "/v1/webhooks/x/test", Category.FEDERATION),
        ("GET", "/v1/audit/logs", Category.ADMIN),
        ("POST", "/v1/policies", Category.ADMIN),
        ("GET", "/v1/auth/whoami", Category.ADMIN),
        ("GET", "/v1/anything", Category.ADMIN),
    ],
)
def test_each_route_is_of_one_kind(method: str, path: str, category: Category) -> None:
    assert category_of(method, path) is category


def test_ten_seconds_worth_may_come_at_once_and_then_as_many_as_the_rate_says() -> None:
    now = [100.0]
    limits = Limits(ApiRates(admin=2), clock=lambda: now[0])
    assert let_through(limits, caller(), *POLICIES) == 20
    now[0] += 0.4
    assert let_through(limits, caller(), *POLICIES) == 0
    now[0] += 0.1
    assert let_through(limits, caller(), *POLICIES) == 1
    now[0] += 1000
    assert let_through(limits, caller(), *POLICIES) == 20


def test_who_has_to_wait_is_told_for_how_long() -> None:
    limits = Limits(ApiRates(admin=0.05), clock=lambda: 0.0)
    limits.take(caller(), Category.ADMIN)
    with pytest.raises(RateLimitedError) as refused:
        limits.take(caller(), Category.ADMIN)
    assert refused.value.retry_after == 20
    assert "admin" in refused.value.message


def test_each_identity_of_each_tenant_has_its_own_for_each_kind() -> None:
    limits = Limits(ApiRates(admin=1, federation=1), clock=lambda: 0.0)
    for who in (caller(), caller("user:a"), caller("sa:b"), caller(tenant=2)):
        assert let_through(limits, who, *POLICIES) == 10
        assert let_through(limits, who, "GET", "/v1/federation/backends") == 10


def test_processes_share_the_rate() -> None:
    now, many = [0.0], [4]
    limits = Limits(ApiRates(admin=8), clock=lambda: now[0], processes=lambda: many[0])
    assert let_through(limits, caller(), *POLICIES) == 20
    now[0] += 1
    assert let_through(limits, caller(), *POLICIES) == 2
    many[0] = 0  # not counted yet: this one at least
    now[0] += 1
    assert let_through(limits, caller(), *POLICIES) == 8


def test_reads_are_not_limited_unless_that_is_asked_for() -> None:
    read = ("GET", "/v1/secrets/a")
    assert let_through(Limits(ApiRates(), clock=lambda: 0.0), caller(), *read, 20_000) == 20_000
    assert let_through(Limits(ApiRates(secrets_read=3), clock=lambda: 0.0), caller(), *read) == 30


def test_memory_is_bounded_and_those_who_call_are_kept() -> None:
    limits = Limits(ApiRates(admin=0.1), clock=lambda: 0.0, room=2)
    assert let_through(limits, caller("sa:a"), *POLICIES) == 1
    limits.take(caller("sa:b"), Category.ADMIN)
    assert let_through(limits, caller("sa:a"), *POLICIES) == 0
    limits.take(caller("sa:c"), Category.ADMIN)
    assert let_through(limits, caller("sa:a"), *POLICIES) == 0
    assert let_through(limits, caller("sa:b"), *POLICIES) == 1
    assert len(limits._buckets) == 2
