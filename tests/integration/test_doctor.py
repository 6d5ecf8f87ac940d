"""Is what is wrong with an installation told, each thing by itself, and nothing changed by it?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.house import BACKEND, TENANT, House, Odd, backend
from tests.postgres import connected, database_dsn

from svsync.app import make_doctor, new_id
from svsync.bus.local import LocalSignals
from svsync.config.model import Settings
from svsync.domain.audit import Decision, Entry
from svsync.domain.errors import BackendUnreachableError, SchemaError
from svsync.domain.ids import BackendId
from svsync.domain.values import SecretValue
from svsync.embedded.postgres import EmbeddedPostgres
from svsync.embedded.valkey import ValkeyServer
from svsync.ports import Check, Connection, Signals
from svsync.registry import anchors
from svsync.services.checkpoints import Checkpoints
from svsync.services.doctor import Doctor, Store
from svsync.services.findings import Finding, State
from svsync.services.overview import Overview
from svsync.services.scheduling import Scheduling
from svsync.store import schedule
from svsync.testing.memory import MemoryBackend, MemoryDriver


@dataclass
class Clinic:
    """Examines the installation of a house."""

    house: House
    driver: MemoryDriver
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        self.settings = self.house.app.settings

    async def examine(self, **changes: Any) -> list[Finding]:
        settings = replace(self.settings, **changes)
        doctor = make_doctor(settings, environ={}, drivers={"memory": self.driver})
        return [finding async for finding in doctor.examine()]

    async def of(self, check: str, **changes: Any) -> list[Finding]:
        """What is found of one thing."""
        return [f for f in await self.examine(**changes) if f.check == check]

    async def only(self, check: str, **changes: Any) -> Finding:
        [found] = await self.of(check, **changes)
        return found


@pytest.fixture
async def clinic(house: House) -> Clinic:
    return Clinic(house, MemoryDriver(house.there))


OWN = f"backend {BACKEND}"


async def test_nothing_is_wrong_with_what_is_well_and_nothing_is_changed(clinic: Clinic) -> None:
    await clinic.house.run()
    before = await clinic.house.dump()
    found = await clinic.examine()
    assert [f for f in found if f.state is State.WRONG] == []
    assert all(f.says for f in found)
    assert all(f.advice for f in found if f.state is State.WARNING)
    assert {f.check for f in found} >= {
        "files", "certificate", "database", "role", "migrations", "parameters", "clock",
        "key service", "root key", "processes", "runs", OWN, "signals",
    }  # fmt: skip
    assert await clinic.house.dump() == before


# --- the store --------------------------------------------------------------------


async def test_without_a_database_the_rest_is_examined_all_the_same(clinic: Clinic) -> None:
    away = SecretValue("postgresql://svsync:x@127.0.0.1:1/none")
    found = await clinic.examine(database_url=away)
    wrong = [f for f in found if f.state is State.WRONG]
    assert [f.check for f in wrong] == ["database"]
    assert [f.state for f in found if f.check == OWN] == [State.OK]
    assert found[-1].check == "signals"


async def test_role_that_row_level_security_does_not_hold_is_wrong(
    clinic: Clinic, admin_url: str
) -> None:
    found = await clinic.only("role", database_url=SecretValue(admin_url))
    assert found.state is State.WRONG
    assert "could read across tenants" in found.says


async def test_schema_that_waits_for_migrations_is_not_migrated(
    clinic: Clinic, postgres: EmbeddedPostgres
) -> None:
    name = f"bare_{new_id('db')[-12:]}"
    url = SecretValue(database_dsn(postgres.dsn, name))
    async with connected(postgres.admin_dsn) as admin:
        await admin.execute(f"CREATE DATABASE {name} OWNER svsync")
        try:
            soon = await clinic.only("migrations", database_url=url)
            never = await clinic.only("migrations", database_url=url, migrate_on_start=False)
            async with connected(database_dsn(postgres.admin_dsn, name)) as bare:
                assert await bare.fetchval("SELECT to_regclass('schema_migrations')") is None
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert (soon.state, never.state) == (State.WARNING, State.WRONG)
    assert "svsync migrate" in never.says


async def test_database_that_was_moved_asks_for_what_a_restore_needs(clinic: Clinic) -> None:
    await clinic.house.admin.execute("UPDATE store_home SET timeline = timeline + 1")
    found = await clinic.only("restore")
    assert found.state is State.WRONG
    assert "svsync migrate --after-restore" in found.advice


async def test_database_that_logs_parameters_is_told_of(clinic: Clinic) -> None:
    assert (await clinic.only("parameters")).state is State.OK
    name = await clinic.house.admin.fetchval("SELECT current_database()")
    await clinic.house.admin.execute(f"ALTER DATABASE {name} SET log_parameter_max_length = -1")
    found = await clinic.only("parameters")
    assert (found.state, "is -1:" in found.says) == (State.WARNING, True)


async def test_each_setting_that_logs_parameters_is_named(clinic: Clinic) -> None:
    admin = clinic.house.admin
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f"ALTER DATABASE {name} SET log_parameter_max_length_on_error = '64B'")
    await admin.execute(f"ALTER DATABASE {name} SET session_preload_libraries = 'auto_explain'")
    found = await clinic.only("parameters")
    assert found.says.startswith("log_parameter_max_length_on_error is 64B: "), "it logs no plans"
    await admin.execute(f"ALTER DATABASE {name} SET auto_explain.log_min_duration = '1min'")
    if admin.get_server_version().major < 16:
        return  # it logs no parameters there
    found = await clinic.only("parameters")
    assert "auto_explain.log_parameter_max_length is -1" in found.says
    assert "SET auto_explain.log_parameter_max_length = 0" in found.advice


async def test_role_that_may_not_ask_where_the_database_is_is_told_of(clinic: Clinic) -> None:
    assert (await clinic.only("restore")).state is State.OK
    await clinic.house.admin.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    found = await clinic.only("restore")
    assert found.state is State.WARNING
    assert "svsync migrate --after-restore" in found.advice


@pytest.mark.parametrize(
    ("ahead", "word"), [(timedelta(minutes=5), "behind"), (timedelta(minutes=-5), "ahead of")]
)
async def test_clocks_that_differ_are_told_of(clinic: Clinic, ahead: timedelta, word: str) -> None:
    @asynccontextmanager
    async def store() -> AsyncIterator[Store]:
        yield Store(clinic.house.app.db, False, SchemaError("none is looked at"))

    @asynccontextmanager
    async def hints() -> AsyncIterator[Signals]:
        yield LocalSignals()

    async def no_root(_db: object) -> None:
        raise AssertionError("without a schema there is nothing to open")

    doctor = Doctor(
        replace(clinic.settings, backends=()),
        clinic.house.app.registry,
        open_store=store,
        open_root=no_root,
        open_hints=hints,
        now=lambda: datetime.now(UTC) + ahead,
    )
    [found] = [f async for f in doctor.examine() if f.check == "clock"]
    assert found.state is State.WARNING
    assert f"300 s {word} this machine's" in found.says


# --- keys -------------------------------------------------------------------------


async def test_key_file_that_is_gone_is_wrong_and_is_not_made_anew(
    clinic: Clinic, state_dir: Path
) -> None:
    assert (await clinic.only("root key")).says == "it opens"
    (state_dir / "kms.key").unlink()
    found = await clinic.only("root key")
    assert found.state is State.WRONG
    assert "is missing" in found.says
    assert not (state_dir / "kms.key").exists()


async def test_key_file_that_others_may_read_is_wrong(clinic: Clinic, state_dir: Path) -> None:
    (state_dir / "kms.key").chmod(0o644)
    found = await clinic.only("root key")
    assert found.state is State.WRONG
    assert "chmod 600" in found.says


async def test_second_key_that_is_not_in_use_yet_is_not_made(
    clinic: Clinic, state_dir: Path
) -> None:
    second = state_dir / "second.key"
    found = await clinic.examine(kms_key_id_secondary=f"file:{second}")
    assert [f.state for f in found if f.check == "root key"] == [State.OK]
    assert not second.exists()
    told = [f.says for f in found if f.check == "key service"]
    assert "the second key does not wrap the root key yet" in told
    assert not any("no second key" in said for said in told)
    assert any("no second key" in f.says for f in await clinic.examine())


# --- backends ---------------------------------------------------------------------


class Narrow(MemoryBackend):
    """Its credential lacks something."""

    told = Connection(
        "memory",
        "degraded",
        version="1.2",
        checks=(
            Check("list kv/", "granted"),
            Check("read kv/", "missing", 'path "kv/*" { capabilities = ["read"] }'),
            Check("revoke own token", "missing_optional", "revoke-self"),
        ),
        warnings=("tls_verify is off: …", "the token carries the policy `default`"),
    )

    async def connect(self, prefixes: Any, *, probe: bool = True) -> Connection:
        return self.told


class Shut(Narrow):
    told = Connection("memory", "denied")


class Away(MemoryBackend):
    async def connect(self, prefixes: Any, *, probe: bool = True) -> Connection:
        raise BackendUnreachableError("there is no answer", operation="connect")


def opens(house: House, made: type[MemoryBackend]) -> MemoryDriver:
    return Odd(house.there, made)


async def test_missing_rights_are_named_with_what_grants_them(house: House) -> None:
    found = await Clinic(house, opens(house, Narrow)).of(OWN)
    assert [f.state for f in found] == [State.OK, *[State.WARNING] * 3]
    assert found[0].says.startswith("it answers, version 1.2, ")
    assert found[1].says == "not granted: read kv/"
    assert found[1].advice == 'grant path "kv/*" { capabilities = ["read"] }'
    assert "can do without" in found[2].says
    assert found[3].says == "the token carries the policy `default`"


@pytest.mark.parametrize(("made", "says"), [(Shut, "shows nothing"), (Away, "no answer")])
async def test_backend_that_gives_nothing_is_wrong(
    house: House, made: type[MemoryBackend], says: str
) -> None:
    found = await Clinic(house, opens(house, made)).only(OWN)
    assert found.state is State.WRONG
    assert says in found.says
    assert found.advice


async def test_check_of_the_certificate_that_is_off_is_wrong(clinic: Clinic) -> None:
    spec = backend(config={"tls_verify": False})
    found = await clinic.of(OWN, backends=(spec,))
    assert [f.state for f in found] == [State.WRONG, State.OK]
    assert "tls_verify is off" in found[0].says


async def test_checkpoints_that_nobody_outside_keeps_are_told(
    clinic: Clinic, tmp_path: Path
) -> None:
    assert (await clinic.only("audit log")).advice == "set audit_anchors"
    kept: dict[str, Any] = {"audit_anchors": ({"anchor": "file", "path": str(tmp_path / "kept")},)}
    app = clinic.house.app
    assert (await clinic.only("audit log", **kept)).state is State.OK
    await app.recorder.record(Entry(TENANT, "user", "user:a", "x", Decision.ALLOW))
    await app.checkpoints.run()
    await clinic.house.admin.execute("ALTER TABLE audit_checkpoints DISABLE TRIGGER USER")
    await clinic.house.admin.execute("UPDATE audit_checkpoints SET at = at - interval '1 hour'")
    late = await clinic.only("audit log", **kept)
    assert late.state is State.WRONG
    assert str(tmp_path / "kept") in late.says
    await Checkpoints(app.db, app.signing, anchors(replace(app.settings, **kept), {})).run()
    assert (await clinic.only("audit log", **kept)).state is State.OK


async def test_audit_feed_is_told_that_it_must_not_be_alone(clinic: Clinic) -> None:
    spec = backend(events=({"feed": "vault-audit", "listen": "unix:/run/svsync/audit.sock"},))
    found = await clinic.of(OWN, backends=(spec,))
    assert found[0].state is State.WARNING
    assert "keep a file audit device beside it" in found[0].advice


async def test_backend_of_the_file_is_examined_before_it_is_in_use(clinic: Clinic) -> None:
    new = backend(id=BackendId("fed_new"))
    found = await clinic.only("backend fed_new", backends=(clinic.house.spec, new))
    assert found.state is State.OK
    assert len(await clinic.house.rows("backends")) == 1


async def test_paused_backend_is_left_alone(clinic: Clinic) -> None:
    await clinic.house.app.removal.pause(TENANT, BACKEND)
    assert await clinic.of(OWN) == []


async def test_backend_of_a_tenant_that_is_not_there_is_wrong(clinic: Clinic) -> None:
    spec = backend(id=BackendId("fed_acme"), tenant="acme")
    found = await clinic.only("backend fed_acme", backends=(spec,))
    assert found.state is State.WRONG
    assert "no tenant 'acme'" in found.says


# --- what is under way ------------------------------------------------------------


async def test_work_that_nobody_does_is_told_of(clinic: Clinic) -> None:
    house = clinic.house
    await house.run()
    signals = LocalSignals()
    work = Scheduling(house.app.db, signals, ids=new_id, health_interval=60)
    await work.trigger(TENANT, BACKEND)
    assert [f.state for f in await clinic.of("runs")] == [State.OK]
    await house.admin.execute(
        "UPDATE runs SET queued_at = now() - interval '1 h', not_before = now() - interval '1 h'"
        " WHERE state = 'queued'"
    )
    await house.admin.execute("UPDATE backend_health SET last_success_at = now() - interval '9 h'")
    says = [f.says for f in await clinic.of(OWN)]
    assert "a run has waited for 60 minutes" in says
    assert any("older than max_staleness" in said for said in says)
    assert [f.says for f in await clinic.of("runs")] == ["no worker is up"]
    await schedule.beat(house.app.db, "one:1", ["worker"], "9.9")
    assert await clinic.of("runs") == []


async def test_run_whose_worker_is_gone_and_pushes_without_an_end_are_told_of(
    clinic: Clinic,
) -> None:
    house = clinic.house
    await house.run()
    await house.admin.execute("UPDATE runs SET state = 'running'")
    await house.admin.execute(
        "INSERT INTO pushes (tenant_id, push_id, backend_id, path, remote_path, kind, secret_id,"
        " version, row_rev, created_by, deadline)"
        " VALUES (1, 'psh_x', $1, 'ext/a', 'kv/a', 'put', 1, 1, 1, 'x', now() - interval '1 h')",
        BACKEND,
    )
    says = [f.says for f in await clinic.of(OWN)]
    assert "the worker of its run is gone" in says
    assert "writes to it whose outcome nobody knows: 1" in says


async def test_stop_of_all_runs_is_told_of(clinic: Clinic) -> None:
    await Overview(clinic.house.app.db, clinic.house.app.registry).stop("ann")
    said = (await clinic.of("runs"))[0]
    assert (said.state, said.says) == (State.WARNING, "all were stopped, by ann")
    assert "svsync backends resume --all" in said.advice


async def test_processes_of_two_versions_are_told_of(clinic: Clinic) -> None:
    assert "none is up" in (await clinic.only("processes")).says
    db = clinic.house.app.db
    await schedule.beat(db, "one:1", ["api", "worker"], "9.8")
    assert (await clinic.only("processes")).says == "9.8: one:1 (api/worker)"
    await schedule.beat(db, "two:1", ["worker"], "9.8")
    assert "REDIS_URL" in (await clinic.only("processes")).advice
    await schedule.beat(db, "two:1", ["worker"], "9.9")
    found = await clinic.only("processes")
    assert (found.state, "9.8, 9.9" in found.says) == (State.WARNING, True)


# --- signals ----------------------------------------------------------------------


async def test_redis_that_answers_is_well(clinic: Clinic, shared_valkey: ValkeyServer) -> None:
    found = await clinic.only("signals", redis_url=shared_valkey.url)
    assert found.state is State.OK


async def test_redis_that_does_not_answer_is_wrong(clinic: Clinic) -> None:
    found = await clinic.only("signals", redis_url=SecretValue("redis://127.0.0.1:1"))
    assert found.state is State.WRONG
    assert "REDIS_URL" in found.advice
