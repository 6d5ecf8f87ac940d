-- Each place that holds sealed values has two statements. `find`: a page of its rows behind a key, of at most so many rows and
-- about so many bytes of values; what stands under one of the old keys is `stale`, and comes with all that it is bound to. `put`:
-- the same rows sealed anew, those that are still what was found and that nobody has in hand. It waits for nobody.

-- name: retired
-- Data keys that only open, of the purposes that seal.
SELECT key_id, purpose FROM data_keys
WHERE tenant_id = $1 AND state = 'decrypt_only' AND purpose IN ('value', 'webhook') ORDER BY key_id;

-- name: count
-- How many rows name each data key, and how many of them hold something that it sealed.
SELECT key_id, count(*) AS named, count(*) FILTER (WHERE holds) AS sealed FROM (
  SELECT key_id, sealed IS NOT NULL AS holds FROM versions WHERE tenant_id = $1
  UNION ALL SELECT base_raw_key, true FROM sync_state WHERE tenant_id = $1 AND base_raw_key IS NOT NULL
  UNION ALL SELECT before_key_id, true FROM pushes WHERE tenant_id = $1 AND before_key_id IS NOT NULL
  UNION ALL SELECT local_key_id, true FROM conflicts WHERE tenant_id = $1 AND local_key_id IS NOT NULL
  UNION ALL SELECT remote_key_id, true FROM conflicts WHERE tenant_id = $1 AND remote_key_id IS NOT NULL
  UNION ALL SELECT key_id, true FROM endpoints WHERE tenant_id = $1) x
GROUP BY key_id;

-- name: lock_retired
-- Nobody seals under it while this holds. `due`: for so many seconds nothing was. Nothing, where somebody else has it in hand.
SELECT emptied_at IS NOT NULL AS emptied, coalesce(emptied_at <= now() - make_interval(secs => $3), false) AS due
FROM data_keys WHERE tenant_id = $1 AND key_id = $2 AND state = 'decrypt_only' FOR UPDATE SKIP LOCKED;

-- name: is_named
SELECT EXISTS (SELECT FROM versions WHERE tenant_id = $1 AND key_id = $2)
    OR EXISTS (SELECT FROM sync_state WHERE tenant_id = $1 AND base_raw_key = $2)
    OR EXISTS (SELECT FROM pushes WHERE tenant_id = $1 AND before_key_id = $2)
    OR EXISTS (SELECT FROM conflicts WHERE tenant_id = $1 AND (local_key_id = $2 OR remote_key_id = $2))
    OR EXISTS (SELECT FROM endpoints WHERE tenant_id = $1 AND key_id = $2);

-- name: set_emptied
UPDATE data_keys SET emptied_at = CASE WHEN $3 THEN now() END WHERE tenant_id = $1 AND key_id = $2;

-- name: remove
-- Refused, whatever was seen, where anything names it.
DELETE FROM data_keys WHERE tenant_id = $1 AND key_id = $2 AND state = 'decrypt_only';

-- name: find_versions
WITH page AS (
  SELECT secret_id, version, key_id, nonce, sealed, key_id = ANY ($5::int[]) AS stale FROM versions
  WHERE tenant_id = $1 AND (secret_id, version) > ($2, $3) ORDER BY secret_id, version LIMIT $4),
sized AS (
  SELECT *, sum(CASE WHEN stale THEN octet_length(sealed) END)
    OVER (ORDER BY secret_id, version ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM page)
SELECT z.secret_id, z.version, z.stale, z.key_id, z.nonce, CASE WHEN z.stale THEN z.sealed END AS sealed,
       s.path, '' AS extra
FROM sized z JOIN secrets s ON s.tenant_id = $1 AND s.secret_id = z.secret_id
WHERE coalesce(z.before, 0) < $6 ORDER BY z.secret_id, z.version;

-- name: put_versions
WITH x AS (SELECT * FROM unnest($3::bigint[], $4::int[], $5::bytea[], $6::bytea[], $7::bytea[]) AS x(secret_id, version, was, nonce, sealed)),
free AS (
  SELECT v.secret_id, v.version FROM versions v JOIN x USING (secret_id, version)
  WHERE v.tenant_id = $1 AND v.nonce IS NOT DISTINCT FROM x.was FOR NO KEY UPDATE OF v SKIP LOCKED)
UPDATE versions v SET key_id = $2, nonce = x.nonce, sealed = x.sealed FROM x JOIN free USING (secret_id, version)
WHERE v.tenant_id = $1 AND v.secret_id = x.secret_id AND v.version = x.version AND v.nonce IS NOT DISTINCT FROM x.was;

-- name: find_bases
WITH page AS (
  SELECT backend_id, path, remote_path, secret_id, base_raw_key AS key_id, base_raw_nonce AS nonce, base_raw_sealed AS sealed,
         coalesce(base_raw_key = ANY ($6::int[]), false) AS stale FROM sync_state
  WHERE tenant_id = $1 AND (backend_id, path, remote_path) > ($2, $3, $4) ORDER BY backend_id, path, remote_path LIMIT $5),
sized AS (
  SELECT *, sum(CASE WHEN stale THEN octet_length(sealed) END)
    OVER (ORDER BY backend_id, path, remote_path ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM page)
SELECT backend_id, path, remote_path, stale, key_id, nonce, CASE WHEN stale THEN sealed END AS sealed,
       coalesce(secret_id, 0) AS secret_id, 0 AS version, remote_path AS extra
FROM sized WHERE coalesce(before, 0) < $7 ORDER BY backend_id, path, remote_path;

-- name: put_bases
WITH x AS (SELECT * FROM unnest($3::text[], $4::text[], $5::text[], $6::bytea[], $7::bytea[], $8::bytea[])
             AS x(backend_id, path, remote_path, was, nonce, sealed)),
free AS (
  SELECT p.backend_id, p.path, p.remote_path FROM sync_state p JOIN x USING (backend_id, path, remote_path)
  WHERE p.tenant_id = $1 AND p.base_raw_nonce = x.was FOR NO KEY UPDATE OF p SKIP LOCKED)
UPDATE sync_state p SET base_raw_key = $2, base_raw_nonce = x.nonce, base_raw_sealed = x.sealed
FROM x JOIN free USING (backend_id, path, remote_path)
WHERE p.tenant_id = $1 AND p.backend_id = x.backend_id AND p.path = x.path AND p.remote_path = x.remote_path
  AND p.base_raw_nonce = x.was;

-- name: find_pushes
WITH page AS (
  SELECT push_id, secret_id, path, before_key_id AS key_id, before_nonce AS nonce, before_sealed AS sealed,
         coalesce(before_key_id = ANY ($4::int[]), false) AS stale FROM pushes
  WHERE tenant_id = $1 AND push_id > $2 ORDER BY push_id LIMIT $3),
sized AS (
  SELECT *, sum(CASE WHEN stale THEN octet_length(sealed) END)
    OVER (ORDER BY push_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM page)
SELECT push_id, stale, key_id, nonce, CASE WHEN stale THEN sealed END AS sealed, secret_id, path, 0 AS version, push_id AS extra
FROM sized WHERE coalesce(before, 0) < $5 ORDER BY push_id;

-- name: put_pushes
WITH x AS (SELECT * FROM unnest($3::text[], $4::bytea[], $5::bytea[], $6::bytea[]) AS x(push_id, was, nonce, sealed)),
free AS (
  SELECT u.push_id FROM pushes u JOIN x USING (push_id)
  WHERE u.tenant_id = $1 AND u.before_nonce = x.was FOR NO KEY UPDATE OF u SKIP LOCKED)
UPDATE pushes u SET before_key_id = $2, before_nonce = x.nonce, before_sealed = x.sealed FROM x JOIN free USING (push_id)
WHERE u.tenant_id = $1 AND u.push_id = x.push_id AND u.before_nonce = x.was;

-- name: find_local_sides
WITH page AS (
  SELECT conflict_id, secret_id, path, sealed_as, local_key_id AS key_id, local_nonce AS nonce, local_sealed AS sealed,
         coalesce(local_key_id = ANY ($4::int[]), false) AS stale FROM conflicts
  WHERE tenant_id = $1 AND conflict_id > $2 ORDER BY conflict_id LIMIT $3),
sized AS (
  SELECT *, sum(CASE WHEN stale THEN octet_length(sealed) END)
    OVER (ORDER BY conflict_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM page)
SELECT conflict_id, stale, key_id, nonce, CASE WHEN stale THEN sealed END AS sealed, secret_id, path, 0 AS version, sealed_as AS extra
FROM sized WHERE coalesce(before, 0) < $5 ORDER BY conflict_id;

-- name: put_local_sides
WITH x AS (SELECT * FROM unnest($3::text[], $4::bytea[], $5::bytea[], $6::bytea[]) AS x(conflict_id, was, nonce, sealed)),
free AS (
  SELECT c.conflict_id FROM conflicts c JOIN x USING (conflict_id)
  WHERE c.tenant_id = $1 AND c.local_nonce = x.was FOR NO KEY UPDATE OF c SKIP LOCKED)
UPDATE conflicts c SET local_key_id = $2, local_nonce = x.nonce, local_sealed = x.sealed FROM x JOIN free USING (conflict_id)
WHERE c.tenant_id = $1 AND c.conflict_id = x.conflict_id AND c.local_nonce = x.was;

-- name: find_remote_sides
WITH page AS (
  SELECT conflict_id, secret_id, path, sealed_as, remote_key_id AS key_id, remote_nonce AS nonce, remote_sealed AS sealed,
         coalesce(remote_key_id = ANY ($4::int[]), false) AS stale FROM conflicts
  WHERE tenant_id = $1 AND conflict_id > $2 ORDER BY conflict_id LIMIT $3),
sized AS (
  SELECT *, sum(CASE WHEN stale THEN octet_length(sealed) END)
    OVER (ORDER BY conflict_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM page)
SELECT conflict_id, stale, key_id, nonce, CASE WHEN stale THEN sealed END AS sealed, secret_id, path, 0 AS version, sealed_as AS extra
FROM sized WHERE coalesce(before, 0) < $5 ORDER BY conflict_id;

-- name: put_remote_sides
WITH x AS (SELECT * FROM unnest($3::text[], $4::bytea[], $5::bytea[], $6::bytea[]) AS x(conflict_id, was, nonce, sealed)),
free AS (
  SELECT c.conflict_id FROM conflicts c JOIN x USING (conflict_id)
  WHERE c.tenant_id = $1 AND c.remote_nonce = x.was FOR NO KEY UPDATE OF c SKIP LOCKED)
UPDATE conflicts c SET remote_key_id = $2, remote_nonce = x.nonce, remote_sealed = x.sealed FROM x JOIN free USING (conflict_id)
WHERE c.tenant_id = $1 AND c.conflict_id = x.conflict_id AND c.remote_nonce = x.was;

-- name: find_endpoints
WITH page AS (
  SELECT endpoint_id, key_id, nonce, sealed, key_id = ANY ($4::int[]) AS stale FROM endpoints
  WHERE tenant_id = $1 AND endpoint_id > $2 ORDER BY endpoint_id LIMIT $3),
sized AS (
  SELECT *, sum(CASE WHEN stale THEN octet_length(sealed) END)
    OVER (ORDER BY endpoint_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM page)
SELECT endpoint_id, stale, key_id, nonce, CASE WHEN stale THEN sealed END AS sealed, 0::bigint AS secret_id, '' AS path, 0 AS version,
       endpoint_id AS extra
FROM sized WHERE coalesce(before, 0) < $5 ORDER BY endpoint_id;

-- name: put_endpoints
-- `rotated_at` stays: the secrets are the same.
WITH x AS (SELECT * FROM unnest($3::text[], $4::bytea[], $5::bytea[], $6::bytea[]) AS x(endpoint_id, was, nonce, sealed)),
free AS (
  SELECT e.endpoint_id FROM endpoints e JOIN x USING (endpoint_id)
  WHERE e.tenant_id = $1 AND e.nonce = x.was FOR NO KEY UPDATE OF e SKIP LOCKED)
UPDATE endpoints e SET key_id = $2, nonce = x.nonce, sealed = x.sealed FROM x JOIN free USING (endpoint_id)
WHERE e.tenant_id = $1 AND e.endpoint_id = x.endpoint_id AND e.nonce = x.was;
