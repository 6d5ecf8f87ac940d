-- name: count
-- More calls of this hour; fewer where some are given back.
INSERT INTO proxied_calls (tenant_id, backend_id, hour, made) VALUES ($1, $2, date_trunc('hour', now()), $3)
ON CONFLICT (tenant_id, backend_id, hour) DO UPDATE SET made = proxied_calls.made + excluded.made;

-- name: made
-- An hour that began 24 hours ago or less before counts whole: some of its calls may be younger.
SELECT coalesce(sum(made), 0)::bigint FROM proxied_calls
WHERE tenant_id = $1 AND backend_id = $2 AND hour > now() - interval '25 hours';

-- name: forget_old
DELETE FROM proxied_calls WHERE tenant_id = $1 AND hour < now() - interval '2 days';
