"""Are the checkpoints that places outside have still there, and the same?

A place gives lines, which somebody fetched from it, or is read from here: then each of its
checkpoints has a name, and it is told as well where one lacks among those that it was given.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final

from svsync.domain.audit import Anchored, anchored_of
from svsync.domain.audit_report import Misfit, Report
from svsync.domain.ids import KeyId, TenantId
from svsync.ports import ReadableAnchor
from svsync.services.signing import PublicKey, is_signed
from svsync.store import checkpoints
from svsync.store.database import Database

_LINES: Final = 1_000


class AnchorLook:
    """One look at the places of one tenant; what does not fit is added to the report."""

    def __init__(
        self,
        db: Database,
        tenant: TenantId,
        keys: Mapping[KeyId, PublicKey],
        since: datetime | None,
        report: Report,
    ) -> None:
        self._db = db
        self._tenant = tenant
        self._keys = keys
        self._since = since
        self._report = report

    async def compare(self, lines: Iterable[str]) -> None:
        """Lines that somebody fetched; those about anything else are passed by."""
        page: list[tuple[int, Anchored]] = []
        for number, line in enumerate(lines, 1):
            try:
                found = anchored_of(line)
            except ValueError:
                self._misfit(None, "it holds a checkpoint that cannot be read", line=number)
                continue
            if found is not None and found.checkpoint.tenant == self._tenant:
                page.append((number, found))
            if len(page) == _LINES:
                await self._compare(page)
                page = []
        await self._compare(page)

    async def compare_place(self, place: ReadableAnchor) -> None:
        """A place that is read from here.

        Raises AnchorError: it cannot be.
        """
        # Before it is listed: what it is given meanwhile may be listed or not.
        async with self._db.transaction(self._tenant, read_only=True) as tx:
            given = await checkpoints.span(tx, place.place)
        page: list[tuple[None, Anchored]] = []
        last: int | None = None
        async with aclosing(place.kept(self._tenant, self._since)) as all_kept:
            async for kept in all_kept:
                if last is not None:
                    self._look_for_gap(last + 1, kept.n - 1, given)
                last = kept.n
                found = kept.line and anchored_of(kept.line)
                if found:
                    page.append((None, found))
                elif not kept.believed:
                    self._misfit(kept.n, f"{kept.name} does not hold the checkpoint of its name")
                if len(page) == _LINES:
                    await self._compare(page)
                    page = []
        await self._compare(page)
        if given is not None:
            self._look_for_gap(given[0] if last is None else last + 1, given[1], given)

    def _look_for_gap(self, first: int, last: int, given: tuple[int, int] | None) -> None:
        """None of these is there: is that among what it was given? Before the first that is
        there its own retention may have removed some: those that follow hang on them."""
        if given is None:
            return
        first, last = max(first, given[0]), min(last, given[1])
        if first <= last:
            many = f"checkpoint {first}" if first == last else f"checkpoints {first} to {last}"
            self._misfit(first, f"{many} had been kept there, and cannot be found any more")

    async def _compare(self, page: Sequence[tuple[int | None, Anchored]]) -> None:
        async with self._db.transaction(self._tenant, read_only=True) as tx:
            there = await checkpoints.some(tx, [found.checkpoint.n for _, found in page])
        for line, found in page:
            self._report.anchored += 1
            made, row = found.checkpoint, there.get(found.checkpoint.n)
            key = self._keys.get(KeyId(found.key_id))
            if key is None or not is_signed(key.key, made.signed_text(), found.signature):
                what = "the line is not signed by a key that opens here"
                self._misfit(made.n, what, line=line)
            elif row is None:
                what = "the checkpoint was anchored, and is not there any more"
                self._misfit(made.n, what, made.at, line=line)
            elif checkpoints.checkpoint_of(self._tenant, row) != made:
                self._misfit(made.n, "it is another one than was anchored", made.at, line=line)
            else:
                until = self._report.anchored_until
                self._report.anchored_until = made.at if until is None else max(until, made.at)

    def _misfit(
        self, n: int | None, what: str, at: datetime | None = None, *, line: int | None = None
    ) -> None:
        self._report.add(Misfit("anchor", what, at=at, checkpoint=n, line=line))
