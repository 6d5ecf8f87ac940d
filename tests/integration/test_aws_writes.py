"""Writes to AWS Secrets Manager: the condition, what is undone, what is never blind by itself."""

import uuid
from typing import Any

import pytest
from aiohttp import web
from tests.aws import Aws, AwsFront, Opened, open_aws

from svsync.domain.changes import Entry, RemoteGone, RemoteValue
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendUnreachableError, ProtocolError, ThrottledError
from svsync.domain.ids import PushId
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Ready, Refused, RemoteWrite
from svsync.domain.values import Payload

NEW = Payload.from_fields({"k": "new"})
OLD, THEIRS = '{"k": "old"}', '{"k": "theirs"}'
MOVE = "^UpdateSecretVersionStage"


async def order(
    aws: Opened, name: str = "a", kind: PushKind = PushKind.PUT, payload: Payload | None = NEW
) -> RemoteWrite:
    """A write upon the state that stands now."""
    state = await aws.backend.look_up(aws.path(name))
    assert isinstance(state, Entry | RemoteGone)
    value = payload if kind in (PushKind.PUT, PushKind.CREATE) else None
    push = PushId(f"psh_{uuid.uuid4().hex}")
    return RemoteWrite(push, aws.path(name), kind, state.value_token, None, value)


async def ready(aws: Opened, wanted: RemoteWrite) -> Ready:
    found = await aws.backend.check(wanted)
    assert isinstance(found, Ready), found
    return found


async def write(aws: Opened, wanted: RemoteWrite, tags: Any = None) -> Landed | Refused:
    return await aws.backend.write(wanted, await ready(aws, wanted), tags)


# --- the condition ----------------------------------------------------------------


async def test_version_of_a_push_has_its_id_and_the_one_before_stays(roto: Aws) -> None:
    before = await roto.put("a", OLD)
    async with open_aws(roto.url, roto.prefix) as aws:
        wanted = await order(aws)
        landed = await write(aws, wanted)
    assert isinstance(landed, Landed)
    stages = await roto.stages("a")
    assert stages["AWSCURRENT"] == wanted.push_id
    assert stages["AWSPREVIOUS"] == before
    assert landed.value_token == f"{wanted.push_id}|"


async def test_value_of_a_refused_push_is_not_kept_under_a_label(roto: Aws) -> None:
    await roto.put("a", OLD)
    async with open_aws(roto.url, roto.prefix) as aws:
        wanted = await order(aws)
        stands = await ready(aws, wanted)
        theirs = await roto.put("a", THEIRS)
        assert await aws.backend.write(wanted, stands, None) == Refused(REMOTE_CHANGED)
    stages = await roto.stages("a")
    assert stages["AWSCURRENT"] == theirs
    assert wanted.push_id not in stages.values()


async def test_push_without_an_answer_is_made_once_more_under_the_same_id(
    roto: Aws, aws_front: AwsFront
) -> None:
    await roto.put("a", OLD)
    async with open_aws(aws_front.url, roto.prefix) as aws:
        wanted = await order(aws)
        stands = await ready(aws, wanted)
        aws_front.refuse_as(MOVE, "InternalServiceError", 500)
        with pytest.raises(BackendUnreachableError) as raised:
            await aws.backend.write(wanted, stands, None)
        assert raised.value.sent
        assert await roto.value("a") == OLD
        aws_front.rules.clear()
        assert isinstance(await write(aws, wanted), Landed)
    assert (await roto.stages("a"))["AWSCURRENT"] == wanted.push_id
    told = await roto.call("ListSecretVersionIds", SecretId=roto.prefix + "a")
    assert len(told["Versions"]) == 2


async def test_move_that_was_made_and_not_answered_is_found(roto: Aws, aws_front: AwsFront) -> None:
    await roto.put("a", OLD)
    async with open_aws(aws_front.url, roto.prefix) as aws:
        wanted = await order(aws)
        stands = await ready(aws, wanted)
        assert isinstance(await aws.backend.write(wanted, stands, None), Landed)
        # The same call once more, as where its answer was lost and nobody looked.
        again = await aws.backend.write(wanted, stands, None)
    assert again == Landed(f"{wanted.push_id}|")


async def test_write_during_a_rotation_is_refused(roto: Aws) -> None:
    await roto.put("a", OLD)
    await roto.call(
        "PutSecretValue",
        SecretId=roto.prefix + "a",
        SecretString=THEIRS,
        ClientRequestToken="r" * 32,
        VersionStages=["AWSPENDING"],
    )
    async with open_aws(roto.url, roto.prefix) as aws:
        assert await aws.backend.check(await order(aws)) == Refused("rotation_in_progress")
        await roto.move("a", "r" * 32, (await roto.stages("a"))["AWSCURRENT"])
        assert isinstance(await aws.backend.check(await order(aws)), Ready), "it has ended"


async def test_replica_is_not_written(roto: Aws, aws_front: AwsFront) -> None:
    await roto.put("a", OLD)
    described = {**await roto.describe("a"), "PrimaryRegion": "eu-west-1"}
    aws_front.answer("^DescribeSecret", lambda _: web.json_response(described))
    async with open_aws(aws_front.url, roto.prefix) as aws:
        refused = await aws.backend.check(await order(aws))
    assert isinstance(refused, Refused)
    assert refused.reason == "push_refused"


async def test_without_the_right_to_move_labels_nothing_is_written_blindly(
    roto: Aws, aws_front: AwsFront
) -> None:
    await roto.put("a", OLD)
    aws_front.refuse_as(MOVE, "AccessDeniedException")
    async with open_aws(aws_front.url, roto.prefix) as aws:
        refused = await write(aws, await order(aws))
    assert isinstance(refused, Refused)
    assert refused.reason == "denied"
    assert "UpdateSecretVersionStage" in refused.detail
    assert await roto.value("a") == OLD


async def test_write_that_is_blind_is_allowed_by_a_setting_and_gives_what_it_overwrites(
    roto: Aws, aws_front: AwsFront
) -> None:
    await roto.put("a", OLD)
    extra = {"allow_blind_push": True}
    async with open_aws(aws_front.url, roto.prefix, extra=extra) as aws:
        assert (await ready(aws, await order(aws))).conditional, "not where labels may be moved"
        aws_front.refuse_as(MOVE, "AccessDeniedException")
        wanted = await order(aws)
        stands = await ready(aws, wanted)
        assert not stands.conditional
        assert stands.before is not None
        assert stands.before.payload.reveal() == OLD.encode()
        assert isinstance(await aws.backend.write(wanted, stands, None), Landed)
    assert (await roto.stages("a"))["AWSCURRENT"] == wanted.push_id


# --- creation and recovery ----------------------------------------------------------


async def test_deleted_secret_is_restored_and_written(roto: Aws) -> None:
    await roto.put("a", OLD)
    await roto.delete("a")
    async with open_aws(roto.url, roto.prefix) as aws:
        wanted = await order(aws, kind=PushKind.CREATE)
        assert isinstance(await write(aws, wanted), Landed)
        [read] = await aws.read("a")
    assert isinstance(read, RemoteValue)
    assert await roto.value("a", "AWSPREVIOUS") == OLD


async def test_secret_that_was_restored_for_a_write_that_is_denied_is_deleted_again(
    roto: Aws, aws_front: AwsFront
) -> None:
    await roto.put("a", OLD)
    await roto.delete("a")
    aws_front.refuse_as("^PutSecretValue", "AccessDeniedException")
    async with open_aws(aws_front.url, roto.prefix) as aws:
        refused = await write(aws, await order(aws, kind=PushKind.CREATE))
    assert isinstance(refused, Refused)
    assert refused.reason == "denied"
    assert "DeletedDate" in await roto.describe("a")


@pytest.mark.parametrize("undone", [True, False])
async def test_secret_that_was_restored_for_a_write_that_is_not_made_is_not_left_so_unsaid(
    roto: Aws, aws_front: AwsFront, undone: bool
) -> None:
    await roto.put("a", OLD)
    await roto.delete("a")
    aws_front.refuse_as("^PutSecretValue", "ThrottlingException")
    if not undone:
        aws_front.refuse_as("^DeleteSecret", "ThrottlingException")
    async with open_aws(aws_front.url, roto.prefix) as aws:
        wanted = await order(aws, kind=PushKind.CREATE)
        with pytest.raises(ThrottledError) as raised:
            await write(aws, wanted)
    assert raised.value.sent is not undone
    assert ("DeletedDate" in await roto.describe("a")) is undone


async def test_secret_without_a_value_gets_one(roto: Aws) -> None:
    await roto.call("CreateSecret", Name=roto.prefix + "a", ClientRequestToken="e" * 32)
    async with open_aws(roto.url, roto.prefix) as aws:
        assert isinstance(await write(aws, await order(aws, kind=PushKind.CREATE)), Landed)
    assert await roto.value("a") == NEW.reveal().decode()


async def test_first_version_that_aws_makes_current_by_itself_has_landed(moto: Aws) -> None:
    await moto.call("CreateSecret", Name=moto.prefix + "a", ClientRequestToken="e" * 32)
    async with open_aws(moto.url, moto.prefix) as aws:
        assert isinstance(await write(aws, await order(aws, kind=PushKind.CREATE)), Landed)
    assert await moto.value("a") == NEW.reveal().decode()


async def test_first_version_is_current_though_its_label_may_not_be_moved(moto: Aws) -> None:
    async with AwsFront(moto.url) as front:
        for name, code in (("denied", "AccessDeniedException"), ("slow", "ThrottlingException")):
            await moto.call("CreateSecret", Name=moto.prefix + name, ClientRequestToken="e" * 32)
            front.rules.clear()
            front.refuse_as(MOVE, code)
            async with open_aws(front.url, moto.prefix) as aws:
                wanted = await order(aws, name, kind=PushKind.CREATE)
                if code == "AccessDeniedException":
                    assert isinstance(await write(aws, wanted), Landed)
                else:
                    with pytest.raises(ThrottledError) as raised:
                        await write(aws, wanted)
                    assert raised.value.sent, "nobody may say that nothing was written"
            assert await moto.value(name) == '{"k": "new"}'


async def test_new_secret_has_its_tags_from_the_beginning(roto: Aws, aws_front: AwsFront) -> None:
    async with open_aws(aws_front.url, roto.prefix) as aws:
        wanted = await order(aws, kind=PushKind.CREATE)
        landed = await write(aws, wanted, {"svsync-managed": "true"})
    assert isinstance(landed, Landed)
    assert await roto.tags("a") == landed.tags == {"svsync-managed": "true"}
    assert aws_front.calls("TagResource") == 0


async def test_new_secret_has_the_key_and_the_replicas_that_are_configured(
    roto: Aws, aws_front: AwsFront
) -> None:
    bodies: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return await aws_front.forward(request)

    aws_front.answer("^(CreateSecret|PutSecretValue)", answer)
    config = {"kms_key_id": "alias/acme", "replica_regions": ["eu-west-1"]}
    async with open_aws(aws_front.url, roto.prefix, config=config) as aws:
        assert isinstance(await write(aws, await order(aws, kind=PushKind.CREATE)), Landed)
        assert isinstance(await write(aws, await order(aws)), Landed)
    made, changed = bodies
    assert made["KmsKeyId"] == "alias/acme"
    assert made["AddReplicaRegions"] == [{"Region": "eu-west-1"}]
    assert not changed.keys() & {"KmsKeyId", "AddReplicaRegions"}


async def test_key_that_is_not_there_is_no_change_by_somebody(
    roto: Aws, aws_front: AwsFront
) -> None:
    aws_front.refuse_as("^CreateSecret", "ResourceNotFoundException")
    async with open_aws(aws_front.url, roto.prefix, config={"kms_key_id": "alias/none"}) as aws:
        refused = await write(aws, await order(aws, kind=PushKind.CREATE))
    assert refused == Refused("push_refused", "ResourceNotFoundException")


async def test_tags_that_are_denied_keep_no_value_back(roto: Aws, aws_front: AwsFront) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if b'"Tags"' in await request.read():
            return web.json_response({"__type": "AccessDeniedException"}, status=400)
        return await aws_front.forward(request)

    aws_front.answer("^CreateSecret", answer)
    aws_front.refuse_as("^(Tag|Untag)Resource", "AccessDeniedException")
    async with open_aws(aws_front.url, roto.prefix) as aws:
        made = await write(aws, await order(aws, kind=PushKind.CREATE), {"owner": "me"})
        changed = await write(aws, await order(aws), {"owner": "me"})
    for landed in (made, changed):
        assert isinstance(landed, Landed)
        assert (landed.tags, landed.tags_refused) == ({}, "denied")


async def test_more_tags_than_aws_takes_keep_no_value_back(roto: Aws) -> None:
    await roto.put("a", OLD)
    async with open_aws(roto.url, roto.prefix) as aws:
        landed = await write(aws, await order(aws), {f"k{n}": "v" for n in range(51)})
    assert isinstance(landed, Landed)
    assert (landed.tags, landed.tags_refused) == ({}, "push_refused")
    assert await roto.value("a") == NEW.reveal().decode()


async def test_tags_of_others_stay_and_those_taken_away_go(roto: Aws) -> None:
    await roto.put("a", OLD, mine="1", gone="1")
    async with open_aws(roto.url, roto.prefix) as aws:
        wanted = await order(aws, kind=PushKind.METADATA)
        stands = await ready(aws, wanted)
        await roto.tag("a", {"theirs": "1"})
        await aws.backend.write(wanted, stands, {"mine": "2"})
    assert await roto.tags("a") == {"mine": "2", "theirs": "1"}


# --- deletion ---------------------------------------------------------------------


async def test_delete_leaves_thirty_days_to_restore(roto: Aws, aws_front: AwsFront) -> None:
    bodies: list[bytes] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.read())
        return await aws_front.forward(request)

    aws_front.answer("^DeleteSecret", answer)
    await roto.put("a", OLD)
    async with open_aws(aws_front.url, roto.prefix) as aws:
        assert isinstance(await write(aws, await order(aws, kind=PushKind.DELETE)), Landed)
    [body] = bodies
    assert b'"RecoveryWindowInDays": 30' in body
    assert b"Force" not in body
    await roto.restore("a")
    assert await roto.value("a") == OLD


async def test_delete_that_met_a_newer_version_is_taken_back(roto: Aws) -> None:
    await roto.put("a", OLD)
    async with open_aws(roto.url, roto.prefix) as aws:
        wanted = await order(aws, kind=PushKind.DELETE)
        stands = await ready(aws, wanted)
        await roto.put("a", THEIRS)
        assert await aws.backend.write(wanted, stands, None) == Refused(REMOTE_CHANGED)
    assert await roto.value("a") == THEIRS


async def test_delete_that_cannot_be_looked_at_may_have_been_made(
    roto: Aws, aws_front: AwsFront
) -> None:
    await roto.put("a", OLD)
    async with open_aws(aws_front.url, roto.prefix) as aws:
        wanted = await order(aws, kind=PushKind.DELETE)
        stands = await ready(aws, wanted)
        aws_front.refuse_as("^DescribeSecret", "ThrottlingException")
        with pytest.raises(Exception, match="slow down") as raised:
            await aws.backend.write(wanted, stands, None)
    assert raised.value.sent  # type: ignore[attr-defined]
    assert "DeletedDate" in await roto.describe("a")


async def test_write_that_is_answered_by_a_page_may_have_been_made(
    roto: Aws, aws_front: AwsFront
) -> None:
    await roto.put("a", OLD)
    async with open_aws(aws_front.url, roto.prefix) as aws:
        for kind in (PushKind.PUT, PushKind.DELETE):
            aws_front.rules.clear()
            wanted = await order(aws, kind=kind)
            stands = await ready(aws, wanted)
            aws_front.html("")
            with pytest.raises(ProtocolError) as raised:
                await aws.backend.write(wanted, stands, None)
            assert raised.value.sent
