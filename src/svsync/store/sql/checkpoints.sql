-- name: tenants
-- Of all that may have an audit log; a suspended one too.
SELECT tenant_id, slug FROM tenants WHERE status <> 'shredded' ORDER BY tenant_id;

-- name: went_on
-- Tenants whose chains have rows that no checkpoint covers, and how many.
SELECT c.tenant_id, sum(h.seq - c.covered_seq)::bigint AS many
FROM audit_chains c
CROSS JOIN LATERAL (SELECT a.seq FROM audit a
                    WHERE a.tenant_id = c.tenant_id AND a.chain_id = c.chain_id AND a.seq > c.covered_seq
                    ORDER BY a.seq DESC LIMIT 1) h
WHERE c.tenant_id = ANY ($1::int[]) AND NOT c.at_rest
GROUP BY c.tenant_id ORDER BY c.tenant_id;

-- name: lock
-- One process at a time makes a tenant's next checkpoint.
SELECT pg_advisory_xact_lock(1398165839, $1);

-- name: last
-- The newest checkpoint, with nulls where there is none, and the time.
SELECT k.n, k.at, k.hash, clock_timestamp() AS now
FROM (SELECT) AS nothing
LEFT JOIN LATERAL (SELECT n, at, hash FROM audit_checkpoints WHERE tenant_id = $1 ORDER BY n DESC LIMIT 1) k ON true;

-- name: heads
-- The last row of each chain that went on since the last checkpoint. A chain's rows are committed in order, so all before it
-- are there as well.
SELECT c.chain_id, h.seq, h.hash
FROM audit_chains c
CROSS JOIN LATERAL (SELECT a.seq, a.hash FROM audit a
                    WHERE a.tenant_id = c.tenant_id AND a.chain_id = c.chain_id AND a.seq > c.covered_seq
                    ORDER BY a.seq DESC LIMIT 1) h
WHERE c.tenant_id = $1 AND NOT c.at_rest
ORDER BY c.chain_id;

-- name: add
INSERT INTO audit_checkpoints (tenant_id, n, at, heads, root, prev_hash, hash, key_id, signature)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: cover
UPDATE audit_chains c SET covered_seq = x.seq, covered_at = $4
FROM unnest($2::bigint[], $3::bigint[]) AS x(chain_id, seq)
WHERE c.tenant_id = $1 AND c.chain_id = x.chain_id;

-- name: settle
-- Chains that are over, or had no row for a day, are not looked at any more with each checkpoint.
UPDATE audit_chains SET at_rest = true
WHERE tenant_id = $1 AND NOT at_rest
  AND (end_reason <> 'outcome_unknown' AND covered_seq >= ended_seq
       OR coalesce(covered_at, started_at) < clock_timestamp() - interval '1 day');

-- name: wake
-- Look once at the chains at rest that go on all the same: their rows were committed very late. How many those are.
UPDATE audit_chains c SET at_rest = false
WHERE c.tenant_id = ANY ($1::int[]) AND c.at_rest
  AND EXISTS (SELECT FROM audit a WHERE a.tenant_id = c.tenant_id AND a.chain_id = c.chain_id AND a.seq = c.covered_seq + 1);

-- name: behind
-- Tenants of whose checkpoints a place outside lacks some, and up to where it has them: null, none yet.
SELECT t.tenant_id, l.n AS newest, p.last_n
FROM unnest($1::int[]) AS t(tenant_id)
CROSS JOIN LATERAL (SELECT n FROM audit_checkpoints k WHERE k.tenant_id = t.tenant_id ORDER BY n DESC LIMIT 1) l
LEFT JOIN audit_anchors p ON p.tenant_id = t.tenant_id AND p.place = $2
WHERE p.last_n IS NULL OR p.last_n < l.n
ORDER BY t.tenant_id;

-- name: page
SELECT n, at, heads, root, prev_hash, hash, key_id, signature
FROM audit_checkpoints WHERE tenant_id = $1 AND n > $2 ORDER BY n LIMIT $3;

-- name: some
SELECT n, at, root, prev_hash, hash, key_id, signature FROM audit_checkpoints WHERE tenant_id = $1 AND n = ANY ($2::bigint[]);

-- name: before
-- The last checkpoint that was made before a moment; 0: none was.
SELECT coalesce((SELECT n FROM audit_checkpoints WHERE tenant_id = $1 AND at <= $2 ORDER BY n DESC LIMIT 1), 0);

-- name: anchored
-- What a place has without a gap: one that was away for too long begins anew.
INSERT INTO audit_anchors (tenant_id, place, first_n, last_n) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant_id, place) DO UPDATE SET last_n = excluded.last_n, anchored_at = clock_timestamp(),
  first_n = CASE WHEN excluded.first_n > audit_anchors.last_n + 1 THEN excluded.first_n ELSE audit_anchors.first_n END
WHERE audit_anchors.last_n < excluded.last_n;

-- name: span
SELECT first_n, last_n FROM audit_anchors WHERE tenant_id = $1 AND place = $2;

-- name: late
-- Places outside of which one lacks a checkpoint that is older than so many seconds.
SELECT x.place, min(k.at) AS since
FROM unnest($2::text[]) AS x(place)
CROSS JOIN unnest($1::int[]) AS t(tenant_id)
LEFT JOIN audit_anchors p ON p.tenant_id = t.tenant_id AND p.place = x.place
CROSS JOIN LATERAL (SELECT k.at FROM audit_checkpoints k
                    WHERE k.tenant_id = t.tenant_id AND k.n > coalesce(p.last_n, 0) ORDER BY k.n LIMIT 1) k
WHERE k.at < clock_timestamp() - make_interval(secs => $3)
GROUP BY x.place;

-- name: signing_keys
SELECT key_id, purpose, state, root_id, wrapped, created_at FROM data_keys
WHERE tenant_id = $1 AND purpose = 'audit_sign' ORDER BY key_id;
