"""Whole cycles over GCP Secret Manager: what they bring, what they cost, what goes through."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from tests.gcp import PREFIX, Gcp, drivers, gcp_spec
from tests.house import (
    BACKEND,
    ENDINGS,
    TENANT,
    WORK,
    House,
    counts,
    failure,
    open_house,
    skips,
)
from tests.waiting import try_once
from tests.writes import overdue

from svsync.domain.errors import BackendError, WriteOutcomeUnknownError
from svsync.domain.federation import (
    ConflictPolicy,
    HistoryMode,
    Mode,
    OnRemoteDelete,
    RuleSpec,
    Writes,
)
from svsync.domain.ids import LocalPath
from svsync.domain.runs import RunResult

Database = tuple[str, str, Path]


@pytest.fixture
def database(database_url: str, admin_url: str, state_dir: Path) -> Database:
    return database_url, admin_url, state_dir


@asynccontextmanager
async def house_of(gcp: Gcp, database: Database, **settings: Any) -> AsyncIterator[House]:
    """A house that syncs what is below a prefix to `ext/**`, and believes Google at once."""
    given = {"mode": Mode.SYNC, "extra": {"consistency_window": 0}, **settings}
    spec = gcp_spec(id=BACKEND, name=str(BACKEND), **given)
    environ = {"GCP_KEY": gcp.tokens.key.json()}
    async with open_house(*database, spec, environ=environ, drivers=drivers(gcp)) as house:
        yield house


def calls(ended: Any) -> dict[str, int]:
    return {str(name): n for name, n in ended.report.calls.items() if n}


async def test_cycle_brings_what_changed_and_nothing_else(gcp: Gcp, database: Database) -> None:
    gcp.put("app--db", {"password": "1"}, team="x")
    gcp.put("app--text", "hunter2")
    removal = OnRemoteDelete.SOFT_DELETE
    async with house_of(gcp, database, on_remote_delete=removal) as house:
        ended = await house.run()
        assert (ended.record.result, counts(ended)) == (RunResult.OK, {"listed": 2, "created": 2})
        assert await house.data("ext/app/db") == {"password": "1"}
        assert await house.data("ext/app/text") == {"value": "hunter2"}
        row = await house.row("secrets", path="ext/app/db")
        assert (row["tags"], json.loads(row["custom"])) == (["team=x"], {"team": "x"})

        before = await house.dump(without=WORK | ENDINGS)
        ended = await house.run()
        assert counts(ended) == {"listed": 2, "unchanged": 2}
        assert await house.dump(without=WORK | ENDINGS) == before

        gcp.put("app--db", {"password": "2"})
        gcp.fake.label(PREFIX + "app--text", {"team": "y"})
        gcp.put("app--new", {"k": "v"})
        ended = await house.run()
        assert counts(ended) == {
            "listed": 3,
            "created": 1,
            "updated": 1,
            "unchanged": 1,
            "metadata_updated": 1,
        }
        assert await house.versions("ext/app/db") == [{"password": "1"}, {"password": "2"}]

        gcp.disable("app--db")
        assert counts(await house.run())["deleted"] == 1
        gcp.enable("app--db")
        await house.run()
        assert await house.data("ext/app/db") == {"password": "2"}
        gcp.fake.delete(PREFIX + "app--new")
        assert counts(await house.run())["deleted"] == 1
        assert await house.paths() == ["ext/app/db", "ext/app/text"]


async def test_cycle_costs_a_listing_and_an_access_for_each_secret(
    gcp: Gcp, database: Database
) -> None:
    """Accesses are plenty, looks at what is there are few."""
    n = 100
    for number in range(n):
        gcp.put(f"{number:03}", {"k": "v"}, team=str(number % 3))
    gcp.fake.page = 40
    async with house_of(gcp, database) as house:
        ended = await house.run()
        assert counts(ended)["created"] == n
        assert calls(ended) == {"list": 3, "read": n, "login": 1}
        assert (await house.row("secrets", path="ext/004"))["tags"] == ["team=1"]
        gcp.fake.seen.clear()
        ended = await house.run()
        assert counts(ended) == {"listed": n, "unchanged": n}
        assert len(gcp.fake.seen) == 3 + n


async def test_versions_between_are_brought_in_order(gcp: Gcp, database: Database) -> None:
    for number in range(1, 4):
        gcp.put("a", {"k": number})
    gcp.disable("a", 2)
    async with house_of(gcp, database, history=HistoryMode.FULL) as house:
        await house.run()
        assert await house.versions("ext/a") == [{"k": 1}, {"k": 3}]
        gcp.put("a", {"k": 4})
        gcp.put("a", {"k": 5})
        await house.run()
        assert await house.versions("ext/a") == [{"k": n} for n in (1, 3, 4, 5)]


async def test_separator_and_escape_bring_paths_and_take_them_back(
    gcp: Gcp, database: Database
) -> None:
    gcp.put("team--db_x2Emain", {"k": "1"})
    gcp.put("a---b", {"k": "1"})
    rules = (RuleSpec("ext/**", f"{PREFIX}**", separator="--", escape=True),)
    async with house_of(gcp, database, rules=rules, writes=Writes.WRITE_THROUGH) as house:
        assert skips(await house.run()) == {PREFIX + "a---b": "ambiguous_separator"}
        assert await house.data("ext/team/db.main") == {"k": "1"}
        await house.write("ext/team/db.other", {"k": "2"})
        assert gcp.value("team--db_x2Eother") == {"k": "2"}


async def test_current_version_alone_is_brought_where_nothing_is_said_of_history(
    gcp: Gcp, database: Database
) -> None:
    for number in range(1, 4):
        gcp.put("a", {"k": number})
    async with house_of(gcp, database) as house:
        await house.run()
        assert await house.versions("ext/a") == [{"k": 3}]


async def test_version_before_the_known_one_is_not_believed_while_that_is_there(
    gcp: Gcp, database: Database
) -> None:
    """`latest` may lag for hours; a secret that was made anew begins at 1."""
    gcp.put("a", {"k": "1"})
    gcp.put("a", {"k": "2"})
    async with house_of(gcp, database) as house:
        await house.run()
        gcp.fake.lag[PREFIX + "a"] = 1
        ended = await house.run()
        assert skips(ended) == {PREFIX + "a": "lagging"}
        assert await house.data("ext/a") == {"k": "2"}
        gcp.fake.lag.clear()
        assert skips(await house.run()) == {}
        gcp.fake.delete(PREFIX + "a")
        gcp.put("a", {"k": "anew"})
        ended = await house.run()
        assert counts(ended)["rolled_back"] == 1
        assert await house.data("ext/a") == {"k": "anew"}


async def test_secret_that_a_listing_does_not_show_is_asked_for(
    gcp: Gcp, database: Database
) -> None:
    gcp.put("a", {"k": "1"})
    gcp.put("b", {"k": "1"})
    async with house_of(gcp, database) as house:
        await house.run()
        gcp.fake.unlisted.add(PREFIX + "a")
        ended = await house.run()
        assert counts(ended)["listing_missed"] == 1
        assert await house.status("ext/a") == "in_sync"


async def test_deletion_shortly_after_a_change_is_not_believed_yet(
    gcp: Gcp, database: Database
) -> None:
    gcp.put("a", {"k": "v"})
    async with house_of(gcp, database, extra={}) as house:
        await house.run()
        gcp.disable("a")
        assert skips(await house.run()) == {PREFIX + "a": "lagging"}
        await house.admin.execute("UPDATE sync_state SET base_moved_at = now() - interval '11 min'")
        assert skips(await house.run()) == {}
        assert await house.status("ext/a") == "retained"


async def test_secret_that_is_denied_stops_no_other(gcp: Gcp, database: Database) -> None:
    for name in ("a", "b", "c"):
        gcp.put(name, {"k": name})
    gcp.fake.deny("versions.access", "b$")
    async with house_of(gcp, database) as house:
        ended = await house.run()
        assert skips(ended) == {PREFIX + "b": "denied"}
        assert await house.paths() == ["ext/a", "ext/c"]


async def test_another_project_behind_the_same_name_fails_the_run(
    gcp: Gcp, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcp.put("a", {"k": "1"})
    async with house_of(gcp, database) as house:
        await house.run()
        monkeypatch.setattr("tests.gcp_fake.NUMBER", "999999999999")
        assert failure(await house.run()) == "backend_identity_changed"
        assert await house.data("ext/a") == {"k": "1"}


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (StatusCode.PERMISSION_DENIED, "CONSUMER_INVALID", "login_failed"),
        (StatusCode.UNAVAILABLE, "", "backend_unreachable"),
        (StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT_EXCEEDED", "throttled"),
        (StatusCode.UNAUTHENTICATED, "ACCESS_TOKEN_EXPIRED", "login_failed"),
    ],
)
async def test_project_that_fails_as_a_whole_loses_nothing(
    gcp: Gcp,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    code: StatusCode,
    reason: str,
    expected: str,
) -> None:
    try_once(monkeypatch)
    gcp.put("a", {"k": "1"})
    async with house_of(gcp, database) as house:
        await house.run()
        before = await house.dump(without=WORK | ENDINGS)
        gcp.fake.fail("", code, reason=reason)
        assert failure(await house.run()) == expected
        assert await house.dump(without=WORK | ENDINGS) == before
        gcp.fake.heal()
        assert counts(await house.run()) == {"listed": 1, "unchanged": 1}


# --- writes -----------------------------------------------------------------------


@pytest.mark.parametrize("policy", ConflictPolicy)
async def test_write_goes_through_and_comes_back_as_nothing_new(
    gcp: Gcp, database: Database, policy: ConflictPolicy
) -> None:
    gcp.put("a", {"k": "1"}, team="x")
    settings = {"writes": Writes.WRITE_THROUGH, "conflict_resolution": policy}
    async with house_of(gcp, database, **settings) as house:
        await house.run()
        await house.write("ext/a", {"k": "2"})
        await house.write("ext/a", {"k": "3"})
        await house.write("ext/new/one", {"k": "1"})
        assert (gcp.value("a"), gcp.value("new--one")) == ({"k": "3"}, {"k": "1"})
        assert gcp.fake.secret(PREFIX + "a").labels == {"team": "x", "svsync-managed": "true"}
        ended = await house.run()
        assert counts(ended).keys() <= {"listed", "unchanged"}
        assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}, {"k": "3"}]


async def test_version_that_a_push_went_over_is_kept_as_a_conflict(
    gcp: Gcp, database: Database
) -> None:
    """Google takes no condition, so somebody may be faster than the look."""
    gcp.put("a", {"k": "1"})
    async with house_of(gcp, database, writes=Writes.WRITE_THROUGH) as house:
        await house.run()
        gcp.fake.meanwhile("^AddSecretVersion", lambda: gcp.put("a", {"k": "theirs"}))
        await house.write("ext/a", {"k": "2"})
        assert gcp.value("a") == {"k": "2"}
        conflict = await house.row("conflicts")
        assert conflict["kind"] == "overwritten"
        assert counts(await house.run()).keys() <= {"listed", "unchanged"}


async def test_delete_goes_through_and_can_be_undone_there(gcp: Gcp, database: Database) -> None:
    gcp.put("a", {"k": "1"})
    settings = {"writes": Writes.WRITE_THROUGH, "propagate_deletes": True}
    async with house_of(gcp, database, **settings) as house:
        await house.run()
        await house.app.writes.delete(TENANT, LocalPath("ext/a"), by="sa:test")
        assert gcp.states("a") == ["DISABLED"]
        assert counts(await house.run()).keys() <= {"listed", "unchanged"}
        gcp.enable("a")
        await house.run()
        assert await house.data("ext/a") == {"k": "1"}


async def test_push_without_an_answer_is_found_under_a_newer_version(
    gcp: Gcp, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_once(monkeypatch)
    gcp.put("a", {"k": "1"})
    async with house_of(gcp, database, writes=Writes.WRITE_THROUGH) as house:
        await house.run()
        gcp.fake.fail("^AddSecretVersion", StatusCode.INTERNAL, after=True)
        with pytest.raises(WriteOutcomeUnknownError):
            await house.write("ext/a", {"k": "2"})
        gcp.put("a", {"k": "theirs"})
        gcp.fake.heal()
        await overdue(house)
        await house.run()
        assert (await house.row("pushes"))["state"] == "landed"
        assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}, {"k": "theirs"}]


async def test_push_without_an_answer_is_not_made_twice_though_latest_lags(
    gcp: Gcp, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_once(monkeypatch)
    gcp.put("a", {"k": "1"})
    async with house_of(gcp, database, writes=Writes.WRITE_THROUGH) as house:
        await house.run()
        gcp.fake.fail("^AddSecretVersion", StatusCode.INTERNAL, after=True)
        with pytest.raises(WriteOutcomeUnknownError):
            await house.write("ext/a", {"k": "2"})
        gcp.fake.heal()
        gcp.fake.lag[PREFIX + "a"] = 1
        await overdue(house)
        await house.run()
        gcp.fake.lag.clear()
        await house.run()
        assert len(gcp.states("a")) == 2
        assert await house.data("ext/a") == {"k": "2"}


async def test_write_while_google_is_away_changes_nothing(
    gcp: Gcp, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_once(monkeypatch)
    gcp.put("a", {"k": "1"})
    async with house_of(gcp, database, writes=Writes.WRITE_THROUGH) as house:
        await house.run()
        gcp.fake.fail("", StatusCode.UNAVAILABLE)
        with pytest.raises(BackendError):
            await house.write("ext/a", {"k": "2"})
        gcp.fake.heal()
        assert await house.data("ext/a") == {"k": "1"}
        assert gcp.value("a") == {"k": "1"}
