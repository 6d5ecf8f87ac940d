-- name: tenant
SELECT tenant_id FROM tenants WHERE slug = $1;

-- name: find
-- What is known of an identity that ScaiKey vouches for, and of its tenant; `taken`: there is a super_admin.
SELECT n.slug, n.status, n.auth_epoch, g.groups, g.refreshed_at, s.identity_id IS NOT NULL AS super_admin,
       EXISTS (SELECT FROM super_admins x WHERE x.tenant_id = $1) AS taken
FROM tenants n
LEFT JOIN identity_groups g ON g.tenant_id = n.tenant_id AND g.identity_id = $2
LEFT JOIN super_admins s ON s.tenant_id = n.tenant_id AND s.identity_id = $2
WHERE n.tenant_id = $1;

-- name: tell_groups
-- What a token says of groups, as of when it was made; a moment that is yet to come is now. Whoever comes here has the tenant's
-- row locked (raise_epoch), and has looked whether somebody said otherwise later.
INSERT INTO identity_groups (tenant_id, identity_id, groups, refreshed_at) VALUES ($1, $2, $3::text[], least($4, now()))
ON CONFLICT (tenant_id, identity_id) DO UPDATE SET groups = excluded.groups, refreshed_at = excluded.refreshed_at;

-- name: promote
-- The first super_admin of a tenant; whoever comes here has the tenant's row locked (raise_epoch).
INSERT INTO super_admins (tenant_id, identity_id, by)
SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT FROM super_admins WHERE tenant_id = $1);

-- name: has_super_admin
SELECT EXISTS (SELECT FROM super_admins WHERE tenant_id = $1);
