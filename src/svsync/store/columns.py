"""Rows turned into columns, for statements that take one array a column."""

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter


def columns(rows: Sequence[Sequence[object]], width: int) -> list[list[object]]:
    """The `width` columns of `rows`; empty columns where there are no rows."""
    if not rows:
        return [[] for _ in range(width)]
    return [list(column) for column in zip(*rows, strict=True)]


def field_columns(rows: Sequence[object], kind: type) -> list[list[object]]:
    """One column for each field of the dataclass `kind` that the rows are of."""
    return [list(map(attrgetter(field.name), rows)) for field in fields(kind)]
