"""The tests that every backend passes: each sentence of `ports.Backend`, asked.

A backend's test file is a factory and a line:

    class TestMine(BackendConformance):
        @pytest.fixture
        async def scene(self) -> AsyncIterator[Scene]: ...

A `Scene` is an empty corner of a real store, a backend opened onto it, and the
hands of a person who changes that corner behind the backend's back. What is
written is asked by `conformance_writes`. What a
store cannot do is left out of `Scene.can`, and its tests are skipped; nothing
is skipped by a backend's name. Needs pytest with pytest-asyncio in auto mode.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import pytest

from svsync.domain.changes import (
    Entry,
    ListingPage,
    RemoteGone,
    RemoteRead,
    RemoteUnknown,
    RemoteValue,
    Scope,
    ScopeOutcome,
)
from svsync.domain.errors import BackendError, BackendUnreachableError
from svsync.domain.ids import RemotePath
from svsync.domain.values import Payload, fingerprint
from svsync.ports import Backend, Operation

T = TypeVar("T")

Ability = Literal[
    "tokens",  # listings tell tokens
    "tags",
    "soft_delete",  # delete and undelete of the current version
    "deletes_whole",  # the same, and it concerns every version
    "destroy",
    "hide",  # a name that listings lack and reads deny
    "deny",  # a folder that may be neither listed nor read
    "deny_writes",  # a folder that may be read and not written
    "outage",
]

MARKER = "conformance-canary-value"
UNSAFE = ("../x", "a/../../x", "a//b", ".", "a\\b", "a\x00b", "%2e%2e/x", "a%2Fb", "e\u0301")
_KEY = bytes(32)


class CountingGuard:
    """A guard without limits that notes every call; while `hold` is an event,
    calls wait for it."""

    def __init__(self) -> None:
        self.calls: list[Operation] = []
        self.hold: asyncio.Event | None = None

    async def call(self, operation: Operation, attempt: Callable[[], Awaitable[T]]) -> T:
        self.calls.append(operation)
        if self.hold is not None:
            await self.hold.wait()
        return await attempt()


class Scene(Protocol):
    """An empty corner of a store. Names are below `prefix`, and may hold `/`
    where the backend has folders."""

    @property
    def backend(self) -> Backend: ...

    @property
    def guard(self) -> CountingGuard:
        """The guard that the backend was opened with."""
        ...

    @property
    def prefix(self) -> str:
        """In remote path form; ends with the separator, or is empty."""
        ...

    @property
    def max_value(self) -> int:
        """The backend's `max_value_bytes`; small, so that tests are quick."""
        ...

    @property
    def can(self) -> frozenset[Ability]: ...

    async def put(self, name: str, fields: Mapping[str, str]) -> None:
        """Write a new version with this value, also where it is equal."""
        ...

    async def remove(self, name: str) -> None:
        """The name is gone, and a read says so."""
        ...

    async def tag(self, name: str, tags: Mapping[str, str]) -> None: ...

    async def delete(self, name: str) -> None: ...

    async def undelete(self, name: str) -> None: ...

    async def destroy(self, name: str) -> None: ...

    async def hide(self, name: str) -> None: ...

    async def deny(self, folder: str) -> None: ...

    async def deny_writes(self, folder: str) -> None: ...

    async def break_down(self) -> None:
        """The store takes no more calls."""
        ...


@dataclass(frozen=True)
class Listed:
    """A whole listing."""

    entries: dict[str, Entry]
    names: Sequence[str]
    scopes: Sequence[Scope]
    rejected: Sequence[tuple[str, str]]


async def list_all(backend: Backend, prefixes: Sequence[str], *, tokens: bool = True) -> Listed:
    """Every page of a listing, put together."""
    pages: list[ListingPage] = [
        page async for page in backend.list_entries(prefixes, tokens=tokens)
    ]
    entries = [entry for page in pages for entry in page.entries]
    return Listed(
        {entry.remote_path: entry for entry in entries},
        [entry.remote_path for entry in entries],
        [scope for page in pages for scope in page.scopes],
        [name for page in pages for name in page.rejected],
    )


class BackendConformance:
    """Subclass it with a fixture `scene`; see the module."""

    # --- connect ------------------------------------------------------------------

    async def test_connect_names_the_same_store_each_time(self, scene: Scene) -> None:
        first = await scene.backend.connect([scene.prefix])
        second = await scene.backend.connect([scene.prefix])
        assert first.identity
        assert first.identity == second.identity
        assert first.status == "healthy"

    async def test_connect_says_what_it_checked_and_hints_at_what_is_missing(
        self, scene: Scene
    ) -> None:
        checks = (await scene.backend.connect([scene.prefix])).checks
        assert checks
        assert not [check for check in checks if check.state == "missing"]
        assert all(bool(check.hint) == (check.state != "granted") for check in checks)

    async def test_connect_without_probes_tries_no_permission(self, scene: Scene) -> None:
        connection = await scene.backend.connect([scene.prefix], probe=False)
        assert connection.identity
        assert connection.checks == ()

    # --- list_entries -------------------------------------------------------------

    async def test_a_listing_gives_every_name_once(self, scene: Scene) -> None:
        names = _names(scene, "a", "b", "b/c", "d/e/f", "d/e/g", "we ird")
        for name in names:
            await scene.put(name, {"k": "v"})
        listed = await list_all(scene.backend, [scene.prefix])
        assert sorted(listed.names) == sorted(scene.prefix + name for name in names)
        assert listed.rejected == []

    async def test_a_listing_keeps_to_its_prefixes(self, scene: Scene) -> None:
        _need_folders(scene)
        for name in ("in/a", "in/deep/b", "also/c", "out/d", "inn"):
            await scene.put(name, {"k": "v"})
        listed = await list_all(scene.backend, [scene.prefix + "in/", scene.prefix + "also/"])
        assert set(listed.names) == {
            scene.prefix + name for name in ("in/a", "in/deep/b", "also/c")
        }

    async def test_each_folder_ends_in_one_scope(self, scene: Scene) -> None:
        await scene.put("a", {"k": "v"})
        folders = {scene.prefix}
        if scene.backend.features.folders:
            await scene.put("b/c/d", {"k": "v"})
            folders |= {scene.prefix + "b/", scene.prefix + "b/c/"}
        scopes = (await list_all(scene.backend, [scene.prefix])).scopes
        assert sorted(scope.prefix for scope in scopes) == sorted(folders)
        assert {scope.outcome for scope in scopes} == {ScopeOutcome.COMPLETE}

    async def test_an_empty_prefix_of_a_store_that_is_there_is_complete(self, scene: Scene) -> None:
        listed = await list_all(scene.backend, [scene.prefix])
        assert listed.names == []
        assert [scope.outcome for scope in listed.scopes] == [ScopeOutcome.COMPLETE]

    async def test_a_denied_folder_is_denied_and_its_neighbours_are_listed(
        self, scene: Scene
    ) -> None:
        _need(scene, "deny")
        for name in ("a/x", "b/y", "b/c/z"):
            await scene.put(name, {"k": "v"})
        await scene.deny("b/")
        listed = await list_all(scene.backend, [scene.prefix])
        assert set(listed.names) == {scene.prefix + "a/x"}
        outcomes = {scope.prefix: scope.outcome for scope in listed.scopes}
        assert outcomes[scene.prefix + "b/"] is ScopeOutcome.DENIED
        assert outcomes[scene.prefix + "a/"] is ScopeOutcome.COMPLETE

    async def test_a_listing_without_tokens_gives_the_same_names(self, scene: Scene) -> None:
        for name in _names(scene, "a", "b/c"):
            await scene.put(name, {"k": "v"})
        with_tokens = await list_all(scene.backend, [scene.prefix])
        without = await list_all(scene.backend, [scene.prefix], tokens=False)
        assert set(without.names) == set(with_tokens.names)

    async def test_a_listing_may_be_left_early(self, scene: Scene) -> None:
        for number in range(5):
            await scene.put(f"n{number}", {"k": "v"})
        pages = scene.backend.list_entries([scene.prefix], tokens=True)
        await anext(pages)
        await pages.aclose()
        assert len((await list_all(scene.backend, [scene.prefix])).names) == 5

    # --- list_folder --------------------------------------------------------------

    async def test_one_folder_is_listed_alone(self, scene: Scene) -> None:
        _need_folders(scene)
        for name in ("in/a", "in/b", "in/b/c", "in/d/e/f", "out/g"):
            await scene.put(name, {"k": "v"})
        found = await scene.backend.list_folder(scene.prefix + "in/")
        names = sorted(entry.remote_path for entry in found.entries)
        assert names == [scene.prefix + "in/a", scene.prefix + "in/b"]
        assert sorted(found.folders) == [scene.prefix + "in/b/", scene.prefix + "in/d/"]
        assert found.scope.outcome is ScopeOutcome.COMPLETE

    async def test_a_folder_that_is_not_there_is_empty(self, scene: Scene) -> None:
        _need_folders(scene)
        found = await scene.backend.list_folder(scene.prefix + "none/")
        assert (found.entries, found.folders) == ((), ())

    async def test_a_folder_that_is_denied_says_so(self, scene: Scene) -> None:
        _need(scene, "deny")
        await scene.put("b/y", {"k": "v"})
        await scene.deny("b/")
        found = await scene.backend.list_folder(scene.prefix + "b/")
        assert found.scope.outcome is ScopeOutcome.DENIED
        assert found.entries == ()

    # --- look_up and read ---------------------------------------------------------

    async def test_a_read_gives_the_value(self, scene: Scene) -> None:
        fields = {"user": "u", "pass": 'ü"\\\n<&>', "empty": ""}
        await scene.put("a", fields)
        (read,) = await scene.backend.read([_path(scene, "a")])
        assert isinstance(read, RemoteValue)
        assert fingerprint(_KEY, read.payload) == fingerprint(_KEY, Payload.from_fields(fields))

    async def test_answers_come_in_the_order_of_the_paths(self, scene: Scene) -> None:
        await scene.put("a", {"k": "a"})
        await scene.put("b", {"k": "b"})
        paths = [_path(scene, name) for name in ("b", "missing", "a")]
        reads: list[RemoteRead] = []
        batch = scene.backend.features.batch_read
        for start in range(0, len(paths), batch):
            reads.extend(await scene.backend.read(paths[start : start + batch]))
        kinds = [type(read) for read in reads]
        assert kinds == [RemoteValue, RemoteGone, RemoteValue]
        assert b'"b"' in _value(reads[0]).payload.reveal()
        assert b'"a"' in _value(reads[2]).payload.reveal()

    async def test_look_up_tells_what_a_listing_tells(self, scene: Scene) -> None:
        await scene.put("a", {"k": "v"})
        found = await scene.backend.look_up(_path(scene, "a"))
        if "tokens" in scene.can:
            listed = await list_all(scene.backend, [scene.prefix])
            assert found == listed.entries[scene.prefix + "a"]
        else:
            assert isinstance(found, Entry | RemoteValue)

    async def test_a_name_that_never_was_is_gone(self, scene: Scene) -> None:
        assert isinstance(await scene.backend.look_up(_path(scene, "never")), RemoteGone)
        assert isinstance(await _read(scene, "never"), RemoteGone)

    async def test_a_name_that_was_removed_is_gone(self, scene: Scene) -> None:
        await scene.put("a", {"k": "v"})
        await scene.remove("a")
        assert isinstance(await _read(scene, "a"), RemoteGone)
        found = await scene.backend.look_up(_path(scene, "a"))
        assert isinstance(found, RemoteGone) or (isinstance(found, Entry) and found.gone)

    async def test_tokens_of_a_read_are_those_of_the_listing(self, scene: Scene) -> None:
        _need(scene, "tokens")
        await scene.put("a", {"k": "v"})
        entry = await _entry(scene, "a")
        read = _value(await _read(scene, "a"))
        assert read.value_token == entry.value_token
        if read.meta_token is not None and entry.meta_token is not None:
            assert read.meta_token == entry.meta_token
        assert read.order == entry.order

    async def test_a_quiet_store_keeps_its_tokens(self, scene: Scene) -> None:
        await scene.put("a", {"k": "v"})
        first = await list_all(scene.backend, [scene.prefix])
        await _read(scene, "a")
        second = await list_all(scene.backend, [scene.prefix])
        assert first.entries == second.entries

    async def test_a_write_changes_the_value_token_and_raises_the_order(self, scene: Scene) -> None:
        _need(scene, "tokens")
        await scene.put("a", {"k": "v"})
        before = await _entry(scene, "a")
        await scene.put("a", {"k": "w"})
        after = await _entry(scene, "a")
        assert after.value_token != before.value_token
        if scene.backend.features.ordered_tokens:
            assert after.order is not None
            assert before.order is not None
            assert after.order > before.order

    async def test_a_change_of_tags_alone_leaves_the_value_token(self, scene: Scene) -> None:
        _need(scene, "tags")
        await scene.put("a", {"k": "v"})
        before = await _entry(scene, "a")
        await scene.tag("a", {"owner": "me"})
        after = await _entry(scene, "a")
        if scene.backend.features.tags_apart:
            assert after.value_token == before.value_token
        assert after.meta_token != before.meta_token
        assert _value(await _read(scene, "a")).tags == {"owner": "me"}

    async def test_soft_delete_and_undelete_show(self, scene: Scene) -> None:
        _need(scene, "soft_delete")
        await scene.put("a", {"k": "v"})
        before = await _entry(scene, "a")
        await scene.delete("a")
        read = await _read(scene, "a")
        assert isinstance(read, RemoteGone)
        if "tokens" in scene.can:
            deleted = await _entry(scene, "a")
            assert deleted.gone
            assert deleted.value_token not in (None, before.value_token)
            assert read.value_token == deleted.value_token
        await scene.undelete("a")
        after = await _entry(scene, "a")
        assert not after.gone
        assert isinstance(await _read(scene, "a"), RemoteValue)

    async def test_destroyed_is_gone(self, scene: Scene) -> None:
        _need(scene, "destroy")
        await scene.put("a", {"k": "v"})
        before = await _entry(scene, "a")
        await scene.destroy("a")
        read = await _read(scene, "a")
        assert isinstance(read, RemoteGone)
        if "tokens" in scene.can:
            destroyed = await _entry(scene, "a")
            assert destroyed.gone
            assert destroyed.value_token != before.value_token
            assert read.value_token == destroyed.value_token

    async def test_a_hidden_name_is_unknown_and_never_gone(self, scene: Scene) -> None:
        _need(scene, "hide")
        await scene.put("a", {"k": "v"})
        await scene.put("b", {"k": "v"})
        await scene.hide("b")
        listed = await list_all(scene.backend, [scene.prefix])
        assert set(listed.names) == {scene.prefix + "a"}
        assert isinstance(await scene.backend.look_up(_path(scene, "b")), RemoteUnknown)
        assert isinstance(await _read(scene, "b"), RemoteUnknown)

    async def test_a_denied_read_is_unknown(self, scene: Scene) -> None:
        _need(scene, "deny")
        await scene.put("b/y", {"k": "v"})
        await scene.deny("b/")
        read = await _read(scene, "b/y")
        assert isinstance(read, RemoteUnknown)
        assert read.reason == "denied"

    async def test_a_value_that_is_too_large_is_unknown(self, scene: Scene) -> None:
        await scene.put("a", {"k": "v" * (scene.max_value + 1)})
        read = await _read(scene, "a")
        assert isinstance(read, RemoteUnknown)
        assert read.reason == "value_too_large"

    async def test_a_path_that_is_unsafe_in_a_url_is_never_sent(self, scene: Scene) -> None:
        made = len(scene.guard.calls)
        for name in UNSAFE:
            for read in (
                await _read(scene, name),
                await scene.backend.look_up(_path(scene, name)),
            ):
                assert isinstance(read, RemoteUnknown), name
                assert read.reason in ("illegal_path", "name_not_allowed"), name
        assert len(scene.guard.calls) == made

    async def test_a_cancelled_read_has_no_effect(self, scene: Scene) -> None:
        await scene.put("a", {"k": "v"})
        scene.guard.hold = asyncio.Event()
        reading = asyncio.create_task(_read(scene, "a"))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        scene.guard.hold = None
        assert isinstance(await _read(scene, "a"), RemoteValue)

    # --- history ------------------------------------------------------------------

    async def test_history_gives_what_lies_between_oldest_first(self, scene: Scene) -> None:
        _need_history(scene)
        numbers = await _five_versions(scene, "a")
        found = await scene.backend.read_history(
            _path(scene, "a"), above=numbers[0], below=numbers[4], limit=10
        )
        assert [version.number for version in found] == numbers[1:4]
        assert [b"v%d" % n in v.payload.reveal() for n, v in zip((2, 3, 4), found, strict=True)]

    async def test_history_is_limited_to_the_newest(self, scene: Scene) -> None:
        _need_history(scene)
        numbers = await _five_versions(scene, "a")
        found = await scene.backend.read_history(
            _path(scene, "a"), above=0, below=numbers[4], limit=2
        )
        assert [version.number for version in found] == numbers[2:4]

    async def test_history_leaves_deleted_versions_out(self, scene: Scene) -> None:
        _need_history(scene)
        _need(scene, "soft_delete")
        if "deletes_whole" in scene.can:
            pytest.skip("this store deletes no version alone")
        await scene.put("a", {"k": "v1"})
        first = (await _entry_or_value(scene, "a")).order
        await scene.put("a", {"k": "v2"})
        await scene.delete("a")
        await scene.put("a", {"k": "v3"})
        third = (await _entry_or_value(scene, "a")).order
        assert third is not None
        found = await scene.backend.read_history(_path(scene, "a"), above=0, below=third, limit=10)
        assert [version.number for version in found] == [first]

    async def test_a_name_that_never_was_has_no_history(self, scene: Scene) -> None:
        found = await scene.backend.read_history(_path(scene, "never"), above=0, below=9, limit=9)
        assert list(found) == []

    # --- as a whole ---------------------------------------------------------------

    async def test_every_call_passes_the_guard(self, scene: Scene) -> None:
        await scene.put("a", {"k": "v"})
        scene.guard.calls.clear()
        await list_all(scene.backend, [scene.prefix])
        assert "list" in scene.guard.calls
        assert "read" not in scene.guard.calls
        await _read(scene, "a")
        assert scene.guard.calls.count("read") == 1

    async def test_an_outage_is_raised_and_not_taken_for_an_answer(self, scene: Scene) -> None:
        _need(scene, "outage")
        await scene.put("a", {"k": "v"})
        await scene.backend.connect([scene.prefix])
        await scene.break_down()
        with pytest.raises(BackendUnreachableError):
            await _read(scene, "a")
        with pytest.raises(BackendUnreachableError):
            await scene.backend.look_up(_path(scene, "a"))
        with pytest.raises(BackendUnreachableError):
            await list_all(scene.backend, [scene.prefix])

    async def test_no_record_shows_a_value(self, scene: Scene) -> None:
        await scene.put("a", {"k": MARKER})
        await scene.put("a", {"k": MARKER + "2"})
        path = _path(scene, "a")
        seen = [
            await _read(scene, "a"),
            await scene.backend.look_up(path),
            await list_all(scene.backend, [scene.prefix]),
            await scene.backend.read_history(path, above=0, below=2**62, limit=9),
        ]
        assert MARKER not in repr(seen)

    async def test_a_closed_backend_makes_no_calls(self, scene: Scene) -> None:
        await scene.put("a", {"k": "v"})
        await _read(scene, "a")
        await scene.backend.aclose()
        await scene.backend.aclose()
        with pytest.raises(BackendError):
            await _read(scene, "a")


# --- small words --------------------------------------------------------------------


def _need(scene: Scene, ability: Ability) -> None:
    if ability not in scene.can:
        pytest.skip(f"this store cannot {ability}")


def _need_folders(scene: Scene) -> None:
    if not scene.backend.features.folders:
        pytest.skip("this store has no folders")


def _need_history(scene: Scene) -> None:
    if not scene.backend.features.history or "soft_delete" not in scene.can:
        pytest.skip("this store keeps no history")


async def _five_versions(scene: Scene, name: str) -> list[int]:
    """Their numbers, as each was told while it was the current one."""
    numbers = []
    for n in range(1, 6):
        await scene.put(name, {"k": f"v{n}"})
        order = (await _entry_or_value(scene, name)).order
        assert order is not None
        numbers.append(order)
    return numbers


async def _entry_or_value(scene: Scene, name: str) -> Entry | RemoteValue:
    state = await scene.backend.look_up(_path(scene, name))
    assert isinstance(state, Entry | RemoteValue), state
    return state


def _names(scene: Scene, *names: str) -> list[str]:
    """Those of the names that this store may hold."""
    features = scene.backend.features
    return [
        name
        for name in names
        if (features.separator == "/" or "/" not in name)
        and all(re.fullmatch(features.segment, segment) for segment in name.split("/"))
    ]


def _path(scene: Scene, name: str) -> RemotePath:
    return RemotePath(scene.prefix + name)


async def _read(scene: Scene, name: str) -> RemoteRead:
    (read,) = await scene.backend.read([_path(scene, name)])
    return read


async def _entry(scene: Scene, name: str) -> Entry:
    return (await list_all(scene.backend, [scene.prefix])).entries[scene.prefix + name]


def _value(read: RemoteRead) -> RemoteValue:
    assert isinstance(read, RemoteValue), read
    return read
