"""What the key services have in common: how a wrapped key tells who made it, and its context.

A wrapped key begins with four bytes that name its kind of key service, so that none is
asked about what another one made. What follows is that kind's own affair.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    KeyServiceAwayError,
    KeyServiceError,
    SvsyncError,
    ThrottledError,
)

KEY_SIZE: Final = 32
"""Bytes of a key that is wrapped."""


def bound(head: bytes, context: Mapping[str, str]) -> bytes:
    """Associated data: each text with its length before it, so that none runs into another."""
    parts = [part.encode() for item in sorted(context.items()) for part in item]
    return head + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def body_of(wrapped: bytes, magic: bytes, reference: str) -> bytes:
    """What follows the four bytes.

    Raises KeyServiceError: another kind of key service made it.
    """
    if not wrapped.startswith(magic):
        raise KeyServiceError(f"the wrapped key was not made by {reference}")
    return wrapped[len(magic) :]


def whole_key(key: object, reference: str) -> bytes:
    """The key that a key service gave back.

    Raises KeyServiceError: it is none.
    """
    if not isinstance(key, bytes) or len(key) != KEY_SIZE:
        raise KeyServiceError(f"{reference} gave back something that is no key of svsync")
    return key


@contextmanager
def told_of(reference: str) -> Iterator[None]:
    """What goes wrong with a client in this block goes wrong with that key service.

    Raises:
        KeyServiceAwayError: it cannot be reached, or has no time.
        KeyServiceError: it refuses, or is not what it should be.
    """
    try:
        yield
    except (BackendUnreachableError, ThrottledError) as away:
        raise KeyServiceAwayError(f"{reference} is away: {_of_kms(away)}") from None
    except (BackendError, ConfigError) as refused:
        raise KeyServiceError(f"{reference} cannot be used: {_of_kms(refused)}") from None


_NAMES: Final = {
    "config.endpoint_url": "kms_access.endpoint",
    "config.tls_verify": "tls_verify",
    "tls_verify": "kms_access.ca_file",
    "config.vault_url": "KMS_KEY_ID",
    "config.project_id": "KMS_KEY_ID",
    "config.location": "KMS_KEY_ID",
    "config.client_id": "AZURE_CLIENT_ID",
    "Secret Manager API": "Cloud KMS API",
    "config.": "kms_access.",
}
"""Clients name settings as a backend has them; here, what they are called for a key service."""


def _of_kms(error: SvsyncError) -> str:
    message = error.message
    for theirs, ours in _NAMES.items():
        message = message.replace(theirs, ours)
    return message
