-- name: find
-- Backends of one id by key, in whichever tenants have it, that the operator's file manages: no other may pin who vouches.
SELECT n.tenant_id, n.slug, n.auth_epoch, b.spec
FROM backends b JOIN tenants n ON n.tenant_id = b.tenant_id
WHERE b.tenant_id = ANY ($1::int[]) AND b.backend_id = $2 AND b.managed_by = 'file' AND n.status = 'active'
ORDER BY n.tenant_id;
