"""What the doctor says of the replica that lists are read from."""

from svsync.services.findings import Finding, ok, warning
from svsync.store.database import NO_TENANT
from svsync.store.replica import Replica


async def look_at_replica(replica: Replica, max_lag: float) -> Finding:
    """`max_lag`: seconds; one that is further behind is not asked."""
    found = await replica.look(NO_TENANT)
    if found.problem:
        return warning(
            "replica",
            f"it is not asked, and the primary answers for it: {found.problem}",
            "check DATABASE_URL_READ: a streaming replica of DATABASE_URL, and the same role",
        )
    if found.lag_s is None or found.lag_s > max_lag:
        return warning(
            "replica",
            "it is behind, and the primary answers for it while it is",
            "look at its replication, or ask again in some seconds; max_replica_lag is the limit",
        )
    return ok("replica", "it answers lists, histories, reports and audit queries")
