-- name: page
-- Runs of a backend before one of them, newest first; ids sort by the moment the run was queued.
SELECT run_id, backend_id, kind, trigger, state, result, started_at, ended_at, counts::text AS counts, calls::text AS calls,
  stages_ms::text AS stages_ms, error_code, error_stage, error_message
FROM runs WHERE tenant_id = $1 AND backend_id = $2 AND run_id < $3 ORDER BY run_id DESC LIMIT $4;
