-- name: page
-- Live secrets and active pairs whose path begins with a folder, by path, a page at a time; what `retirement.pairs` tells of a
-- pair, and `detached` of a secret that was federated before. Each side's first rows hold all of the page's.
WITH s AS (
  SELECT path, secret_id, current_version FROM secrets
  WHERE tenant_id = $1 AND path > $2 AND path >= $3 AND starts_with(path, $3) AND state = 'live' ORDER BY path LIMIT $4),
p AS (
  SELECT path, remote_path, backend_id, rule_ord, mapping_hash, base_pair, status, base_kind, base_fp, base_fp_key, recheck FROM sync_state
  WHERE tenant_id = $1 AND path > $2 AND path >= $3 AND starts_with(path, $3) AND status NOT IN ('detached', 'standby')
  ORDER BY path LIMIT $4)
SELECT path, p.backend_id, p.rule_ord, p.mapping_hash, p.base_pair, p.status, p.base_fp, p.base_fp_key,
  coalesce(p.status = 'in_sync' AND p.base_kind = 'value' AND NOT p.recheck AND v.fp = p.base_fp AND v.fp_key_id = p.base_fp_key, false)
    AND NOT EXISTS (SELECT FROM pushes u WHERE u.tenant_id = $1 AND u.backend_id = p.backend_id AND u.path = p.path
                    AND u.state IN ('planned', 'sent', 'unknown')) AS equal,
  p.path IS NULL AND EXISTS (SELECT FROM sync_state d WHERE d.tenant_id = $1 AND d.path = s.path AND d.status = 'detached') AS detached
FROM s FULL JOIN p USING (path)
LEFT JOIN versions v ON v.tenant_id = $1 AND v.secret_id = s.secret_id AND v.version = s.current_version
ORDER BY path LIMIT $4;
