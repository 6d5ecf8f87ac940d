"""Resolving a conflict: one transaction, in which a person's decision becomes rows.

It locks the secret, the pair and the open conflict, in the order in which everybody
locks them, and decides about what stands there by then. Base becomes the remote side
that was seen; the local side what the resolution says; the conflict is closed, and the
events of both are written. What is due at the backend is written down here and made
afterwards, on the condition that the backend still has what was seen.

The backend itself is not asked. Should it have moved on since, the next run finds that
against the base which is left here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from svsync.domain.changes import Local, LocalKind, Pair, PairStatus
from svsync.domain.envelope import Purpose
from svsync.domain.errors import ConflictChangedError, NotFoundError, SvsyncError
from svsync.domain.federation import Mode, Writes
from svsync.domain.ids import ConflictId, LocalPath, PushId, SecretId, TenantId
from svsync.domain.mapping import Mapped
from svsync.domain.resolutions import RemoteSide, Resolution, Settlement, handle_of, settle
from svsync.domain.values import Payload
from svsync.services.conflict_sides import conflict_json
from svsync.services.ownership import Owner
from svsync.services.pushes import plan
from svsync.services.runs import Backends
from svsync.services.sealing import Sealed, Sealer, TenantKeys
from svsync.services.write_through import OvertakenError, changed, in_progress
from svsync.store import conflicts as store
from svsync.store import federation, outbox, pairs, pushes, secrets
from svsync.store.database import Row, Transaction
from svsync.store.federation import StoredBackend
from svsync.store.outbox import Event
from svsync.store.pairs import Mapping
from svsync.store.pushes import PushRow
from svsync.store.secrets import Advance, Metadata, VersionRow


@dataclass(frozen=True, slots=True)
class Seen:
    """What somebody looked at before they decided. None: whatever stands there.

    Attributes:
        local_version: 0 where the local side was deleted.
        remote_token: the handle that a listing gives, never a backend's token.
    """

    conflict_id: str | None = None
    local_version: int | None = None
    remote_token: str | None = None


@dataclass(frozen=True, slots=True)
class Resolving:
    """One decision under way."""

    tenant: TenantId
    backend: str
    path: LocalPath
    resolution: Resolution
    payload: Payload | None
    seen: Seen
    by: str
    keys: TenantKeys
    sealer: Sealer
    ids: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Sides:
    """The remote value as it was sealed under this id; None: gone, or unreadable."""

    sealed_as: str
    remote: Payload | None


@dataclass(frozen=True, slots=True)
class Resolved:
    """A conflict as its transaction left it.

    `version` is the local version that is current, None where the secret is deleted.
    `state` is that of the write-through so far; `push` is still to be made.
    """

    owner: Owner
    conflict: ConflictId
    kind: str
    version: int | None
    state: str
    push: PushId | None


@dataclass(frozen=True, slots=True)
class _Held:
    """What is locked: the secret's row, its pair, the open conflict."""

    owner: Owner
    row: Row
    pair: Pair
    conflict: Row

    @property
    def secret(self) -> SecretId:
        return SecretId(self.row["secret_id"])

    @property
    def local(self) -> Local:
        return self.pair.local

    @property
    def remote(self) -> RemoteSide:
        c = self.conflict
        return RemoteSide.of_record(
            c["remote_token"],
            gone=c["remote_gone"],
            order=c["remote_order"],
            fingerprint=c["remote_fp"],
            fingerprint_key=c["remote_fp_key"],
        )


async def resolve(tx: Transaction, backends: Backends, r: Resolving, sides: Sides) -> Resolved:
    """Settle the path's open conflict.

    Raises:
        OvertakenError: the sides, or the configuration, are not those that were looked at.
        SvsyncError: see `Conflicts.resolve`.
    """
    held = await _lock(tx, backends, await federation.get(tx, r.backend), r)
    await _check(tx, r, held)
    if held.conflict["sealed_as"] != sides.sealed_as:
        raise OvertakenError
    owner = held.owner
    local = await _decide(tx, r, held, sides)
    # Whatever a run decided for the secret as it was is decided again.
    await pushes.raise_revs(tx, [held.secret])
    settlement = settle(
        held.pair.base,
        held.remote,
        local,
        through=owner.writes_through,
        deletes=owner.settings.propagate_deletes,
        now=datetime.now(UTC),
    )
    raw = _exact_text(r, held, sides)
    await store.settle_pair(
        tx,
        owner.spec.id,
        owner.remote,
        settlement.base,
        settlement.status,
        raw=raw.sealed if raw else None,
        raw_key=raw.key_id if raw else None,
        raw_nonce=raw.nonce if raw else None,
    )
    push = await _plan(tx, r, held, local, settlement)
    conflict = ConflictId(held.conflict["conflict_id"])
    await store.resolve(tx, conflict, r.by)
    await outbox.add(tx, owner.spec.id, _events(r, held, local), event_ids=lambda: r.ids("evt"))
    state = "not_configured"
    if owner.writes_through:
        state = "applied" if settlement.status is PairStatus.IN_SYNC else "pending"
    live = local.kind is LocalKind.LIVE
    kind = held.conflict["kind"]
    return Resolved(owner, conflict, kind, local.version if live else None, state, push)


def none_open(path: LocalPath, backend: str) -> NotFoundError:
    return NotFoundError(
        f"no conflict of {path} waits in {backend}: `svsync conflicts list` shows those that do",
        code="conflict_not_found",
    )


# --- lock and check ---------------------------------------------------------------


async def _lock(tx: Transaction, backends: Backends, stored: StoredBackend, r: Resolving) -> _Held:
    """The backend's configuration, the secret, its pair and its open conflict, locked in
    this order."""
    spec = stored.spec
    if await federation.stand_by(tx, spec.id) != stored.rev:
        raise OvertakenError  # configured otherwise meanwhile, or removed
    row = await secrets.for_write(tx, r.path)
    if await pushes.unfinished_at(tx, r.path) is not None:
        raise in_progress(r.path)
    rules, mapping = backends.mapping(spec), Mapping("", "")
    mapped = rules.to_remote(r.path)
    if row is None or not isinstance(mapped, Mapped):
        raise none_open(r.path, spec.id)
    settings = spec.for_rule(rules.spec(mapped.rule))
    if settings.writes is Writes.WRITE_THROUGH:
        rules, mapping = backends.rules(spec)
    owner = Owner(stored, rules, mapping, mapped.rule, mapped.remote, settings)
    await store.lock_pair(tx, spec.id, owner.remote)
    known = (await pairs.load(tx, spec.id, [owner.remote])).get(owner.remote)
    found = await store.open_by_path(tx, spec.id, [r.path])
    # A pair of before a change of the mapping is detached by the next run, which closes
    # its conflict.
    if not found or known is None or known["path"] != r.path:
        raise none_open(r.path, spec.id)
    if owner.writes_through and known["base_pair"] != mapping.base_pair:
        raise none_open(r.path, spec.id)
    return _Held(owner, row, pairs.pair_of(known), found[0])


async def _check(tx: Transaction, r: Resolving, held: _Held) -> None:
    """Refuse what is not what was looked at, and what such a path does not take."""
    conflict, spec = held.conflict, held.owner.spec
    now = Seen(
        conflict["conflict_id"],
        held.local.version if held.local.kind is LocalKind.LIVE else 0,
        handle_of(ConflictId(conflict["conflict_id"]), conflict["remote_token"]),
    )
    for was, is_now in (
        (r.seen.conflict_id, now.conflict_id),
        (r.seen.local_version, now.local_version),
        (r.seen.remote_token, now.remote_token),
    ):
        if was is not None and was != is_now:
            row = await store.get(tx, spec.id, r.path, None)
            assert row is not None
            raise ConflictChangedError(
                f"the conflict of {r.path} is not the one that was looked at any more: look"
                " again with `svsync conflicts show`, and decide anew",
                conflict=conflict_json(row),
            )
    settings = held.owner.settings
    if settings.mode is Mode.PROXY:
        raise SvsyncError(
            f"{r.path} is read through {spec.id}, which is authoritative: change it there",
            code="proxied_path_read_only",
        )
    if r.resolution is Resolution.USE_VALUE and settings.writes is Writes.DISABLED:
        raise SvsyncError(
            f"{r.path} is federated by {spec.id} with `writes: disabled`: take one of the two"
            " sides, or allow local writes",
            code="federated_path_read_only",
        )


# --- the local side ---------------------------------------------------------------


async def _decide(tx: Transaction, r: Resolving, held: _Held, sides: Sides) -> Local:
    """Make the local side what the resolution says; how it is afterwards."""
    local, remote, version = held.local, held.remote, held.local.last_version + 1
    match r.resolution:
        case Resolution.USE_LOCAL:
            return local
        case Resolution.USE_REMOTE if remote.gone:
            await secrets.bury(tx, [held.secret])
            return replace(local, kind=LocalKind.TOMBSTONE, propagate=False)
        case Resolution.USE_REMOTE:
            assert sides.remote is not None
            number = str(remote.order) if remote.order is not None else remote.value_token or None
            await _add_version(tx, r, held, sides.remote, version, number)
            await secrets.advance(tx, [Advance(held.secret, version, None, None)])
            fingerprint, key = remote.fingerprint, remote.fingerprint_key
        case Resolution.USE_VALUE:
            assert r.payload is not None
            await _add_version(tx, r, held, r.payload, version, None)
            await secrets.write_next(tx, held.secret, version, _metadata(held.row))
            fingerprint, key = r.keys.fingerprint(r.payload), r.keys.fingerprint_key
    return replace(
        local, kind=LocalKind.LIVE, version=version, fingerprint=fingerprint, fingerprint_key=key
    )


async def _add_version(
    tx: Transaction,
    r: Resolving,
    held: _Held,
    payload: Payload,
    version: int,
    remote_version: str | None,
) -> None:
    sealed = r.sealer.seal(Purpose.VALUE, held.secret, r.path, version, payload.data_text())
    row = VersionRow(
        secret_id=held.secret,
        version=version,
        encoding=str(payload.encoding),
        key_id=sealed.key_id,
        nonce=sealed.nonce,
        sealed=sealed.sealed,
        fingerprint=r.keys.fingerprint(payload),
        fingerprint_key=r.keys.fingerprint_key,
        origin="resolve",
        remote_version=remote_version,
        created_at=None,
    )
    await secrets.add_versions(tx, [row], created_by=r.by, run=None)


def _metadata(row: Row) -> Metadata:
    """What the secret has, which a decision about its value leaves alone."""
    return Metadata(
        row["secret_type"],
        tuple(row["tags"]),
        row["owner"],
        row["description"],
        row["custom"],
        row["max_versions"],
    )


# --- the pair, the push, the events -----------------------------------------------


def _exact_text(r: Resolving, held: _Held, sides: Sides) -> Sealed | None:
    """The remote side's exact text, for base, where no version of ours holds it."""
    if sides.remote is None or r.resolution is Resolution.USE_REMOTE:
        return None
    return r.sealer.seal(
        Purpose.RAW, held.secret, r.path, 0, sides.remote.reveal(), extra=held.owner.remote
    )


async def _plan(
    tx: Transaction, r: Resolving, held: _Held, local: Local, settled: Settlement
) -> PushId | None:
    """Write the push of the local side down. Nothing goes to a backend that is not active:
    the first run once it is finds the path dirty."""
    if settled.push is None or held.owner.stored.state != "active":
        return None
    push = PushId(r.ids("psh"))
    row = PushRow(
        push_id=push,
        path=r.path,
        remote_path=held.owner.remote,
        kind=str(settled.push),
        secret_id=held.secret,
        version=local.version,
        pending=False,
        metadata=None,
        expected_token=held.remote.value_token,
        expected_order=held.remote.order,
        target_fp=local.fingerprint,
        target_fp_key=local.fingerprint_key,
    )
    await plan(tx, held.owner.spec.id, [row], by=r.by)
    return push


def _events(r: Resolving, held: _Held, local: Local) -> list[Event]:
    spec = held.owner.spec
    resolved = Event(
        "federation.conflict.resolved",
        {
            "backend_id": spec.id,
            "backend_name": spec.name,
            "tenant": spec.tenant,
            "run_id": None,
            "conflict_id": held.conflict["conflict_id"],
            "path": r.path,
            "kind": held.conflict["kind"],
            "resolution": str(r.resolution),
        },
    )
    if (local.kind, local.version) == (held.local.kind, held.local.version):
        return [resolved]
    deleted = local.kind is LocalKind.TOMBSTONE
    return [changed(held.owner, r.path, local.version, deleted=deleted), resolved]
