"""Secrets as people and programs see them: read, list, history. Writes: `secret_writes`."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from svsync.domain.envelope import Purpose
from svsync.domain.errors import NotFoundError
from svsync.domain.federation import BackendSpec, PathSettings, RuleSpec, from_json
from svsync.domain.ids import LocalPath, SecretId, TenantId
from svsync.services.sealing import Sealed, Sealing
from svsync.store import secrets as store
from svsync.store.database import Database, Row, Transaction

MAX_PAGE: Final = 1000


class Secrets:
    """Local secrets of every tenant."""

    def __init__(self, db: Database, sealing: Sealing) -> None:
        self._db = db
        self._sealing = sealing

    async def get(
        self, tenant: TenantId, path: LocalPath, version: int | None = None
    ) -> tuple[dict[str, object], bytes]:
        """The secret without its value, and the exact JSON text of `data`.

        Raises:
            NotFoundError: no such secret or version.
            KeyServiceError: `value_unreadable`, `key_destroyed`.
        """
        async with self._db.transaction(tenant) as tx:
            row = await store.get(tx, path, version)
        if row is None or not _readable(row["state"], version):
            raise NotFoundError(f"there is no secret at {path}", code="secret_not_found")
        if row["version"] is None or row["version_state"] != "live" or row["sealed"] is None:
            raise NotFoundError(
                f"{path} has no version {version} that can be read", code="version_not_found"
            )
        keys = await self._sealing.for_tenant(tenant)
        data = await keys.open(
            Purpose.VALUE,
            SecretId(row["secret_id"]),
            path,
            row["version"],
            Sealed(row["key_id"], row["nonce"], row["sealed"]),
        )
        shown: dict[str, object] = {
            "path": path,
            "secret_type": row["secret_type"],
            "version": row["version"],
            "created_at": time_of(row["created_at"]),
            "metadata": metadata_of(row),
            "federation": _federation(row),
        }
        return shown, data

    async def list_secrets(
        self, tenant: TenantId, prefix: str, *, limit: int = 100, cursor: str = ""
    ) -> dict[str, object]:
        """Live secrets below a string prefix, by path, at most MAX_PAGE at once."""
        limit = min(max(1, limit), MAX_PAGE)
        async with self._db.transaction(tenant, read_only=True) as tx:
            rows = await store.list_live(tx, prefix, cursor, limit + 1)
        shown = [listed(row) for row in rows[:limit]]
        more = rows[limit - 1]["path"] if len(rows) > limit else None
        return {"secrets": shown, "next_cursor": more, "incomplete": False}

    async def history(
        self, tenant: TenantId, path: LocalPath, *, limit: int = 100, before: int = 2**31 - 1
    ) -> dict[str, object]:
        """Versions, newest first; a deleted secret keeps its history."""

        async def look(tx: Transaction) -> list[Row]:
            rows = await store.history(tx, path, before, limit + 1)
            if not rows:
                raise NotFoundError(f"there is no secret at {path}", code="secret_not_found")
            return rows

        rows = await self._db.read(tenant, look)
        versions = [
            {
                "version": row["version"],
                "state": row["state"],
                "origin": row["origin"],
                "remote_version": row["remote_version"],
                "created_at": time_of(row["created_at"]),
                "created_by": row["created_by"],
                "run_id": row["run_id"],
            }
            for row in rows[:limit]
        ]
        more = rows[limit - 1]["version"] if len(rows) > limit else None
        return {"path": path, "versions": versions, "next_cursor": more}


def _readable(state: str, version: int | None) -> bool:
    """A deleted secret is not there, but its history is; of one whose first version never
    came to be there is neither."""
    return state == "live" or (state == "deleted" and version is not None)


def listed(row: Row) -> dict[str, object]:
    """A secret as lists show it."""
    return {
        "path": row["path"],
        "version": row["version"],
        "secret_type": row["secret_type"],
        "metadata": metadata_of(row),
        "updated_at": time_of(row["updated_at"]),
        "status": row["status"],
    }


def metadata_of(row: Row) -> dict[str, object]:
    custom: Any = json.loads(row["custom"])
    tags: Sequence[str] = row["tags"]
    return {
        "tags": list(tags),
        "owner": row["owner"],
        "description": row["description"],
        "custom": custom,
    }


def _federation(row: Row) -> dict[str, object] | None:
    if row["backend_id"] is None:
        return None
    spec = from_json(row["spec"])
    return {
        "backend_id": row["backend_id"],
        "mode": str(_settings(spec, row).mode),
        "synced_at": time_of(row["synced_at"]),
        "status": row["status"],
    }


def _settings(spec: BackendSpec, row: Row) -> PathSettings:
    """Those of the path's rule; of the whole backend until a run has mapped it anew."""
    rule = row["rule_ord"]
    return spec.for_rule(RuleSpec("") if rule is None else spec.rules[rule])


def time_of(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
