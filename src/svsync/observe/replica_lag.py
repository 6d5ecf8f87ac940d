"""How old what a replica of the database told may be, for whoever makes an answer of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TOLD: ContextVar[list[float] | None] = ContextVar("replica_lag", default=None)


@contextmanager
def told_of_lag() -> Iterator[list[float]]:
    """The seconds of each look at a replica within the block; empty: there was none."""
    told: list[float] = []
    token = _TOLD.set(told)
    try:
        yield told
    finally:
        _TOLD.reset(token)


def tell_lag(seconds: float) -> None:
    """Something was read that may be so old."""
    told = _TOLD.get()
    if told is not None:
        told.append(seconds)
