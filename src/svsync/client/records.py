"""What the API answers, as types. A test holds each to the OpenAPI document, field by field.

Moments are RFC 3339 texts, as `2026-11-23T10:00:00Z`.
"""

from typing import Any, Literal, NotRequired, TypedDict

Backend = dict[str, Any]
"""A backend's configuration: the keys of the configuration file, and a few more."""
Health = Literal["healthy", "unreachable", "denied", "degraded"]
Mode = Literal["proxy", "sync"]
BackendState = Literal["active", "paused", "deleting"]
PairStatus = Literal[
    "initial", "in_sync", "pending_push", "diverged", "conflict", "retained", "denied",
    "quarantined", "detached", "standby",
]  # fmt: skip
Permission = Literal["read", "write", "list", "delete", "reveal", "use"]
BoundType = Literal["service_account", "user", "group"]
ResolutionKind = Literal["use_local", "use_remote", "use_value"]

# --- secrets --------------------------------------------------------------------------


class SecretMetadata(TypedDict):
    tags: list[str]
    owner: str | None
    description: str | None
    custom: dict[str, Any]


class SecretFederation(TypedDict):
    backend_id: str
    mode: Mode
    synced_at: str | None
    status: str


class WriteThrough(TypedDict):
    state: Literal["applied", "pending", "not_configured"]
    push_id: str | None


class SecretWritten(TypedDict):
    path: str
    version: int
    created_at: str
    secret_type: str
    metadata: SecretMetadata
    write_through: WriteThrough


class DeletedSecret(TypedDict):
    path: str
    write_through: WriteThrough


class SecretInBrief(TypedDict):
    path: str
    version: int | None
    secret_type: str | None
    metadata: SecretMetadata
    updated_at: str | None
    status: str


class SecretPage(TypedDict):
    secrets: list[SecretInBrief]
    next_cursor: str | None
    incomplete: bool


class SecretVersion(TypedDict):
    version: int
    state: Literal["live", "pending", "destroyed"]
    origin: Literal["write", "pull", "import", "resolve", "restore"]
    remote_version: str | None
    created_at: str | None
    created_by: str | None
    run_id: str | None


# --- federation -----------------------------------------------------------------------


class Check(TypedDict):
    name: str
    state: Literal["granted", "missing_optional", "missing"]
    hint: str


class MadeBackend(TypedDict):
    id: str
    name: str
    status: Health
    warnings: list[str]
    checks: list[Check]


class TestedBackend(MadeBackend):
    version: str | None
    identity: str | None
    latency_ms: float | None


class BackendInBrief(TypedDict):
    id: str
    name: str
    type: str
    mode: Mode
    state: BackendState
    status: Health
    last_sync_at: str | None
    last_success_at: str | None
    next_sync_at: str | None
    staleness_s: float | None
    secrets_synced: int
    conflicts_open: int
    last_error: str | None


class RemovedBackend(TypedDict):
    id: str
    kept: int
    destroyed: int
    conflicts_closed: int
    pushes_withdrawn: int


class StateOfBackend(TypedDict):
    id: str
    state: Literal["active", "paused"]


class RunError(TypedDict):
    code: str
    stage: str
    message: str


class RunInBrief(TypedDict):
    run_id: str
    backend_id: str
    kind: Literal["full", "targeted", "probe", "dry"]
    trigger: Literal["schedule", "api", "feed", "run_once", "probe"]
    state: Literal["queued", "running", "completed", "failed", "superseded"]
    result: Literal["ok", "partial", "failed"] | None
    started_at: str | None
    ended_at: str | None
    duration_ms: int | None
    stages_ms: dict[str, int]
    counts: dict[str, Any]
    api_calls: dict[str, int]
    error: RunError | None


class SkippedPath(TypedDict):
    remote_path: str
    reason: str
    detail: NotRequired[str]


class Run(RunInBrief):
    skipped: list[SkippedPath]


class RunPage(TypedDict):
    runs: list[RunInBrief]
    next_cursor: str | None


class Triggered(TypedDict):
    run_id: str
    coalesced: bool


class Lease(TypedDict):
    holder: str
    expires_at: str


class EstimatedCost(TypedDict):
    currency: str
    per_cycle: float
    calls_per_month: float
    secrets_per_month: float
    prices_of: str


class UnreachableInterval(TypedDict):
    shortest_s: int | None
    because: Literal["rate_limit", "call_budget", "duration"]
    message: str


class PutOff(TypedDict):
    reason: Literal["call_budget_spent"]
    until: str


class CostPerDay(TypedDict):
    amount: float
    currency: str


class Status(TypedDict):
    id: str
    status: Health
    mode: Mode
    paused: bool
    last_sync_at: str | None
    last_success_at: str | None
    next_sync_at: str | None
    staleness_s: float | None
    secrets_synced: int
    secrets_proxied: int | None
    connection_latency_ms: float | None
    consecutive_failures: int
    unreachable_since: str | None
    conflicts_open: int
    diverged: int
    skipped: int
    quarantined: int
    pending_pushes: int
    last_run: RunInBrief | None
    last_error: str | None
    calls_per_cycle: int | None
    estimated_cost: EstimatedCost | None
    calls_per_day: int | None
    cost_per_day: CostPerDay | None
    interval_unreachable: UnreachableInterval | None
    put_off: PutOff | None
    lease: Lease | None


class RunAtWork(TypedDict):
    """How far a run is; null until it is known."""

    run_id: str
    kind: str
    stage: str | None
    started_at: str | None
    worker: str | None
    listed: int | None
    to_do: int | None
    done: int | None
    in_hand: int | None


class BackendLook(TypedDict):
    id: str
    name: str
    type: str
    state: BackendState
    syncs: bool
    status: Health
    mode: Mode
    paused: bool
    last_sync_at: str | None
    last_success_at: str | None
    next_sync_at: str | None
    staleness_s: float | None
    secrets_synced: int
    secrets_proxied: int | None
    connection_latency_ms: float | None
    consecutive_failures: int
    unreachable_since: str | None
    conflicts_open: int
    diverged: int
    skipped: int
    quarantined: int
    pending_pushes: int
    last_run: str | None
    last_error: str | None
    calls_per_cycle: int | None
    estimated_cost: EstimatedCost | None
    calls_per_day: int | None
    cost_per_day: CostPerDay | None
    interval_unreachable: UnreachableInterval | None
    put_off: PutOff | None
    lease: Lease | None
    max_staleness_s: float | None
    stale: bool
    tls_verify: bool
    runs_waiting: int
    run: RunAtWork | None


class RunsNow(TypedDict):
    running: int
    waiting: int


class Overview(TypedDict):
    at: str
    runs: RunsNow
    backends: list[BackendLook]


class LastRun(TypedDict):
    run_id: str
    kind: Literal["full", "targeted", "probe"]
    state: Literal["running", "completed", "failed", "superseded"]
    result: Literal["ok", "partial", "failed"] | None
    started_at: str | None
    duration_ms: int | None


class LastRuns(TypedDict):
    id: str
    runs: list[LastRun]


class PlannedChange(TypedDict):
    path: str
    remote_path: str
    action: str
    detail: str


class StoppingGuard(TypedDict):
    code: Literal["mass_delete_guard", "mass_overwrite_guard", "mass_regression_guard"]
    message: str
    plan: dict[str, int | float]


class Cost(TypedDict):
    amount: float
    currency: str


class Plan(Run):
    guards: list[StoppingGuard]
    plan: list[PlannedChange]
    planned: int
    hidden: int
    would_cost: Cost | None
    calls_per_cycle: int | None
    estimated_cost: EstimatedCost | None
    interval_unreachable: UnreachableInterval | None


class MappingCapture(TypedDict):
    name: str
    value: str


class MappingExplained(TypedDict):
    rule: int | None
    local_pattern: str | None
    remote_pattern: str | None
    captures: list[MappingCapture]
    local: str | None
    remote: str | None
    reason: str | None
    detail: str | None


class MappedPath(TypedDict):
    path: str
    as_remote: MappingExplained | None
    as_local: MappingExplained | None


class NextStep(TypedDict):
    step: Literal[
        "synchronise", "resolve", "wait_for_run", "move_readers", "check_source", "done"
    ]  # fmt: skip
    message: str
    command: str | None


class Subtree(TypedDict):
    folder: str
    backend_ids: list[str]
    secrets: int
    federated: int
    synced: int
    copied: int
    read_here: int
    ready: int
    conflicts: int
    local: int
    detached: int
    next: NextStep


class Migration(TypedDict):
    """`read_at_source` is always None: nobody tells svsync."""

    prefix: str
    as_of: str
    idle_s: int
    folders: list[Subtree]
    left_out: int
    read_through: list[str]
    read_at_source: None
    unknown: list[str]


class MappingTest(TypedDict):
    backend_id: str
    paths: list[MappedPath]


class FederatedSecret(TypedDict):
    path: str
    remote_path: str
    status: PairStatus
    version: int | None
    synced_at: str | None
    reason: str | None
    failures: int
    retry_at: str | None
    moved_to: str | None


class FeedSecret(TypedDict):
    id: str
    backend_id: str
    feed: Literal["http", "azure-eventgrid"]
    created_by: str
    created_at: str
    last_used_on: str | None


class MadeFeedSecret(TypedDict):
    id: str
    backend_id: str
    feed: Literal["http", "azure-eventgrid"]
    path: str
    created_by: str
    created_at: str
    secret: str


# --- conflicts ------------------------------------------------------------------------


class FieldShape(TypedDict):
    type: str
    bytes: int


class ConflictField(TypedDict):
    name: str
    compared: Literal["same", "different", "only_local", "only_remote", "unknown"]
    local: FieldShape | None
    remote: FieldShape | None


class EarlierSides(TypedDict):
    count: int
    conflict_ids: list[str]


class ConflictValues(TypedDict):
    local: dict[str, Any] | None
    remote: dict[str, Any] | None


class Conflict(TypedDict):
    conflict_id: str
    path: str
    remote_path: str
    kind: str
    state: str
    local: Literal["live", "deleted", "unreadable"]
    local_version: int
    local_created_at: NotRequired[str | None]
    remote: Literal["live", "deleted", "unreadable"]
    remote_token: str
    remote_order: NotRequired[int | None]
    detected_at: str
    updated_at: str
    closed_at: str | None
    resolved_by: str | None
    fields: NotRequired[list[ConflictField]]
    earlier: NotRequired[EarlierSides]
    values: NotRequired[ConflictValues | None]


class Resolved(TypedDict):
    backend_id: str
    conflict_id: str
    path: str
    kind: str
    resolution: ResolutionKind
    version: int | None
    write_through: WriteThrough


# --- policies, the audit log, who calls -----------------------------------------------


class PolicyRule(TypedDict):
    path_pattern: str
    permissions: list[Permission]


class Policy(TypedDict):
    id: str
    name: str
    description: str | None
    rules: list[PolicyRule]
    bindings: int
    rev: int
    created_by: str | None
    created_at: str
    updated_at: str


class PolicyBinding(TypedDict):
    identity_type: BoundType
    identity_id: str
    created_by: str | None
    created_at: str


class NewBinding(PolicyBinding):
    policy_id: str


class AuditEntry(TypedDict):
    timestamp: str
    action: str
    secret_path: str | None
    identity_id: str
    identity_type: str
    decision: Literal["allow", "deny"]
    version: int | None
    backend_id: str | None
    request_id: str | None
    source_ip: str | None
    id: str


class AuditLogs(TypedDict):
    logs: list[AuditEntry]
    next_cursor: str | None


class Checkpoint(TypedDict):
    n: int
    at: str


class AnchorPlace(TypedDict):
    kind: str
    in_use: bool
    first_n: int | None
    last_n: int | None
    anchored_at: str | None
    behind: int


class ChainHead(TypedDict):
    seq: int
    at: str
    hash: str


class AuditChain(TypedDict):
    chain: int
    writer: str
    started_at: str
    state: Literal["open", "at_rest", "ended"]
    end_reason: str | None
    rows: int
    head: ChainHead | None
    trimmed_seq: int
    covered_seq: int
    covered_at: str | None


class AuditChains(TypedDict):
    checkpoint: Checkpoint | None
    uncovered: int
    anchors: list[AnchorPlace]
    chains: list[AuditChain]
    next_cursor: str | None


class Whoami(TypedDict):
    identity_type: str
    identity_id: str
    tenant: str
    scopes: list[str]
    groups: list[str]
    token_id: str
    expires_at: str | None


class StaticToken(TypedDict):
    token_id: str
    identity_type: Literal["service_account", "user"]
    identity_id: str
    scopes: list[str]
    state: Literal["active", "expired", "revoked"]
    created_by: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_on: str | None


class MadeToken(TypedDict):
    token_id: str
    token: str
    identity_type: Literal["service_account", "user"]
    identity_id: str
    scopes: list[str]
    created_at: str
    expires_at: str | None


class KeyAge(TypedDict):
    kind: Literal["root", "data"]
    id: int
    purpose: str
    state: str
    reserved: int
    created_at: str
    age_s: int
    wrapped_by: int | None
    sealed: int | None
    emptied_at: str | None


class DecidingRule(TypedDict):
    policy: str
    policy_id: str
    rule: int
    path_pattern: str
    permissions: list[Permission]
    through: list[str]


class NearRule(TypedDict):
    policy: str
    policy_id: str
    rule: int
    path_pattern: str
    permissions: list[Permission]
    reason: Literal["not_bound", "permission_missing", "pattern_differs"]
    bound_to: NotRequired[list[str]]


class PolicyDecision(TypedDict):
    allowed: bool
    path: str
    permission: Permission
    identity: str | None
    groups: list[str]
    rule: DecidingRule | None
    near: list[NearRule]


# --- webhooks -------------------------------------------------------------------------


class Webhook(TypedDict):
    id: str
    url: str
    types: list[str]
    path_patterns: list[str]
    only_if_changed: bool
    state: Literal["active", "disabled"]
    reason: str | None
    failures: int
    failing_since: str | None
    held_until: str | None
    due: int
    created_by: str | None
    created_at: str
    rev: int


class MadeWebhook(Webhook):
    secret: str


class RotatedSecret(TypedDict):
    id: str
    secret: str
    previous_valid_until: str | None


class TriedWebhook(TypedDict):
    id: str
    webhook_id: str
    delivered: bool
    status_code: int | None
    error_code: str | None
    duration_ms: int


class Replayed(TypedDict):
    id: str
    replayed: int


class Delivery(TypedDict):
    event_id: str
    webhook_id: str
    type: str
    backend_id: str
    sequence: int
    state: Literal["due", "delivered", "dead"]
    attempts: int
    next_at: str | None
    status_code: int | None
    error_code: str | None
    created_at: str
    ended_at: str | None


class DeliveryPage(TypedDict):
    deliveries: list[Delivery]
    next_cursor: str | None
