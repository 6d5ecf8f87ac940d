"""Does a running service hear of a change over HTTP, and tell of it by a webhook?"""

import json

import pytest
from tests.acceptance.conftest import Desk
from tests.acceptance.serving import ask, new_token, serving
from tests.program import until
from tests.receivers import Message, Receiver

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_change_that_is_told_of_reaches_who_waits_for_it(desk: Desk) -> None:
    rule = {"local": "told/**", "remote": f"{desk.bao.mount}/data/told/**"}
    backend, file = desk.backend(path_mapping=[rule], events=[{"feed": "http"}], sync_interval="7d")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"allow_private_targets": True}))
    at = ("--config", str(file))
    token = await new_token(desk.program, *at)
    secret = (await desk.program("feeds", "add", "--backend", backend, "--json", *at)).json
    async with Receiver() as receiver, serving(desk.program, *at) as served:
        status = f"/v1/federation/backends/{backend}/status"

        async def synced() -> bool:
            return (await ask(served.url, status, token=token)).json["last_success_at"] is not None

        await until(synced)
        wants = {"url": receiver.url, "types": ["federation.secret.changed"]}
        hook = (await ask(served.url, "/v1/webhooks", token=token, body=wants)).json
        path = f"{desk.bao.mount}/data/told/a"
        await desk.bao.put("told/a", {"v": desk.program.canary.value()})
        sent = await ask(served.url, secret["path"], token=secret["secret"], body={"paths": [path]})
        assert (sent.status, sent.json) == (202, {"paths": 1, "full_run": False})
        await receiver.received(1)
        [message] = receiver.got
        assert named(message, hook["secret"]) == ["told/a"]
        page = (await ask(served.metrics)).text
        assert 'svsync_feed_notices_total{feed="http",outcome="told"} 1.0' in page
        assert await served.stopped() == 0


def named(message: Message, secret: str) -> list[str]:
    """The secrets that a message, which verifies, tells a change of."""
    return [one["path"] for one in message.verified_by(secret)["data"]["secrets"]]
