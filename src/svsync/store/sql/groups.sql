-- name: set
INSERT INTO identity_groups (tenant_id, identity_id, groups) VALUES ($1, $2, $3::text[])
ON CONFLICT (tenant_id, identity_id) DO UPDATE SET groups = excluded.groups, refreshed_at = now();

-- name: forget
DELETE FROM identity_groups WHERE tenant_id = $1 AND identity_id = $2;

-- name: of
SELECT groups FROM identity_groups WHERE tenant_id = $1 AND identity_id = $2;

-- name: list
SELECT identity_id, groups, refreshed_at FROM identity_groups WHERE tenant_id = $1 ORDER BY identity_id;
