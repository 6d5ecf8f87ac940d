"""An answer of Key Vault, taken apart: its JSON, and when it was given."""

import email.utils
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        body: the JSON object, which may hold a value; empty where there is none.
        moment: when the vault answered, by its own clock, in whole seconds.
        is_object: the body is a JSON object, as every answer of this API but one.
    """

    status: int
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    moment: datetime = field(default_factory=lambda: datetime.now(UTC))
    retry_after: float | None = None
    is_object: bool = True

    @property
    def code(self) -> str:
        """Key Vault's own words for why not, from the general to the particular one:
        `Forbidden/SecretDisabled`. Empty where it is no error of Key Vault."""
        error = self.body.get("error")
        words = []
        # [Azure Key Vault REST API error codes, general/rest-error-codes]; both spellings
        # of innererror are seen.
        while isinstance(error, dict):
            if isinstance(error.get("code"), str):
                words.append(error["code"])
            error = error.get("innererror", error.get("innerError"))
        return "/".join(words)


def take_apart(status: int, headers: Mapping[str, str], raw: bytes) -> Answer:
    body: object
    try:
        body = json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        body = None
    is_object = isinstance(body, dict)
    return Answer(
        status,
        body if isinstance(body, dict) else _NOTHING,
        _moment(headers.get("Date") or ""),
        _seconds(headers.get("Retry-After")),
        is_object,
    )


def _moment(date: str) -> datetime:
    """The server's own clock, from its Date header; ours where it sends none."""
    try:
        moment = email.utils.parsedate_to_datetime(date)
    except ValueError:
        return datetime.now(UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() else None
