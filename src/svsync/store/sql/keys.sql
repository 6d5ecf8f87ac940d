-- name: root
SELECT root_id, kms_ref, wrapped, kms_ref_2, wrapped_2, state, created_at, extract(epoch FROM now() - created_at)::float8 AS age_s
FROM root_keys ORDER BY root_id DESC;

-- name: add_root
-- The first boot's root key. Where another process was faster, nothing is inserted and its key is used.
INSERT INTO root_keys (kms_ref, wrapped, kms_ref_2, wrapped_2) VALUES ($1, $2, $3, $4)
ON CONFLICT (state) WHERE state = 'active' DO NOTHING RETURNING root_id;

-- name: rewrap_root
-- Unless another process was faster: then what it stored stands.
UPDATE root_keys SET kms_ref = $4, wrapped = $5, kms_ref_2 = $6, wrapped_2 = $7
WHERE root_id = $1 AND wrapped = $2 AND wrapped_2 IS NOT DISTINCT FROM $3;

-- name: replace_root
-- A new root key in place of the one that wraps now, which only opens from then on. Nothing, where that is another one by now.
WITH old AS (UPDATE root_keys SET state = 'decrypt_only' WHERE root_id = $1 AND state = 'active' RETURNING root_id)
INSERT INTO root_keys (kms_ref, wrapped, kms_ref_2, wrapped_2) SELECT $2, $3, $4, $5 FROM old RETURNING root_id;

-- name: lock_active_root
-- It stays until the transaction ends, so that a data key that it wraps may be stored.
SELECT root_id FROM root_keys WHERE state = 'active' FOR KEY SHARE;

-- name: remove_roots
-- Root keys that wrap nothing any more, of any tenant.
DELETE FROM root_keys r WHERE state = 'decrypt_only' AND NOT EXISTS (SELECT FROM data_keys k WHERE k.root_id = r.root_id)
RETURNING root_id;

-- name: wrapped_by_others
SELECT key_id, purpose, root_id, wrapped FROM data_keys WHERE tenant_id = $1 AND root_id <> $2
ORDER BY key_id FOR NO KEY UPDATE;

-- name: wrap_anew
UPDATE data_keys SET root_id = $3, wrapped = $4 WHERE tenant_id = $1 AND key_id = $2;

-- name: tenants
-- All of them, whatever their state. `kept`: it was not shredded, so its keys open something.
SELECT tenant_id, slug, status <> 'shredded' AS kept FROM tenants ORDER BY tenant_id;

-- name: data_keys
SELECT key_id, purpose, state, root_id, wrapped, reserved, created_at, emptied_at,
       extract(epoch FROM now() - created_at)::float8 AS age_s
FROM data_keys WHERE tenant_id = $1 ORDER BY key_id;

-- name: data_key
SELECT key_id, purpose, state, root_id, wrapped, reserved, created_at FROM data_keys WHERE tenant_id = $1 AND key_id = $2;

-- name: reserve
-- A block of sealings of the active key, unless it is worn out by count or age: then nothing is returned.
UPDATE data_keys SET reserved = reserved + $3
WHERE tenant_id = $1 AND purpose = $2 AND state = 'active' AND reserved + $3 <= $4 AND created_at > now() - make_interval(secs => $5)
RETURNING key_id, root_id, wrapped;

-- name: lock_tenant
-- One at a time reserves sealings of a tenant, and makes its next data key.
SELECT pg_advisory_xact_lock(1398165838, $1);

-- name: next_key_id
SELECT coalesce(max(key_id), 0) + 1 FROM data_keys WHERE tenant_id = $1;

-- name: retire
UPDATE data_keys SET state = 'decrypt_only' WHERE tenant_id = $1 AND purpose = $2 AND state = 'active';

-- name: add_data_key
INSERT INTO data_keys (tenant_id, key_id, purpose, root_id, wrapped, reserved) VALUES ($1, $2, $3, $4, $5, $6);

-- name: active
SELECT key_id, root_id, wrapped, reserved, created_at FROM data_keys WHERE tenant_id = $1 AND purpose = $2 AND state = 'active';
