"""Does the audit log fit together? Everything is computed anew, and nothing is believed.

Checkpoints first: their numbers, what each names as the one before, their signatures, and
whether the rows that they name are there. Then all rows, in the order of their chains: each
has to follow on the one before. Then what places outside have: each of their checkpoints
has to be there still, and the same. So a row that was changed, removed, added or moved is
found by its chain; a chain that was made anew, or cut off, by a checkpoint; and checkpoints
that were cut off or made anew, by an anchor.

Rows and checkpoints are read page by page, so the size of the log does not matter; of each
chain a few numbers are remembered. Whatever is recorded meanwhile is no misfit.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from svsync.domain.audit import (
    FIRST,
    Entry,
    Head,
    genesis,
    heads_of,
    link,
    root_of,
)
from svsync.domain.audit_report import Misfit, Report
from svsync.domain.ids import KeyId, TenantId
from svsync.ports import ReadableAnchor
from svsync.services.anchor_verification import AnchorLook
from svsync.services.signing import PublicKey, Signing, is_signed
from svsync.store import checkpoints, verification
from svsync.store.database import Database, Row, Transaction

_ROWS: Final = 2_000
_CHECKPOINTS: Final = 500
_CHAINS: Final = 5_000
_ALWAYS: Final = datetime(1, 1, 1, tzinfo=UTC)
_SLACK: Final = timedelta(days=1)
"""By which a row may have come under a checkpoint later than it was made."""


@dataclass(slots=True)
class _Known:
    """A chain as the database tells of it, and its last head in the checkpoints."""

    writer: str
    started_at: datetime
    ended_seq: int | None
    ended_hash: bytes | None
    end_reason: str | None
    trimmed_seq: int
    trimmed_hash: bytes | None
    covered_seq: int
    head: int = 0
    seen: bool = False


@dataclass(slots=True)
class _Walk:
    """Where the walk along a chain is. `hash` None: of the row before nothing is known."""

    chain: int
    known: _Known | None
    seq: int
    hash: bytes | None
    at: datetime | None = None


class Verification:
    """Verifies the audit logs of tenants."""

    def __init__(self, db: Database, signing: Signing) -> None:
        self._db = db
        self._signing = signing

    async def verify(
        self,
        tenant: TenantId,
        anchors: Sequence[Iterable[str]] = (),
        *,
        places: Sequence[ReadableAnchor] = (),
        since: datetime | None = None,
        keys: Mapping[KeyId, PublicKey] | None = None,
    ) -> Report:
        """Look through the whole log of a tenant.

        Args:
            anchors: lines of what places outside have; lines about anything else are passed by.
            places: those that are read from here.
            since: rows before, and checkpoints before the last one until then, are believed.
            keys: those that signed, as somebody kept them; they are believed before ours.

        Raises:
            StoreError: it cannot be looked at now.
            AnchorError: a place cannot be read.
        """
        believed = {**await self._signing.public_keys(tenant), **(keys or {})}
        looked = _Look(self._db, tenant, believed, since)
        await looked.learn()
        await looked.follow_checkpoints()
        await looked.follow_rows()
        outside = AnchorLook(self._db, tenant, looked.keys, since, looked.report)
        for lines in anchors:
            await outside.compare(lines)
        for place in places:
            await outside.compare_place(place)
        return looked.report


class _Look:
    """One look through the log of one tenant."""

    def __init__(
        self,
        db: Database,
        tenant: TenantId,
        keys: Mapping[KeyId, PublicKey],
        since: datetime | None,
    ) -> None:
        self._db = db
        self._tenant = tenant
        self.keys = keys
        self._since = since
        self._chains: dict[int, _Known] = {}
        self._newest = 0
        self._trimmed: datetime | None = None
        self.report = Report()

    async def learn(self) -> None:
        """The chains, before anything else: what comes later is no misfit of theirs."""
        after = 0
        while True:
            async with self._db.transaction(self._tenant, read_only=True) as tx:
                rows = await verification.chains(tx, after, _CHAINS)
            self._chains.update((row["chain_id"], _known(row)) for row in rows)
            if len(rows) < _CHAINS:
                break
            after = rows[-1]["chain_id"]
        async with self._db.transaction(self._tenant, read_only=True) as tx:
            self._newest = await verification.newest(tx)
            self._trimmed = _latest(await verification.trims(tx))
        self.report.chains = len(self._chains)
        if any(known.trimmed_seq for known in self._chains.values()):
            self.report.trimmed_before = self._trimmed

    # --- checkpoints ------------------------------------------------------------------

    async def follow_checkpoints(self) -> None:
        n, before, at = 0, FIRST, _ALWAYS
        believed = self._since is not None
        if self._since is not None:
            async with self._db.transaction(self._tenant, read_only=True) as tx:
                n = max(await checkpoints.before(tx, self._since) - 1, 0)
            believed = n > 0
        while n < self._newest:
            async with self._db.transaction(self._tenant, read_only=True) as tx:
                rows = await checkpoints.page(tx, n, _CHECKPOINTS)
            # What was made since the look began has its rows since then, too.
            rows = [row for row in rows if row["n"] <= self._newest]
            if not rows:
                break
            heads: list[tuple[Head, Row, datetime]] = []
            for row in rows:
                if row["n"] != n + 1:
                    missing = str(n + 1) if row["n"] == n + 2 else f"{n + 1} to {row['n'] - 1}"
                    self._checkpoint(n + 1, f"checkpoint {missing} is not there")
                elif not believed and row["prev_hash"] != before:
                    self._checkpoint(row["n"], "it does not name the checkpoint before it")
                heads += [(head, row, at) for head in self._check(row, at)]
                n, before, at, believed = row["n"], row["hash"], row["at"], False
            await self._look_for(heads)
        self.report.signed_until = None if at == _ALWAYS else at
        for number, known in self._chains.items():
            whole = self._since is None or known.head
            if whole and known.head < known.covered_seq:
                self._checkpoint(
                    self._newest + 1,
                    f"the checkpoint that covered chain {number} up to row {known.covered_seq} is"
                    " not there",
                    chain=number,
                )

    def _check(self, row: Row, before: datetime) -> list[Head]:
        """Look at one checkpoint by itself; the heads that it names."""
        self.report.checkpoints += 1
        made = checkpoints.checkpoint_of(self._tenant, row)
        key = self.keys.get(KeyId(row["key_id"]))
        if key is None:
            self._checkpoint(made.n, "it is signed with a key that does not open here")
        elif not is_signed(key.key, made.signed_text(), row["signature"]):
            self._checkpoint(made.n, "its signature is not that of the signing key")
        elif made.hash != row["hash"]:
            self._checkpoint(made.n, "its hash is not that of what it says")
        if made.root != root_of(row["heads"]):
            self._checkpoint(made.n, "it does not hold the heads that it was signed for")
        if made.at < before:
            self._checkpoint(made.n, "it is older than the checkpoint before it")
        try:
            return heads_of(row["heads"])
        except (ValueError, TypeError):
            self._checkpoint(made.n, "its heads cannot be read")
            return []

    async def _look_for(self, heads: Sequence[tuple[Head, Row, datetime]]) -> None:
        """Are the rows there that checkpoints name?"""
        async with self._db.transaction(self._tenant, read_only=True) as tx:
            found = await verification.hashes(tx, [head for head, _, _ in heads])
        for (head, row, before), there in zip(heads, found, strict=True):
            known = self._chains.get(head.chain)
            if known is not None:
                known.head = max(known.head, head.seq)
            if there == head.hash:
                continue
            if there is None and known is not None and head.seq <= known.trimmed_seq:
                if self._since is not None or self._was_due(before):
                    continue
                what = "it was removed before its time: retention had not come so far"
            elif there is None:
                what = f"checkpoint {row['n']} names it, and it is not there"
            else:
                what = f"checkpoint {row['n']} names it with another hash"
            self._row(head.chain, head.seq, row["at"], what, checkpoint=row["n"])

    def _was_due(self, before: datetime) -> bool:
        """May retention have removed what came after a checkpoint of that time?"""
        return self._trimmed is not None and before <= self._trimmed + _SLACK

    # --- rows -------------------------------------------------------------------------

    async def follow_rows(self) -> None:
        place, begin = (0, 0), self._since or _ALWAYS
        walk: _Walk | None = None
        while True:
            async with self._db.transaction(self._tenant, read_only=True) as tx:
                rows = await verification.rows(tx, place, begin, _ROWS)
                for row in rows:
                    if walk is None or row["chain_id"] != walk.chain:
                        self._leave(walk)
                        walk = await self._enter(tx, row)
                    elif row["seq"] != walk.seq + 1:
                        await self._jump(tx, walk, row)
                    self._step(walk, row)
            if len(rows) < _ROWS:
                break
            # Of rows with one number, which there must not be, the next page begins with the next.
            place = rows[-1]["chain_id"], rows[-1]["seq"]
        self._leave(walk)
        if self._since is None:
            self._miss_whole_chains()

    async def _enter(self, tx: Transaction, row: Row) -> _Walk:
        """Begin with a chain, at its first row of the look."""
        chain, seq, at = row["chain_id"], row["seq"], row["at"]
        known = self._chains.get(chain)
        if known is None:  # begun after the look did
            found = await verification.chain(tx, chain)
            if found is None:
                self._row(chain, seq, at, "it is of a chain that there is not")
                return _Walk(chain, None, seq - 1, None)
            known = self._chains[chain] = _known(found)
            known.ended_seq = None  # it may end anywhere after what is seen of it
            self.report.chains += 1
        known.seen = True
        walk = _Walk(chain, known, known.trimmed_seq, known.trimmed_hash)
        if known.trimmed_seq == 0:
            walk.hash = genesis(self._tenant, chain, known.writer)
        else:
            self._check_trim(chain, known, at)
        if seq != walk.seq + 1:
            await self._jump(tx, walk, row)
        return walk

    async def _jump(self, tx: Transaction, walk: _Walk, row: Row) -> None:
        """The row is not the next one. Where that is as it should be, or was told, the walk
        goes on from the row before it."""
        chain, seq = walk.chain, row["seq"]
        if self._since is not None and walk.at is None and seq > walk.seq + 1:
            walk.hash = await verification.row_hash(tx, chain, seq - 1)
            if walk.hash is not None:
                walk.seq = seq - 1
                return
        now = await verification.chain(tx, chain)
        if now is not None and now["trimmed_seq"] == seq - 1:  # retention came by meanwhile
            walk.seq, walk.hash = seq - 1, now["trimmed_hash"]
            return
        if seq <= walk.seq:
            what = "there is another row with its number"
        elif seq == walk.seq + 2:
            what = f"the row before it, {seq - 1}, is not there"
        else:
            what = f"the rows before it, {walk.seq + 1} to {seq - 1}, are not there"
        self._row(chain, seq, row["at"], what)
        walk.seq, walk.hash = seq - 1, None

    def _step(self, walk: _Walk, row: Row) -> None:
        """Does a row follow on the one before? The walk goes on from what it says itself."""
        self.report.rows += 1
        chain, seq, at = walk.chain, row["seq"], row["at"]
        entry = _entry_of(self._tenant, row)
        if walk.hash is not None and link(walk.hash, chain, seq, at, entry) != row["hash"]:
            self._row(chain, seq, at, "it does not follow on the row before: one was changed")
        elif walk.at is not None and at < walk.at:
            self._row(chain, seq, at, "it is older than the row before it")
        walk.seq, walk.hash, walk.at = seq, row["hash"], at
        known = walk.known
        if known is None:
            return
        if seq == known.ended_seq and row["hash"] != known.ended_hash:
            self._row(chain, seq, at, "its chain ended here with another hash")
        if seq > known.head:
            self.report.on_chain_only += 1
            first = self.report.unsigned_from
            self.report.unsigned_from = at if first is None else min(first, at)

    def _leave(self, walk: _Walk | None) -> None:
        """A chain that was ended ends where it says."""
        known = walk.known if walk is not None else None
        if walk is None or known is None or known.ended_seq is None:
            return
        if walk.seq < known.ended_seq:
            self._row(
                walk.chain, known.ended_seq, walk.at,
                f"its chain ended with it, and after row {walk.seq} nothing is there",
            )  # fmt: skip
        elif walk.seq > known.ended_seq and known.end_reason != "outcome_unknown":
            self._row(
                walk.chain, walk.seq, walk.at, f"its chain had ended with row {known.ended_seq}"
            )

    def _miss_whole_chains(self) -> None:
        for number, known in self._chains.items():
            if known.seen:
                continue
            if known.trimmed_seq:
                self._check_trim(number, known, None)
            if (known.ended_seq or 0) > known.trimmed_seq:
                self._chain(
                    number, f"it ended with row {known.ended_seq}, and nothing of it is there"
                )

    def _check_trim(self, chain: int, known: _Known, at: datetime | None) -> None:
        """Retention says in the log what it removes: from a chain that began before that."""
        if self._trimmed is not None and known.started_at < self._trimmed + _SLACK:
            return
        self._row(
            chain, known.trimmed_seq, at or known.started_at,
            "the rows of its chain up to here were removed, and not by retention",
        )  # fmt: skip

    # --- what does not fit ------------------------------------------------------------

    def _row(
        self,
        chain: int,
        seq: int,
        at: datetime | None,
        what: str,
        *,
        checkpoint: int | None = None,
    ) -> None:
        self.report.add(Misfit("row", what, chain, seq, at, checkpoint))

    def _chain(self, chain: int, what: str) -> None:
        self.report.add(Misfit("chain", what, chain))

    def _checkpoint(self, n: int, what: str, *, chain: int | None = None) -> None:
        self.report.add(Misfit("checkpoint", what, chain, checkpoint=n))


def _known(row: Row) -> _Known:
    return _Known(
        row["writer"], row["started_at"], row["ended_seq"], row["ended_hash"], row["end_reason"],
        row["trimmed_seq"], row["trimmed_hash"], row["covered_seq"],
    )  # fmt: skip


def _entry_of(tenant: TenantId, row: Row) -> Entry:
    return Entry(
        tenant, row["identity_type"], row["identity_id"], row["action"], row["decision"],
        row["secret_path"], row["version"], row["backend_id"], row["request_id"], row["source_ip"],
        row["detail"],
    )  # fmt: skip


def _latest(details: Iterable[str]) -> datetime | None:
    """Up to where retention said that it would remove rows."""
    found: list[datetime] = []
    for detail in details:
        try:
            found.append(datetime.fromisoformat(json.loads(detail)["before"]))
        except (ValueError, KeyError, TypeError):
            continue
    return max((at for at in found if at.tzinfo is not None), default=None)
