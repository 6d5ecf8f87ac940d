-- name: add
-- Nothing: there is no such backend.
INSERT INTO feed_secrets (tenant_id, secret_id, backend_id, feed, hash, created_by)
SELECT $1, $2, b.backend_id, $4, $5, $6 FROM backends b WHERE b.tenant_id = $1 AND b.backend_id = $3 FOR KEY SHARE OF b
RETURNING created_at;

-- name: find
-- A secret by its key, with all that decides whether it counts.
SELECT s.hash, s.backend_id, s.feed, s.last_used_on IS DISTINCT FROM (now() AT TIME ZONE 'UTC')::date AS first_today,
       n.slug, n.status, n.auth_epoch
FROM feed_secrets s JOIN tenants n ON n.tenant_id = s.tenant_id
WHERE s.tenant_id = $1 AND s.secret_id = $2;

-- name: used
-- A date, and written once a day.
UPDATE feed_secrets SET last_used_on = (now() AT TIME ZONE 'UTC')::date WHERE tenant_id = $1 AND secret_id = $2;

-- name: list
-- Those of one backend, or of all, oldest first; never what they are made of.
SELECT secret_id, backend_id, feed, created_by, created_at, last_used_on FROM feed_secrets
WHERE tenant_id = $1 AND ($2::text IS NULL OR backend_id = $2) ORDER BY secret_id;

-- name: count
SELECT count(*) FROM feed_secrets WHERE tenant_id = $1 AND backend_id = $2 AND feed = $3;

-- name: remove
DELETE FROM feed_secrets WHERE tenant_id = $1 AND secret_id = $2 AND ($3::text IS NULL OR backend_id = $3);
