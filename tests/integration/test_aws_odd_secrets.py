"""Secrets of AWS that are no plain value with a plain name: each has its own reason, and
keeps no other one back."""

import base64
import json
from typing import Any

import pytest
from tests.aws import Aws, AwsFront
from tests.aws_house import Database, house_of
from tests.house import counts, failure, skips
from tests.writes import put, state

from svsync.domain.errors import SvsyncError
from svsync.domain.federation import ConflictPolicy, OnRemoteDelete, RuleSpec, Writes
from svsync.domain.runs import RunResult


async def made_without_a_value(aws: Aws, name: str) -> None:
    await aws.call("CreateSecret", Name=aws.prefix + name, ClientRequestToken="e" * 32)


async def test_each_odd_secret_has_its_reason_and_the_others_come(
    roto: Aws, database: Database
) -> None:
    await roto.put("plain", {"k": "v"})
    await roto.put_raw("bytes", {}, SecretBinary=base64.b64encode(b"\x00\xff").decode())
    await roto.put("deep", "[" * 10)  # no object, so text as it stands
    await roto.put("user@host", {"k": "v"})
    await roto.put("a=b+c", {"k": "v"})
    await roto.put("large", "x" * 2001)
    await roto.put("deleted", {"k": "v"})
    await roto.delete("deleted")
    await made_without_a_value(roto, "empty")
    settings: dict[str, Any] = {"max_value_bytes": 2000, "max_error_ratio": 1.0}
    async with house_of(roto.url, roto.prefix, database, **settings) as house:
        for _ in range(2):
            ended = await house.run()
            assert ended.record.result is RunResult.PARTIAL
            assert skips(ended) == {
                roto.prefix + "user@host": "illegal_path",
                roto.prefix + "a=b+c": "illegal_path",
                roto.prefix + "large": "value_too_large",
            }
        assert await house.paths() == ["ext/bytes", "ext/deep", "ext/plain"]
        assert await house.data("ext/bytes") == {"value_base64": "AP8="}
        assert await house.data("ext/deep") == {"value": "[" * 10}


async def test_secret_that_is_made_anew_without_a_value_is_gone_and_comes_with_one(
    roto: Aws, database: Database
) -> None:
    await roto.put("a", {"k": "1"})
    removal = OnRemoteDelete.SOFT_DELETE
    async with house_of(roto.url, roto.prefix, database, on_remote_delete=removal) as house:
        await house.run()
        await roto.remove("a")
        await made_without_a_value(roto, "a")
        ended = await house.run()
        assert (counts(ended), skips(ended)) == ({"listed": 1, "deleted": 1}, {})
        assert await house.paths() == []
        await roto.call("PutSecretValue", SecretId=roto.prefix + "a", SecretString='{"k": "2"}')
        await house.run()
        assert await house.data("ext/a") == {"k": "2"}


async def test_label_that_is_moved_back_is_a_change_like_any_other(
    roto: Aws, database: Database
) -> None:
    first = await roto.put("a", {"k": "1"})
    async with house_of(roto.url, roto.prefix, database) as house:
        await house.run()
        second = await roto.put("a", {"k": "2"})
        await house.run()
        await roto.move("a", first, second)
        await house.run()
        assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}, {"k": "1"}]


async def test_write_to_a_secret_that_is_scheduled_for_deletion_restores_it(
    roto: Aws, database: Database
) -> None:
    await roto.put("a", {"k": "1"})
    policy = ConflictPolicy.LOCAL_WINS
    settings: dict[str, Any] = {"writes": Writes.WRITE_THROUGH, "conflict_resolution": policy}
    async with house_of(roto.url, roto.prefix, database, **settings) as house:
        await house.run()
        await roto.delete("a")
        await house.run()
        await house.write("ext/a", {"k": "2"})
        await house.admin.execute("UPDATE pushes SET ended_at = now() - interval '1 h'")
        await house.run()
        assert json.loads(await roto.value("a")) == {"k": "2"}
        assert "DeletedDate" not in await roto.describe("a")


@pytest.mark.parametrize(
    ("path", "size", "reason"),
    [("ext/" + "n" * 500, 10, "name_not_allowed"), ("ext/a", 64 * 1024 + 1, "value_too_large")],
)
async def test_write_that_aws_would_not_take_is_not_sent(
    roto: Aws, aws_front: AwsFront, database: Database, path: str, size: int, reason: str
) -> None:
    """A name has 512 characters and a value 65,536 bytes at most (API reference,
    CreateSecret)."""
    rules = (RuleSpec("ext/**", f"{roto.prefix}{'d' * 20}/**"),)
    settings: dict[str, Any] = {"writes": Writes.WRITE_THROUGH, "rules": rules}
    async with house_of(aws_front.url, roto.prefix, database, **settings) as house:
        await house.run()
        with pytest.raises(SvsyncError) as refused:
            await put(house, path, {"k": "x" * size})
        assert refused.value.code == reason
        assert "x" * 10 not in refused.value.message
        assert not aws_front.calls("CreateSecret")
        assert await house.paths() == []
        assert state(await put(house, "ext/b", {"k": "v"})) == "applied"
        assert failure(await house.run()) is None


async def test_name_that_aws_would_not_take_stays_a_local_one_where_it_is_there_already(
    roto: Aws, database: Database
) -> None:
    """Of before the mapping, say: it is no federated path, and goes on as it was."""
    path, elsewhere = "ext/" + "n" * 500, (RuleSpec("other/**", f"{roto.prefix}**"),)
    async with house_of(roto.url, roto.prefix, database, rules=elsewhere) as house:
        await house.write(path, {"k": "1"})
        rules = (RuleSpec("ext/**", f"{roto.prefix}{'d' * 20}/**"),)
        await house.configure(rules=rules, writes=Writes.WRITE_THROUGH)
        assert state(await put(house, path, {"k": "2"})) == "not_configured"
        assert failure(await house.run()) is None
        assert await house.data(path) == {"k": "2"}
