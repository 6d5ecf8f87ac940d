"""Is a secret ready to be deleted at its source only where nothing speaks against it?"""

import dataclasses
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.audited import AuditedBao, audited_bao, entry, lines, quiet_log
from tests.aws import Aws, AwsFront
from tests.aws_house import house_of as aws_house_of
from tests.house import TENANT, House, backend, open_house
from tests.openbao import Bao, credential_json, guide_policy, new_mount

from svsync.domain.audit import LOOK, Decision, Entry
from svsync.domain.errors import UsageError
from svsync.domain.federation import Mode, OnRemoteDelete, RuleSpec, Writes
from svsync.domain.globs import Glob
from svsync.domain.ids import BackendId
from svsync.ports import AccessLog
from svsync.registry import access_log
from svsync.services.retirement import Asked, Retirement

__all__ = ["audited_bao"]
HOUR = timedelta(hours=1)
Database = tuple[str, str, Path]


@pytest.fixture
async def kv(audited_bao: AuditedBao) -> Bao:
    return await new_mount(audited_bao)


@asynccontextmanager
async def house_of(bao: Bao, database: Database, **settings: Any) -> AsyncIterator[House]:
    """A house that syncs a whole mount by a role of the guide's policy."""
    login = await bao.approle(guide_policy(bao.mount, version=bao.version))
    data = "data/" if bao.version == 2 else ""
    config = {
        "endpoint": bao.url,
        "auth_method": "approle",
        "auth_config_path": "env:ROLE",
        **settings.pop("config", {}),
    }
    rules = (RuleSpec("ext/**", f"{bao.mount}/{data}**"),)
    spec = backend(rules, type="hashicorp-vault", config=config, **settings)
    environ = {"ROLE": credential_json(login), "ROOT": bao.root_token}
    async with open_house(*database, spec, environ=environ) as house:
        yield house


async def read_here(
    house: House, path: str, who: str = "service_account", request_id: str | None = None
) -> None:
    row = Entry(
        TENANT, who, "sa:billing", "secret.read", Decision.ALLOW, path, request_id=request_id
    )
    await house.app.recorder.record(row)


@asynccontextmanager
async def read_lately(bao: Bao, database: Database, **settings: Any) -> AsyncIterator[House]:
    """A house that has one secret, `ext/a`, equal on both sides; an application read it here."""
    await bao.put("a", {"k": "1"})
    async with house_of(bao, database, **settings) as house:
        await house.run()
        await read_here(house, "ext/a")
        yield house


async def plan(
    house: House, log: AccessLog | None = None, pattern: str = "ext/**", **asked: Any
) -> dict[str, Any]:
    given = Asked(Glob(pattern), HOUR, **asked)
    return await Retirement(house.app.db, house.app.registry).plan(TENANT, given, log)


def reasons(found: dict[str, Any]) -> dict[str, list[str]]:
    return {row["path"]: [one["reason"] for one in row["reasons"]] for row in found["held"]}


def ready(found: dict[str, Any]) -> list[str]:
    return [row["path"] for row in found["ready"]]


class Logs:
    """A server's own log, with a rotated one beside it that spans the hour before."""

    def __init__(self, server: AuditedBao) -> None:
        self.now = datetime.now(UTC)
        self.file = server.audit_log
        self.rotated = self.file.with_name("audit.log.1.gz")
        quiet_log(self.rotated, self.now, HOUR * 1.1)

    def more(self, name: str, *entries: dict[str, Any], broken: bytes = b"") -> Path:
        file = self.file.parent / name
        file.write_bytes(lines(entries) + broken)
        return file

    def open(self, *others: Path) -> AccessLog:
        return access_log([str(self.file), *map(str, others)])


@pytest.fixture
def logs(audited_bao: AuditedBao) -> Logs:
    return Logs(audited_bao)


# --- with an audit log ------------------------------------------------------------------


async def test_what_is_equal_read_here_and_idle_there_is_ready(
    kv: Bao, database: Database, logs: Logs
) -> None:
    for name in ("apps/db", "apps/read-there", "apps/unread-here"):
        await kv.put(name, {"k": "1"})
    async with house_of(kv, database) as house:
        await house.run()  # which reads each value there, as svsync itself
        await kv.request("GET", f"{kv.mount}/data/apps/read-there")
        for path in ("ext/apps/db", "ext/apps/read-there"):
            await read_here(house, path)
        await read_here(house, "ext/apps/unread-here", "operator")
        found = await plan(house, logs.open())
    assert ready(found) == ["ext/apps/db"]
    assert reasons(found) == {
        "ext/apps/read-there": ["read_at_source"],
        "ext/apps/unread-here": ["not_read_here"],
    }
    [row] = found["ready"]
    words = ["vault", "kv", "delete", f"-address={kv.url}", f"-mount={kv.mount}", "apps/db"]
    assert (row["command"], shlex.split(row["command_line"])) == (words, words)
    assert (row["recoverable"], row["last_read_here"]["identity_id"]) == (True, "sa:billing")
    held = {row["path"]: row["reasons"][0]["why"] for row in found["held"]}
    assert held["ext/apps/read-there"].startswith("root read it at its source, last at 20")
    # Nothing was run: all is still there.
    assert await kv.request("GET", f"{kv.mount}/data/apps/db")


async def test_what_our_own_commands_read_is_no_application(
    kv: Bao, database: Database, logs: Logs
) -> None:
    await kv.put("a", {"k": "1"})
    async with house_of(kv, database) as house:
        await house.run()
        await read_here(house, "ext/a", request_id=f"{LOOK}1")
        assert reasons(await plan(house, logs.open())) == {"ext/a": ["not_read_here"]}
        await read_here(house, "ext/a", request_id="req_1")
        assert ready(await plan(house, logs.open())) == ["ext/a"]


async def test_a_copy_that_is_read_counts_as_read_here(
    kv: Bao, database: Database, logs: Logs
) -> None:
    await kv.put("a", {"k": "moved"})
    async with house_of(kv, database) as house:
        await house.run()
        await house.write("environments/production/a", {"k": "moved"})
        await read_here(house, "environments/production/a")
        found = await plan(house, logs.open())
    assert ready(found) == ["ext/a"]
    assert found["ready"][0]["last_read_here"]["path"] == "environments/production/a"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"on_remote_delete": OnRemoteDelete.SOFT_DELETE}, "deleted_with_it"),
        ({"writes": Writes.WRITE_THROUGH}, "written_through"),
    ],
)
async def test_a_setting_that_makes_a_delete_there_dangerous_holds_it_back(
    kv: Bao, database: Database, logs: Logs, settings: dict[str, Any], says: str
) -> None:
    async with read_lately(kv, database, **settings) as house:
        assert reasons(await plan(house, logs.open())) == {"ext/a": [says]}


async def test_what_is_not_known_to_be_equal_is_held_back(
    kv: Bao, database: Database, logs: Logs
) -> None:
    for name in ("a", "b"):
        await kv.put(name, {"k": "1"})
    async with house_of(kv, database) as house:
        await house.run()
        await house.write("ext/b", {"k": "2"})
        for path in ("ext/a", "ext/b"):
            await read_here(house, path)
        found = reasons(await plan(house, logs.open()))
        assert "not_equal" in found["ext/b"]
        assert "ext/a" not in found
        # A full run of long ago says nothing of today.
        await house.admin.execute(
            "UPDATE backend_health SET last_success_at = now() - interval '1 day'"
        )
        assert reasons(await plan(house, logs.open()))["ext/a"] == ["not_looked_at"]
        await house.run()
        other = RuleSpec("other/**", f"{kv.mount}/data/other/**")
        await house.configure(rules=(*house.spec.rules, other))
        assert reasons(await plan(house, logs.open()))["ext/a"] == ["not_looked_at"]


async def test_what_was_changed_there_since_the_last_run_is_not_equal(
    kv: Bao, database: Database, logs: Logs
) -> None:
    for name in ("a", "b", "c"):
        await kv.put(name, {"k": "1"})
    async with house_of(kv, database) as house:
        await house.run()
        await kv.put("a", {"k": "2"})
        await kv.request("DELETE", f"{kv.mount}/metadata/b")
        for path in ("ext/a", "ext/b", "ext/c"):
            await read_here(house, path)
        found = await plan(house, logs.open())
        assert ready(found) == ["ext/c"]
        assert reasons(found) == {"ext/a": ["not_equal"], "ext/b": ["not_equal"]}
        assert "changed there since" in found["held"][0]["reasons"][0]["why"]
        await house.run()
        assert ready(await plan(house, logs.open())) == ["ext/a", "ext/c"]
        # One that another worker went on with may have been listed before it began there.
        await house.admin.execute(
            "UPDATE runs SET handed_over = true, queued_at = now() - interval '1 hour'"
        )
        assert reasons(await plan(house, logs.open()))["ext/c"] == ["not_equal"]


async def test_what_another_backend_maps_as_well_is_not_deleted_under_it(
    kv: Bao, database: Database, logs: Logs
) -> None:
    for name in ("one/a", "two/a"):
        await kv.put(name, {"k": "1"})
    async with house_of(kv, database) as house:
        proxied = dataclasses.replace(
            house.spec,
            id=BackendId("fed_live"),
            name="live",
            mode=Mode.PROXY,
            rules=(RuleSpec("live/**", f"{kv.mount}/data/one/**"),),
        )
        await house.app.federation.apply([house.spec, proxied])
        await house.run()
        for path in ("ext/one/a", "ext/two/a"):
            await read_here(house, path)
        found = await plan(house, logs.open())
        assert reasons(found) == {"ext/one/a": ["used_elsewhere"]}
        assert ready(found) == ["ext/two/a"]
        # One that is known to be another store has another secret of that name.
        change = "UPDATE backends SET identity = $1 WHERE backend_id = 'fed_live'"
        await house.admin.execute(change, "another")
        assert ready(await plan(house, logs.open())) == ["ext/one/a", "ext/two/a"]
        known = "SELECT identity FROM backends WHERE backend_id = $1"
        await house.admin.execute(change, await house.admin.fetchval(known, house.spec.id))
        assert reasons(await plan(house, logs.open())) == {"ext/one/a": ["used_elsewhere"]}


async def test_a_log_that_leaves_something_out_proves_nothing(
    kv: Bao, database: Database, logs: Logs
) -> None:
    async with read_lately(kv, database) as house:
        assert ready(await plan(house, logs.open())) == ["ext/a"]
        broken = logs.more("broken.log", entry(logs.now, "x/data/y"), broken=b"{torn}\n{}\n")
        found = await plan(house, logs.open(broken))
        assert reasons(found) == {"ext/a": ["log_incomplete"]}
        assert "2 of its lines" in found["held"][0]["reasons"][0]["why"]
        assert ready(await plan(house, logs.open(broken), trusts_broken=True)) == ["ext/a"]
        logs.rotated.unlink()  # the hour before is not told of
        found = await plan(house, logs.open())
        assert reasons(found) == {"ext/a": ["log_incomplete"]}
        assert "give the rotated files" in found["held"][0]["reasons"][0]["why"]


async def test_a_log_of_another_server_is_told_by_our_own_calls(
    kv: Bao, database: Database, logs: Logs
) -> None:
    async with read_lately(kv, database) as house:
        other = access_log([str(logs.rotated)])
        assert reasons(await plan(house, other)) == {"ext/a": ["log_of_another"]}


async def test_reads_in_another_namespace_are_of_another_secret(
    kv: Bao, database: Database, logs: Logs
) -> None:
    elsewhere = {"namespace": {"id": "n1", "path": "acme/"}, "mount_point": f"acme/{kv.mount}/"}
    there = entry(logs.now, f"{kv.mount}/data/a", request=elsewhere)
    here = entry(logs.now, f"{kv.mount}/subkeys/a")
    async with read_lately(kv, database) as house:
        assert ready(await plan(house, logs.open(logs.more("n.log", there)))) == ["ext/a"]
        held = await plan(house, logs.open(logs.more("n.log", there, here)))
        assert reasons(held) == {"ext/a": ["read_at_source"]}
        told = await plan(house, logs.open(logs.more("n.log", here)), ours=["billing"])
        assert ready(told) == ["ext/a"]


async def test_a_namespace_may_stand_in_the_path(
    audited_bao: AuditedBao, database: Database, logs: Logs
) -> None:
    """The log tells of a read by the namespace, whatever the reader and svsync call it."""
    await audited_bao.request("POST", "sys/namespaces/team")
    inner = await new_mount(audited_bao, namespace="team")
    await inner.put("a", {"k": "1"})
    outer = Bao(audited_bao, f"team/{inner.mount}", 2)
    async with house_of(outer, database) as house:
        await house.run()
        await read_here(house, "ext/a")
        assert ready(await plan(house, logs.open())) == ["ext/a"]
        await inner.request("GET", f"{inner.mount}/data/a")
        assert reasons(await plan(house, logs.open())) == {"ext/a": ["read_at_source"]}


async def test_the_namespace_root_is_none(kv: Bao, database: Database, logs: Logs) -> None:
    async with read_lately(kv, database, config={"namespace": "root"}) as house:
        assert ready(await plan(house, logs.open())) == ["ext/a"]
        await kv.request("GET", f"{kv.mount}/data/a")
        assert reasons(await plan(house, logs.open())) == {"ext/a": ["read_at_source"]}


async def test_what_all_roles_of_a_method_share_names_none_of_them(
    kv: Bao, database: Database, logs: Logs
) -> None:
    of_a_role = logs.more("role.log", entry(logs.now, f"{kv.mount}/data/a"))
    plain = {"display_name": "token", "entity_id": "", "metadata": None}
    of_a_token = logs.more("token.log", entry(logs.now, f"{kv.mount}/data/a", auth=plain))
    async with read_lately(kv, database) as house:
        for ours in (["approle"], [""]):
            found = await plan(house, logs.open(of_a_role), ours=ours)
            assert reasons(found) == {"ext/a": ["read_at_source"]}
        assert ready(await plan(house, logs.open(of_a_token), ours=["token"])) == ["ext/a"]


async def test_what_kv_v1_deletes_is_said_to_be_gone_for_good(
    audited_bao: AuditedBao, database: Database, logs: Logs
) -> None:
    old = await new_mount(audited_bao, version=1, prefix="old")
    for name in ("metadata/a", "b"):
        await old.put(name, {"k": "1"})
    async with house_of(old, database) as house:
        await house.run()
        for path in ("ext/metadata/a", "ext/b"):
            await read_here(house, path)
        await old.request("GET", f"{old.mount}/metadata/a")  # a name like any other there
        found = await plan(house, logs.open())
    assert reasons(found) == {"ext/metadata/a": ["read_at_source"]}
    assert [row["recoverable"] for row in found["ready"]] == [False]


# --- without one ------------------------------------------------------------------------


async def test_without_a_log_nobody_says_that_a_vault_is_idle(kv: Bao, database: Database) -> None:
    async with read_lately(kv, database) as house:
        assert reasons(await plan(house)) == {"ext/a": ["source_unknown"]}
        assert (await plan(house, pattern="nothing/**"))["held"] == []


async def test_a_store_that_svsync_cannot_survey_is_left_alone(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await read_here(house, "ext/a")
    assert reasons(await plan(house)) == {"ext/a": ["source_unknown", "no_command"]}


async def test_one_log_is_not_taken_for_that_of_two_servers(
    kv: Bao, database: Database, logs: Logs
) -> None:
    await kv.put("one/a", {"k": "1"})
    await kv.put("two/a", {"k": "1"})
    rules = (RuleSpec("ext/one/**", f"{kv.mount}/data/one/**"),)
    async with house_of(kv, database) as house:
        await house.configure(rules=rules)
        twin = dataclasses.replace(
            house.spec,
            id=BackendId("fed_two"),
            name="two",
            rules=(RuleSpec("ext/two/**", f"{kv.mount}/data/two/**"),),
        )
        await house.app.federation.apply([house.spec, twin])
        await house.run()
        await house.run(backend=twin.id)
        for path in ("ext/one/a", "ext/two/a"):
            await read_here(house, path)
        with pytest.raises(UsageError, match="--backend"):
            await plan(house, logs.open())
        assert ready(await plan(house, logs.open(), backend="two")) == ["ext/two/a"]


# --- AWS --------------------------------------------------------------------------------


async def test_aws_tells_itself_on_which_day_a_secret_was_last_read(
    roto: Aws, aws_front: AwsFront, database: Database
) -> None:
    names = ("idle", "read", "untold", "rotated", "rotated-untold")
    for name in names:
        await roto.put(name, {"k": "1"})
    async with aws_house_of(aws_front.url, roto.prefix, database) as house:
        await house.run()
        for name in names:
            await read_here(house, f"ext/{name}")
        listed = await roto.listed()
        days = {"idle": -3 * 86_400, "read": 0, "untold": None, "rotated": -3 * 86_400}
        days["rotated-untold"] = None
        for secret in listed:
            name = secret["Name"].removeprefix(roto.prefix)
            ago = days[name]
            secret["RotationEnabled"] = name.startswith("rotated")
            secret.pop("LastAccessedDate", None)
            if ago is not None:
                secret["LastAccessedDate"] = int(datetime.now(UTC).timestamp()) + ago
        page = {"SecretList": listed}
        aws_front.answer("^ListSecrets", lambda _: web.json_response(page))
        found = await plan(house)
    assert ready(found) == ["ext/idle"]
    assert reasons(found) == {
        "ext/read": ["read_at_source"],
        "ext/rotated": ["rotated"],
        "ext/rotated-untold": ["rotated", "source_unknown"],
        "ext/untold": ["source_unknown"],
    }
    [untold] = [row["reasons"][0] for row in found["held"] if row["path"] == "ext/untold"]
    assert "see in another store's own log" in untold["why"], "AWS has no file to give"
    assert found["ready"][0]["command"] == _aws(f"{roto.prefix}idle")


def _aws(name: str) -> Sequence[str]:
    words = "aws secretsmanager delete-secret --secret-id NAME --recovery-window-in-days 30"
    return [*words.replace("NAME", name).split(), "--region", "us-east-1"]
