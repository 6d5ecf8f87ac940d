"""What a look through the whole audit log found: what does not fit, and on what the rest stands."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

SHOWN: Final = 100
"""Misfits that are told one by one; the others are counted."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Something that does not fit.

    Attributes:
        kind: `row`, `chain`, `checkpoint` or `anchor`.
        what: a sentence.
        chain, seq, at: the row that it is about, where it is about one.
        checkpoint: the number of the one that it is about, likewise.
        line: of an anchor, from 1 on; None for one whose checkpoints have names.
    """

    kind: str
    what: str
    chain: int | None = None
    seq: int | None = None
    at: datetime | None = None
    checkpoint: int | None = None
    line: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "message": self.what,
            "chain": self.chain,
            "seq": self.seq,
            "at": told(self.at),
            "checkpoint": self.checkpoint,
            "line": self.line,
        }


@dataclass(slots=True)
class Report:
    """Of one tenant.

    Attributes:
        chains, rows, checkpoints, anchored: how many were looked at; the last, lines of anchors.
        signed_until: the moment of the last checkpoint.
        anchored_until: likewise of the last one that an anchor has.
        on_chain_only: rows after the last checkpoint of their chain, from `unsigned_from` on:
            they could be cut off, and nobody would know.
        trimmed_before: up to there retention removed rows.
    """

    chains: int = 0
    rows: int = 0
    checkpoints: int = 0
    anchored: int = 0
    signed_until: datetime | None = None
    anchored_until: datetime | None = None
    on_chain_only: int = 0
    unsigned_from: datetime | None = None
    trimmed_before: datetime | None = None
    misfits: list[Misfit] = field(default_factory=list)
    more: int = 0

    @property
    def fits(self) -> bool:
        return not self.misfits

    def add(self, misfit: Misfit) -> None:
        if len(self.misfits) < SHOWN:
            self.misfits.append(misfit)
        else:
            self.more += 1

    @property
    def first(self) -> Misfit | None:
        """The first row that does not fit, by its time; else the first of anything."""
        rows = [m for m in self.misfits if m.at is not None]
        return min(rows, key=_moment) if rows else next(iter(self.misfits), None)

    def as_json(self) -> dict[str, Any]:
        first = self.first
        return {
            "fits": self.fits,
            "chains": self.chains,
            "rows": self.rows,
            "checkpoints": self.checkpoints,
            "anchored": self.anchored,
            "signed_until": told(self.signed_until),
            "anchored_until": told(self.anchored_until),
            "on_chain_only": {"rows": self.on_chain_only, "from": told(self.unsigned_from)},
            "trimmed_before": told(self.trimmed_before),
            "first_misfit": first and first.as_json(),
            "misfits": [misfit.as_json() for misfit in self.misfits],
            "more_misfits": self.more,
        }


def _moment(misfit: Misfit) -> datetime:
    assert misfit.at is not None
    return misfit.at


def told(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="microseconds").replace("+00:00", "Z")
