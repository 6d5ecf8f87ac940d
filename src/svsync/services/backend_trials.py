"""A real connection to a backend, told as people are told of it, whatever came of it."""

import asyncio
from dataclasses import dataclass
from typing import Final, Literal

from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    DeniedError,
    LoginError,
    MappingError,
    StoreError,
    SvsyncError,
)
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import TenantId
from svsync.ports import Check, Connection
from svsync.services.counted_calls import open_counted
from svsync.services.runs import Backends
from svsync.store.database import Database

TRIAL_S: Final = 15.0
"""Seconds after which a backend that has not answered is unreachable."""

Health = Literal["healthy", "unreachable", "denied", "degraded"]


@dataclass(frozen=True, slots=True)
class Trial:
    """What a connection showed. `latency_ms` is None where nothing answered."""

    status: Health
    warnings: tuple[str, ...]
    checks: tuple[Check, ...]
    version: str = ""
    identity: str = ""
    latency_ms: float | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "status": self.status,
            "warnings": list(self.warnings),
            "checks": [{"name": c.name, "state": c.state, "hint": c.hint} for c in self.checks],
        }


async def try_backend(
    db: Database, backends: Backends, spec: BackendSpec, tenant: TenantId, *, stored: bool
) -> Trial:
    """Sign in, and look what is granted. The calls count, and no budget refuses them.

    Args:
        stored: it is a backend that is there; False: one that its maker was authorised for
            just now.

    Raises:
        MappingError: a rule that such a store cannot serve, with the corrected one.
        ConfigError: `authorisation_changed`.
        StoreError: what the store says of its credential or authorisation is not known.
    """
    rules, _ = backends.rules(spec)
    try:
        async with (
            asyncio.timeout(TRIAL_S) as limit,
            open_counted(db, backends, spec, tenant, trial=not stored) as opened,
        ):
            return _of(await opened.backend.connect(rules.list_prefixes()))
    except TimeoutError:
        if not limit.expired():
            raise
        return _failed("unreachable", f"the endpoint did not answer within {TRIAL_S:g} seconds")
    except (MappingError, StoreError):
        raise
    except SvsyncError as problem:
        if isinstance(problem, ConfigError) and problem.code == "authorisation_changed":
            raise
        return _failed(_health(problem), problem.message)


def _of(found: Connection) -> Trial:
    return Trial(
        found.status, found.warnings, found.checks, found.version, found.identity, found.latency_ms
    )


def _failed(status: Health, message: str) -> Trial:
    return Trial(status, (message,), (Check("connect", "missing", message),))


def _health(problem: SvsyncError) -> Health:
    match problem:
        case BackendUnreachableError() | BackendError(code="endpoint_refused"):
            return "unreachable"
        case LoginError() | DeniedError():
            return "denied"
        case BackendError():
            return "degraded"
    return "denied"  # its credential cannot be had, so nobody lets svsync in
