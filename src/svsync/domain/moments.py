"""Moments as people and programs give them: RFC 3339, or so long ago."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_AGO: Final = re.compile(r"([0-9]{1,6}) ?(second|minute|hour|day)s? ago", re.IGNORECASE)
# In a query an unescaped plus arrives as a space.
_RFC_3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?"
    r"(?:([Zz])|([+\- ])([0-9]{2}:[0-9]{2}))"
)
WORDS: Final = "a time as 2026-11-23T10:00:00Z, or as `1 hour ago`"


def parse_moment(text: str, now: datetime) -> datetime:
    """The moment in UTC, to the microsecond.

    Raises ValueError for a text that names none.
    """
    if ago := _AGO.fullmatch(text.strip()):
        try:
            return now.astimezone(UTC) - timedelta(**{f"{ago[2].lower()}s": int(ago[1])})
        except OverflowError:
            raise ValueError("before all time") from None
    if (named := _RFC_3339.fullmatch(text.strip())) is None:
        raise ValueError("no moment")
    day, clock, fraction, zulu, sign, offset = named.groups()
    zone = "+00:00" if zulu else f"{'-' if sign == '-' else '+'}{offset}"
    try:
        return datetime.fromisoformat(f"{day}T{clock}{(fraction or '')[:7]}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("no such day or hour") from None
