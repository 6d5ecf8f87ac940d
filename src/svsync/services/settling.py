"""How pushes ended becomes rows, of all that were sent together in one transaction.

Base moves when one lands, and only then; a version that waited for it is current, or
destroyed where it did not. Only the hand that holds a push says how it ended.
"""

import json
from collections.abc import Sequence

from svsync.domain.changes import PairStatus
from svsync.domain.decide import PushKind
from svsync.domain.ids import (
    SecretId,
)
from svsync.domain.pushes import (
    PushState,
    base_after,
)
from svsync.domain.tags import after_push, pairs_to_push
from svsync.services.overwritten import Foreign, record_overwritten
from svsync.services.pushes import Made, Sender
from svsync.services.sealing import Sealer
from svsync.store import outbox, pairs
from svsync.store import pushes as store
from svsync.store.database import Row, Transaction
from svsync.store.outbox import Event
from svsync.store.pushes import EndRow, SettledPair


async def settle(sender: Sender, made: Sequence[Made]) -> list[Made]:
    """Write how pushes ended, all in one transaction; those that were still ours to end.

    What landed moves base. What did not leaves the pair to be looked at again, and a
    version that was waiting for it is destroyed.
    """
    if not made:
        return []
    sealer = await sender.keys.reserve(sum(len(m.foreign) for m in made))
    async with sender.transaction(lookups=True) as tx:
        secrets = await store.lock_secrets(tx, [m.push.push_id for m in made])
        ended = await store.end(tx, [_end_row(m) for m in made])
        ours = [m for m in made if m.push.push_id in ended]
        landed = [m for m in ours if m.state is PushState.LANDED]
        lost = [m for m in ours if m.state in (PushState.REFUSED, PushState.WITHDRAWN)]
        events = await _land(sender, tx, landed, secrets, sealer)
        await store.destroy_pending(tx, [m.push.numbered for m in lost if m.push.makes_version])
        await store.look_again(tx, sender.spec.id, [m.push.remote_path for m in lost])
        await store.raise_revs(tx, [m.push.secret for m in (*landed, *lost)])
        await outbox.add(tx, sender.spec.id, events, event_ids=lambda: sender.ids("evt"))
    return ours


async def _land(
    sender: Sender,
    tx: Transaction,
    landed: Sequence[Made],
    secrets: dict[SecretId, Row],
    sealer: Sealer,
) -> list[Event]:
    """Both sides agree from here on; the events that tell of it."""
    pending = [m for m in landed if m.push.pending]
    await store.make_current(tx, [m.push.numbered for m in pending if m.push.makes_version])
    for m in pending:
        if m.push.metadata is not None:
            await store.describe(tx, m.push.secret, m.push.metadata)
    await store.bury_pending(tx, [m.push.secret for m in pending if m.push.kind is PushKind.DELETE])
    await store.set_metadata(
        tx, [_metadata_after(sender, m, secrets) for m in landed if m.took_tags]
    )
    await store.settle_pairs(
        tx, sender.spec.id, [_settled(sender, m, secrets[m.push.secret]) for m in landed]
    )
    foreign = [
        Foreign(m.push.pair, m.push.secret, m.push.version, m.foreign) for m in landed if m.foreign
    ]
    recorded = await record_overwritten(
        tx, sender.spec.id, sender.run, foreign, sender.keys, sealer, sender.ids
    )
    about = {
        "backend_id": sender.spec.id,
        "backend_name": sender.spec.name,
        "tenant": sender.spec.tenant,
        "run_id": sender.run,
    }
    events = [
        Event(
            "federation.conflict.detected",
            {
                **about,
                "conflict_id": row["conflict_id"],
                "path": row["path"],
                "kind": row["kind"],
                "state": row["state"],
            },
        )
        for row in recorded
    ]
    moved = [
        {"path": m.push.path, "version": m.push.version, "deleted": m.push.kind is PushKind.DELETE}
        for m in pending
    ]
    if moved:
        events.append(Event("federation.secret.changed", {**about, "secrets": moved}))
    return events


def _end_row(m: Made) -> EndRow:
    token = m.landed.value_token if m.landed else None
    return EndRow(m.push.push_id, m.push.attempts, str(m.state), m.reason or None, token)


def _settled(sender: Sender, m: Made, secret: Row) -> SettledPair:
    push, pair = m.push, m.push.pair
    assert m.landed is not None
    settled_version = push.version
    if push.kind is PushKind.METADATA:
        settled_version = pair.base.settled_version or push.version
    base = base_after(
        pair.base,
        push.kind,
        m.landed,
        fingerprint=push.target,
        fingerprint_key=push.target_key,
        version=settled_version,
        now=sender.now(),
    )
    untouched = secret["row_rev"] == push.planned_rev and not _lacks_tags(sender, m)
    status = PairStatus.IN_SYNC if untouched else PairStatus.PENDING_PUSH
    if push.kind is PushKind.METADATA:
        status = pair.status
    return SettledPair(
        remote_path=push.remote_path,
        base_kind=str(base.kind),
        base_fp=base.fingerprint,
        base_fp_key=base.fingerprint_key,
        value_token=base.value_token,
        meta_token=base.meta_token,
        order=base.order,
        tokens_left="\n".join(base.tokens_left) or None,
        moved_at=base.moved_at,
        remote_tags=pairs.tags_text(base.tags),
        settled=base.settled_version,
        status=str(status),
        recheck=not untouched,
    )


def _lacks_tags(sender: Sender, m: Made) -> bool:
    """Did the value land without what changed of its tags here? They were refused, or the
    answer was lost before they went out: the next look finds them due."""
    push, landed = m.push, m.landed
    assert landed is not None
    base = push.pair.base.tags or {}
    there = base if landed.tags is None and landed.tags_refused else landed.tags
    if there is None or push.kind is PushKind.DELETE:
        return False
    rule = push.pair.rule
    due = pairs_to_push(
        push.local_tags,
        push.local_custom,
        base,
        there,
        sender.rules.spec(rule).tags,
        local_wins=sender.local_wins(rule),
    )
    return due is not None


def _metadata_after(
    sender: Sender, m: Made, secrets: dict[SecretId, Row]
) -> tuple[SecretId, str, str]:
    """Tag strings and custom fields show the same pairs, so both follow what landed."""
    push, landed, secret = m.push, m.landed, secrets[m.push.secret]
    assert landed is not None
    assert landed.tags is not None
    had = secret if push.metadata is None else push.metadata
    base, transform = push.pair.base.tags or {}, sender.rules.spec(push.pair.rule).tags
    tags, custom = after_push(
        had["tags"],
        json.loads(had["custom"]),
        base,
        landed.tags,
        transform,
        local_wins=sender.local_wins(push.pair.rule),
    )
    return push.secret, json.dumps(tags), json.dumps(custom, sort_keys=True)
