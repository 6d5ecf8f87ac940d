-- name: pairs
-- Active pairs whose local path begins with a literal prefix, a page at a time: are both sides known to be equal, and
-- under which mapping was that found? A push without an outcome leaves it open.
SELECT p.path, p.remote_path, p.backend_id, p.rule_ord, p.mapping_hash, p.base_pair, p.status, p.base_fp, p.base_fp_key,
       s.current_version AS version,
       coalesce(p.status = 'in_sync' AND p.base_kind = 'value' AND s.state = 'live' AND NOT p.recheck
                AND v.fp = p.base_fp AND v.fp_key_id = p.base_fp_key, false)
       AND NOT EXISTS (SELECT FROM pushes u WHERE u.tenant_id = $1 AND u.backend_id = p.backend_id AND u.path = p.path
                       AND u.state IN ('planned', 'sent', 'unknown')) AS equal
FROM sync_state p
LEFT JOIN secrets s ON s.tenant_id = $1 AND s.path = p.path
LEFT JOIN versions v ON v.tenant_id = $1 AND v.secret_id = s.secret_id AND v.version = s.current_version
WHERE p.tenant_id = $1 AND p.path > $2 AND p.path >= $3 AND starts_with(p.path, $3) AND p.status NOT IN ('detached', 'standby')
  AND ($4::text IS NULL OR p.backend_id = $4)
ORDER BY p.path LIMIT $5;

-- name: copies
-- Live secrets of no backend that have the value of a pair: what it was copied to, above all.
SELECT x.path, s.path AS copy
FROM unnest($2::text[], $3::bytea[], $4::int[]) AS x(path, fp, fp_key_id)
JOIN versions v ON v.tenant_id = $1 AND v.fp = x.fp AND v.fp_key_id = x.fp_key_id
JOIN secrets s ON s.tenant_id = $1 AND s.secret_id = v.secret_id AND s.current_version = v.version
WHERE s.state = 'live'
  AND NOT EXISTS (SELECT FROM sync_state p WHERE p.tenant_id = $1 AND p.path = s.path AND p.status NOT IN ('detached', 'standby'));

-- name: last_reads
-- Who last read each of some paths here, from a moment on. An operator's own look is no application that moved, nor
-- is a read for our own commands that copy and compare.
SELECT x.path, a.at, a.identity_id
FROM unnest($2::text[]) AS x(path),
  LATERAL (SELECT at, identity_id FROM audit WHERE tenant_id = $1 AND secret_path = x.path AND at >= $3
           AND action = 'secret.read' AND decision = 'allow' AND identity_type <> 'operator'
           AND NOT starts_with(coalesce(request_id, ''), $4) ORDER BY at DESC LIMIT 1) a;

-- name: looked_at
-- When each backend was last listed whole, as seconds ago, and when that run began: what was changed there after that may
-- not have been seen by it. One that was handed over may have gone on with a listing from before it started again.
SELECT b.backend_id, extract(epoch FROM clock_timestamp() - h.last_success_at)::float8 AS seconds_ago,
  (SELECT CASE WHEN r.handed_over THEN r.queued_at ELSE r.started_at END FROM runs r
   WHERE r.tenant_id = b.tenant_id AND r.backend_id = b.backend_id AND r.kind = 'full' AND r.state = 'completed' ORDER BY r.run_no DESC LIMIT 1) AS began_at
FROM backends b LEFT JOIN backend_health h ON h.tenant_id = b.tenant_id AND h.backend_id = b.backend_id
WHERE b.tenant_id = $1;
