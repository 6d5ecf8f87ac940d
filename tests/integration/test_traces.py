"""Do spans reach a collector, whole and with nothing secret in them, and hold nobody up?"""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from tests.canary import Canary
from tests.collector import Collector, collecting
from tests.house import BACKEND, open_house
from tests.patience import PATIENCE_S

from svsync import __version__
from svsync.config.model import LogFormat, LogLevel
from svsync.domain.errors import BackendUnreachableError, HandedOverError
from svsync.domain.runs import Stage
from svsync.embedded.processes import free_port
from svsync.http.tracing import traced
from svsync.observe.logs import configure
from svsync.observe.opening import open_tracer, traces_endpoint
from svsync.observe.tracer import UNTRACED, RunSpan, Tracer

ABOUT = ("default", "fed_a", "hashicorp-vault")
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as one:
        yield one


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure(LogLevel.INFO, LogFormat.JSON, stream)
    yield stream
    configure(LogLevel.INFO, LogFormat.JSON)


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def at(collector: Collector) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}


def run_of(tracer: Tracer) -> Any:
    return tracer.run(*ABOUT, run_id="run_1", run_kind="full", trigger="schedule")


# --- what is told -----------------------------------------------------------------


async def test_each_call_to_a_backend_is_a_span_without_a_path(
    collector: Collector, canary: Canary, database_url: str, admin_url: str, state_dir: Path
) -> None:
    async with (
        open_tracer(at(collector)) as tracer,
        open_house(database_url, admin_url, state_dir, tracer=tracer) as house,
    ):
        house.there.put("kv/hidden-name", {"k": canary.value()})
        house.there.put("kv/denied/x", {"k": "1"})
        house.there.denied.add("kv/denied/")
        ended = await house.run()
    canary.watch("the spans", collector.everything)
    assert b"hidden-name" not in collector.everything()
    called = {operation: n for operation, n in ended.report.api_calls().items() if n}
    assert called == {
        operation: len(collector.named(f"backend {operation}")) for operation in called
    }
    read = collector.only("backend read")
    assert read.attributes == {
        "svsync.tenant": "default",
        "svsync.backend_id": BACKEND,
        "svsync.backend_type": "memory",
        "svsync.operation": "read",
        "svsync.status": "ok",
    }
    assert not read.failed


async def test_call_that_failed_says_how(collector: Collector) -> None:
    async with open_tracer(at(collector)) as tracer:
        tracer.backend_called(*ABOUT, "list", "throttled", 1.5)
    span = collector.only("backend list")
    assert (span.failed, span.attributes["svsync.status"]) == (True, "throttled")
    assert span.seconds == pytest.approx(1.5)


async def test_run_is_one_trace_of_its_stages_and_their_calls(collector: Collector) -> None:
    async with open_tracer(at(collector)) as tracer:
        with tracer.request("POST", CALLER), run_of(tracer) as run:
            with run.stage(Stage.LIST):
                tracer.backend_called(*ABOUT, "list", "ok", 0.1)
                with run.stage(Stage.STAGE):
                    pass
            run.ended("partial", {"created": 3, "skipped": 1})
    whole = collector.only("run")
    assert whole.parent == ""
    assert whole.attributes == {
        "svsync.tenant": "default",
        "svsync.backend_id": "fed_a",
        "svsync.backend_type": "hashicorp-vault",
        "svsync.run_id": "run_1",
        "svsync.run_kind": "full",
        "svsync.trigger": "schedule",
        "svsync.result": "partial",
        "svsync.count.created": 3,
        "svsync.count.skipped": 1,
    }
    assert not whole.failed
    listing = collector.only("list")
    assert listing.parent == whole.id
    assert collector.only("stage").parent == listing.id
    assert collector.only("backend list").parent == listing.id
    assert {span.trace for span in collector.spans if span.name != "POST"} == {whole.trace}
    assert collector.resource["service.name"] == "svsync"
    assert collector.resource["service.version"] == __version__


async def test_failure_is_told_by_its_code_and_never_by_its_text(
    collector: Collector, canary: Canary
) -> None:
    def work(run: RunSpan) -> None:
        with suppress(BackendUnreachableError), run.stage(Stage.FETCH):
            raise BackendUnreachableError(canary.value(), operation="read")
        raise ValueError(canary.marker)

    async with open_tracer(at(collector)) as tracer:
        with pytest.raises(ValueError, match=canary.marker), run_of(tracer) as run:
            work(run)
    canary.watch("the spans", collector.everything)
    stage, run_span = collector.only("fetch"), collector.only("run")
    assert (stage.failed, stage.attributes["error.type"]) == (True, "backend_unreachable")
    assert (run_span.failed, run_span.attributes["error.type"]) == (True, "ValueError")
    assert [span.events for span in collector.spans] == [0, 0]


async def test_run_that_ended_failed_says_by_what(collector: Collector) -> None:
    async with open_tracer(at(collector)) as tracer:
        with run_of(tracer) as run:
            run.ended("failed", {}, "mass_delete_guard")
    span = collector.only("run")
    assert (span.failed, span.attributes["error.type"]) == (True, "mass_delete_guard")


async def test_run_that_is_given_back_did_not_fail(collector: Collector) -> None:
    async with open_tracer(at(collector)) as tracer:
        with suppress(HandedOverError), run_of(tracer) as run:
            run.ended("handed_over", {})
            raise HandedOverError("the run goes on elsewhere")
    span = collector.only("run")
    assert (span.failed, span.attributes["svsync.result"]) == (False, "handed_over")


async def test_delivery_of_a_webhook_is_a_span(collector: Collector) -> None:
    async with open_tracer(at(collector)) as tracer:
        tracer.webhook_delivered("acme", "delivered", 0.2)
        tracer.webhook_delivered("acme", "dead", 0.2)
    told = [(s.attributes, s.failed) for s in collector.named("webhook delivery")]
    assert told == [
        ({"svsync.tenant": "acme", "svsync.status": "delivered"}, False),
        ({"svsync.tenant": "acme", "svsync.status": "dead"}, True),
    ]


# --- requests ---------------------------------------------------------------------


async def call(tracer: Tracer, path: str, *, method: str = "GET", **headers: str) -> int:
    """A request to a server that answers 418 to what it knows."""

    async def known(_request: web.Request) -> web.Response:
        return web.Response(status=418)

    @web.middleware
    async def answering(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
        except web.HTTPException as stopped:
            return web.Response(status=stopped.status)
        return answer

    app = web.Application(middlewares=[traced(tracer), answering])
    app.router.add_get("/v1/secrets/{path:.+}", known)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port := free_port()).start()
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://127.0.0.1:{port}{path}", headers=headers) as answer,
        ):
            return answer.status
    finally:
        await runner.cleanup()


async def test_request_is_told_by_its_route_and_belongs_to_its_callers_trace(
    collector: Collector, canary: Canary
) -> None:
    async with open_tracer(at(collector)) as tracer:
        status = await call(
            tracer,
            f"/v1/secrets/{canary.marker}?{canary.marker}",
            traceparent=CALLER,
            tracestate=f"a={canary.marker}",
            Authorization=f"Bearer {canary.marker}",
        )
    assert status == 418
    canary.watch("the spans", collector.everything)
    span = collector.only("GET /v1/secrets/{path}")
    assert (span.trace, span.parent) == tuple(CALLER.split("-")[1:3])
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/secrets/{path}",
        "http.response.status_code": 418,
    }
    assert not span.failed


async def test_of_what_is_no_route_nothing_is_told_but_the_status(
    collector: Collector, canary: Canary
) -> None:
    async with open_tracer(at(collector)) as tracer:
        assert await call(tracer, f"/{canary.marker}", method="PROPFIND") == 404
    canary.watch("the spans", collector.everything)
    assert b"PROPFIND" not in collector.everything()
    span = collector.only("_OTHER")
    assert span.parent == ""
    assert span.attributes["http.response.status_code"] == 404
    assert "http.route" not in span.attributes


@pytest.mark.parametrize("caller", ["", "nonsense", CALLER.replace("00-", "ff-"), "00-0-0-01"])
async def test_caller_that_names_no_trace_gets_one(collector: Collector, caller: str) -> None:
    async with open_tracer(at(collector)) as tracer:
        with tracer.request("GET", caller):
            pass
    assert collector.only("GET").parent == ""


async def test_request_that_is_broken_off_or_fails_is_marked(collector: Collector) -> None:
    async with open_tracer(at(collector)) as tracer:
        with tracer.request("GET", "") as span:
            span.answered("/v1/a", 503)
        with pytest.raises(asyncio.CancelledError), tracer.request("PUT", ""):
            raise asyncio.CancelledError
    assert collector.only("GET /v1/a").attributes["error.type"] == "503"
    assert collector.only("PUT").failed


# --- the collector ----------------------------------------------------------------


async def test_collector_that_hangs_holds_up_neither_work_nor_the_end(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    """The queue is full several times over, and the exporter would wait for an hour."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    go = asyncio.Event()
    collector.before = go.wait
    opened = open_tracer(at(collector))
    async with asyncio.timeout(PATIENCE_S):
        tracer: Any = await opened.__aenter__()
        for _ in range(600):
            tracer.backend_called(*ABOUT, "read", "ok", 0.1)
        await collector.arrived.wait()
        for _ in range(10_000):
            tracer.backend_called(*ABOUT, "read", "ok", 0.1)
        await tracer.aclose(within=0.05)
    assert not go.is_set()
    assert [line["event"] for line in lines(log) if line["event"] == "traces_lost"] != []
    go.set()


async def test_collector_that_is_lost_is_told_once_and_when_it_is_back(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    collector.answer = 400

    async def arrives(tracer: Tracer) -> None:
        collector.arrived.clear()
        tracer.webhook_delivered("acme", "delivered", 0.1)
        await collector.arrived.wait()

    async with open_tracer(at(collector)) as tracer:
        await arrives(tracer)
        await arrives(tracer)
        collector.answer = 200
        await arrives(tracer)
    told = [line["event"] for line in lines(log)]
    assert told == ["traces_lost", "traces_arrive"]
    assert lines(log)[0]["level"] == "warn"
    assert collector.url not in log.getvalue()


# --- whether anything is told at all ----------------------------------------------


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c/x/"}, "http://c/x/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t"}, "http://c/t"),
        (
            {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://d",
            },
            "http://c/t",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "TRUE"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_standard_variables_say_where_spans_go(
    environ: dict[str, str], endpoint: str | None
) -> None:
    assert traces_endpoint(environ) == endpoint


async def test_missing_packages_are_one_sentence_and_stop_nothing(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    monkeypatch.delitem(sys.modules, "svsync.observe.otel", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    async with open_tracer(at(collector)) as tracer:
        assert tracer is UNTRACED
    [line] = lines(log)
    assert (line["level"], line["event"]) == ("warn", "not_traced")
    assert "install svsync[otel]" in line["detail"]


@pytest.mark.parametrize(
    ("endpoint", "queue"), [("collector:4318", ""), ("http://127.0.0.1:1", "-1")]
)
async def test_variable_that_cannot_be_used_is_one_sentence_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, log: io.StringIO, endpoint: str, queue: str
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", queue or "2048")
    async with open_tracer({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}) as tracer:
        assert tracer is UNTRACED
    [line] = lines(log)
    assert line["event"] == "not_traced"
    assert "such as http://127.0.0.1:4318" in line["detail"]


def test_without_a_collector_nothing_of_opentelemetry_is_loaded() -> None:
    code = (
        "import asyncio, sys\n"
        "import svsync.cli.opening, svsync.daemon.service\n"
        "from svsync.observe.opening import open_tracer\n"
        "async def run():\n"
        "    async with open_tracer({}) as tracer:\n"
        "        tracer.webhook_delivered('a', 'delivered', 0.1)\n"
        "        with tracer.request('GET', '') as request:\n"
        "            request.answered('', 200)\n"
        "asyncio.run(run())\n"
        "print(*sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert "svsync.observe.opening" in loaded
    assert not [name for name in loaded if name.startswith("opentelemetry")]
