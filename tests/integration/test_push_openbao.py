"""Writes that go through to a real OpenBao: what it holds afterwards, and what it refuses.

The network is well here; where it is not, see `test_push_network.py`.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.house import TENANT, House, counts, failure, skips
from tests.openbao import Bao, new_mount
from tests.vault_writes import metadata, writing_policy
from tests.vaults import put, there, versions_there, writing_house

from svsync import registry
from svsync.backends.guarded import BackendGuard, RetryPolicy
from svsync.domain.envelope import Purpose
from svsync.domain.errors import BackendUnreachableError, DeniedError, SvsyncError
from svsync.domain.federation import ConflictPolicy
from svsync.domain.ids import KeyId, LocalPath, PushId, SecretId
from svsync.embedded.openbao import openbao_server
from svsync.services.sealing import Sealed

A = LocalPath("ext/a")
ONE, TWO, THEIRS = {"k": "1"}, {"k": "2"}, {"k": "theirs"}
REMOTE_FIRST = [ConflictPolicy.BACKEND_WINS, ConflictPolicy.MANUAL]
LOCAL_WINS = ConflictPolicy.LOCAL_WINS


@pytest.fixture
def database(database_url: str, admin_url: str, state_dir: Path) -> tuple[str, str, Path]:
    return database_url, admin_url, state_dir


@pytest.fixture(autouse=True)
def _asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is not tried again."""
    monkeypatch.setattr(
        registry, "BackendGuard", partial(BackendGuard, retry=RetryPolicy(attempts=1))
    )


async def synced(house: House, bao: Bao) -> None:
    """One secret on both sides."""
    await bao.put("a", ONE)
    await house.run()


async def is_quiet(house: House) -> bool:
    """Has the next run nothing to do?"""
    return counts(await house.run()).keys() <= {"listed", "unchanged"}


# --- put --------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ConflictPolicy)
async def test_write_is_one_new_version_there_and_nothing_is_left_to_do(
    kv2: Bao, database: tuple[str, str, Path], policy: ConflictPolicy
) -> None:
    async with writing_house(kv2, database, conflict_resolution=policy) as house:
        await synced(house, kv2)
        assert await put(house, A, TWO) == "applied"
        assert await put(house, "ext/new", ONE) == "applied"
        assert await there(kv2) == TWO == await house.data(A)
        assert await there(kv2, "new") == ONE
        assert [await versions_there(kv2, name) for name in ("a", "new")] == [2, 1]
        assert await is_quiet(house)
        assert [await versions_there(kv2, name) for name in ("a", "new")] == [2, 1]


@pytest.mark.parametrize("policy", REMOTE_FIRST)
async def test_write_over_an_unseen_version_is_refused_and_that_one_is_pulled(
    kv2: Bao, database: tuple[str, str, Path], policy: ConflictPolicy
) -> None:
    async with writing_house(kv2, database, conflict_resolution=policy) as house:
        await synced(house, kv2)
        await kv2.put("a", THEIRS)
        with pytest.raises(SvsyncError) as refused:
            await put(house, A, TWO)
        assert refused.value.code == "remote_changed"
        assert await house.data(A) == ONE
        await house.run()
        assert await house.data(A) == THEIRS == await there(kv2)
        assert await put(house, A, TWO) == "applied"
        assert await versions_there(kv2) == 3
        assert await house.rows("conflicts") == []


async def test_write_of_the_primary_goes_over_an_unseen_version_and_keeps_it(
    kv2: Bao, database: tuple[str, str, Path]
) -> None:
    async with writing_house(kv2, database, conflict_resolution=LOCAL_WINS) as house:
        await synced(house, kv2)
        await kv2.put("a", THEIRS)
        assert await put(house, A, TWO) == "pending"
        await house.run()
        assert await there(kv2) == TWO == await house.data(A)
        assert await versions_there(kv2) == 3
        conflict = await house.row("conflicts")
        assert (conflict["kind"], conflict["state"]) == ("modify_modify", "kept_local")
        assert await is_quiet(house)


async def test_mount_that_demands_a_condition_takes_puts_and_creations(
    kv2: Bao, database: tuple[str, str, Path]
) -> None:
    await kv2.put("a", ONE)
    await kv2.request("POST", f"{kv2.mount}/config", {"cas_required": True})
    async with writing_house(kv2, database) as house:
        await house.run()
        assert await put(house, A, TWO) == "applied"
        assert await put(house, "ext/new", ONE) == "applied"
        assert [await versions_there(kv2, name) for name in ("a", "new")] == [2, 1]


# --- delete and restore -----------------------------------------------------------


@pytest.mark.parametrize("policy", ConflictPolicy)
async def test_deleted_secret_is_kept_there_and_restored_on_both_sides(
    kv2: Bao, database: tuple[str, str, Path], policy: ConflictPolicy
) -> None:
    async with writing_house(
        kv2, database, conflict_resolution=policy, propagate_deletes=True
    ) as house:
        await synced(house, kv2)
        assert await delete(house, A) == "applied"
        version = (await metadata(kv2))["versions"]["1"]
        assert (version["deletion_time"] != "", version["destroyed"]) == (True, False)
        assert await is_quiet(house)
        answer: Any = await house.app.writes.restore(TENANT, A, by="sa:test")
        assert (answer["version"], answer["write_through"]["state"]) == (2, "applied")
        assert await there(kv2) == ONE == await house.data(A)
        assert await versions_there(kv2) == 2
        assert await is_quiet(house)


@pytest.mark.parametrize("policy", REMOTE_FIRST)
async def test_delete_that_is_undone_there_is_a_change_like_any_other(
    kv2: Bao, database: tuple[str, str, Path], policy: ConflictPolicy
) -> None:
    async with writing_house(
        kv2, database, conflict_resolution=policy, propagate_deletes=True
    ) as house:
        await synced(house, kv2)
        assert await delete(house, A) == "applied"
        await kv2.undelete("a", [1])
        await house.run()
        assert await house.paths() == [A]
        assert await house.data(A) == ONE == await there(kv2)
        assert await is_quiet(house)


async def test_delete_by_the_primary_that_is_undone_in_the_backup_is_made_again(
    kv2: Bao, database: tuple[str, str, Path]
) -> None:
    async with writing_house(
        kv2, database, conflict_resolution=LOCAL_WINS, propagate_deletes=True
    ) as house:
        await synced(house, kv2)
        assert await delete(house, A) == "applied"
        await kv2.undelete("a", [1])
        ended = [counts(await house.run()) for _ in range(3)]
        assert sum(found.get("pushed", 0) for found in ended) == 1
        version = (await metadata(kv2))["versions"]["1"]
        assert (version["deletion_time"] != "", version["destroyed"]) == (True, False)
        assert await house.paths() == []
        assert (await house.row("conflicts"))["kind"] == "drift"
        assert await is_quiet(house)


async def delete(house: House, path: LocalPath) -> str:
    """A delete as the API makes it; how far it went."""
    answer: Any = await house.app.writes.delete(TENANT, path, by="sa:test")
    return str(answer["write_through"]["state"])


# --- tags -------------------------------------------------------------------------


async def test_tags_and_fields_are_written_back_with_a_mark_that_nobody_is_shown(
    kv2: Bao, database: tuple[str, str, Path]
) -> None:
    await kv2.put("a", ONE)
    await kv2.tag("a", {"env": "prod", "old": "1"})
    async with writing_house(kv2, database) as house:
        await house.run()
        tags = ("env=prod", "team=pay")
        assert await put(house, A, TWO, tags=tags, custom={"env": "prod", "since": "x"}) == (
            "applied"
        )
        marked = {"env": "prod", "team": "pay", "since": "x", "svsync-managed": "true"}
        assert (await metadata(kv2))["custom_metadata"] == marked
        shown, _ = await house.app.secrets.get(TENANT, A)
        assert "svsync-managed" not in json.dumps(shown)
        assert shown["metadata"] == {
            "tags": ["env=prod", "since=x", "team=pay"],
            "custom": {"env": "prod", "team": "pay", "since": "x"},
            "owner": None,
            "description": None,
        }
        assert await is_quiet(house)
        assert await put(house, A, TWO, tags=("env=test",), skip_if_equal=True) == "pending"
        assert counts(await house.run())["metadata_pushed"] == 1
        assert (await metadata(kv2))["custom_metadata"]["env"] == "test"
        assert await versions_there(kv2) == 2


async def test_value_lands_where_its_tags_are_denied_and_the_run_says_so(
    kv2: Bao, database: tuple[str, str, Path]
) -> None:
    policy = (
        f'path "{kv2.mount}/data/*" {{ capabilities = ["read", "create", "update"] }}\n'
        f'path "{kv2.mount}/metadata/*" {{ capabilities = ["read", "list"] }}\n'
    )
    token = await kv2.token(policy)
    async with writing_house(kv2, database, token=token, conflict_resolution=LOCAL_WINS) as house:
        await synced(house, kv2)
        await kv2.put("a", THEIRS)
        assert await put(house, A, TWO, tags=("team=pay",)) == "pending"
        ended = await house.run()
        assert (counts(ended)["pushed"], counts(ended)["metadata_refused"]) == (1, 1)
        assert await there(kv2) == TWO
        assert (await metadata(kv2))["custom_metadata"] is None
        shown, _ = await house.app.secrets.get(TENANT, A)
        assert shown["metadata"]["tags"] == ["team=pay"]  # type: ignore[index]
        assert await house.status(A) == "pending_push"
        assert skips(await house.run()) == {f"{kv2.mount}/data/a": "denied"}
        await kv2.request(
            "PUT", f"sys/policies/acl/{await name_of(kv2, token)}",
            {"policy": writing_policy(kv2.mount)},
        )  # fmt: skip
        assert counts(await house.run())["metadata_pushed"] == 1
        assert (await metadata(kv2))["custom_metadata"] == {
            "team": "pay",
            "svsync-managed": "true",
        }
        assert await versions_there(kv2) == 3


async def name_of(bao: Bao, token: str) -> str:
    """The policy of a token."""
    shown: Any = await bao.request("POST", "auth/token/lookup", {"token": token})
    [name] = set(shown["data"]["policies"]) - {"default"}
    return str(name)


# --- denied -----------------------------------------------------------------------


@pytest.mark.parametrize("policy", [ConflictPolicy.BACKEND_WINS, LOCAL_WINS])
async def test_token_without_rights_to_write_leaves_the_path_due(
    kv2: Bao, database: tuple[str, str, Path], policy: ConflictPolicy
) -> None:
    reading = (
        f'path "{kv2.mount}/data/*" {{ capabilities = ["read"] }}\n'
        f'path "{kv2.mount}/metadata/*" {{ capabilities = ["read", "list"] }}\n'
    )
    token = await kv2.token(reading)
    async with writing_house(kv2, database, token=token, conflict_resolution=policy) as house:
        await synced(house, kv2)
        if policy is LOCAL_WINS:
            assert await put(house, A, TWO) == "pending"
            assert skips(await house.run()) == {f"{kv2.mount}/data/a": "denied"}
            assert await house.data(A) == TWO
        else:
            with pytest.raises(DeniedError):
                await put(house, A, TWO)
            assert await house.data(A) == ONE
        assert await there(kv2) == ONE
        await kv2.request(
            "PUT", f"sys/policies/acl/{await name_of(kv2, token)}",
            {"policy": writing_policy(kv2.mount)},
        )  # fmt: skip
        if policy is LOCAL_WINS:
            assert counts(await house.run())["pushed"] == 1
        else:
            assert await put(house, A, TWO) == "applied"
        assert await there(kv2) == TWO == await house.data(A)
        assert await versions_there(kv2) == 2


# --- sealed -----------------------------------------------------------------------


async def test_sealed_server_changes_nothing_and_unsealed_it_takes_what_waited(
    database: tuple[str, str, Path], tmp_path: Path
) -> None:
    async with openbao_server(tmp_path) as server:
        bao = await new_mount(server)
        async with writing_house(bao, database) as house:
            await synced(house, bao)
            await server.seal()
            for policy in REMOTE_FIRST:
                await house.configure(conflict_resolution=policy)
                with pytest.raises(BackendUnreachableError):
                    await put(house, A, TWO)
                assert await house.data(A) == ONE
            await house.configure(conflict_resolution=LOCAL_WINS)
            assert await put(house, A, TWO) == "pending"
            assert failure(await house.run()) == "backend_unreachable"
            assert await house.data(A) == TWO
            await server.unseal()
            ended = await house.run()
            assert (failure(ended), counts(ended)["pushed"]) == (None, 1)
            assert await there(bao) == TWO
            assert await versions_there(bao) == 2


# --- a store without versions -----------------------------------------------------


async def test_store_without_versions_is_not_written_unless_that_is_allowed(
    kv1: Bao, database: tuple[str, str, Path]
) -> None:
    async with writing_house(kv1, database) as house:
        await synced(house, kv1)
        with pytest.raises(SvsyncError) as refused:
            await put(house, A, TWO)
        assert refused.value.code == "blind_push"
        assert await house.data(A) == ONE == await there(kv1)
        await house.configure(conflict_resolution=LOCAL_WINS)
        assert await put(house, A, TWO) == "pending"
        assert skips(await house.run()) == {f"{kv1.mount}/a": "blind_push"}
        assert await there(kv1) == ONE
        await house.configure(extra={"allow_blind_push": True})
        assert counts(await house.run())["pushed"] == 1
        assert await there(kv1) == TWO


@pytest.mark.parametrize("policy", [ConflictPolicy.BACKEND_WINS, LOCAL_WINS])
async def test_value_that_a_blind_push_went_over_is_kept_sealed(
    kv1: Bao, database: tuple[str, str, Path], policy: ConflictPolicy
) -> None:
    settings: dict[str, Any] = {
        "conflict_resolution": policy,
        "extra": {"allow_blind_push": True},
    }
    async with writing_house(kv1, database, **settings) as house:
        await synced(house, kv1)
        assert await put(house, A, TWO) == "applied"
        assert await there(kv1) == TWO
        push = await house.row("pushes")
        keys = await house.app.sealing.for_tenant(TENANT)
        sealed = Sealed(KeyId(push["before_key_id"]), push["before_nonce"], push["before_sealed"])
        plain = await keys.open(
            Purpose.RAW, SecretId(push["secret_id"]), A, 0, sealed, extra=PushId(push["push_id"])
        )
        assert json.loads(plain) == ONE
        assert await is_quiet(house)


async def test_blind_push_over_a_value_that_nobody_saw_is_not_made(
    kv1: Bao, database: tuple[str, str, Path]
) -> None:
    async with writing_house(kv1, database, extra={"allow_blind_push": True}) as house:
        await synced(house, kv1)
        await kv1.put("a", THEIRS)
        with pytest.raises(SvsyncError) as refused:
            await put(house, A, TWO)
        assert refused.value.code == "remote_changed"
        await house.run()
        assert await house.data(A) == THEIRS == await there(kv1)
