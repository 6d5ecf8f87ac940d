"""What is left of a value that was read through: in the store, its log of changes, Redis, the
state folder, the log, and in the memory of the process that answered.

Python cannot wipe memory. What can be told is that copies are few and do not grow: what was
freed is written over by what comes later, some of it late.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.acceptance.conftest import Desk
from tests.acceptance.serving import ask, new_token, serving
from tests.canary import Canary, database_contents, encodings
from tests.valkey import ask as ask_redis
from tests.valkey import valkey

from svsync.embedded.postgres import EmbeddedPostgres
from svsync.embedded.valkey import ValkeyServer

__all__ = ["valkey"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

MOST_COPIES = 4
"""In the memory of the process, once it has answered others. One was seen, and no more."""
_BLOCK = 1 << 24


def _regions(pid: int) -> Iterator[tuple[int, int]]:
    """The parts of a process's memory that it may write."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        place, rights, *_ = line.split()
        if rights.startswith("rw"):
            begin, end = (int(number, 16) for number in place.split("-"))
            yield begin, end


def copies(pid: int, marker: str) -> int:
    """How often a marker stands in a process's memory, in any encoding. Skips the test where
    nobody may look."""
    forms = [form for many in encodings(marker).values() for form in many]
    longest = max(map(len, forms))
    found = 0
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for begin, end in _regions(pid):
                tail = b""
                for at in range(begin, end, _BLOCK):
                    with suppress(OSError):  # it may have been given back meanwhile
                        memory.seek(at)
                        block = tail + memory.read(min(_BLOCK, end - at))
                        found += sum(block.count(form) - tail.count(form) for form in forms)
                        tail = block[-longest + 1 :]
    except PermissionError:
        pytest.skip("the memory of a process that may not be traced is shown to root alone")
    return found


def _raw(canary: Canary, folder: Path) -> set[str]:
    """Files in a folder in which the marker stands."""
    forms = [form for many in encodings(canary.marker).values() for form in many]
    found = set()
    for file in folder.iterdir():
        if file.is_file():
            content = file.read_bytes()
            found |= {file.name for form in forms if form in content}
    return found


async def test_value_that_was_read_through_is_nowhere_and_memory_keeps_few_copies(
    desk: Desk, postgres: EmbeddedPostgres, valkey: ValkeyServer
) -> None:
    canary = desk.program.canary
    await desk.bao.put("a", {"v": canary.value()})
    for n in range(20):
        await desk.bao.put(f"b{n}", {"v": f"{n:02}" * (len(canary.value()) // 2)})
    name, config = desk.backend(mode="proxy")
    token = await new_token(desk.program)
    redis = valkey.url.reveal()
    async with serving(desk.program, "--config", str(config), REDIS_URL=redis) as served:

        async def read(path: str) -> str:
            answer = await ask(served.url, f"/v1/secrets/{name}/{path}", token=token)
            assert answer.status == 200
            return answer.text

        def left() -> int:
            return copies(served.process.pid, canary.marker)

        assert left() == 0
        for _ in range(5):
            assert canary.found_in(await read("a"))
        for path in (
            f"/v1/secrets?prefix={name}",
            f"/v1/secrets/{name}/a?version=1",
            "/v1/audit/logs",
        ):
            told = await ask(served.url, path, token=token)
            assert not canary.found_in(told.text)
        for n in range(200):
            await read(f"b{n % 20}")
        few = left()
        for _ in range(50):
            await read("a")
        for n in range(200):
            await read(f"b{n % 20}")
        assert max(few, left()) <= MOST_COPIES
        keys = await ask_redis(valkey.url, "KEYS", "*")
        held = [await ask_redis(valkey.url, "DUMP", key.decode()) for key in keys]
        assert await served.stopped() == 0
    contents = await database_contents(desk.database)
    canary.watch("Redis", lambda: repr((keys, held)))
    canary.watch("the database", lambda: contents)
    canary.watch("the metrics and the log", lambda: repr(served.lines))
    canary.watch_folder(Path(desk.program.environment["SVSYNC_STATE_DIR"]))
    canary.check()
    assert not _raw(canary, postgres.log.parent / "data/pg_wal")


async def test_value_that_is_held_is_seen_in_memory() -> None:
    """The search finds what is there: in this process, which holds it."""
    import os

    marker = Canary().marker
    kept = [marker.encode("utf-16-le"), bytearray(marker.encode())]
    assert copies(os.getpid(), marker) >= len(kept)
