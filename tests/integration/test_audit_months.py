"""Are the months of the audit log there in time, and gone only when they may be?"""

import json
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from tests.house import TENANT, House, house

from svsync.config.model import LogFormat, LogLevel
from svsync.domain.audit import TRIM, TRIMMER, Decision, Entry
from svsync.observe.logs import configure
from svsync.services.audit_months import AuditMonths, _month_of, _next
from svsync.services.recording import _Slot
from svsync.store import audit_months as store

__all__ = ["house"]

DAY = 86_400.0
LONG_AGO = datetime(2024, 3, 30, 12, tzinfo=UTC)


def months(house: House, keep: float = 400 * DAY) -> AuditMonths:
    return AuditMonths(house.app.db, house.app.recorder, keep)


async def partitions(house: House) -> set[str]:
    rows = await house.admin.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits"
        " WHERE inhparent = 'audit'::regclass"
    )
    return {row["name"] for row in rows}


async def written_long_ago(house: House, *moments: datetime) -> _Slot:
    """Rows of a process that ran then; the months are made for them."""
    for moment in moments:
        await house.admin.execute("SELECT svsync_audit_month($1)", moment.date())
        name = f"audit_{moment:%Y_%m}"
        role = (await house.app.db.fetch_global("database.own_role"))[0]["name"]
        await house.admin.execute(f'ALTER TABLE {name} OWNER TO "{role}"')
    slot = _Slot(house.app.db, "old:1", 2.0)
    entry = Entry(TENANT, "user", "user:a", "secret.read", Decision.ALLOW)
    for moment in moments:
        # A look at the log every hour keeps the chain, as a busy one is kept.
        await house.append(slot, [entry, entry], moment)
        for chain in slot._chains.values():
            chain.at = None
    await house.admin.execute("UPDATE audit_chains SET started_at = $1", moments[0])
    return slot


@pytest.fixture
def log() -> Any:
    stream = StringIO()
    configure(LogLevel.INFO, LogFormat.JSON, stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    configure(LogLevel.INFO, LogFormat.JSON)


async def test_this_month_and_those_ahead_are_made(house: House) -> None:
    known = await partitions(house)
    for name in known - {"audit_rest"}:
        await house.admin.execute(f"DROP TABLE {name}")
    assert await months(house).prepare() == 3
    assert await partitions(house) == known
    assert await months(house).prepare() == 0
    # Made by the role itself, and shut but for the way through the log.
    month = f"audit_{datetime.now(UTC):%Y_%m}"
    assert await house.admin.fetchval(
        "SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE relname = $1", month
    )


async def test_role_that_may_make_no_tables_is_warned_of_and_rows_are_kept(
    house: House, log: Any
) -> None:
    for name in await partitions(house) - {"audit_rest"}:
        await house.admin.execute(f"DROP TABLE {name}")
    owner = (await house.app.db.fetch_global("database.own_role"))[0]["name"]
    await house.admin.execute("ALTER TABLE audit OWNER TO CURRENT_USER")
    await house.admin.execute(f'GRANT SELECT, INSERT ON audit TO "{owner}"')
    assert await months(house).prepare() == 0
    warned = [line for line in log() if line["event"] == "audit_month_missing"]
    assert len(warned) == 3
    assert "audit_rest" in warned[0]["detail"]
    entry = Entry(TENANT, "user", "user:a", "secret.read", Decision.ALLOW)
    await house.app.recorder.record(entry)
    assert await house.admin.fetchval("SELECT tableoid::regclass::text FROM audit") == "audit_rest"


async def test_months_that_are_over_go_and_what_is_left_verifies(house: House) -> None:
    later = LONG_AGO + timedelta(days=20)
    slot = await written_long_ago(house, LONG_AGO, LONG_AGO + timedelta(days=1), later)
    await house.append(
        slot, [Entry(TENANT, "user", "user:a", "secret.read", Decision.ALLOW)], datetime.now(UTC)
    )
    await house.app.checkpoints.run()
    assert (await house.app.verification.verify(TENANT)).fits
    keep = (datetime.now(UTC) - datetime(2024, 4, 15, tzinfo=UTC)).total_seconds()
    assert await months(house, keep).trim() == ["audit_2024_03"]
    assert "audit_2024_04" in await partitions(house)
    rows = await house.rows("audit", identity_id="user:a")
    assert [row["seq"] for row in rows] == [5, 6, 7]
    [chain] = await house.rows("audit_chains", writer="old:1")
    assert chain["trimmed_seq"] == 4
    report = await house.app.verification.verify(TENANT)
    assert report.fits, report.as_json()
    assert report.trimmed_before == datetime(2024, 4, 1, tzinfo=UTC)
    # And the rest of it, in turn.
    await house.app.checkpoints.run()
    assert await months(house).trim() == ["audit_2024_04"]
    report = await house.app.verification.verify(TENANT)
    assert report.fits, report.as_json()
    assert await months(house).trim() == []


async def test_that_a_month_goes_is_said_in_the_log_before(house: House) -> None:
    await written_long_ago(house, LONG_AGO)
    await house.app.checkpoints.run()
    await months(house).trim()
    [row] = await house.rows("audit", action=TRIM)
    assert (row["identity_type"], row["identity_id"]) == ("system", TRIMMER)
    assert json.loads(row["detail"]) == {"before": "2024-04-01T00:00:00Z"}


async def test_what_no_checkpoint_covers_stays(house: House, log: Any) -> None:
    await written_long_ago(house, LONG_AGO)
    assert await months(house).trim() == []
    assert [line["event"] for line in log()] == ["audit_month_uncovered"]
    assert len(await house.rows("audit", identity_id="user:a")) == 2
    async with house.app.db.transaction_of([TENANT]) as tx:
        assert await store.drop(tx, LONG_AGO.date()) == "uncovered"
    await house.app.checkpoints.run()
    assert await months(house).trim() == ["audit_2024_03"]


async def test_what_no_checkpoint_will_cover_holds_up_no_month(house: House, log: Any) -> None:
    """A shredded tenant has no key that signs; its last rows would keep everybody's for ever."""
    later = LONG_AGO + timedelta(days=20)
    await written_long_ago(house, LONG_AGO, later)
    await house.app.checkpoints.run()
    # Refused calls are recorded after the shredding, too.
    slot = _Slot(house.app.db, "late:1", 2.0)
    entry = Entry(TENANT, "user", "user:a", "secret.read", Decision.DENY)
    await house.append(slot, [entry, entry], later)
    await house.admin.execute("UPDATE audit_chains SET started_at = $1", LONG_AGO)
    await house.admin.execute("UPDATE tenants SET status = 'shredded'")
    await house.app.checkpoints.run()
    assert await months(house).trim() == ["audit_2024_03", "audit_2024_04"]
    assert "audit_month_uncovered" not in [line["event"] for line in log()]
    said = [json.loads(row["detail"]) for row in await house.rows("audit", action=TRIM)]
    assert said == [{"before": "2024-04-01T00:00:00Z"}, {"before": "2024-05-01T00:00:00Z"}]
    [chain] = await house.rows("audit_chains", writer="late:1")
    assert (chain["covered_seq"], chain["trimmed_seq"]) == (0, 2)


async def test_what_is_younger_than_retention_stays(house: House) -> None:
    await written_long_ago(house, LONG_AGO)
    await house.app.checkpoints.run()
    age = (datetime.now(UTC) - datetime(2024, 4, 1, tzinfo=UTC)).total_seconds()
    assert await months(house, age + 60).trim() == []
    assert await months(house, age - 60).trim() == ["audit_2024_03"]


async def test_rows_removed_beyond_what_retention_said_are_found(house: House) -> None:
    """Whoever removes more, and lets the chains look trimmed, meets what was signed."""
    entry = Entry(TENANT, "user", "user:a", "secret.read", Decision.ALLOW)
    await written_long_ago(house, LONG_AGO)
    await house.app.checkpoints.run()
    await months(house).trim()
    for _ in range(3):
        await house.app.recorder.record(entry)
        await house.app.checkpoints.run()
    await house.app.recorder.record(entry)
    assert (await house.app.verification.verify(TENANT)).fits
    chains = await house.rows("audit", identity_id="user:a")
    victim = chains[0]["chain_id"]
    await house.admin.execute("ALTER TABLE audit DISABLE TRIGGER USER")
    await house.admin.execute(
        "UPDATE audit_chains SET started_at = '2024-01-01', trimmed_seq = 1, trimmed_hash ="
        " (SELECT hash FROM audit WHERE chain_id = $1 AND seq = 1) WHERE chain_id = $1",
        victim,
    )
    await house.admin.execute("DELETE FROM audit WHERE chain_id = $1 AND seq = 1", victim)
    report = await house.app.verification.verify(TENANT)
    assert any("before its time" in m.what for m in report.misfits), report.as_json()


async def test_a_reader_that_takes_long_is_not_waited_for(house: House, log: Any) -> None:
    """Behind a lock that waits everybody would wait; the month goes another time."""
    await written_long_ago(house, LONG_AGO)
    await house.app.checkpoints.run()
    async with house.admin.transaction():
        await house.admin.fetch("SELECT FROM audit LIMIT 1")
        with pytest.raises(Exception, match="LockNotAvailable"):
            await months(house).trim()
    assert await months(house).trim() == ["audit_2024_03"]


def test_months_follow_one_another() -> None:
    assert _next(date(2026, 12, 1)) == date(2027, 1, 1)
    assert _next(date(2026, 1, 1)) == date(2026, 2, 1)
    assert _month_of(datetime.fromisoformat("2026-11-01T00:30:00+01:00")) == date(2026, 10, 1)
