"""The key service `local`: a key in a file that nobody else can read.

It is no key management service: who has the file and the database has the
secrets. It exists so that svsync works on a laptop and where there is no other;
svsync says so once at each start.

The file holds one line, `svsync-key-1:` and 32 random bytes in base64. It is
made at first boot and never again: a new one would not open what the old one
wrapped. A wrapped key is

    "svk1" | key id, 8 bytes | nonce, 12 bytes | AES-256-GCM ciphertext and tag

with the first two parts and the context as associated data. The key id is a
hash of the key, so a wrong file is told from a damaged blob.
"""

import base64
import binascii
import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from svsync.domain.errors import ConfigError, KeyServiceError, SetupError
from svsync.domain.wrapping import bound

_LABEL = b"svsync-key-1:"
_MAGIC = b"svk1"
_ID_SIZE, _NONCE_SIZE, _KEY_SIZE = 8, 12, 32


def key_file(key_id: str | None, state_dir: Path) -> Path:
    """Where the key is: `file:/absolute/path`, or by default below the state directory.

    Raises:
        ConfigError: `key_id` is anything else.
    """
    if not key_id:
        return state_dir / "kms.key"
    path = Path(key_id.removeprefix("file:"))
    if not key_id.startswith("file:") or not path.is_absolute():
        raise ConfigError(
            "the provider local takes file: and an absolute path, such as "
            "file:/run/credentials/svsync.service/kms.key, or nothing",
            where="KMS_KEY_ID",
        )
    return path


class LocalKeyService:
    """A `KeyService` over one key file. Holds the key in memory; no I/O after `open`."""

    __slots__ = ("_cipher", "_id", "_path", "_random")

    def __init__(self, path: Path, key: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        self._path = path
        self._cipher = AESGCM(key)
        self._id = hashlib.sha256(b"svsync local key id" + key).digest()[:_ID_SIZE]
        self._random = random

    def __repr__(self) -> str:
        return f"LocalKeyService({str(self._path)!r})"

    @classmethod
    def open(cls, path: Path, *, create: bool) -> "LocalKeyService":
        """Read the key file, making it if it is missing and `create` allows.

        Args:
            create: true only while the database holds no wrapped root key.

        Raises:
            KeyServiceError: the file is missing, not private, or holds no key.
            SetupError: the file cannot be made.
        """
        try:
            return cls(path, _read(path))
        except FileNotFoundError:
            if not create:
                raise KeyServiceError(
                    f"The key file {path} is missing, and the database holds keys that only it "
                    "opens: put it back from your backup."
                ) from None
        _make(path)
        return cls(path, _read(path))

    @property
    def reference(self) -> str:
        return f"local:{self._path}"

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        head = _MAGIC + self._id
        nonce = self._random(_NONCE_SIZE)
        return head + nonce + self._cipher.encrypt(nonce, plaintext, bound(head, context))

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        head, rest = wrapped[: len(_MAGIC) + _ID_SIZE], wrapped[len(_MAGIC) + _ID_SIZE :]
        if not head.startswith(_MAGIC):
            raise KeyServiceError("The wrapped key was not made by the key service local.")
        if head != _MAGIC + self._id:
            raise KeyServiceError(
                f"The wrapped key was made with key {head[len(_MAGIC) :].hex()}, and {self._path} "
                f"holds key {self._id.hex()}: put the key file back that belongs to this database."
            )
        nonce, sealed = rest[:_NONCE_SIZE], rest[_NONCE_SIZE:]
        try:
            return self._cipher.decrypt(nonce, sealed, bound(head, context))
        except (InvalidTag, ValueError):
            raise KeyServiceError(
                "The wrapped key does not open: it is damaged, or another one stands in its place."
            ) from None


def _read(path: Path) -> bytes:
    """The key in a file that only we can read.

    Raises:
        FileNotFoundError: there is none.
        KeyServiceError: it is not private, or holds no key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyServiceError(
            f"The key file {path} cannot be read ({error.strerror}): "
            "make it readable for the user that runs svsync."
        ) from None
    try:
        _refuse_what_others_can_read(path, os.fstat(descriptor))
        text = os.read(descriptor, 1024)
    finally:
        os.close(descriptor)
    try:
        key = base64.b64decode(text.removeprefix(_LABEL).strip(), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(_LABEL) or len(key) != _KEY_SIZE:
        raise KeyServiceError(
            f"The file {path} is not a key file of svsync: put the right one back from your backup."
        )
    return key


def _refuse_what_others_can_read(path: Path, entry: os.stat_result) -> None:
    """As ssh does with its keys.

    A systemd credential may belong to root and be opened to us by an access
    list, which shows as a group's right to read.
    """
    if not stat.S_ISREG(entry.st_mode):
        raise KeyServiceError(f"The key file {path} is not a file.")
    credential = path.parent == Path(os.environ.get("CREDENTIALS_DIRECTORY", "/dev/null"))
    owners = {os.geteuid(), 0} if credential else {os.geteuid()}
    if entry.st_uid not in owners:
        raise KeyServiceError(
            f"The key file {path} belongs to another user: type `chown {os.geteuid()} {path}`."
        )
    if stat.S_IMODE(entry.st_mode) & (0o037 if credential else 0o077):
        raise KeyServiceError(
            f"The key file {path} can be read or written by other users: type `chmod 600 {path}`."
        )


def _make(path: Path) -> None:
    """Put a new key in place, whole and on the disk, unless somebody else just did.

    It is linked and not renamed into place: of two processes that start at
    once, the second must not replace the key that the first works with.
    """
    draft = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
        with open(descriptor, "wb") as file:
            file.write(_LABEL + base64.b64encode(os.urandom(_KEY_SIZE)) + b"\n")
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise SetupError(
            f"The key file {path} cannot be made ({error.strerror}): make its folder writable, "
            "set another state_dir, or set KMS_PROVIDER."
        ) from None
    finally:
        if draft is not None:
            os.unlink(draft)
