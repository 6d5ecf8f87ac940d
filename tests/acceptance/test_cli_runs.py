"""Does `run-once` do its cycle, tell how it went, and stop when it is told to?"""

import json
import signal
from datetime import datetime
from pathlib import Path

import trustme
from tests.acceptance.conftest import Desk
from tests.postgres import connected
from tests.program import Program, until
from tests.servers import FaultyTcp, Front

from svsync.embedded.openbao import OpenBaoServer

RUN = {
    "run_id", "backend_id", "kind", "trigger", "state", "result", "started_at", "ended_at",
    "duration_ms", "stages_ms", "counts", "api_calls", "skipped", "error",
}  # fmt: skip

_SOMEBODY_WAITS = """SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database d ON d.oid = database
                                    WHERE NOT granted AND datname = current_database())"""


async def test_a_run_pulls_reports_and_is_remembered(desk: Desk) -> None:
    marker = desk.program.canary.value()
    await desk.bao.put("apps/db", {"password": marker})
    await desk.bao.put("apps/bad name", {"password": marker})
    backend, file = desk.backend()
    at = ("--config", str(file))

    said = await desk.program("run-once", "--backend", backend, "--json", *at)
    run = said.json
    assert (said.code, said.sentences) == (0, [])
    assert set(run) == RUN
    assert (run["state"], run["result"], run["trigger"]) == ("completed", "partial", "run_once")
    assert run["counts"]["created"] == 1
    assert [s["reason"] for s in run["skipped"]] == ["illegal_path"]
    assert run["api_calls"]["read"] == 1

    again = await desk.program("--config", str(file), "--json", "run-once", "--backend", backend,
                               "--fail-on-partial")  # fmt: skip
    assert again.code == 5
    assert again.json["counts"]["created"] == 0
    assert "skipped" in again.sentence

    shown = await desk.program("runs", "show", run["run_id"], "--json", *at)
    assert shown.json == run
    listed = await desk.program("runs", "list", "--backend", "vault-1", "--json", *at)
    assert [r["run_id"] for r in listed.json["runs"]] == [again.json["run_id"], run["run_id"]]
    status = await desk.program("status", "--backend", backend, *at)
    assert "healthy" in status.out
    assert "\x1b" not in status.out


async def test_a_plan_shows_what_a_guard_would_stop_and_writes_nothing(desk: Desk) -> None:
    mount = desk.bao.mount
    for n in range(5):
        await desk.bao.put(f"guarded/s{n}", {"n": n})
    rule = {"local": "guarded/**", "remote": f"{mount}/data/guarded/**"}
    backend, file = desk.backend(path_mapping=[rule])
    at = ("--backend", backend, "--config", str(file), "--json")
    assert (await desk.program("run-once", *at)).code == 0
    for n in range(5):
        await desk.bao.remove(f"guarded/s{n}")
    await desk.bao.put("guarded/new", {"n": 5})

    planned = await desk.program("plan", *at)
    plan = planned.json
    assert planned.code == 1
    assert plan["error"]["code"] == "mass_delete_guard"
    assert [guard["code"] for guard in plan["guards"]] == ["mass_delete_guard"]
    assert sorted(p["action"] for p in plan["plan"]) == ["create", *["retain"] * 5]
    assert plan["calls_per_cycle"] > 0

    stopped = await desk.program("run-once", *at)
    assert (stopped.code, stopped.json["error"]["code"]) == (1, "mass_delete_guard")
    assert "--allow-mass-delete" in stopped.sentence
    passed = await desk.program("run-once", "--allow-mass-delete", *at)
    assert (passed.code, passed.json["counts"]["retained"]) == (0, 5)


async def test_conflicts_that_wait_are_listed_and_fail_a_run_that_asks_for_it(desk: Desk) -> None:
    await desk.bao.put("quarrel/a", {"v": 1})
    rule = {"local": "quarrel/**", "remote": f"{desk.bao.mount}/data/quarrel/**"}
    backend, file = desk.backend(path_mapping=[rule], conflict_resolution="manual")
    at = ("--config", str(file), "--json")
    await desk.program("run-once", "--backend", backend, *at)
    written = await desk.program("secrets", "write", "quarrel/a", "v=here", "--cas", "1", *at)
    assert (written.code, written.json["version"]) == (0, 2)
    await desk.bao.put("quarrel/a", {"v": 2})

    said = await desk.program("run-once", "--backend", backend, "--fail-on-conflicts", *at)
    assert (said.code, said.json["result"]) == (4, "ok")
    listed = await desk.program("conflicts", "list", "--backend", backend, *at)
    [conflict] = listed.json["conflicts"]
    assert (conflict["path"], conflict["kind"], conflict["state"]) == (
        "quarrel/a", "modify_modify", "open",
    )  # fmt: skip


async def test_one_runs_another_is_turned_away_a_third_waits(desk: Desk) -> None:
    """And SIGTERM ends the first with its report, gives the lease back and exits 143."""
    await desk.bao.put("wait/a", {"v": 1})
    host, _, port = desk.bao.url.removeprefix("http://").rpartition(":")
    async with FaultyTcp((host, int(port))) as proxy:
        proxy.fault = "hang"
        backend, file = desk.backend(config={"endpoint": f"http://127.0.0.1:{proxy.port}"})
        at = ("run-once", "--backend", backend, "--json", "--config", str(file))
        first = await desk.program.start(*at)
        await until(lambda: proxy.connections > 0)

        second = await desk.program(*at)
        assert second.code == 75
        assert set(second.json) == {"run_id", "error"}
        assert second.json["run_id"] is None
        error = second.json["error"]
        assert set(error) == {"code", "holder", "expires_at"}
        assert error["code"] == "backend_busy"
        assert error["holder"].endswith(f":{first.pid}")
        assert datetime.fromisoformat(error["expires_at"]).tzinfo is not None
        assert "--wait" in second.sentence

        third = await desk.program.start(*at, "--wait")
        assert third.stderr is not None
        assert b"waiting" in await third.stderr.readline()

        stopped = await desk.program.interrupted(first, signal.SIGTERM)
        assert stopped.code == 143
        assert (stopped.json["state"], stopped.json["error"]["code"]) == ("failed", "interrupted")
        proxy.fault = "none"
        waited = await desk.program.ended(third)
        assert waited.code == 0
        assert waited.json["counts"]["created"] >= 1


async def test_a_second_signal_ends_the_program_at_once(desk: Desk) -> None:
    host, _, port = desk.bao.url.removeprefix("http://").rpartition(":")
    async with FaultyTcp((host, int(port))) as proxy:
        proxy.fault = "hang"
        backend, file = desk.backend(config={"endpoint": f"http://127.0.0.1:{proxy.port}"})
        process = await desk.program.start("run-once", "--backend", backend, "--config", str(file))
        await until(lambda: proxy.connections > 0)
        # The database is held up, so that the first signal cannot be obeyed yet.
        async with connected(desk.database) as admin, admin.transaction():
            await admin.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
            process.send_signal(signal.SIGINT)
            await until(lambda: admin.fetchval(_SOMEBODY_WAITS))
            assert (await desk.program.interrupted(process, signal.SIGINT)).code == 130


async def test_an_embedded_store_is_stopped_when_a_run_is_interrupted(
    desk: Desk, state_dir: Path
) -> None:
    host, _, port = desk.bao.url.removeprefix("http://").rpartition(":")
    environment = {k: v for k, v in desk.program.environment.items() if k != "DATABASE_URL"}
    program = Program({**environment, "SVSYNC_STATE_DIR": str(state_dir)}, desk.folder)
    async with FaultyTcp((host, int(port))) as proxy:
        proxy.fault = "hang"
        backend, file = desk.backend(config={"endpoint": f"http://127.0.0.1:{proxy.port}"})
        process = await program.start("run-once", "--backend", backend, "--config", str(file))
        await until(lambda: proxy.connections > 0)
        assert (state_dir / "postgres/data/postmaster.pid").exists()
        said = await program.interrupted(process, signal.SIGINT)
    assert (said.code, said.sentence) == (130, "svsync: interrupted")
    assert not (state_dir / "postgres/data/postmaster.pid").exists()
    assert '"embedded_store"' in said.err


async def test_a_plan_that_failed_does_not_say_that_nothing_would_change(desk: Desk) -> None:
    backend, file = desk.backend(config={"endpoint": "http://127.0.0.1:9"})
    said = await desk.program("plan", "--backend", backend, "--config", str(file))
    assert said.code == 3
    assert "ended before it knew" in said.out
    assert "Nothing would change" not in said.out


async def test_an_unreachable_endpoint_is_exit_3_with_its_run(desk: Desk) -> None:
    backend, file = desk.backend(config={"endpoint": "http://127.0.0.1:1"})
    said = await desk.program("run-once", "--backend", backend, "--json", "--config", str(file))
    assert (said.code, said.json["error"]["code"]) == (3, "backend_unreachable")
    assert said.sentence.startswith(f"svsync: {backend}: ")
    assert "config.endpoint" in said.sentence
    tested = await desk.program("backends", "test", backend, "--json", "--config", str(file))
    assert (tested.code, tested.json["error"]["code"]) == (3, "backend_unreachable")
    status = await desk.program("status", "--json", "--config", str(file))
    found = {b["id"]: b for b in status.json["backends"]}[backend]
    assert (found["status"], found["last_success_at"]) == ("unreachable", None)


async def test_a_wrong_token_fails_without_being_shown(desk: Desk) -> None:
    backend, file = desk.backend()
    token = f"s.{desk.program.canary.marker}"
    said = await desk.program(
        "run-once", "--backend", backend, "--json", "--config", str(file), BAO_TOKEN=token
    )
    assert (said.code, said.json["error"]["code"]) == (1, "login_failed")
    assert "env:BAO_TOKEN" in said.sentence


async def test_a_page_instead_of_an_api_is_a_protocol_error(desk: Desk) -> None:
    async with Front(desk.bao.url) as front:
        front.html(".")
        backend, file = desk.backend(config={"endpoint": front.url})
        said = await desk.program("run-once", "--backend", backend, "--json", "--config", str(file))
    assert (said.code, said.json["error"]["code"]) == (1, "protocol_error")
    assert "sign in" not in said.err


async def test_a_certificate_of_a_stranger_is_refused(
    desk: Desk, openbao_tls: OpenBaoServer, tmp_path: Path
) -> None:
    stranger = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    config = {"endpoint": openbao_tls.url, "tls_verify": str(stranger)}
    backend, file = desk.backend(config=config)
    said = await desk.program("run-once", "--backend", backend, "--json", "--config", str(file))
    assert said.code == 3
    assert said.json["state"] == "failed"
    assert "certificate" in said.sentence


async def test_what_is_not_there_is_exit_1_with_an_object(desk: Desk) -> None:
    _, file = desk.backend()
    at = ("--json", "--config", str(file))
    run = await desk.program("run-once", "--backend", "fed_nope", *at)
    assert (run.code, run.json["run_id"], run.json["error"]["code"]) == (
        1, None, "backend_not_found",
    )  # fmt: skip
    tenant = await desk.program("status", "--tenant", "acme", *at)
    assert (tenant.code, json.loads(tenant.out)["error"]["code"]) == (1, "tenant_not_found")
    report = await desk.program("runs", "show", "run_x", *at)
    assert (report.code, report.json["error"]["code"]) == (1, "run_not_found")
