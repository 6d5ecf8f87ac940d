"""What a run would do: a dry run whose plan somebody waits for.

Where a guard would stop the run it is passed by, and the run is made once more, so that the
plan shows what the guard keeps from happening.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from svsync.domain.errors import BackendBusyError, GuardError, SvsyncError
from svsync.domain.globs import Glob
from svsync.domain.guards import Allow
from svsync.domain.ids import BackendId, TenantId
from svsync.domain.policies import Permission, Permissions
from svsync.domain.runs import Stage, Trigger
from svsync.services.federation import Federation
from svsync.services.run_ends import Ended
from svsync.services.runs import Request, Runs
from svsync.services.turns import Turns

LONGEST_S: Final = 50.0
"""Seconds that somebody is kept waiting: what stands between them and svsync often hangs up
after a minute."""
AT_ONCE: Final = 4
"""Plans that one process makes at once: each is a run, in the process that answers."""
MOST_SHOWN: Final = 1_000
"""Entries of one plan that an answer holds."""
_OF_STATUS: Final = ("calls_per_cycle", "estimated_cost", "interval_unreachable")


@dataclass(frozen=True, slots=True)
class Plan:
    """What came of looking.

    Attributes:
        first: the run as it would end.
        last: the one that the plan is of; another one where guards were passed by.
        guards: those that would stop it, in order.
    """

    first: Ended
    last: Ended
    guards: Sequence[GuardError]

    def to_json(self, status: Mapping[str, object]) -> dict[str, Any]:
        """The last run with its whole plan, ended as the first; `status`: its backend's."""
        first = self.first.to_json()
        return self.last.to_json() | {
            **{name: first[name] for name in ("state", "result", "error")},
            "guards": [
                {"code": guard.code, "message": guard.message, "plan": guard.plan}
                for guard in self.guards
            ],
            **{name: status[name] for name in _OF_STATUS},
        }


async def look(run: Callable[[Allow], Awaitable[Ended]]) -> Plan:
    """Make dry runs until no guard stops one. Raises: as `run`."""
    first = ended = await run(Allow())
    guards: list[GuardError] = []
    while isinstance(ended.cause, GuardError):
        guards.append(ended.cause)
        codes = {guard.code for guard in guards}
        ended = await run(
            Allow(
                mass_delete="mass_delete_guard" in codes,
                mass_overwrite="mass_overwrite_guard" in codes,
                regression="mass_regression_guard" in codes,
            )
        )
    return Plan(first, ended, guards)


class Plans:
    """Plans of every tenant's backends."""

    def __init__(self, runs: Runs, federation: Federation, *, seconds: float = LONGEST_S) -> None:
        self._runs = runs
        self._federation = federation
        self._seconds = seconds
        self._turns = Turns(AT_ONCE, "plans are being made")

    async def plan(
        self,
        tenant: TenantId,
        permissions: Permissions,
        backend: BackendId,
        paths: Sequence[str] | None,
    ) -> dict[str, Any]:
        """The run's report with `plan` (by path, of paths that the caller may list, at most
        MOST_SHOWN), `planned` (how much it is in all), `hidden` (how much of that the caller may
        not list), `guards`, and what a cycle calls and costs. Nothing is written on either side.

        Args:
            paths: local paths and globs; None: everything.

        Raises:
            NotFoundError: there is no such backend.
            ConfigError: `backend_paused`, `not_synced`.
            BackendBusyError: somebody else runs it now.
            SvsyncError: `plan_too_long`: it did not end in time, and was broken off.
            OverloadedError: this process makes as many as it takes.
        """
        with self._turns.one():
            return await self._make(tenant, permissions, backend, paths)

    async def _make(
        self,
        tenant: TenantId,
        permissions: Permissions,
        backend: BackendId,
        paths: Sequence[str] | None,
    ) -> dict[str, Any]:
        globs = None if paths is None else tuple(Glob(text) for text in paths)

        async def run(allow: Allow) -> Ended:
            request = Request(backend, Trigger.API, globs, dry=True, allow=allow)
            return await self._runs.run(tenant, request, _untold)

        try:
            async with asyncio.timeout(self._seconds):
                found = await look(run)
        except BackendBusyError as busy:  # its own words are for the command line
            raise BackendBusyError(
                f"{busy.holder} is running {backend} now: ask again once that run has ended",
                holder=busy.holder,
                expires_at=busy.expires_at,
            ) from None
        except TimeoutError:
            raise SvsyncError(
                f"the plan was not made within {self._seconds:g} seconds: ask for some paths, or"
                f" run `svsync plan --backend {backend}` beside the service",
                code="plan_too_long",
            ) from None

        def may_list(path: str) -> bool:
            return permissions.decide(path, Permission.LIST) is not None

        report = found.to_json(await self._federation.status(tenant, backend))
        for one, entry in zip(found.last.plan, report["plan"], strict=True):
            if one.to is not None and not may_list(one.to):
                entry["detail"] = "moves to a path that you may not list"
        whole = sorted(report["plan"], key=lambda one: (one["path"], one["remote_path"]))
        shown = [one for one in whole if may_list(one["path"])]
        counts = {"planned": len(whole), "hidden": len(whole) - len(shown)}
        return report | counts | {"plan": shown[:MOST_SHOWN]}


def _untold(stage: Stage, done: int, total: int | None, /) -> None:
    """Whoever waits for the answer is told all at once."""
