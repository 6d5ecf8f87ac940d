-- name: page
-- The chains of a tenant, so many behind one of them, newest first, each with its last row that is there still. One look-up by
-- key for each, whatever their length.
SELECT c.chain_id, c.writer, c.started_at, c.end_reason, c.trimmed_seq, c.covered_seq, c.covered_at, c.at_rest,
  h.seq, h.at, h.hash
FROM (SELECT * FROM audit_chains WHERE tenant_id = $1 AND chain_id < $2 ORDER BY chain_id DESC LIMIT $3) c
LEFT JOIN LATERAL (SELECT a.seq, a.at, a.hash FROM audit a
                   WHERE a.tenant_id = c.tenant_id AND a.chain_id = c.chain_id AND a.seq > c.trimmed_seq
                   ORDER BY a.seq DESC LIMIT 1) h ON true
ORDER BY c.chain_id DESC;

-- name: anchors
SELECT place, first_n, last_n, anchored_at FROM audit_anchors WHERE tenant_id = $1 ORDER BY place;
