"""What runs and cycles cost, where the backend's provider bills calls; and intervals that cannot
hold. The prices are a provider's own, the store is in memory."""

from dataclasses import replace
from typing import Any

import pytest
from tests.api import Front, front
from tests.house import BACKEND, TENANT, House, house

from svsync.app import make_doctor
from svsync.domain.costs import Prices, Terms
from svsync.domain.federation import Mode, Writes
from svsync.domain.quotas import Limit
from svsync.testing.memory import FEATURES, MemoryDriver

__all__ = ["front", "house"]

PRICES = Prices(
    calls={"list": 100.0, "read": 1_000.0}, secret_month=0.4, source="a page", seen="2026-11-29"
)


def bills(house: House, terms: Terms | None = None) -> None:
    """The house's store has a provider that publishes this from now on."""
    driver = house.app.registry.driver("memory")
    driver.features = replace(driver.features, terms=terms or Terms(prices=PRICES))


@pytest.fixture
def billed(house: House) -> House:
    """Three secrets in one folder; a cent for a list call, ten for a read."""
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    bills(house)
    return house


async def status(house: House) -> dict[str, Any]:
    return await house.app.federation.status(TENANT, BACKEND)


async def test_a_run_tells_what_its_calls_cost_then_and_later(billed: House) -> None:
    ended = await billed.run()
    calls = ended.report.api_calls()
    assert (calls["list"], calls["read"]) == (1, 3)
    cost = {"amount": 0.31, "currency": "USD"}
    assert ended.to_json()["counts"]["estimated_cost"] == cost  # type: ignore[index]
    bills(billed, Terms())  # what it cost is kept with it
    shown: Any = await billed.app.runs.show(TENANT, ended.record.run_id)
    assert shown["counts"]["estimated_cost"] == cost


async def test_where_calls_are_not_billed_nothing_is_said_of_cost(house: House) -> None:
    ended = await house.run()
    assert "estimated_cost" not in ended.report.counts()
    assert (await status(house))["estimated_cost"] is None


async def test_a_plan_tells_what_it_would_cost_with_the_pushes(billed: House) -> None:
    await billed.run()
    await billed.write("ext/a", {"k": "here"})
    await billed.configure(writes=Writes.WRITE_THROUGH)
    bills(billed, Terms(prices=replace(PRICES, calls={"list": 100.0, "write": 20_000.0})))
    planned: Any = (await billed.run(dry=True)).to_json()
    assert [p["action"] for p in planned["plan"]] == ["push"]
    assert planned["counts"]["estimated_cost"]["amount"] == 0.01
    assert planned["would_cost"] == {"amount": 2.01, "currency": "USD"}


async def test_a_month_is_estimated_by_the_quiet_cycle_at_the_present_interval(
    billed: House,
) -> None:
    assert (await status(billed))["estimated_cost"] is None, "none was measured yet"
    await billed.run()
    assert (await status(billed))["estimated_cost"]["per_cycle"] == 0.31
    await billed.run()  # nothing changed: one list call
    billed.there.put("kv/a", {"k": "2"})
    await billed.run()
    cost = (await status(billed))["estimated_cost"]
    assert cost == {
        "currency": "USD",
        "per_cycle": 0.01,
        "calls_per_month": 0.01 * 2_880,
        "secrets_per_month": 1.2,
        "prices_of": "2026-11-29",
    }
    await billed.configure(sync_interval=1_800)
    assert (await status(billed))["estimated_cost"]["calls_per_month"] == 0.01 * 1_440


async def test_a_cycle_that_grew_is_measured_anew(billed: House) -> None:
    await billed.run()
    await billed.run()
    for n in range(3):
        billed.there.put(f"kv/more{n}/x", {"k": "1"})  # three more folders
    await billed.run()
    assert (await status(billed))["estimated_cost"]["per_cycle"] == 0.01
    await billed.run()
    assert (await status(billed))["estimated_cost"]["per_cycle"] == 0.04


async def test_a_backend_without_cycles_has_no_cost_of_them(billed: House) -> None:
    await billed.run()
    await billed.configure(mode=Mode.PROXY)
    shown = await status(billed)
    assert (shown["estimated_cost"], shown["interval_unreachable"]) == (None, None)


async def test_api_and_look_say_the_same(front: Front) -> None:
    house = front.house
    bills(house)
    await house.run()
    shown = (await front.client.get(f"/v1/federation/backends/{BACKEND}/status")).body
    assert shown["estimated_cost"] == (await status(house))["estimated_cost"] != None  # noqa: E711
    assert shown["last_run"]["counts"]["estimated_cost"]["currency"] == "USD"
    [seen] = (await house.app.overview.look(TENANT))["backends"]
    assert seen["estimated_cost"] == shown["estimated_cost"]


# --- intervals ----------------------------------------------------------------------------


async def test_an_interval_becomes_unreachable_as_a_store_grows_and_that_is_said(
    billed: House,
) -> None:
    bills(billed, Terms(limits={"list": Limit(per_second=1_000)}))
    await billed.run()
    assert (await status(billed))["interval_unreachable"] is None
    cycle = """{"calls": {"list": 2000000}, "total": 2000000, "seconds": 5}"""
    await billed.admin.execute("UPDATE backend_health SET quiet_cycle = $1::text::jsonb", cycle)
    short = (await status(billed))["interval_unreachable"]
    assert (short["shortest_s"], short["because"]) == (2_040, "rate_limit")
    assert "34m or more" in short["message"]
    await billed.configure(sync_interval=2_040)
    assert (await status(billed))["interval_unreachable"] is None


async def test_a_budget_that_is_too_small_for_the_interval_is_told_and_not_refused(
    billed: House,
) -> None:
    await billed.run()
    await billed.run()
    await billed.configure(call_budget={"per_day": 100})
    short = (await status(billed))["interval_unreachable"]
    total = (await status(billed))["calls_per_cycle"]
    assert short["because"] == "call_budget"
    assert short["shortest_s"] == pytest.approx(86_400 * total / 90, abs=60)
    doctor = make_doctor(
        billed.app.settings, environ={}, drivers={"memory": MemoryDriver(billed.there, FEATURES)}
    )
    said = [f async for f in doctor.examine() if f.check == f"backend {BACKEND}"]
    assert any("sync_interval cannot be kept" in f.says for f in said)
    assert any("call_budget.per_day" in f.advice for f in said)


async def test_what_a_cycle_was_measured_to_take_counts(billed: House) -> None:
    await billed.run()
    await billed.admin.execute(
        "UPDATE backend_health SET quiet_cycle = jsonb_set(quiet_cycle, '{seconds}', '1000')"
    )
    short = (await status(billed))["interval_unreachable"]
    assert (short["shortest_s"], short["because"]) == (1_020, "duration")


async def test_a_quota_of_the_provider_is_kept_where_nothing_else_is_set(billed: House) -> None:
    class Turns:
        """Notes the turns that are taken."""

        shared = True

        def __init__(self) -> None:
            self.taken: set[tuple[str, float]] = set()

        async def turn(self, key: str, per_second: float) -> float:
            self.taken.add((key, per_second))
            return 0.0

    turns = Turns()
    billed.app.registry.share_rates(turns)  # type: ignore[arg-type]
    bills(billed, Terms(limits={"list": Limit(per_second=20), "read": Limit(per_second=30)}))
    await billed.configure(rate_limit={"read": {"per_second": 5}})
    await billed.run()
    assert turns.taken == {("default:fed_house:list", 20.0), ("default:fed_house:read", 5.0)}
