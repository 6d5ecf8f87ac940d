"""Floor of a quiet cycle: the detailed listing, COPY into an unlogged table, one diff."""

import time
from typing import Any

import aiohttp
import asyncpg

from bench.floors.first_import import list_tokens
from bench.programs import Result, answer

_DIFF = """
SELECT count(*) FROM quiet_stage s FULL JOIN quiet_known k ON s.path = k.path
WHERE s.path IS NULL OR k.path IS NULL OR s.token <> k.token
"""


async def quiet_pass(
    http: aiohttp.ClientSession, db: "asyncpg.Connection[Any]", url: str, mount: str
) -> tuple[int, int]:
    """How many were listed, and how many of them differ from what is known."""
    found = await list_tokens(http, url, mount)
    await db.copy_records_to_table("quiet_stage", columns=("path", "token"), records=found)
    return len(found), await db.fetchval(_DIFF)


async def main(given: Result) -> Result:
    db = await asyncpg.connect(given["dsn"])
    for kind, name in (("UNLOGGED", "quiet_stage"), ("", "quiet_known")):
        await db.execute(f"DROP TABLE IF EXISTS {name}")
        await db.execute(
            f'CREATE {kind} TABLE {name} (path text COLLATE "C" NOT NULL, token text NOT NULL)'
        )
    async with aiohttp.ClientSession(headers={"X-Vault-Token": given["token"]}) as http:
        known = await list_tokens(http, given["url"], given["mount"])
        await db.copy_records_to_table("quiet_known", columns=("path", "token"), records=known)
        await db.execute("CREATE UNIQUE INDEX ON quiet_known (path)")
        began, spent = time.perf_counter(), time.process_time()
        listed, moved = await quiet_pass(http, db, given["url"], given["mount"])
        seconds, spent = time.perf_counter() - began, time.process_time() - spent
    assert (listed, moved) == (given["count"], 0), (listed, moved)
    await db.close()
    return {"seconds": seconds, "cpu_s": spent}


if __name__ == "__main__":
    answer(main)
