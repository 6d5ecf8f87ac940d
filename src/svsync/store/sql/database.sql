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
