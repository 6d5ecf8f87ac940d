"""Where numbers alone cannot tell, values are looked at before the first is written."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.house import ENDINGS, WORK, House, counts, failure, open_house

from svsync.domain.changes import Entry, ListingPage, RemoteRead, RemoteValue
from svsync.domain.federation import OnRemoteDelete
from svsync.domain.guards import Allow
from svsync.domain.ids import RemotePath
from svsync.testing.memory import MemoryBackend, MemoryStore

MANY, FEW = 30, 3


class Untold(MemoryBackend):
    """Tells names and values and nothing of their versions, as Vault's KV v1."""

    async def list_entries(
        self, prefixes: Sequence[str], *, tokens: bool
    ) -> AsyncGenerator[ListingPage]:
        async for page in super().list_entries(prefixes, tokens=tokens):
            yield replace(page, entries=tuple(Entry(e.remote_path) for e in page.entries))

    async def read(self, paths: Sequence[RemotePath]) -> Sequence[RemoteRead]:
        return [
            replace(r, value_token="", meta_token=None, order=None, tags=None)
            if isinstance(r, RemoteValue)
            else r
            for r in await super().read(paths)
        ]


@pytest.fixture
async def untold(database_url: str, admin_url: str, state_dir: Path) -> AsyncIterator[House]:
    async with open_house(database_url, admin_url, state_dir, made=Untold) as house:
        yield house


def rolled_back(store: MemoryStore, n: int) -> None:
    store.rollback(f"kv/{n}", 1)


def overwritten(store: MemoryStore, n: int) -> None:
    store.put(f"kv/{n}", {"k": "other"})


def gone(store: MemoryStore, n: int) -> None:
    store.remove(f"kv/{n}")


HAPPENS = pytest.mark.parametrize(
    ("happens", "code", "allow", "counted"),
    [
        (rolled_back, "mass_regression_guard", Allow(regression=True), "rolled_back"),
        (overwritten, "mass_overwrite_guard", Allow(mass_overwrite=True), "updated"),
        (gone, "mass_delete_guard", Allow(mass_delete=True), "deleted"),
    ],
    ids=["rolled_back", "overwritten", "gone"],
)
Happens = Callable[[MemoryStore, int], None]


async def settled(house: House) -> None:
    await house.configure(on_remote_delete=OnRemoteDelete.SOFT_DELETE, max_versions=2)
    for value in ("1", "2"):
        for n in range(MANY):
            house.there.put(f"kv/{n}", {"k": value})
    await house.run()


@HAPPENS
async def test_targeted_run_of_many_paths_is_stopped_before_its_first_write(
    house: House, happens: Happens, code: str, allow: Allow, counted: str
) -> None:
    await settled(house)
    for n in range(MANY):
        happens(house.there, n)
    before = await house.dump(without=WORK | ENDINGS)
    assert failure(await house.run("ext/**", allow=Allow())) == code
    assert await house.dump(without=WORK | ENDINGS) == before
    # What was rolled back is overwritten too; each guard is told for itself.
    told = Allow(
        allow.mass_delete, mass_overwrite=counted != "deleted", regression=allow.regression
    )
    ended = await house.run("ext/**", allow=told)
    assert failure(ended) is None
    assert counts(ended)[counted] == MANY


@HAPPENS
async def test_targeted_run_of_a_few_paths_passes(
    house: House, happens: Happens, code: str, allow: Allow, counted: str
) -> None:
    await settled(house)
    for n in range(FEW):
        happens(house.there, n)
    ended = await house.run(*(f"ext/{n}" for n in range(FEW)), allow=Allow())
    assert failure(ended) is None
    assert counts(ended)[counted] == FEW


async def test_targeted_run_of_many_paths_that_did_not_move_passes(house: House) -> None:
    await settled(house)
    before = await house.dump(without=WORK | ENDINGS)
    assert failure(await house.run("ext/**", allow=Allow())) is None
    assert await house.dump(without=WORK | ENDINGS) == before


# --- a store without tokens -----------------------------------------------------------------


async def test_store_without_tokens_is_guarded_against_mass_overwrite(untold: House) -> None:
    for n in range(MANY):
        untold.there.put(f"kv/{n}", {"k": "1"})
    await untold.run()
    for n in range(MANY):
        untold.there.put(f"kv/{n}", {"k": "2"})
    before = await untold.dump(without=WORK | ENDINGS)
    assert failure(await untold.run(allow=Allow())) == "mass_overwrite_guard"
    assert await untold.dump(without=WORK | ENDINGS) == before
    ended = await untold.run(allow=Allow(mass_overwrite=True))
    assert counts(ended)["updated"] == MANY


async def test_quiet_cycle_of_a_store_without_tokens_reads_each_value_once(untold: House) -> None:
    for n in range(MANY):
        untold.there.put(f"kv/{n}", {"k": "1"})
    await untold.run()
    untold.there.put("kv/0", {"k": "2"})
    before = untold.there.calls["read"]
    ended = await untold.run(allow=Allow())
    assert counts(ended) == {"listed": MANY, "unchanged": MANY - 1, "updated": 1}
    # Once each; the one that differs is read again when it is taken.
    assert untold.there.calls["read"] - before == MANY + 1
