-- name: backends
-- How the backends of a tenant stand, every one or a page of some, with the run that works each now and those that wait. What is counted comes from partial
-- indexes that hold the open, the pending and the unfinished alone. A path that is pending and has an unfinished push counts once.
WITH open AS (SELECT backend_id, count(*) AS n FROM conflicts WHERE tenant_id = $1 AND state = 'open' GROUP BY backend_id),
     pending AS (SELECT backend_id, count(*) AS n FROM sync_state WHERE tenant_id = $1 AND status = 'pending_push' GROUP BY backend_id),
     sending AS (
       SELECT u.backend_id, count(*) AS n FROM pushes u
       WHERE u.tenant_id = $1 AND u.state IN ('planned', 'sent', 'unknown')
         AND NOT EXISTS (SELECT FROM sync_state p WHERE p.tenant_id = $1 AND p.backend_id = u.backend_id AND p.path = u.path
                         AND p.remote_path = u.remote_path AND p.status = 'pending_push')
       GROUP BY u.backend_id),
     waiting AS (
       SELECT backend_id, count(*) AS n, min(put_off) FILTER (WHERE not_before > clock_timestamp()) AS put_off,
         min(not_before) FILTER (WHERE put_off IS NOT NULL AND not_before > clock_timestamp()) AS put_off_until
       FROM runs WHERE tenant_id = $1 AND state = 'queued' GROUP BY backend_id)
SELECT b.spec, b.state, b.syncs,
  h.status, h.last_sync_at, h.last_success_at, h.next_due_at, h.secrets_synced, h.latency_ms::float8 AS latency_ms, h.failures,
  h.unreachable_since, h.diverged, h.skipped, h.quarantined, h.last_run_id, h.last_error, h.calls_per_cycle,
  h.quiet_cycle::text AS cycle, w.put_off, w.put_off_until,
  extract(epoch FROM clock_timestamp() - h.last_success_at)::float8 AS staleness_s,
  b.state = 'active' AND b.syncs
    AND clock_timestamp() - coalesce(h.last_success_at, b.created_at) > make_interval(secs => coalesce(b.stale_after_s, 3 * b.interval_s))
    AS stale,
  coalesce(o.n, 0) AS conflicts_now, coalesce(p.n, 0) + coalesce(u.n, 0) AS pending_pushes, coalesce(w.n, 0) AS waiting,
  l.holder, l.expires_at AS lease_until,
  r.run_id, r.kind, r.stage, r.staged_count, r.todo_count, r.batch_cursor, r.batch_size, r.started_at, r.worker
FROM backends b
JOIN backend_health h ON h.tenant_id = $1 AND h.backend_id = b.backend_id
LEFT JOIN leases l ON l.tenant_id = $1 AND l.backend_id = b.backend_id AND l.holder IS NOT NULL AND l.expires_at > clock_timestamp()
LEFT JOIN runs r ON r.tenant_id = $1 AND r.backend_id = b.backend_id AND r.state = 'running'
LEFT JOIN open o ON o.backend_id = b.backend_id
LEFT JOIN pending p ON p.backend_id = b.backend_id
LEFT JOIN sending u ON u.backend_id = b.backend_id
LEFT JOIN waiting w ON w.backend_id = b.backend_id
WHERE b.tenant_id = $1 AND ($2::text[] IS NULL OR b.backend_id = ANY ($2)) AND b.backend_id > $3::text COLLATE "C"
ORDER BY b.backend_id LIMIT $4::bigint;

-- name: runs
-- Of all backends: each count is that of a partial index.
SELECT (SELECT count(*) FROM runs WHERE tenant_id = $1 AND state = 'running') AS running,
       (SELECT count(*) FROM runs WHERE tenant_id = $1 AND state = 'queued') AS waiting;

-- name: hurry
-- Who looks on has a few seconds, and looks again soon.
SELECT set_config('statement_timeout', '4s', true);

-- name: processes
-- Those that were heard of a short while ago.
SELECT instance_id, roles, version, started_at, extract(epoch FROM clock_timestamp() - beat_at)::float8 AS silent_s FROM instances
WHERE beat_at > clock_timestamp() - make_interval(secs => $1) ORDER BY instance_id;

-- name: stopped
-- What time it is, and since when and by whom all runs are stopped; null where they are not.
SELECT clock_timestamp() AS now, h.stopped_at, h.stopped_by FROM (SELECT) one LEFT JOIN store_home h ON h.stopped_at IS NOT NULL;

-- name: stop
-- Whoever was first stays named.
INSERT INTO store_home (stopped_at, stopped_by) VALUES (clock_timestamp(), $1)
ON CONFLICT (one) DO UPDATE SET stopped_at = coalesce(store_home.stopped_at, excluded.stopped_at),
  stopped_by = coalesce(store_home.stopped_by, excluded.stopped_by)
RETURNING stopped_at, stopped_by;

-- name: go_on
UPDATE store_home SET stopped_at = NULL, stopped_by = NULL WHERE stopped_at IS NOT NULL;
