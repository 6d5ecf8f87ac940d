"""Secrets as people and programs see them: read, list, history, and a local write.

A read opens one version. A write is a new version of a number that was never used,
and marks the pair, if there is one, so that the next run looks at it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from svsync.domain.envelope import Purpose
from svsync.domain.errors import NotFoundError, SvsyncError, VersionConflictError
from svsync.domain.federation import BackendSpec, Mode, PathSettings, RuleSpec, Writes, from_json
from svsync.domain.ids import LocalPath, SecretId, TenantId
from svsync.domain.mapping import Mapped
from svsync.domain.values import Payload
from svsync.services.runs import Backends
from svsync.services.sealing import Sealed, Sealing
from svsync.store import federation
from svsync.store import secrets as store
from svsync.store.database import Database, Row, Transaction
from svsync.store.secrets import Metadata, VersionRow

MAX_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Put:
    """A local write. None keeps what the secret has; `cas` is the version it must be at
    (0: it must not exist)."""

    payload: Payload
    secret_type: str | None = None
    tags: tuple[str, ...] | None = None
    owner: str | None = None
    description: str | None = None
    custom: Mapping[str, str] | None = None
    cas: int | None = None


class Secrets:
    """Local secrets of every tenant."""

    def __init__(self, db: Database, sealing: Sealing, backends: Backends) -> None:
        self._db = db
        self._sealing = sealing
        self._backends = backends

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
        if row is None or (row["state"] != "live" and version is None):
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
            "created_at": _time(row["created_at"]),
            "metadata": _metadata(row),
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
        shown = [
            {
                "path": row["path"],
                "version": row["version"],
                "secret_type": row["secret_type"],
                "metadata": _metadata(row),
                "updated_at": _time(row["updated_at"]),
                "status": row["status"],
            }
            for row in rows[:limit]
        ]
        more = rows[limit - 1]["path"] if len(rows) > limit else None
        return {"secrets": shown, "next_cursor": more, "incomplete": False}

    async def history(
        self, tenant: TenantId, path: LocalPath, *, limit: int = 100, before: int = 2**31 - 1
    ) -> dict[str, object]:
        """Versions, newest first; a deleted secret keeps its history."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            rows = await store.history(tx, path, before, limit + 1)
        if not rows:
            raise NotFoundError(f"there is no secret at {path}", code="secret_not_found")
        versions = [
            {
                "version": row["version"],
                "state": row["state"],
                "origin": row["origin"],
                "remote_version": row["remote_version"],
                "created_at": _time(row["created_at"]),
                "created_by": row["created_by"],
                "run_id": row["run_id"],
            }
            for row in rows[:limit]
        ]
        more = rows[limit - 1]["version"] if len(rows) > limit else None
        return {"path": path, "versions": versions, "next_cursor": more}

    async def put(
        self, tenant: TenantId, path: LocalPath, put: Put, *, by: str
    ) -> dict[str, object]:
        """Write a new local version.

        Raises:
            VersionConflictError: `cas` does not match, or somebody wrote meanwhile.
            SvsyncError: `federated_path_read_only`, `proxied_path_read_only`.
        """
        keys = await self._sealing.for_tenant(tenant)
        sealer = await keys.reserve(1)
        fingerprint = keys.fingerprint(put.payload)
        async with self._db.transaction(tenant) as tx:
            await self._refuse_read_only(tx, path)
            row = await store.for_write(tx, path)
            _check_cas(path, row, put.cas)
            metadata = _merged(row, put)
            if row is None:
                [secret], version = await store.next_ids(tx, 1), 1
                if not await store.write_new(tx, secret, path, metadata):
                    raise VersionConflictError(f"{path} was created meanwhile: write again")
            else:
                secret, version = SecretId(row["secret_id"]), row["current_version"] + 1
                await store.write_next(tx, secret, version, metadata)
            sealed = sealer.seal(Purpose.VALUE, secret, path, version, put.payload.data_text())
            written = VersionRow(
                secret_id=secret,
                version=version,
                encoding=str(put.payload.encoding),
                key_id=sealed.key_id,
                nonce=sealed.nonce,
                sealed=sealed.sealed,
                fingerprint=fingerprint,
                fingerprint_key=keys.fingerprint_key,
                origin="write",
                remote_version=None,
                created_at=None,
            )
            await store.add_versions(tx, [written], created_by=by, run=None)
            await store.mark_written(tx, path)
            stored = await store.get(tx, path, None)
        assert stored is not None
        return {
            "path": path,
            "version": version,
            "created_at": _time(stored["created_at"]),
            "secret_type": stored["secret_type"],
            "metadata": _metadata(stored),
            "write_through": {"state": "not_configured", "push_id": None},
        }

    async def _refuse_read_only(self, tx: Transaction, path: LocalPath) -> None:
        """A federated path takes local writes only as its backend is configured, whether
        or not a secret is there yet."""
        for stored in await federation.list_backends(tx):
            if stored.state == "deleting":
                continue
            spec = stored.spec
            rules = self._backends.mapping(spec)
            mapped = rules.to_remote(path)
            if not isinstance(mapped, Mapped):
                continue
            settings = spec.for_rule(rules.spec(mapped.rule))
            if settings.mode is Mode.PROXY:
                raise SvsyncError(
                    f"{path} is read through {spec.id}, which is authoritative: write it there",
                    code="proxied_path_read_only",
                )
            if settings.writes is Writes.DISABLED:
                raise SvsyncError(
                    f"{path} is federated by {spec.id} with `writes: disabled`: write it there,"
                    " or allow local writes",
                    code="federated_path_read_only",
                )


def _check_cas(path: LocalPath, row: Row | None, cas: int | None) -> None:
    now = 0 if row is None or row["state"] != "live" else row["current_version"]
    if cas is not None and cas != now:
        raise VersionConflictError(f"{path} is at version {now}, not {cas}: read it again")


def _merged(row: Row | None, put: Put) -> Metadata:
    """What the secret has, with what this write sets."""
    kept = Metadata()
    if row is not None:
        kept = Metadata(
            row["secret_type"], tuple(row["tags"]), row["owner"], row["description"], row["custom"]
        )
    return replace(
        kept,
        secret_type=put.secret_type or kept.secret_type,
        tags=kept.tags if put.tags is None else tuple(sorted(set(put.tags))),
        owner=kept.owner if put.owner is None else put.owner,
        description=kept.description if put.description is None else put.description,
        custom=kept.custom if put.custom is None else json.dumps(dict(put.custom)),
    )


def _metadata(row: Row) -> dict[str, object]:
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
        "synced_at": _time(row["synced_at"]),
        "status": row["status"],
    }


def _settings(spec: BackendSpec, row: Row) -> PathSettings:
    """Those of the path's rule; of the whole backend until a run has mapped it anew."""
    rule = row["rule_ord"]
    return spec.for_rule(RuleSpec("") if rule is None else spec.rules[rule])


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
