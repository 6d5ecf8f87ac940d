"""How often one identity may call, by kind of call."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Category(StrEnum):
    """What is limited apart from the rest: values read, secrets written, everything about
    backends and what they tell, and everything about who may do what."""

    SECRETS_READ = "secrets_read"
    SECRETS_WRITE = "secrets_write"
    FEDERATION = "federation"
    ADMIN = "admin"


BURST_S: Final = 10.0
"""Who has not called for so many seconds may make the calls of that time at once."""


@dataclass(frozen=True, slots=True)
class ApiRates:
    """Calls a second of one identity, on average, at all replicas together; None: as many as
    it likes. Values are read without a limit, unless one is set: applications that start
    together read all they need at once, and each read is cheap and recorded."""

    secrets_read: float | None = None
    secrets_write: float | None = 100.0
    federation: float | None = 100.0
    admin: float | None = 100.0

    def of(self, category: Category) -> float | None:
        rate: float | None = getattr(self, category)
        return rate


UNLIMITED: Final = ApiRates(None, None, None, None)
