-- name: look
SELECT * FROM svsync_look($1, $2::svsync_asked[]);

-- name: record
SELECT svsync_record($1, $2::audit[]);

-- name: open_chains
SELECT tenant_id, chain_id FROM svsync_open_chains($1, $2::int[], $3);

-- name: end_chains
SELECT svsync_end_chains($1, $2::int[], $3::bigint[], $4::bigint[], $5::bytea[], $6);

-- name: now
SELECT clock_timestamp() AS now;

-- What follows gives a page of the log, newest first, from before the place that the cursor names. One statement for each
-- filter that an index is for; the others are looked at row by row.

-- name: of_all
SELECT at, chain_id, seq, identity_type, identity_id, action, secret_path, decision, version, backend_id, request_id, source_ip
FROM audit
WHERE tenant_id = $1 AND at >= $2 AND at < $3 AND at <= $4 AND (at, chain_id, seq) < ($4, $5, $6)
  AND ($8::text IS NULL OR identity_id = $8) AND ($9::text IS NULL OR action = $9) AND ($10::text IS NULL OR decision = $10)
ORDER BY at DESC, chain_id DESC, seq DESC LIMIT $7;

-- name: of_denied
SELECT at, chain_id, seq, identity_type, identity_id, action, secret_path, decision, version, backend_id, request_id, source_ip
FROM audit
WHERE tenant_id = $1 AND at >= $2 AND at < $3 AND at <= $4 AND (at, chain_id, seq) < ($4, $5, $6)
  AND ($8::text IS NULL OR identity_id = $8) AND ($9::text IS NULL OR action = $9) AND decision = 'deny' AND $10::text = 'deny'
ORDER BY at DESC, chain_id DESC, seq DESC LIMIT $7;

-- name: of_identity
SELECT at, chain_id, seq, identity_type, identity_id, action, secret_path, decision, version, backend_id, request_id, source_ip
FROM audit
WHERE tenant_id = $1 AND at >= $2 AND at < $3 AND at <= $4 AND (at, chain_id, seq) < ($4, $5, $6)
  AND identity_id = $8 AND ($9::text IS NULL OR action = $9) AND ($10::text IS NULL OR decision = $10)
ORDER BY at DESC, chain_id DESC, seq DESC LIMIT $7;

-- name: of_path
SELECT at, chain_id, seq, identity_type, identity_id, action, secret_path, decision, version, backend_id, request_id, source_ip
FROM audit
WHERE tenant_id = $1 AND at >= $2 AND at < $3 AND at <= $4 AND (at, chain_id, seq) < ($4, $5, $6)
  AND ($8::text IS NULL OR identity_id = $8) AND ($9::text IS NULL OR action = $9) AND ($10::text IS NULL OR decision = $10)
  AND secret_path = $11
ORDER BY at DESC, chain_id DESC, seq DESC LIMIT $7;

-- name: below_path
-- `$11` ends with a slash, and `$12` is the first text after all that begin with it.
SELECT at, chain_id, seq, identity_type, identity_id, action, secret_path, decision, version, backend_id, request_id, source_ip
FROM audit
WHERE tenant_id = $1 AND at >= $2 AND at < $3 AND at <= $4 AND (at, chain_id, seq) < ($4, $5, $6)
  AND ($8::text IS NULL OR identity_id = $8) AND ($9::text IS NULL OR action = $9) AND ($10::text IS NULL OR decision = $10)
  AND secret_path >= $11 AND secret_path < $12
ORDER BY at DESC, chain_id DESC, seq DESC LIMIT $7;
