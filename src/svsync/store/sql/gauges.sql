-- name: hurry
-- Who looks at the numbers has a few seconds, and asks again soon.
SELECT set_config('statement_timeout', '4s', true);

-- name: tenants
SELECT tenant_id FROM tenants WHERE status = 'active';

-- name: backends
-- How every backend of the active tenants stands. What is counted comes from partial indexes that hold the open, the
-- pending and the unfinished alone. A path that is pending and has an unfinished push counts once.
WITH open AS (SELECT tenant_id, backend_id, count(*) AS n FROM conflicts WHERE state = 'open' GROUP BY tenant_id, backend_id),
     pending AS (SELECT tenant_id, backend_id, count(*) AS n FROM sync_state WHERE status = 'pending_push' GROUP BY tenant_id, backend_id),
     sending AS (
       SELECT u.tenant_id, u.backend_id, count(*) AS n FROM pushes u
       WHERE u.state IN ('planned', 'sent', 'unknown')
         AND NOT EXISTS (SELECT FROM sync_state p WHERE p.tenant_id = u.tenant_id AND p.backend_id = u.backend_id AND p.path = u.path
                         AND p.remote_path = u.remote_path AND p.status = 'pending_push')
       GROUP BY u.tenant_id, u.backend_id)
SELECT t.slug AS tenant, b.backend_id AS backend, b.type,
  b.state = 'active' AND h.status IN ('unreachable', 'denied') AS down,
  b.state = 'active' AND b.syncs AND s.since > make_interval(secs => coalesce(b.stale_after_s, 3 * b.interval_s)) AS stale,
  extract(epoch FROM h.last_success_at)::float8 AS last_success,
  CASE WHEN b.syncs THEN extract(epoch FROM s.since)::float8 END AS staleness,
  (h.latency_ms / 1000)::float8 AS latency, h.secrets_synced AS secrets, h.quarantined,
  coalesce(o.n, 0) AS conflicts, coalesce(p.n, 0) + coalesce(u.n, 0) AS pending_pushes
FROM backends b
JOIN tenants t ON t.tenant_id = b.tenant_id AND t.status = 'active'
JOIN backend_health h ON h.tenant_id = b.tenant_id AND h.backend_id = b.backend_id
CROSS JOIN LATERAL (SELECT now() - coalesce(h.last_success_at, b.created_at) AS since) s
LEFT JOIN open o ON o.tenant_id = b.tenant_id AND o.backend_id = b.backend_id
LEFT JOIN pending p ON p.tenant_id = b.tenant_id AND p.backend_id = b.backend_id
LEFT JOIN sending u ON u.tenant_id = b.tenant_id AND u.backend_id = b.backend_id
ORDER BY t.slug, b.backend_id;

-- name: waiting
-- Runs that could begin now, by tenant; a paused backend's may not.
SELECT t.slug AS tenant, count(b.backend_id) AS waiting,
  coalesce(extract(epoch FROM max(now() - greatest(r.queued_at, r.not_before)) FILTER (WHERE b.backend_id IS NOT NULL)), 0)::float8
    AS oldest
FROM tenants t
LEFT JOIN runs r ON r.tenant_id = t.tenant_id AND r.state = 'queued' AND r.not_before <= now()
LEFT JOIN backends b ON b.tenant_id = r.tenant_id AND b.backend_id = r.backend_id AND b.state = 'active'
WHERE t.status = 'active' GROUP BY t.slug ORDER BY t.slug;
