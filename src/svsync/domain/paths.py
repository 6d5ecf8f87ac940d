r"""Paths: what a local and a remote one may hold, and how one enters a URL.

A remote path is somebody else's text. It comes from a listing, from a mapping
rule or from a caller, and HTTP libraries rewrite what they are given
(`kv/data/../../sys/raw/x` becomes `/v1/sys/raw/x` in several of them). So each
path is looked at here, in both directions, before it becomes part of a request
or of the store: no empty, `.` or `..` segment, no control character, no
backslash, nothing that is an encoded dot, slash or backslash, nothing that is
not in Unicode's composed form (NFC), no lone surrogate. What remains is
percent-encoded segment by segment.

Local paths are narrower still: letters, digits, `.`, `_` and `-`.
"""

import re
import string
import unicodedata
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from svsync.domain.errors import SvsyncError
from svsync.domain.ids import LocalPath
from svsync.domain.runs import SkipReason

MAX_LOCAL_BYTES: Final = 512
LOCAL_ALPHABET: Final = string.ascii_lowercase + string.digits + string.ascii_uppercase + "-_."

_SEGMENT = r"(?!\.\.?(?:/|\Z))[A-Za-z0-9._-]+"
_LEGAL_LOCAL = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_ILLEGAL_LOCAL = re.compile(r"[^A-Za-z0-9._/-]")
_ILLEGAL_REMOTE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]|%(?:2[eEfF]|5[cC])")


@dataclass(frozen=True, slots=True)
class PathProblem:
    """The first thing that is wrong with a path.

    Attributes:
        code: illegal_path, or name_not_allowed for a limit of one backend.
        character: what is wrong, fit to be printed: the character, its code
            point (`U+0000`) where it does not print, or the segment.
        position: its offset in characters from 0.
        detail: the sentence for people.
    """

    code: SkipReason
    character: str
    position: int
    detail: str


class IllegalPath(SvsyncError, ValueError):
    """A local path that cannot be one; `problem` tells the character and where."""

    code = "illegal_path"

    def __init__(self, problem: PathProblem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def parse_local(text: str) -> LocalPath:
    """The text as a local path. Raises IllegalPath, whose problem says where."""
    if problem := local_problem(text):
        raise IllegalPath(problem)
    return LocalPath(text)


def local_problem(text: str) -> PathProblem | None:
    """What keeps `text` from being a local path; None when it is one."""
    if len(text) <= MAX_LOCAL_BYTES and _LEGAL_LOCAL.fullmatch(text):
        return None
    if problem := foreign_character(text):
        return problem
    if problem := _segment_problem(text, "/"):
        return problem
    return PathProblem(
        SkipReason.ILLEGAL_PATH,
        "",
        MAX_LOCAL_BYTES,
        f"the local path is {len(text)} bytes long; at most {MAX_LOCAL_BYTES} are allowed",
    )


def foreign_character(text: str, start: int = 0) -> PathProblem | None:
    """The first character from `start` on that no local path may hold."""
    bad = _ILLEGAL_LOCAL.search(text, start)
    if bad is None:
        return None
    return _character_problem(
        bad[0], bad.start(), "a local path holds letters, digits, '.', '_', '-' and '/'"
    )


_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~/-]*")
"""Characters that a URL's path holds as they are (RFC 3986, 2.3)."""


def remote_problem(
    text: str,
    *,
    separator: str | None = "/",
    segment: str | re.Pattern[str] | None = None,
    max_bytes: int | None = None,
) -> PathProblem | None:
    """What keeps `text` from being sent to a backend, or taken from its listing.

    Args:
        separator: what stands between the backend's segments; None for a flat
            store, where the whole name is one.
        segment: regular expression of a whole segment, as the backend declares
            it; None where it takes everything that is safe.
        max_bytes: longest name in bytes of UTF-8.
    """
    if bad := _ILLEGAL_REMOTE.search(text):
        why = "an encoded dot, slash or backslash" if len(bad[0]) > 1 else "never part of a name"
        return _character_problem(bad[0], bad.start(), why)
    if not text.isascii() and (composed := unicodedata.normalize("NFC", text)) != text:
        at = _first_difference(text, composed)
        return _character_problem(text[at], at, "the name is not in Unicode's composed form (NFC)")
    if problem := _segment_problem(text, separator):
        return problem
    if separator != "/" and "/" in text:
        return _character_problem(
            "/",
            text.index("/"),
            "this backend's names hold no '/' (transform.separator can stand for it)",
            SkipReason.NAME_NOT_ALLOWED,
        )
    if segment is not None and (problem := _alphabet_problem(text, separator, segment)):
        return problem
    if max_bytes is not None and (size := len(text.encode())) > max_bytes:
        return PathProblem(
            SkipReason.NAME_NOT_ALLOWED,
            "",
            max_bytes,
            f"the name is {size} bytes long; this backend takes at most {max_bytes}",
        )
    return None


def encode_segments(path: str) -> str:
    """The path for a URL, each segment percent-encoded whole (RFC 3986, 2.1).

    Only for a path that `remote_problem` passed: percent-encoding leaves dots.
    """
    if _UNRESERVED.fullmatch(path):
        return path
    return "/".join(quote(segment, safe="") for segment in path.split("/"))


def _segment_problem(text: str, separator: str | None) -> PathProblem | None:
    at = 0
    for piece in text.split(separator) if separator else [text]:
        if piece in ("", ".", ".."):
            what = f"a segment that is '{piece}'" if piece else "an empty segment"
            detail = f"the path has {what} at offset {at}"
            return PathProblem(SkipReason.ILLEGAL_PATH, piece, at, detail)
        at += len(piece) + len(separator or "")
    return None


def _alphabet_problem(
    text: str, separator: str | None, segment: str | re.Pattern[str]
) -> PathProblem | None:
    legal = re.compile(segment)
    start = 0
    for piece in text.split(separator) if separator else [text]:
        if not legal.fullmatch(piece):
            at = next((i for i, char in enumerate(piece) if not legal.fullmatch(char)), 0)
            return _character_problem(
                piece[at],
                start + at,
                "this backend's names do not allow it there",
                SkipReason.NAME_NOT_ALLOWED,
            )
        start += len(piece) + len(separator or "")
    return None


def _character_problem(
    found: str, at: int, why: str, code: SkipReason = SkipReason.ILLEGAL_PATH
) -> PathProblem:
    point = f"U+{ord(found[0]):04X}"
    if not found.isprintable():
        character = shown = point
    else:
        character = found
        # Look-alikes (a Cyrillic a) tell themselves apart by code point only.
        shown = f"'{found}'" if found.isascii() else f"'{found}' ({point})"
    return PathProblem(code, character, at, f"{shown} at offset {at}: {why}")


def _first_difference(left: str, right: str) -> int:
    """Offset in `left`; the two differ, and composing does not merely cut the end."""
    return next(at for at, char in enumerate(left) if right[at : at + 1] != char)
