"""A session with HashiCorp Vault or OpenBao, shared by whatever talks to one."""

from svsync.clients.vault.session import VaultSession, nothing_sent
from svsync.clients.vault.settings import LOGIN_METHODS, VaultSettings
from svsync.clients.vault.transport import (
    CAS_MISMATCH,
    MAX_ANSWER,
    Answer,
    AnswerTooLargeError,
)

__all__ = [
    "CAS_MISMATCH",
    "LOGIN_METHODS",
    "MAX_ANSWER",
    "Answer",
    "AnswerTooLargeError",
    "VaultSession",
    "VaultSettings",
    "nothing_sent",
]
