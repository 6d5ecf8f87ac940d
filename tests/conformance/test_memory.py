"""The backend in memory passes the suite, and does what tests ask of it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

import pytest

from svsync.domain.changes import RemoteGone, RemoteValue
from svsync.domain.errors import BackendUnreachableError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import BackendId, RemotePath
from svsync.domain.values import Credential
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
