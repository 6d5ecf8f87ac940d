"""Two houses live the same life, and one of them keeps nothing a moment longer than it must.

People write and delete on both sides as the dice fall, and runs come in between. In one
house retention removes all that it may after each step. Both must show the same live
values, on both sides, and wait for the same people: what it removed was of no use.
"""

import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.house import TENANT, House, backend, open_house
from tests.integration.test_retention import AT_ONCE
from tests.postgres import connected, database_dsn

from svsync.domain.errors import SvsyncError
from svsync.domain.federation import ConflictPolicy, OnRemoteDelete, Writes
from svsync.domain.ids import LocalPath
from svsync.embedded.postgres import EmbeddedPostgres
from svsync.services.retention import Ages, Retention

AGES: Ages = AT_ONCE
NAMES = "abcdef"
ROUNDS, STEPS = 5, 5
LIVES: dict[str, dict[str, Any]] = {
    "pulled": {"on_remote_delete": OnRemoteDelete.SOFT_DELETE},
    "by hand": {"conflict_resolution": ConflictPolicy.MANUAL},
    "backend first": {"writes": Writes.WRITE_THROUGH, "propagate_deletes": True},
    "backend first, by hand": {
        "writes": Writes.WRITE_THROUGH,
        "conflict_resolution": ConflictPolicy.MANUAL,
    },
    "backup": {
        "writes": Writes.WRITE_THROUGH,
        "propagate_deletes": True,
        "conflict_resolution": ConflictPolicy.LOCAL_WINS,
    },
    "backup by pull": {"conflict_resolution": ConflictPolicy.LOCAL_WINS},
}


@pytest_asyncio.fixture
async def urls(postgres: EmbeddedPostgres, database_url: str) -> AsyncIterator[list[str]]:
    """Two empty databases."""
    name = database_url.partition("?")[0].rpartition("/")[2]
    async with connected(postgres.admin_dsn) as admin:
        await admin.execute(f"CREATE DATABASE {name}_twin TEMPLATE {name} OWNER svsync")
    yield [name, f"{name}_twin"]
    async with connected(postgres.admin_dsn) as admin:
        await admin.execute(f"DROP DATABASE {name}_twin WITH (FORCE)")


class Twins:
    """The same is done in both. What may be done is read off the one that keeps all."""

    def __init__(self, tidy: House, keeper: House, dice: random.Random) -> None:
        self.tidy, self.keeper, self.dice = tidy, keeper, dice
        self.count = 0

    async def step(self) -> None:
        name, kind = self.dice.choice(NAMES), self.dice.choice("wwdppgr")
        if await self._is_allowed(kind, name):
            self.count += 1
            ours, theirs = [await self._do(house, kind, name) for house in (self.tidy, self.keeper)]
            assert ours == theirs, (kind, name)

    async def _is_allowed(self, kind: str, name: str) -> bool:
        """What a tombstone without a base does to a new remote value is the one thing that
        ends with it, as promised; so is its own deletion over a value that nobody saw."""
        states = await self.keeper.admin.fetch(
            "SELECT s.state, coalesce(p.base_kind, 'none') AS base FROM secrets s"
            " LEFT JOIN sync_state p ON p.path = s.path AND p.status <> 'detached'"
            " WHERE s.path = $1",
            f"ext/{name}",
        )
        there = self.keeper.there.secret(f"kv/{name}")
        gone = there is None or there.gone
        state, base = states[0] if states else ("void", "none")
        match kind:
            case "p":
                return not (state == "deleted" and base != "value" and gone)
            case "g":
                return not gone
            case "d":
                return state == "live" and (base != "none" or gone)
            case _:
                return True

    async def _do(self, house: House, kind: str, name: str) -> str | None:
        path, remote = f"ext/{name}", f"kv/{name}"
        try:
            match kind:
                case "w":
                    await house.write(path, {"k": f"ours {self.count}"})
                case "d":
                    await house.app.writes.delete(TENANT, LocalPath(path), by="sa:test")
                case "p":
                    house.there.put(remote, {"k": f"theirs {self.count}"})
                case "g":
                    house.there.delete(remote)
                case "r":
                    await house.run(path)
        except SvsyncError as refused:
            return refused.code
        return None

    async def compare(self) -> None:
        """A write to a path that was forgotten may reach the backend a run later, and then
        in one with the next one; it never makes a version more."""
        assert await shown(self.tidy) == await shown(self.keeper)
        for name in NAMES:
            assert self._written(self.tidy, name) <= self._written(self.keeper, name)

    def _written(self, house: House, name: str) -> int:
        secret = house.there.secret(f"kv/{name}")
        return 0 if secret is None else len(secret.versions)


async def shown(house: House) -> dict[str, Any]:
    """All that people can see, on both sides, and what waits for them."""
    live = {path: await house.data(path) for path in await house.paths()}
    there = {}
    for name in NAMES:
        secret = house.there.secret(f"kv/{name}")
        if secret is not None and not secret.gone:
            value = secret.versions[secret.current]
            there[name] = json.loads(value.payload.data_text())
    columns = "path, kind, local_version, local_state, remote_token, remote_gone"
    conflicts = await house.admin.fetch(
        f"SELECT {columns}, local_sealed IS NULL AS a, remote_sealed IS NULL AS b"
        " FROM conflicts WHERE state = 'open' ORDER BY path"
    )
    numbers = await house.admin.fetch(
        "SELECT path, current_version, last_version FROM secrets WHERE state = 'live' ORDER BY path"
    )
    pushes = await house.admin.fetchval(
        "SELECT count(*) FROM pushes WHERE state IN ('planned', 'sent', 'unknown')"
    )
    return {
        "live": live,
        "there": there,
        "conflicts": [tuple(row) for row in conflicts],
        "numbers": [tuple(row) for row in numbers],
        "unfinished": pushes,
    }


@pytest.mark.parametrize("life", LIVES)
async def test_what_retention_removes_was_of_no_use(
    postgres: EmbeddedPostgres, urls: list[str], state_dir: Path, life: str
) -> None:
    spec = backend(max_versions=1, extra={"trim_grace": 0}, **LIVES[life])
    async with AsyncExitStack() as stack:
        houses = [
            await stack.enter_async_context(
                open_house(
                    database_dsn(postgres.dsn, name),
                    database_dsn(postgres.admin_dsn, name),
                    state_dir / name,
                    spec,
                )
            )
            for name in urls
        ]
        for house in houses:
            for name in NAMES[:4]:
                house.there.put(f"kv/{name}", {"k": "0"})
            await house.run()
        tidy = Retention(houses[0].app.db, AGES, houses[0].app.recorder)
        twins = Twins(houses[0], houses[1], random.Random(f"retention: {life}"))
        for _ in range(ROUNDS):
            for _ in range(STEPS):
                await twins.step()
                await tidy.run(TENANT)
            for house in houses:
                await house.run()
            await twins.compare()
            await tidy.run(TENANT)
        for house in houses:
            await house.run()
        await twins.compare()
        removed = await tidy.run(TENANT)
        assert removed.versions == 0
        assert twins.count > ROUNDS * STEPS / 2
