"""Does a plan over HTTP say what a run would do, to who may know, and do none of it?"""

import asyncio
from typing import Any

import pytest
from tests.api import BACKENDS, Client, Front
from tests.house import BACKEND, TENANT, House, Pause, backend

from svsync.domain.access import Scope
from svsync.domain.bindings import Bound
from svsync.domain.errors import SvsyncError
from svsync.domain.federation import Mode, OnRemoteDelete, RuleSpec
from svsync.domain.ids import BackendId
from svsync.domain.policies import ADMIN, Permission
from svsync.http.server import status_of
from svsync.services.plans import AT_ONCE, MOST_SHOWN, Plans
from svsync.services.policies import NewRule

PLAN = f"{BACKENDS}/{BACKEND}/plan"


async def written(front: Front) -> dict[str, list[str]]:
    """All that is stored, but for what tells of a dry run itself, and that it was asked for."""
    own = {"runs", "run_skips", "leases", "stage", "todo"}
    tables = await front.house.dump(without=own)
    used = ("audit", "tokens")
    return {name: rows for name, rows in tables.items() if not name.startswith(used)}


def actions(plan: dict[str, Any]) -> dict[str, str]:
    return {one["path"]: one["action"] for one in plan["plan"]}


async def test_a_plan_says_what_a_run_would_do_and_writes_nothing(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    front.house.there.put("kv/b", {"k": "1"})
    await front.house.run()
    front.house.there.put("kv/a", {"k": "2"})
    front.house.there.put("kv/new", {"k": "1"})
    before = await written(front)
    made = await front.client.post(PLAN)
    assert made.status == 200
    assert await written(front) == before
    assert actions(made.body) == {"ext/a": "update", "ext/new": "create"}
    told = made.body
    assert (told["kind"], told["trigger"], told["result"]) == ("dry", "api", "ok")
    assert (told["planned"], told["hidden"], told["guards"], told["error"]) == (2, 0, [], None)
    shown = await front.client.get(f"{BACKENDS}/{BACKEND}/runs/{told['run_id']}")
    assert shown.body["counts"] == told["counts"]


async def test_a_plan_of_some_paths_looks_at_those_alone(front: Front) -> None:
    for name in ("a", "b"):
        front.house.there.put(f"kv/{name}", {"k": "1"})
    made = await front.client.post(PLAN, json={"paths": ["ext/a"]})
    assert actions(made.body) == {"ext/a": "create"}


async def test_the_plan_shows_what_a_guard_keeps_from_happening(front: Front) -> None:
    await front.house.configure(on_remote_delete=OnRemoteDelete.SOFT_DELETE)
    for name in ("a", "b"):
        front.house.there.put(f"kv/{name}", {"k": "1"})
    await front.house.run()
    for name in ("a", "b"):
        front.house.there.remove(f"kv/{name}")
    front.house.there.put("kv/other", {"k": "1"})
    made = (await front.client.post(PLAN)).body
    assert (made["state"], made["error"]["code"]) == ("failed", "mass_delete_guard")
    [guard] = made["guards"]
    assert (guard["code"], guard["plan"]["unlisted"]) == ("mass_delete_guard", 2)
    assert actions(made) == {"ext/a": "delete", "ext/b": "delete", "ext/other": "create"}
    assert {row["state"] for row in await front.house.rows("secrets")} == {"live"}


async def robot(front: Front, pattern: str) -> Client:
    """Somebody who may list what a pattern names."""
    policies = front.house.app.policies
    await policies.create(TENANT, "mine", [NewRule(pattern, [Permission.LIST])], by="cli:test")
    await policies.bind(TENANT, "mine", Bound.parse("sa:robot"), by="cli:test")
    return front.client.with_token(await front.token(Scope.FEDERATION_WRITE))


async def test_of_a_plan_somebody_sees_the_paths_that_they_may_list(front: Front) -> None:
    for name in ("mine/a", "yours/a"):
        front.house.there.put(f"kv/{name}", {"k": "1"})
    seen = (await (await robot(front, "ext/mine/**")).post(PLAN)).body
    assert actions(seen) == {"ext/mine/a": "create"}
    assert (seen["planned"], seen["hidden"]) == (2, 1)


async def test_where_a_pair_moves_is_told_who_may_list_that_path(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    await front.house.run()
    await front.house.configure(rules=(RuleSpec("yours/**", "kv/**"),))

    async def told(who: Client) -> list[str]:
        return [one["detail"] for one in (await who.post(PLAN)).body["plan"]]

    assert "moves to yours/a" in await told(front.client)
    assert await told(await robot(front, "ext/**")) == ["moves to a path that you may not list"]


async def test_an_answer_holds_so_much_of_a_plan_and_says_how_much_there_is(front: Front) -> None:
    for n in range(MOST_SHOWN + 2):
        front.house.there.put(f"kv/{n:05}", {"k": "1"})
    made = (await front.client.post(PLAN)).body
    assert [one["path"] for one in made["plan"]] == [f"ext/{n:05}" for n in range(MOST_SHOWN)]
    assert made["planned"] == MOST_SHOWN + 2


async def test_a_plan_that_takes_too_long_is_broken_off_and_gives_the_backend_back(
    house: House,
) -> None:
    house.there.put("kv/a", {"k": "1"})
    plans = Plans(house.app.runs, house.app.federation, seconds=0.5)
    pause = Pause(house.there, "list")  # for good: the time is over some time
    with pytest.raises(SvsyncError, match=r"within 0\.5 seconds") as stopped:
        await plans.plan(TENANT, ADMIN, BACKEND, None)
    assert (stopped.value.code, status_of(stopped.value)) == ("plan_too_long", 504)
    pause.let_go()
    assert {row["error_code"] for row in await house.rows("runs")} <= {"interrupted"}
    patient = Plans(house.app.runs, house.app.federation)
    assert actions(await patient.plan(TENANT, ADMIN, BACKEND, None)) == {"ext/a": "create"}


async def test_a_backend_that_is_being_run_is_busy(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    pause = Pause(front.house.there, "read")
    running = asyncio.create_task(front.house.run())
    await pause.reached.wait()
    refused = await front.client.post(PLAN)
    assert refused.told == (409, "backend_busy")
    assert "ask again" in refused.body["error"]["message"]  # there is no --wait here
    pause.let_go()
    await running


async def test_a_process_makes_so_many_plans_at_once_and_goes_on_after_them(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    more = [
        backend([RuleSpec(f"{name}/**", f"{name}/**")], id=BackendId(f"fed_{name}"))
        for name in map(str, range(AT_ONCE))
    ]
    await front.house.app.federation.apply([front.house.spec, *more])
    go, all_wait = asyncio.Event(), asyncio.Event()
    waiting: list[str] = []

    async def hold(operation: str, path: str) -> None:
        waiting.append(operation)
        if len(waiting) == AT_ONCE:
            all_wait.set()
        await go.wait()

    front.house.there.before = hold
    asked = [asyncio.create_task(front.client.post(f"{BACKENDS}/{one.id}/plan")) for one in more]
    await all_wait.wait()
    assert (await front.client.post(PLAN)).told == (503, "overloaded")
    go.set()
    assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
    assert (await front.client.post(PLAN)).status == 200


async def test_what_cannot_run_has_no_plan(front: Front) -> None:
    await front.client.post(f"{BACKENDS}/{BACKEND}/pause")
    assert (await front.client.post(PLAN)).told == (409, "backend_paused")
    await front.client.post(f"{BACKENDS}/{BACKEND}/resume")
    await front.house.configure(mode=Mode.PROXY)
    assert (await front.client.post(PLAN)).told == (409, "not_synced")


async def test_no_paths_at_all_are_refused(front: Front) -> None:
    refused = await front.client.post(PLAN, json={"paths": []})
    assert (refused.told, refused.body["error"]["field"]) == ((422, "invalid_field"), "paths")


async def test_that_a_plan_was_asked_for_is_recorded_first(front: Front) -> None:
    await front.client.post(PLAN)
    row = await front.house.row("audit", action="federation.plan")
    assert (row["decision"], row["backend_id"]) == ("allow", BACKEND)
