"""How what a wildcard holds is spelled on the other side: separator and escape.

**Separator.** A store without `/` (Azure, GCP) can hold `a/b` as `a--b`. A name
is taken apart only where there is one way to do it: `a---b` could be `a/-b` or
`a-/b`, so it is refused, and so is a segment that holds `--` itself.

**Escape.** Where `transform.escape` is set, a character that the other side
forbids is written as `_xHH`, one for each byte of its UTF-8, two upper-case
hexadecimal digits (`we ird` is `we_x20ird`, `é` is `_xC3_xA9`). So that this can
be undone, a `_` that happens to stand before `xHH` is written `_x5F`. On a
store that has no `_` (Azure) the mark is `-`. Both directions are escaped: what
is forbidden here on the way in, what is forbidden there on the way out. A text
that looks escaped and is not what svsync would have written (`_x41` for `A`) has
no counterpart.
"""

import re
from dataclasses import dataclass
from typing import Final

from svsync.domain.paths import LOCAL_ALPHABET

_MARKS: Final = ("_", "-")
_DIGITS: Final = "0123456789ABCDEF"


def split_name(name: str, separator: str) -> list[str] | None:
    """The segments of a name, or None where it can be taken apart in other ways."""
    pieces = name.split(separator)
    places = 0
    at = name.find(separator)
    while at >= 0:
        places += 1
        at = name.find(separator, at + 1)
    return pieces if places == len(pieces) - 1 and all(pieces) else None


@dataclass(frozen=True, slots=True)
class Escape:
    """A reversible spelling between the local alphabet and a backend's.

    Attributes:
        mark: the character that an escape starts with; legal on both sides.
        local: finds what is escaped in a local path.
        remote: finds what is escaped in a remote path; None: nothing needs it,
            so a remote text stands for itself.
    """

    mark: str
    local: re.Pattern[str]
    remote: re.Pattern[str] | None

    @classmethod
    def for_segment(cls, segment: re.Pattern[str] | None) -> "Escape | None":
        """The escape for a backend whose segments `segment` describes.

        None: the backend lacks the characters an escape is written with.
        """
        forbidden = [char for char in LOCAL_ALPHABET if segment and not segment.fullmatch(char)]
        mark = next((mark for mark in _MARKS if mark not in forbidden), None)
        if mark is None or any(char in forbidden for char in f"x{_DIGITS}"):
            return None
        false_mark = f"{mark}(?=x[{_DIGITS}]{{2}})"
        return cls(
            mark=mark,
            local=re.compile(rf"[^A-Za-z0-9._/-]|{false_mark}"),
            remote=re.compile(f"[{re.escape(''.join(forbidden))}]|{false_mark}")
            if forbidden
            else None,
        )

    def to_local(self, text: str) -> str | None:
        """A remote text (without lone surrogates) in local spelling, if it has one."""
        plain = self._read(text, self.remote)
        return None if plain is None else self._write(plain, self.local)

    def to_remote(self, text: str) -> str | None:
        """A local text in the backend's spelling, if it has one."""
        plain = self._read(text, self.local)
        return None if plain is None else self._write(plain, self.remote)

    def _write(self, plain: str, escaped: re.Pattern[str] | None) -> str:
        if escaped is None:
            return plain
        return escaped.sub(
            lambda found: "".join(f"{self.mark}x{byte:02X}" for byte in found[0].encode()), plain
        )

    def _read(self, text: str, escaped: re.Pattern[str] | None) -> str | None:
        """Undo `_write`; None where `text` is not what it would have written."""
        if escaped is None or f"{self.mark}x" not in text:
            plain = text
        else:
            token = rf"{self.mark}x([{_DIGITS}]{{2}})".encode()
            raw = re.sub(token, lambda found: bytes.fromhex(found[1].decode()), text.encode())
            plain = raw.decode(errors="replace")
        return plain if self._write(plain, escaped) == text else None
