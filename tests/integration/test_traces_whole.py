"""Is what svsync does told as one whole: runs with their parts, requests, deliveries?"""

import secrets
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from tests.api import BACKENDS, api_of
from tests.canary import Canary
from tests.collector import Collector, collecting
from tests.house import BACKEND, counts, open_house
from tests.receivers import Receiver, WebhookDesk

from svsync.app import new_id, open_webhooks
from svsync.domain.errors import BackendUnreachableError
from svsync.domain.federation import ConflictPolicy, Writes
from svsync.domain.runs import Stage
from svsync.http.listening import listening
from svsync.http.server import make_server
from svsync.observe.opening import open_tracer
from svsync.services.access import Access


def at(collector: Collector) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}


Place = tuple[str, str, Path]


@pytest.fixture
def place(database_url: str, admin_url: str, state_dir: Path) -> Place:
    return database_url, admin_url, state_dir


async def test_run_is_a_tree_of_its_stages_and_calls_with_nothing_secret_in_it(
    place: Place, canary: Canary
) -> None:
    value = canary.value
    async with (
        collecting() as collector,
        open_tracer(at(collector)) as tracer,
        open_house(*place, tracer=tracer) as house,
    ):
        await house.configure(
            writes=Writes.WRITE_THROUGH, conflict_resolution=ConflictPolicy.LOCAL_WINS
        )
        house.there.put("kv/hidden-name", {"k": value("1")})
        house.there.put("kv/b", {"k": value("2")})
        await house.run()
        house.there.put("kv/b", {"k": value("theirs")})
        await house.write("ext/b", {"k": value("ours")})
        ended = await house.run()
    canary.watch("the spans", collector.everything)
    assert b"hidden-name" not in collector.everything()
    spans = collector.spans
    runs = {span.attributes["svsync.run_id"]: span for span in spans if span.name == "run"}
    whole = runs[ended.record.run_id]
    assert whole.attributes["svsync.backend_id"] == BACKEND
    assert whole.attributes["svsync.run_kind"] == "full"
    assert whole.attributes["svsync.trigger"] == "run_once"
    assert whole.attributes["svsync.result"] == ended.record.result
    told = {
        name.removeprefix("svsync.count."): n
        for name, n in whole.attributes.items()
        if name.startswith("svsync.count.") and n
    }
    assert told == counts(ended)
    first = [span for span in spans if span.trace in {run.trace for run in runs.values()}]
    ids = {span.id: span for span in first}
    assert all(span.parent in ids for span in first if span.name != "run")
    assert {span.name for span in first if span.trace == whole.trace} >= {*map(str, Stage)}
    for call in (span for span in first if span.name == "backend list"):
        assert ids[call.parent].name == "list"


async def test_run_that_fails_says_where_and_by_what(place: Place) -> None:
    async with (
        collecting() as collector,
        open_tracer(at(collector)) as tracer,
        open_house(*place, tracer=tracer) as house,
    ):

        async def away(operation: str, path: str) -> None:
            raise BackendUnreachableError("nobody answers", operation="connect")

        house.there.before = away
        ended = await house.run()
    whole = collector.only("run")
    assert whole.attributes["svsync.result"] == "failed" == ended.record.result
    assert whole.attributes["error.type"] == "backend_unreachable"
    assert (whole.failed, collector.only("connect").failed) == (True, True)


async def test_requests_of_the_api_are_spans_of_their_routes(place: Place) -> None:
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with (
        collecting() as collector,
        open_tracer(at(collector)) as tracer,
        open_house(*place) as house,
    ):
        access = Access(house.app.db, ids=new_id, random=secrets.token_bytes)
        made = replace(house.app.settings, bind_address="127.0.0.1:0")
        server = make_server(api_of(house, access), tracer=tracer)
        async with (
            listening(server, made, grace=5) as listener,
            aiohttp.ClientSession(headers={"traceparent": caller}) as session,
            session.get(f"{listener.url}{BACKENDS}/{BACKEND}/status") as answer,
        ):
            assert answer.status == 401
    span = collector.only(f"GET {BACKENDS}/{{id}}/status")
    assert span.attributes["http.response.status_code"] == 401
    assert f"00-{span.trace}-{span.parent}-01" == caller


async def test_deliveries_are_spans(place: Place) -> None:
    async with (
        collecting() as collector,
        open_tracer(at(collector)) as tracer,
        open_house(*place) as house,
    ):
        settings = replace(house.app.settings, allow_private_targets=True)
        async with (
            open_webhooks(replace(house.app, settings=settings), tracer=tracer) as (hooks, sent),
            Receiver() as receiver,
        ):
            desk = WebhookDesk(house, None, hooks, sent)  # type: ignore[arg-type]
            await desk.endpoint(receiver.url)
            await desk.tell()
            assert await sent.deliver_due() == 1
    span = collector.only("webhook delivery")
    assert span.attributes == {"svsync.tenant": "default", "svsync.status": "delivered"}
