"""Writes to GCP Secret Manager: looked at before, and nobody's version lost."""

import json
import uuid
from typing import Any

import pytest
from grpc import StatusCode
from tests.gcp import PLACE, PREFIX, Gcp, Opened, open_gcp
from tests.gcp_fake import CANARY, Held

from svsync.domain.changes import Entry, RemoteGone, RemoteUnknown, RemoteValue
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendError, BackendUnreachableError, ThrottledError
from svsync.domain.ids import PushId
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Ready, Refused, RemoteWrite
from svsync.domain.values import Payload

NEW = Payload.from_fields({"k": "new"})
OLD, THEIRS = {"k": "old"}, {"k": "theirs"}
ADD = f"^AddSecretVersion {PREFIX}a"


async def order(
    google: Opened, kind: PushKind = PushKind.PUT, payload: Payload | None = NEW, name: str = "a"
) -> RemoteWrite:
    """A write upon the state that stands now."""
    state = await google.backend.look_up(google.path(name))
    assert isinstance(state, Entry | RemoteGone)
    value = payload if kind in (PushKind.PUT, PushKind.CREATE) else None
    push = PushId(f"psh_{uuid.uuid4().hex}")
    return RemoteWrite(push, google.path(name), kind, state.value_token, state.order, value)


async def ready(google: Opened, wanted: RemoteWrite) -> Ready:
    found = await google.backend.check(wanted)
    assert isinstance(found, Ready), found
    return found


async def write(google: Opened, wanted: RemoteWrite, tags: Any = None) -> Landed | Refused:
    return await google.backend.write(wanted, await ready(google, wanted), tags)


def held(gcp: Gcp, name: str = "a") -> Held:
    return gcp.fake.secret(PREFIX + name)


# --- the value --------------------------------------------------------------------


async def test_push_is_a_version_with_the_next_number(gcp: Gcp) -> None:
    gcp.put("a", OLD)
    async with open_gcp(gcp) as google:
        landed = await write(google, await order(google))
    assert isinstance(landed, Landed)
    assert (landed.value_token, landed.order) == ("2|enabled", 2)
    assert (gcp.value("a"), gcp.value("a", 1)) == ({"k": "new"}, OLD)


async def test_version_that_latest_does_not_show_yet_is_seen(gcp: Gcp) -> None:
    """Only an access by number is strongly consistent."""
    gcp.put("a", OLD)
    async with open_gcp(gcp) as google:
        wanted = await order(google)
        gcp.put("a", THEIRS)
        gcp.fake.lag[PREFIX + "a"] = 1
        assert await google.backend.check(wanted) == Refused(REMOTE_CHANGED)
    assert gcp.value("a") == THEIRS


async def test_second_push_right_after_the_first_is_made_though_latest_lags(gcp: Gcp) -> None:
    gcp.put("a", OLD)
    gcp.fake.lag[PREFIX + "a"] = 1
    async with open_gcp(gcp) as google:
        first = await write(google, await order(google))
        assert isinstance(first, Landed)
        again = RemoteWrite(
            PushId("psh_2"), google.path("a"), PushKind.PUT, first.value_token, first.order, NEW
        )
        second = await write(google, again)
    assert isinstance(second, Landed)
    assert second.order == 3


async def test_whoever_wrote_meanwhile_is_below_and_can_be_read(gcp: Gcp) -> None:
    gcp.put("a", OLD)
    async with open_gcp(gcp) as google:
        wanted = await order(google)
        stands = await ready(google, wanted)
        assert not stands.conditional
        gcp.put("a", THEIRS)
        landed = await google.backend.write(wanted, stands, None)
        assert isinstance(landed, Landed)
        assert landed.order == 3
        [between] = await google.backend.read_history(google.path("a"), above=1, below=3, limit=9)
    assert json.loads(between.payload.reveal()) == THEIRS


async def test_bytes_that_look_like_text_come_back_as_what_they_are(gcp: Gcp) -> None:
    payload = Payload.from_bytes(b"abc")
    async with open_gcp(gcp) as google:
        await write(google, await order(google, PushKind.CREATE, payload))
    assert gcp.value("a") == {"value_base64": "YWJj"}


async def test_value_is_sent_with_its_checksum_and_one_that_was_altered_is_not_taken(
    gcp: Gcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcp.put("a", OLD)
    monkeypatch.setattr("svsync.backends.gcp.entries.checksum", lambda data: 1)
    async with open_gcp(gcp) as google:
        wanted = await order(google)
        refused = await google.backend.write(wanted, await ready(google, wanted), None)
    assert refused == Refused("push_refused", "INVALID_ARGUMENT")
    assert gcp.value("a") == OLD


async def test_value_larger_than_google_takes_is_never_sent(gcp: Gcp) -> None:
    large = Payload.from_text("x" * 65_537)
    async with open_gcp(gcp, max_value_bytes=1_000_000) as google:
        wanted = await order(google, PushKind.CREATE, large)
        assert await google.backend.check(wanted) == Refused("value_too_large")


@pytest.mark.parametrize(
    ("code", "error", "sent"),
    [
        (StatusCode.INTERNAL, BackendUnreachableError, True),
        (StatusCode.UNAVAILABLE, BackendUnreachableError, True),
        (StatusCode.DEADLINE_EXCEEDED, BackendUnreachableError, True),
        (StatusCode.RESOURCE_EXHAUSTED, ThrottledError, False),
        (StatusCode.ABORTED, BackendUnreachableError, False),
    ],
)
async def test_push_without_an_answer_is_told_from_one_that_was_turned_away(
    gcp: Gcp, code: StatusCode, error: type[BackendError], sent: bool
) -> None:
    gcp.put("a", OLD)
    gcp.fake.fail(ADD, code, after=sent)
    async with open_gcp(gcp) as google:
        with pytest.raises(error) as raised:
            await write(google, await order(google))
    assert raised.value.sent is sent
    assert CANARY not in raised.value.message
    assert len(held(gcp).versions) == (2 if sent else 1)


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        (StatusCode.NOT_FOUND, Refused(REMOTE_CHANGED)),
        (StatusCode.FAILED_PRECONDITION, Refused("push_refused", "FAILED_PRECONDITION")),
        (
            StatusCode.PERMISSION_DENIED,
            Refused("denied", "secretmanager.versions.add is not granted"),
        ),
    ],
)
async def test_refused_push_tells_why(gcp: Gcp, code: StatusCode, refused: Refused) -> None:
    """FAILED_PRECONDITION is a key in Cloud KMS here: a new version has no condition."""
    gcp.put("a", OLD)
    gcp.fake.fail(ADD, code)
    async with open_gcp(gcp) as google:
        assert await write(google, await order(google)) == refused


async def test_look_that_is_denied_writes_nothing(gcp: Gcp) -> None:
    gcp.put("a", OLD)
    async with open_gcp(gcp) as google:
        wanted = await order(google)
        gcp.fake.deny("secrets.get$")
        refused = await google.backend.check(wanted)
    assert isinstance(refused, Refused)
    assert (refused.reason, "secretmanager.secrets.get" in refused.detail) == ("denied", True)


# --- creation ---------------------------------------------------------------------


async def test_new_secret_has_its_pairs_from_the_beginning(gcp: Gcp) -> None:
    tags = {"svsync-managed": "true", "Note": "free text", "team": "x"}
    async with open_gcp(gcp) as google:
        landed = await write(google, await order(google, PushKind.CREATE), tags)
    assert isinstance(landed, Landed)
    assert landed.tags == tags
    assert held(gcp).labels == {"svsync-managed": "true", "team": "x"}
    assert held(gcp).annotations == {"Note": "free text"}
    assert gcp.fake.calls("UpdateSecret") == 0


async def test_new_secret_has_what_is_configured_and_passes_the_filter(gcp: Gcp) -> None:
    key = "projects/acme/locations/{location}/keyRings/r/cryptoKeys/k"
    config: dict[str, Any] = {
        "kms_key_id": key,
        "replica_locations": ["europe-west3", "us-east1"],
        "labels": {"team": "x"},
    }
    filters = {"labels": {"env": "prod"}}
    async with open_gcp(gcp, config=config, filters=filters) as google:
        await write(google, await order(google, PushKind.CREATE))
        assert (await google.listed()).names == [google.path("a")]
    replicas = held(gcp).replication["user_managed"]["replicas"]
    assert [one["location"] for one in replicas] == config["replica_locations"]
    for one in replicas:
        named = one["customer_managed_encryption"]["kms_key_name"]
        assert named == key.replace("{location}", one["location"])
    assert held(gcp).labels == {"env": "prod", "team": "x"}


async def test_new_secret_of_a_location_has_no_replication_and_its_own_key(gcp: Gcp) -> None:
    key = f"projects/acme/locations/{PLACE}/keyRings/r/cryptoKeys/k"
    async with open_gcp(gcp, config={"location": PLACE, "kms_key_id": key}) as google:
        landed = await write(google, await order(google, PushKind.CREATE))
    assert isinstance(landed, Landed)
    made = gcp.fake.secret(PREFIX + "a", PLACE)
    assert (made.replication, made.key) == ({}, key)


async def test_secret_that_somebody_made_meanwhile_is_not_written(gcp: Gcp) -> None:
    async with open_gcp(gcp) as google:
        wanted = await order(google, PushKind.CREATE)
        stands = await ready(google, wanted)
        gcp.put("a", THEIRS)
        assert await google.backend.write(wanted, stands, None) == Refused(REMOTE_CHANGED)
    assert gcp.value("a") == THEIRS


async def test_secret_that_was_made_and_got_no_value_gets_one_by_the_next_write(gcp: Gcp) -> None:
    gcp.fake.deny("versions.add")
    async with open_gcp(gcp) as google:
        refused = await write(google, await order(google, PushKind.CREATE))
        assert isinstance(refused, Refused)
        assert refused.reason == "denied"
        assert "the secret was made" in refused.detail
        gcp.fake.heal()
        landed = await write(google, await order(google, PushKind.CREATE))
    assert isinstance(landed, Landed)
    assert gcp.value("a") == {"k": "new"}


async def test_key_that_is_not_there_is_no_change_by_somebody(gcp: Gcp) -> None:
    gcp.fake.fail("^CreateSecret", StatusCode.NOT_FOUND)
    async with open_gcp(gcp) as google:
        refused = await write(google, await order(google, PushKind.CREATE))
    assert refused == Refused("push_refused", "NOT_FOUND")


async def test_tag_that_google_forbids_keeps_no_value_back(gcp: Gcp) -> None:
    tags = {"a b": "c"}
    async with open_gcp(gcp) as google:
        made = await write(google, await order(google, PushKind.CREATE), tags)
        changed = await write(google, await order(google), tags)
    for landed in (made, changed):
        assert isinstance(landed, Landed)
        assert (landed.tags, landed.tags_refused) == ({}, "push_refused")
    assert len(held(gcp).versions) == 2


async def test_disabled_secret_gets_a_version_that_brings_it_back(gcp: Gcp) -> None:
    gcp.put("a", OLD)
    gcp.disable("a")
    async with open_gcp(gcp) as google:
        landed = await write(google, await order(google, PushKind.CREATE))
        [read] = await google.read("a")
    assert isinstance(landed, Landed)
    assert isinstance(read, RemoteValue)
    assert gcp.states("a") == ["DISABLED", "ENABLED"], "what was disabled stays so"


# --- labels and annotations ---------------------------------------------------------


async def test_pairs_of_others_stay_and_those_taken_away_go(gcp: Gcp) -> None:
    gcp.put("a", OLD, mine="1", gone="1")
    held(gcp).annotations = {"note": "theirs"}
    async with open_gcp(gcp) as google:
        wanted = await order(google, PushKind.METADATA)
        stands = await ready(google, wanted)
        gcp.fake.label(PREFIX + "a", {"theirs": "1"})
        landed = await google.backend.write(wanted, stands, {"mine": "2", "note": "theirs"})
    assert isinstance(landed, Landed)
    assert held(gcp).labels == {"mine": "2", "theirs": "1"}
    assert held(gcp).annotations == {"note": "theirs"}


async def test_label_that_somebody_sets_between_look_and_update_is_not_lost(gcp: Gcp) -> None:
    """The update carries the etag of the look; a stale one is refused, and looked at anew."""
    gcp.put("a", OLD)
    gcp.fake.meanwhile("^UpdateSecret", lambda: gcp.fake.label(PREFIX + "a", {"theirs": "1"}))
    async with open_gcp(gcp) as google:
        landed = await write(google, await order(google, PushKind.METADATA), {"mine": "1"})
    assert isinstance(landed, Landed)
    assert held(gcp).labels == landed.tags == {"mine": "1", "theirs": "1"}
    assert gcp.fake.calls("UpdateSecret") == 2


async def test_labels_that_change_all_the_time_are_left_alone(gcp: Gcp) -> None:
    gcp.put("a", OLD)
    gcp.fake.fail("^UpdateSecret", StatusCode.FAILED_PRECONDITION)
    async with open_gcp(gcp) as google:
        refused = await write(google, await order(google, PushKind.METADATA), {"mine": "1"})
        changed = await write(google, await order(google), {"mine": "1"})
    assert refused == Refused(REMOTE_CHANGED)
    assert isinstance(changed, Landed)
    assert changed.tags_refused == REMOTE_CHANGED


async def test_text_that_no_label_may_hold_goes_into_an_annotation(gcp: Gcp) -> None:
    gcp.put("a", OLD, note="short")
    async with open_gcp(gcp) as google:
        landed = await write(google, await order(google, PushKind.METADATA), {"note": "A b"})
    assert isinstance(landed, Landed)
    assert (held(gcp).labels, held(gcp).annotations) == ({}, {"note": "A b"})


async def test_labels_that_are_denied_keep_no_value_back(gcp: Gcp) -> None:
    gcp.put("a", OLD)
    gcp.fake.deny("secrets.update")
    async with open_gcp(gcp) as google:
        landed = await write(google, await order(google), {"mine": "1"})
    assert isinstance(landed, Landed)
    assert (landed.tags, landed.tags_refused) == ({}, "denied")
    assert gcp.value("a") == {"k": "new"}


# --- deletion ---------------------------------------------------------------------


async def test_delete_disables_the_newest_version_and_nothing_else(gcp: Gcp) -> None:
    gcp.put("a", OLD)
    gcp.put("a", OLD)
    async with open_gcp(gcp) as google:
        landed = await write(google, await order(google, PushKind.DELETE))
        [read] = await google.read("a")
    assert isinstance(landed, Landed)
    assert landed.value_token == "2|disabled"
    assert isinstance(read, RemoteGone)
    assert gcp.states("a") == ["ENABLED", "DISABLED"]
    assert not {"DeleteSecret", "DestroySecretVersion"} & {x.split()[0] for x in gcp.fake.seen}


async def test_delete_that_met_a_newer_version_is_taken_back(gcp: Gcp) -> None:
    gcp.put("a", OLD)
    async with open_gcp(gcp) as google:
        wanted = await order(google, PushKind.DELETE)
        stands = await ready(google, wanted)
        gcp.put("a", THEIRS)
        assert await google.backend.write(wanted, stands, None) == Refused(REMOTE_CHANGED)
    assert gcp.states("a") == ["ENABLED", "ENABLED"]


async def test_delete_that_cannot_be_taken_back_is_told(gcp: Gcp) -> None:
    gcp.put("a", OLD)
    gcp.fake.deny("versions.enable")
    async with open_gcp(gcp) as google:
        wanted = await order(google, PushKind.DELETE)
        stands = await ready(google, wanted)
        gcp.put("a", THEIRS)
        refused = await google.backend.write(wanted, stands, None)
    assert isinstance(refused, Refused)
    assert refused.reason == REMOTE_CHANGED
    assert "version 1 was disabled" in refused.detail


async def test_delete_of_a_version_that_somebody_touched_is_not_made(gcp: Gcp) -> None:
    """Also where it looks as it did: its etag is another."""
    gcp.put("a", OLD)
    async with open_gcp(gcp) as google:
        wanted = await order(google, PushKind.DELETE)
        stands = await ready(google, wanted)
        gcp.disable("a")
        gcp.enable("a")
        assert await google.backend.write(wanted, stands, None) == Refused(REMOTE_CHANGED)
    assert gcp.states("a") == ["ENABLED"]


async def test_delete_that_cannot_be_looked_at_may_have_been_made(gcp: Gcp) -> None:
    gcp.put("a", OLD)
    async with open_gcp(gcp) as google:
        wanted = await order(google, PushKind.DELETE)
        stands = await ready(google, wanted)
        gcp.fake.fail("^AccessSecretVersion", StatusCode.RESOURCE_EXHAUSTED)
        with pytest.raises(ThrottledError) as raised:
            await google.backend.write(wanted, stands, None)
    assert raised.value.sent
    assert gcp.states("a") == ["DISABLED"]


async def test_delete_that_was_not_made_is_told_from_one_that_may_have_been(gcp: Gcp) -> None:
    gcp.put("a", OLD)
    async with open_gcp(gcp) as google:
        wanted = await order(google, PushKind.DELETE)
        gcp.put("a", THEIRS)
        assert await google.backend.find_delete(wanted) == Refused(REMOTE_CHANGED)
        gcp.disable("a", 1)
        assert await google.backend.find_delete(wanted) is None


async def test_path_beyond_the_rules_is_never_written(gcp: Gcp) -> None:
    async with open_gcp(gcp) as google:
        [read] = await google.backend.read([google.path("a/b")])
        assert isinstance(read, RemoteUnknown)
        for path in (google.path("a/b"), google.path("a.b")):
            wanted = RemoteWrite(PushId("psh_1"), path, PushKind.CREATE, None, None, NEW)
            refused = await google.backend.write(wanted, Ready(), None)
            assert isinstance(refused, Refused)
            assert refused.reason == "name_not_allowed"
    assert gcp.fake.seen == []
