-- name: page
-- Runs of a backend before one of them, newest first; ids sort by the moment the run was queued.
SELECT run_id, backend_id, kind, trigger, state, result, started_at, ended_at, counts::text AS counts, calls::text AS calls,
  stages_ms::text AS stages_ms, error_code, error_stage, error_message
FROM runs WHERE tenant_id = $1 AND backend_id = $2 AND run_id < $3 ORDER BY run_id DESC LIMIT $4;

-- name: last
-- The last runs of some backends, so many of each, newest first: what began, and was no dry run. One index range for each.
SELECT b.backend_id, r.run_id, r.kind, r.trigger, r.state, r.result, r.started_at, r.ended_at, NULL AS counts, NULL AS calls,
  NULL AS stages_ms, NULL AS error_code
FROM backends b
LEFT JOIN LATERAL (SELECT run_id, kind, trigger, state, result, started_at, ended_at FROM runs
                   WHERE tenant_id = b.tenant_id AND backend_id = b.backend_id AND kind <> 'dry' AND started_at IS NOT NULL
                   ORDER BY run_id DESC LIMIT $3) r ON true
WHERE b.tenant_id = $1 AND b.backend_id = ANY ($2::text[]) ORDER BY b.backend_id, r.run_id DESC;
