"""So many at once of what keeps a process, or a connection to the store, for long."""

from collections.abc import Iterator
from contextlib import contextmanager

from svsync.services.recording import OverloadedError


class Turns:
    """Of one process. Nobody waits for one: who would is told to ask again."""

    def __init__(self, most: int, what: str) -> None:
        """`most` at once; `what`: how a sentence goes on after that number."""
        self._most = most
        self._what = what
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises OverloadedError: all are taken."""
        if self._taken >= self._most:
            raise OverloadedError(f"{self._most} {self._what} here, and no more at once: try again")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
