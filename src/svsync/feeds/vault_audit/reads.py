"""The files of an audit device, read to their end: who read which secret, and when.

A file's rotated kin beside it (`audit.log.1`, `audit.log-20261101.gz`) are read with it. Of
an entry the moment, who asked, and what of a KV mount was read or changed are looked at; the rest
is dropped, for with `log_raw` it holds values. Lines are bounded, and one block of them is in
memory at a time.
"""

import gzip
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, cast

from svsync.domain.errors import UsageError
from svsync.domain.ids import RemotePath
from svsync.domain.paths import remote_problem
from svsync.domain.readers import LogBlock, Logged, Login
from svsync.feeds.vault_audit.entries import CHANGES, KV, MAX_PATH, names_of, parsed
from svsync.feeds.vault_audit.lines import LONGEST_LINE

_LINES: Final = 1_000  # of one block
_GZIP: Final = b"\x1f\x8b"
_ROTATED: Final = re.compile(r"[.-][0-9][0-9T:._-]*(?:\.gz)?")
_NO_VALUE: Final = frozenset({"metadata", "subkeys", "config"})
"""What KV v2 has beside `data/`; subkeys tell what a value is made of."""
_DAMAGED: Final = (EOFError, gzip.BadGzipFile, zlib.error)


class AuditFiles:
    """See `ports.AccessLog`."""

    kind = "hashicorp-vault"

    def __init__(self, files: Sequence[str]) -> None:
        """Raises UsageError for a file that is not there or cannot be read."""
        self._named = {Path(name).absolute() for name in files}
        self._files: dict[Path, os.stat_result] = {}
        for path in (path for name in files for path in _kin(Path(name))):
            with _opened(path) as file:
                self._files[path] = os.fstat(file.fileno())

    def blocks(self) -> Iterator[LogBlock]:
        for path, seen in self._files.items():
            entries = lines = 0
            for block in self._blocks(path, seen):
                entries += len(block.entries)
                lines += block.lines
                yield block
            if lines and not entries:
                raise UsageError(
                    f"--audit-log {path} holds no entry of a Vault audit device: name a file that"
                    ' one with format "json" writes'
                )

    def _blocks(self, path: Path, seen: os.stat_result) -> Iterator[LogBlock]:
        found: list[Logged] = []
        lines = broken = 0
        with _opened(path) as raw:
            now = os.fstat(raw.fileno())
            if now.st_ino != seen.st_ino or now.st_size < seen.st_size:
                # What each file holds has moved to the next, and one would be passed over.
                raise UsageError(f"--audit-log {path} was rotated meanwhile: run this again")
            file = _unpacked(raw)
            # What is written just now may end in the middle of a line.
            being_written = file is raw and path.absolute() in self._named
            for line in _lines(file):
                lines += 1
                try:
                    found.append(logged_of(line or b""))
                except ValueError:
                    unfinished = being_written and line and not line.endswith(b"\n")
                    broken += not unfinished
                if lines == _LINES:
                    yield LogBlock(str(path), lines, broken, found)
                    found, lines, broken = [], 0, 0
        yield LogBlock(str(path), lines, broken, found)


def logged_of(line: bytes) -> Logged:
    """What one line says.

    Raises:
        ValueError: not an entry as audit devices write them with `format = "json"`; nothing
            of it is in the error.
    """
    entry = parsed(line)
    kind, request, auth = entry.get("type"), entry.get("request"), entry.get("auth")
    if not isinstance(kind, str) or not isinstance(request, dict):
        raise ValueError("not an audit entry")
    at = _moment(entry.get("time"))
    who = _login(auth) if isinstance(auth, dict) else Login()
    # A request is told twice, before and after; only the second says that it was answered.
    operation = request.get("operation")
    if kind != "response" or entry.get("error") or operation not in (CHANGES | {"read"}):
        return Logged(at, who)
    if request.get("mount_type", "kv") not in KV:  # older servers do not tell it
        return Logged(at, who)
    namespace = request.get("namespace")
    place = _text(namespace, "path") if isinstance(namespace, dict) else ""
    if operation != "read":
        names = names_of(place, _text(request, "mount_point"), _text(request, "path"))
        changed = tuple(one.path for one in names if one.path is not None)
        return Logged(at, who, place.strip("/"), changed=changed)
    paths, maybe = _read(_text(request, "path"), request, place)
    return Logged(
        at, who, place.strip("/"), _text(request, "remote_address"), _usable(paths), _usable(maybe)
    )


def _read(path: str, request: dict[str, Any], place: str) -> tuple[list[str], list[str]]:
    """The secret that was read; and what was one only if the mount is of KV v1, where
    `metadata/x` is a name like any other."""
    mount = _text(request, "mount_point")
    relative = mount.removeprefix(place)
    if not relative or not path.startswith(relative):
        relative = mount if path.startswith(mount) else ""
    verb, _, name = path[len(relative) :].partition("/")
    if verb in _NO_VALUE:
        return ([f"{relative}data/{name}"] if verb == "subkeys" and name else []), [path]
    return [path], []


def _usable(paths: Sequence[str]) -> tuple[RemotePath, ...]:
    return tuple(RemotePath(p) for p in paths if remote_problem(p, max_bytes=MAX_PATH) is None)


def _login(auth: dict[str, Any]) -> Login:
    about = auth.get("metadata")
    role = _text(about, "role_name") or _text(about, "role") if isinstance(about, dict) else ""
    return Login(_text(auth, "display_name"), role, _text(auth, "entity_id"))


def _text(found: dict[str, Any], key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else ""


def _moment(text: object) -> datetime:
    try:
        at = datetime.fromisoformat(text if isinstance(text, str) else "")
    except ValueError:
        at = None  # the error of the parser holds the text
    if at is None or at.tzinfo is None:
        raise ValueError("not an audit entry")
    return at.astimezone(UTC)


# --- files ----------------------------------------------------------------------------


def _kin(path: Path) -> list[Path]:
    """A file, and what it was called before it was rotated."""
    try:
        beside = sorted(path.parent.iterdir())
    except OSError:
        return [path]
    rotated = [
        one
        for one in beside
        if one.name.startswith(path.name)
        and _ROTATED.fullmatch(one.name[len(path.name) :])
        and one.is_file()
    ]
    return [path, *rotated]


def _opened(path: Path) -> IO[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        raise UsageError(f"--audit-log {path} cannot be read") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"--audit-log {path} is no regular file")
    return os.fdopen(descriptor, "rb", buffering=256 * 1024)


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    packed = raw.read(len(_GZIP)) == _GZIP
    raw.seek(0)
    return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Lines without empty ones; None for one that is too long, or whose file is damaged."""
    try:
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) <= LONGEST_LINE:
                if line.strip():
                    yield line
                continue
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE)
            yield None
    except _DAMAGED:
        yield None
