"""An interval that the rate limit cannot meet is refused when it is brought in."""

from collections.abc import Mapping

import pytest
from tests.house import BACKEND, TENANT, House, backend

from svsync.config.kinds import SECONDS
from svsync.domain.costs import Terms
from svsync.domain.errors import ConfigError
from svsync.domain.federation import RuleSpec
from svsync.domain.ids import BackendId
from svsync.domain.quotas import Limit
from svsync.services.federation import refuse_unreachable_interval
from svsync.testing.memory import MemoryStore

SLOW = {"list": {"per_second": 0.01}}
"""A list call takes 100 seconds."""
NOTHING = Terms()
"""Of a provider that publishes none."""


@pytest.fixture
def store(house: House) -> MemoryStore:
    """Three secrets in one folder, which are listed by one call."""
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    return house.there


async def refused(house: House, **changes: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        await house.configure(**changes)
    assert caught.value.code == "interval_unreachable"
    return caught.value


async def stored(house: House) -> object:
    return (await house.app.federation.spec(TENANT, BACKEND)).sync_interval


async def test_shorter_interval_than_a_cycle_is_refused_and_what_fits_is_told(
    house: House, store: MemoryStore
) -> None:
    await house.run()
    error = await refused(house, rate_limit=SLOW, sync_interval=60)
    for told in (BACKEND, "1 list calls", "2m", "rate_limit.list.per_second"):
        assert told in error.message
    assert await stored(house) == 900, "nothing was changed"
    await house.configure(rate_limit=SLOW, sync_interval=120)
    assert await stored(house) == 120


async def test_slower_rate_under_the_same_interval_is_refused(
    house: House, store: MemoryStore
) -> None:
    await house.run()
    await refused(house, rate_limit={"list": {"per_second": 0.001}})


async def test_backend_without_a_full_run_that_completed_is_accepted(
    house: House, store: MemoryStore
) -> None:
    await house.run("ext/a")
    await house.run(dry=True)
    store.fail("list", ConfigError("broken"))
    await house.run()
    await house.configure(rate_limit=SLOW, sync_interval=60)
    assert await stored(house) == 60


async def test_cheapest_cycle_counts_not_the_first_import(house: House, store: MemoryStore) -> None:
    slow_reads = {"read": {"per_second": 0.01}}
    await house.run()
    await refused(house, rate_limit=slow_reads, sync_interval=60)
    await house.run()  # reads nothing
    await house.configure(rate_limit=slow_reads, sync_interval=60)
    assert await stored(house) == 60


async def test_unchanged_file_is_accepted_however_slow_cycles_have_become(
    house: House, store: MemoryStore
) -> None:
    await house.configure(rate_limit=SLOW, sync_interval=120)
    await house.run()
    await house.admin.execute("""UPDATE runs SET calls = '{"list": 1000}'""")
    assert await house.app.federation.apply([house.spec]) == []
    await house.configure(max_versions=3)  # another setting is none of the two
    await refused(house, sync_interval=130)


async def test_cycles_under_another_mapping_say_nothing(house: House, store: MemoryStore) -> None:
    await house.run()
    narrower = (RuleSpec("ext/a", "kv/a"),)
    await house.configure(rules=narrower, rate_limit=SLOW, sync_interval=60)
    assert await stored(house) == 60
    await house.configure(sync_interval=61)  # no full run has brought the mapping in yet
    assert await stored(house) == 61


async def test_refusal_keeps_every_other_backend_as_it_was(
    house: House, store: MemoryStore
) -> None:
    await house.run()
    other = backend((RuleSpec("other/**", "other/**"),), BackendId("fed_another"))
    bad = backend(rate_limit=SLOW, sync_interval=60)
    with pytest.raises(ConfigError, match="sync_interval"):
        await house.app.federation.apply([other, bad])
    assert [b["id"] for b in await house.app.federation.list_backends(TENANT)] == [BACKEND]


async def test_backend_of_a_tenant_that_is_not_there_is_passed_over(house: House) -> None:
    stray = backend(
        (RuleSpec("other/**", "other/**"),),
        BackendId("fed_stray"),
        tenant="nobody",
        rate_limit=SLOW,
    )
    assert await house.app.federation.apply([house.spec, stray]) == []


@pytest.mark.parametrize(
    ("calls", "per_second", "interval", "fits"),
    [
        ({"list": 40}, 1, 30, "40s"),
        ({"list": 60}, 1, 30, "1m"),
        ({"list": 61}, 1, 60, "2m"),
        ({"list": 1000}, 1, 900, "17m"),
        ({"list": 3599}, 1, 900, "1h"),
        ({"list": 31}, 0.5, 60, "2m"),
    ],
)
def test_what_fits_is_rounded_up_and_written_as_the_file_takes_it(
    calls: Mapping[str, int], per_second: float, interval: int, fits: str
) -> None:
    spec = backend(rate_limit={"list": {"per_second": per_second}}, sync_interval=interval)
    with pytest.raises(ConfigError, match=f"set sync_interval to {fits} or more"):
        refuse_unreachable_interval(spec, NOTHING, [calls])
    seconds = int(fits[:-1]) * SECONDS[fits[-1]]
    kept = backend(rate_limit={"list": {"per_second": per_second}}, sync_interval=seconds)
    refuse_unreachable_interval(kept, NOTHING, [calls])


def test_slowest_operation_of_the_quickest_cycle_is_named() -> None:
    spec = backend(
        rate_limit={"list": {"per_second": 10}, "read": {"per_second": 1}, "write": {}},
        sync_interval=60,
    )
    with pytest.raises(ConfigError, match=r"made 200 read calls, which take 200s at"):
        refuse_unreachable_interval(
            spec, NOTHING, [{"list": 100, "read": 900}, {"list": 1000, "read": 200, "write": 9999}]
        )


def test_where_nothing_is_set_the_providers_quota_counts() -> None:
    terms = Terms(limits={"list": Limit(per_second=2), "read": Limit(per_second=100)})
    with pytest.raises(ConfigError, match=r"rate_limit.list.per_second 2; set sync_interval to 2m"):
        refuse_unreachable_interval(backend(sync_interval=60), terms, [{"list": 200, "read": 900}])
    faster = backend(sync_interval=60, rate_limit={"list": {"per_second": 10}})
    refuse_unreachable_interval(faster, terms, [{"list": 200, "read": 900}])
