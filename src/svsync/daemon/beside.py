"""What a process of several is told of the others by the one that started it."""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from svsync.domain.errors import SetupError

VARIABLE: Final = "SVSYNC_BESIDE"
"""By which it is told; nobody else sets it."""
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Beside:
    """
    Attributes:
        parent: the number of the process that started it.
        listeners: host and port of whatever the others listen at and it does not.
    """

    parent: int
    listeners: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Beside | None":
        """None where a process is the only one of its port."""
        text = environ.get(VARIABLE)
        if text is None:
            return None
        told = json.loads(text)
        return cls(told["parent"], frozenset((host, port) for host, port in told["listeners"]))

    def written(self) -> str:
        return json.dumps({"parent": self.parent, "listeners": sorted(self.listeners)})

    def end_with_parent(self) -> None:
        """Have the kernel send SIGTERM when the parent dies: nobody would start it again.

        Raises SetupError: it is dead already.
        """
        if sys.platform == "linux":
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != self.parent:
            raise SetupError("the process that started this one has ended")
