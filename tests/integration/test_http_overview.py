"""Is what people look at all day (each backend, and its last runs) cheap to ask for, and right?"""

import pytest
from tests.api import Front
from tests.house import BACKEND, TENANT, backend
from tests.postgres import connected

from svsync.domain.access import Scope
from svsync.domain.federation import RuleSpec
from svsync.domain.guards import Allow
from svsync.domain.ids import BackendId
from svsync.store.database import statements

STATUS = "/v1/federation/status"
RUNS = "/v1/federation/runs"


async def three(front: Front) -> None:
    """Backends beside the house's."""
    more = [
        backend([RuleSpec(f"{name}/**", f"{name}/**")], id=BackendId(name))
        for name in ("fed_b", "fed_a")
    ]
    await front.house.app.federation.apply([front.house.spec, *more])


async def test_pages_of_the_status_follow_on_each_other_and_count_all_runs(front: Front) -> None:
    await three(front)
    await front.client.post(f"/v1/federation/backends/{BACKEND}/sync")
    first = (await front.client.get(f"{STATUS}?limit=2")).body
    assert [one["id"] for one in first["backends"]] == ["fed_a", "fed_b"]
    assert (first["next_cursor"], first["runs"]) == ("fed_b", {"running": 0, "waiting": 1})
    second = (await front.client.get(f"{STATUS}?limit=2&cursor=fed_b")).body
    assert [one["id"] for one in second["backends"]] == [BACKEND]
    assert (second["next_cursor"], second["runs"]) == (None, {"running": 0, "waiting": 1})


async def test_the_status_of_some_backends_is_asked_for_by_their_ids(front: Front) -> None:
    await three(front)
    found = (await front.client.get(f"{STATUS}?backend_ids={BACKEND},fed_a,fed_nobody")).body
    assert [one["id"] for one in found["backends"]] == ["fed_a", BACKEND]
    assert found["next_cursor"] is None


@pytest.mark.parametrize("given", ["", "fed_a,", "fed a", ",".join(f"fed_{n}" for n in range(101))])
async def test_what_are_no_ids_of_backends_is_refused_by_name(front: Front, given: str) -> None:
    for path in (STATUS, RUNS):
        refused = await front.client.get(path, params={"backend_ids": given})
        assert refused.told == (422, "invalid_field")
        assert refused.body["error"]["field"] == "backend_ids"


async def test_a_day_costs_what_its_cycles_call(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    one = f"{STATUS}?backend_ids={BACKEND}"
    [before] = (await front.client.get(one)).body["backends"]
    assert (before["calls_per_day"], before["cost_per_day"]) == (None, None)
    await front.house.run()
    await front.house.run()
    [after] = (await front.client.get(one)).body["backends"]
    assert after["calls_per_day"] == after["calls_per_cycle"] * 96  # an interval of 15 minutes
    assert after["cost_per_day"] is None  # a store in memory bills nothing


async def test_last_runs_are_told_in_a_few_words_newest_first(front: Front) -> None:
    await three(front)
    front.house.there.put("kv/a", {"k": "1"})
    made = [await front.house.run() for _ in range(3)]
    await front.house.run(dry=True)
    await front.client.post(f"/v1/federation/backends/{BACKEND}/sync")  # it only waits
    found = await front.client.get(f"{RUNS}?backend_ids={BACKEND},fed_a,fed_nobody&last=2")
    report = made[2].to_json()
    assert found.body["backends"] == [
        {"id": "fed_a", "runs": []},
        {
            "id": BACKEND,
            "runs": [
                {
                    name: told[name]
                    for name in ("run_id", "kind", "state", "result", "started_at", "duration_ms")
                }
                for told in (report, made[1].to_json())
            ],
        },
    ]


async def test_a_failed_run_is_told_with_its_kind_and_result(front: Front) -> None:
    for name in ("a", "b"):
        front.house.there.put(f"kv/{name}", {"k": "1"})
    await front.house.run()
    for name in ("a", "b"):
        front.house.there.remove(f"kv/{name}")
    await front.house.run("ext/**", allow=Allow())  # a guard stops it
    [told] = (await front.client.get(f"{RUNS}?backend_ids={BACKEND}&last=1")).body["backends"]
    [run] = told["runs"]
    assert (run["kind"], run["state"], run["result"]) == ("targeted", "failed", "failed")


async def test_whose_runs_has_to_be_said(front: Front) -> None:
    refused = await front.client.get(RUNS)
    assert refused.told == (422, "invalid_field")
    assert refused.body["error"]["field"] == "backend_ids"


async def test_another_tenants_backends_are_missing_like_those_of_nobody(front: Front) -> None:
    await front.house.run()
    stranger = front.client.with_token(await front.other_tenant())
    assert (await stranger.get(f"{RUNS}?backend_ids={BACKEND}")).body == {"backends": []}
    found = (await stranger.get(f"{STATUS}?backend_ids={BACKEND}")).body
    assert (found["backends"], found["runs"]) == ([], {"running": 0, "waiting": 0})


async def test_without_the_scope_nothing_is_told(front: Front) -> None:
    other = front.client.with_token(await front.token(Scope.FEDERATION_WRITE))
    assert (await other.get(f"{RUNS}?backend_ids={BACKEND}")).told == (403, "forbidden")


async def test_last_runs_are_found_by_the_index_of_their_backend(database_url: str) -> None:
    """However many runs there are: one range of the index for each backend."""
    async with connected(database_url) as role, role.transaction():
        await role.execute("SELECT set_config('svsync.tenants', '1', true)")
        await role.execute(
            "INSERT INTO runs (tenant_id, run_id, backend_id, kind, trigger, state, started_at)"
            " SELECT $1, 'run_' || lpad(n::text, 32, '0'), 'fed_' || n % 20, 'full', 'schedule',"
            " 'completed', now() FROM generate_series(1, 4000) n",
            TENANT,
        )
        await role.execute("ANALYZE runs")
        await role.execute(f"PREPARE last AS {statements()['reports.last']}")
        explained = "EXPLAIN EXECUTE last (1, '{fed_1,fed_2}', 50)"
        plan = "\n".join(row[0] for row in await role.fetch(explained))
    assert "runs_of_backend" in plan
    assert "Sort" not in plan.partition("Limit")[2]
