"""A local write to a path that is written through: which side first, and what is said."""

import pytest
from tests.house import BACKEND, ENDINGS, TENANT, WORK, House, counts, failure, skips
from tests.writes import fall_down, lose, overdue, put, state, there, through

from svsync.domain.errors import (
    BackendUnreachableError,
    SvsyncError,
    VersionConflictError,
    WriteOutcomeUnknownError,
)
from svsync.domain.federation import ConflictPolicy, RuleSpec, Writes
from svsync.domain.guards import Allow
from svsync.domain.ids import LocalPath

__all__ = ["through"]

ALLOW_NOTHING = Allow()
REMOTE_FIRST = [ConflictPolicy.BACKEND_WINS, ConflictPolicy.MANUAL]


@pytest.mark.parametrize("policy", ConflictPolicy)
async def test_write_lands_on_both_sides(through: House, policy: ConflictPolicy) -> None:
    await through.configure(conflict_resolution=policy)
    answer = await put(through, "ext/a", {"k": "2"})
    assert (answer["version"], state(answer)) == (2, "applied")
    assert there(through, "kv/a") == {"k": "2"} == await through.data("ext/a")
    assert await through.status("ext/a") == "in_sync"
    before = await through.dump(without=WORK | ENDINGS)
    ended = await through.run()
    assert counts(ended).get("pushed", 0) == 0
    assert counts(ended).get("updated", 0) == 0
    after = await through.dump(without=WORK | ENDINGS)
    assert after == before


@pytest.mark.parametrize("policy", ConflictPolicy)
async def test_new_secret_is_created_on_both_sides(through: House, policy: ConflictPolicy) -> None:
    await through.configure(conflict_resolution=policy)
    answer = await put(through, "ext/new", {"k": "1"})
    assert (answer["version"], state(answer)) == (1, "applied")
    assert there(through, "kv/new") == {"k": "1"}
    assert await through.status("ext/new") == "in_sync"


@pytest.mark.parametrize("policy", REMOTE_FIRST)
async def test_write_over_a_change_nobody_saw_is_refused_and_changes_nothing(
    through: House, policy: ConflictPolicy
) -> None:
    await through.configure(conflict_resolution=policy)
    through.there.put("kv/a", {"k": "theirs"})
    with pytest.raises(SvsyncError) as refused:
        await put(through, "ext/a", {"k": "ours"})
    assert refused.value.code == "remote_changed"
    assert await through.data("ext/a") == {"k": "1"}
    await through.run()
    assert await through.data("ext/a") == {"k": "theirs"}
    row = await through.row("secrets", path="ext/a")
    assert row["current_version"] == 3, "the number of the refused version is not used again"
    assert [r["version"] for r in await through.rows("versions", state="destroyed")] == [2]


@pytest.mark.parametrize("policy", REMOTE_FIRST)
async def test_backend_that_is_down_lets_nothing_change(
    through: House, policy: ConflictPolicy
) -> None:
    await through.configure(conflict_resolution=policy)
    fall_down(through)
    with pytest.raises(BackendUnreachableError):
        await put(through, "ext/a", {"k": "2"})
    assert await through.data("ext/a") == {"k": "1"}
    assert (await through.row("pushes"))["state"] == "withdrawn"


@pytest.mark.parametrize("policy", REMOTE_FIRST)
@pytest.mark.parametrize("applied", [True, False])
async def test_lost_answer_is_told_and_found_out_by_the_next_run(
    through: House, policy: ConflictPolicy, applied: bool
) -> None:
    await through.configure(conflict_resolution=policy)
    lose(through, applied=applied)
    with pytest.raises(WriteOutcomeUnknownError) as lost:
        await put(through, "ext/a", {"k": "2"})
    assert (await through.app.federation.status(TENANT, BACKEND))["pending_pushes"] == 1
    push = await through.row("pushes", push_id=lost.value.push_id)
    assert push["state"] == "unknown"
    assert await through.data("ext/a") == {"k": "1"}
    with pytest.raises(SvsyncError) as waits:
        await put(through, "ext/a", {"k": "3"})
    assert waits.value.code == "write_in_progress"
    await overdue(through)
    ended = await through.run()
    assert counts(ended).get("pushed", 0) == 1
    assert await through.data("ext/a") == {"k": "2"} == there(through, "kv/a")
    assert through.there.secret("kv/a").current == 2  # type: ignore[union-attr]


async def test_outage_of_the_backup_never_blocks_the_primary(through: House) -> None:
    await through.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    fall_down(through)
    answer = await put(through, "ext/a", {"k": "2"})
    assert state(answer) == "pending"
    assert await through.data("ext/a") == {"k": "2"}
    assert await through.status("ext/a") == "pending_push"
    assert (await through.app.federation.status(TENANT, BACKEND))["pending_pushes"] == 1
    ended = await through.run()
    assert counts(ended).get("pushed", 0) == 1
    assert there(through, "kv/a") == {"k": "2"}
    assert await through.status("ext/a") == "in_sync"


async def test_backup_that_was_changed_is_overwritten_with_both_values_kept(through: House) -> None:
    await through.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    through.there.put("kv/a", {"k": "theirs"})
    answer = await put(through, "ext/a", {"k": "ours"})
    assert state(answer) == "pending"
    await through.run()
    assert there(through, "kv/a") == {"k": "ours"} == await through.data("ext/a")
    conflict = await through.row("conflicts", path="ext/a")
    assert (conflict["kind"], conflict["state"]) == ("modify_modify", "kept_local")


async def test_write_equal_to_base_sends_nothing(through: House) -> None:
    through.there.calls.clear()
    answer = await put(through, "ext/a", {"k": "1"})
    assert (answer["version"], state(answer)) == (2, "applied")
    assert through.there.calls["write"] == 0
    await through.run()
    assert through.there.calls["write"] == 0


async def test_write_where_the_backend_has_the_name_already_waits_for_the_table(
    through: House,
) -> None:
    through.there.put("kv/new", {"k": "theirs"})
    answer = await put(through, "ext/new", {"k": "ours"})
    assert state(answer) == "pending"
    await through.run()
    assert await through.data("ext/new") == {"k": "theirs"}
    assert await through.data("ext/new", 1) == {"k": "ours"}
    assert (await through.row("conflicts", path="ext/new"))["kind"] == "add_add"


async def test_equal_value_is_skipped_when_asked_and_metadata_is_set(through: House) -> None:
    answer = await put(through, "ext/a", {"k": "1"}, skip_if_equal=True, owner="team:x")
    assert (answer["version"], state(answer)) == (1, "applied")
    assert answer["metadata"]["owner"] == "team:x"


async def test_cas_names_the_version_it_must_be_at(through: House) -> None:
    with pytest.raises(VersionConflictError):
        await put(through, "ext/a", {"k": "2"}, cas=0)
    with pytest.raises(VersionConflictError):
        await put(through, "ext/new", {"k": "2"}, cas=1)
    assert (await put(through, "ext/a", {"k": "2"}, cas=1))["version"] == 2


@pytest.mark.parametrize("policy", ConflictPolicy)
async def test_delete_is_local_unless_deletes_are_propagated(
    through: House, policy: ConflictPolicy
) -> None:
    await through.configure(conflict_resolution=policy)
    answer = await through.app.writes.delete(TENANT, LocalPath("ext/a"), by="sa:test")
    assert state(answer) == "not_configured"
    await through.run()
    assert there(through, "kv/a") == {"k": "1"}
    assert await through.paths() == []


@pytest.mark.parametrize("policy", ConflictPolicy)
async def test_propagated_delete_can_be_undone_on_both_sides(
    through: House, policy: ConflictPolicy
) -> None:
    await through.configure(conflict_resolution=policy, propagate_deletes=True)
    answer = await through.app.writes.delete(TENANT, LocalPath("ext/a"), by="sa:test")
    assert state(answer) == "applied"
    assert there(through, "kv/a") is None
    assert await through.paths() == []
    await through.run()
    assert await through.paths() == []
    restored = await through.app.writes.restore(TENANT, LocalPath("ext/a"), by="sa:test")
    assert (restored["version"], state(restored)) == (2, "applied")
    assert there(through, "kv/a") == {"k": "1"} == await through.data("ext/a")
    await through.run()
    assert await through.status("ext/a") == "in_sync"


async def test_tags_travel_with_a_write_and_alone(through: House) -> None:
    through.there.tag("kv/a", {"env": "prod"})
    await through.run()
    await put(through, "ext/a", {"k": "2"}, tags=("env=prod", "team=pay"))
    assert shown_tags(through) == {"env": "prod", "team": "pay"}
    await put(through, "ext/a", {"k": "2"}, tags=("team=pay",), skip_if_equal=True)
    ended = await through.run()
    assert counts(ended).get("metadata_pushed", 0) == 1
    assert shown_tags(through) == {"team": "pay"}
    assert through.there.secret("kv/a").current == 2  # type: ignore[union-attr]
    ended = await through.run()
    assert counts(ended).get("metadata_pushed", 0) == 0


def shown_tags(house: House) -> dict[str, str]:
    secret = house.there.secret("kv/a")
    assert secret is not None
    tags = dict(secret.tags)
    assert tags.pop("svsync-managed") == "true"
    return tags


async def test_dry_run_tells_of_pushes_and_makes_none(through: House) -> None:
    await through.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    fall_down(through)
    await put(through, "ext/a", {"k": "2"})
    await through.admin.execute("UPDATE pushes SET state = 'withdrawn'")
    ended = await through.run(dry=True)
    assert [(p.path, p.action, p.detail) for p in ended.plan] == [("ext/a", "push", "put")]
    assert there(through, "kv/a") == {"k": "1"}


async def test_seeding_writes_what_was_here_before_the_mapping(through: House) -> None:
    await through.configure(writes=Writes.LOCAL)
    await put(through, "ext/old", {"k": "here"})
    await put(through, "ext/retired", {"k": "here"})
    through.there.put("kv/retired", {"k": "there"})
    through.there.delete("kv/retired")
    await through.admin.execute("UPDATE backends SET claimed_at = now() + interval '1 s'")
    await through.configure(writes=Writes.WRITE_THROUGH)
    assert counts(await through.run()).get("pushed", 0) == 0
    await through.configure(seed_remote=True)
    plan = (await through.run(dry=True)).plan
    assert [(p.path, p.action) for p in plan] == [("ext/old", "push")]
    ended = await through.run()
    assert counts(ended)["pushed"] == 1
    assert skips(ended) == {"kv/retired": "retired_remotely"}
    assert there(through, "kv/old") == {"k": "here"}
    assert there(through, "kv/retired") is None
    assert counts(await through.run()).get("pushed", 0) == 0


async def test_many_pushes_need_leave(through: House) -> None:
    for n in range(30):
        through.there.put(f"kv/{n}", {"k": "1"})
    await through.run()
    await through.configure(writes=Writes.LOCAL)
    for n in range(30):
        await put(through, f"ext/{n}", {"k": "2"})
    await through.configure(writes=Writes.WRITE_THROUGH)
    await through.run(allow=ALLOW_NOTHING)
    assert there(through, "kv/3") == {"k": "1"}
    refused = await through.run(allow=ALLOW_NOTHING)
    assert failure(refused) == "mass_overwrite_guard"
    ended = await through.run()
    assert counts(ended)["pushed"] == 30


async def test_pair_that_leaves_the_mapping_waits_for_its_push(through: House) -> None:
    lose(through, applied=True)
    with pytest.raises(WriteOutcomeUnknownError):
        await put(through, "ext/a", {"k": "2"})
    await through.configure(rules=(RuleSpec("ext/b/**", "kv/b/**"),))
    ended = await through.run()
    assert skips(ended) == {"kv/a": "write_in_progress"}
    assert await through.status("ext/a") == "in_sync"
    await overdue(through)
    ended = await through.run()
    assert counts(ended)["detached"] == 1
    assert await through.data("ext/a") == {"k": "2"}


async def test_late_call_of_ours_is_not_somebody_elses_write(through: House) -> None:
    """The push was asked for, not found, and withdrawn; then its call arrived after all."""
    await through.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    lose(through, applied=False)
    await put(through, "ext/a", {"k": "2"})
    await put(through, "ext/a", {"k": "3"})
    await through.configure(writes=Writes.LOCAL)
    await overdue(through)
    await through.run()
    assert (await through.rows("pushes", state="withdrawn")) != []
    await through.configure(writes=Writes.WRITE_THROUGH)
    through.there.put("kv/a", {"k": "2"})
    ended = await through.run()
    assert counts(ended) == {"listed": 1, "pushed": 1, "retokened": 1}
    assert there(through, "kv/a") == {"k": "3"}


async def test_push_that_landed_and_was_changed_is_a_remote_change_like_any_other(
    through: House,
) -> None:
    lose(through, applied=True)
    with pytest.raises(WriteOutcomeUnknownError):
        await put(through, "ext/a", {"k": "2"})
    through.there.put("kv/a", {"k": "theirs"})
    await overdue(through)
    await through.run()
    assert await through.versions("ext/a") == [{"k": "1"}, {"k": "2"}, {"k": "theirs"}]
    assert await through.rows("conflicts") == []


async def test_only_what_carries_the_mark_is_deleted_there_when_that_is_asked_for(
    through: House,
) -> None:
    extra = {"delete_only_owned": True}
    await through.configure(propagate_deletes=True, extra=extra)
    with pytest.raises(SvsyncError) as refused:
        await through.app.writes.delete(TENANT, LocalPath("ext/a"), by="sa:test")
    assert refused.value.code == "not_owned"
    assert there(through, "kv/a") == {"k": "1"} == await through.data("ext/a")
    await put(through, "ext/a", {"k": "2"})  # which leaves the mark
    await through.app.writes.delete(TENANT, LocalPath("ext/a"), by="sa:test")
    assert there(through, "kv/a") is None
