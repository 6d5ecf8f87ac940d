"""Does `svsync serve` run for ever, do its work unasked, and stop as it is told?"""

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.acceptance.conftest import Desk
from tests.acceptance.serving import Served, ask, new_token, serving
from tests.patience import PATIENCE_S
from tests.postgres import connected, relayed
from tests.program import Program, until
from tests.servers import FaultyTcp, Front

from svsync.services.sync import intake

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def row(desk: Desk, query: str, *args: object) -> Any:
    async with connected(desk.database) as admin:
        return await admin.fetchrow(query, *args)


async def run_ended(desk: Desk, backend: str) -> Any:
    """The first run of a backend that came to its end, once there is one."""
    query = (
        "SELECT * FROM runs WHERE backend_id = $1 AND state IN ('completed', 'failed')"
        " ORDER BY run_id LIMIT 1"
    )

    async def found() -> bool:
        return await row(desk, query, backend) is not None

    await until(found)
    return await row(desk, query, backend)


class Gate:
    """An answer of a front that is given once the gate is open."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._open = asyncio.Event()
        self.reached = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.reached.set()
        await self._open.wait()
        return await self._front.forward(request)

    def open(self) -> None:
        self._open.set()


# --- started ----------------------------------------------------------------------


async def test_service_starts_on_nothing_says_where_it_listens_and_leaves_nothing_running(
    desk: Desk, state_dir: Path
) -> None:
    program = Program({"SVSYNC_STATE_DIR": str(state_dir)}, desk.folder)
    async with serving(program) as served:
        assert served.told("serving")[0]["detail"] == "on an embedded PostgreSQL"
        assert (await ask(served.url, "/healthz")).text == "ok"
        ready = await ask(served.url, "/readyz")
        assert (ready.status, ready.json["ready"]) == (200, True)
        page = await ask(served.metrics)
        assert "svsync_workers" in page.text
        assert await served.stopped() == 0
    assert not (state_dir / "postgres/data/postmaster.pid").exists()


async def test_backend_of_the_file_is_synced_without_anybody_asking(desk: Desk) -> None:
    value = {"v": desk.program.canary.value()}
    await desk.bao.put("unasked/a", value)
    rule = {"local": "unasked/**", "remote": f"{desk.bao.mount}/data/unasked/**"}
    backend, file = desk.backend(path_mapping=[rule])
    async with serving(desk.program, "--config", str(file)) as served:
        ended = await run_ended(desk, backend)
        assert (ended["trigger"], ended["kind"], ended["result"]) == ("schedule", "full", "ok")
        assert await served.stopped() == 0
    got = await desk.program(
        "secrets", "get", "unasked/a", "--json", "--config", str(file), reveals=True
    )
    assert got.json["data"] == value


async def test_metrics_name_types_where_there_are_more_backends_than_configured(
    desk: Desk,
) -> None:
    backend, file = desk.backend()
    args = ("--config", str(file))
    async with serving(desk.program, *args, SVSYNC_METRICS_MAX_BACKENDS="0") as served:
        await run_ended(desk, backend)
        page = (await ask(served.metrics)).text
        assert 'backend="hashicorp-vault"' in page
        assert backend not in page
        assert await served.stopped() == 0


async def test_run_that_is_asked_for_by_http_is_worked_and_can_be_looked_up(desk: Desk) -> None:
    rule = {"local": "asked/**", "remote": f"{desk.bao.mount}/data/asked/**"}
    backend, file = desk.backend(path_mapping=[rule])
    token = await new_token(desk.program, "--config", str(file))
    async with serving(desk.program, "--config", str(file)) as served:
        await run_ended(desk, backend)
        await desk.bao.put("asked/b", {"v": 1})
        path = f"/v1/federation/backends/{backend}"
        assert (await ask(served.url, f"{path}/sync", body={})).status == 401
        asked = await ask(served.url, f"{path}/sync", body={"paths": ["asked/b"]}, token=token)
        assert asked.status == 202
        run: dict[str, Any] = {}

        async def ended() -> bool:
            run.update(
                (await ask(served.url, f"{path}/runs/{asked.json['run_id']}", token=token)).json
            )
            return run["state"] not in ("queued", "running")

        await until(ended)
        assert (run["state"], run["kind"], run["trigger"]) == ("completed", "targeted", "api")
        assert run["counts"]["created"] == 1


@pytest.mark.parametrize(
    ("args", "changes", "word"),
    [
        (("--role", "worker,boss"), {}, "'boss'"),
        ((), {"REDIS_URL": "http://127.0.0.1:1"}, "REDIS_URL"),
        ((), {"REDIS_URL": "redis://127.0.0.1:1/database"}, "REDIS_URL"),
        (("--config", "missing.yaml"), {}, "missing.yaml"),
    ],
)
async def test_wrong_setting_is_one_sentence_and_exit_2(
    desk: Desk, args: tuple[str, ...], changes: dict[str, str], word: str
) -> None:
    async with serving(desk.program, *args, ready=False, **changes) as served:
        assert await served.code() == 2
    assert served.told("serving") == []
    [sentence] = served.sentences
    assert word in sentence


@pytest.mark.parametrize("setting", ["BIND_ADDRESS", "METRICS_ADDRESS"])
async def test_port_that_somebody_else_has_is_one_sentence_and_exit_1(
    desk: Desk, setting: str
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        async with serving(desk.program, ready=False, **{setting: address}) as served:
            assert await served.code() == 1
    [sentence] = served.sentences
    assert address in sentence


# --- roles ------------------------------------------------------------------------


async def roles_of(desk: Desk, served: Served) -> list[str] | None:
    """What the list of processes that are up says of one."""
    query = "SELECT roles FROM instances WHERE instance_id LIKE '%:' || $1::text"
    found = await row(desk, query, str(served.process.pid))
    return None if found is None else found["roles"]


async def test_process_for_reads_only_runs_no_worker_and_another_one_does(desk: Desk) -> None:
    rule = {"local": "roles/**", "remote": f"{desk.bao.mount}/data/roles/**"}
    backend, file = desk.backend(path_mapping=[rule])
    at = ("--config", str(file))
    token = await new_token(desk.program, *at)
    async with serving(desk.program, "--role", "api", *at) as api:
        asked = await ask(api.url, f"/v1/federation/backends/{backend}/sync", body={}, token=token)
        assert asked.status == 202
        async with serving(desk.program, "--role", "worker", *at) as worker:
            assert worker.told("serving")[0]["address"] is None
            ended = await run_ended(desk, backend)
            assert ended["run_id"] == asked.json["run_id"]
            assert ended["worker"].endswith(f":{worker.process.pid}")
            assert await roles_of(desk, api) == ["api"]
            assert await roles_of(desk, worker) == ["worker"]
            assert await worker.stopped() == 0
        assert await api.stopped() == 0
    assert await roles_of(desk, api) is None
    assert await roles_of(desk, worker) is None
    made = await row(desk, "SELECT count(*) AS n FROM runs WHERE backend_id = $1", backend)
    assert made["n"] == 1, "nobody had the schedule"


# --- stopped ----------------------------------------------------------------------


async def fill(desk: Desk, folder: str, number: int) -> None:
    """So many secrets at once."""
    headers = {"X-Vault-Token": desk.token}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def put(n: int) -> None:
            url = f"{desk.bao.url}/v1/{desk.bao.mount}/data/{folder}/{n:05}"
            async with session.post(url, json={"data": {"n": str(n)}}) as answer:
                assert answer.status == 200

        for at in range(0, number, 100):
            await asyncio.gather(*map(put, range(at, min(at + 100, number))))


async def test_stopped_under_load_it_gives_its_run_back_and_the_next_process_goes_on(
    desk: Desk,
) -> None:
    number = 3 * intake.BATCH
    await fill(desk, "many", number)
    async with Front(desk.bao.url) as front:
        gate = Gate(front)
        front.answer(rf"GET .*/data/many/{intake.BATCH + 5:05}$", gate)
        rule = {"local": "many/**", "remote": f"{desk.bao.mount}/data/many/**"}
        backend, file = desk.backend(path_mapping=[rule], config={"endpoint": front.url})
        at = ("--config", str(file))
        async with serving(desk.program, *at) as first:
            await asyncio.wait_for(gate.reached.wait(), PATIENCE_S)
            first.tell(signal.SIGTERM)
            await first.says("stopping")
            gate.open()
            assert await first.code() == 0
        left = await row(desk, "SELECT * FROM runs WHERE backend_id = $1", backend)
        assert (left["state"], left["handed_over"]) == ("queued", True)
        lease = await row(desk, "SELECT * FROM leases WHERE backend_id = $1", backend)
        assert lease["holder"] is None
        here = await row(
            desk, "SELECT count(*) AS n FROM sync_state WHERE backend_id = $1", backend
        )
        assert 0 < here["n"] < number
        listings = [line for line in front.seen if "metadata/many" in line]
        async with serving(desk.program, *at) as second:
            ended = await run_ended(desk, backend)
            assert await second.stopped() == 0
        assert [line for line in front.seen if "metadata/many" in line] == listings
    assert (ended["run_id"], ended["result"]) == (left["run_id"], "ok")
    counts = json.loads(ended["counts"])
    assert (counts["listed"], counts["created"]) == (number, number)
    events = await row(
        desk, "SELECT array_agg(type) AS types FROM outbox WHERE backend_id = $1", backend
    )
    assert [kind for kind in events["types"] if ".sync." in kind] == ["federation.sync.completed"]


async def test_second_signal_ends_the_service_at_once(desk: Desk) -> None:
    async with Front(desk.bao.url) as front:
        gate = Gate(front)
        front.answer("metadata/stuck", gate)
        rule = {"local": "stuck/**", "remote": f"{desk.bao.mount}/data/stuck/**"}
        _, file = desk.backend(path_mapping=[rule], config={"endpoint": front.url})
        async with serving(desk.program, "--config", str(file)) as served:
            await asyncio.wait_for(gate.reached.wait(), PATIENCE_S)
            served.tell(signal.SIGTERM)
            await served.says("stopping")
            assert served.process.returncode is None
            served.tell(signal.SIGTERM)
            assert await served.code() == 128 + signal.SIGTERM


async def test_service_that_waits_for_its_store_at_its_start_can_be_stopped(desk: Desk) -> None:
    host, _, port = desk.bao.url.removeprefix("http://").rpartition(":")
    async with FaultyTcp((host, int(port))) as silent:
        silent.fault = "hang"
        url = f"postgresql://svsync@127.0.0.1:{silent.port}/svsync"
        async with serving(desk.program, ready=False, DATABASE_URL=url) as served:
            await until(lambda: silent.connections > 0)
            assert await served.stopped() == 128 + signal.SIGTERM
    assert served.sentences == ["svsync: interrupted"]


async def test_service_whose_store_falls_silent_can_be_stopped(desk: Desk) -> None:
    async with (
        relayed(desk.program.environment["DATABASE_URL"]) as (relay, url),
        serving(desk.program, DATABASE_URL=url) as served,
    ):
        relay.frozen = True
        await served.says("schedule_waits")
        assert await served.stopped() == 0


async def test_request_under_way_at_sigterm_is_answered_and_nobody_else_is_let_in(
    desk: Desk,
) -> None:
    backend, file = desk.backend()
    at = ("--config", str(file))
    token = await new_token(desk.program, *at)
    async with serving(desk.program, "--role", "api", *at) as served:
        host, _, port = served.url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"POST /v1/federation/backends/{backend}/sync HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        writer.write(head.encode() + b"{")
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
        served.tell(signal.SIGTERM)

        async def nobody_is_let_in() -> bool:
            try:
                _, another = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                return True
            another.close()
            return False

        await until(nobody_is_let_in)
        writer.write(b"}")
        assert (await reader.readline()).split()[1] == b"202"
        writer.close()
        assert await served.code() == 0


# --- another configuration --------------------------------------------------------


def changed(file: Path, **changes: object) -> None:
    """The file's one backend with other settings."""
    document = json.loads(file.read_text())
    document["backends"][0].update(changes)
    file.write_text(json.dumps(document))


async def reloaded(served: Served, event: str, times: int = 1) -> dict[str, Any]:
    served.tell(signal.SIGHUP)
    return await served.says(event, times)


async def test_good_file_is_taken_at_sighup_and_a_bad_one_is_kept_out_and_said(desk: Desk) -> None:
    rule = {"local": "reload/**", "remote": f"{desk.bao.mount}/data/reload/**"}
    backend, file = desk.backend(path_mapping=[rule])
    named = "SELECT name, spec::text AS spec FROM backends WHERE backend_id = $1"
    async with serving(desk.program, "--config", str(file)) as served:
        await run_ended(desk, backend)
        changed(file, name="renamed")
        await reloaded(served, "reloaded")
        assert (await row(desk, named, backend))["name"] == "renamed"

        good = file.read_text()
        changed(file, sync_interval="soon")
        refused = await reloaded(served, "reload_refused")
        assert "sync_interval" in refused["detail"]
        file.write_text("backends: [")
        refused = await reloaded(served, "reload_refused", 2)
        assert file.name in refused["detail"]
        assert (await row(desk, named, backend))["name"] == "renamed"
        assert (await ask(served.url, "/readyz")).status == 200

        file.write_text(good)
        document = json.loads(good)
        document["shutdown_grace"] = "3s"
        document["backends"] = []
        file.write_text(json.dumps(document))
        await reloaded(served, "reloaded", 2)
        later = await served.says("restart_needed")
        assert later["detail"].endswith(": shutdown_grace")
        state = await row(desk, "SELECT state FROM backends WHERE backend_id = $1", backend)
        assert state["state"] == "paused"
        assert await served.stopped() == 0
    async with connected(desk.database) as admin:
        told = await admin.fetch(
            "SELECT action, identity_type, identity_id FROM audit WHERE backend_id = $1"
            " ORDER BY at, chain_id, seq",
            backend,
        )
    verbs = ("federation.create", "federation.update", "federation.pause")
    assert [tuple(found) for found in told] == [(verb, "system", "svsync") for verb in verbs]


async def test_file_that_meets_a_store_that_is_away_is_taken_once_it_is_back(desk: Desk) -> None:
    backend, file = desk.backend()
    async with (
        relayed(desk.program.environment["DATABASE_URL"]) as (relay, url),
        serving(desk.program, "--role", "api", "--config", str(file), DATABASE_URL=url) as served,
    ):
        relay.leave()
        changed(file, name=f"{backend}-renamed")
        waits = await reloaded(served, "reload_waits")
        assert waits["level"] == "warn"
        relay.away = False
        await served.says("reloaded")
        assert served.told("reload_refused") == []
        assert await served.stopped() == 0


@pytest.mark.parametrize("step", ["compiled", "applied"])
async def test_log_level_of_a_file_is_taken_with_all_of_the_file_or_not(
    desk: Desk, step: str
) -> None:
    backend, file = desk.backend()
    document = json.loads(file.read_text())
    [spec] = document["backends"]
    own_credential = {**spec["config"], "auth_config_path": f"{backend}/credential"}
    spoilt = {
        "compiled": [spec, {**spec, "id": f"{backend}_again", "name": "again"}],
        "applied": [{**spec, "config": own_credential}],
    }
    quiet = {**document, "log_level": "warn", "shutdown_grace": "3s"}
    async with serving(desk.program, "--role", "api", "--config", str(file)) as served:
        file.write_text(json.dumps({**quiet, "backends": spoilt[step]}))
        refused = await reloaded(served, "reload_refused")
        assert backend in refused["detail"]
        await ask(served.url, "/healthz")
        await served.says("request")

        file.write_text(json.dumps(quiet))
        await reloaded(served, "restart_needed")
        await ask(served.url, "/healthz")
        assert await served.stopped() == 0
    assert len(served.told("request")) == 1
    assert served.told("reloaded") == []


# --- systemd ----------------------------------------------------------------------


class Manager:
    """The socket on which a service manager listens."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.got: list[str] = []

    def __enter__(self) -> "Manager":
        asyncio.get_running_loop().add_reader(self._socket, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _take(self) -> None:
        self.got.append(self._socket.recv(4096).decode())

    async def hears(self, start: str, times: int = 1) -> str:
        def found() -> list[str]:
            return [text for text in self.got if text.startswith(start)]

        await until(lambda: len(found()) >= times)
        return found()[times - 1]


async def test_systemd_is_told_how_the_service_is(desk: Desk, state_dir: Path) -> None:
    file = desk.file({})
    with Manager(state_dir / "notify") as manager:
        async with serving(
            desk.program,
            "--config",
            str(file),
            NOTIFY_SOCKET=str(state_dir / "notify"),
            WATCHDOG_USEC="200000",
        ) as served:
            await manager.hears("READY=1")
            assert "workers busy" in await manager.hears("STATUS=")
            await manager.hears("WATCHDOG=1", 3)
            served.tell(signal.SIGHUP)
            assert "\nMONOTONIC_USEC=" in await manager.hears("RELOADING=1")
            await manager.hears("READY=1", 2)
            assert await served.stopped() == 0
            await manager.hears("STOPPING=1")
        told = [text.partition("=")[0] for text in manager.got]
        assert told.index("READY") < told.index("RELOADING") < told.index("STOPPING")
