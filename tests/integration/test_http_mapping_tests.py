"""Does the mapping say over HTTP what becomes of a path, and only to who may know?"""

from typing import Any

import pytest
from tests.api import BACKENDS, Front
from tests.house import BACKEND, TENANT

from svsync.domain.access import Scope
from svsync.domain.bindings import Bound
from svsync.domain.federation import RuleSpec
from svsync.domain.policies import Permission
from svsync.services.policies import NewRule

TEST = f"{BACKENDS}/{BACKEND}/map/test"


async def asked(front: Front, *paths: str) -> list[dict[str, Any]]:
    answer = await front.client.post(TEST, json={"paths": list(paths)})
    assert answer.status == 200
    assert answer.body["backend_id"] == BACKEND
    assert [one["path"] for one in answer.body["paths"]] == list(paths)
    found: list[dict[str, Any]] = answer.body["paths"]
    return found


async def test_a_path_is_explained_both_ways(front: Front) -> None:
    await front.house.configure(
        rules=(RuleSpec("", "kv/no/**", exclude=True), RuleSpec("ext/*/x-*", "kv/*/y-*"))
    )
    there, here = await asked(front, "kv/app/y-db", "ext/app/x-db")
    told = {
        "rule": 1,
        "local_pattern": "ext/*/x-*",
        "remote_pattern": "kv/*/y-*",
        "captures": [{"name": "*", "value": "app"}, {"name": "*2", "value": "db"}],
        "local": "ext/app/x-db",
        "remote": "kv/app/y-db",
        "reason": None,
        "detail": None,
    }
    assert there["as_remote"] == told
    assert here["as_local"] == told
    assert there["as_local"]["reason"] == here["as_remote"]["reason"] == "unmapped"


async def test_why_a_path_is_not_federated_is_said(front: Front) -> None:
    await front.house.configure(
        rules=(RuleSpec("", "kv/no/**", exclude=True), RuleSpec("ext/**", "kv/**"))
    )
    shut, odd = await asked(front, "kv/no/a", "kv/a b")
    assert (shut["as_remote"]["rule"], shut["as_remote"]["reason"]) == (0, "excluded")
    assert odd["as_remote"]["reason"] == odd["as_local"]["reason"] == "illegal_path"


async def test_who_may_not_list_a_path_is_not_told_of_it(front: Front) -> None:
    policies = front.house.app.policies
    rule = NewRule("ext/mine/**", [Permission.LIST])
    await policies.create(TENANT, "mine", [rule], by="cli:test")
    await policies.bind(TENANT, "mine", Bound.parse("sa:robot"), by="cli:test")
    robot = front.client.with_token(await front.token(Scope.FEDERATION_READ))
    paths = ["kv/mine/a", "kv/yours/a", "ext/mine/a", "ext/yours/a", "no path"]
    found = (await robot.post(TEST, json={"paths": paths})).body["paths"]
    known = [(one["as_remote"] is not None, one["as_local"] is not None) for one in found]
    assert known == [(True, False), (False, False), (True, True), (True, False), (True, True)]
    assert found[0]["as_remote"]["local"] == "ext/mine/a"
    assert found[3]["as_remote"]["reason"] == "unmapped"


async def test_nothing_is_looked_up_at_the_backend(front: Front) -> None:
    await asked(front, "kv/a", "ext/a")
    assert not front.house.there.calls


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "paths"),
        ({"paths": []}, "paths"),
        ({"paths": [""]}, "paths[0]"),
        ({"paths": ["a", 7]}, "paths[1]"),
        ({"paths": ["a" * 4_097]}, "paths[0]"),
        ({"paths": ["\ud800"]}, "paths[0]"),
        ({"paths": ["a"] * 101}, "paths"),
    ],
)
async def test_what_cannot_be_tested_is_refused_by_name(
    front: Front, body: dict[str, Any], field: str
) -> None:
    refused = await front.client.post(TEST, json=body)
    assert refused.told == (422, "invalid_field")
    assert refused.body["error"]["field"] == field


async def test_a_test_is_recorded(front: Front) -> None:
    await asked(front, "kv/a")
    row = await front.house.row("audit", action="federation.map_test")
    assert (row["decision"], row["backend_id"]) == ("allow", BACKEND)
