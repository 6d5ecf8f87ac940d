-- name: bind
INSERT INTO backend_authorisations AS a (tenant_id, backend_id, credential, origin, mapping, authorised_by)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant_id, backend_id) DO UPDATE SET credential = excluded.credential, origin = excluded.origin,
  mapping = excluded.mapping, authorised_by = excluded.authorised_by, authorised_at = now();

-- name: bound
SELECT credential, origin, mapping, authorised_by, authorised_at FROM backend_authorisations
WHERE tenant_id = $1 AND backend_id = $2;

-- name: release
DELETE FROM backend_authorisations WHERE tenant_id = $1 AND backend_id = $2;

-- name: namesake
-- Another backend that has this id or name, or whose id is this name: what a route names is one of them alone.
SELECT backend_id FROM backends
WHERE tenant_id = $1 AND backend_id <> $2 AND (name = $3 OR backend_id = $3 OR name = $2)
ORDER BY backend_id LIMIT 1;

-- name: states
-- Pairs of a backend by local and remote path, a page at a time; those that are detached only where they are asked for.
SELECT p.path, p.remote_path, p.status, p.reason, p.failures, p.retry_at, p.synced_at, p.moved_to,
       CASE WHEN s.state = 'live' THEN s.current_version END AS version
FROM sync_state p
LEFT JOIN secrets s ON s.tenant_id = p.tenant_id AND s.path = p.path
WHERE p.tenant_id = $1 AND p.backend_id = $2 AND (p.path, p.remote_path) > ($3, $4)
  AND CASE WHEN $5::text IS NULL THEN p.status <> 'detached' ELSE p.status = $5 END
ORDER BY p.path, p.remote_path LIMIT $6;
