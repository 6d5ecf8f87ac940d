"""What a push without condition wrote over, kept as a conflict record with its value.

Where a backend takes no condition, somebody may write between the look and the call.
What they wrote is still among the store's versions; it is not lost, but nobody would
know of it. So each such version becomes a closed record, its value sealed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from svsync.domain.changes import HistoricVersion, LocalKind, Pair
from svsync.domain.decide import ConflictKind, ConflictState
from svsync.domain.envelope import Purpose
from svsync.domain.ids import BackendId, ConflictId, RunId, SecretId
from svsync.services.sealing import Sealer, TenantKeys
from svsync.store import conflicts
from svsync.store.conflicts import ConflictRow
from svsync.store.database import Row, Transaction


@dataclass(frozen=True, slots=True)
class Foreign:
    """Versions that somebody else wrote just before a push of local `version`."""

    pair: Pair
    secret: SecretId
    version: int
    found: tuple[HistoricVersion, ...]


async def record_overwritten(
    tx: Transaction,
    backend: BackendId,
    run: RunId | None,
    foreign: Sequence[Foreign],
    keys: TenantKeys,
    sealer: Sealer,
    ids: Callable[[str], str],
) -> list[Row]:
    """Record them; the rows that are new. `sealer` holds one sealing for each."""
    rows = [
        _row(one, version, keys, sealer, ConflictId(ids("cfl")))
        for one in foreign
        for version in one.found
    ]
    return await conflicts.record(tx, backend, run, rows)


def _row(
    one: Foreign, version: HistoricVersion, keys: TenantKeys, sealer: Sealer, conflict: ConflictId
) -> ConflictRow:
    path = one.pair.local_path
    sealed = sealer.seal(
        Purpose.CONFLICT_REMOTE, one.secret, path, 0, version.payload.data_text(), extra=conflict
    )
    return ConflictRow(
        conflict_id=conflict,
        secret_id=one.secret,
        path=path,
        remote_path=one.pair.remote_path,
        kind=str(ConflictKind.OVERWRITTEN),
        state=str(ConflictState.KEPT_LOCAL),
        local_version=one.version,
        local_state="live" if one.pair.local.kind is LocalKind.LIVE else "deleted",
        local_encoding=None,
        local_key=None,
        local_nonce=None,
        local_sealed=None,
        base_fp=one.pair.base.fingerprint,
        remote_token=f"overwritten|{version.number}",
        remote_order=version.number,
        remote_gone=False,
        remote_fp=keys.fingerprint(version.payload),
        remote_fp_key=keys.fingerprint_key,
        remote_encoding=str(version.payload.encoding),
        remote_key=sealed.key_id,
        remote_nonce=sealed.nonce,
        remote_sealed=sealed.sealed,
    )
