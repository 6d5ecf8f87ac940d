"""A resolution whose push a real KV store takes on its condition, or refuses."""

from pathlib import Path
from typing import Any

import pytest
from tests.house import ALLOW_ALL, BACKEND, TENANT, House, counts
from tests.integration.test_cycle_openbao import house_of
from tests.openbao import Bao

from svsync.domain.federation import ConflictPolicy, Writes
from svsync.domain.ids import LocalPath
from svsync.domain.resolutions import Resolution

A = LocalPath("ext/a")
BASE, HERE, THERE = {"k": "base"}, {"k": "here"}, {"k": "there"}


@pytest.fixture
def database(database_url: str, admin_url: str, state_dir: Path) -> tuple[str, str, Path]:
    return database_url, admin_url, state_dir


async def freeze(house: House, bao: Bao, *, gone: bool = False) -> None:
    """`ext/a` in an open conflict, then written through."""
    await bao.put("a", BASE)
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    await house.run(allow=ALLOW_ALL)
    await house.write(A, HERE)
    if gone:
        await bao.delete("a")
    else:
        await bao.put("a", THERE)
    await house.run(allow=ALLOW_ALL)
    assert await house.status(A) == "conflict"
    await house.configure(writes=Writes.WRITE_THROUGH, extra={"allow_blind_push": True})


async def there(bao: Bao) -> Any:
    inner = "data/" if bao.version == 2 else ""
    answer: Any = await bao.request("GET", f"{bao.mount}/{inner}a")
    return answer["data"]["data"] if bao.version == 2 else answer["data"]


async def use_local(house: House) -> str:
    answer: Any = await house.app.conflicts.resolve(
        TENANT, BACKEND, A, Resolution.USE_LOCAL, by="user:ann"
    )
    return str(answer["write_through"]["state"])


@pytest.mark.parametrize("gone", [False, True], ids=["changed", "deleted"])
async def test_local_value_is_pushed_on_the_condition_of_what_was_seen(
    kv2: Bao, database: tuple[str, str, Path], gone: bool
) -> None:
    async with house_of(kv2, database) as house:
        await freeze(house, kv2, gone=gone)
        assert await use_local(house) == "applied"
        assert await there(kv2) == HERE
        for _ in range(2):
            assert counts(await house.run()).keys() == {"listed", "unchanged"}
        assert await house.status(A) == "in_sync"


async def test_write_that_nobody_saw_refuses_the_push_and_is_a_new_conflict(
    kv2: Bao, database: tuple[str, str, Path]
) -> None:
    async with house_of(kv2, database) as house:
        await freeze(house, kv2)
        await kv2.put("a", {"k": "later"})
        assert await use_local(house) == "pending"
        assert counts(await house.run())["conflicts"] == 1
        assert await there(kv2) == {"k": "later"}
        assert (await house.data(A), await house.status(A)) == (HERE, "conflict")


async def test_store_without_versions_is_told_by_the_value_that_was_seen(
    kv1: Bao, database: tuple[str, str, Path]
) -> None:
    async with house_of(kv1, database) as house:
        await freeze(house, kv1)
        assert await use_local(house) == "applied"
        assert await there(kv1) == HERE
        for _ in range(2):
            assert counts(await house.run()).keys() == {"listed", "unchanged"}


async def test_store_without_versions_refuses_a_push_over_what_nobody_saw(
    kv1: Bao, database: tuple[str, str, Path]
) -> None:
    async with house_of(kv1, database) as house:
        await freeze(house, kv1)
        await kv1.put("a", {"k": "later"})
        assert await use_local(house) == "pending"
        assert await there(kv1) == {"k": "later"}
        assert counts(await house.run())["conflicts"] == 1
