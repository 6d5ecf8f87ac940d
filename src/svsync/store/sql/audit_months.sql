-- name: months
-- The partitions of the log by name, and the time.
SELECT coalesce(array_agg(c.relname::text ORDER BY c.relname) FILTER (WHERE c.relname IS NOT NULL), '{}') AS names,
       clock_timestamp() AS now
FROM (SELECT) AS nothing
LEFT JOIN (pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid) ON i.inhparent = 'audit'::regclass;

-- name: wait_briefly
SELECT set_config('lock_timeout', '1s', true);

-- name: make
SELECT svsync_audit_month($1::date);

-- name: drop
SELECT svsync_audit_drop_month($1::date);

-- name: have_rows
-- Those of the tenants that have rows of a time.
SELECT t.tenant_id FROM unnest($1::int[]) AS t(tenant_id)
WHERE EXISTS (SELECT FROM audit a WHERE a.tenant_id = t.tenant_id AND a.at >= $2 AND a.at < $3);

-- name: uncovered
-- Chains with rows of a time that are under no checkpoint, and may come under one.
SELECT count(*) FROM audit_chains c
JOIN tenants t ON t.tenant_id = c.tenant_id AND t.status <> 'shredded'
CROSS JOIN LATERAL (SELECT a.seq FROM audit a
                    WHERE a.tenant_id = c.tenant_id AND a.chain_id = c.chain_id AND a.seq > c.covered_seq
                      AND a.at >= $2 AND a.at < $3
                    ORDER BY a.seq DESC LIMIT 1) h
WHERE c.tenant_id = ANY ($1::int[]) AND c.started_at < $3 + interval '1 day';

-- name: all_tenants
SELECT tenant_id FROM tenants ORDER BY tenant_id;
