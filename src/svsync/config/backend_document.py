"""A BackendSpec as the document that would make it again: what GET shows and PATCH merges into."""

import json
from collections.abc import Mapping
from typing import Any, Final

from svsync.config.kinds import SECONDS, shortest
from svsync.domain.federation import BackendSpec, RuleSpec, TagTransform, from_json

_STORED: Final = ("state", "rev", "hidden_copies", "initial_sync")


def describe(spec: BackendSpec) -> dict[str, Any]:
    """The backend in the words of the file and the API; references, no credential.

    A setting whose default depends on others is left out where it was not
    given, so that reading the document again leaves it so.
    """
    document: dict[str, Any] = {
        "id": spec.id,
        "tenant": spec.tenant,
        "name": spec.name,
        "type": spec.type,
        "config": dict(spec.config),
        "path_mapping": [_describe_rule(rule) for rule in spec.rules],
        "mode": spec.mode.value,
        "sync_interval": shortest(spec.sync_interval, SECONDS),
        "conflict_resolution": spec.conflict_resolution.value,
        "writes": spec.writes.value,
        "propagate_deletes": spec.propagate_deletes,
        "seed_remote": spec.seed_remote,
        "on_remote_delete": spec.on_remote_delete.value,
        "max_versions": spec.max_versions,
        "guard": {
            "max_delete_ratio": spec.guard.max_delete_ratio,
            "max_delete_count": spec.guard.max_delete_count,
            "max_overwrite_ratio": spec.guard.max_overwrite_ratio,
            "max_regress_ratio": spec.guard.max_regress_ratio,
        },
        "max_error_ratio": spec.max_error_ratio,
        "max_value_bytes": spec.max_value_bytes,
        "max_secrets": spec.max_secrets,
    }
    optional = {
        "remote_changes": spec.remote_changes and spec.remote_changes.value,
        "history": spec.history and spec.history.value,
        "max_staleness": spec.max_staleness and shortest(spec.max_staleness, SECONDS),
        "filters": dict(spec.filters),
        "rate_limit": dict(spec.rate_limit),
        "call_budget": dict(spec.call_budget),
        "events": [dict(event) for event in spec.events],
    }
    return document | {k: v for k, v in optional.items() if v} | dict(spec.extra)


def describe_stored(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same of what the store has of a backend, with how that stands.

    Configuration and revision are of one moment, so the one is made of the other.
    """
    spec = from_json(json.dumps(found))
    about = {name: found[name] for name in _STORED}
    return {**describe(spec), "managed_by": str(spec.managed_by), **about}


def _describe_rule(rule: RuleSpec) -> dict[str, Any]:
    over = rule.overrides
    transform = {
        "tags": _describe_tags(rule.tags),
        "separator": rule.separator,
        "escape": rule.escape or None,
    }
    described = {
        "local": rule.local or None,
        "remote": rule.remote or None,
        "exclude": rule.exclude or None,
        "transform": {k: v for k, v in transform.items() if v} or None,
        "mode": over.mode and over.mode.value,
        "writes": over.writes and over.writes.value,
        "conflict_resolution": over.conflict_resolution and over.conflict_resolution.value,
        "on_remote_delete": over.on_remote_delete and over.on_remote_delete.value,
        "remote_changes": over.remote_changes and over.remote_changes.value,
    }
    return {name: value for name, value in described.items() if value is not None}


def _describe_tags(tags: TagTransform) -> dict[str, Any]:
    default = TagTransform()
    described = {
        "format": tags.format if tags.format != default.format else None,
        "include": None if tags.include is None else list(tags.include),
        "exclude": list(tags.exclude) or None,
        "rename": dict(tags.rename) or None,
        "drop": tags.drop or None,
    }
    return {name: value for name, value in described.items() if value is not None}
