"""The backend in memory passes the suite, and does what tests ask of it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

import pytest

from svsync.domain.changes import RemoteGone, RemoteValue, Tags
from svsync.domain.decide import PushKind
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    DeniedError,
    ThrottledError,
)
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import BackendId, PushId, RemotePath
from svsync.domain.pushes import Landed, Ready, Refused, RemoteWrite
from svsync.domain.values import Credential, Payload
from svsync.ports import Backend, Operation
from svsync.testing.conformance import (
    Ability,
    BackendConformance,
    CountingGuard,
    Scene,
    list_all,
)
from svsync.testing.conformance_writes import WriteConformance
from svsync.testing.memory import FEATURES, MemoryDriver, MemoryStore

SPEC = BackendSpec(BackendId("fed_memory"), "memory", "memory", (), max_value_bytes=1000)


async def no_credential() -> Credential:
    return Credential.parse("unused", "nowhere")


@dataclass
class MemoryScene:
    backend: Backend
    guard: CountingGuard
    store: MemoryStore
    prefix: str = "app/"
    max_value: int = 1000
    can: frozenset[Ability] = field(
        default=frozenset(
            {"tokens", "tags", "soft_delete", "destroy", "hide", "deny", "deny_writes", "outage"}
        )
    )

    async def put(self, name: str, fields: Mapping[str, str]) -> None:
        self.store.put(self.prefix + name, fields)

    async def remove(self, name: str) -> None:
        self.store.remove(self.prefix + name)

    async def tag(self, name: str, tags: Mapping[str, str]) -> None:
        self.store.tag(self.prefix + name, tags)

    async def delete(self, name: str) -> None:
        self.store.delete(self.prefix + name)

    async def undelete(self, name: str) -> None:
        self.store.undelete(self.prefix + name)

    async def destroy(self, name: str) -> None:
        self.store.destroy(self.prefix + name)

    async def hide(self, name: str) -> None:
        self.store.hidden.add(self.prefix + name)

    async def deny(self, folder: str) -> None:
        self.store.denied.add(self.prefix + folder)

    async def deny_writes(self, folder: str) -> None:
        self.store.readonly.add(self.prefix + folder)

    async def break_down(self) -> None:
        for operation in get_args(Operation):
            self.store.fail(operation, BackendUnreachableError("down", operation=operation))


@pytest.fixture
async def memory() -> AsyncIterator[MemoryScene]:
    store, guard = MemoryStore(), CountingGuard()
    async with MemoryDriver(store).open(SPEC, no_credential, guard) as backend:
        yield MemoryScene(backend, guard, store)


class TestMemory(BackendConformance):
    @pytest.fixture
    async def scene(self, memory: MemoryScene) -> Scene:
        return memory


class TestMemoryWrites(WriteConformance):
    @pytest.fixture
    async def scene(self, memory: MemoryScene) -> Scene:
        return memory


class TestMemoryWritesWithoutConditionAndHistory(WriteConformance):
    """A store such as KV v1, but for its tokens."""

    @pytest.fixture
    async def scene(self) -> AsyncIterator[Scene]:
        store, guard = MemoryStore(), CountingGuard()
        features = replace(FEATURES, history=False, compare_and_set=False, json_doubles=True)
        async with MemoryDriver(store, features).open(SPEC, no_credential, guard) as backend:
            can = frozenset[Ability]({"tokens", "tags", "deny_writes", "outage"})
            yield MemoryScene(backend, guard, store, can=can)


async def test_a_lagging_listing_shows_the_past_and_a_read_the_present(
    memory: MemoryScene,
) -> None:
    await memory.put("a", {"k": "1"})
    memory.store.lag()
    await memory.put("a", {"k": "2"})
    await memory.put("b", {"k": "1"})
    listed = await list_all(memory.backend, ["app/"])
    (read,) = await memory.backend.read([RemotePath("app/a")])
    assert isinstance(read, RemoteValue)
    assert (listed.entries["app/a"].order, read.order) == (1, 2)
    assert "app/b" not in listed.entries
    memory.store.catch_up()
    assert "app/b" in (await list_all(memory.backend, ["app/"])).entries


async def test_a_rollback_lowers_the_order(memory: MemoryScene) -> None:
    await memory.put("a", {"k": "1"})
    await memory.put("a", {"k": "2"})
    memory.store.rollback("app/a", 1)
    (read,) = await memory.backend.read([RemotePath("app/a")])
    assert isinstance(read, RemoteValue)
    assert read.order == 1
    await memory.put("a", {"k": "again"})
    assert (await list_all(memory.backend, ["app/"])).entries["app/a"].order == 2


async def test_a_fault_happens_once(memory: MemoryScene) -> None:
    await memory.put("a", {"k": "1"})
    memory.store.fail("read", BackendUnreachableError("down", operation="read"))
    with pytest.raises(BackendUnreachableError):
        await memory.backend.read([RemotePath("app/a")])
    (read,) = await memory.backend.read([RemotePath("app/a")])
    assert isinstance(read, RemoteValue)
    assert memory.store.calls["read"] == 2


async def test_generated_names_can_be_listed_read_and_changed(memory: MemoryScene) -> None:
    made = memory.store.generate("app/", 2500)
    before = await list_all(memory.backend, ["app/"])
    assert len(before.entries) == 2500
    memory.store.put(made.path(1234), {})
    after = await list_all(memory.backend, ["app/"])
    changed = [p for p, entry in after.entries.items() if entry != before.entries[p]]
    assert changed == [made.path(1234)]
    present, absent = [
        (await memory.backend.read([RemotePath(path)]))[0]
        for path in (made.path(1234), made.path(2500))
    ]
    assert isinstance(present, RemoteValue)
    assert present.value_token == after.entries[made.path(1234)].value_token
    assert isinstance(absent, RemoteGone)


# --- writes: what tests ask of the store ----------------------------------------------


def order_of(store: MemoryStore, kind: PushKind = PushKind.PUT) -> RemoteWrite:
    """A write upon what `app/a` is now."""
    secret = store.secret("app/a")
    token = None if secret is None else secret.value_token
    value = Payload.from_fields({"k": "new"}) if kind is not PushKind.METADATA else None
    return RemoteWrite(PushId("push_1"), RemotePath("app/a"), kind, token, None, value)


async def ready_for(memory: MemoryScene, order: RemoteWrite) -> Ready:
    ready = await memory.backend.check(order)
    assert isinstance(ready, Ready)
    return ready


async def test_answer_can_be_lost_after_a_write_was_made(memory: MemoryScene) -> None:
    await memory.put("a", {"k": "old"})
    order = order_of(memory.store)
    ready = await ready_for(memory, order)

    async def lose(operation: Operation, path: str) -> None:
        raise BackendUnreachableError("lost", operation=operation, path=path)

    memory.store.after = lose
    with pytest.raises(BackendUnreachableError):
        await memory.backend.write(order, ready, None)
    secret = memory.store.secret("app/a")
    assert secret is not None
    assert secret.current == 2


async def test_landed_write_tells_its_own_token_whoever_came_after_it(memory: MemoryScene) -> None:
    await memory.put("a", {"k": "old"})
    order = order_of(memory.store)
    ready = await ready_for(memory, order)

    async def follow(operation: Operation, path: str) -> None:
        memory.store.put(path, {"k": "theirs"})

    memory.store.after = follow
    landed = await memory.backend.write(order, ready, None)
    assert isinstance(landed, Landed)
    assert landed.order == 2


async def test_store_without_conditions_overwrites_whoever_was_faster() -> None:
    store = MemoryStore()
    features = replace(FEATURES, compare_and_set=False)
    async with MemoryDriver(store, features).open(SPEC, no_credential, CountingGuard()) as backend:
        memory = MemoryScene(backend, CountingGuard(), store)
        await memory.put("a", {"k": "old"})
        order = order_of(store)
        ready = await ready_for(memory, order)
        assert (ready.conditional, ready.before) == (False, None)
        await memory.put("a", {"k": "theirs"})
        landed = await backend.write(order, ready, None)
        assert isinstance(landed, Landed)
        assert landed.order == 3


async def test_store_with_double_numbers_gives_others_back() -> None:
    store = MemoryStore()
    features = replace(FEATURES, json_doubles=True)
    async with MemoryDriver(store, features).open(SPEC, no_credential, CountingGuard()) as backend:
        payload = Payload.from_json_text('{"n": 12345678901234567890}')
        order = replace(order_of(store, PushKind.CREATE), payload=payload)
        ready = await backend.check(order)
        assert isinstance(ready, Ready)
        await backend.write(order, ready, None)
        (read,) = await backend.read([RemotePath("app/a")])
        assert isinstance(read, RemoteValue)
        assert read.payload.reveal() == b'{"n":12345678901234567000}'


async def test_value_beyond_the_stores_own_limit_is_refused(memory: MemoryScene) -> None:
    memory.store.max_value = 5
    assert await memory.backend.check(order_of(memory.store, PushKind.CREATE)) == Refused(
        "value_too_large"
    )


@pytest.mark.parametrize(
    ("error", "reason", "told"),
    [
        (DeniedError("no", operation="write"), "denied", {"old": "1"}),
        (ThrottledError("slow", operation="write", sent=False), "push_refused", {"old": "1"}),
        (BackendUnreachableError("lost", operation="write"), "write_outcome_unknown", None),
    ],
)
async def test_tags_that_could_not_be_set_undo_no_value(
    memory: MemoryScene, error: BackendError, reason: str, told: Tags | None
) -> None:
    await memory.put("a", {"k": "old"})
    await memory.tag("a", {"old": "1"})
    order = order_of(memory.store)
    ready = await ready_for(memory, order)

    async def fail_next(operation: Operation, path: str) -> None:
        memory.store.after = None
        memory.store.fail("write", error)

    memory.store.after = fail_next
    landed = await memory.backend.write(order, ready, {"new": "1"})
    assert isinstance(landed, Landed)
    assert (landed.order, landed.tags, landed.tags_refused) == (2, told, reason)
