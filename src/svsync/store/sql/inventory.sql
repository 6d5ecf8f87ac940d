-- name: readers
-- Who read which secret here, from a moment on: by path, the latest reader first. An operator's own look is no reader, nor
-- is a read for our own commands that copy and compare.
SELECT secret_path AS path, identity_type, identity_id, count(*) AS reads, min(at) AS first_at, max(at) AS last_at
FROM audit
WHERE tenant_id = $1 AND secret_path >= $2 AND starts_with(secret_path, $2) AND at >= $3
  AND action = 'secret.read' AND decision = 'allow' AND identity_type <> 'operator'
  AND NOT starts_with(coalesce(request_id, ''), $5)
GROUP BY secret_path, identity_type, identity_id
ORDER BY secret_path, max(at) DESC, identity_id LIMIT $4;
