-- name: readers
-- Who read which secret here, from a moment on: by path, the latest reader first.
SELECT secret_path AS path, identity_type, identity_id, count(*) AS reads, min(at) AS first_at, max(at) AS last_at
FROM audit
WHERE tenant_id = $1 AND secret_path >= $2 AND starts_with(secret_path, $2) AND at >= $3
  AND action = 'secret.read' AND decision = 'allow'
GROUP BY secret_path, identity_type, identity_id
ORDER BY secret_path, max(at) DESC, identity_id LIMIT $4;
