"""What `doctor` finds of the receivers of webhooks; none is called, for each call is a message."""

from collections.abc import Mapping

from svsync.domain.ids import TenantId
from svsync.services.findings import Finding, ok, warning
from svsync.store import doctor
from svsync.store.database import Database, Row

BY_REQUEST = "by_request"


async def look_at_receivers(db: Database, tenants: Mapping[TenantId, str]) -> list[Finding]:
    """Those that take nothing, and what was given up and can be sent again."""
    async with db.transaction_of(list(tenants), read_only=True) as tx:
        rows = await doctor.receivers(tx)
    if not rows:
        return [ok("webhooks", "none is configured: nobody is told of events")]
    found = [finding for row in rows for finding in _of(row, tenants[row["tenant_id"]])]
    return found or [ok("webhooks", f"receivers: {len(rows):,}, and none is behind")]


def _of(row: Row, tenant: str) -> list[Finding]:
    endpoint = row["endpoint_id"]
    check = f"webhook {endpoint}"
    command = f"--tenant {tenant} {endpoint}"
    found = []
    if row["state"] == "disabled":
        if row["reason"] == BY_REQUEST:
            return []
        return [
            warning(
                check,
                f"it is disabled ({row['reason']}): its receiver is told nothing",
                f"once the receiver is well, PATCH /v1/webhooks/{endpoint} with"
                ' {"state": "active"}, or remove it',
            )
        ]
    if row["failing_since"] is not None:
        why = f", the last time {row['error_code']}" if row["error_code"] else ""
        found.append(
            warning(
                check,
                f"its receiver has taken nothing since {row['failing_since']:%Y-%m-%d %H:%M} UTC"
                f"{why}; what waits for it: {row['due']:,}",
                f"`svsync webhooks deliveries {command}` says what it answered, `svsync webhooks"
                f" test {command}` tries it now",
            )
        )
    if row["dead"]:
        found.append(
            warning(
                check,
                f"deliveries that were given up: {row['dead']:,}",
                f"once its receiver is well: svsync webhooks replay {command}",
            )
        )
    return found
