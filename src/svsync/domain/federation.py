"""What a backend is configured to do, as values.

A setting that was not given stays None here: its default follows the settings
it depends on, also after a later change of those, so defaults are worked out
when asked for (`BackendSpec.for_rule`) and never stored.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from svsync.domain.ids import BackendId


class Mode(StrEnum):
    PROXY = "proxy"
    SYNC = "sync"


class Writes(StrEnum):
    DISABLED = "disabled"
    LOCAL = "local"
    WRITE_THROUGH = "write_through"


class ConflictPolicy(StrEnum):
    BACKEND_WINS = "backend_wins"
    LOCAL_WINS = "local_wins"
    MANUAL = "manual"


class RemoteChanges(StrEnum):
    PULL = "pull"
    HOLD = "hold"


class OnRemoteDelete(StrEnum):
    RETAIN = "retain"
    SOFT_DELETE = "soft_delete"


class HistoryMode(StrEnum):
    FULL = "full"
    CURRENT = "current"


class ManagedBy(StrEnum):
    FILE = "file"
    API = "api"


class FileChange(StrEnum):
    """What the file does to a backend, as the audit log names it. One that vanished from it is
    paused."""

    MADE = "federation.create"
    CHANGED = "federation.update"
    VANISHED = "federation.pause"


@dataclass(frozen=True, slots=True)
class Guard:
    """Limits of one run; `docs/reference/configuration.md` tells what each counts."""

    max_delete_ratio: float = 0.1
    max_delete_count: int = 50
    max_overwrite_ratio: float = 0.5
    max_regress_ratio: float = 0.1


@dataclass(frozen=True, slots=True)
class PathSettings:
    """The settings in force for one path, every default worked out."""

    mode: Mode
    writes: Writes
    conflict_resolution: ConflictPolicy
    remote_changes: RemoteChanges
    on_remote_delete: OnRemoteDelete
    propagate_deletes: bool
    seed_remote: bool


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a mapping rule may set for its own paths. None: as the backend has it."""

    mode: Mode | None = None
    writes: Writes | None = None
    conflict_resolution: ConflictPolicy | None = None
    on_remote_delete: OnRemoteDelete | None = None
    remote_changes: RemoteChanges | None = None


@dataclass(frozen=True, slots=True)
class TagTransform:
    """How remote key/value tags become tag strings (`transform.tags`).

    `format` holds `{key}` and `{value}`; `rename` maps old key to new; `drop`
    leaves all tags out. `include` and `exclude` are lists of keys.
    """

    format: str = "{key}={value}"
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One mapping rule as configured; `mapping.RuleSet` compiles a list of them."""

    local: str
    remote: str = ""
    exclude: bool = False
    separator: str | None = None
    escape: bool = False
    tags: TagTransform = TagTransform()
    overrides: Overrides = Overrides()


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One backend as configured, references only, no credential.

    `config` is the type's own part (`endpoint`, `auth_method`, `auth_config_path`,
    `namespace`, `tls_verify`, …), already checked against that type's keys.
    Durations are seconds, sizes bytes.
    """

    id: BackendId
    name: str
    type: str
    rules: tuple[RuleSpec, ...]
    config: Mapping[str, object] = field(default_factory=dict)
    tenant: str = "default"
    mode: Mode = Mode.PROXY
    sync_interval: int = 900
    conflict_resolution: ConflictPolicy = ConflictPolicy.BACKEND_WINS
    remote_changes: RemoteChanges | None = None
    writes: Writes = Writes.LOCAL
    propagate_deletes: bool = False
    seed_remote: bool = False
    on_remote_delete: OnRemoteDelete = OnRemoteDelete.RETAIN
    history: HistoryMode | None = None
    max_versions: int = 10
    guard: Guard = Guard()
    max_error_ratio: float = 0.5
    max_staleness: int | None = None
    max_value_bytes: int = 1024 * 1024
    max_secrets: int = 1_000_000
    filters: Mapping[str, object] = field(default_factory=dict)
    rate_limit: Mapping[str, object] = field(default_factory=dict)
    call_budget: Mapping[str, object] = field(default_factory=dict)
    events: tuple[Mapping[str, object], ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict)
    managed_by: ManagedBy = ManagedBy.FILE

    @property
    def syncs(self) -> bool:
        """One of its rules is in sync mode, so it has cycles."""
        return any(self.for_rule(r).mode is Mode.SYNC for r in self.rules if not r.exclude)

    @property
    def is_standby(self) -> bool:
        """It stands in for another backend, which owns the paths of both."""
        return bool(self.extra.get("standby_for"))

    def for_rule(self, rule: RuleSpec) -> PathSettings:
        """The settings of a path that `rule` federates.

        `remote_changes` defaults to hold where the local side wins conflicts
        (ScaiVault is then the primary, the backend its backup), else to pull.
        """
        over = rule.overrides
        policy = over.conflict_resolution or self.conflict_resolution
        default_changes = (
            RemoteChanges.HOLD if policy is ConflictPolicy.LOCAL_WINS else RemoteChanges.PULL
        )
        return PathSettings(
            mode=over.mode or self.mode,
            writes=over.writes or self.writes,
            conflict_resolution=policy,
            remote_changes=over.remote_changes or self.remote_changes or default_changes,
            on_remote_delete=over.on_remote_delete or self.on_remote_delete,
            propagate_deletes=self.propagate_deletes,
            seed_remote=self.seed_remote,
        )


_STORE_KEYS = (
    "endpoint", "namespace", "region", "endpoint_url", "vault_url", "project_id", "location",
)  # fmt: skip


def store_of(spec: BackendSpec) -> str:
    """Names the remote store that a base speaks of: another endpoint, another base."""
    named = {key: spec.config[key] for key in _STORE_KEYS if spec.config.get(key)}
    return json.dumps({"type": spec.type, **named}, sort_keys=True)


def transforms_text(spec: BackendSpec) -> str:
    """How tags become strings, by rule, as JSON text: what `transforms_of` reads."""
    return json.dumps([dataclasses.asdict(rule.tags) for rule in spec.rules], sort_keys=True)


def transforms_of(text: str) -> list[TagTransform]:
    return [_build(TagTransform, raw) for raw in json.loads(text)]


def to_json(spec: BackendSpec) -> str:
    """The specification as JSON text, rules in order, for the store."""
    return json.dumps(dataclasses.asdict(spec), ensure_ascii=False)


def from_json(text: str) -> BackendSpec:
    """The specification that `to_json` wrote, also by an older svsync.

    Fields that it did not know take their defaults; what is unknown here was
    written by a newer one and is left out.
    """
    spec = _build(BackendSpec, json.loads(text))
    assert isinstance(spec, BackendSpec)
    return spec


def _build(kind: Any, raw: Any) -> Any:
    """`raw`, as JSON gave it, in the shape of the annotation `kind`."""
    if get_origin(kind) in (Union, UnionType):
        kinds = [k for k in get_args(kind) if k is not type(None)]
        return None if raw is None else _build(kinds[0], raw)
    if dataclasses.is_dataclass(kind):
        make: Any = kind
        hints = _hints(make)
        return make(**{k: _build(hints[k], v) for k, v in raw.items() if k in hints})
    if get_origin(kind) is tuple:
        return tuple(_build(get_args(kind)[0], item) for item in raw)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(raw)
    return raw


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Evaluated once: a look at thousands of backends would do little else."""
    return get_type_hints(kind)
