"""Tenants: what one may be called, and what is told of one that was shredded."""

import re
from typing import Final

from svsync.domain.errors import UsageError

SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SHREDDED: Final = "shredded"
"""The state of a tenant whose keys were destroyed; it has no other one after that."""
SHREDDED_EVENT: Final = "tenant.shredded"
"""The one event that stays of such a tenant. Nobody is sent it: what it would be signed with
went with the keys."""


def parse_slug(text: str) -> str:
    """A tenant's name. Raises UsageError for one that it cannot have."""
    if not SLUG.fullmatch(text):
        raise UsageError(
            "a tenant's slug is a-z, 0-9 and -, begins with a letter or digit, and has at most 63"
            " characters"
        )
    return text
