-- name: tenants
-- All of them, whatever their state.
SELECT tenant_id, slug FROM tenants ORDER BY tenant_id;

-- name: end_running
-- Runs that were under way when the backup was made.
UPDATE runs SET state = 'failed', result = 'failed', error_code = 'restored', error_stage = stage,
  error_message = 'the database was restored from a backup that was made while this run was under way', ended_at = clock_timestamp()
WHERE tenant_id = $1 AND state = 'running'
RETURNING backend_id, run_id, trigger, kind, started_at, ended_at, error_code, error_stage, error_message;

-- name: raise_fences
-- Far above what any worker of after the backup can hold.
UPDATE leases SET fence = fence + 4294967296, holder = NULL, run_id = NULL, expires_at = NULL WHERE tenant_id = $1;

-- name: raise_epochs
-- Of rights and of backends: far above what any process that remembers the time after the backup knows.
UPDATE tenants SET auth_epoch = auth_epoch + 4294967296, federation_epoch = federation_epoch + 4294967296 WHERE tenant_id = $1;

-- name: ask_pushes
-- Whatever the backup says of unfinished pushes, they may have been sent after it: the backend is asked about each.
UPDATE pushes SET sent_at = coalesce(sent_at, planned_at), deadline = clock_timestamp() - interval '1 second'
WHERE tenant_id = $1 AND state IN ('planned', 'sent', 'unknown');

-- name: home
-- The server and timeline that this database is on now.
SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system, (SELECT timeline_id FROM pg_control_checkpoint()) AS timeline;

-- name: remembered
SELECT system, timeline FROM store_home WHERE system IS NOT NULL;

-- name: remember
INSERT INTO store_home (system, timeline) VALUES ($1, $2)
ON CONFLICT (one) DO UPDATE SET system = excluded.system, timeline = excluded.timeline, seen_at = now();
