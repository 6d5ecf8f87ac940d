"""Policies as rows: limits, changes that come together, and the epoch of each of them."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
from tests.house import TENANT, House

from svsync.domain.access import Identity, Scope
from svsync.domain.bindings import Bound
from svsync.domain.errors import ConfigError, NotFoundError, SvsyncError
from svsync.domain.ids import LocalPath
from svsync.domain.patterns import Pattern
from svsync.domain.policies import Permission, PolicyExistsError, pattern_of
from svsync.services import policies as service
from svsync.services.authority import Authority
from svsync.services.policies import NewRule
from svsync.services.policy_tests import Question

READ = [NewRule("app/**", [Permission.READ])]
ADA = Identity.parse("user:ada")


async def made(house: House, name: str = "one") -> str:
    policy = await house.app.policies.create(TENANT, name, READ, by="cli:test")
    return str(policy["id"])


async def bind(house: House, policy: str, text: str) -> None:
    await house.app.policies.bind(TENANT, policy, Bound.parse(text), by="cli:test")


async def epoch(house: House) -> int:
    found: int = await house.admin.fetchval("SELECT auth_epoch FROM tenants WHERE tenant_id = 1")
    return found


async def test_every_change_raises_the_epoch(house: House) -> None:
    policies, groups = house.app.policies, house.app.groups
    policy = await made(house)
    ada = Bound.parse("user:ada")
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: policies.create(TENANT, "two", READ, by="cli:test"),
        lambda: policies.bind(TENANT, policy, ada, by="cli:test"),
        lambda: policies.change(TENANT, policy, {"rules": []}),
        lambda: policies.unbind(TENANT, policy, ada),
        lambda: groups.set_groups(TENANT, ADA, ["a"]),
        lambda: groups.set_groups(TENANT, ADA, []),
        lambda: policies.delete(TENANT, policy),
    ]
    for change in changes:
        before = await epoch(house)
        await change()
        assert await epoch(house) == before + 1


async def test_a_change_that_fails_changes_nothing(house: House) -> None:
    policy, other = await made(house), await made(house, "other")
    before = await epoch(house), await house.rows("policies"), await house.rows("policy_rules")
    with pytest.raises(PolicyExistsError):
        await house.app.policies.change(TENANT, policy, {"name": "other", "rules": []})
    with pytest.raises(PolicyExistsError):
        await made(house, "other")
    with pytest.raises(NotFoundError):
        await house.app.policies.unbind(TENANT, other, Bound.parse("user:ada"))
    assert before == (
        await epoch(house), await house.rows("policies"), await house.rows("policy_rules")
    )  # fmt: skip


async def test_of_two_that_take_one_name_one_gets_it(house: House) -> None:
    policy = await made(house, "mine")
    told = await asyncio.gather(
        made(house, "taken"),
        made(house, "taken"),
        house.app.policies.change(TENANT, policy, {"name": "taken"}),
        return_exceptions=True,
    )
    refused = [one for one in told if isinstance(one, SvsyncError)]
    assert [one.code for one in refused] == ["policy_exists"] * 2
    assert len(await house.rows("policies", name="taken")) == 1


async def test_policies_and_bindings_are_limited(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_POLICIES", 3)
    monkeypatch.setattr(service, "MOST_BINDINGS", 2)
    monkeypatch.setattr(service, "MOST_OF_IDENTITY", 2)
    policy, other, third = await asyncio.gather(*(made(house, name) for name in "abc"))
    with pytest.raises(ConfigError) as refused:
        await made(house, "d")
    assert refused.value.code == "too_many_policies"
    for text in ("user:ada", "group:a"):
        await bind(house, policy, text)
    for policy_id, text in ((policy, "sa:c"), (third, "user:ada")):
        if policy_id == third:
            await bind(house, other, "user:ada")
        with pytest.raises(ConfigError) as refused:
            await bind(house, policy_id, text)
        assert refused.value.code == "too_many_bindings"
    await bind(house, policy, "user:ada")  # it is there already
    assert len(await house.rows("bindings")) == 3


async def test_rules_of_all_policies_are_limited(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_RULES", 3)
    policies, two = house.app.policies, [NewRule(f"app/{n}", [Permission.READ]) for n in range(2)]
    one = await policies.create(TENANT, "one", two, by="cli:test")
    with pytest.raises(ConfigError) as refused:
        await policies.create(TENANT, "two", two, by="cli:test")
    assert (refused.value.code, refused.value.where) == ("too_many_policies", "rules")
    with pytest.raises(ConfigError):
        await policies.change(TENANT, str(one["id"]), {"rules": two * 2})
    assert len(await house.rows("policy_rules")) == 2
    await policies.create(TENANT, "three", two[:1], by="cli:test")


async def test_other_work_goes_on_while_many_rules_are_compiled(house: House) -> None:
    rules = [NewRule(f"app/{n}/**", [Permission.READ]) for n in range(200)]
    for name in "abcde":
        await house.app.policies.create(TENANT, name, rules, by="cli:test")
        await bind(house, name, "sa:robot")
    made = await house.app.access.create(
        TENANT, Identity.parse("sa:robot"), [Scope.SECRETS_READ], expires_in=60, by="cli:test"
    )
    authority = Authority(house.app.db, house.app.access, clock=time.monotonic)
    threads: set[int] = set()

    def noted(text: str) -> Pattern:
        threads.add(threading.get_ident())
        return pattern_of(text)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("svsync.services.authority.pattern_of", noted)
        rights = await authority.verify(made.text.reveal())
    assert rights.permissions.decide("app/7/x", Permission.READ) is not None
    assert threads
    assert threading.get_ident() not in threads


async def test_fewer_rules_leave_none_of_those_before(house: House) -> None:
    rules = [NewRule(f"app/{n}", [Permission.READ, Permission.LIST]) for n in range(5)]
    policy = await house.app.policies.create(TENANT, "one", rules, by="cli:test")
    await house.app.policies.change(TENANT, str(policy["id"]), {"rules": rules[3:]})
    rows = await house.admin.fetch("SELECT ord, path_pattern FROM policy_rules ORDER BY ord")
    assert [tuple(row) for row in rows] == [(0, "app/3"), (1, "app/4")]


async def test_the_test_takes_the_groups_that_the_store_knows(house: House) -> None:
    policy = await made(house)
    await bind(house, policy, "group:ops")
    asked = Question(LocalPath("app/a"), Permission.READ, ADA)
    assert not (await house.app.policy_tests.test(TENANT, asked))["allowed"]
    await house.app.groups.set_groups(TENANT, ADA, ["ops", "dev"])
    told = await house.app.policy_tests.test(TENANT, asked)
    assert (told["allowed"], told["groups"]) == (True, ["dev", "ops"])
    without = Question(LocalPath("app/a"), Permission.READ, ADA, groups=[])
    assert not (await house.app.policy_tests.test(TENANT, without))["allowed"]


async def test_few_of_many_near_rules_are_named(house: House) -> None:
    for n in range(15):
        await made(house, f"p{n:02}")
    asked = Question(LocalPath("app/a"), Permission.READ, ADA)
    told = await house.app.policy_tests.test(TENANT, asked)
    near = told["near"]
    assert isinstance(near, list)
    assert [one["policy"] for one in near] == [f"p{n:02}" for n in range(10)]
    assert near[0]["bound_to"] == []
