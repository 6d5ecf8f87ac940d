"""A session with HashiCorp Vault or OpenBao, shared by whatever talks to one."""

from svsync.clients.vault.session import VaultSession
from svsync.clients.vault.transport import (
    LOGIN_METHODS,
    MAX_ANSWER,
    Answer,
    AnswerTooLargeError,
    VaultSettings,
)

__all__ = [
    "LOGIN_METHODS",
    "MAX_ANSWER",
    "Answer",
    "AnswerTooLargeError",
    "VaultSession",
    "VaultSettings",
]
