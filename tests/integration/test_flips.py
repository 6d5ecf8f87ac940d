"""A flip between proxy and sync: what it lets be written, what it hides, what it refuses."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.house import BACKEND, TENANT, House, Pause, failure

from svsync.domain.errors import ConfigError, NotFoundError, SvsyncError
from svsync.domain.federation import ConflictPolicy, Mode, Overrides, RuleSpec, Writes
from svsync.domain.ids import LocalPath
from svsync.services.flips import purge_hidden

PROXIED_APP = (
    RuleSpec("ext/app/**", "kv/app/**", overrides=Overrides(mode=Mode.PROXY)),
    RuleSpec("ext/**", "kv/**"),
)
SYNCED_APP = (RuleSpec("ext/app/**", "kv/app/**"), RuleSpec("ext/**", "kv/**"))


async def refused(house: House, **changes: Any) -> ConfigError:
    """The error with which a configuration is refused; the one in force stays."""
    before = house.spec
    with pytest.raises(ConfigError) as error:
        await house.configure(**changes)
    house.spec = before
    return error.value


async def force(house: House, **changes: Any) -> None:
    house.spec = replace(house.spec, **changes)
    await house.app.federation.apply([house.spec], force={BACKEND})


async def written(house: House, path: str) -> str | None:
    """The code with which a local write is refused, if it is."""
    try:
        await house.write(path, {"k": "mine"})
    except SvsyncError as error:
        return error.code
    return None


async def hidden(house: House) -> int:
    shown = await house.app.federation.show(TENANT, BACKEND)
    number = shown["hidden_copies"]
    assert isinstance(number, int)
    return number


# --- from proxy to sync ---------------------------------------------------------------


async def test_write_is_refused_until_the_first_complete_run_after_a_flip_to_sync(
    house: House,
) -> None:
    await house.configure(mode=Mode.PROXY)
    assert await written(house, "ext/a") == "proxied_path_read_only"
    await house.configure(mode=Mode.SYNC)
    assert await written(house, "ext/a") == "initial_sync_running"
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    assert await written(house, "ext/a") is None
    assert await house.paths() == ["ext/a", "ext/b"]


async def test_backend_that_is_new_in_sync_mode_takes_writes_at_once(house: House) -> None:
    assert await written(house, "ext/a") is None


@pytest.mark.parametrize("how", ["targeted", "dry", "folder denied", "failed"])
async def test_only_a_full_run_that_listed_all_ends_the_initial_sync(
    house: House, how: str
) -> None:
    house.there.put("kv/app/a", {"k": "1"})
    house.there.put("kv/b/c", {"k": "1"})
    await house.configure(mode=Mode.PROXY)
    await house.configure(mode=Mode.SYNC)
    if how == "targeted":
        await house.run("ext/app/a")
    elif how == "dry":
        await house.run(dry=True)
    elif how == "folder denied":
        house.there.denied.add("kv/b/")
        assert failure(await house.run()) is None
    else:
        house.there.fail("list", SvsyncError("broken"))
        assert failure(await house.run()) is not None
    assert await written(house, "ext/x") == "initial_sync_running"
    house.there.denied.clear()
    await house.run()
    assert await written(house, "ext/x") is None


async def test_only_the_rule_that_flipped_is_in_initial_sync(house: House) -> None:
    await house.configure(rules=PROXIED_APP)
    await house.configure(rules=SYNCED_APP)
    assert await written(house, "ext/app/a") == "initial_sync_running"
    assert await written(house, "ext/b") is None
    await house.configure(sync_interval=1200)
    assert await written(house, "ext/app/a") == "initial_sync_running", "another change meanwhile"


async def test_rule_that_falls_to_a_synced_one_is_a_flip_too(house: House) -> None:
    await house.configure(rules=PROXIED_APP)
    await house.configure(rules=SYNCED_APP[1:])
    assert await written(house, "ext/app/a") == "initial_sync_running"


# --- from sync to proxy ---------------------------------------------------------------


async def test_flip_to_proxy_hides_the_copies_and_a_flip_back_attaches_them_again(
    house: House,
) -> None:
    house.there.put("kv/app/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    await house.configure(rules=PROXIED_APP)
    assert await house.paths() == ["ext/b"]
    assert await hidden(house) == 1
    for version in (None, 1):
        with pytest.raises(NotFoundError):
            await house.data("ext/app/a", version)
    with pytest.raises(NotFoundError):
        await house.app.secrets.history(TENANT, LocalPath("ext/app/a"))
    assert failure(await house.run()) is None
    assert await hidden(house) == 1, "a run leaves what is read through alone"

    await house.configure(rules=SYNCED_APP)
    assert await house.data("ext/app/a") == {"k": "1"}
    house.there.put("kv/app/a", {"k": "2"})
    await house.run()
    assert await house.versions("ext/app/a") == [{"k": "1"}, {"k": "2"}]
    assert await house.status("ext/app/a") == "in_sync"
    assert not await house.rows("conflicts"), "base counts as it was"


async def test_tombstone_stays_one_through_a_flip_and_back(house: House) -> None:
    house.there.put("kv/app/a", {"k": "1"})
    await house.run()
    house.there.delete("kv/app/a")
    await house.bury("ext/app/a")
    await house.run()
    await house.configure(rules=PROXIED_APP)
    await house.configure(rules=SYNCED_APP)
    assert (await house.row("secrets", path="ext/app/a"))["state"] == "deleted"


@pytest.mark.parametrize("what", ["changed", "deleted", "retained", "conflict"])
async def test_flip_to_proxy_is_refused_while_something_is_here_alone(
    house: House, what: str
) -> None:
    if what == "conflict":
        await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    house.there.put("kv/app/a", {"k": "1"})
    house.there.put("kv/app/z", {"k": "1"})
    await house.run()
    if what == "deleted":
        await house.bury("ext/app/a")
    elif what == "retained":
        house.there.delete("kv/app/a")
        await house.run()
    else:
        await house.write("ext/app/a", {"k": "mine"})
    if what == "conflict":
        house.there.put("kv/app/a", {"k": "theirs"})
        await house.run()
    error = await refused(house, rules=PROXIED_APP)
    assert error.code == "unpushed_local_changes"
    assert error.message.startswith("1 paths")
    assert "ext/app/a" in error.message
    assert (await house.row("secrets", path="ext/app/z"))["state"] == "live"
    await house.configure(sync_interval=1200)  # what was in force is in force

    await force(house, rules=PROXIED_APP)
    assert await hidden(house) == 2
    await house.configure(rules=SYNCED_APP)
    back = await house.row("secrets", path="ext/app/a")
    assert back["state"] == ("deleted" if what == "deleted" else "live")
    if what in ("changed", "conflict"):
        assert await house.data("ext/app/a") == {"k": "mine"}


async def test_flip_waits_for_the_sender_of_a_push_even_when_it_is_forced(house: House) -> None:
    await house.configure(writes=Writes.WRITE_THROUGH)
    house.there.put("kv/app/a", {"k": "1"})
    await house.run()
    pause = Pause(house.there, "write")
    writing = asyncio.create_task(house.write("ext/app/a", {"k": "2"}))
    await pause.reached.wait()
    error = await refused(house, rules=PROXIED_APP)
    assert error.code == "unpushed_local_changes"
    assert "being written" in error.message
    spec = house.spec
    with pytest.raises(SvsyncError) as busy:
        await force(house, rules=PROXIED_APP)
    house.spec = spec
    assert busy.value.code == "write_in_progress"
    pause.let_go()
    assert await writing == 2
    await house.configure(rules=PROXIED_APP)
    assert await hidden(house) == 1


async def test_forced_flip_withdraws_pushes_whose_sender_is_gone(house: House) -> None:
    await house.configure(writes=Writes.WRITE_THROUGH)
    house.there.put("kv/app/a", {"k": "1"})
    await house.run()
    pause = Pause(house.there, "write")
    writing = asyncio.create_task(house.write("ext/app/a", {"k": "2"}))
    await pause.reached.wait()
    await house.admin.execute("UPDATE pushes SET deadline = now() - interval '1 s'")
    await force(house, rules=PROXIED_APP)
    assert (await house.row("pushes"))["state"] == "withdrawn"
    pause.let_go()
    with pytest.raises(SvsyncError):
        await writing
    assert await hidden(house) == 1
    assert (await house.row("versions", version=2))["state"] == "destroyed"


async def test_write_that_was_overtaken_by_a_flip_does_not_bring_a_copy_back(house: House) -> None:
    """It looked at the rules before the flip and gets the row's lock after it."""
    house.there.put("kv/app/a", {"k": "1"})
    await house.run()
    await house.admin.execute("UPDATE secrets SET state = 'hidden', hidden_by = $1", BACKEND)
    assert await written(house, "ext/app/a") == "version_conflict"
    row = await house.row("secrets", path="ext/app/a")
    assert (row["state"], row["current_version"]) == ("hidden", 1)


async def test_hidden_copies_are_destroyed_when_their_time_is_over_and_not_before(
    house: House,
) -> None:
    house.there.put("kv/app/a", {"k": "1"})
    house.there.tag("kv/app/a", {"team": "x"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    await house.configure(rules=PROXIED_APP)
    assert await purge_hidden(house.app.db, TENANT) == 0
    await house.admin.execute("UPDATE secrets SET hidden_at = hidden_at - interval '8 days'")
    assert await purge_hidden(house.app.db, TENANT) == 1
    assert await hidden(house) == 0
    row = await house.row("secrets", path="ext/app/a")
    assert (row["state"], row["last_version"], row["tags"]) == ("void", 1, [])
    assert not await house.rows("versions", secret_id=row["secret_id"])
    assert not await house.rows("sync_state", path="ext/app/a")
    assert await house.data("ext/b") == {"k": "1"}

    await house.configure(rules=SYNCED_APP)
    await house.run()
    assert await house.data("ext/app/a") == {"k": "1"}
    assert (await house.row("secrets", path="ext/app/a"))["current_version"] == 2


async def test_sides_of_closed_conflicts_are_destroyed_with_the_copies(house: House) -> None:
    house.there.put("kv/app/a", {"k": "1"})
    await house.run()
    await house.write("ext/app/a", {"k": "mine"})
    house.there.put("kv/app/a", {"k": "theirs"})
    await house.run()
    assert (await house.row("conflicts"))["local_sealed"] is not None
    await house.configure(rules=PROXIED_APP, extra={"proxy_purge_after": 0})
    kept = await house.row("conflicts")
    assert kept["local_sealed"] is None
    assert kept["remote_sealed"] is None


async def test_no_copy_is_left_at_once_where_that_is_configured(house: House) -> None:
    house.there.put("kv/app/a", {"k": "1"})
    await house.run()
    await house.configure(rules=PROXIED_APP, extra={"proxy_purge_after": 0})
    assert await hidden(house) == 0
    assert not await house.rows("versions")


# --- what is local already ------------------------------------------------------------


@pytest.mark.parametrize("when", ["at creation", "by a flip"])
async def test_proxied_rule_that_would_hide_local_secrets_is_refused(
    house: House, when: str
) -> None:
    if when == "at creation":
        await house.configure(rules=(RuleSpec("other/**", "kv/**"),))
    house.there.put("kv/app/a", {"k": "1"})
    await house.run()
    await house.write("ext/app/mine", {"k": "mine"})
    error = await refused(house, rules=PROXIED_APP)
    assert error.code == "hides_local_secrets"
    assert error.message.startswith("1 local secrets")
    assert "ext/app/mine" in error.message

    await house.configure(rules=PROXIED_APP, extra={"allow_hide": True})
    assert (await house.row("secrets", path="ext/app/mine"))["state"] == "live"
    await house.admin.execute("UPDATE secrets SET hidden_at = hidden_at - interval '8 days'")
    await purge_hidden(house.app.db, TENANT)
    await house.configure(rules=SYNCED_APP, extra={})
    assert await house.data("ext/app/mine") == {"k": "mine"}, "what was never copied is kept"
