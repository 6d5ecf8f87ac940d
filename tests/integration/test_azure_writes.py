"""Writes to Key Vault: what is looked at before, what is carried over, what is undone."""

import json
import uuid
from typing import Any

import pytest
from aiohttp import web
from tests.azure import Opened, open_azure
from tests.azure_fake import AzureFake
from tests.azure_vault import MAX_VALUE, Vault

from svsync.backends.azure.entries import is_young
from svsync.domain.changes import Entry, RemoteGone, RemoteRead, RemoteValue
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendUnreachableError, ProtocolError
from svsync.domain.ids import PushId, RemotePath
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Ready, Refused, RemoteWrite
from svsync.domain.values import Payload

NEW = Payload.from_fields({"k": "new"})
NEW_TEXT = NEW.reveal().decode()
OLD, THEIRS = '{"k": "old"}', '{"k": "theirs"}'


async def order(
    azure: Opened, name: str = "a", kind: PushKind = PushKind.PUT, payload: Payload | None = NEW
) -> RemoteWrite:
    """A write upon the state that stands now."""
    state: Entry | RemoteRead = await azure.backend.look_up(RemotePath(name))
    assert isinstance(state, Entry | RemoteGone), state
    value = payload if kind in (PushKind.PUT, PushKind.CREATE) else None
    push = PushId(f"psh_{uuid.uuid4().hex}")
    return RemoteWrite(push, RemotePath(name), kind, state.value_token, state.order, value)


async def ready(azure: Opened, wanted: RemoteWrite) -> Ready:
    found = await azure.backend.check(wanted)
    assert isinstance(found, Ready), found
    return found


async def write(azure: Opened, wanted: RemoteWrite, tags: Any = None) -> Landed | Refused:
    return await azure.backend.write(wanted, await ready(azure, wanted), tags)


async def refusal(azure: Opened, wanted: RemoteWrite, tags: Any = None) -> Refused:
    ended = await write(azure, wanted, tags)
    assert isinstance(ended, Refused)
    return ended


# --- a value ----------------------------------------------------------------------


async def test_new_version_carries_the_push_and_what_svsync_does_not_set(
    azure_fake: AzureFake, vault: Vault
) -> None:
    end = vault.now + 9999
    vault.put("a", OLD, tags={"team": "x"}, content_type="application/x-mine", exp=end)
    async with open_azure(azure_fake, vault) as azure:
        wanted = await order(azure)
        landed = await write(azure, wanted)
        [read] = await azure.read("a")
    newest = vault.live["a"].newest
    assert newest.value == NEW_TEXT
    assert newest.tags == {"team": "x", "svsync-push": wanted.push_id}
    assert (newest.content_type, newest.exp) == ("application/x-mine", end)
    assert list(vault.values("a")) == [OLD, NEW_TEXT]
    assert isinstance(landed, Landed)
    assert isinstance(read, RemoteValue)
    assert read.made_by == (wanted.push_id,)


async def test_new_secret_has_the_content_type_that_is_configured(
    azure_fake: AzureFake, vault: Vault
) -> None:
    text = Payload.from_text("hunter2")
    async with open_azure(azure_fake, vault) as azure:
        await write(azure, await order(azure, "object", PushKind.CREATE))
        await write(azure, await order(azure, "text", PushKind.CREATE, text))
    config = {"content_type": "application/vnd.acme"}
    async with open_azure(azure_fake, vault, config=config) as azure:
        await write(azure, await order(azure, "ours", PushKind.CREATE))
    told = {name: secret.newest.content_type for name, secret in vault.live.items()}
    assert told == {
        "object": "application/json",
        "text": "text/plain",
        "ours": "application/vnd.acme",
    }


async def test_bytes_and_nothing_go_out_as_the_object_they_are_served_as(
    azure_fake: AzureFake, vault: Vault
) -> None:
    async with open_azure(azure_fake, vault) as azure:
        for name, payload in (
            ("bytes", Payload.from_bytes(b"\x00\xff")),
            ("empty", Payload.from_text("")),
        ):
            await write(azure, await order(azure, name, PushKind.CREATE, payload))
    assert json.loads(vault.value("bytes")) == {"value_base64": "AP8="}
    assert json.loads(vault.value("empty")) == {"value": ""}


async def test_value_that_no_vault_takes_is_not_sent(azure_fake: AzureFake, vault: Vault) -> None:
    async with open_azure(azure_fake, vault) as azure:
        for size, fits in ((MAX_VALUE, True), (MAX_VALUE + 1, False)):
            wanted = await order(azure, "a", PushKind.CREATE, Payload.from_text("x" * size))
            found = await azure.backend.check(wanted)
            assert isinstance(found, Ready) == fits
        assert found == Refused("value_too_large")


async def test_version_that_cannot_be_told_from_another_is_compared_by_its_value(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.add("a", OLD)
    async with open_azure(azure_fake, vault) as azure:
        wanted = await order(azure)
        assert is_young(wanted.expected_token or "")
        vault.add("a", THEIRS)  # within the same second
        for later in (0, 10):
            vault.now += later
            found = await ready(azure, wanted)
            assert found.before is not None
            assert found.before.payload.reveal() == THEIRS.encode()
        settled = await order(azure)
        assert (await ready(azure, settled)).before is None


async def test_versions_that_somebody_made_meanwhile_are_found_below_ours(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", OLD)
    vault.pace = 0
    async with open_azure(azure_fake, vault) as azure:
        wanted = await order(azure)
        stands = await ready(azure, wanted)
        vault.add("a", THEIRS)  # within the second of our own
        landed = await azure.backend.write(wanted, stands, None)
        assert isinstance(landed, Landed)
        assert wanted.expected_order is not None
        assert landed.order is not None
        found = await azure.backend.read_history(
            RemotePath("a"), above=wanted.expected_order, below=landed.order, limit=9
        )
    assert [version.payload.reveal() for version in found] == [THEIRS.encode()]


@pytest.mark.parametrize(
    ("inner", "reason"), [("ForbiddenByPolicy", "denied"), ("AccessDenied", "denied")]
)
async def test_write_that_is_forbidden_is_refused_with_what_it_needs(
    azure_fake: AzureFake, vault: Vault, inner: str, reason: str
) -> None:
    vault.put("a", OLD)
    azure_fake.refuse_as("^PUT", 403, "Forbidden", inner)
    async with open_azure(azure_fake, vault) as azure:
        refused = await refusal(azure, await order(azure))
    assert refused.reason == reason
    assert "secrets/set" in refused.detail
    assert ("policy" in refused.detail) == (inner == "ForbiddenByPolicy")
    assert vault.value("a") == OLD


async def test_write_that_is_bad_is_refused_alone(azure_fake: AzureFake, vault: Vault) -> None:
    vault.put("a", OLD)
    azure_fake.refuse_as("^PUT", 400, "BadParameter")
    async with open_azure(azure_fake, vault) as azure:
        assert await refusal(azure, await order(azure)) == Refused("push_refused", "BadParameter")


@pytest.mark.parametrize("kind", [PushKind.PUT, PushKind.DELETE])
async def test_secret_of_a_certificate_is_not_touched(
    azure_fake: AzureFake, vault: Vault, kind: PushKind
) -> None:
    vault.put("a", OLD)
    vault.live["a"].managed = True
    async with open_azure(azure_fake, vault) as azure:
        refused = await azure.backend.check(await order(azure, kind=kind))
    assert isinstance(refused, Refused)
    assert "certificate" in refused.detail


async def test_name_that_stands_in_another_case_is_not_written(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("DbPass", OLD)
    wanted = RemoteWrite(PushId("psh_1"), RemotePath("dbpass"), PushKind.CREATE, None, None, NEW)
    async with open_azure(azure_fake, vault) as azure:
        refused = await azure.backend.check(wanted)
    assert isinstance(refused, Refused)
    assert refused.reason == "collision"


async def test_write_that_is_answered_by_a_page_may_have_been_made(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", OLD)
    async with open_azure(azure_fake, vault) as azure:
        for kind in (PushKind.PUT, PushKind.DELETE):
            azure_fake.rules.clear()
            wanted = await order(azure, kind=kind)
            stands = await ready(azure, wanted)
            azure_fake.answer("", lambda _: web.Response(text="<html>"))
            with pytest.raises(ProtocolError) as raised:
                await azure.backend.write(wanted, stands, None)
            assert raised.value.sent


@pytest.mark.parametrize("kind", [PushKind.PUT, PushKind.DELETE])
async def test_write_whose_answer_was_lost_is_sent_once_and_left_open(
    azure_fake: AzureFake, vault: Vault, kind: PushKind
) -> None:
    vault.put("a", OLD)
    sent: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        sent.append(request.method)
        made = await azure_fake.forward(request)
        assert request.transport is not None
        request.transport.abort()
        return made

    async with open_azure(azure_fake, vault) as azure:
        wanted = await order(azure, kind=kind)
        stands = await ready(azure, wanted)
        azure_fake.answer("^(PUT|DELETE)", answer)
        with pytest.raises(BackendUnreachableError) as raised:
            await azure.backend.write(wanted, stands, None)
    assert raised.value.sent
    assert len(sent) == 1


# --- tags -------------------------------------------------------------------------


async def test_tags_alone_make_no_version_and_keep_the_tag_of_a_push(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", OLD, tags={"svsync-push": "psh_1", "old": "1"})
    async with open_azure(azure_fake, vault) as azure:
        await write(azure, await order(azure, kind=PushKind.METADATA), {"new": "2"})
    assert vault.tags("a") == {"svsync-push": "psh_1", "new": "2"}
    assert list(vault.values("a")) == [OLD]


async def test_more_tags_than_a_secret_takes_keep_no_value_back(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", OLD, tags={"t": "1"})
    many = {f"k{n}": "v" for n in range(16)}
    async with open_azure(azure_fake, vault) as azure:
        landed = await write(azure, await order(azure), many)
        refused = await refusal(azure, await order(azure, kind=PushKind.METADATA), many)
    assert isinstance(landed, Landed)
    assert (landed.tags, landed.tags_refused) == ({"t": "1"}, "push_refused")
    assert vault.value("a") == NEW_TEXT
    assert "15" in refused.detail


async def test_tags_that_fill_a_secret_leave_no_room_for_the_one_of_a_push(
    azure_fake: AzureFake, vault: Vault
) -> None:
    many = {f"k{n}": "v" for n in range(15)}
    async with open_azure(azure_fake, vault) as azure:
        landed = await write(azure, await order(azure, kind=PushKind.CREATE), many)
    assert isinstance(landed, Landed)
    assert vault.tags("a") == many == landed.tags


# --- recovery ---------------------------------------------------------------------


async def test_deleted_secret_is_recovered_and_set(azure_fake: AzureFake, vault: Vault) -> None:
    vault.lag = 3
    vault.put("a", OLD, tags={"team": "x"})
    vault.delete("a")
    async with open_azure(azure_fake, vault) as azure:
        wanted = await order(azure, kind=PushKind.CREATE)
        landed = await write(azure, wanted, {"svsync-managed": "true"})
    assert isinstance(landed, Landed)
    assert list(vault.values("a")) == [OLD, NEW_TEXT]
    assert landed.tags == {"team": "x", "svsync-managed": "true"}


async def test_set_waits_until_the_recovery_is_done(azure_fake: AzureFake, vault: Vault) -> None:
    """A recovered secret can be looked at before it can be set."""
    vault.put("a", OLD)
    vault.delete("a")
    busy = iter(range(3))

    async def answer(request: web.Request) -> web.StreamResponse:
        if next(busy, None) is not None:
            body = {"error": {"code": "Conflict", "innererror": {"code": "ObjectIsBeingRecovered"}}}
            return web.json_response(body, status=409)
        return await azure_fake.forward(request)

    azure_fake.answer("^PUT", answer)
    async with open_azure(azure_fake, vault) as azure:
        assert isinstance(await write(azure, await order(azure, kind=PushKind.CREATE)), Landed)
    assert vault.value("a") == NEW_TEXT


async def test_secret_that_was_recovered_and_takes_no_value_is_told_so(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", OLD)
    vault.delete("a")
    azure_fake.refuse_as("^PUT", 409, "Conflict", "ObjectIsBeingRecovered")
    async with open_azure(azure_fake, vault) as azure:
        refused = await refusal(azure, await order(azure, kind=PushKind.CREATE))
    assert refused == Refused(REMOTE_CHANGED, "it was recovered, and takes no value yet")
    assert "a" in vault.live


async def test_secret_that_was_recovered_for_a_write_that_is_denied_is_deleted_again(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", OLD)
    vault.delete("a")
    vault.permissions.discard("set")
    async with open_azure(azure_fake, vault) as azure:
        refused = await refusal(azure, await order(azure, kind=PushKind.CREATE))
    assert refused.reason == "denied"
    assert "a" in vault.deleted


async def test_secret_that_may_not_be_recovered_is_left_as_it_is(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", OLD)
    vault.delete("a")
    vault.permissions.discard("recover")
    async with open_azure(azure_fake, vault) as azure:
        refused = await refusal(azure, await order(azure, kind=PushKind.CREATE))
    assert refused.reason == "denied"
    assert "secrets/recover" in refused.detail
    assert "a" in vault.deleted


async def test_recovery_that_does_not_end_leaves_the_push_open(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", OLD)
    vault.delete("a")
    async with open_azure(azure_fake, vault) as azure:
        wanted = await order(azure, kind=PushKind.CREATE)
        stands = await ready(azure, wanted)
        vault.lag = 1000
        with pytest.raises(BackendUnreachableError) as raised:
            await azure.backend.write(wanted, stands, None)
    assert raised.value.sent


async def test_deleted_secret_that_is_not_seen_stands_in_the_way(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", OLD)
    vault.delete("a")
    azure_fake.refuse_as("deletedsecrets", 403, "Forbidden", "AccessDenied")
    async with open_azure(azure_fake, vault) as azure:
        refused = await refusal(azure, await order(azure, kind=PushKind.CREATE))
    assert refused.reason == "retired_remotely"
    assert "a" in vault.deleted


async def test_disabled_secret_gets_a_new_version(azure_fake: AzureFake, vault: Vault) -> None:
    vault.put("a", OLD, enabled=False, exp=vault.now + 9999)
    async with open_azure(azure_fake, vault) as azure:
        assert isinstance(await write(azure, await order(azure, kind=PushKind.CREATE)), Landed)
    newest = vault.live["a"].newest
    assert (newest.value, newest.enabled, newest.exp) == (NEW_TEXT, True, None)
    assert not vault.live["a"].versions[0].enabled


# --- deletion ---------------------------------------------------------------------


async def test_delete_can_be_undone_and_nothing_is_purged(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.permissions.add("purge")
    vault.lag = 3
    vault.put("a", OLD)
    async with open_azure(azure_fake, vault) as azure:
        assert isinstance(await write(azure, await order(azure, kind=PushKind.DELETE)), Landed)
    assert list(vault.deleted) == ["a"]
    assert azure_fake.calls("^DELETE /deletedsecrets") == 0


async def test_delete_that_met_a_newer_version_is_taken_back(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.lag = 3
    vault.put("a", OLD)
    async with open_azure(azure_fake, vault) as azure:
        wanted = await order(azure, kind=PushKind.DELETE)
        stands = await ready(azure, wanted)
        vault.add("a", THEIRS)
        assert await azure.backend.write(wanted, stands, None) == Refused(REMOTE_CHANGED)
    assert vault.value("a") == THEIRS


async def test_delete_that_takes_long_is_taken_back_once_it_is_done(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", OLD)
    async with open_azure(azure_fake, vault) as azure:
        wanted = await order(azure, kind=PushKind.DELETE)
        stands = await ready(azure, wanted)
        vault.add("a", THEIRS)
        vault.lag = 20

        async def answer(request: web.Request) -> web.StreamResponse:
            vault.lag = 0
            return await azure_fake.forward(request)

        azure_fake.answer("^POST", answer)
        assert await azure.backend.write(wanted, stands, None) == Refused(REMOTE_CHANGED)
    assert vault.value("a") == THEIRS
    assert azure_fake.calls("^POST") > 1


async def test_delete_that_could_not_be_taken_back_says_so(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.permissions.discard("recover")
    vault.put("a", OLD)
    async with open_azure(azure_fake, vault) as azure:
        wanted = await order(azure, kind=PushKind.DELETE)
        stands = await ready(azure, wanted)
        vault.put("a", THEIRS)
        refused = await azure.backend.write(wanted, stands, None)
    assert isinstance(refused, Refused)
    assert "could not be recovered" in refused.detail


async def test_delete_where_nothing_can_be_undone_is_refused(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.soft_delete = False
    vault.put("a", OLD)
    async with open_azure(azure_fake, vault) as azure:
        refused = await azure.backend.check(await order(azure, kind=PushKind.DELETE))
    assert isinstance(refused, Refused)
    assert refused.reason == "delete_not_recoverable"


async def test_delete_that_cannot_be_looked_at_may_have_been_made(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", OLD)
    async with open_azure(azure_fake, vault) as azure:
        wanted = await order(azure, kind=PushKind.DELETE)
        stands = await ready(azure, wanted)
        azure_fake.refuse_as("^GET /deletedsecrets", 429, "Throttled")
        with pytest.raises(Exception, match="slow down") as raised:
            await azure.backend.write(wanted, stands, None)
    assert raised.value.sent  # type: ignore[attr-defined]
    assert "a" in vault.deleted
