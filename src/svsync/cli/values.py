"""Values as the command line takes and shows them.

They are taken best from a file or from stdin: what stands among the arguments lands in
the shell's history. What is wrong with one is told without any of it.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from svsync.cli.output import say
from svsync.domain.errors import NotFoundError, UndecodableError, UsageError

if TYPE_CHECKING:
    from svsync.domain.values import Payload

MAX_BYTES: Final = 1024 * 1024
"""The largest value that is written from here."""


# --- shown ----------------------------------------------------------------------------


def with_data(about: dict[str, Any], data: bytes) -> bytes:
    """The payload of GET, with `data` byte for byte as it was stored: a JSON reader would
    change its numbers."""
    members = {key: json.dumps(value).encode() for key, value in about.items()}
    path = members.pop("path")
    pairs = {b"path": path, b"data": data, **{k.encode(): v for k, v in members.items()}}
    return b"{" + b", ".join(b'"%b": %b' % pair for pair in pairs.items()) + b"}"


def field_of(data: bytes, name: str) -> bytes:
    """A field's text: that of a string, or the exact JSON of anything else.

    Raises:
        NotFoundError: the secret has no such field.
    """
    from svsync.domain.values import slice_members

    text = data.decode()
    fields = slice_members(text)
    if name not in fields:
        raise NotFoundError(
            f"the secret has no field {name!r}: it has {', '.join(map(repr, fields)) or 'none'}",
            code="field_not_found",
        )
    start, end = fields[name]
    if text[start] != '"':
        return text[start:end].encode()
    held: str = json.loads(text[start:end])
    return held.encode()


# --- taken ----------------------------------------------------------------------------


def payload_of(fields: Sequence[str], json_file: str | None) -> "Payload":
    """The value that the arguments describe.

    Raises:
        UsageError: there is none, or two, or one that is no JSON object; it names the
            argument and what is wrong with it, never what stands in it.
    """
    from svsync.domain.values import Payload

    if json_file is not None and fields:
        raise UsageError("give either K=V fields or --json-file, not both")
    if json_file is not None:
        raw = read_file(json_file, "--json-file").strip(b" \t\r\n")
        _refuse_bad_json(raw)
        return Payload.from_json_text(raw)
    if not fields:
        raise UsageError("there is nothing to write: give K=V, K=@FILE or --json-file FILE")
    held: dict[str, str] = {}
    in_the_open = False
    for number, field in enumerate(fields, 1):
        name, equals, text = field.partition("=")
        if not equals or not name:
            raise UsageError(f"field {number} has no name: write it as K=V or K=@FILE")
        if name in held:
            raise UsageError(f"the field {name!r} is given twice")
        if text.startswith("@"):
            held[name] = _as_text(read_file(text[1:], name), name)
        else:
            held[name] = text.removeprefix("\\") if text.startswith("\\@") else text
            in_the_open = True
    payload = _payload(held)
    if payload.size > MAX_BYTES:
        raise UsageError("the fields are larger than 1 MiB together: store a reference instead")
    if in_the_open:
        say("values given as K=V stay in the shell's history: K=@FILE or --json-file - do not")
    return payload


def _payload(fields: dict[str, str]) -> "Payload":
    from svsync.domain.values import Payload

    try:
        return Payload.from_fields(fields)
    except UndecodableError:
        raise UsageError("the fields are not UTF-8 text") from None


def tags_of(given: Iterable[str]) -> tuple[str, ...]:
    """`a,b` and repeated options alike; an empty one takes all tags away."""
    tags = tuple(tag.strip() for text in given for tag in text.split(",") if tag.strip())
    for tag in tags:
        refuse_unprintable("--tag", tag)
    return tags


def read_file(name: str, where: str, larger: str = "store a reference instead") -> bytes:
    """A file, or stdin for `-`. `larger` says what to do where it is more than may be written."""
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "no file"
        raise UsageError(f"{where}: the file cannot be read ({why})") from None
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{where}: it is larger than 1 MiB: {larger}")
    return raw


def _as_text(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{where}: the file is not UTF-8 text: encode it, base64 say") from None


def _refuse_bad_json(raw: bytes) -> None:
    from svsync.domain.json_text import is_plain_object

    where = "--json-file"
    text = _as_text(raw, where)
    try:
        if is_plain_object(text):
            return
    except UndecodableError as problem:
        raise UsageError(f"{where}: {problem.message}") from None
    raise UsageError(f"{where}: {_what_is_wrong(text)}")


def _what_is_wrong(text: str) -> str:
    """Why a text is no JSON object that every reader reads alike; nothing of it is shown."""

    def refuse_constant(_name: str) -> NoReturn:
        raise ValueError("NaN and Infinity are not JSON")

    def number(digits: str) -> float:
        if abs(value := float(digits)) == float("inf"):
            raise ValueError("a number is too large for most readers: write it as a string")
        return value

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(found := dict(pairs)) != len(pairs):
            raise ValueError("two fields of one object have the same name")
        return found

    try:
        found = json.loads(
            text,
            parse_int=number,
            parse_float=number,
            parse_constant=refuse_constant,
            object_pairs_hook=members,
        )
    except json.JSONDecodeError as error:
        return f"it is not JSON, from line {error.lineno}, column {error.colno} on"
    except RecursionError:
        return "it is nested too deeply"
    except ValueError as error:
        return str(error)
    if not isinstance(found, dict):
        return 'it is JSON, but not an object: {"name": "value"} is one'
    return "a text in it has half a surrogate pair, which no UTF-8 has"


def refuse_unprintable(option: str, text: str | None) -> None:
    if text is not None and not text.isprintable():
        raise UsageError(f"{option} holds a character that does not print")
