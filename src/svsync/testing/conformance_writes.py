"""The tests that every backend that writes passes, beside those of `conformance`.

    class TestMineWrites(WriteConformance):
        @pytest.fixture
        async def scene(self) -> AsyncIterator[Scene]: ...

The scene is that of `conformance`, opened with whatever allows writes. What is asked
follows from `Features`: a store without conditions is not asked to refuse what only
a condition can see.
"""

import re
import uuid
from itertools import product

import pytest

from svsync.domain.changes import Entry, RemoteGone, RemoteRead, RemoteValue, Tags
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendError, BackendUnreachableError
from svsync.domain.ids import PushId, RemotePath
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Ready, Refused, RemoteWrite
from svsync.domain.values import Encoding, Payload, fingerprint
from svsync.testing.conformance import MARKER, UNSAFE, Ability, Scene, list_all

_KEY = bytes(32)
_OLD = {"k": "old"}
_NEW = Payload.from_fields({"k": "new"})
_KINDS = (PushKind.PUT, PushKind.CREATE, PushKind.DELETE, PushKind.METADATA)


class WriteConformance:
    """Subclass it with a fixture `scene`; see the module."""

    # --- what lands ---------------------------------------------------------------

    async def test_created_name_is_there(self, scene: Scene) -> None:
        landed = await _land(scene, await _order(scene, "a", PushKind.CREATE, _NEW))
        await _reads(scene, "a", _NEW)
        await _tells_the_tokens_of(scene, "a", landed)

    async def test_put_replaces_the_value(self, scene: Scene) -> None:
        await scene.put("a", _OLD)
        order = await _order(scene, "a", PushKind.PUT, _NEW)
        landed = await _land(scene, order)
        await _reads(scene, "a", _NEW)
        await _tells_the_tokens_of(scene, "a", landed)
        if scene.backend.features.ordered_tokens and order.expected_order is not None:
            assert landed.order is not None
            assert landed.order > order.expected_order

    async def test_put_keeps_the_value_before_it_where_there_is_history(self, scene: Scene) -> None:
        if not scene.backend.features.history:
            pytest.skip("this store keeps no history")
        await scene.put("a", _OLD)
        if (await _entry_or_read(scene, "a")).order is None:
            pytest.skip("this store keeps no history here")
        landed = await _land(scene, await _order(scene, "a", PushKind.PUT, _NEW))
        assert landed.order is not None
        kept = await scene.backend.read_history(
            _path(scene, "a"), above=0, below=landed.order, limit=9
        )
        assert [_same(version.payload, Payload.from_fields(_OLD)) for version in kept] == [True]

    async def test_delete_is_recoverable(self, scene: Scene) -> None:
        _need(scene, "soft_delete")
        await scene.put("a", _OLD)
        landed = await _land(scene, await _order(scene, "a", PushKind.DELETE))
        assert isinstance(await _read(scene, "a"), RemoteGone)
        await _tells_the_tokens_of(scene, "a", landed)
        await scene.undelete("a")
        await _reads(scene, "a", Payload.from_fields(_OLD))

    async def test_delete_that_could_not_be_undone_is_refused(self, scene: Scene) -> None:
        if "soft_delete" in scene.can:
            pytest.skip("this store can undo a delete")
        await scene.put("a", _OLD)
        ready = await scene.backend.check(await _order(scene, "a", PushKind.DELETE))
        assert ready == Refused("delete_not_recoverable")
        await _reads(scene, "a", Payload.from_fields(_OLD))

    async def test_name_that_was_deleted_is_created_upon_its_history(self, scene: Scene) -> None:
        _need(scene, "soft_delete")
        await scene.put("a", _OLD)
        await scene.delete("a")
        order = await _order(scene, "a", PushKind.CREATE, _NEW)
        assert order.expected_token is not None
        landed = await _land(scene, order)
        await _reads(scene, "a", _NEW)
        await _tells_the_tokens_of(scene, "a", landed)

    async def test_name_whose_value_was_destroyed_is_created_again(self, scene: Scene) -> None:
        _need(scene, "destroy")
        await scene.put("a", _OLD)
        await scene.destroy("a")
        await _land(scene, await _order(scene, "a", PushKind.CREATE, _NEW))
        await _reads(scene, "a", _NEW)

    async def test_odd_names_are_written_as_they_are(self, scene: Scene) -> None:
        odd = ("we ird", "ü-ß", "100%25", "a?b#c", "key=v;w,x", "\U0001f511", "x.y", "a+b=c@d_e-f")
        for name in odd:
            if not re.fullmatch(scene.backend.features.segment, name):
                continue
            await _land(scene, await _order(scene, name, PushKind.CREATE, _NEW))
            await _reads(scene, name, _NEW)
        if scene.backend.features.separator == "/":
            await _land(scene, await _order(scene, "f/g/h", PushKind.CREATE, _NEW))
            await _reads(scene, "f/g/h", _NEW)

    @pytest.mark.parametrize(
        "text",
        [
            '{"k":"<&>\u2028\u00e9\U0001f511 \\" \\\\ \\/ \\u0000 \\ud83d\\udd11"}',
            '{ "b" : [ 1, {"c": null} , true ], "a" : {} }',
            '{"n": 1.10, "e": 1E5, "z": -0, "m": 123456789012345, "f": 0.1, "s": -2.5e-7}',
        ],
    )
    async def test_value_comes_back_as_the_same_value(self, scene: Scene, text: str) -> None:
        payload = Payload.from_json_text(text)
        await _land(scene, await _order(scene, "a", PushKind.CREATE, payload))
        await _reads(scene, "a", payload)

    @pytest.mark.parametrize(
        "payload",
        [
            Payload.from_text('a "text" of <one> line\n'),
            Payload.from_text('{"a":1,"a":2}'),
            Payload.from_text(""),
            Payload.from_bytes(b"\x00\xff\xfe"),
        ],
        ids=["text", "no-object", "empty", "binary"],
    )
    async def test_value_that_is_no_object_comes_back_as_the_data_it_is_served_as(
        self, scene: Scene, payload: Payload
    ) -> None:
        await _land(scene, await _order(scene, "a", PushKind.CREATE, payload))
        await _reads(scene, "a", payload)

    # --- what is refused ----------------------------------------------------------

    async def test_check_writes_nothing(self, scene: Scene) -> None:
        await scene.put("a", _OLD)
        orders = [await _order(scene, "a", kind, _NEW) for kind in _KINDS]
        before = await list_all(scene.backend, [scene.prefix])
        scene.guard.calls.clear()
        for order in orders:
            await scene.backend.check(order)
        assert not {"write", "delete"} & set(scene.guard.calls)
        assert (await list_all(scene.backend, [scene.prefix])).entries == before.entries
        await _reads(scene, "a", Payload.from_fields(_OLD))

    @pytest.mark.parametrize("kind", [PushKind.PUT, PushKind.DELETE])
    async def test_state_that_changed_before_the_check_is_refused(
        self, scene: Scene, kind: PushKind
    ) -> None:
        _need(scene, "tokens" if kind is PushKind.PUT else "soft_delete")
        await scene.put("a", _OLD)
        order = await _order(scene, "a", kind, _NEW)
        await scene.put("a", {"k": "theirs"})
        assert await scene.backend.check(order) == Refused(REMOTE_CHANGED)
        await _reads(scene, "a", Payload.from_fields({"k": "theirs"}))

    async def test_value_that_was_deleted_before_the_check_is_not_overwritten(
        self, scene: Scene
    ) -> None:
        await scene.put("a", _OLD)
        order = await _order(scene, "a", PushKind.PUT, _NEW)
        await (scene.delete("a") if "soft_delete" in scene.can else scene.remove("a"))
        assert await scene.backend.check(order) == Refused(REMOTE_CHANGED)
        assert isinstance(await _read(scene, "a"), RemoteGone)

    async def test_deleted_value_that_was_brought_back_is_not_overwritten(
        self, scene: Scene
    ) -> None:
        _need(scene, "soft_delete")
        await scene.put("a", _OLD)
        await scene.delete("a")
        order = await _order(scene, "a", PushKind.CREATE, _NEW)
        await scene.undelete("a")
        assert await scene.backend.check(order) == Refused(REMOTE_CHANGED)
        await _reads(scene, "a", Payload.from_fields(_OLD))

    async def test_value_brought_back_after_the_check_is_overwritten_at_most_recoverably(
        self, scene: Scene
    ) -> None:
        _need(scene, "soft_delete")
        await scene.put("a", _OLD)
        await scene.delete("a")
        order = await _order(scene, "a", PushKind.CREATE, _NEW)
        ready = await _ready(scene, order)
        await scene.undelete("a")
        ended = await scene.backend.write(order, ready, None)
        if isinstance(ended, Refused):
            await _reads(scene, "a", Payload.from_fields(_OLD))
            return
        assert scene.backend.features.history
        assert ended.order is not None
        [kept] = await scene.backend.read_history(
            _path(scene, "a"), above=0, below=ended.order, limit=9
        )
        assert _same(kept.payload, Payload.from_fields(_OLD))

    async def test_value_that_was_destroyed_before_the_check_is_not_overwritten(
        self, scene: Scene
    ) -> None:
        _need(scene, "destroy")
        await scene.put("a", _OLD)
        order = await _order(scene, "a", PushKind.PUT, _NEW)
        await scene.destroy("a")
        assert await scene.backend.check(order) == Refused(REMOTE_CHANGED)

    async def test_name_made_anew_with_the_same_number_is_not_overwritten(
        self, scene: Scene
    ) -> None:
        _need(scene, "tokens")
        await scene.put("a", _OLD)
        order = await _order(scene, "a", PushKind.PUT, _NEW)
        await scene.remove("a")
        await scene.put("a", {"k": "theirs"})
        if order.expected_order == 1:  # versions are counted, and anew
            assert (await _entry_or_read(scene, "a")).order == 1
        assert await scene.backend.check(order) == Refused(REMOTE_CHANGED)

    async def test_name_that_somebody_made_is_not_created(self, scene: Scene) -> None:
        order = await _order(scene, "a", PushKind.CREATE, _NEW)
        await scene.put("a", {"k": "theirs"})
        assert await scene.backend.check(order) == Refused(REMOTE_CHANGED)
        await _reads(scene, "a", Payload.from_fields({"k": "theirs"}))

    @pytest.mark.parametrize("kind", [PushKind.PUT, PushKind.CREATE])
    async def test_whoever_wrote_between_check_and_write_is_not_overwritten(
        self, scene: Scene, kind: PushKind
    ) -> None:
        if kind is PushKind.PUT:
            await scene.put("a", _OLD)
        order = await _order(scene, "a", kind, _NEW)
        ready = await _ready(scene, order)
        if not ready.conditional:
            pytest.skip("this store takes no condition")
        await scene.put("a", {"k": "theirs"})
        assert await scene.backend.write(order, ready, None) == Refused(REMOTE_CHANGED)
        await _reads(scene, "a", Payload.from_fields({"k": "theirs"}))

    async def test_whoever_wrote_between_check_and_delete_keeps_their_value(
        self, scene: Scene
    ) -> None:
        _need(scene, "soft_delete")
        await scene.put("a", _OLD)
        order = await _order(scene, "a", PushKind.DELETE)
        ready = await _ready(scene, order)
        await scene.put("a", {"k": "theirs"})
        ended = await scene.backend.write(order, ready, None)
        assert isinstance(ended, Refused)
        assert (ended.reason, ended.detail) == (REMOTE_CHANGED, "")
        await _reads(scene, "a", Payload.from_fields({"k": "theirs"}))
        if not scene.backend.features.history:
            return
        theirs = (await _entry_or_read(scene, "a")).order
        assert theirs is not None
        kept = await scene.backend.read_history(_path(scene, "a"), above=0, below=theirs, limit=9)
        assert [_same(version.payload, Payload.from_fields(_OLD)) for version in kept] == [True]

    async def test_delete_is_found_once_it_was_written_over(self, scene: Scene) -> None:
        _need(scene, "soft_delete")
        await scene.put("a", _OLD)
        order = await _order(scene, "a", PushKind.DELETE)
        await scene.delete("a")
        await scene.put("a", {"k": "theirs"})
        found = await scene.backend.find_delete(order)
        assert found is None or (isinstance(found, Landed) and found.order == order.expected_order)

    async def test_delete_that_was_not_made_is_told_from_one_that_was_written_over(
        self, scene: Scene
    ) -> None:
        _need(scene, "soft_delete")
        await scene.put("a", _OLD)
        order = await _order(scene, "a", PushKind.DELETE)
        await scene.put("a", {"k": "theirs"})
        assert await scene.backend.find_delete(order) in (None, Refused(REMOTE_CHANGED))

    async def test_value_that_would_be_lost_is_given_before_it_is_overwritten(
        self, scene: Scene
    ) -> None:
        await scene.put("a", _OLD)
        ready = await _ready(scene, await _order(scene, "a", PushKind.PUT, _NEW))
        kept = ready.conditional or "soft_delete" in scene.can
        assert (ready.before is None) == kept
        if ready.before is not None:
            assert _same(ready.before.payload, Payload.from_fields(_OLD))

    async def test_value_beyond_the_limit_is_refused(self, scene: Scene) -> None:
        large = Payload.from_fields({"k": "v" * scene.max_value})
        order = await _order(scene, "a", PushKind.CREATE, large)
        assert await scene.backend.check(order) == Refused("value_too_large")

    async def test_value_within_the_limit_can_be_read_again(self, scene: Scene) -> None:
        payload = Payload.from_fields({"k": "<" * ((scene.max_value - 10) // 6)})
        await _land(scene, await _order(scene, "a", PushKind.CREATE, payload))
        await _reads(scene, "a", payload)

    async def test_path_that_is_unsafe_in_a_url_is_never_written(self, scene: Scene) -> None:
        told = ("illegal_path", "name_not_allowed", "delete_not_recoverable")
        made = len(scene.guard.calls)
        for name, kind in product(UNSAFE, _KINDS):
            order = RemoteWrite(PushId("push_1"), _path(scene, name), kind, None, None, _NEW)
            refused = await scene.backend.check(order)
            assert isinstance(refused, Refused), name
            assert refused.reason in told, name
        assert len(scene.guard.calls) == made

    async def test_write_that_is_denied_is_refused(self, scene: Scene) -> None:
        _need(scene, "deny_writes")
        await scene.put("b/y", _OLD)
        await scene.deny_writes("b/")
        kinds = [PushKind.PUT]
        kinds += [PushKind.DELETE] if "soft_delete" in scene.can else []
        kinds += [PushKind.METADATA] if "tags" in scene.can else []
        for kind in kinds:
            order = await _order(scene, "b/y", kind, _NEW)
            ready = await _ready(scene, order)
            ended = await scene.backend.write(order, ready, {"owner": "me"})
            assert isinstance(ended, Refused)
            assert ended.reason == "denied"
        await _reads(scene, "b/y", Payload.from_fields(_OLD))

    # --- tags ---------------------------------------------------------------------

    async def test_tags_are_set_beside_the_value(self, scene: Scene) -> None:
        _need(scene, "tags")
        order = await _order(scene, "a", PushKind.CREATE, _NEW)
        landed = await _land(scene, order, {"owner": "me", "env": "dev"})
        assert landed.tags == {"owner": "me", "env": "dev"}
        await _tells_the_tokens_of(scene, "a", landed)
        order = await _order(scene, "a", PushKind.PUT, Payload.from_fields(_OLD))
        landed = await _land(scene, order, {"owner": "you", "more": "1"})
        assert _value(await _read(scene, "a")).tags == {"owner": "you", "more": "1"}
        await _tells_the_tokens_of(scene, "a", landed)

    async def test_tags_that_are_not_told_stay(self, scene: Scene) -> None:
        _need(scene, "tags")
        await scene.put("a", _OLD)
        await scene.tag("a", {"owner": "me"})
        landed = await _land(scene, await _order(scene, "a", PushKind.PUT, _NEW))
        assert (landed.tags, landed.meta_token) == (None, None)
        assert _value(await _read(scene, "a")).tags == {"owner": "me"}

    async def test_tags_alone_leave_the_value(self, scene: Scene) -> None:
        _need(scene, "tags")
        await scene.put("a", _OLD)
        await scene.tag("a", {"owner": "me"})
        before = await _entry_or_read(scene, "a")
        order = await _order(scene, "a", PushKind.METADATA)
        assert (await _ready(scene, order)).tags == {"owner": "me"}
        landed = await _land(scene, order, {"env": "dev"})
        after = _value(await _read(scene, "a"))
        assert landed.tags == after.tags == {"env": "dev"}
        assert landed.meta_token == after.meta_token
        if scene.backend.features.tags_apart:
            assert after.value_token == before.value_token

    async def test_tags_alone_need_no_expected_value(self, scene: Scene) -> None:
        _need(scene, "tags")
        await scene.put("a", _OLD)
        order = await _order(scene, "a", PushKind.METADATA)
        await scene.put("a", {"k": "theirs"})
        await _land(scene, order, {"env": "dev"})
        assert _value(await _read(scene, "a")).tags == {"env": "dev"}

    async def test_tags_of_a_name_that_is_not_there_are_refused(self, scene: Scene) -> None:
        order = await _order(scene, "never", PushKind.METADATA)
        refused = await scene.backend.check(order)
        assert isinstance(refused, Refused)
        assert refused.reason == (REMOTE_CHANGED if "tags" in scene.can else "bad_metadata")

    async def test_tags_that_are_there_already_take_no_call(self, scene: Scene) -> None:
        _need(scene, "tags")
        await scene.put("a", _OLD)
        await scene.tag("a", {"owner": "me"})
        order = await _order(scene, "a", PushKind.PUT, _NEW)
        ready = await _ready(scene, order)
        scene.guard.calls.clear()
        assert isinstance(await scene.backend.write(order, ready, None), Landed)
        value_alone = list(scene.guard.calls)
        order = await _order(scene, "a", PushKind.PUT, Payload.from_fields(_OLD))
        ready = await _ready(scene, order)
        scene.guard.calls.clear()
        landed = await scene.backend.write(order, ready, {"owner": "me"})
        assert scene.guard.calls == value_alone
        assert isinstance(landed, Landed)
        assert landed.tags == {"owner": "me"}

    async def test_store_without_tags_says_that_it_has_none(self, scene: Scene) -> None:
        order = await _order(scene, "a", PushKind.CREATE, _NEW)
        ready = await _ready(scene, order)
        assert ready.tags == ({} if "tags" in scene.can else None)

    # --- as a whole ---------------------------------------------------------------

    async def test_each_write_passes_the_guard_in_its_class(self, scene: Scene) -> None:
        await scene.put("a", _OLD)
        order = await _order(scene, "a", PushKind.PUT, _NEW)
        ready = await _ready(scene, order)
        scene.guard.calls.clear()
        await scene.backend.write(order, ready, None)
        assert set(scene.guard.calls) == {"write"}
        if "soft_delete" in scene.can:
            order = await _order(scene, "a", PushKind.DELETE)
            ready = await _ready(scene, order)
            scene.guard.calls.clear()
            await scene.backend.write(order, ready, None)
            assert scene.guard.calls[0] == "delete"

    async def test_an_outage_during_a_write_is_raised(self, scene: Scene) -> None:
        _need(scene, "outage")
        await scene.put("a", _OLD)
        order = await _order(scene, "a", PushKind.PUT, _NEW)
        ready = await _ready(scene, order)
        await scene.break_down()
        with pytest.raises(BackendUnreachableError) as raised:
            await scene.backend.write(order, ready, None)
        assert raised.value.sent
        with pytest.raises(BackendUnreachableError):
            await scene.backend.check(order)

    async def test_no_record_of_a_write_shows_a_value(self, scene: Scene) -> None:
        await scene.put("a", {"k": MARKER})
        order = await _order(scene, "a", PushKind.PUT, Payload.from_fields({"k": MARKER + "2"}))
        ready = await _ready(scene, order)
        ended = await scene.backend.write(order, ready, None)
        assert MARKER not in repr([order, ready, ended])

    async def test_closed_backend_sends_no_write(self, scene: Scene) -> None:
        await scene.put("a", _OLD)
        order = await _order(scene, "a", PushKind.PUT, _NEW)
        ready = await _ready(scene, order)
        await scene.backend.aclose()
        with pytest.raises(BackendError) as raised:
            await scene.backend.write(order, ready, None)
        assert not raised.value.sent


# --- small words --------------------------------------------------------------------


def _need(scene: Scene, ability: Ability) -> None:
    if ability not in scene.can:
        pytest.skip(f"this store cannot {ability}")


def _path(scene: Scene, name: str) -> RemotePath:
    return RemotePath(scene.prefix + name)


async def _order(
    scene: Scene, name: str, kind: PushKind, payload: Payload | None = None
) -> RemoteWrite:
    """A write upon the state that stands now."""
    state = await _entry_or_read(scene, name)
    value = payload if kind in (PushKind.PUT, PushKind.CREATE) else None
    return RemoteWrite(
        PushId(f"psh_{uuid.uuid4().hex}"),
        _path(scene, name),
        kind,
        state.value_token,
        state.order,
        value,
    )


async def _ready(scene: Scene, order: RemoteWrite) -> Ready:
    ready = await scene.backend.check(order)
    assert isinstance(ready, Ready), ready
    return ready


async def _land(scene: Scene, order: RemoteWrite, tags: Tags | None = None) -> Landed:
    landed = await scene.backend.write(order, await _ready(scene, order), tags)
    assert isinstance(landed, Landed), landed
    assert landed.tags_refused == ""
    return landed


async def _read(scene: Scene, name: str) -> RemoteRead:
    (read,) = await scene.backend.read([_path(scene, name)])
    return read


async def _entry_or_read(scene: Scene, name: str) -> Entry | RemoteValue | RemoteGone:
    found = await scene.backend.look_up(_path(scene, name))
    assert isinstance(found, Entry | RemoteValue | RemoteGone), found
    return found


def _value(read: RemoteRead) -> RemoteValue:
    assert isinstance(read, RemoteValue), read
    return read


async def _reads(scene: Scene, name: str, payload: Payload) -> None:
    assert _same(_value(await _read(scene, name)).payload, payload)


def _same(one: Payload, other: Payload) -> bool:
    """Are they one value, each as the data that it is served as?"""
    left, right = (
        fingerprint(_KEY, Payload(Encoding.JSON, payload.data_text())) for payload in (one, other)
    )
    return left == right


async def _tells_the_tokens_of(scene: Scene, name: str, landed: Landed) -> None:
    """A landed write tells what a later listing and read will tell, where it tells."""
    read = await _read(scene, name)
    assert isinstance(read, RemoteValue | RemoteGone)
    told: list[Entry | RemoteValue | RemoteGone] = [read]
    if "tokens" in scene.can:
        told.append((await list_all(scene.backend, [scene.prefix])).entries[scene.prefix + name])
    for state in told:
        assert landed.value_token in (None, state.value_token)
        assert landed.order in (None, state.order)
        assert landed.meta_token in (None, state.meta_token)
