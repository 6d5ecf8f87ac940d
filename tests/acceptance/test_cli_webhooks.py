"""Webhooks on the command line, from the first endpoint to the last."""

import pytest
from tests.acceptance.conftest import Desk
from tests.receivers import Receiver

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_endpoint_from_its_making_to_its_end(desk: Desk) -> None:
    at = ("--json", "--config", str(desk.file({"allow_private_targets": True})))
    async with Receiver() as receiver:
        added = await desk.program(
            "webhooks", "add", receiver.url, "--type", "federation.sync.failed", "--path", "a/**",
            "--only-if-changed", *at,
        )  # fmt: skip
        assert added.code == 0
        endpoint, secret = added.json["id"], added.json["secret"]
        [listed] = (await desk.program("webhooks", "list", *at)).json["webhooks"]
        assert (listed["id"], listed["path_patterns"]) == (endpoint, ["a/**"])
        assert secret not in str(listed)
        assert (await desk.program("webhooks", "test", endpoint, *at)).json["delivered"]
        rotated = await desk.program("webhooks", "rotate", endpoint, *at)
        assert (await desk.program("webhooks", "test", endpoint, *at)).code == 0
        first, second = receiver.got
        assert first.verified_by(secret)
        assert second.verified_by(secret) == second.verified_by(rotated.json["secret"])
        receiver.answer = 500
        failed = await desk.program("webhooks", "test", endpoint, *at[1:])
        assert (failed.code, failed.out) == (
            1,
            "It did not arrive: receiver_failed, status 500.\n",
        )
    shown = await desk.program("webhooks", "deliveries", endpoint, *at)
    assert shown.json == {"deliveries": [], "next_cursor": None}
    assert (await desk.program("webhooks", "replay", endpoint, *at)).json["replayed"] == 0
    assert (await desk.program("webhooks", "remove", endpoint, *at)).code == 0
    gone = await desk.program("webhooks", "remove", endpoint, *at)
    assert (gone.code, gone.json["error"]["code"]) == (1, "webhook_not_found")
    assert "There are no webhooks" in (await desk.program("webhooks", "list", *at[1:])).out


async def test_a_target_inside_is_refused_unless_the_operator_allows_it(desk: Desk) -> None:
    at = ("--config", str(desk.file({})))
    refused = await desk.program("webhooks", "add", "http://127.0.0.1:9/x", *at)
    assert refused.code == 2
    assert "allow_private_targets" in refused.sentence
    unknown = await desk.program("webhooks", "add", "https://a.example/", "--type", "x", *at)
    assert unknown.code == 2
    assert "types[0]" in unknown.sentence
