"""Change feeds that arrive over HTTP: which there are, and the text of a feed's secret.

A secret's text is `svf_<tenant>_<id>_<secret>`, built as that of a token is: the number of
its tenant and its own id, by which its row is found, and 256 random bits. Only the SHA-256
of the whole is stored. It is good for one feed of one backend, and is no token.
"""

import re
from typing import Final

from svsync.domain.ids import TenantId

EVENT_GRID: Final = "azure-eventgrid"
HTTP_FEEDS: Final = ("http", EVENT_GRID)
"""Feeds that come to us; all others svsync goes or listens to."""
MOST_PATHS: Final = 100
"""Paths of one event; more are one full run."""

_MAX_TENANT: Final = 2**31 - 1
_TEXT: Final = re.compile(r"svf_([1-9][0-9]{0,9})_([0-9a-f]{32})_[0-9a-f]{64}")
_ID: Final = re.compile(r"fds_[0-9a-f]{32}")


def secret_text(tenant: TenantId, secret_id: str, secret: bytes) -> str:
    """The text that the sender keeps."""
    return f"svf_{tenant}_{secret_id.removeprefix('fds_')}_{secret.hex()}"


def secret_name(text: str) -> tuple[TenantId, str] | None:
    """The tenant and the id that a secret's text names; None: it is no secret's text."""
    named = _TEXT.fullmatch(text)
    if named is None or int(named[1]) > _MAX_TENANT:
        return None
    return TenantId(int(named[1])), f"fds_{named[2]}"


def is_secret_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None
