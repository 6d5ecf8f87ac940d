-- name: add
INSERT INTO tokens (tenant_id, token_id, hash, identity_type, identity_id, scopes, created_by, expires_at)
VALUES ($1, $2, $3, $4, $5, $6::text[], $7, now() + make_interval(secs => $8))
RETURNING created_at, expires_at;

-- name: find
-- A token by its key, with all that decides whether it counts, by the database's clock.
SELECT t.hash, t.identity_type, t.identity_id, t.scopes, t.revoked_at IS NOT NULL AS revoked,
       coalesce(t.expires_at <= now(), false) AS expired, t.last_used_on IS DISTINCT FROM (now() AT TIME ZONE 'UTC')::date AS first_today,
       extract(epoch FROM t.expires_at - now())::float8 AS expires_in, t.expires_at, n.slug, n.status, n.auth_epoch, coalesce(g.groups, '{}') AS groups
FROM tokens t JOIN tenants n ON n.tenant_id = t.tenant_id
LEFT JOIN identity_groups g ON g.tenant_id = t.tenant_id AND g.identity_id = t.identity_id
WHERE t.tenant_id = $1 AND t.token_id = $2;

-- name: used
-- A date, and written once a day, so that reading does not become writing.
UPDATE tokens SET last_used_on = (now() AT TIME ZONE 'UTC')::date WHERE tenant_id = $1 AND token_id = $2;

-- name: list
-- The tokens of a tenant, or a page of them, the newest first; never what they are made of.
SELECT token_id, identity_type, identity_id, scopes, created_by, created_at, expires_at, revoked_at, last_used_on,
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'active' END AS state
FROM tokens WHERE tenant_id = $1 AND ($2::text IS NULL OR token_id < $2) ORDER BY token_id DESC LIMIT $3::bigint;

-- name: revoke
-- Once and for good; the moment of the first time stays.
UPDATE tokens SET revoked_at = coalesce(revoked_at, now()) WHERE tenant_id = $1 AND token_id = $2;

-- name: raise_epoch
-- Rights were taken or given: what any process knows of them is out of date once this is committed.
UPDATE tenants SET auth_epoch = auth_epoch + 1 WHERE tenant_id = $1;

-- name: rules_of
-- The rules that are bound to an identity, by itself or by its groups, in the order in which they are named.
SELECT p.policy_id, p.name, r.ord, r.path_pattern, r.permissions
FROM policies p JOIN policy_rules r ON r.tenant_id = p.tenant_id AND r.policy_id = p.policy_id
WHERE p.tenant_id = $1 AND p.policy_id IN (
  SELECT b.policy_id FROM bindings b
  WHERE b.tenant_id = $1 AND ((b.identity_type = $2 AND b.identity_id = $3)
                              OR (b.identity_type = 'group' AND b.identity_id = ANY ($4::text[]))))
ORDER BY p.name, r.ord;

-- name: epoch
SELECT auth_epoch FROM tenants WHERE tenant_id = $1;
