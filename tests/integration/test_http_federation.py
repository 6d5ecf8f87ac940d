"""Are backends and runs shown as they are, and runs asked for, over HTTP?"""

import asyncio

from tests.api import BACKENDS, Answer, Front
from tests.house import BACKEND, Pause, backend

from svsync.domain.federation import Mode, RuleSpec
from svsync.domain.ids import BackendId

HOUSE = f"{BACKENDS}/{BACKEND}"
LOOK = "/v1/federation/status"


async def test_status_tells_of_the_last_run(front: Front) -> None:
    before = await front.client.get(f"{HOUSE}/status")
    assert before.status == 200
    assert before.body["last_run"] is None
    front.house.there.put("kv/a", {"k": "1"})
    ended = await front.house.run()
    after = await front.client.get(f"{HOUSE}/status")
    assert after.body["secrets_synced"] == 1
    assert after.body["last_run"]["run_id"] == ended.record.run_id
    assert after.body["last_run"]["result"] == "ok"


async def test_a_run_is_shown_with_what_it_skipped(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    front.house.there.put("kv/app/b", {"k": "1"})
    await front.house.run()
    front.house.there.denied.add("kv/app/")
    ended = await front.house.run()
    shown = await front.client.get(f"{HOUSE}/runs/{ended.record.run_id}")
    assert shown.status == 200
    assert shown.body == {**ended.to_json(), "api_calls": shown.body["api_calls"]}
    assert shown.body["skipped"] != []
    [brief, _] = (await front.client.get(f"{HOUSE}/runs")).body["runs"]
    assert brief == {name: value for name, value in shown.body.items() if name != "skipped"}


async def test_runs_are_paged_from_the_newest_on(front: Front) -> None:
    made = [(await front.house.run()).record.run_id for _ in range(3)]
    seen = []
    cursor = ""
    while True:
        page = await front.client.get(f"{HOUSE}/runs?limit=2{cursor}")
        seen.append([run["run_id"] for run in page.body["runs"]])
        if page.body["next_cursor"] is None:
            break
        cursor = f"&cursor={page.body['next_cursor']}"
    assert seen == [[made[2], made[1]], [made[0]]]


async def test_a_page_that_is_just_full_is_the_last(front: Front) -> None:
    await front.house.run()
    page = await front.client.get(f"{HOUSE}/runs?limit=1")
    assert (len(page.body["runs"]), page.body["next_cursor"]) == (1, None)


async def test_a_run_of_another_backend_is_not_found_here(front: Front) -> None:
    ended = await front.house.run()
    await front.house.admin.execute(
        "UPDATE runs SET backend_id = 'fed_gone' WHERE run_id = $1", ended.record.run_id
    )
    for run in (ended.record.run_id, "run_" + "0" * 32, "run_", "x"):
        found = await front.client.get(f"{HOUSE}/runs/{run}")
        assert found.told == (404, "run_not_found")


async def test_backends_are_listed_and_paged_by_id(front: Front) -> None:
    more = [
        backend([RuleSpec(f"{name}/**", f"{name}/**")], id=BackendId(name))
        for name in ("fed_b", "fed_a")
    ]
    await front.house.app.federation.apply([front.house.spec, *more])
    first = await front.client.get(f"{BACKENDS}?limit=2")
    assert [backend["id"] for backend in first.body["backends"]] == ["fed_a", "fed_b"]
    assert first.body["next_cursor"] == "fed_b"
    second = await front.client.get(f"{BACKENDS}?limit=2&cursor=fed_b")
    assert [backend["id"] for backend in second.body["backends"]] == ["fed_house"]
    assert second.body["next_cursor"] is None


async def test_a_backend_is_shown_in_the_words_of_the_file(front: Front) -> None:
    rules = (RuleSpec("ext/**", "kv/**"), RuleSpec("no/**", exclude=True))
    await front.house.configure(rules=rules, config={"auth_config_path": "env:HOUSE_TOKEN"})
    shown = (await front.client.get(HOUSE)).body
    assert shown["path_mapping"] == [
        {"local": "ext/**", "remote": "kv/**"},
        {"local": "no/**", "exclude": True},
    ]
    assert shown["config"] == {"auth_config_path": "env:HOUSE_TOKEN"}
    assert (shown["sync_interval"], shown["managed_by"]) == ("15m", "file")
    assert (shown["state"], shown["rev"]) == ("active", 2)


async def test_a_triggered_run_can_be_looked_up_at_once(front: Front) -> None:
    made = await front.client.post(f"{HOUSE}/sync")
    assert made.status == 202
    assert made.body["coalesced"] is False
    shown = await front.client.get(f"{HOUSE}/runs/{made.body['run_id']}")
    assert (shown.body["state"], shown.body["kind"]) == ("queued", "full")
    assert shown.body["trigger"] == "api"


async def test_asking_again_gives_the_run_that_waits(front: Front) -> None:
    first = await front.client.post(f"{HOUSE}/sync", json={})
    again = await front.client.post(f"{HOUSE}/sync", json={"full": True})
    assert again.body == {"run_id": first.body["run_id"], "coalesced": True}


async def test_paths_make_a_targeted_run_with_its_leave(front: Front) -> None:
    made = await front.client.post(
        f"{HOUSE}/sync", json={"paths": ["ext/a", "ext/b/**"], "allow": ["mass_delete"]}
    )
    row = await front.house.row("runs", run_id=made.body["run_id"])
    assert (row["kind"], row["paths"], row["allow"]) == (
        "targeted",
        ["ext/a", "ext/b/**"],
        ["mass_delete"],
    )


async def refused(front: Front, body: object) -> Answer:
    answer = await front.client.post(f"{HOUSE}/sync", json=body)
    assert await front.house.rows("runs") == []
    return answer


async def test_what_cannot_be_asked_for_is_refused_by_its_field(front: Front) -> None:
    for body, field in (
        ({"paths": []}, "paths"),
        ({"paths": "ext/a"}, "paths"),
        ({"paths": ["ext/a", 1]}, "paths[1]"),
        ({"paths": ["ext/a***"]}, "paths[0]"),
        ({"paths": ["ext/\u0000"]}, "paths[0]"),
        ({"paths": ["ext/\ud800"]}, "paths[0]"),
        ({"paths": [f"ext/{n}" for n in range(1_001)]}, "paths"),
        ({"paths": ["ext/a"], "full": True}, "full"),
        ({"full": "yes"}, "full"),
        ({"allow": ["everything"]}, "allow[0]"),
        ({"path": ["ext/a"]}, "path"),
    ):
        answer = await refused(front, body)
        assert answer.told == (422, "unknown_field" if field == "path" else "invalid_field")
        assert answer.body["error"]["field"] == field
        assert answer.body["error"]["message"].startswith(f"{field}: ")


async def test_a_backend_that_cannot_run_says_so_and_nothing_waits(front: Front) -> None:
    await front.client.post(f"{HOUSE}/pause")
    assert (await front.client.post(f"{HOUSE}/sync")).told == (409, "backend_paused")
    await front.client.post(f"{HOUSE}/resume")
    await front.house.configure(mode=Mode.PROXY)
    assert (await front.client.post(f"{HOUSE}/sync")).told == (409, "not_synced")
    assert await front.house.rows("runs") == []


async def test_pausing_and_resuming_may_be_repeated(front: Front) -> None:
    for verb, state in (
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "active"),
        ("resume", "active"),
    ):
        done = await front.client.post(f"{HOUSE}/{verb}")
        assert (done.status, done.body) == (200, {"id": BACKEND, "state": state})
        assert (await front.client.get(f"{HOUSE}/status")).body["paused"] is (state == "paused")


async def test_a_backend_that_the_file_lets_go_of_is_not_resumed(front: Front) -> None:
    await front.house.admin.execute(
        "UPDATE backends SET state = 'deleting' WHERE backend_id = $1", BACKEND
    )
    for verb in ("pause", "resume"):
        assert (await front.client.post(f"{HOUSE}/{verb}")).told == (409, "backend_removed")


async def test_one_look_tells_of_every_backend_what_its_status_does(front: Front) -> None:
    more = [
        backend([RuleSpec(f"{name}/**", f"{name}/**")], id=BackendId(name))
        for name in ("fed_b", "fed_a")
    ]
    await front.house.app.federation.apply([front.house.spec, *more])
    front.house.there.put("kv/a", {"k": "1"})
    await front.house.run()
    await front.client.post(f"{BACKENDS}/fed_a/sync")
    look = (await front.client.get(LOOK)).body
    assert look["runs"] == {"running": 0, "waiting": 1}
    assert [one["id"] for one in look["backends"]] == ["fed_a", "fed_b", BACKEND]
    assert [one["runs_waiting"] for one in look["backends"]] == [1, 0, 0]
    status = (await front.client.get(f"{HOUSE}/status")).body
    shown = look["backends"][-1]
    assert shown["last_run"] == status.pop("last_run")["run_id"]
    del status["staleness_s"]
    assert status.items() <= shown.items()
    first = (await front.client.get(f"{LOOK}?limit=2")).body
    assert [one["id"] for one in first["backends"]] == ["fed_a", "fed_b"]
    rest = (await front.client.get(f"{LOOK}?limit=2&cursor={first['next_cursor']}")).body
    assert ([one["id"] for one in rest["backends"]], rest["next_cursor"]) == ([BACKEND], None)


async def test_a_look_tells_how_far_a_run_is(front: Front) -> None:
    front.house.there.put("kv/a", {"k": "1"})
    pause = Pause(front.house.there, "read")
    running = asyncio.create_task(front.house.run())
    await pause.reached.wait()
    [shown] = (await front.client.get(LOOK)).body["backends"]
    pause.let_go()
    await running
    assert (shown["run"]["to_do"], shown["run"]["done"], shown["run"]["in_hand"]) == (1, 0, 1)
    assert shown["lease"]["holder"] == shown["run"]["worker"]


async def test_a_look_tells_no_other_tenant_and_nothing_that_all_share(front: Front) -> None:
    await front.house.app.overview.stop("somebody")
    look = (await front.client.get(LOOK)).body
    assert look.keys() == {"at", "runs", "backends", "next_cursor"}
    stranger = front.client.with_token(await front.other_tenant())
    assert (await stranger.get(LOOK)).body["backends"] == []


async def test_an_unknown_backend_is_not_found_on_every_route(front: Front) -> None:
    for name in ("fed_nobody", "a%00b", "x" * 65, "%ed%a0%80", "a%20b"):
        for method, rest in (
            ("GET", ""),
            ("GET", "/status"),
            ("GET", "/runs"),
            ("GET", "/runs/run_" + "0" * 32),
            ("POST", "/sync"),
            ("POST", "/pause"),
            ("POST", "/resume"),
        ):
            answer = await front.client.call(method, f"{BACKENDS}/{name}{rest}")
            assert answer.told == (404, "backend_not_found")
