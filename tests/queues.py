"""What stands around a feed that takes messages from a queue: hands for SQS and EventBridge,
and an ear that says when a notice is written down.

Hands make their own requests, as those of `tests.aws` do.
"""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from tests.aws import ACCOUNT, KEYS, LOOPBACK, REGION, AwsCallRefused
from tests.patience import PATIENCE_S

from svsync.backends.guarded import BackendGuard, RetryPolicy
from svsync.clients.aws import AwsSettings
from svsync.domain.values import Credential
from svsync.feeds.aws_sqs import SqsFeed
from svsync.ports import ChangeFeed, Notice

_PAGE: Final = Path(__file__).parent.parent / "docs/change-feeds.md"
_SERVICES: Final = {"sqs": ("AmazonSQS", "1.0"), "events": ("AWSEvents", "1.1")}


class Ear:
    """See `ports.Tell`. What is told is written down while `written` is set."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.listens = False
        self.waited = 0
        self.written = asyncio.Event()
        self.written.set()
        self._more = asyncio.Event()

    def __call__(self, notice: Notice, /) -> None:
        self.notices.append(notice)
        self._more.set()

    def listening(self) -> None:
        self.listens = True
        self._more.set()

    async def kept(self) -> None:
        self.waited += 1
        await self.written.wait()

    @property
    def paths(self) -> list[str | None]:
        return [notice.path for notice in self.notices]

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not reached():
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def listening(feed: ChangeFeed) -> AsyncIterator[Ear]:
    """A feed that listens; what ends it before its time is raised."""
    ear = Ear()
    task = asyncio.create_task(feed.listen(ear))
    task.add_done_callback(lambda _: ear._more.set())
    try:
        await ear.until(lambda: ear.listens or task.done())
        if task.done():
            await task
        yield ear
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# --- SQS and EventBridge ------------------------------------------------------------


@dataclass
class Hands:
    """A person's calls to one server."""

    url: str

    async def call(self, service: str, operation: str, **body: Any) -> dict[str, Any]:
        """One call; raises AwsCallRefused."""
        target, version = _SERVICES[service]
        headers = {
            "X-Amz-Target": f"{target}.{operation}",
            "Content-Type": f"application/x-amz-json-{version}",
            "Authorization": (
                f"AWS4-HMAC-SHA256 Credential=AKIA/20261123/{REGION}/{service}/aws4_request,"
                " SignedHeaders=host, Signature=00"
            ),
        }
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/", data=json.dumps(body), headers=headers) as answer,
        ):
            told: dict[str, Any] = json.loads(await answer.read() or b"{}")
            if answer.status != 200:
                raise AwsCallRefused(str(told.get("__type")))
            return told


@dataclass
class TestQueue:
    """A queue of one's own, and the rule that fills it."""

    __test__ = False

    hands: Hands
    url: str
    name: str

    async def send(self, body: str | dict[str, Any]) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        await self.hands.call("sqs", "SendMessage", QueueUrl=self.url, MessageBody=text)

    async def left(self) -> int:
        """Messages in it, hidden ones too."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        told = await self.hands.call(
            "sqs", "GetQueueAttributes", QueueUrl=self.url, AttributeNames=names
        )
        return sum(int(told["Attributes"][name]) for name in names)

    async def until_left(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.left() != number:  # noqa: ASYNC110 - a queue tells nobody
                await asyncio.sleep(0.02)


async def new_queue(url: str, **attributes: str) -> TestQueue:
    hands, name = Hands(url), f"q{uuid.uuid4().hex[:8]}"
    made = await hands.call("sqs", "CreateQueue", QueueName=name, Attributes=attributes)
    return TestQueue(hands, str(made["QueueUrl"]), name)


def documented_pattern() -> dict[str, Any]:
    """What the rule of `docs/change-feeds.md` sends."""
    [text] = re.findall(r"--event-pattern '([^']+)'", _PAGE.read_text("utf-8"))
    pattern: dict[str, Any] = json.loads(text)
    return pattern


async def route_events(queue: TestQueue) -> None:
    """The rule of the page, to a queue."""
    call, pattern = queue.hands.call, json.dumps(documented_pattern())
    await call("events", "PutRule", Name=queue.name, EventPattern=pattern)
    target = {"Id": "svsync", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue.name}"}
    await call("events", "PutTargets", Rule=queue.name, Targets=[target])


async def happen(queue: TestQueue, event: dict[str, Any]) -> None:
    """Hand an event to EventBridge, as CloudTrail does."""
    entry = {
        "Source": event["source"],
        "DetailType": event["detail-type"],
        "Detail": json.dumps(event["detail"]),
    }
    told = await queue.hands.call("events", "PutEvents", Entries=[entry])
    assert told["FailedEntryCount"] == 0


def sqs_feed(
    url: str, queue_url: str, *, guard: BackendGuard | None = None, **options: Any
) -> SqsFeed:
    """A feed at a server; a call that fails is not made again, unless by a guard given."""

    async def credential() -> Credential:
        return Credential.parse(KEYS, "env:AWS_KEYS")

    return SqsFeed(
        queue_url,
        AwsSettings(region=REGION, endpoint_url=url),
        credential,
        LOOPBACK,
        guard or BackendGuard(retry=RetryPolicy(attempts=1)),
        **options,
    )


def aws_event(
    name: str = "PutSecretValue", secret: str = "app/db", **detail: Any
) -> dict[str, Any]:
    """What EventBridge sends of a call that CloudTrail recorded."""
    asked = {"name": secret} if name == "CreateSecret" else {"secretId": secret}
    return {
        "version": "0",
        "id": "5e2bd4a1-6a4a-4a6e-8f58-9a5a1c3f0a11",
        "detail-type": "AWS API Call via CloudTrail",
        "source": "aws.secretsmanager",
        "account": ACCOUNT,
        "time": "2026-11-23T10:00:00Z",
        "region": REGION,
        "resources": [],
        "detail": {
            "eventVersion": "1.08",
            "eventSource": "secretsmanager.amazonaws.com",
            "eventName": name,
            "awsRegion": REGION,
            "requestParameters": asked,
            "responseElements": None,
            **detail,
        },
    }
