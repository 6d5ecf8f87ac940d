"""JSON whose numbers keep their text.

The service keeps a value's text to the byte: `1.10` stays `1.10`. Python's own reader makes
a float of it, which is written `1.1` again. Here such a number is a float that remembers how
it was written, and is written so again; integers have all their digits in Python anyway.
"""

import json
from collections.abc import Mapping
from typing import Final, NoReturn, SupportsIndex

from svsync.client.errors import unusable

_PLAIN: Final = (str, bool, int, type(None))


class Number(float):
    """A float that keeps the text that was read: `str()` of it, and what is written again.

    It counts and compares as any float does. `json.dumps` writes it as a float; the client
    writes its text.
    """

    __slots__ = ("_text",)
    _text: str

    def __new__(cls, text: str) -> "Number":
        made = super().__new__(cls, text)
        made._text = text
        return made

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[type["Number"], tuple[str]]:
        return Number, (self._text,)


def _integer(text: str) -> int | Number:
    return Number(text) if text == "-0" else int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


decode: Final = json.JSONDecoder(
    parse_int=_integer, parse_float=Number, parse_constant=_refuse_constant
).decode
"""Raises ValueError, and RecursionError where it is nested too deeply."""


def encode(value: object) -> str:
    """The JSON text of a value.

    Raises SvsyncError `invalid_argument`, without any of it: something in it is no JSON.
    """
    parts: list[str] = []
    try:
        _put(value, parts)
    except RecursionError:
        raise unusable("data is nested too deeply") from None
    return "".join(parts)


def _put(value: object, parts: list[str]) -> None:
    if isinstance(value, Number):
        parts.append(str(value))
    elif isinstance(value, _PLAIN):
        parts.append(json.dumps(value))
    elif isinstance(value, float):
        if value - value != 0:  # infinite, or no number
            raise unusable("a number in it is infinite or none, which no JSON holds")
        parts.append(json.dumps(value))
    elif isinstance(value, Mapping):
        parts.append("{")
        for at, (name, member) in enumerate(value.items()):
            if not isinstance(name, str):
                raise unusable("a field's name in it is no text")
            parts.append(f"{', ' if at else ''}{json.dumps(name)}: ")
            _put(member, parts)
        parts.append("}")
    elif isinstance(value, list | tuple):
        parts.append("[")
        for at, member in enumerate(value):
            parts.append(", " if at else "")
            _put(member, parts)
        parts.append("]")
    else:
        raise unusable(f"a {type(value).__name__} in it is nothing that JSON holds")
