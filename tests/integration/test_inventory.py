"""Is a backend looked at whole, with what its rules federate of it, and are readers told?"""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.house import BACKEND, TENANT, House

from svsync.domain.audit import LOOK, Decision, Entry
from svsync.services.inventory import Inventories


def inventories(house: House) -> Inventories:
    return Inventories(house.app.db, house.app.registry)


async def test_a_store_without_surveys_is_told_by_what_its_rules_list(house: House) -> None:
    for name in ("kv/apps/a", "kv/apps/b c", "kv/top"):
        house.there.put(name, {"k": "1"})
    found: dict[str, Any] = await inventories(house).of_backend(TENANT, BACKEND, depth=2)
    folders = {f["prefix"]: (f["secrets"], f["federated"]) for f in found["folders"]}
    assert folders == {"kv/apps/": (2, 1), "kv/": (1, 1)}
    assert [(n["path"], n["reason"]) for n in found["notable"]] == [
        ("kv/apps/b c", "name_not_local")
    ]
    assert (found["backend_id"], found["engines"], found["not_listed"]) == (BACKEND, [], [])


async def test_readers_of_our_own_log_are_told_by_path(house: House) -> None:
    async def read(path: str, who: str, decision: Decision = Decision.ALLOW) -> None:
        row = Entry(TENANT, "service_account", who, "secret.read", decision, path)
        await house.app.recorder.record(row)

    for path, who in (("ext/a", "sa:x"), ("ext/a", "sa:x"), ("ext/a", "sa:y"), ("other", "sa:x")):
        await read(path, who)
    await read("ext/a", "sa:z", Decision.DENY)
    for kind, who, request in (("operator", "cli:ada", None), ("user", "user:ada", f"{LOOK}1")):
        look = Entry(TENANT, kind, who, "secret.read", Decision.ALLOW, "ext/a", request_id=request)
        await house.app.recorder.record(look)
    found = await inventories(house).readers(TENANT, "ext/", None, most=10)
    told = {(r["path"], r["reader"], r["reads"]) for r in found["readers"]}
    assert told == {("ext/a", "sa:x", 2), ("ext/a", "sa:y", 1)}
    assert not found["truncated"]
    cut = await inventories(house).readers(TENANT, "", None, most=1)
    assert (len(cut["readers"]), cut["truncated"]) == (1, True)
    later = datetime.now(UTC) + timedelta(days=1)
    assert (await inventories(house).readers(TENANT, "", later, most=1))["readers"] == []
