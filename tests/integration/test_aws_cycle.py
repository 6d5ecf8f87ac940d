"""Whole cycles over AWS Secrets Manager: what they bring, what they cost, what goes through."""

import json
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from tests.aws import KEYS, Aws, AwsFront
from tests.aws_house import Database, house_of
from tests.canary import Canary
from tests.house import ENDINGS, TENANT, WORK, counts, skips
from tests.program import Program
from tests.waiting import try_once
from tests.writes import overdue

from svsync.domain.errors import WriteOutcomeUnknownError
from svsync.domain.federation import ConflictPolicy, OnRemoteDelete, Writes
from svsync.domain.ids import LocalPath
from svsync.domain.runs import RunResult
from svsync.services.sync import fetch


async def test_cycle_brings_what_changed_and_nothing_else(roto: Aws, database: Database) -> None:
    await roto.put("app/db", {"password": "1"}, team="x")
    await roto.put("app/text", "hunter2")
    removal = OnRemoteDelete.SOFT_DELETE
    async with house_of(roto.url, roto.prefix, database, on_remote_delete=removal) as house:
        ended = await house.run()
        assert (ended.record.result, counts(ended)) == (RunResult.OK, {"listed": 2, "created": 2})
        assert await house.data("ext/app/db") == {"password": "1"}
        assert await house.data("ext/app/text") == {"value": "hunter2"}
        row = await house.row("secrets", path="ext/app/db")
        assert (row["tags"], json.loads(row["custom"])) == (["team=x"], {"team": "x"})

        before = await house.dump(without=WORK | ENDINGS)
        ended = await house.run()
        assert counts(ended) == {"listed": 2, "unchanged": 2}
        assert {k: n for k, n in ended.report.calls.items() if n} == {"list": 1}
        assert await house.dump(without=WORK | ENDINGS) == before

        await roto.put("app/db", {"password": "2"})
        await roto.tag("app/text", {"team": "y"})
        await roto.put("app/new", {"k": "v"})
        ended = await house.run()
        assert counts(ended) == {
            "listed": 3,
            "created": 1,
            "updated": 1,
            "unchanged": 1,
            "metadata_updated": 1,
        }
        assert await house.versions("ext/app/db") == [{"password": "1"}, {"password": "2"}]

        await roto.delete("app/db")
        assert counts(await house.run())["deleted"] == 1
        await roto.restore("app/db")
        await house.run()
        assert await house.data("ext/app/db") == {"password": "2"}
        await roto.remove("app/new")
        assert counts(await house.run())["deleted"] == 1
        assert await house.paths() == ["ext/app/db", "ext/app/text"]


async def test_first_import_and_quiet_cycle_cost_no_more_than_they_must(
    roto: Aws, aws_front: AwsFront, database: Database
) -> None:
    """For 10,000 secrets that is 600 and 100 calls; here the same by the same formula, over
    several pieces of the work list."""
    n = 730
    for number in range(n):
        await roto.put(f"{number:04}", {"k": "v"}, team=str(number % 3))
    async with house_of(aws_front.url, roto.prefix, database) as house:
        ended = await house.run()
        assert counts(ended)["created"] == n
        calls = {"list": ceil(n / 100), "read": ceil(n / 20)}
        assert {k: made for k, made in ended.report.calls.items() if made} == calls
        assert len(aws_front.seen) == sum(calls.values())
        aws_front.seen.clear()
        ended = await house.run()
        assert counts(ended) == {"listed": n, "unchanged": n}
        assert aws_front.seen == ["ListSecrets "] * ceil(n / 100)


@pytest.mark.parametrize(("size", "batch", "whole"), [(64, 20, 60), (64, 1, 64), (7, 20, 7)])
def test_pieces_end_where_a_batch_ends(size: int, batch: int, whole: int) -> None:
    assert fetch._whole_batches(size, batch) == whole


async def test_deletion_shortly_after_a_change_is_not_believed_yet(
    roto: Aws, database: Database
) -> None:
    await roto.put("a", {"k": "v"})
    async with house_of(roto.url, roto.prefix, database, extra={}) as house:
        await house.run()
        await roto.delete("a")
        assert skips(await house.run()) == {roto.prefix + "a": "lagging"}
        await house.admin.execute("UPDATE sync_state SET base_moved_at = now() - interval '11 min'")
        assert skips(await house.run()) == {}
        assert await house.status("ext/a") == "retained"


async def test_batches_that_are_denied_bring_the_same(
    roto: Aws, aws_front: AwsFront, database: Database
) -> None:
    for name in ("a", "b", "c"):
        await roto.put(name, {"k": name}, team="x")
    aws_front.refuse_as("^BatchGetSecretValue", "AccessDeniedException")
    aws_front.refuse_as(f"^GetSecretValue {roto.prefix}b", "AccessDeniedException")
    async with house_of(aws_front.url, roto.prefix, database) as house:
        ended = await house.run()
        assert skips(ended) == {roto.prefix + "b": "denied"}
        assert await house.paths() == ["ext/a", "ext/c"]
        assert (await house.row("secrets", path="ext/c"))["tags"] == ["team=x"]


@pytest.mark.parametrize("policy", ConflictPolicy)
async def test_write_goes_through_and_comes_back_as_nothing_new(
    roto: Aws, database: Database, policy: ConflictPolicy
) -> None:
    await roto.put("a", {"k": "1"}, team="x")
    settings: dict[str, Any] = {"writes": Writes.WRITE_THROUGH, "conflict_resolution": policy}
    async with house_of(roto.url, roto.prefix, database, **settings) as house:
        await house.run()
        await house.write("ext/a", {"k": "2"})
        await house.write("ext/new", {"k": "1"})
        assert json.loads(await roto.value("a")) == {"k": "2"}
        assert json.loads(await roto.value("new")) == {"k": "1"}
        assert await roto.tags("a") == {"team": "x", "svsync-managed": "true"}
        ended = await house.run()
        assert counts(ended).keys() <= {"listed", "unchanged"}
        assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}]


async def test_delete_goes_through_and_can_be_undone_there(roto: Aws, database: Database) -> None:
    await roto.put("a", {"k": "1"})
    settings: dict[str, Any] = {"writes": Writes.WRITE_THROUGH, "propagate_deletes": True}
    async with house_of(roto.url, roto.prefix, database, **settings) as house:
        await house.run()
        await house.app.writes.delete(TENANT, LocalPath("ext/a"), by="sa:test")
        assert "DeletedDate" in await roto.describe("a")
        assert counts(await house.run()).keys() <= {"listed", "unchanged"}
        await roto.restore("a")
        await house.run()
        assert await house.data("ext/a") == {"k": "1"}


async def test_push_without_an_answer_is_found_by_its_id_under_a_newer_version(
    roto: Aws, aws_front: AwsFront, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_once(monkeypatch)
    await roto.put("a", {"k": "1"})
    writes = Writes.WRITE_THROUGH
    async with house_of(aws_front.url, roto.prefix, database, writes=writes) as house:
        await house.run()
        aws_front.lose("^UpdateSecretVersionStage")
        with pytest.raises(WriteOutcomeUnknownError):
            await house.write("ext/a", {"k": "2"})
        await roto.put("a", {"k": "theirs"})
        aws_front.rules.clear()
        await overdue(house)
        await house.run()
        assert (await house.row("pushes"))["state"] == "landed"
        assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}, {"k": "theirs"}]


async def test_late_call_of_a_push_that_was_given_up_is_known_by_its_id(
    roto: Aws, aws_front: AwsFront, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_once(monkeypatch)
    await roto.put("a", {"k": "1"})
    policy = ConflictPolicy.LOCAL_WINS
    settings: dict[str, Any] = {"writes": Writes.WRITE_THROUGH, "conflict_resolution": policy}
    async with house_of(aws_front.url, roto.prefix, database, **settings) as house:
        await house.run()
        aws_front.refuse_as("^UpdateSecretVersionStage", "InternalServiceError", 500)
        await house.write("ext/a", {"k": "2"})
        push = (await house.row("pushes"))["push_id"]
        aws_front.rules.clear()
        await house.configure(writes=Writes.LOCAL)
        await overdue(house)
        await house.run()
        assert (await house.row("pushes"))["state"] == "withdrawn"
        await house.write("ext/a", {"k": "3"})
        await roto.move("a", push, (await roto.stages("a"))["AWSCURRENT"])
        await house.configure(writes=Writes.WRITE_THROUGH)
        await house.admin.execute("UPDATE pushes SET ended_at = now() - interval '1 h'")
        await house.run()
        assert json.loads(await roto.value("a")) == {"k": "3"}
        assert await house.rows("conflicts") == []


async def test_program_runs_a_cycle_once(
    roto: Aws, database_url: str, tmp_path: Path, canary: Canary
) -> None:
    await roto.put("app/db", {"password": canary.value("aws")})
    backend = {
        "id": "fed_aws",
        "name": "aws",
        "type": "aws-secrets-manager",
        "mode": "sync",
        "config": {
            "region": "us-east-1",
            "endpoint_url": roto.url,
            "credentials_path": "env:AWS_KEYS",
        },
        "path_mapping": [{"local": "ext/**", "remote": f"{roto.prefix}**"}],
    }
    file = tmp_path / "svsync.yaml"
    file.write_text(json.dumps({"allow_loopback": True, "backends": [backend]}))
    program = Program(
        {"DATABASE_URL": database_url, "SVSYNC_STATE_DIR": str(tmp_path), "AWS_KEYS": KEYS},
        tmp_path,
        canary,
    )
    at = ("--config", str(file))
    said = await program("run-once", "--backend", "fed_aws", "--json", *at)
    assert said.code == 0, said.err
    run = said.json
    assert (run["result"], run["counts"]["created"]) == ("ok", 1)
    assert {k: n for k, n in run["api_calls"].items() if n} == {"list": 1, "metadata": 1, "read": 1}
    tested = await program("backends", "test", "fed_aws", *at)
    assert tested.code == 0
