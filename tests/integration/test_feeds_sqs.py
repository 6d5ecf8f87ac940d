"""The feed of SQS: when a message is told, when it is deleted, and what stays in the queue."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from tests.aws import KEYS, LOOPBACK, Aws, AwsFront, aws_spec
from tests.house import settings_for
from tests.patience import PATIENCE_S
from tests.queues import (
    Ear,
    TestQueue,
    aws_event,
    happen,
    listening,
    new_queue,
    route_events,
    sqs_feed,
)

from svsync.backends.guarded import BackendGuard
from svsync.domain.errors import (
    BackendUnreachableError,
    ConfigError,
    LoginError,
    SvsyncError,
    ThrottledError,
)
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import TenantId
from svsync.domain.values import Credential
from svsync.embedded.processes import free_port
from svsync.feeds.aws_sqs import open_feed
from svsync.network import NetworkPolicy
from svsync.registry import Registry


@pytest.fixture(params=["roto", "moto"])
def aws(request: pytest.FixtureRequest) -> Aws:
    found: Aws = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def queue(roto: Aws) -> TestQueue:
    return await new_queue(roto.url)


@pytest.fixture
async def front(roto: Aws) -> AsyncIterator[AwsFront]:
    async with AwsFront(roto.url) as found:
        yield found


async def test_event_reaches_the_queue_is_told_and_deleted(aws: Aws) -> None:
    queue = await new_queue(aws.url)
    await route_events(queue)
    async with listening(sqs_feed(aws.url, queue.url)) as ear:
        await happen(queue, aws_event(secret="app/db"))
        await ear.until(lambda: ear.paths == ["app/db"])
        await queue.until_left(0)


async def test_message_goes_once_what_it_told_is_written_down(
    roto: Aws, front: AwsFront, queue: TestQueue
) -> None:
    feed = sqs_feed(front.url, queue.url, hide_again_s=0.01)
    async with listening(feed) as ear:
        ear.written.clear()
        await queue.send(aws_event(secret="app/db"))
        await ear.until(lambda: bool(ear.paths))
        async with asyncio.timeout(PATIENCE_S):
            while front.calls("ChangeMessageVisibilityBatch") < 3:  # noqa: ASYNC110 - as it is
                await asyncio.sleep(0.01)
        assert front.calls("DeleteMessageBatch") == 0
        assert await queue.left() == 1
        ear.written.set()
        await queue.until_left(0)
    assert ear.paths == ["app/db"]


async def test_message_that_a_process_held_when_it_died_comes_again(
    roto: Aws, queue: TestQueue
) -> None:
    async with listening(sqs_feed(roto.url, queue.url, hidden_s=1)) as dying:
        dying.written.clear()
        await queue.send(aws_event(secret="app/db"))
        await dying.until(lambda: dying.paths == ["app/db"])
    assert await queue.left() == 1
    async with listening(sqs_feed(roto.url, queue.url)) as ear:
        await ear.until(lambda: ear.paths == ["app/db"])
        await queue.until_left(0)


async def test_what_cannot_be_hidden_anew_is_deleted_all_the_same(
    roto: Aws, front: AwsFront, queue: TestQueue
) -> None:
    front.refuse_as("^ChangeMessageVisibilityBatch", "AccessDeniedException")
    async with listening(sqs_feed(front.url, queue.url, hide_again_s=0.01)) as ear:
        ear.written.clear()
        await queue.send(aws_event())
        async with asyncio.timeout(PATIENCE_S):
            while front.calls("ChangeMessageVisibilityBatch") < 2:  # noqa: ASYNC110 - as it is
                await asyncio.sleep(0.01)
        ear.written.set()
        await queue.until_left(0)


@pytest.mark.parametrize("body", ["c4n4ry", '{"order": 7}', '{"source": "aws.ec2", "detail": {}}'])
async def test_what_is_not_ours_stays_in_the_queue_and_ends_no_feed(
    roto: Aws, queue: TestQueue, body: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await queue.send(body)
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    feed = sqs_feed(roto.url, queue.url, sleep=pause)
    async with listening(feed) as ear:
        await queue.send(aws_event(secret="app/db"))
        await ear.until(lambda: ear.paths == ["app/db"])
        await queue.until_left(1)
    assert feed.invalid == 1
    assert set(pauses) <= {1.0}
    logged = capsys.readouterr().err
    assert "change_feed_unreadable" in logged
    assert "c4n4ry" not in logged


async def test_poison_goes_where_the_redrive_policy_sends_it(roto: Aws) -> None:
    dead = await new_queue(roto.url)
    arn = f"arn:aws:sqs:us-east-1:123456789012:{dead.name}"
    policy = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": "1"}}'
    queue = await new_queue(roto.url, RedrivePolicy=policy)
    await queue.send("poison")
    async with listening(sqs_feed(roto.url, queue.url, hidden_s=0)) as ear:
        await queue.send(aws_event(secret="app/db"))
        await ear.until(lambda: "app/db" in ear.paths)
        await dead.until_left(1)
        await queue.until_left(0)


async def test_burst_is_taken_together(roto: Aws, front: AwsFront, queue: TestQueue) -> None:
    """Up to the paths of one event, so that what is told at once is written down at once."""
    names = [f"app/{n}" for n in range(35)]
    for name in names:
        await queue.send(aws_event(secret=name))
    async with listening(sqs_feed(front.url, queue.url)) as ear:
        await queue.until_left(0)
    assert sorted(map(str, ear.paths)) == sorted(names)
    assert ear.waited == 1
    assert front.calls("DeleteMessageBatch") == 4


async def test_two_replicas_share_a_queue_and_nothing_falls_between_them(
    roto: Aws, queue: TestQueue
) -> None:
    names = {f"app/{n}" for n in range(40)}
    first, second = sqs_feed(roto.url, queue.url), sqs_feed(roto.url, queue.url)
    async with listening(first) as one, listening(second) as other:
        for name in sorted(names):
            await queue.send(aws_event(secret=name))
        await queue.until_left(0)
        told = [*map(str, one.paths), *map(str, other.paths)]
    assert set(told) == names
    assert len(told) == len(names)


async def test_quiet_queue_is_told_to_be_listened_to_at_once(roto: Aws, queue: TestQueue) -> None:
    async with asyncio.timeout(PATIENCE_S), listening(sqs_feed(roto.url, queue.url)) as ear:
        assert ear.notices == []


# --- what a person has to change ----------------------------------------------------


async def refusal(url: str, queue_url: str) -> SvsyncError:
    with pytest.raises(SvsyncError) as refused:
        await asyncio.wait_for(sqs_feed(url, queue_url).listen(Ear()), PATIENCE_S)
    return refused.value


async def test_queue_that_is_not_there_is_named(aws: Aws) -> None:
    told = await refusal(aws.url, f"{aws.url}/123456789012/nowhere")
    assert isinstance(told, ConfigError)
    assert str(told) == (
        "events.queue_url: there is no queue nowhere of account 123456789012 in us-east-1: make"
        " it there, or name the one that EventBridge sends to"
    )


@pytest.mark.parametrize(
    ("code", "status", "kind", "sentence"),
    [
        ("AccessDeniedException", 400, ConfigError, "grant sqs:ReceiveMessage, sqs:DeleteMessage"),
        ("KMS.AccessDeniedException", 400, ConfigError, "grant kms:Decrypt on it"),
        ("QueueDoesNotExist", 400, ConfigError, "there is no queue"),
        ("ThrottlingException", 400, ThrottledError, "asks to slow down"),
        ("InternalFailure", 500, BackendUnreachableError, "AWS failed"),
        ("InvalidClientTokenId", 403, LoginError, "refuses the keys at env:AWS_KEYS"),
        ("SomethingElse", 400, SvsyncError, "with status 400"),
    ],
)
async def test_refusal_says_what_to_do_and_nothing_of_its_text(
    front: AwsFront, queue: TestQueue, code: str, status: int, kind: type[Exception], sentence: str
) -> None:
    front.refuse_as("^ReceiveMessage", code, status, message="c4n4ry")
    told = await refusal(front.url, queue.url)
    assert isinstance(told, kind)
    assert sentence in str(told)
    assert "c4n4ry" not in str(told)


async def test_login_that_may_receive_and_not_delete_is_told_so(
    front: AwsFront, queue: TestQueue
) -> None:
    await queue.send(aws_event())
    front.refuse_as("^DeleteMessageBatch", "AccessDeniedException")
    told = await refusal(front.url, queue.url)
    assert isinstance(told, ConfigError)
    assert "sqs:DeleteMessage" in str(told)


async def test_server_that_is_away_is_one_sentence() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    told = await refusal(url, f"{url}/123456789012/svsync")
    assert isinstance(told, BackendUnreachableError)


async def test_short_fault_is_for_the_guard_to_get_over(
    roto: Aws, front: AwsFront, queue: TestQueue
) -> None:
    faults = [500, 503]

    async def fail_twice(request: web.Request) -> web.StreamResponse:
        if faults:
            return web.Response(status=faults.pop())
        return await front.forward(request)

    async def at_once(_: float) -> None:
        return None

    front.answer("^ReceiveMessage", fail_twice)
    await queue.send(aws_event(secret="app/db"))
    async with listening(sqs_feed(front.url, queue.url, guard=BackendGuard(sleep=at_once))) as ear:
        await ear.until(lambda: ear.paths == ["app/db"])
    assert faults == []


# --- of a backend -------------------------------------------------------------------


async def test_feed_goes_where_its_backend_goes_and_as_the_same(
    roto: Aws, queue: TestQueue
) -> None:
    asked: list[str] = []

    async def credential() -> Credential:
        asked.append("credential")
        return Credential.parse(KEYS, "env:AWS_KEYS")

    entry = {"feed": "aws-sqs", "queue_url": queue.url}
    feed = open_feed(entry, aws_spec(roto.url, ""), credential, LOOPBACK, BackendGuard())
    await queue.send(aws_event(secret="app/db"))
    async with listening(feed) as ear:
        await ear.until(lambda: ear.paths == ["app/db"])
    assert asked == ["credential"]


async def test_feed_of_another_type_of_backend_is_not_opened(tmp_path: Path) -> None:
    async def credential(_: BackendSpec, __: TenantId) -> Credential:
        raise AssertionError("asked for nothing")

    registry = Registry(settings_for("postgres://x", tmp_path), credential)
    spec = replace(aws_spec("http://127.0.0.1:1", ""), type="hashicorp-vault")
    entry = {"feed": "aws-sqs", "queue_url": "https://x/123456789012/q"}
    with pytest.raises(ConfigError, match="aws-sqs is for aws-secrets-manager, not for hashi"):
        registry.open_feed(entry, spec, TenantId(1))


@pytest.mark.parametrize("credentials_path", ["env:AWS_KEYS", None])
async def test_feed_of_a_backend_that_nobody_authorised_calls_nobody(
    front: AwsFront, queue: TestQueue, tmp_path: Path, credentials_path: str | None
) -> None:
    """Whether it has a credential or signs in as svsync itself."""

    async def credential(_: BackendSpec, __: TenantId) -> Credential:
        return Credential.parse(KEYS, "env:AWS_KEYS")

    async def authorised(_: BackendSpec, __: TenantId) -> None:
        raise ConfigError("is not as it was authorised", code="authorisation_changed")

    registry = Registry(settings_for("postgres://x", tmp_path), credential, authorised=authorised)
    spec = aws_spec(front.url, "", config={"credentials_path": credentials_path})
    entry = {"feed": "aws-sqs", "queue_url": queue.url}
    feed = registry.open_feed(entry, spec, TenantId(1))
    with pytest.raises(ConfigError, match="not as it was authorised"):
        await asyncio.wait_for(feed.listen(Ear()), PATIENCE_S)
    assert front.seen == []
    assert (feed.invalid, feed.dropped) == (0, 0)


def test_endpoint_that_may_not_be_called_opens_no_feed() -> None:
    spec = aws_spec("http://127.0.0.1:1", "")

    async def credential() -> Credential:
        raise AssertionError("asked for nothing")

    with pytest.raises(ConfigError, match=r"config\.endpoint_url"):
        open_feed({"queue_url": "https://x/1/q"}, spec, credential, NetworkPolicy(), BackendGuard())
