"""Decide: each fetched change against the table, as values to be applied or shown."""

import json
from dataclasses import dataclass, replace
from datetime import datetime

from svsync.domain.bases import move_base, rolled_back
from svsync.domain.changes import (
    Base,
    BaseKind,
    Fetched,
    LocalKind,
    Pair,
    PairStatus,
    RemoteMetadata,
    RemoteRead,
    RemoteUnknown,
    RemoteValue,
    Tags,
)
from svsync.domain.decide import BaseMove, Decision, Effect, PushKind, decide
from svsync.domain.federation import ConflictPolicy, RemoteChanges, Writes
from svsync.domain.runs import Count, SkipReason
from svsync.domain.situation import ImpossibleSituation, classify
from svsync.domain.tags import merge, merge_fields, pairs_to_push, tag_problem
from svsync.services.sync.context import Run
from svsync.services.sync.fetch import is_clean


@dataclass(frozen=True, slots=True)
class Outcome:
    """One change with its decision, and everything the commit needs to know.

    `version` is the local version that is current once the effect is applied;
    `tags` and `custom` are the metadata to set (JSON text), None to leave it.
    """

    fetched: Fetched
    decision: Decision
    base: Base
    fingerprint: bytes | None
    version: int
    tags: str | None
    custom: str | None
    rolled_back: bool
    detail: str = ""

    @property
    def pair(self) -> Pair:
        return self.fetched.change.pair

    @property
    def writes_value(self) -> bool:
        return self.decision.effect in (Effect.CREATE, Effect.PULL)

    @property
    def base_moved(self) -> bool:
        return self.base.moved_at != self.pair.base.moved_at


def judge(run: Run, fetched: Fetched, now: datetime) -> Outcome:
    """The decision for one fetched change. Awaits nothing, writes nothing."""
    pair = fetched.change.pair
    if isinstance(fetched.remote, RemoteMetadata):
        return _metadata_only(run, fetched, fetched.remote)
    remote = _checked(fetched.remote)
    value = remote if isinstance(remote, RemoteValue) else None
    fingerprint = run.keys.fingerprint(value.payload) if value is not None else None
    settings = run.settings_of(pair.rule)
    try:
        window = run.spec.extra.get("consistency_window")
        if not isinstance(window, int | float):
            window = run.backend.features.consistency_window_s
        situation = classify(
            pair,
            remote,
            fingerprint,
            settings,
            now=now,
            consistency_window_s=float(window),
        )
        decision = decide(situation)
    except ImpossibleSituation as problem:
        unknown = Decision(row=0, status=None, skip_reason=SkipReason.LOCAL_LOST)
        return _idle(fetched, unknown, problem.code)
    history = len(fetched.history) if takes_value(decision) else 0
    version = pair.local.version
    if takes_value(decision):
        version = pair.local.last_version + history + 1
    base = move_base(
        pair.base,
        decision,
        remote,
        fingerprint=fingerprint,
        fingerprint_key=run.keys.fingerprint_key,
        version=version,
        now=now,
    )
    tags, custom = _metadata(run, pair, value, decision)
    if settings.remote_changes is RemoteChanges.HOLD and not takes_value(decision):
        base = replace(base, tags=pair.base.tags)  # not taken, so not agreed on
    return _with_tags_due(
        run,
        Outcome(
            fetched=Fetched(fetched.change, remote, fetched.history),
            decision=decision,
            base=base,
            fingerprint=fingerprint,
            version=version,
            tags=tags,
            custom=custom,
            rolled_back=value is not None
            and decision.effect is Effect.PULL
            and rolled_back(pair.base, value.order),
            detail=remote.detail if isinstance(remote, RemoteUnknown) else "",
        ),
    )


def _with_tags_due(run: Run, o: Outcome) -> Outcome:
    """Both sides agree on the value; tags that changed here are written there as well."""
    pair, settings = o.pair, run.settings_of(o.pair.rule)
    agreed = (
        o.decision.status is PairStatus.IN_SYNC
        and o.decision.push is None
        and o.decision.effect in (Effect.NOTHING, Effect.PULL)
        and o.base.kind is BaseKind.VALUE
        and pair.local.kind is LocalKind.LIVE
    )
    if not agreed or settings.writes is not Writes.WRITE_THROUGH or o.base.tags is None:
        return o
    due = pairs_to_push(
        pair.local.tags if o.tags is None else json.loads(o.tags),
        json.loads(pair.local.custom if o.custom is None else o.custom),
        o.base.tags,
        o.base.tags,
        run.rules.spec(pair.rule).tags,
        local_wins=True,
    )
    if due is None:
        return o
    return replace(o, decision=replace(o.decision, push=PushKind.METADATA))


def _checked(remote: RemoteRead) -> RemoteRead:
    """Tags that Postgres or a JSON reader could not carry make the secret unreadable,
    before they reach either."""
    if isinstance(remote, RemoteValue) and remote.tags:
        problem = tag_problem(remote.tags)
        if problem is not None:
            return RemoteUnknown(SkipReason.BAD_METADATA, problem)
    return remote


def _metadata(
    run: Run, pair: Pair, value: RemoteValue | None, decision: Decision
) -> tuple[str | None, str | None]:
    """Metadata to set: what the remote side changed since base, merged into the local
    side's own. None where nothing is to be set."""
    if value is None or value.tags is None:
        return None, None
    settings = run.settings_of(pair.rule)
    follows = (
        decision.base_move in (BaseMove.RETOKEN, BaseMove.TO_REMOTE)
        and settings.remote_changes is RemoteChanges.PULL
    )
    taken = takes_value(decision) or follows
    return _merged(run, pair, value.tags) if taken else (None, None)


def takes_value(decision: Decision) -> bool:
    """Does the remote value, with its tags, become the local one?"""
    return decision.effect in (Effect.CREATE, Effect.PULL)


def _merged(run: Run, pair: Pair, remote: Tags) -> tuple[str | None, str | None]:
    """Three-way, against the raw tags in base; metadata never opens a conflict."""
    local, base = pair.local, pair.base.tags or {}
    if not remote and not base:
        return None, None
    keeps = run.settings_of(pair.rule).conflict_resolution is not ConflictPolicy.BACKEND_WINS
    tags = merge(local.tags, base, remote, run.rules.spec(pair.rule).tags, local_wins=keeps)
    had = json.loads(local.custom)
    custom = merge_fields(had, base, remote, local_wins=keeps)
    if tags == local.tags and custom == had:
        return None, None
    return json.dumps(list(tags)), json.dumps(custom, sort_keys=True)


def _metadata_only(run: Run, fetched: Fetched, remote: RemoteMetadata) -> Outcome:
    """Tags moved (or were only looked at): no new version, whatever the policy."""
    pair = fetched.change.pair
    problem = tag_problem(remote.tags)
    if problem is not None:
        skipped = Decision(row=0, status=None, skip_reason=SkipReason.BAD_METADATA)
        return _idle(fetched, skipped, problem)
    # An equal value was seen just now, so what kept it from being seen is over.
    status = PairStatus.IN_SYNC if is_clean(pair) else None
    pulls = run.settings_of(pair.rule).remote_changes is RemoteChanges.PULL
    tags, custom = _merged(run, pair, remote.tags) if pulls else (None, None)
    agreed = remote.tags if pulls else pair.base.tags
    return _with_tags_due(
        run,
        Outcome(
            fetched=fetched,
            decision=Decision(
                row=9, status=status, base_move=BaseMove.RETOKEN, count=Count.UNCHANGED
            ),
            base=replace(pair.base, meta_token=remote.meta_token, tags=agreed),
            fingerprint=None,
            version=pair.local.version,
            tags=tags,
            custom=custom,
            rolled_back=False,
        ),
    )


def unstorable(o: Outcome, detail: str) -> Outcome:
    """The same change, skipped because the database refused what would be written."""
    skipped = Decision(row=0, status=None, skip_reason=SkipReason.UNREADABLE)
    return _idle(o.fetched, skipped, detail)


def unpushed(o: Outcome, reason: SkipReason, detail: str) -> Outcome:
    """The same change, committed but not pushed: the local value stays dirty."""
    return _idle(
        o.fetched, Decision(row=0, status=PairStatus.PENDING_PUSH, skip_reason=reason), detail
    )


def _idle(fetched: Fetched, decision: Decision, detail: str) -> Outcome:
    """Nothing moves; the reason is reported."""
    pair = fetched.change.pair
    return Outcome(
        fetched=fetched,
        decision=decision,
        base=pair.base,
        fingerprint=None,
        version=pair.local.version,
        tags=None,
        custom=None,
        rolled_back=False,
        detail=detail,
    )
