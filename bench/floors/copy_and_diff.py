"""Floor of a quiet cycle without a backend: COPY of n entries, one full outer join."""

import time

import asyncpg

from bench.programs import Result, answer

_KNOWN = """
INSERT INTO diff_known
SELECT 'big/' || lpad((i / 1000)::text, 4, '0') || '/' || lpad(i::text, 7, '0'),
  '1|' || i || '|0|False', 'a0b1c2d3e4f5a6b7', 1
FROM generate_series(0, $1::int - 1) AS i
"""
_DIFF = """
SELECT count(*) FROM diff_stage s FULL JOIN diff_known k ON s.path = k.path
WHERE s.path IS NULL OR k.path IS NULL OR s.token <> k.token OR s.meta <> k.meta
"""


async def main(given: Result) -> Result:
    count: int = given["count"]
    db = await asyncpg.connect(given["dsn"])
    for kind, name in (("UNLOGGED", "diff_stage"), ("", "diff_known")):
        await db.execute(f"DROP TABLE IF EXISTS {name}")
        await db.execute(
            f'CREATE {kind} TABLE {name} (path text COLLATE "C" NOT NULL, token text NOT NULL,'
            " meta text NOT NULL, number bigint NOT NULL)"
        )
    await db.execute(_KNOWN, count)
    await db.execute("CREATE UNIQUE INDEX ON diff_known (path)")
    await db.execute("VACUUM ANALYZE diff_known")
    listed = (
        (f"big/{i // 1000:04d}/{i:07d}", f"1|{i}|0|False", "a0b1c2d3e4f5a6b7", 1)
        for i in range(count)
    )
    began = time.perf_counter()
    await db.copy_records_to_table("diff_stage", records=listed)
    copied = time.perf_counter()
    moved = await db.fetchval(_DIFF)
    ended = time.perf_counter()
    assert moved == 0, moved
    assert await db.fetchval("SELECT count(*) FROM diff_stage") == count
    await db.execute("DROP TABLE diff_stage, diff_known")
    await db.close()
    return {"seconds": ended - began, "copy_s": copied - began, "diff_s": ended - copied}


if __name__ == "__main__":
    answer(main)
