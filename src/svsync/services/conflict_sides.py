"""What a conflict shows: how it stands, without values, and its two sides, opened.

The local side of an open conflict is the secret as it stands now: local writes go on
while it waits, and the record learns of them in the next run. That of a closed one is
what its record kept.
"""

from dataclasses import dataclass

from svsync.domain.comparison import compare
from svsync.domain.envelope import Purpose
from svsync.domain.errors import KeyServiceError
from svsync.domain.ids import ConflictId, LocalPath, SecretId
from svsync.domain.resolutions import handle_of
from svsync.domain.values import Encoding, Payload
from svsync.services.sealing import Sealed, TenantKeys
from svsync.services.secrets import time_of
from svsync.store.database import Row

_UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Shown:
    """A conflict side by side. `about` holds no value; a side is None where it is gone
    or cannot be read, and `about` says which."""

    about: dict[str, object]
    local: Payload | None
    remote: Payload | None


def conflict_json(row: Row) -> dict[str, object]:
    """A row of `conflicts.list` or `conflicts.get` as the API gives it.

    `local_version` is 0 where the local side is deleted, as `cas` has it. Both it and
    `remote_token` say which conflict was looked at, when it is resolved.
    """
    is_open = row["state"] == "open"
    state = row["now_state"] if is_open else row["local_state"]
    version = row["now_version"] if is_open else row["local_version"]
    return {
        "conflict_id": row["conflict_id"],
        "path": row["path"],
        "remote_path": row["remote_path"],
        "kind": row["kind"],
        "state": row["state"],
        "local": "live" if state == "live" else "deleted",
        "local_version": version if state == "live" else 0,
        "remote": "deleted" if row["remote_gone"] else "live",
        "remote_token": handle_of(ConflictId(row["conflict_id"]), row["remote_token"]),
        "detected_at": time_of(row["detected_at"]),
        "updated_at": time_of(row["updated_at"]),
        "closed_at": time_of(row["closed_at"]),
        "resolved_by": row["resolved_by"],
    }


async def side_by_side(keys: TenantKeys, row: Row, earlier: tuple[int, list[ConflictId]]) -> Shown:
    """A row of `conflicts.get` with both sides compared, member by member."""
    local_is, local = await _local_side(keys, row)
    remote_is, remote = await _remote_side(keys, row)
    fields = compare(
        local and local.data_text(),
        remote and remote.data_text(),
        readable=_UNREADABLE not in (local_is, remote_is),
    )
    many, ids = earlier
    about: dict[str, object] = {
        **conflict_json(row),
        "local": local_is,
        "local_created_at": None if local_is == "deleted" else time_of(row["created_at"]),
        "remote": remote_is,
        "remote_order": row["remote_order"],
        "fields": [
            {
                "name": f.name,
                "compared": str(f.verdict),
                "local": f.local and {"type": f.local.type, "bytes": f.local.size},
                "remote": f.remote and {"type": f.remote.type, "bytes": f.remote.size},
            }
            for f in fields
        ],
        "earlier": {"count": many, "conflict_ids": ids},
    }
    return Shown(about, local, remote)


async def remote_payload(keys: TenantKeys, row: Row) -> Payload | None:
    """The remote value of a conflict, None where it is gone.

    Raises:
        KeyServiceError: it does not open.
    """
    if row["remote_gone"]:
        return None
    return await _open_side(keys, row, "remote", Purpose.CONFLICT_REMOTE)


async def _remote_side(keys: TenantKeys, row: Row) -> tuple[str, Payload | None]:
    try:
        payload = await remote_payload(keys, row)
    except KeyServiceError:
        return _UNREADABLE, None
    return ("deleted" if payload is None else "live"), payload


async def _local_side(keys: TenantKeys, row: Row) -> tuple[str, Payload | None]:
    is_open = row["state"] == "open"
    if (row["now_state"] if is_open else row["local_state"]) != "live":
        return "deleted", None
    try:
        if not is_open and row["local_sealed"] is not None:
            return "live", await _open_side(keys, row, "local", Purpose.CONFLICT_LOCAL)
        if row["version_state"] != "live" or row["sealed"] is None:
            return _UNREADABLE, None
        sealed = Sealed(row["key_id"], row["nonce"], row["sealed"])
        secret, path = SecretId(row["secret_id"]), LocalPath(row["path"])
        data = await keys.open(Purpose.VALUE, secret, path, row["version"], sealed)
        return "live", Payload.from_data(data, Encoding(row["encoding"]))
    except KeyServiceError:
        return _UNREADABLE, None


async def _open_side(keys: TenantKeys, row: Row, side: str, purpose: Purpose) -> Payload:
    if row[f"{side}_sealed"] is None:  # of a closed one, destroyed with the copies here
        raise KeyServiceError("the value of this side is not kept any more", code="key_destroyed")
    sealed = Sealed(row[f"{side}_key_id"], row[f"{side}_nonce"], row[f"{side}_sealed"])
    secret, path = SecretId(row["secret_id"]), LocalPath(row["path"])
    data = await keys.open(purpose, secret, path, 0, sealed, extra=row["sealed_as"])
    return Payload.from_data(data, Encoding(row[f"{side}_encoding"]))
