"""Backends opened for a write, a question after one, or a look at the connection.

None of these is refused for a budget of calls: a write that stands here would not stand there,
and who looks why a backend fails would be told that it cannot be looked at. What they call is
counted all the same, so that runs and reads make so many fewer.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from svsync.domain.federation import BackendSpec
from svsync.domain.ids import TenantId
from svsync.services.call_budgets import CallBudgets, per_day_of
from svsync.services.runs import Backends, OpenBackend
from svsync.store.database import Database


@asynccontextmanager
async def open_counted(
    db: Database, backends: Backends, spec: BackendSpec, tenant: TenantId, *, trial: bool = False
) -> AsyncIterator[OpenBackend]:
    """A backend, open until the block ends; see `services.runs.Backends.open`. Its calls count
    once it is closed, however the block ended; that they cannot be counted ends nothing."""
    opened: OpenBackend | None = None
    try:
        async with backends.open(spec, tenant, trial=trial) as opened:
            yield opened
    finally:
        if opened is not None and per_day_of(spec) is not None:
            calls = sum(opened.calls().values())
            await CallBudgets(db).note(tenant, spec, calls)
