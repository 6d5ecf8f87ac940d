"""Does `/metrics` say what is so: of runs, of backends, of a store that is away?"""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from tests.canary import Canary
from tests.house import BACKEND, TENANT, House, Odd, backend, settings_for
from tests.postgres import connected

from svsync.app import open_app
from svsync.config.model import LogFormat, LogLevel
from svsync.domain.errors import LoginError, ProtocolError, SetupError
from svsync.domain.federation import ConflictPolicy, Writes
from svsync.embedded.postgres import EmbeddedPostgres
from svsync.http.metrics import serving_metrics
from svsync.observe.logs import configure
from svsync.observe.metrics import Metrics
from svsync.services.gauges import Gauges
from svsync.store.database import statements
from svsync.testing.memory import MemoryBackend, MemoryStore

Labels = frozenset[tuple[str, str]]


@dataclass
class Scraped:
    """One answer of `/metrics`."""

    status: int
    text: str

    @property
    def samples(self) -> dict[tuple[str, Labels], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample that has these labels; None where there is none."""
        found = [
            value
            for (sample, told), value in self.samples.items()
            if sample == name and labels.items() <= dict(told).items()
        ]
        assert len(found) < 2, found
        return found[0] if found else None


@dataclass
class Watched:
    """A house, and the page of metrics of its process."""

    house: House
    metrics: Metrics
    address: str

    async def scrape(self, path: str = "/metrics", method: str = "GET") -> Scraped:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://{self.address}{path}") as answer,
        ):
            return Scraped(answer.status, await answer.text())


@asynccontextmanager
async def watching(
    database_url: str, admin_url: str, state_dir: Path, *, within: float = 5.0
) -> AsyncIterator[Watched]:
    there, spec, metrics = MemoryStore(), backend(), Metrics()
    async with (
        open_app(
            settings_for(database_url, state_dir),  # not in the file, so it can be removed
            environ={},
            drivers={"memory": Odd(there, MemoryBackend)},
            pool=4,
            meter=metrics,
        ) as app,
        connected(admin_url) as admin,
        serving_metrics(
            metrics,
            Gauges(app.db, metrics, within=within),
            "127.0.0.1:0",
            look=lambda: metrics.workers(3, 8),
        ) as (host, port),
    ):
        house = House(app, there, admin, spec)
        await house.configure()
        yield Watched(house, metrics, f"{host}:{port}")


@pytest_asyncio.fixture
async def watched(database_url: str, admin_url: str, state_dir: Path) -> AsyncIterator[Watched]:
    async with watching(database_url, admin_url, state_dir) as opened:
        yield opened


# --- runs and calls ---------------------------------------------------------------


async def test_page_has_the_numbers_of_the_runs_that_there_were(watched: Watched) -> None:
    house = watched.house
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    ended = [await house.run(), await house.run()]
    house.there.put("kv/a", {"k": "2"})
    ended.append(await house.run("ext/a"))
    await house.run(dry=True)
    page = await watched.scrape()
    assert page.status == 200
    assert page.value("svsync_sync_runs_total", backend=BACKEND, result="ok") == 3
    assert page.value("svsync_sync_duration_seconds_count", tenant="default") == 3
    assert page.value("svsync_sync_secrets_total", change="created") == 3
    assert page.value("svsync_sync_secrets_total", change="updated") == 1
    assert page.value("svsync_secrets_synced", backend=BACKEND) == 3
    assert page.value("svsync_workers_busy") == 3
    took = sum((e.record.duration_ms or 0) / 1000 for e in ended)
    told = page.value("svsync_sync_duration_seconds_sum", tenant="default")
    assert told == pytest.approx(took)


async def test_calls_are_those_that_the_backend_saw(watched: Watched) -> None:
    house = watched.house
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    page = await watched.scrape()
    for operation in ("list", "read", "login"):
        made = page.value(
            "svsync_backend_api_calls_total", backend=BACKEND, operation=operation, status="ok"
        )
        assert made == house.there.calls[operation] > 0
        timed = page.value(
            "svsync_backend_api_call_duration_seconds_count", type="memory", operation=operation
        )
        assert timed == made


async def test_backend_that_refuses_us_is_down_until_it_lets_us_in(watched: Watched) -> None:
    house = watched.house
    house.there.fail("login", LoginError("no", operation="login"))
    assert (await house.run()).record.error is not None
    page = await watched.scrape()
    assert page.value("svsync_backends_down", backend=BACKEND) == 1
    assert page.value("svsync_sync_runs_total", result="failed") == 1
    assert page.value("svsync_backend_api_calls_total", status="denied") == 1
    await house.run()
    page = await watched.scrape()
    assert page.value("svsync_backends_down", backend=BACKEND) == 0
    assert page.value("svsync_sync_runs_total", result="ok") == 1


async def test_run_whose_worker_died_is_counted_by_who_ends_it(watched: Watched) -> None:
    house = watched.house
    await house.run()
    await house.admin.execute("UPDATE runs SET state = 'running', result = NULL, ended_at = NULL")
    await house.run()
    page = await watched.scrape()
    assert page.value("svsync_sync_runs_total", result="ok") == 2
    assert page.value("svsync_sync_runs_total", result="failed") == 1


# --- how things stand -------------------------------------------------------------


async def test_staleness_is_of_the_moment_of_the_scrape(watched: Watched) -> None:
    page = await watched.scrape()
    assert page.value("svsync_last_success_timestamp_seconds", backend=BACKEND) is None
    age = page.value("svsync_staleness_seconds", backend=BACKEND)
    assert age is not None
    assert 0 <= age < 60
    await watched.house.run()
    await watched.house.admin.execute(
        "UPDATE backend_health SET last_success_at = now() - interval '2 h'"
    )
    page = await watched.scrape()
    assert page.value("svsync_staleness_seconds", backend=BACKEND) == pytest.approx(7200, abs=60)
    assert page.value("svsync_backends_stale", backend=BACKEND) == 1
    moment = await watched.house.admin.fetchval(
        "SELECT extract(epoch FROM last_success_at)::float8 FROM backend_health"
    )
    told = page.value("svsync_last_success_timestamp_seconds", backend=BACKEND)
    assert told == pytest.approx(moment)


@pytest.mark.parametrize(
    ("max_staleness", "age", "stale"),
    [(3600, 3500, 0), (3600, 3700, 1), (None, 2600, 0), (None, 2800, 1)],
)
async def test_backend_is_stale_beyond_what_it_promises_or_three_intervals(
    watched: Watched, max_staleness: int | None, age: int, stale: int
) -> None:
    await watched.house.configure(max_staleness=max_staleness, sync_interval=900)
    await watched.house.admin.execute(
        "UPDATE backend_health SET last_success_at = now() - make_interval(secs => $1)", age
    )
    page = await watched.scrape()
    assert page.value("svsync_backends_stale", backend=BACKEND) == stale
    await watched.house.app.removal.pause(TENANT, BACKEND)
    assert (await watched.scrape()).value("svsync_backends_stale", backend=BACKEND) == 0


async def test_conflicts_and_pending_pushes_are_those_of_the_status(watched: Watched) -> None:
    house = watched.house
    await house.configure(
        conflict_resolution=ConflictPolicy.MANUAL, writes=Writes.WRITE_THROUGH, seed_remote=True
    )
    for name in "ab":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    await house.admin.execute(
        "UPDATE sync_state SET status = 'pending_push' WHERE path IN ('ext/a', 'ext/b')"
    )
    for n, path in enumerate(("a", "c")):  # one of a pair that is pending, one of another
        await house.admin.execute(
            "INSERT INTO pushes (tenant_id, push_id, backend_id, path, remote_path, kind,"
            " secret_id, version, row_rev, created_by, deadline)"
            " VALUES (1, $1, $2, $3, $4, 'put', 1, 1, 1, 'test', now())",
            f"psh_{n}", BACKEND, f"ext/{path}", f"kv/{path}",
        )  # fmt: skip
    status = await house.app.federation.status(TENANT, BACKEND)
    page = await watched.scrape()
    assert page.value("svsync_pushes_pending", backend=BACKEND) == status["pending_pushes"] == 3
    assert page.value("svsync_conflicts_open", backend=BACKEND) == status["conflicts_open"] == 0
    await house.admin.execute("DELETE FROM pushes")
    await house.admin.execute(
        "INSERT INTO conflicts (tenant_id, conflict_id, backend_id, secret_id, path, remote_path,"
        " kind, state, local_version, local_state, remote_token, sealed_as)"
        " SELECT 1, 'cfl_' || n, $1, 1, 'ext/' || n, 'kv/' || n, 'modify_modify',"
        " CASE WHEN n > 2 THEN 'open' ELSE 'resolved' END, 1, 'live', '1', 'x'"
        " FROM generate_series(1, 5) n",
        BACKEND,
    )
    status = await house.app.federation.status(TENANT, BACKEND)
    page = await watched.scrape()
    assert page.value("svsync_conflicts_open", backend=BACKEND) == status["conflicts_open"] == 3


async def test_runs_that_could_begin_wait_and_those_of_a_paused_backend_do_not(
    watched: Watched,
) -> None:
    admin = watched.house.admin
    await admin.execute(
        "INSERT INTO runs (tenant_id, run_id, backend_id, kind, trigger, not_before, queued_at)"
        " VALUES (1, 'run_a', $1, 'full', 'api', now() - interval '1 h', now() - interval '5 min'),"
        " (1, 'run_b', $1, 'targeted', 'feed', now() + interval '1 h', now())",
        BACKEND,
    )
    page = await watched.scrape()
    assert page.value("svsync_requests_waiting", tenant="default") == 1
    oldest = page.value("svsync_oldest_request_seconds", tenant="default")
    assert oldest == pytest.approx(300, abs=60)
    await admin.execute("UPDATE backends SET state = 'paused'")
    page = await watched.scrape()
    assert page.value("svsync_requests_waiting", tenant="default") == 0
    assert page.value("svsync_oldest_request_seconds", tenant="default") == 0


async def test_series_end_with_their_backend_and_with_their_tenant(watched: Watched) -> None:
    house = watched.house
    await house.admin.execute("INSERT INTO tenants (tenant_id, slug) VALUES (7, 'tenant-b')")
    await house.admin.execute(
        "INSERT INTO backends SELECT (jsonb_populate_record(b, '{\"tenant_id\": 7}')).*"
        " FROM backends b"
    )
    await house.admin.execute(
        "INSERT INTO backend_health (tenant_id, backend_id) VALUES (7, $1)", BACKEND
    )
    watched.metrics.run_ended("tenant-b", BACKEND, "memory", "ok", 1.0, {})
    await house.run()
    page = await watched.scrape()
    for tenant in ("default", "tenant-b"):
        assert page.value("svsync_sync_runs_total", tenant=tenant, result="ok") == 1
        assert page.value("svsync_staleness_seconds", tenant=tenant) is not None
    await house.admin.execute("UPDATE tenants SET status = 'suspended' WHERE slug = 'tenant-b'")
    await house.app.removal.remove(TENANT, BACKEND)
    page = await watched.scrape()
    assert page.status == 200
    assert BACKEND not in page.text
    assert "tenant-b" not in page.text
    assert page.value("svsync_requests_waiting", tenant="default") == 0


async def test_page_of_five_thousand_backends_names_their_types(watched: Watched) -> None:
    admin = watched.house.admin
    await admin.execute(
        "INSERT INTO backends SELECT (jsonb_populate_record(b, jsonb_build_object("
        "'backend_id', 'fed_' || n, 'name', 'name-' || n, 'type', 'type-' || n % 3))).*"
        " FROM backends b, generate_series(1, 5000) n"
    )
    await admin.execute(
        "INSERT INTO backend_health (tenant_id, backend_id) SELECT tenant_id, backend_id"
        " FROM backends WHERE backend_id <> $1",
        BACKEND,
    )
    page = await watched.scrape()
    told = {dict(labels).get("backend") for _, labels in page.samples} - {None}
    assert told == {"type-0", "type-1", "type-2", "memory"}
    assert len(page.samples) < 200


# --- the store is away ------------------------------------------------------------


@asynccontextmanager
async def backends_locked(admin_url: str) -> AsyncIterator[None]:
    async with connected(admin_url) as other, other.transaction():
        await other.execute("LOCK TABLE backends IN ACCESS EXCLUSIVE MODE")
        yield


async def test_store_that_hangs_is_waited_for_once_and_not_for_long(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    async with watching(database_url, admin_url, state_dir, within=0.3) as watched:
        await watched.house.run()
        async with backends_locked(admin_url):
            pages = await asyncio.gather(*(watched.scrape() for _ in range(5)))
            waiting = await watched.house.admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        assert waiting == 1
        assert [page.status for page in pages] == [503] * 5
        for page in pages:
            assert page.value("process_resident_memory_bytes") is not None
            assert page.value("svsync_sync_runs_total", result="ok") == 1
            assert "svsync_staleness_seconds" not in page.text
            assert page.text.startswith("# the database has not answered in time")
        assert (await watched.scrape()).status == 200


async def test_store_that_is_away_is_told_and_comes_back(
    watched: Watched, postgres: EmbeddedPostgres
) -> None:
    name = await watched.house.admin.fetchval("SELECT current_database()")
    async with connected(postgres.admin_dsn) as elsewhere:
        await elsewhere.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await elsewhere.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = $1 AND usename = 'svsync'",
            name,
        )
        page = await watched.scrape()
        assert page.status == 503
        assert page.text.startswith("# the ")
        assert page.value("process_resident_memory_bytes") is not None
        await elsewhere.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert (await watched.scrape()).status == 200


async def test_scrape_uses_the_indexes_that_hold_the_few(database_url: str) -> None:
    """Not the tables of pairs, pushes, conflicts and runs, which grow with the secrets."""
    async with connected(database_url) as role, role.transaction():
        await role.execute("SELECT set_config('svsync.tenants', '1,2', true)")
        await role.execute("SET LOCAL enable_seqscan = off")
        plans = [
            row[0]
            for name in ("backends", "waiting")
            for row in await role.fetch(f"EXPLAIN {statements()[f'gauges.{name}']}")
        ]
    plan = "\n".join(plans)
    for index in ("conflicts_one_open", "sync_state_pending", "pushes_one_unfinished"):
        assert index in plan
    assert "runs_waiting" in plan or "runs_one_queued" in plan


# --- the door ---------------------------------------------------------------------


async def test_nothing_else_is_served(watched: Watched) -> None:
    assert (await watched.scrape("/")).status == 404
    assert (await watched.scrape("/v1/secrets")).status == 404
    assert (await watched.scrape(method="POST")).status == 405


async def test_address_that_somebody_has_is_told_in_a_sentence(watched: Watched) -> None:
    gauges = Gauges(watched.house.app.db, watched.metrics)
    with pytest.raises(SetupError, match="metrics_address") as refused:
        async with serving_metrics(watched.metrics, gauges, watched.address):
            raise AssertionError
    assert refused.value.code == "cannot_listen"


async def test_door_of_the_metrics_is_no_wider_than_that_of_the_api(watched: Watched) -> None:
    """Its connections have the same limits; here that of the number of headers."""
    host, _, port = watched.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"X-Long: x\r\n" * 200 + b"\r\n")
    answered = await reader.read()
    writer.close()
    head, _, body = answered.partition(b"\r\n\r\n")
    assert b" 400 " in head
    assert json.loads(body)["error"]["code"] == "malformed_request"


# --- no value anywhere ------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged, at its most talkative."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level, logging.lastResort)
    stream = io.StringIO()
    configure(LogLevel.DEBUG, LogFormat.JSON, stream)
    yield stream
    configure(LogLevel.INFO, LogFormat.JSON)
    root.handlers[:], level, logging.lastResort = before
    root.setLevel(level)


async def test_no_value_gets_into_metrics_or_log(watched: Watched, log: io.StringIO) -> None:
    """Not of secrets, of errors of every kind, or of what libraries say of them."""
    bird, house = Canary(), watched.house
    value = bird.value
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": value(name)})
    await house.run()
    library = logging.getLogger("hvac.adapters")

    async def break_off(operation: str, path: str) -> None:
        if operation == "read":
            try:
                raise ValueError(value("cause"))
            except ValueError as error:
                library.exception("answer %s", value("argument"))
                library.warning(f"composed {bird.marker} %s", 1)
                raise ProtocolError("no such answer", operation="read") from error

    house.there.put("kv/a", {"k": value("changed")})
    house.there.before = break_off
    broken = await house.run()
    page = await watched.scrape()
    assert page.value("svsync_sync_runs_total", result="failed") == 1
    assert bird.found_in(page.text) == set()
    assert log.getvalue().count("hvac.adapters") == 2
    assert bird.found_in(log.getvalue()) == set()
    told = [json.loads(line) for line in log.getvalue().splitlines() if "hvac" in line]
    assert {(line["tenant"], line["backend_id"], line["run_id"]) for line in told} == {
        ("default", BACKEND, broken.record.run_id)
    }
