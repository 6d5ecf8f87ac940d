"""The example of a third party's backend passes the suite, on a real Valkey."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.example import KIND, RedisScene, corner_of, registry, scene_on, spec_of
from tests.house import TENANT
from tests.patience import PATIENCE_S

from svsync.domain.changes import Entry, RemoteUnknown
from svsync.domain.decide import PushKind
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    LoginError,
    ProtocolError,
)
from svsync.domain.federation import ManagedBy
from svsync.domain.ids import PushId, RemotePath
from svsync.domain.pushes import Ready, Refused, RemoteWrite
from svsync.domain.values import Payload
from svsync.embedded.valkey import ValkeyServer
from svsync.testing.conformance import BackendConformance, CountingGuard, Scene, list_all
from svsync.testing.conformance_writes import WriteConformance


@pytest.fixture
async def redis(shared_valkey: ValkeyServer, installed: list[str]) -> AsyncIterator[RedisScene]:
    async with scene_on(shared_valkey) as scene:
        yield scene


class TestRedis(BackendConformance):
    @pytest.fixture
    async def scene(self, redis: RedisScene) -> Scene:
        return redis


class TestRedisWrites(WriteConformance):
    @pytest.fixture
    async def scene(self, redis: RedisScene) -> Scene:
        return redis


# --- how it is loaded -----------------------------------------------------------------


def test_plugin_is_loaded_only_where_it_is_named(installed: list[str]) -> None:
    with pytest.raises(ConfigError, match="allowed_plugins"):
        registry().driver(KIND)
    assert registry("", KIND).driver(KIND).features.compare_and_set


def test_plugin_that_nobody_installed_is_told() -> None:
    with pytest.raises(ConfigError, match="no installed package brings the backend type"):
        registry("", KIND).driver(KIND)


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"endpoint": "redis://10.0.0.1:6379"}, "config.endpoint"),
        ({"endpoint": "rediss://user:pw@redis.internal"}, "config.endpoint"),
        ({"endpoint": "rediss://redis.internal/zero"}, "config.endpoint"),
        ({"endpoint": "https://redis.internal"}, "config.endpoint"),
        ({}, "config.endpoint"),
        ({"endpoint": "rediss://redis.internal", "tls_verfy": True}, "config.tls_verfy"),
        ({"endpoint": "rediss://169.254.169.254"}, "config.endpoint"),
    ],
)
def test_configuration_that_cannot_be_used_is_refused_by_its_key(
    installed: list[str], config: dict[str, object], where: str
) -> None:
    spec = replace(spec_of("", "app/"), config=config)
    with pytest.raises(ConfigError) as caught:
        registry("", KIND).driver(KIND).check_config(spec)
    assert caught.value.where == where


# --- what this store has of its own -----------------------------------------------------


async def test_plugin_keeps_to_the_network_rules_of_whoever_runs_it(
    shared_valkey: ValkeyServer, installed: list[str]
) -> None:
    """A name that points to loopback, which the rules do not allow: no connection is made."""
    strict = registry("secret", KIND, allow_loopback=False)
    spec = spec_of(f"rediss://localhost:{shared_valkey.port}", "app/", managed_by=ManagedBy.API)
    async with strict.open(spec, TENANT) as opened:
        with pytest.raises(BackendError) as caught:
            await opened.backend.connect(["app/"])
    assert caught.value.code == "endpoint_refused"


async def test_wrong_password_is_a_refused_login(
    shared_valkey: ValkeyServer, installed: list[str]
) -> None:
    spec = spec_of(f"redis://127.0.0.1:{shared_valkey.port}", "app/")
    async with registry("canary-password", KIND).open(spec, TENANT) as opened:
        with pytest.raises(LoginError) as caught:
            await opened.backend.connect(["app/"])
    assert "canary" not in repr(caught.value)


async def test_server_that_takes_no_connection_is_given_up(
    installed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = registry("word", KIND)
    opens.driver(KIND)
    monkeypatch.setattr("svsync_redis.session._TIMEOUT_S", 0.05)
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # one waits in it; whoever comes after is not answered
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        spec = spec_of(f"redis://127.0.0.1:{full.getsockname()[1]}", "app/")
        async with asyncio.timeout(PATIENCE_S), opens.open(spec, TENANT) as opened:
            guard = CountingGuard()
            opened.backend._guard = guard  # type: ignore[attr-defined]  # it tries nothing again
            with pytest.raises(BackendUnreachableError):
                await opened.backend.connect(["app/"])


async def test_run_tries_no_permission(redis: RedisScene) -> None:
    before = len(redis.guard.calls)
    assert (await redis.backend.connect([redis.prefix], probe=False)).checks == ()
    assert len(redis.guard.calls) == before + 1


async def test_one_prefix_that_is_denied_is_not_the_whole_store(redis: RedisScene) -> None:
    await redis.corner.grant(f"~{redis.prefix}a/*")
    connection = await redis.backend.connect([f"{redis.prefix}a/", f"{redis.prefix}b/"])
    assert connection.status == "degraded"


async def test_store_without_a_name_is_not_taken_for_another(redis: RedisScene) -> None:
    await redis.corner.hands.delete("svsync:store")
    with pytest.raises(ProtocolError, match="SET svsync:store"):
        await redis.backend.connect([redis.prefix])


async def test_key_that_may_not_be_read_is_listed_and_never_gone(redis: RedisScene) -> None:
    await redis.put("a/x", {"k": "v"})
    await redis.put("b/y", {"k": "v"})
    await redis.corner.grant(f"~{redis.prefix}a/*")
    listed = await list_all(redis.backend, [redis.prefix])
    path = RemotePath(redis.prefix + "b/y")
    assert listed.entries[path] == Entry(path)
    assert listed.entries[redis.prefix + "a/x"].order == 1
    [read] = await redis.backend.read([path])
    assert read == await redis.backend.look_up(path) == RemoteUnknown("denied")


async def test_right_that_is_missing_is_named_with_the_line_that_grants_it(
    redis: RedisScene,
) -> None:
    await redis.corner.grant("~elsewhere/*")
    connection = await redis.backend.connect([redis.prefix])
    assert connection.status == "denied"
    [missing] = [check for check in connection.checks if check.state == "missing"]
    assert missing.hint == f"ACL SETUSER <user> ~{redis.prefix}* +scan +hmget"


@pytest.mark.parametrize(
    "spoil",
    [("HSET", "value", "{}"), ("HSET", "version", "no"), ("HSET", "version", "3", "tags", "[]")],
)
async def test_hash_of_another_make_is_skipped_and_never_gone(
    redis: RedisScene, spoil: tuple[str, ...]
) -> None:
    command, *fields = spoil
    path = RemotePath(redis.prefix + "odd")
    await redis.corner.hands.execute_command(command, path, *fields)
    listed = await list_all(redis.backend, [redis.prefix])
    assert listed.entries[path].value_token is None
    [read] = await redis.backend.read([path])
    assert isinstance(read, RemoteUnknown)
    assert read.reason == "undecodable"


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "canary", "id": "a", "value": "{}"},
        {"version": "9" * 30, "id": "a", "value": "{}"},
        {"version": "1", "id": b"canary\xff", "value": "{}"},
        {"version": "1", "id": "a", "value": "{}", "tags": '{"canary'},
    ],
)
async def test_what_was_spoiled_is_never_quoted(
    redis: RedisScene, fields: dict[str, str | bytes]
) -> None:
    path = RemotePath(redis.prefix + "odd")
    await redis.corner.hands.hset(path, mapping=fields)
    for found in (*await redis.backend.read([path]), await redis.backend.look_up(path)):
        assert isinstance(found, RemoteUnknown)
        assert found.reason == "undecodable"
        assert "canary" not in found.detail
        assert "0xff" not in found.detail


async def test_key_that_became_no_hash_is_unknown_and_ends_no_run(redis: RedisScene) -> None:
    """It is not listed any more, so it is asked for by name."""
    path = RemotePath(redis.prefix + "a")
    await redis.put("b", {"k": "v"})
    await redis.corner.hands.set(path, "a text")
    assert (await list_all(redis.backend, [redis.prefix])).names == [redis.prefix + "b"]
    found = [await redis.backend.look_up(path), *await redis.backend.read([path])]
    assert {one.reason for one in found if isinstance(one, RemoteUnknown)} == {"undecodable"}
    assert len(found) == 2
    assert await redis.backend.read_history(path, above=0, below=9, limit=9) == ()
    order = RemoteWrite(
        PushId("push_1"), path, PushKind.CREATE, None, None, Payload.from_fields({"k": "v"})
    )
    assert await redis.backend.check(order) == Refused("unreadable", "a key that holds no hash")
    await redis.corner.hands.delete("svsync:store")
    await redis.corner.hands.hset("svsync:store", "name", "no text")
    with pytest.raises(ProtocolError, match="SET svsync:store"):
        await redis.backend.connect([redis.prefix])


async def test_names_are_taken_as_they_are_and_no_pattern(redis: RedisScene) -> None:
    await redis.put("a*/x", {"k": "v"})
    await redis.put("ab/x", {"k": "v"})
    listed = await list_all(redis.backend, [redis.prefix + "a*/"])
    assert listed.names == [redis.prefix + "a*/x"]


async def test_name_that_is_no_text_is_rejected(redis: RedisScene) -> None:
    key = redis.prefix.encode() + b"\xff"
    await redis.corner.hands.hset(key, "version", "1")
    listed = await list_all(redis.backend, [redis.prefix])
    assert listed.names == []
    assert [reason for _, reason in listed.rejected] == ["illegal_path"]


async def test_ten_versions_are_left_by_a_write(redis: RedisScene) -> None:
    for number in range(1, 13):
        await redis.put("a", {"k": f"v{number}"})
    path = RemotePath(redis.prefix + "a")
    entry = await redis.backend.look_up(path)
    assert isinstance(entry, Entry)
    order = RemoteWrite(
        PushId("push_1"),
        path,
        PushKind.PUT,
        entry.value_token,
        entry.order,
        Payload.from_fields({"k": "new"}),
    )
    ready = await redis.backend.check(order)
    assert isinstance(ready, Ready)
    await redis.backend.write(order, ready, None)
    found = await redis.backend.read_history(path, above=0, below=13, limit=99)
    assert 3 not in [version.number for version in found]
    assert [version.number for version in found][-9:] == list(range(4, 13))


async def test_write_to_a_server_that_is_away_was_not_sent(redis: RedisScene) -> None:
    await redis.put("a", {"k": "v"})
    path = RemotePath(redis.prefix + "a")
    entry = await redis.backend.look_up(path)
    assert isinstance(entry, Entry)
    order = RemoteWrite(PushId("push_1"), path, PushKind.DELETE, entry.value_token, entry.order)
    ready = await redis.backend.check(order)
    assert isinstance(ready, Ready)
    await redis.proxy.shut()
    with pytest.raises(BackendUnreachableError) as caught:
        await redis.backend.write(order, ready, None)
    assert not caught.value.sent


async def test_password_that_changed_is_asked_for_at_the_next_connection(
    shared_valkey: ValkeyServer, installed: list[str]
) -> None:
    async with corner_of(shared_valkey) as corner:
        fields = dict(corner.login)
        spec = spec_of(f"redis://127.0.0.1:{shared_valkey.port}", corner.prefix)
        async with registry(fields, KIND).open(spec, TENANT) as opened:
            await opened.backend.connect([corner.prefix])
            corner.password = fields["password"] = "another"
            await corner.hands.execute_command("ACL", "SETUSER", corner.user, "resetpass")
            await corner.grant(f"~{corner.prefix}*")
            await corner.hands.execute_command("CLIENT", "KILL", "USER", corner.user)
            with contextlib.suppress(BackendUnreachableError):  # it may see that it was cut
                await opened.backend.connect([corner.prefix])
            await opened.backend.connect([corner.prefix])


async def test_listing_that_is_denied_ends_in_a_scope_that_says_so(
    redis: RedisScene,
) -> None:
    await redis.corner.hands.execute_command("ACL", "SETUSER", redis.corner.user, "-scan")
    listed = await list_all(redis.backend, [redis.prefix])
    assert [(scope.prefix, str(scope.outcome)) for scope in listed.scopes] == [
        (redis.prefix, "denied")
    ]
