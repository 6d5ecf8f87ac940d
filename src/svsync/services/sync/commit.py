"""Seal and commit one batch: all of its rows, its conflicts and its events, or none.

In one transaction under the fence: lock the local rows that still stand where they
were seen, make the new ones, then write versions, pairs, conflicts and events for
exactly those. The ciphertext is bound to the numbers a secret will have, so ids are
drawn before sealing; those of a batch that is not committed are not used again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from svsync.domain.changes import (
    BaseKind,
    LocalKind,
    Pair,
    PairStatus,
    RemoteGone,
    RemoteValue,
)
from svsync.domain.decide import ConflictKind, ConflictState, Effect, PushKind
from svsync.domain.envelope import Purpose
from svsync.domain.errors import KeyServiceError
from svsync.domain.ids import ConflictId, PushId, SecretId
from svsync.domain.resolutions import NO_TRACE_TOKEN
from svsync.domain.runs import Count, Stage
from svsync.domain.values import Payload
from svsync.services.pushes import plan
from svsync.services.sealing import Sealed, Sealer
from svsync.services.sync.context import Run
from svsync.services.sync.judge import Outcome
from svsync.store import conflicts, outbox, pairs, secrets
from svsync.store.conflicts import ConflictRow
from svsync.store.database import Row, Transaction
from svsync.store.outbox import Event
from svsync.store.pairs import PairRow
from svsync.store.pushes import PushRow
from svsync.store.secrets import Advance, NewSecret, VersionRow


@dataclass(slots=True, eq=False)
class _Rows:
    """What one outcome becomes, sealed and ready to be written."""

    outcome: Outcome
    secret: SecretId | None
    versions: list[VersionRow] = field(default_factory=list)
    raw: Sealed | None = None
    conflict: ConflictRow | None = None

    @property
    def pair(self) -> Pair:
        return self.outcome.pair

    @property
    def is_new(self) -> bool:
        """It has no row yet. One that holds nothing but its counter is gone on with."""
        return self.outcome.decision.effect is Effect.CREATE and self.pair.local.secret_id is None


async def commit(
    run: Run, outcomes: Sequence[Outcome]
) -> tuple[list[Outcome], dict[PushId, Outcome]]:
    """Write these outcomes; those whose local row moved meanwhile come back, and the
    pushes that were planned for the others.

    Raises:
        FenceLostError: the run is somebody else's now; nothing was written.
        StoreError: the database refused the batch; nothing was written.
    """
    with run.spending(Stage.SEAL):
        rows = await _seal(run, outcomes)
    with run.spending(Stage.COMMIT):
        async with run.transaction(lookups=True) as tx:
            standing = await _claim(tx, rows)
            recorded = await _write(run, tx, standing)
            planned = await _plan_pushes(run, tx, standing)
    run.report.add(Count.CONFLICTS, recorded)
    kept = {id(r) for r in standing}
    return [r.outcome for r in rows if id(r) not in kept], planned


# --- seal -------------------------------------------------------------------------


async def _seal(run: Run, outcomes: Sequence[Outcome]) -> list[_Rows]:
    rows = [_Rows(o, o.pair.local.secret_id) for o in outcomes]
    new = [r for r in rows if r.is_new]
    disputed = [r.secret for r in rows if _has_conflict(r.outcome) and r.secret is not None]
    async with run.transaction(lookups=True, scratch=True) as tx:
        ids = await secrets.next_ids(tx, len(new))
        local_sides = await secrets.sealed_current(tx, disputed)
    for row, secret in zip(new, ids, strict=True):
        row.secret = secret
    # A batch needs at most: its versions, one exact text each, two sides a conflict.
    history = sum(len(o.fetched.history) for o in outcomes)
    sealer = await run.keys.reserve(2 * len(rows) + history + 2 * len(disputed))
    for row in rows:
        _seal_versions(run, row, sealer)
        if _has_conflict(row.outcome):
            row.conflict = await _seal_conflict(run, row, local_sides, sealer)
    return rows


def _seal_versions(run: Run, row: _Rows, sealer: Sealer) -> None:
    o, remote = row.outcome, row.outcome.fetched.remote
    if not isinstance(remote, RemoteValue) or row.secret is None:
        return
    secret, path = row.secret, o.pair.local_path
    if not o.writes_value:
        if o.base_moved and o.base.kind is BaseKind.VALUE:
            row.raw = sealer.seal(
                Purpose.RAW, secret, path, 0, remote.payload.reveal(), extra=o.pair.remote_path
            )
        return
    assert o.fingerprint is not None
    taken: list[tuple[Payload, bytes, str, str | None, datetime | None]] = [
        (v.payload, run.keys.fingerprint(v.payload), "import", str(v.number), v.created_at)
        for v in o.fetched.history
    ]
    current = str(remote.order) if remote.order is not None else remote.value_token or None
    taken.append((remote.payload, o.fingerprint, "pull", current, remote.created_at))
    first = o.version - len(taken) + 1
    for version, (payload, fingerprint, origin, number, created_at) in enumerate(taken, first):
        sealed = sealer.seal(Purpose.VALUE, secret, path, version, payload.data_text())
        row.versions.append(
            VersionRow(
                secret_id=secret,
                version=version,
                encoding=str(payload.encoding),
                key_id=sealed.key_id,
                nonce=sealed.nonce,
                sealed=sealed.sealed,
                fingerprint=fingerprint,
                fingerprint_key=run.keys.fingerprint_key,
                origin=origin,
                remote_version=number,
                created_at=created_at,
            )
        )


def _has_conflict(o: Outcome) -> bool:
    """Is there a conflict to record, or an open one whose sides may have moved?"""
    return o.decision.conflict is not None or o.decision.conflict_state is ConflictState.OPEN


async def _seal_conflict(
    run: Run, row: _Rows, local_sides: dict[SecretId, Row], sealer: Sealer
) -> ConflictRow:
    """Both sides of a disagreement, sealed for the conflict's own row.

    A local value that does not open is left out: it is unreadable, not changed,
    and the remote side must be kept all the same.

    Raises KeyServiceError: the root key is out of reach, so that nobody knows whether it opens.
    """
    o, pair, secret = row.outcome, row.pair, row.secret
    assert secret is not None
    conflict = ConflictId(run.ids("cfl"))
    local, local_encoding = None, None
    side = local_sides.get(secret)
    if side is not None and pair.local.kind is LocalKind.LIVE:
        try:
            plain = await run.keys.open(
                Purpose.VALUE, secret, pair.local_path, side["version"],
                Sealed(side["key_id"], side["nonce"], side["sealed"]),
            )  # fmt: skip
        except KeyServiceError as problem:
            if problem.may_pass:
                raise
        else:
            local_encoding = side["encoding"]
            local = sealer.seal(
                Purpose.CONFLICT_LOCAL, secret, pair.local_path, 0, plain, extra=conflict
            )
    remote = o.fetched.remote
    value = remote if isinstance(remote, RemoteValue) else None
    sealed = None
    if value is not None:
        sealed = sealer.seal(
            Purpose.CONFLICT_REMOTE, secret, pair.local_path, 0, value.payload.data_text(),
            extra=conflict,
        )  # fmt: skip
    assert isinstance(remote, RemoteValue | RemoteGone)
    return ConflictRow(
        conflict_id=conflict,
        secret_id=secret,
        path=pair.local_path,
        remote_path=pair.remote_path,
        kind=str(o.decision.conflict or ""),
        state=str(o.decision.conflict_state),
        local_version=pair.local.version,
        local_state="live" if pair.local.kind is LocalKind.LIVE else "deleted",
        local_encoding=local_encoding,
        local_key=local.key_id if local else None,
        local_nonce=local.nonce if local else None,
        local_sealed=local.sealed if local else None,
        base_fp=pair.base.fingerprint,
        remote_token=_side_token(o),
        remote_order=remote.order,
        remote_gone=value is None,
        remote_fp=o.fingerprint,
        remote_fp_key=run.keys.fingerprint_key if value else None,
        remote_encoding=str(value.payload.encoding) if value else None,
        remote_key=sealed.key_id if sealed else None,
        remote_nonce=sealed.nonce if sealed else None,
        remote_sealed=sealed.sealed if sealed else None,
    )


def _side_token(o: Outcome) -> str:
    """Tells one remote state of a path from another. A store without versions has no
    token that does, so its values are told apart by fingerprint."""
    remote = o.fetched.remote
    token = remote.value_token if isinstance(remote, RemoteValue | RemoteGone) else None
    if token:
        return token
    return o.fingerprint.hex() if o.fingerprint is not None else NO_TRACE_TOKEN


# --- commit -----------------------------------------------------------------------


async def _claim(tx: Transaction, rows: Sequence[_Rows]) -> list[_Rows]:
    """Lock what stands where it was seen and make what is new; the rows that may go on."""
    seen = [
        (r.pair.local.secret_id, r.pair.local.version, r.pair.local.row_rev)
        for r in rows
        if r.pair.local.secret_id is not None
    ]
    locked = await pairs.lock_unmoved(tx, seen)
    made = await secrets.create(
        tx,
        [
            NewSecret(
                secret_id=r.secret,
                path=r.pair.local_path,
                version=r.outcome.version,
                secret_type=r.versions[-1].encoding,
                tags=r.outcome.tags or "[]",
                custom=r.outcome.custom or "{}",
            )
            for r in rows
            if r.is_new and r.secret is not None
        ],
    )
    return [r for r in rows if r.secret is None or r.secret in (made if r.is_new else locked)]


async def _write(run: Run, tx: Transaction, rows: Sequence[_Rows]) -> int:
    """Write everything of these rows; how many disagreements were recorded."""
    versions = [version for r in rows for version in r.versions]
    if versions:
        async with tx.keeping_plans():
            await secrets.add_versions(tx, versions, created_by="svsync", run=run.claimed.run_id)
    pulled, buried, described = [], [], []
    for r in rows:
        o, secret = r.outcome, r.secret
        if secret is None:
            continue
        if o.writes_value and not r.is_new:
            pulled.append(Advance(secret, o.version, o.tags, o.custom))
        elif o.decision.effect is Effect.TOMBSTONE:
            buried.append(secret)
        elif o.tags is not None and not r.is_new:
            described.append((secret, o.tags, o.custom or "{}"))
    await secrets.advance(tx, pulled)
    await secrets.bury(tx, buried)
    await secrets.describe(tx, described)
    nothing = [r for r in rows if r.outcome.decision.status is PairStatus.INITIAL]
    await pairs.forget_unsettled(
        tx, run.spec.id, [(r.pair.remote_path, r.secret is not None) for r in nothing]
    )
    left = [_pair_row(r) for r in rows if r not in nothing]
    await pairs.upsert(tx, run.spec.id, run.mapping, left)
    recorded = await _write_conflicts(run, tx, rows)
    closed = await _close_converged(run, tx, rows)
    events = [*_changed(run, rows), *_detected(run, recorded), *_resolved(run, closed)]
    await outbox.add(tx, run.spec.id, events, event_ids=lambda: run.ids("evt"))
    return len(recorded)


async def _plan_pushes(run: Run, tx: Transaction, rows: Sequence[_Rows]) -> dict[PushId, Outcome]:
    """Write down what is to be written to the backend: of the local version that stands
    now, on the condition that the remote side is what the point read showed."""
    due: dict[PushId, Outcome] = {}
    planned = []
    for r in rows:
        o, remote = r.outcome, r.outcome.fetched.remote
        if o.decision.push is None or r.secret is None:
            continue
        push = PushId(run.ids("psh"))
        due[push] = o
        seen = remote if isinstance(remote, RemoteValue | RemoteGone) else None
        valued = o.decision.push in (PushKind.PUT, PushKind.CREATE)
        planned.append(
            PushRow(
                push_id=push,
                path=o.pair.local_path,
                remote_path=o.pair.remote_path,
                kind=str(o.decision.push),
                secret_id=r.secret,
                version=o.version,
                pending=False,
                metadata=None,
                expected_token=seen.value_token if seen else o.base.value_token,
                expected_order=seen.order if seen else o.base.order,
                target_fp=o.pair.local.fingerprint if valued else None,
                target_fp_key=o.pair.local.fingerprint_key if valued else None,
            )
        )
    claimed = run.claimed
    await plan(tx, run.spec.id, planned, by="svsync", run=claimed.run_id, fence=claimed.held.fence)
    return due


def _pair_row(r: _Rows) -> PairRow:
    o, pair, base = r.outcome, r.pair, r.outcome.base
    return PairRow(
        remote_path=pair.remote_path,
        path=pair.local_path,
        secret_id=r.secret,
        rule=pair.rule,
        status=str(o.decision.status or pair.status),
        base_kind=str(base.kind),
        base_fp=base.fingerprint,
        base_fp_key=base.fingerprint_key,
        value_token=base.value_token,
        meta_token=base.meta_token,
        order=base.order,
        tokens_left="\n".join(base.tokens_left) or None,
        moved_at=base.moved_at,
        remote_tags=pairs.tags_text(base.tags),
        settled_version=base.settled_version,
        raw_sealed=r.raw.sealed if r.raw else None,
        raw_key=r.raw.key_id if r.raw else None,
        raw_nonce=r.raw.nonce if r.raw else None,
        recheck=o.decision.push is not None
        or o.decision.status is PairStatus.PENDING_PUSH
        or o.decision.conflict_state is ConflictState.OPEN
        or (o.decision.status is None and pair.recheck),
        reason=None,
    )


async def _write_conflicts(run: Run, tx: Transaction, rows: Sequence[_Rows]) -> list[Row]:
    """Record new disagreements and refresh open ones; those that were recorded."""
    mine = [r.conflict for r in rows if r.conflict is not None]
    frozen = {c.path: c for c in mine if not c.kind}
    for held in await conflicts.open_by_path(tx, run.spec.id, list(frozen)):
        now = frozen[held["path"]]
        if (held["local_version"], held["remote_token"], held["local_state"]) != (
            now.local_version, now.remote_token, now.local_state,
        ):  # fmt: skip
            kept_as = ConflictId(run.ids("cfl"))
            await conflicts.move_on(tx, held["conflict_id"], kept_as, now)
    return await conflicts.record(tx, run.spec.id, run.claimed.run_id, [c for c in mine if c.kind])


async def _close_converged(run: Run, tx: Transaction, rows: Sequence[_Rows]) -> list[Row]:
    paths = [
        r.pair.local_path
        for r in rows
        if r.outcome.decision.conflict_state is ConflictState.CONVERGED
    ]
    found = await conflicts.open_by_path(tx, run.spec.id, paths)
    return await conflicts.converge(tx, [c["conflict_id"] for c in found])


# --- events -----------------------------------------------------------------------


def _about(run: Run) -> dict[str, object]:
    return {
        "backend_id": run.spec.id,
        "backend_name": run.spec.name,
        "tenant": run.spec.tenant,
        "run_id": run.claimed.run_id,
    }


def _changed(run: Run, rows: Sequence[_Rows]) -> list[Event]:
    """One event a batch, so that applications reload what they read."""
    moved = [
        {
            "path": r.pair.local_path,
            "version": r.outcome.version,
            "deleted": r.outcome.decision.effect is Effect.TOMBSTONE,
        }
        for r in rows
        if r.outcome.decision.effect is not Effect.NOTHING
    ]
    if not moved:
        return []
    return [Event("federation.secret.changed", {**_about(run), "secrets": moved})]


def _detected(run: Run, recorded: Sequence[Row]) -> list[Event]:
    return [
        Event(
            "federation.conflict.detected",
            {
                **_about(run),
                "conflict_id": row["conflict_id"],
                "path": row["path"],
                "kind": row["kind"],
                "state": row["state"],
            },
        )
        for row in recorded
        if row["kind"] != ConflictKind.DRIFT
    ]


def _resolved(run: Run, closed: Sequence[Row]) -> list[Event]:
    return [
        Event(
            "federation.conflict.resolved",
            {
                **_about(run),
                "conflict_id": row["conflict_id"],
                "path": row["path"],
                "kind": row["kind"],
                "resolution": "converged",
            },
        )
        for row in closed
    ]
