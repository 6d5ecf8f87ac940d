"""How much of what is read is held at once: cut by bytes, in a run and before its guards."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.house import House, failure

from svsync.domain.guards import Allow
from svsync.services.sync import fetch


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of changes of each piece that was read, with room for five values."""
    seen: list[int] = []
    original = fetch.fetch_batch

    async def fetch_batch(run: Any, changes: Sequence[Any]) -> Any:
        seen.append(len(changes))
        return await original(run, changes)

    monkeypatch.setattr(fetch, "fetch_batch", fetch_batch)
    monkeypatch.setattr(fetch, "FIRST_PIECE", 2)
    monkeypatch.setattr(fetch, "PIECE_BYTES", 5_500)
    return seen


def fill(house: House, letter: str) -> None:
    for n in range(30):
        house.there.put(f"kv/s{n:02}", {"k": letter * 1_000})


async def test_a_run_reads_no_more_at_once_than_its_bytes_allow(
    house: House, sizes: list[int]
) -> None:
    fill(house, "a")
    assert failure(await house.run()) is None
    assert sum(sizes) == 30
    assert (sizes[0], max(sizes)) == (2, 5)


async def test_what_is_read_before_the_guards_is_cut_as_well(
    house: House, sizes: list[int]
) -> None:
    fill(house, "a")
    await house.run()
    sizes.clear()
    fill(house, "b")
    assert failure(await house.run(allow=Allow())) == "mass_overwrite_guard"
    assert sum(sizes) == 30
    assert (sizes[0], max(sizes)) == (2, 5)
