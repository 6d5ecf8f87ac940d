"""Does a running service take an event from a queue, and serve what it tells of?"""

import json

import pytest
from tests.acceptance.conftest import Desk
from tests.acceptance.serving import ask, new_token, serving
from tests.aws import KEYS, REGION, Aws
from tests.program import until
from tests.queues import aws_event, happen, new_queue, route_events

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_change_at_aws_is_served_long_before_its_cycle(desk: Desk, roto: Aws) -> None:
    queue = await new_queue(roto.url)
    await route_events(queue)
    await roto.put("db", {"password": desk.program.canary.value()})
    spec = {
        "id": "fed_queue",
        "name": "aws",
        "type": "aws-secrets-manager",
        "mode": "sync",
        "config": {"region": REGION, "endpoint_url": roto.url, "credentials_path": "env:AWS_KEYS"},
        "path_mapping": [{"local": "queue/**", "remote": f"{roto.prefix}**"}],
        "events": [{"feed": "aws-sqs", "queue_url": queue.url}],
        "sync_interval": "7d",
        "consistency_window": "0s",
    }
    at = ("--config", str(desk.file({"allow_loopback": True, "backends": [spec]})))
    token = await new_token(desk.program, *at)
    async with serving(desk.program, *at, AWS_KEYS=KEYS) as served:

        async def serves(value: str) -> bool:
            answer = await ask(served.url, "/v1/secrets/queue/db", token=token)
            return answer.status == 200 and answer.json["data"] == {"password": value}

        async def reads(page: str, line: str) -> bool:
            return line in (await ask(page)).text

        first = json.loads(await roto.value("db"))["password"]
        await until(lambda: serves(first))
        # What happened before anybody listened is looked at once; that is over.
        await until(lambda: reads(served.metrics, 'notices_total{feed="aws-sqs",outcome="gap"} 1'))
        new = desk.program.canary.value()
        await roto.put("db", {"password": new})
        await happen(queue, aws_event(secret=f"{roto.prefix}db"))
        await until(lambda: serves(new))
        await queue.until_left(0)
        await until(lambda: reads(served.metrics, 'notices_total{feed="aws-sqs",outcome="told"} 1'))
        assert await served.stopped() == 0
