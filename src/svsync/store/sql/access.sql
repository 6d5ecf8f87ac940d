-- name: add
INSERT INTO tokens (tenant_id, token_id, hash, identity_type, identity_id, scopes, created_by, expires_at)
VALUES ($1, $2, $3, $4, $5, $6::text[], $7, now() + make_interval(secs => $8))
RETURNING created_at, expires_at;

-- name: find
-- A token by its key, with all that decides whether it counts, by the database's clock.
SELECT t.hash, t.identity_type, t.identity_id, t.scopes, t.revoked_at IS NOT NULL AS revoked,
       coalesce(t.expires_at <= now(), false) AS expired, t.last_used_on IS DISTINCT FROM (now() AT TIME ZONE 'UTC')::date AS first_today,
       n.slug, n.status
FROM tokens t JOIN tenants n ON n.tenant_id = t.tenant_id WHERE t.tenant_id = $1 AND t.token_id = $2;

-- name: used
-- A date, and written once a day, so that reading does not become writing.
UPDATE tokens SET last_used_on = (now() AT TIME ZONE 'UTC')::date WHERE tenant_id = $1 AND token_id = $2;

-- name: list
-- All tokens of a tenant, the newest first; never what they are made of.
SELECT token_id, identity_type, identity_id, scopes, created_by, created_at, expires_at, revoked_at, last_used_on,
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'active' END AS state
FROM tokens WHERE tenant_id = $1 ORDER BY token_id DESC;

-- name: revoke
-- Once and for good; the moment of the first time stays.
UPDATE tokens SET revoked_at = coalesce(revoked_at, now()) WHERE tenant_id = $1 AND token_id = $2;
