-- name: own_role
-- Would row-level security bind the role that we are?
SELECT rolname AS name, rolsuper OR rolbypassrls AS powerful FROM pg_roles WHERE rolname = current_user;

-- name: never_analyzed
-- Were these tables filled since the planner last looked at them?
SELECT bool_or(reltuples < 1) FROM pg_class
WHERE oid IN ('secrets'::regclass, 'versions'::regclass, 'sync_state'::regclass);

-- name: analyze
-- Without statistics an index on (tenant, path) looks no better than one that begins with the tenant, and each lookup
-- reads the tenant whole. What it learns of a few hundred rows (paths are unique, tenants are not) holds for millions.
ANALYZE secrets (tenant_id, secret_id, path), versions (tenant_id, secret_id, version),
  sync_state (tenant_id, backend_id, remote_path, path, status);

-- name: drop_plans
-- What was planned for a table of one page reads it whole, and would go on while the table grows.
DISCARD PLANS;

-- name: keep_plans
-- Within a transaction that plans each statement anew, so would each look for the row that a foreign key names: once a row.
-- Here one plan serves them all, made by index.
SELECT set_config('plan_cache_mode', 'auto', true), set_config('enable_seqscan', 'off', true);

-- name: plan_anew
SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'on', true);
