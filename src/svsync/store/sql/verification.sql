-- name: chains
SELECT chain_id, writer, started_at, ended_seq, ended_hash, end_reason, trimmed_seq, trimmed_hash, covered_seq
FROM audit_chains WHERE tenant_id = $1 AND chain_id > $2 ORDER BY chain_id LIMIT $3;

-- name: chain
SELECT chain_id, writer, started_at, ended_seq, ended_hash, end_reason, trimmed_seq, trimmed_hash, covered_seq
FROM audit_chains WHERE tenant_id = $1 AND chain_id = $2;

-- name: rows
-- The log in the order of its chains, from behind a row on.
SELECT chain_id, seq, at, identity_type, identity_id, action, secret_path, decision, version, backend_id, request_id, source_ip,
       detail, hash
FROM audit
WHERE tenant_id = $1 AND (chain_id, seq) > ($2, $3) AND at >= $4
ORDER BY chain_id, seq, at LIMIT $5;

-- name: row_hash
SELECT hash FROM audit WHERE tenant_id = $1 AND chain_id = $2 AND seq = $3 LIMIT 1;

-- name: heads
-- Of each head, in order, the hash of its row; null where there is none.
SELECT x.n, a.hash
FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS x(chain_id, seq, n)
LEFT JOIN LATERAL (SELECT a.hash FROM audit a WHERE a.tenant_id = $1 AND a.chain_id = x.chain_id AND a.seq = x.seq LIMIT 1) a ON true
ORDER BY x.n;

-- name: trims
-- What retention said that it would remove.
SELECT detail FROM audit
WHERE tenant_id = $1 AND identity_id = $2 AND action = $3 AND identity_type = 'system' AND decision = 'allow' AND detail IS NOT NULL;

-- name: newest
SELECT coalesce(max(n), 0) FROM audit_checkpoints WHERE tenant_id = $1;
