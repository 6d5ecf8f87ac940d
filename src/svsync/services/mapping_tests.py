"""What a backend's mapping makes of some paths, both ways; nothing is looked up at the backend.

Whoever may not list a local path is not told what it is mapped to, nor what is mapped to it.
"""

from collections.abc import Sequence

from svsync.domain.ids import BackendId, TenantId
from svsync.domain.mapping import Explanation, Mapped
from svsync.domain.paths import local_problem
from svsync.domain.policies import Permission, Permissions
from svsync.services.runs import Backends
from svsync.store import federation
from svsync.store.database import Database


class MappingTests:
    """Of every tenant's backends, by the mapping that is in force."""

    def __init__(self, db: Database, backends: Backends) -> None:
        self._db = db
        self._backends = backends

    async def test(
        self,
        tenant: TenantId,
        permissions: Permissions,
        backend: BackendId,
        paths: Sequence[str],
    ) -> dict[str, object]:
        """Each path taken as a remote one and as a local one, with the rule, its captures and
        the result, or why there is none; None where the caller may not list the local path.

        Raises NotFoundError: there is no such backend.
        """
        async with self._db.transaction(tenant, read_only=True) as tx:
            spec = (await federation.get(tx, backend)).spec
        rules = self._backends.mapping(spec)
        told: list[dict[str, object]] = []
        for path in paths:
            ways = {
                "as_remote": rules.explain_remote(path),
                "as_local": rules.explain_local(path),
            }
            about = {way: _told(found, permissions) for way, found in ways.items()}
            told.append({"path": path, **about})
        return {"backend_id": spec.id, "paths": told}


def _told(found: Explanation, permissions: Permissions) -> dict[str, object] | None:
    outcome = found.outcome
    mapped = outcome if isinstance(outcome, Mapped) else None
    local: str | None = found.path if found.side == "local" else None
    if mapped is not None:
        local = mapped.local
    # What is no local path is nobody's secret: anybody may be told why it is none.
    is_path = local is not None and local_problem(local) is None
    if is_path and permissions.decide(str(local), Permission.LIST) is None:
        return None
    return {
        "rule": found.rule,
        "local_pattern": found.local_pattern or None,
        "remote_pattern": found.remote_pattern or None,
        "captures": [{"name": name, "value": held} for name, held in found.captures],
        "local": None if mapped is None else mapped.local,
        "remote": None if mapped is None else mapped.remote,
        "reason": None if isinstance(outcome, Mapped) else str(outcome.reason),
        "detail": None if isinstance(outcome, Mapped) else outcome.detail,
    }
