"""How long a test waits for what must come, before it is called hung."""

from typing import Final

PATIENCE_S: Final = 180.0
"""Seconds. No test is about this time: a machine that is slow, or has others' work beside it,
takes several times as long as one that is not, and a test that fails there tells of the
machine."""
