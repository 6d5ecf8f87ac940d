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
-- Pairs of a backend in some ranges of local paths, by local and remote path, a page at a time.
SELECT * FROM svsync_pairs($1, $2, $3, $4, $5, $6::text[], $7::text[], $8);
