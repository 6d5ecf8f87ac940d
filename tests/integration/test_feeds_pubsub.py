"""The feed of Pub/Sub: when a message is told, when it is acknowledged, and what stays.

The service is our own fake below the real client; its own rules are tested here too.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import trustme
from grpc import StatusCode
from tests.patience import PATIENCE_S
from tests.pubsub import NAME, PubSub, notice, serving
from tests.queues import Ear, listening

from svsync.backends.guarded import BackendGuard
from svsync.clients.gcp import GcpSession, GcpSettings
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    LoginError,
    SvsyncError,
    ThrottledError,
)
from svsync.domain.federation import BackendSpec, RuleSpec
from svsync.domain.ids import BackendId
from svsync.feeds.gcp_pubsub import open_feed
from svsync.feeds.gcp_pubsub.subscription import PUBSUB, Message, Subscription
from svsync.network import NetworkPolicy


@pytest.fixture
async def there() -> AsyncIterator[PubSub]:
    async with serving(PubSub()) as found:
        yield found


async def test_notice_is_told_and_acknowledged(there: PubSub) -> None:
    async with listening(there.feed()) as ear:
        await there.publish(**notice("app_db"))
        await ear.until(lambda: ear.paths == ["app_db"])
        await there.until(lambda: there.left == 0)


async def test_message_goes_once_what_it_told_is_written_down(there: PubSub) -> None:
    """Its deadline is put off as long as that takes, so it is told once."""
    async with listening(there.feed(hold_again_s=0.01)) as ear:
        ear.written.clear()
        await there.publish(**notice("app_db"))
        await ear.until(lambda: bool(ear.paths))
        for _ in range(5):
            await there.called("ModifyAckDeadline", times=2)
            await there.pass_time(9)
        assert there.left == 1
        assert "Acknowledge" not in there.calls
        ear.written.set()
        await there.until(lambda: there.left == 0)
    assert ear.paths == ["app_db"]


async def test_message_that_a_process_held_when_it_died_comes_again(there: PubSub) -> None:
    async with listening(there.feed()) as dying:
        dying.written.clear()
        await there.publish(**notice("app_db"))
        await dying.until(lambda: dying.paths == ["app_db"])
    async with listening(there.feed()) as ear:
        assert ear.paths == []
        await there.pass_time(11)
        await ear.until(lambda: ear.paths == ["app_db"])
        await there.until(lambda: there.left == 0)


async def test_acknowledged_too_late_comes_again_and_is_told_twice(there: PubSub) -> None:
    async with listening(there.feed()) as ear:
        ear.written.clear()
        await there.publish(**notice("app_db"))
        await ear.until(lambda: ear.paths == ["app_db"])
        await there.pass_time(11)
        ear.written.set()
        await ear.until(lambda: ear.paths == ["app_db", "app_db"])
        await there.until(lambda: there.left == 0)


async def test_acknowledgement_that_is_refused_ends_no_feed(there: PubSub) -> None:
    """Subscriptions that deliver exactly once say of an id that it is over."""
    there.failures["Acknowledge"] = [StatusCode.FAILED_PRECONDITION]
    async with listening(there.feed()) as ear:
        await there.publish(**notice("a"))
        await ear.until(lambda: ear.paths == ["a"])
        await there.publish(**notice("b"))
        await ear.until(lambda: "b" in ear.paths)


async def test_what_is_not_ours_stays_and_ends_no_feed(
    there: PubSub, capsys: pytest.CaptureFixture[str]
) -> None:
    await there.publish(order="c4n4ry")
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    feed = there.feed(sleep=pause)
    async with listening(feed) as ear:
        await there.publish(**notice("app_db"))
        await ear.until(lambda: ear.paths == ["app_db"])
        await there.until(lambda: there.left == 1)
    [left] = there.messages
    assert dict(left.message.attributes) == {"order": "c4n4ry"}
    assert feed.invalid == 1
    assert set(pauses) <= {1.0}
    logged = capsys.readouterr().err
    assert "change_feed_unreadable" in logged
    assert "c4n4ry" not in logged


async def test_an_empty_answer_is_not_asked_for_again_at_once(there: PubSub) -> None:
    """It may come without any wait."""
    there.patience_s = 0.001
    paused, go_on = asyncio.Event(), asyncio.Event()

    async def pause(seconds: float) -> None:
        assert seconds == 1.0
        paused.set()
        await go_on.wait()

    async with listening(there.feed(sleep=pause)) as ear:
        async with asyncio.timeout(PATIENCE_S):
            await paused.wait()
        assert there.calls.count("Pull") == 1
        await there.publish(**notice("app_db"))
        go_on.set()
        await ear.until(lambda: ear.paths == ["app_db"])


async def test_what_changed_nothing_is_acknowledged_and_not_told(there: PubSub) -> None:
    async with listening(there.feed()) as ear:
        await there.publish(eventType="TOPIC_CONFIGURED")
        await there.publish(**notice("app_db", "SECRET_ROTATE"))
        await there.until(lambda: there.left == 0)
    assert ear.paths == []


async def test_burst_is_taken_together(there: PubSub) -> None:
    for n in range(250):
        await there.publish(**notice(f"app_{n}"))
    async with listening(there.feed()) as ear:
        await there.until(lambda: there.left == 0)
    assert len(set(ear.paths)) == 250
    assert there.calls.count("Acknowledge") == 3


async def test_two_replicas_share_a_subscription_and_nothing_falls_between_them(
    there: PubSub,
) -> None:
    async with listening(there.feed()) as one, listening(there.feed()) as other:
        for n in range(40):
            await there.publish(**notice(f"app_{n}"))
        await there.until(lambda: there.left == 0)
        told = [*map(str, one.paths), *map(str, other.paths)]
    assert sorted(told) == sorted(f"app_{n}" for n in range(40))


async def test_pull_that_ran_out_of_time_is_a_quiet_subscription(there: PubSub) -> None:
    """Google's own waits as long as the call may take."""
    there.patience_s = None
    async with listening(there.feed(timeout=0.3)) as ear:
        await there.until(lambda: there.calls.count("Pull") >= 3)
        await there.publish(**notice("app_db"))
        await ear.until(lambda: ear.paths == ["app_db"])
        await there.until(lambda: there.left == 0)


async def test_token_that_is_refused_is_replaced_once(there: PubSub) -> None:
    async with listening(there.feed()) as ear:
        there.good.clear()
        await there.until(lambda: len(there.good) == 1)
        await there.publish(**notice("app_db"))
        await ear.until(lambda: ear.paths == ["app_db"])
    assert there.tokens == ["t0", "t1"]


async def test_short_fault_is_for_the_guard_to_get_over(there: PubSub) -> None:
    async def at_once(_: float) -> None:
        return None

    there.failures["Pull"] = [StatusCode.UNAVAILABLE, StatusCode.INTERNAL]
    async with listening(there.feed(guard=BackendGuard(sleep=at_once))) as ear:
        await there.publish(**notice("app_db"))
        await ear.until(lambda: ear.paths == ["app_db"])


# --- what a person has to change ----------------------------------------------------


async def refusal(there: PubSub, name: str = NAME, **options: Any) -> SvsyncError:
    with pytest.raises(SvsyncError) as refused:
        await asyncio.wait_for(there.feed(name, **options).listen(Ear()), PATIENCE_S)
    assert "c4n4ry" not in str(refused.value)
    return refused.value


async def test_subscription_that_is_not_there_is_named(there: PubSub) -> None:
    told = await refusal(there, "projects/acme/subscriptions/nowhere")
    assert isinstance(told, ConfigError)
    assert str(told) == (
        "events.subscription: there is no subscription projects/acme/subscriptions/nowhere: make"
        " it, or name the one to the topic that the secrets tell"
    )


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (StatusCode.PERMISSION_DENIED, ConfigError, "grant roles/pubsub.subscriber on it"),
        (StatusCode.FAILED_PRECONDITION, ConfigError, "must be a pull subscription"),
        (StatusCode.RESOURCE_EXHAUSTED, ThrottledError, "asks to slow down"),
        (StatusCode.UNAVAILABLE, BackendUnreachableError, "is not available"),
        (StatusCode.INTERNAL, BackendUnreachableError, "Google failed"),
        (StatusCode.INVALID_ARGUMENT, BackendError, "INVALID_ARGUMENT"),
    ],
)
async def test_refusal_says_what_to_do_and_nothing_of_its_text(
    there: PubSub, status: StatusCode, kind: type[Exception], sentence: str
) -> None:
    there.failures["Pull"] = [status] * 3
    told = await refusal(there)
    assert isinstance(told, kind)
    assert sentence in str(told)


async def test_identity_that_is_refused_for_good_is_a_login(there: PubSub) -> None:
    there.failures["Pull"] = [StatusCode.UNAUTHENTICATED] * 2
    assert isinstance(await refusal(there), LoginError)


async def test_certificate_of_somebody_else_is_not_believed(there: PubSub) -> None:
    strange = replace(there.dial, roots=trustme.CA().cert_pem.bytes())
    told = await refusal(there, dial=strange)
    assert isinstance(told, BackendUnreachableError)
    assert there.calls == []


async def test_certificate_for_another_name_is_not_believed() -> None:
    async with serving(PubSub(), host="elsewhere.example") as there:
        assert isinstance(await refusal(there), BackendUnreachableError)
        assert there.calls == []


async def test_address_that_may_not_be_called_is_not(there: PubSub) -> None:
    spec = BackendSpec(
        BackendId("fed_gcp"),
        "gcp",
        "gcp-secret-manager",
        (RuleSpec("ext/**", "**"),),
        config={"project_id": "acme", "credentials_path": "env:GCP_KEY"},
    )
    entry = {"feed": "gcp-pubsub", "subscription": NAME}
    feed = open_feed(entry, spec, there.credential, NetworkPolicy(), BackendGuard())
    with pytest.raises(ConfigError):  # the token's endpoint is on loopback
        await asyncio.wait_for(feed.listen(Ear()), PATIENCE_S)


# --- the fake -----------------------------------------------------------------------


@pytest.fixture
async def subscription(there: PubSub) -> AsyncIterator[Subscription]:
    async with GcpSession(
        GcpSettings(),
        PUBSUB,
        there.credential,
        NetworkPolicy(allow_loopback=True),
        dial=there.dial,
    ) as session:
        yield Subscription(NAME, session, BackendGuard())


async def test_message_is_given_once_within_its_deadline_and_anew_after_it(
    there: PubSub, subscription: Subscription
) -> None:
    await there.publish(**notice("a"))
    given: list[Message] = []
    for seconds, many in ((0, 1), (9, 0), (1, 1), (9, 0)):
        await there.pass_time(seconds)
        found = await subscription.pull()
        assert len(found) == many
        given += found
    assert all(one.ack_id != other.ack_id for one, other in pairwise(given))
    await subscription.hold([given[-1].ack_id], 0)
    [again] = await subscription.pull()
    await subscription.hold([again.ack_id], 600)
    await there.pass_time(599)
    assert await subscription.pull() == []
    await subscription.acknowledge([given[0].ack_id])
    assert there.left == 1
    await subscription.acknowledge([again.ack_id])
    assert there.left == 0


async def test_deadline_beyond_ten_minutes_is_refused(
    there: PubSub, subscription: Subscription
) -> None:
    with pytest.raises(BackendError, match="INVALID_ARGUMENT"):
        await subscription.hold(["x"], 601)
