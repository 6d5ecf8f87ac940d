"""Is a mapping that means more than memory holds worked on page by page?"""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from svsync.config.copy_mapping import CopyMapping, load_copy_mapping
from svsync.domain.errors import BackendUnreachableError, NotFoundError, StoreUnavailableError
from svsync.domain.ids import LocalPath
from svsync.services.comparing import Comparison, compare_copies
from svsync.services.copying import Copies, copy
from svsync.services.transfer import WORKERS, Given, Held, Names, Report

PAGE = 100
PAGES = 5


class Store:
    """Holds `old/N` and no copy. `ahead` has how many of its names were told and not yet read,
    each time that it is asked for a further page."""

    def __init__(self, **last: object) -> None:
        self.told = self.read_ = 0
        self.ahead: list[int] = []
        self.written: dict[str, str] = {}
        self.last = last
        self.breaks: Exception | None = None

    async def names(self, prefix: str) -> AsyncGenerator[Names, None]:
        assert prefix == "old/"
        for page in range(PAGES):
            self.ahead.append(self.told - self.read_)
            if page == PAGES - 1 and self.breaks is not None:
                raise self.breaks
            numbers = range(page * PAGE, (page + 1) * PAGE)
            self.told += PAGE
            yield Names(tuple(LocalPath(f"old/{n:04}") for n in numbers), False)
        yield Names((), **{"incomplete": False, **self.last})  # type: ignore[arg-type]

    async def read(self, path: LocalPath) -> Held:
        if path.startswith("old/"):
            self.read_ += 1
            return Held('{"k": "1"}', 1, "json")
        raise NotFoundError("there is none", code="secret_not_found")

    async def was_deleted(self, path: LocalPath) -> bool:
        return False

    async def write(self, path: LocalPath, given: Given, *, cas: int, detail: str) -> int:
        self.written[path] = detail
        return 1


@pytest.fixture
def mapping(tmp_path: Path) -> CopyMapping:
    file = tmp_path / "copy.yaml"
    file.write_text("paths: {old/named: new/named, 'old/*': 'new/*', 'gone/**': null}\n")
    return load_copy_mapping(str(file))


async def test_no_page_is_asked_for_before_the_one_before_it_is_worked_on(
    mapping: CopyMapping,
) -> None:
    store, report = Store(), Report()
    await copy(store, mapping, report, overwrite=False, tell=lambda done: None)
    assert max(store.ahead) <= WORKERS
    assert len(store.written) == PAGE * PAGES + 1  # and the one that is named
    assert report.counts()["created"] == PAGE * PAGES + 1
    compared, store = Comparison(), Store()
    await compare_copies(store, mapping, compared, only=None, tell=lambda done: None)
    assert max(store.ahead) <= WORKERS
    assert compared.compared == PAGE * PAGES + 1


async def test_what_is_listed_and_named_is_meant_once(mapping: CopyMapping) -> None:
    class Both(Store):
        async def names(self, prefix: str) -> AsyncGenerator[Names, None]:
            yield Names((LocalPath("old/a"), LocalPath("old/named")), False)

    copies = Copies(Both(), mapping)
    assert [one.path async for one in copies.find()] == ["new/a", "new/named"]
    assert copies.unmatched == ()


async def test_listing_that_breaks_off_ends_it_and_what_was_done_is_told(
    mapping: CopyMapping,
) -> None:
    store, report = Store(), Report()
    store.breaks = StoreUnavailableError("the store is away")
    with pytest.raises(StoreUnavailableError):
        await copy(store, mapping, report, overwrite=False, tell=lambda done: None)
    done = report.counts()["created"]
    assert PAGE * (PAGES - 1) - WORKERS <= done <= PAGE * (PAGES - 1)
    assert report.unmatched == []  # nobody knows yet


async def test_backend_that_is_away_is_told_at_the_end(mapping: CopyMapping) -> None:
    away = BackendUnreachableError("no answer", operation="list")
    store, report = Store(incomplete=True, away=away), Report()
    with pytest.raises(BackendUnreachableError):
        await copy(store, mapping, report, overwrite=False, tell=lambda done: None)
    assert report.counts()["created"] == PAGE * PAGES + 1
    assert report.not_listed == ["old/"]
