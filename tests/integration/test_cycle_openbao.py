"""The few promises of a run that only a real KV store can keep or break."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.house import ENDINGS, WORK, House, backend, counts, failure, open_house, skips
from tests.openbao import Bao, detailed_policy, guide_policy

from svsync.domain.federation import OnRemoteDelete, RuleSpec
from svsync.domain.runs import RunResult


@pytest.fixture
def database(database_url: str, admin_url: str, state_dir: Path) -> tuple[str, str, Path]:
    return database_url, admin_url, state_dir


@asynccontextmanager
async def house_of(
    bao: Bao, database: tuple[str, str, Path], token: str | None = None
) -> AsyncIterator[House]:
    """A house that syncs the whole mount to `ext/**`, as root or with this token."""
    data = "data/" if bao.version == 2 else ""
    spec = backend(
        (RuleSpec("ext/**", f"{bao.mount}/{data}**"),),
        type="hashicorp-vault",
        config={
            "endpoint": bao.url,
            "auth_method": "token",
            "auth_config_path": "env:BAO_TOKEN",
        },
        on_remote_delete=OnRemoteDelete.SOFT_DELETE,
    )
    environ = {"BAO_TOKEN": token or bao.root_token}
    async with open_house(*database, spec, environ=environ) as house:
        yield house


@pytest.mark.parametrize("detailed", [True, False], ids=["detailed", "guide"])
async def test_soft_delete_undelete_and_destroy_are_seen(
    kv2: Bao, database: tuple[str, str, Path], detailed: bool
) -> None:
    """None of them moves the version or the time of the secret (S2, E1)."""
    policy = guide_policy(kv2.mount) + (detailed_policy(kv2.mount) if detailed else "")
    await kv2.put("a", {"k": "1"})
    await kv2.put("b", {"k": "1"})
    async with house_of(kv2, database, await kv2.token(policy)) as house:
        await house.run()
        await kv2.delete("a")
        assert counts(await house.run())["deleted"] == 1
        assert await house.paths() == ["ext/b"]
        await kv2.undelete("a", [1])
        await house.run()
        assert await house.data("ext/a") == {"k": "1"}
        await kv2.destroy("a", [1])
        assert counts(await house.run())["deleted"] == 1
        ended = await house.run()
        assert (ended.record.result, counts(ended).get("deleted")) == (RunResult.OK, None)


async def test_secret_made_anew_under_the_same_number_is_another_value(
    kv2: Bao, database: tuple[str, str, Path]
) -> None:
    await kv2.put("a", {"k": "old"})
    async with house_of(kv2, database) as house:
        await house.run()
        await kv2.remove("a")
        await kv2.put("a", {"k": "new"})
        assert counts(await house.run()) == {"listed": 1, "updated": 1}
        assert await house.versions("ext/a") == [{"k": "old"}, {"k": "new"}]


async def test_quiet_cycle_reads_no_value_and_writes_nothing(
    kv2: Bao, database: tuple[str, str, Path]
) -> None:
    for n in range(5):
        await kv2.put(f"app/{n}", {"k": str(n)})
    await kv2.tag("app/0", {"team": "x"})
    async with house_of(kv2, database) as house:
        await house.run()
        before = await house.dump(without=WORK | ENDINGS)
        ended = await house.run()
        assert ended.report.calls["read"] == 0
        assert counts(ended) == {"listed": 5, "unchanged": 5}
        assert await house.dump(without=WORK | ENDINGS) == before


async def test_versions_are_imported_in_order_with_their_times(
    kv2: Bao, database: tuple[str, str, Path]
) -> None:
    for n in range(1, 5):
        await kv2.put("a", {"k": str(n)})
    await kv2.delete("a", [2])
    async with house_of(kv2, database) as house:
        await house.run()
        assert await house.versions("ext/a") == [{"k": "1"}, {"k": "3"}, {"k": "4"}]
        times = [
            row["created_at"]
            for row in await house.admin.fetch("SELECT created_at FROM versions ORDER BY version")
        ]
        assert times == sorted(times)
        assert len(set(times)) == 3


async def test_denied_folder_is_unknown_until_the_permission_returns(
    kv2: Bao, database: tuple[str, str, Path]
) -> None:
    await kv2.put("app/a", {"k": "1"})
    await kv2.put("b", {"k": "1"})
    whole = guide_policy(kv2.mount)
    shut = f'path "{kv2.mount}/metadata/app/*" {{ capabilities = ["deny"] }}\n'
    name = await kv2.policy(whole)
    made = await kv2.request("POST", "auth/token/create", {"policies": [name]})
    auth = made["auth"]
    assert isinstance(auth, dict)
    async with house_of(kv2, database, auth["client_token"]) as house:
        assert (await house.run()).record.result is RunResult.OK
        await kv2.request("PUT", f"sys/policies/acl/{name}", {"policy": whole + shut})
        ended = await house.run()
        assert skips(ended) == {f"{kv2.mount}/data/app/a": "denied"}
        assert await house.paths() == ["ext/app/a", "ext/b"]
        assert await house.status("ext/app/a") == "denied"
        await kv2.request("PUT", f"sys/policies/acl/{name}", {"policy": whole})
        assert (await house.run()).record.result is RunResult.OK
        assert await house.status("ext/app/a") == "in_sync"


async def test_missing_mount_is_a_failed_listing_and_no_deletion(
    kv2: Bao, database: tuple[str, str, Path]
) -> None:
    await kv2.put("a", {"k": "1"})
    async with house_of(kv2, database) as house:
        await house.run()
        await kv2.request("DELETE", f"sys/mounts/{kv2.mount}")
        ended = await house.run()
        assert failure(ended) is not None or ended.record.result is RunResult.PARTIAL
        assert await house.paths() == ["ext/a"]


async def test_kv_v1_is_compared_by_value(kv1: Bao, database: tuple[str, str, Path]) -> None:
    await kv1.put("a", {"k": "1"})
    await kv1.put("app/b", {"k": "1"})
    async with house_of(kv1, database) as house:
        await house.run()
        before = await house.dump(without=WORK | ENDINGS)
        assert counts(await house.run()) == {"listed": 2, "unchanged": 2}
        assert await house.dump(without=WORK | ENDINGS) == before
        await kv1.put("a", {"k": "2"})
        await kv1.delete("app/b")
        await house.run()
        assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}]
        assert await house.paths() == ["ext/a"]


async def test_number_that_the_store_rewrites_is_no_change(
    kv2: Bao, database: tuple[str, str, Path]
) -> None:
    """1.10 comes back as 1.1, which is the same value (E14)."""
    await kv2.put("a", {"n": 1.10})
    async with house_of(kv2, database) as house:
        await house.run()
        await kv2.put("a", {"n": 1.1})
        assert counts(await house.run()) == {"listed": 1, "unchanged": 1, "retokened": 1}
