-- name: sequence
-- The next numbers of a backend's events; one at a time, because the row is locked until the transaction ends.
UPDATE backend_health SET last_sequence = last_sequence + $3 WHERE tenant_id = $1 AND backend_id = $2
RETURNING last_sequence;

-- name: add
INSERT INTO outbox (tenant_id, event_id, backend_id, sequence, type, payload)
SELECT $1, x.event_id, $2, x.sequence, x.type, x.payload
FROM unnest($3::text[], $4::bigint[], $5::text[], $6::text[]) AS x(event_id, sequence, type, payload);

-- name: list
SELECT event_id, backend_id, sequence, type, payload, created_at FROM outbox
WHERE tenant_id = $1 AND backend_id = $2 ORDER BY sequence;
