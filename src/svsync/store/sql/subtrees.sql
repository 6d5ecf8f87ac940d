-- name: page
-- Live secrets and active pairs whose path begins with a folder, by path, a page at a time: of a pair what `retirement.pairs`
-- tells, and whether an application read it here from a moment on, as `retirement.last_reads` has it; of a secret of no backend
-- whether it was federated before. Each side's first rows hold all of the page's. What is looked up for each of them is looked up
-- by key: a page is small, and the tables are not.
WITH s AS (
  SELECT path, secret_id, current_version FROM secrets
  WHERE tenant_id = $1 AND path > $2 AND path >= $3 AND starts_with(path, $3) AND state = 'live' ORDER BY path LIMIT $4),
p AS (
  SELECT path, backend_id, rule_ord, mapping_hash, base_pair, status, base_kind, base_fp, base_fp_key, recheck FROM sync_state
  WHERE tenant_id = $1 AND path > $2 AND path >= $3 AND starts_with(path, $3) AND status NOT IN ('detached', 'standby')
  ORDER BY path LIMIT $4)
SELECT coalesce(s.path, p.path) AS path, p.backend_id, p.rule_ord, p.mapping_hash, p.base_pair, p.status,
  coalesce(p.status = 'in_sync' AND p.base_kind = 'value' AND NOT p.recheck AND v.fp = p.base_fp AND v.fp_key_id = p.base_fp_key, false)
    AND u.path IS NULL AS equal,
  coalesce(r.read, false) AS read,
  p.path IS NULL AND EXISTS (SELECT FROM sync_state d WHERE d.tenant_id = $1 AND d.path = s.path AND d.status = 'detached') AS detached
FROM s FULL JOIN p ON p.path = s.path
LEFT JOIN LATERAL (SELECT fp, fp_key_id FROM versions WHERE tenant_id = $1 AND secret_id = s.secret_id AND version = s.current_version
                   LIMIT 1) v ON true
LEFT JOIN pushes u ON u.tenant_id = $1 AND u.backend_id = p.backend_id AND u.path = p.path AND u.state IN ('planned', 'sent', 'unknown')
LEFT JOIN LATERAL (
  SELECT true AS read FROM audit a WHERE a.tenant_id = $1 AND a.secret_path = p.path AND a.at >= $5 AND a.action = 'secret.read'
    AND a.decision = 'allow' AND a.identity_type <> 'operator' AND NOT starts_with(coalesce(a.request_id, ''), $6) LIMIT 1) r ON true
ORDER BY 1 LIMIT $4;

-- name: copies
-- Pairs below a folder with each path of no backend that has the same value: what they were copied to, above all.
WITH own AS (
  SELECT p.path, p.base_fp, p.base_fp_key FROM sync_state p
  WHERE p.tenant_id = $1 AND p.path >= $2 AND starts_with(p.path, $2) AND p.status = 'in_sync' AND p.base_kind = 'value'),
free AS (
  SELECT s.path, v.fp, v.fp_key_id FROM secrets s
  JOIN versions v ON v.tenant_id = $1 AND v.secret_id = s.secret_id AND v.version = s.current_version
  WHERE s.tenant_id = $1 AND s.state = 'live'
    AND NOT EXISTS (SELECT FROM sync_state p WHERE p.tenant_id = $1 AND p.path = s.path AND p.status NOT IN ('detached', 'standby')))
SELECT own.path, free.path AS copy FROM own JOIN free ON free.fp = own.base_fp AND free.fp_key_id = own.base_fp_key LIMIT $3;
