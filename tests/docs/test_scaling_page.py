"""Does the page on scaling say what was measured, and what the code and the schema have?"""

import re

import pytest
from tests.docs.test_docs import section, text_of
from tests.postgres import connected

from svsync.daemon.service import API_POOL, POOL, SLOTS
from svsync.services.recording import BATCH
from svsync.store import database, replica

PAGE = "docs/scaling.md"
BY_HAND = {"1,753", "496", "2,376"}
"""What `python -m bench --quick small` prints, and `make bench` does not keep yet."""


def test_each_figure_that_is_called_measured_was_seen() -> None:
    seen = text_of("docs/performance.md")
    rows = [
        line
        for heading in ("One machine", "Sizes")
        for line in section(PAGE, heading).splitlines()
        if "| measured" in line
    ]
    assert len(rows) >= 12
    for row in rows:
        holds = row.split("|")[2]
        for number in re.findall(r"\d[\d,.]*\d|\d", holds):
            assert number in seen or number in BY_HAND or f"{number} B" in seen, row


def test_connections_are_those_of_the_code() -> None:
    renewals = 2
    told = section(PAGE, "PostgreSQL: managed, or under Patroni")
    for words, pool in (("worker", POOL), ("api alone", API_POOL)):
        each = pool + renewals + database.ACCESSES
        line = next(
            line for line in told.splitlines() if line.startswith("a process") and words in line
        )
        assert line.endswith(f"{pool} + {renewals} + {database.ACCESSES} = {each}"), line
    assert f"{replica._CONNECTIONS} a process, on the replica" in told
    worker = POOL + renewals + database.ACCESSES
    assert f"take {3 * worker} at most" in told
    replicas = section(PAGE, "More replicas")
    assert f"{SLOTS} more runs at a time and {worker} more connections" in replicas
    assert f"up to {BATCH} reads together" in text_of(PAGE)


@pytest.mark.parametrize("unique", [False, True])
async def test_tables_can_be_distributed_by_tenant(admin_url: str, unique: bool) -> None:
    """The tenant leads each primary key, and is in each unique index."""
    async with connected(admin_url) as admin:
        rows = await admin.fetch(
            "SELECT c.relname, i.indexrelid::regclass::text AS index,"
            " (SELECT array_agg(a.attname ORDER BY k.n) FROM unnest(i.indkey) WITH ORDINALITY AS"
            " k(attnum, n) JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum) AS"
            " columns FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
            " WHERE c.relrowsecurity AND CASE WHEN $1 THEN i.indisunique ELSE i.indisprimary END",
            unique,
        )
    assert len(rows) > 20
    for row in rows:
        found = row["columns"] if unique else row["columns"][:1]
        assert "tenant_id" in found, row["index"]
