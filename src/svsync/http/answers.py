"""The one form of an error, and the headers that every answer carries."""

from collections.abc import Mapping
from typing import Final

HEADERS: Final[Mapping[str, str]] = {
    "Server": "svsync",
    "X-Content-Type-Options": "nosniff",
}
NOT_KEPT: Final[Mapping[str, str]] = {"Cache-Control": "no-store"}
"""For whatever says nothing else of caches."""


def error_of(
    code: str,
    message: str,
    request_id: str,
    field: str = "",
    push_id: str = "",
    conflict: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """The body of an answer that is an error; with the field that is meant, the push of
    which nobody knows how it ended, and the conflict as it stands now, where there are such."""
    told = {"code": code, "message": message, "request_id": request_id}
    more = {"field": field, "push_id": push_id, "conflict": conflict}
    return {"error": told | {name: about for name, about in more.items() if about}}
