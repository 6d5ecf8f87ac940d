// The answers of the API, as the OpenAPI document has them.

export type Health = "healthy" | "unreachable" | "denied" | "degraded";
export type RunResult = "ok" | "partial" | "failed" | null;
export type MaybeTime = string | null;
export interface Money { amount: number; currency: string }

export interface Whoami {
  identity_type: string;
  identity_id: string;
  tenant: string;
  scopes: string[];
  groups: string[];
  token_id: string;
  expires_at: MaybeTime;
}

export interface RunAtWork {
  run_id: string;
  kind: string;
  stage: string | null;
  started_at: MaybeTime;
  worker: string | null;
  listed: number | null;
  to_do: number | null;
  done: number | null;
  in_hand: number | null;
}

export interface BackendLook {
  id: string;
  name: string;
  type: string;
  mode: "proxy" | "sync";
  state: "active" | "paused" | "deleting";
  status: Health;
  paused: boolean;
  last_sync_at: MaybeTime;
  last_success_at: MaybeTime;
  next_sync_at: MaybeTime;
  staleness_s: number | null;
  max_staleness_s: number | null;
  stale: boolean;
  secrets_synced: number;
  secrets_proxied: number | null;
  connection_latency_ms: number | null;
  consecutive_failures: number;
  unreachable_since: MaybeTime;
  conflicts_open: number;
  diverged: number;
  skipped: number;
  quarantined: number;
  pending_pushes: number;
  last_error: string | null;
  last_run: string | null;
  syncs: boolean;
  tls_verify: boolean;
  runs_waiting: number;
  run: RunAtWork | null;
  calls_per_cycle: number | null;
  calls_per_day?: number | null;
  cost_per_day?: Money | null;
  interval_unreachable: { message: string } | null;
  put_off: { reason: string; until: string } | null;
  lease: { holder: string; expires_at: string } | null;
}

export interface StatusPage {
  at: string;
  runs: { running: number; waiting: number };
  backends: BackendLook[];
  next_cursor: string | null;
}

export interface StripRun {
  run_id: string;
  kind: string;
  state: string;
  result: RunResult;
  started_at: MaybeTime;
  duration_ms: number | null;
}

export interface Skipped { remote_path: string; reason: string; detail?: string }

export interface Run {
  run_id: string;
  backend_id: string;
  kind: string;
  trigger: string;
  state: "queued" | "running" | "completed" | "failed" | "superseded";
  result: RunResult;
  started_at: MaybeTime;
  ended_at: MaybeTime;
  duration_ms: number | null;
  stages_ms: Record<string, number>;
  counts: Record<string, unknown>;
  api_calls: Record<string, number>;
  error: { code: string; stage: string; message: string } | null;
  skipped?: Skipped[];
}

export interface Guard { code: string; message: string; plan: Record<string, number> }
export interface Planned { path: string; remote_path: string; action: string; detail: string }
export interface DryRun extends Run {
  guards: Guard[];
  plan: Planned[];
  planned: number;
  hidden: number;
  would_cost: Money | null;
}

export interface Rule { local?: string; remote?: string; exclude?: boolean; [key: string]: unknown }
export interface Backend {
  id: string;
  name: string;
  type: string;
  mode: string;
  config: Record<string, unknown>;
  path_mapping: Rule[];
  sync_interval: string;
  managed_by: "file" | "api";
  state: string;
  rev: number;
  [key: string]: unknown;
}

export interface Mapped {
  rule: number | null;
  local_pattern: string | null;
  remote_pattern: string | null;
  captures: { name: string; value: string }[];
  local: string | null;
  remote: string | null;
  reason: string | null;
  detail: string | null;
}
export interface MapTest { paths: { path: string; as_remote: Mapped | null; as_local: Mapped | null }[] }

export interface FederatedSecret {
  path: string;
  remote_path: string;
  status: string;
  version: number | null;
  synced_at: MaybeTime;
  reason: string | null;
  failures: number;
  retry_at: MaybeTime;
  moved_to: string | null;
}

export interface FieldShape { type: string; bytes: number }
export interface Field {
  name: string;
  compared: "same" | "different" | "only_local" | "only_remote" | "unknown";
  local: FieldShape | null;
  remote: FieldShape | null;
}
export interface Conflict {
  conflict_id: string;
  path: string;
  remote_path: string;
  kind: string;
  state: string;
  local: "live" | "deleted" | "unreadable";
  local_version: number;
  local_created_at?: MaybeTime;
  remote: "live" | "deleted" | "unreadable";
  remote_token: string;
  remote_order?: number | null;
  detected_at: string;
  updated_at: string;
  closed_at: MaybeTime;
  resolved_by: string | null;
  fields?: Field[];
  earlier?: { count: number; conflict_ids: string[] };
  values?: { local: Record<string, unknown> | null; remote: Record<string, unknown> | null } | null;
}

export interface Version {
  version: number;
  state: string;
  origin: string;
  created_at: string;
  created_by: string | null;
}

export interface Webhook {
  id: string;
  url: string;
  types: string[];
  path_patterns: string[];
  only_if_changed: boolean;
  state: "active" | "disabled";
  reason: string | null;
  failures: number;
  failing_since: MaybeTime;
  held_until: MaybeTime;
  due: number;
  created_by: string | null;
  created_at: string;
  rev: number;
}
export interface Delivery {
  event_id: string;
  webhook_id: string;
  type: string;
  backend_id: string;
  sequence: number;
  state: "due" | "delivered" | "dead";
  attempts: number;
  next_at: MaybeTime;
  status_code: number | null;
  error_code: string | null;
  created_at: string;
  ended_at: MaybeTime;
}

export interface AuditEntry {
  timestamp: string;
  action: string;
  secret_path: string | null;
  identity_id: string;
  identity_type: string;
  decision: "allow" | "deny";
  version: number | null;
  backend_id: string | null;
  request_id: string | null;
  source_ip: string | null;
  id: string;
}
export interface Chains {
  checkpoint: { n: number; at: string } | null;
  uncovered: number;
  anchors: { kind: string; first_n: number; last_n: number; anchored_at: string; behind: number; in_use?: boolean }[];
  chains: {
    chain: number;
    writer: string;
    started_at: string;
    state: string;
    end_reason: string | null;
    rows: number;
    head: { seq: number; at: string; hash: string } | null;
  }[];
  next_cursor: string | null;
}

export interface Token {
  token_id: string;
  identity_type: string;
  identity_id: string;
  scopes: string[];
  state: "active" | "expired" | "revoked";
  created_by: string | null;
  created_at: string;
  expires_at: MaybeTime;
  revoked_at: MaybeTime;
  last_used_on: string | null;
}
export interface NewToken { token_id: string; token: string; identity_id: string; scopes: string[]; expires_at: MaybeTime }

export interface Key {
  kind: "root" | "data";
  id: number;
  purpose: string;
  state: string;
  created_at: string;
  age_s: number;
  reserved: number;
  sealed: number | null;
  emptied_at: MaybeTime;
  wrapped_by: number | null;
}

export interface Policy {
  id: string;
  name: string;
  description: string | null;
  rules: { path_pattern: string; permissions: string[] }[];
  bindings: number;
  rev: number;
  updated_at: string;
}
export interface Binding { identity_type: string; identity_id: string }

export interface Folder {
  folder: string;
  backend_ids: string[];
  secrets: number;
  federated: number;
  synced: number;
  copied: number;
  read_here: number;
  ready: number;
  conflicts: number;
  local: number;
  detached: number;
  next: { step: string; message: string; command: string | null };
}
export interface Migration {
  prefix: string;
  as_of: string;
  idle_s: number;
  folders: Folder[];
  left_out: number;
  read_through: string[];
  read_at_source: null;
  unknown: string[];
}

export interface DecidingRule {
  policy_id: string;
  policy: string;
  rule: number;
  path_pattern: string;
  permissions: string[];
  through?: string[];
  reason?: "not_bound" | "permission_missing" | "pattern_differs";
  bound_to?: string[];
}
export interface PolicyDecision {
  allowed: boolean;
  path: string;
  permission: string;
  identity: string | null;
  groups: string[];
  rule: DecidingRule | null;
  near: DecidingRule[];
}
