"""Is it told folder by folder how far a migration is, only of what somebody may list, and never
more than is known?"""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from tests.api import Front
from tests.house import BACKEND, TENANT, backend

from svsync.domain.access import Scope
from svsync.domain.audit import LOOK, Decision, Entry
from svsync.domain.bindings import Bound
from svsync.domain.errors import UsageError
from svsync.domain.federation import BackendSpec, ConflictPolicy, Mode, OnRemoteDelete, RuleSpec
from svsync.domain.ids import BackendId
from svsync.domain.mapping import RuleSet
from svsync.domain.policies import ADMIN, Permission
from svsync.services.policies import NewRule
from svsync.services.subtrees import AT_ONCE, Subtrees
from svsync.store import subtrees
from svsync.store.database import Row, Transaction
from svsync.store.pairs import Mapping as PairMapping

MIGRATION = "/v1/migration"
COUNTS = ("federated", "synced", "copied", "read_here", "ready", "conflicts", "local", "detached")


async def read_here(front: Front, path: str, who: str = "service_account", **about: Any) -> None:
    row = Entry(TENANT, who, "sa:billing", "secret.read", Decision.ALLOW, path, **about)
    await front.house.app.recorder.record(row)


async def folders(front: Front, query: str = "") -> dict[str, dict[str, Any]]:
    answer = await front.client.get(f"{MIGRATION}{query}")
    assert answer.status == 200
    return {one["folder"]: one for one in answer.body["folders"]}


def counts(folder: dict[str, Any]) -> dict[str, int]:
    """Those that are not nought."""
    return {name: folder[name] for name in COUNTS if folder[name]}


async def federate(front: Front, *names: str) -> None:
    for name in names:
        front.house.there.put(f"kv/{name}", {"k": name})
    await front.house.run()


async def test_a_folder_counts_what_lies_below_it(front: Front) -> None:
    await federate(front, "apps/a", "apps/deep/b", "top")
    await front.house.write("own/c", {"k": "1"})
    root = await folders(front)
    assert {name: counts(one) for name, one in root.items()} == {
        "ext/": {"federated": 3, "synced": 3},
        "own/": {"local": 1},
    }
    assert root["ext/"]["backend_ids"] == [BACKEND]
    below = await folders(front, "?prefix=ext")
    assert {name: one["secrets"] for name, one in below.items()} == {"ext/": 1, "ext/apps/": 2}
    assert below == await folders(front, "?prefix=ext/")


async def test_each_folder_names_its_next_step(front: Front) -> None:
    await federate(front, "new/a", "read/a", "both/a", "moved/a")
    await read_here(front, "ext/read/a")
    front.house.there.put("kv/moved/a", {"k": "2"})
    await front.house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    front.house.there.put("kv/both/a", {"k": "there"})
    await front.house.write("ext/both/a", {"k": "here"})
    await front.house.run("ext/both/**")
    await front.house.write("ext/moved/a", {"k": "here"})
    await front.house.write("own/a", {"k": "1"})
    found = {**await folders(front), **await folders(front, "?prefix=ext")}
    steps = {name: one["next"]["step"] for name, one in found.items()}
    assert steps.pop("ext/") == "resolve"
    assert steps == {
        "own/": "done",
        "ext/both/": "resolve",
        "ext/moved/": "wait_for_run",
        "ext/new/": "move_readers",
        "ext/read/": "check_source",
    }
    command = found["ext/read/"]["next"]["command"]
    assert command == "svsync retire plan 'ext/read/**' --idle 7d"


async def test_only_an_applications_read_within_the_time_counts(front: Front) -> None:
    await federate(front, "app", "person", "look")
    await read_here(front, "ext/app")
    await read_here(front, "ext/person", "operator")
    await read_here(front, "ext/look", request_id=f"{LOOK}1")
    assert counts((await folders(front))["ext/"])["read_here"] == 1


async def test_a_copy_and_who_reads_it_count_for_what_was_copied(front: Front) -> None:
    await federate(front, "a", "b")
    await front.house.write("apps/a", {"k": "a"})
    await read_here(front, "apps/a")
    found = await folders(front)
    told = {"federated": 2, "synced": 2, "copied": 1, "read_here": 1, "ready": 1}
    assert counts(found["ext/"]) == told


async def test_what_would_be_deleted_with_its_source_is_not_ready(front: Front) -> None:
    await front.house.configure(on_remote_delete=OnRemoteDelete.SOFT_DELETE)
    await federate(front, "a")
    await read_here(front, "ext/a")
    assert counts((await folders(front))["ext/"]) == {"federated": 1, "synced": 1, "read_here": 1}


async def test_what_was_not_listed_whole_of_late_is_not_ready(front: Front) -> None:
    await federate(front, "a")
    await read_here(front, "ext/a")
    assert counts((await folders(front))["ext/"])["ready"] == 1
    await front.house.admin.execute(
        "UPDATE backend_health SET last_success_at = now() - interval '1 day'"
    )
    assert "ready" not in counts((await folders(front))["ext/"])


async def test_what_left_the_mapping_is_local_and_said_to_be_detached(front: Front) -> None:
    await federate(front, "old/a", "a")
    rules = (RuleSpec("", "kv/old/**", exclude=True), RuleSpec("ext/**", "kv/**"))
    await front.house.configure(rules=rules)
    await front.house.run()
    found = await folders(front, "?prefix=ext")
    assert counts(found["ext/old/"]) == {"local": 1, "detached": 1}


async def test_what_is_read_through_is_named_and_not_counted(front: Front) -> None:
    through = backend(
        [RuleSpec("legacy/in/**", "old/**")], id=BackendId("fed_through"), mode=Mode.PROXY
    )
    await front.house.app.federation.apply([front.house.spec, through])
    await front.house.write("legacy/own", {"k": "1"})
    told = (await front.client.get(MIGRATION)).body
    assert told["read_through"] == ["legacy/in/**"]
    [folder] = told["folders"]
    assert (folder["folder"], folder["next"]["step"]) == ("legacy/", "synchronise")
    assert any("svsync inventory" in one for one in told["unknown"])
    assert (await front.client.get(f"{MIGRATION}?prefix=ext")).body["read_through"] == []


async def test_who_reads_at_the_source_is_said_to_be_unknown(front: Front) -> None:
    told = (await front.client.get(MIGRATION)).body
    assert told["read_at_source"] is None
    assert any("svsync retire plan" in one for one in told["unknown"])
    assert told["folders"] == []


async def robot(front: Front, *rules: tuple[str, Permission]) -> Any:
    policies = front.house.app.policies
    given = [NewRule(pattern, [permission]) for pattern, permission in rules]
    await policies.create(TENANT, "mine", given, by="cli:test")
    await policies.bind(TENANT, "mine", Bound.parse("sa:robot"), by="cli:test")
    token = await front.token(Scope.FEDERATION_READ, Scope.SECRETS_READ)
    return front.client.with_token(token)


async def test_folders_whose_secrets_somebody_may_not_list_are_not_told(front: Front) -> None:
    await federate(front, "mine/a", "yours/a")
    some = await robot(front, ("ext/mine/**", Permission.LIST))
    told = (await some.get(f"{MIGRATION}?prefix=ext")).body
    assert [one["folder"] for one in told["folders"]] == ["ext/mine/"]
    assert "yours" not in json.dumps(told)
    assert [one["secrets"] for one in (await some.get(MIGRATION)).body["folders"]] == [1]


async def test_who_may_not_read_a_value_does_not_find_it_by_writing_it_elsewhere(
    front: Front,
) -> None:
    await federate(front, "mine/a", "other/a")
    for name in ("mine", "other"):
        await front.house.write(f"guess/{name}", {"k": f"{name}/a"})
        await read_here(front, f"guess/{name}")
    some = await robot(
        front,
        ("ext/**", Permission.LIST),
        ("ext/mine/**", Permission.READ),
        ("guess/**", Permission.READ),
    )
    told = (await some.get(f"{MIGRATION}?prefix=ext")).body["folders"]
    found = {one["folder"]: counts(one) for one in told}
    assert found["ext/mine/"]["copied"] == found["ext/mine/"]["read_here"] == 1
    assert found["ext/other/"] == {"federated": 1, "synced": 1}


async def test_who_may_not_read_a_value_does_not_find_it_by_writing_it_to_a_pair(
    front: Front,
) -> None:
    await federate(front, "mine/a")
    await front.house.write("others/secret", {"k": "mine/a"})
    await read_here(front, "others/secret")
    some = await robot(front, ("ext/**", Permission.LIST), ("ext/**", Permission.READ))
    [folder] = (await some.get(f"{MIGRATION}?prefix=ext")).body["folders"]
    assert counts(folder) == {"federated": 1, "synced": 1}


async def test_a_process_counts_so_many_at_once_and_goes_on_after_them(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    await federate(front, "a")
    go, all_wait = asyncio.Event(), asyncio.Event()
    waiting: list[str] = []
    page = subtrees.page

    async def hold(tx: Transaction, after: str, *given: Any) -> list[Row]:
        waiting.append(after)
        if len(waiting) == AT_ONCE:
            all_wait.set()
        if len(waiting) <= AT_ONCE:
            await go.wait()
        return await page(tx, after, *given)

    monkeypatch.setattr(subtrees, "page", hold)
    asked = [asyncio.create_task(front.client.get(MIGRATION)) for _ in range(AT_ONCE)]
    await all_wait.wait()
    one_more = await front.client.get(MIGRATION)
    go.set()
    assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
    assert one_more.status == 503
    assert one_more.code == "overloaded"
    assert (await front.client.get(MIGRATION)).status == 200


async def test_mapping_of_a_backend_without_secrets_below_is_not_made(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be thousands, and all else waits while one is made."""
    other = backend(id=BackendId("fed_other"), rules=(RuleSpec("other/**", "kv/other/**"),))
    await federate(front, "a")
    await read_here(front, "ext/a")
    await front.house.app.federation.apply([front.house.spec, other])
    made: list[str] = []
    rules = front.house.app.registry.rules

    def counted(spec: BackendSpec) -> tuple[RuleSet, PairMapping]:
        made.append(spec.id)
        return rules(spec)

    monkeypatch.setattr(front.house.app.registry, "rules", counted)
    assert counts((await folders(front))["ext/"]) == {
        "federated": 1, "synced": 1, "read_here": 1, "ready": 1,
    }  # fmt: skip
    assert made == [BACKEND]


async def test_another_tenants_folders_are_not_told(front: Front) -> None:
    await federate(front, "a")
    stranger = front.client.with_token(await front.other_tenant())
    assert (await stranger.get(MIGRATION)).body["folders"] == []


async def test_more_than_one_answer_counts_is_refused(front: Front) -> None:
    await federate(front, "a", "b", "c")
    caller = await front.access.verify(front.client.token or "")
    few = Subtrees(front.house.app.db, front.house.app.registry, most=2)
    with pytest.raises(UsageError, match="name a longer one") as refused:
        await few.look(caller, ADMIN, "", timedelta(days=7))
    assert refused.value.code == "too_many_secrets"
    assert (await few.look(caller, ADMIN, "own/", timedelta(days=7)))["folders"] == []


async def test_pages_of_secrets_are_counted_to_the_last(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svsync.services.subtrees._PAGE", 2)
    await federate(front, "a", "b", "d/e", "f")
    for path in ("aaa", "ext/bb", "zzz/a"):
        await front.house.write(path, {"k": "1"})
    found = await folders(front)
    assert {name: one["secrets"] for name, one in found.items()} == {"": 1, "ext/": 5, "zzz/": 1}


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("prefix=a//b", "illegal_path", "prefix"),
        ("prefix=../x", "illegal_path", "prefix"),
        ("idle=5s", "invalid_field", "idle"),
        ("idle=soon", "invalid_field", "idle"),
        ("folder=x", "unknown_field", "folder"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(
    front: Front, query: str, code: str, field: str
) -> None:
    refused = await front.client.get(f"{MIGRATION}?{query}")
    assert (refused.told, refused.body["error"]["field"]) == ((422, code), field)


async def test_the_look_is_recorded(front: Front) -> None:
    await front.client.get(MIGRATION)
    row = await front.house.row("audit", action="federation.migration")
    assert row["decision"] == "allow"
