"""Where a credential stands: `env:NAME`, `file:/path`, or a path in ScaiVault.

The operator's file may use all three, the API only the last, of the caller's
own tenant: else whoever may create a backend could have the daemon's own files
and variables sent to an endpoint of their choice.
"""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from svsync.domain.errors import ConfigError
from svsync.domain.values import SecretValue

MAX_FILE_BYTES = 64 * 1024
"""Ten times the largest service account or certificate bundle seen."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCAIVAULT = re.compile(r"(?!.*(^|/)\.{1,2}(/|$))[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")

PATTERN = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+|[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)$"
"""The same in the words of JSON Schema."""


REFERENCE_NOT_ALLOWED = (
    "must be a ScaiVault path of this tenant, such as infra/vault/approle; "
    "env: and file: are for the operator's configuration file"
)


class Place(StrEnum):
    ENVIRONMENT = "env"
    FILE = "file"
    SCAIVAULT = "scaivault"


@dataclass(frozen=True, slots=True)
class Reference:
    """`target` is a variable's name, an absolute file path, or a ScaiVault path."""

    place: Place
    target: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise ConfigError, without the text, where it is none of the three."""
        scheme, colon, rest = text.partition(":")
        if colon and scheme == "env" and _VARIABLE.fullmatch(rest):
            return cls(Place.ENVIRONMENT, rest)
        if colon and scheme == "file" and rest.startswith("/") and rest.isprintable():
            return cls(Place.FILE, rest)
        if len(text) <= 512 and _SCAIVAULT.fullmatch(text):
            return cls(Place.SCAIVAULT, text)
        raise ConfigError(
            "must be a reference: env:NAME, file:/absolute/path, or a ScaiVault path "
            "such as infra/vault/approle"
        )

    def __str__(self) -> str:
        return self.target if self.place is Place.SCAIVAULT else f"{self.place}:{self.target}"


def api_reference_problem(text: str) -> str | None:
    """Why the API refuses this reference (422 `reference_not_allowed`), or None."""
    try:
        if Reference.parse(text).place is Place.SCAIVAULT:
            return None
    except ConfigError:
        pass
    return REFERENCE_NOT_ALLOWED


def resolve(
    reference: Reference, *, environ: Mapping[str, str], allowed_file_roots: Sequence[str] | None
) -> SecretValue:
    """The text at an `env:` or `file:` reference, read anew each time.

    A file loses the line end that editors and `echo` put behind its text. The
    rest is the text, which `Credential.parse` may take apart.

    Raises:
        ConfigError: one sentence that names the reference and what to do.
        ValueError: a ScaiVault path; the store resolves those.
    """
    match reference.place:
        case Place.ENVIRONMENT:
            return _from_environment(reference, environ)
        case Place.FILE:
            return _from_file(reference, allowed_file_roots)
        case Place.SCAIVAULT:
            raise ValueError(f"{reference} is resolved by the store")


def _from_environment(reference: Reference, environ: Mapping[str, str]) -> SecretValue:
    text = environ.get(reference.target)
    if text is None:
        raise _error(reference, f"is not set; export {reference.target} before svsync starts")
    if not text.strip():
        raise _error(reference, f"is empty; give {reference.target} its value")
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise _error(reference, "is not UTF-8 text; a credential is JSON or one line")
    return SecretValue(text)


def _from_file(reference: Reference, roots: Sequence[str] | None) -> SecretValue:
    # Everything is asked of the descriptor, never again of the name: what is
    # checked is what is read, whoever moves a link meanwhile. O_NONBLOCK: a
    # named pipe without a writer must not hold the daemon.
    path = reference.target
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _error(reference, "does not exist; create it or correct the path") from None
    except OSError as e:
        reason = os.strerror(e.errno) if e.errno else "unknown reason"
        raise _error(
            reference, f"cannot be opened ({reason}); make it readable to svsync"
        ) from None
    try:
        _check_descriptor(reference, descriptor, roots)
        data = _read_all(descriptor)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise _error(reference, "is larger than 64 KiB, which no credential is")
    try:
        text = data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise _error(reference, "is not UTF-8 text; a credential is JSON or one line") from None
    if not text.strip():
        raise _error(reference, "is empty; write the credential into it")
    if "\0" in text:
        raise _error(reference, "holds a NUL; a credential is JSON or one line")
    return SecretValue(text)


def _check_descriptor(reference: Reference, descriptor: int, roots: Sequence[str] | None) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise _error(reference, f"is {kind}; name the file that holds the credential")
    if roots is not None:
        real = _real_path(descriptor, reference.target)
        if not any(is_below(real, os.path.realpath(root)) for root in roots):
            raise _error(
                reference,
                "lies, links followed, outside allowed_file_roots; move it or add its folder",
            )
    # ssh minds only files of one's own: a mounted Kubernetes secret belongs to
    # root, and a process that is not root can read it through its group alone.
    forbidden = 0o077 if status.st_uid == os.geteuid() else 0o027
    if status.st_mode & forbidden:
        raise _error(
            reference,
            "may be read or changed by other users "
            f"(mode {stat.S_IMODE(status.st_mode):04o}); run: chmod 600 {reference.target}",
        )


def _real_path(descriptor: int, path: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # no /proc: a laptop that is not Linux
        return os.path.realpath(path)


def is_below(path: str, root: str) -> bool:
    """Whether `path` is `root` or lies below it, both absolute and without links."""
    return path == root or path.startswith(root.rstrip("/") + "/")


def _read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(MAX_FILE_BYTES + 1)


def _error(reference: Reference, message: str) -> ConfigError:
    return ConfigError(message, where=str(reference), code="credential_unavailable")
