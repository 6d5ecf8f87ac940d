"""Under a load of reads the service and the store are killed: has each answer that a client saw
its row, do the chains fit, and is whatever somebody does to a row found and named?"""

import asyncio
import json
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.acceptance.fault_estate import Store
from tests.acceptance.serving import Served, new_token, start_serving
from tests.debian import server_named
from tests.patience import PATIENCE_S
from tests.postgres import connected
from tests.program import Program

pytestmark = pytest.mark.asyncio(loop_scope="session")

KIND = "embedded"
FAULTS = 8
READERS = 16
PATHS = [f"app/{n}" for n in range(8)]


@dataclass
class Reader:
    """Reads, and remembers what it was answered, by the id of each request."""

    number: int
    token: str
    place: list[str]
    seen: dict[str, tuple[str, int]] = field(default_factory=dict)

    def ids(self) -> Iterator[str]:
        return (f"r{self.number}-{n}" for n in range(10**9))

    async def read(self) -> None:
        draw = random.Random(self.number)
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for request_id in self.ids():
                path = draw.choice([*PATHS, "app/none"])
                headers = {"Authorization": f"Bearer {self.token}", "X-Request-Id": request_id}
                try:
                    async with session.get(
                        f"{self.place[0]}/v1/secrets/{path}", headers=headers
                    ) as answer:
                        await answer.read()
                        if answer.status in (200, 404):
                            self.seen[request_id] = path, answer.status
                except (aiohttp.ClientError, TimeoutError):
                    await asyncio.sleep(0.02)


async def _more(readers: list[Reader], many: int) -> None:
    """Return once so many more were answered."""
    before = sum(len(reader.seen) for reader in readers)
    async with asyncio.timeout(PATIENCE_S):
        while sum(len(reader.seen) for reader in readers) < before + many:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_each_answer_that_was_seen_has_its_row_whatever_dies(state_dir: Path) -> None:
    draw = random.Random(7)
    kept = state_dir / "anchor.jsonl"
    file = state_dir / "svsync.yaml"
    file.write_text(json.dumps({"audit_anchors": [{"anchor": "file", "path": str(kept)}]}))
    async with Store(state_dir, server_named(KIND)).running() as store:
        assert store.server is not None
        program = Program(
            {"DATABASE_URL": store.server.dsn, "SVSYNC_STATE_DIR": str(state_dir / "state")},
            state_dir,
        )
        at = ("--config", str(file))
        for path in PATHS:
            assert (await program("secrets", "write", path, "k=v", *at)).code == 0
        token = await new_token(program, *at)
        served = await start_serving(program, *at)
        place = [(await served.says("serving"))["address"]]
        readers = [Reader(number, token, place) for number in range(READERS)]
        reading = [asyncio.create_task(reader.read()) for reader in readers]
        try:
            for fault in range(FAULTS):
                await _more(readers, draw.randint(50, 400))
                match fault % 4:
                    case 0 | 2:
                        served = await _killed(served, program, *at)
                        place[0] = (await served.says("serving"))["address"]
                    case 1:
                        await store.kill()
                    case 3:
                        await _kill_one_backend(store, draw)
            await _more(readers, 200)
            assert await served.stopped() == 0
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
            await served.aclose()
        await _compare(store, {i: s for reader in readers for i, s in reader.seen.items()})
        # The next start signs what the last one left.
        last = await start_serving(program, *at)
        try:
            await last.says("serving")
            await _signed(store)
        finally:
            await last.aclose()

        async def verify() -> Any:
            said = await program("audit", "verify", "--anchor", str(kept), "--json", *at)
            assert said.code == (0 if said.json["fits"] else 1)
            return said.json

        report = await verify()
        assert report["fits"], report
        assert report["anchored"] >= 1
        assert report["rows"] >= sum(len(reader.seen) for reader in readers)
        await _tampered(store, draw, verify)
        assert (await verify())["fits"], "what was done to the log is undone"


async def _killed(served: Served, program: Program, *at: str) -> Served:
    served.tell(signal.SIGKILL)
    await served.aclose()
    return await start_serving(program, *at)


async def _kill_one_backend(store: Store, draw: random.Random) -> None:
    """`kill -9` of a process that serves one connection: PostgreSQL ends all the others, and
    recovers as after a crash."""
    async with connected(store.admin) as admin:
        rows: list[Any] = await admin.fetch(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid() ORDER BY pid"
        )
    os.kill(draw.choice(rows)["pid"], signal.SIGKILL)


FLIPPED = "UPDATE audit SET decision = 'deny' WHERE chain_id = {c} AND seq = {s}"
KEPT = "DELETE FROM audit WHERE chain_id = {c}", "INSERT INTO audit SELECT * FROM kept"
REMOVED = "DELETE FROM audit WHERE chain_id = {c} AND seq = {s}"
REORDERED = (
    "UPDATE audit SET seq = CASE seq WHEN {s} THEN -1 ELSE {s} END"
    " WHERE chain_id = {c} AND seq IN ({s}, {s} + 1)",
    "UPDATE audit SET seq = {s} + 1 WHERE chain_id = {c} AND seq = -1",
)


async def _tampered(
    store: Store, draw: random.Random, verify: Callable[[], Awaitable[Any]]
) -> None:
    """Somebody who owns the database flips, removes and reorders rows: each is named."""
    async with connected(store.admin) as admin:
        chain = await admin.fetchval(
            "SELECT chain_id FROM audit WHERE tenant_id = 1 GROUP BY chain_id"
            " ORDER BY count(*) DESC, chain_id LIMIT 1"
        )
        last = await admin.fetchval("SELECT max(seq) FROM audit WHERE chain_id = $1", chain)
        await admin.execute(f"CREATE TABLE kept AS SELECT * FROM audit WHERE chain_id = {chain}")
        await admin.execute("ALTER TABLE audit DISABLE TRIGGER USER")
        for statements in ((FLIPPED,), (REMOVED,), REORDERED):
            row = draw.randint(2, last - 2)
            for statement in statements:
                done = await admin.execute(statement.format(c=chain, s=row))
                assert not done.endswith(" 0"), statement
            report = await verify()
            first = report["first_misfit"]
            assert not report["fits"]
            assert (first["kind"], first["chain"]) == ("row", chain), report
            assert first["seq"] in (row, row + 1), (statements, row, report)
            for statement in KEPT:
                await admin.execute(statement.format(c=chain))
        await admin.execute("ALTER TABLE audit ENABLE TRIGGER USER")
        await admin.execute("DROP TABLE kept")


async def _compare(store: Store, seen: dict[str, tuple[str, int]]) -> None:
    async with connected(store.admin) as admin:
        rows: list[Any] = await admin.fetch(
            "SELECT request_id, secret_path, version FROM audit WHERE action = 'secret.read'"
        )
    recorded = {row["request_id"]: (row["secret_path"], row["version"]) for row in rows}
    assert len(recorded) == len(rows)
    missing = [request for request in seen if request not in recorded]
    assert missing == []
    for request, (path, status) in seen.items():
        assert recorded[request] == (path, 1 if status == 200 else None)


async def _signed(store: Store) -> None:
    """Return once checkpoints cover every row."""
    uncovered = (
        "SELECT count(*) FROM audit_chains c WHERE EXISTS (SELECT FROM audit a"
        " WHERE a.chain_id = c.chain_id AND a.seq > c.covered_seq)"
    )
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(OSError):
                async with connected(store.admin) as admin:
                    if await admin.fetchval(uncovered) == 0:
                        return
            await asyncio.sleep(0.2)
