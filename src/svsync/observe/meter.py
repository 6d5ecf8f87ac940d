"""What is measured while svsync works, in plain words and numbers.

Services tell a `Meter` what happened. This one keeps nothing, which is all that a
command needs; `metrics.Metrics` keeps it for Prometheus. Here are also the records of
what is not told but read from the store when somebody asks.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final


class Meter:
    """Takes what happened, and keeps nothing of it. No method blocks or raises.

    Tenants are told by their slug, backends by id and type, never a path and never a
    free text; a word that is not on its list counts as `other`.
    """

    def run_ended(
        self,
        tenant: str,
        backend: str,
        kind: str,
        result: str,
        seconds: float,
        counts: Mapping[str, int],
    ) -> None:
        """A run that was no dry one came to its end. `kind` is the backend's type."""

    def backend_called(
        self, tenant: str, backend: str, kind: str, operation: str, status: str, seconds: float
    ) -> None:
        """One try of a call to a backend, which took so long."""

    def webhook_delivered(self, tenant: str, status: str, seconds: float) -> None:
        """One attempt to deliver an event: delivered, failed (to be tried again), or dead."""

    def read_served(self, tenant: str, mode: str, status: str, seconds: float) -> None:
        """A read of a secret's value was answered: from the store (`local`) or by `proxy`."""

    def feed_noticed(self, feed: str, outcome: str, n: int = 1) -> None:
        """What became of a change feed's notices: told (some backend's), unmapped (none's),
        gap (anything may have changed), dropped (unread)."""

    def feeds_down(self, feed: str, n: int) -> None:
        """How many feeds of this sort should listen and do not."""

    def signals_shared(self, shared: bool) -> None:
        """Do other processes hear this one's signals?"""

    def key_services_away(self, seconds: float) -> None:
        """For how long no key service has opened the root key; 0 while one does."""

    def workers(self, busy: int, total: int) -> None:
        """How many of this process's workers have a run in hand."""

    def loop_lag(self, seconds: float) -> None:
        """How late the event loop came to what was due, at the worst of the last while."""

    def forget(self, tenant: str, backend: str | None = None) -> None:
        """A backend was removed, or a tenant shut with all it has: its series end."""

    def known(self) -> Collection[tuple[str, str | None]]:
        """Who would have to be forgotten: tenant and backend, and each tenant with None."""
        return ()

    def prune(self, known: Collection[tuple[str, str | None]], standing: "Standing") -> None:
        """Forget whoever was `known` before the store was asked how things stand, and is
        not in its answer. Who became known since is no less there for that."""


SILENT: Final = Meter()


@dataclass(frozen=True, slots=True)
class BackendStanding:
    """How one backend stands, by the database's clock.

    Attributes:
        type: its type, which stands for it where there are too many to name each.
        down: it cannot be reached, or refuses us.
        stale: its last success is older than it promises (`max_staleness`), or than
            three of its intervals where it promises nothing. Never while it is paused.
        last_success: of a full run, in seconds since the epoch; None: there was none.
        staleness: seconds since then, or since it was configured; None: it has no cycles.
        latency: of its last connection, in seconds.
    """

    tenant: str
    backend: str
    type: str
    down: bool
    stale: bool
    last_success: float | None
    staleness: float | None
    latency: float | None
    secrets: int
    quarantined: int
    conflicts: int
    pending_pushes: int


@dataclass(frozen=True, slots=True)
class TenantStanding:
    """Runs of a tenant that wait: how many, and for how long the oldest could have begun."""

    tenant: str
    waiting: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What the store says of all active tenants, at one moment."""

    backends: tuple[BackendStanding, ...]
    tenants: tuple[TenantStanding, ...]
