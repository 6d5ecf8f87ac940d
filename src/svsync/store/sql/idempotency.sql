-- name: begin
-- Take a key for a request; no row where somebody has it. Whose time is over is taken as if it were not there.
INSERT INTO idempotency AS i (tenant_id, identity_id, key, attempt, request) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, identity_id, key) DO UPDATE SET attempt = $4, request = $5, state = 'under_way', status = NULL, headers = NULL,
  answer = NULL, made_at = now()
WHERE i.made_at <= now() - make_interval(secs => $6)
RETURNING attempt;

-- name: find
-- `lost`: it has been under way for longer than any request is.
SELECT request, state, status, headers, answer, made_at <= now() - make_interval(secs => $4) AS lost
FROM idempotency WHERE tenant_id = $1 AND identity_id = $2 AND key = $3;

-- name: finish
-- What became of it. The key is that of this attempt still.
UPDATE idempotency SET state = $5, status = $6, headers = $7, answer = $8
WHERE tenant_id = $1 AND identity_id = $2 AND key = $3 AND attempt = $4;

-- name: release
-- Nothing was done, so the key may be used again.
DELETE FROM idempotency WHERE tenant_id = $1 AND identity_id = $2 AND key = $3 AND attempt = $4;

-- name: remove
-- Some of those whose time is over.
DELETE FROM idempotency i USING (
  SELECT identity_id, key FROM idempotency WHERE tenant_id = $1 AND made_at <= now() - make_interval(secs => $2)
  ORDER BY made_at LIMIT $3 FOR UPDATE SKIP LOCKED) d
WHERE i.tenant_id = $1 AND i.identity_id = d.identity_id AND i.key = d.key;
