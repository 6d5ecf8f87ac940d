-- name: next_ids
-- Numbers for new secrets, drawn before sealing because the ciphertext is bound to them.
SELECT nextval('secret_ids') AS secret_id FROM generate_series(1, $1);

-- name: create
-- New secrets; a path that somebody else made meanwhile is missing from the answer.
INSERT INTO secrets (tenant_id, secret_id, path, state, current_version, last_version, secret_type, tags, custom, max_versions, updated_at)
SELECT $1, x.secret_id, x.path, 'live', x.version, x.version, x.secret_type,
       CASE WHEN x.tags = '[]' THEN '{}' ELSE ARRAY(SELECT json_array_elements_text(x.tags::json)) END, x.custom, NULL, now()
FROM unnest($2::bigint[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[])
  AS x(secret_id, path, version, secret_type, tags, custom)
ON CONFLICT (tenant_id, path) DO NOTHING
RETURNING secret_id;

-- name: advance
-- New current versions of locked secrets, with the metadata that came along. One of which nothing but the counter was left
-- takes its label from the value, as a new one does.
UPDATE secrets s SET current_version = x.version, last_version = x.version, state = 'live', deleted_at = NULL, propagate = false,
  secret_type = CASE WHEN s.state <> 'void' THEN s.secret_type ELSE coalesce(
    (SELECT v.encoding FROM versions v WHERE v.tenant_id = $1 AND v.secret_id = x.secret_id AND v.version = x.version), s.secret_type) END,
  tags = CASE WHEN x.tags IS NULL THEN s.tags WHEN x.tags = '[]' THEN '{}'
              ELSE ARRAY(SELECT json_array_elements_text(x.tags::json)) END,
  custom = coalesce(x.custom, s.custom), row_rev = s.row_rev + 1, updated_at = now()
FROM unnest($2::bigint[], $3::int[], $4::text[], $5::text[]) AS x(secret_id, version, tags, custom)
WHERE s.tenant_id = $1 AND s.secret_id = x.secret_id;

-- name: describe
-- Metadata alone: no new version.
UPDATE secrets s SET tags = CASE WHEN x.tags = '[]' THEN '{}' ELSE ARRAY(SELECT json_array_elements_text(x.tags::json)) END,
  custom = x.custom, row_rev = s.row_rev + 1, updated_at = now()
FROM unnest($2::bigint[], $3::text[], $4::text[]) AS x(secret_id, tags, custom)
WHERE s.tenant_id = $1 AND s.secret_id = x.secret_id;

-- name: bury
-- Tombstones made by the engine: the history stays, the number stays, nothing propagates.
UPDATE secrets SET state = 'deleted', deleted_at = now(), propagate = false, row_rev = row_rev + 1, updated_at = now()
WHERE tenant_id = $1 AND secret_id = ANY ($2::bigint[]);

-- name: add_versions
INSERT INTO versions (tenant_id, secret_id, version, encoding, key_id, nonce, sealed, fp, fp_key_id, origin, remote_version,
  created_at, created_by, run_id)
SELECT $1, x.secret_id, x.version, x.encoding, x.key_id, x.nonce, x.sealed, x.fp, x.fp_key, x.origin, x.remote_version,
  coalesce(x.created_at, now()), $2, $3
FROM unnest($4::bigint[], $5::int[], $6::text[], $7::int[], $8::bytea[], $9::bytea[], $10::bytea[], $11::int[], $12::text[],
  $13::text[], $14::timestamptz[])
  AS x(secret_id, version, encoding, key_id, nonce, sealed, fp, fp_key, origin, remote_version, created_at);

-- name: sealed_current
-- The sealed current versions of some secrets, for the local side of a conflict.
SELECT s.secret_id, s.path, v.version, v.encoding, v.key_id, v.nonce, v.sealed FROM secrets s
JOIN versions v ON v.tenant_id = s.tenant_id AND v.secret_id = s.secret_id AND v.version = s.current_version
WHERE s.tenant_id = $1 AND s.secret_id = ANY ($2::bigint[]) AND v.state = 'live' AND v.sealed IS NOT NULL;

-- name: get
-- One secret with one version of it (the current one where none is named) and the pair that federates it; without the
-- number of its rule where the rules changed and no run has mapped it anew.
SELECT s.secret_id, s.path, s.state, s.current_version, s.secret_type, s.tags, s.owner, s.description, s.custom, s.row_rev,
       s.created_at AS secret_created_at, s.updated_at, v.version, v.state AS version_state, v.encoding, v.key_id, v.nonce, v.sealed,
       v.created_at, v.origin, p.backend_id, p.status, p.synced_at, b.spec,
       CASE WHEN p.mapping_hash = b.mapping_hash THEN p.rule_ord END AS rule_ord
FROM secrets s
LEFT JOIN versions v ON v.tenant_id = s.tenant_id AND v.secret_id = s.secret_id AND v.version = coalesce($3::int, s.current_version)
LEFT JOIN sync_state p ON p.tenant_id = s.tenant_id AND p.path = s.path AND p.status NOT IN ('detached', 'standby')
LEFT JOIN backends b ON b.tenant_id = p.tenant_id AND b.backend_id = p.backend_id
WHERE s.tenant_id = $1 AND s.path = $2;

-- name: list
-- Live secrets whose path begins with a string, by path.
SELECT s.path, s.current_version AS version, s.secret_type, s.tags, s.owner, s.description, s.custom, s.updated_at,
       coalesce(p.status, 'local') AS status
FROM secrets s
LEFT JOIN sync_state p ON p.tenant_id = s.tenant_id AND p.path = s.path AND p.status NOT IN ('detached', 'standby')
WHERE s.tenant_id = $1 AND s.path >= $2 AND starts_with(s.path, $2) AND s.path > $3 AND s.state = 'live'
ORDER BY s.path LIMIT $4;

-- name: history
-- Copies that a flip to proxy mode hid have none to be shown.
SELECT v.version, v.state, v.origin, v.remote_version, v.created_at, v.created_by, v.run_id
FROM secrets s JOIN versions v ON v.tenant_id = s.tenant_id AND v.secret_id = s.secret_id
WHERE s.tenant_id = $1 AND s.path = $2 AND v.version < $3 AND s.state <> 'hidden'
ORDER BY v.version DESC LIMIT $4;

-- name: for_write
-- The row a local write is made for, locked.
SELECT s.secret_id, s.state, s.current_version, s.last_version, s.row_rev, s.secret_type, s.tags, s.owner, s.description, s.custom,
       s.max_versions, v.fp, v.fp_key_id
FROM secrets s
LEFT JOIN versions v ON v.tenant_id = s.tenant_id AND v.secret_id = s.secret_id AND v.version = s.current_version
WHERE s.tenant_id = $1 AND s.path = $2
FOR UPDATE OF s;

-- name: write_new
-- A secret's first version; with a pending one there is nothing to be read yet.
INSERT INTO secrets (tenant_id, secret_id, path, state, current_version, last_version, secret_type, tags, owner, description, custom,
  max_versions, written_at)
SELECT $1, $2, $3, CASE WHEN $10 THEN 'pending' ELSE 'live' END, CASE WHEN $10 THEN 0 ELSE 1 END, 1, $4, $5::text[], $6, $7, $8, $9, now()
ON CONFLICT (tenant_id, path) DO NOTHING
RETURNING created_at;

-- name: write_next
UPDATE secrets SET state = 'live', deleted_at = NULL, propagate = false, current_version = $3, last_version = $3, secret_type = $4,
  tags = $5::text[], owner = $6, description = $7, custom = $8, max_versions = $9, row_rev = row_rev + 1, updated_at = now(),
  written_at = now()
WHERE tenant_id = $1 AND secret_id = $2;

-- name: reserve_next
-- The number of a pending version is given out; nothing else of the secret changes before it lands.
UPDATE secrets SET last_version = $3, state = CASE WHEN state = 'void' THEN 'pending' ELSE state END
WHERE tenant_id = $1 AND secret_id = $2;

-- name: mark_pending
UPDATE versions SET state = 'pending' WHERE tenant_id = $1 AND secret_id = $2 AND version = $3;

-- name: redescribe
-- Metadata of a write whose value is the one that is there: no new version.
UPDATE secrets SET secret_type = $3, tags = $4::text[], owner = $5, description = $6, custom = $7, max_versions = $8,
  row_rev = row_rev + 1, updated_at = now()
WHERE tenant_id = $1 AND secret_id = $2;

-- name: bury_written
-- A delete by a person or program. `propagate`: the tombstone may delete in the backend too.
UPDATE secrets SET state = 'deleted', deleted_at = now(), propagate = $3, row_rev = row_rev + 1, updated_at = now(), written_at = now()
WHERE tenant_id = $1 AND secret_id = $2;

-- name: sealed_version
-- One version that can still be read.
SELECT v.version, v.encoding, v.key_id, v.nonce, v.sealed FROM versions v
WHERE v.tenant_id = $1 AND v.secret_id = $2 AND v.version = $3 AND v.state = 'live' AND v.sealed IS NOT NULL;

-- name: mark_written
-- A local write makes the next run look at the pair, whatever its tokens say.
-- `$3`: what it is from here on, where it was settled, or is to be written there; `$4`: the fingerprint written.
UPDATE sync_state SET recheck = true,
  status = CASE WHEN $3::text IS NULL THEN status
                WHEN status NOT IN ('in_sync', 'retained', 'diverged', 'pending_push') AND NOT (status = 'initial' AND $3 = 'pending_push')
                  THEN status
                WHEN base_kind = 'value' AND base_fp = $4::bytea THEN 'in_sync'
                ELSE $3 END
WHERE tenant_id = $1 AND path = $2 AND status NOT IN ('detached', 'standby');

-- name: claim_written
-- A path that is written through has a pair from its first write on, so that the next run asks for it by name. One that was
-- detached begins anew: what it last agreed on was settled for another version. The backend's claim of now stays the path's,
-- whatever becomes of the mapping's other rules.
INSERT INTO sync_state AS p (tenant_id, backend_id, remote_path, path, secret_id, rule_ord, mapping_hash, base_pair, status, recheck,
  claimed_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, true, b.claimed_at FROM backends b
WHERE b.tenant_id = $1 AND b.backend_id = $2 AND NOT EXISTS (SELECT FROM sync_state o WHERE o.tenant_id = $1 AND o.path = $4 AND o.status NOT IN ('detached', 'standby'))
  AND NOT EXISTS (SELECT FROM sync_state o WHERE o.tenant_id = $1 AND o.backend_id = $2 AND o.remote_path = $3
                  AND o.status NOT IN ('detached', 'standby'))
ON CONFLICT (tenant_id, backend_id, path, remote_path) DO UPDATE SET
  secret_id = excluded.secret_id, rule_ord = excluded.rule_ord, mapping_hash = excluded.mapping_hash, base_pair = excluded.base_pair,
  status = excluded.status, recheck = true, claimed_at = excluded.claimed_at, base_kind = 'none', base_fp = NULL, base_fp_key = NULL, base_value_token = NULL,
  base_meta_token = NULL, base_order = NULL, base_tokens_left = '{}', base_moved_at = NULL, base_raw_sealed = NULL, base_raw_key = NULL,
  base_raw_nonce = NULL, remote_tags = NULL, settled_version = NULL, failures = 0, retry_at = NULL, reason = NULL, detached_at = NULL,
  detached_version = NULL, detached_state = NULL, moved_to = NULL
WHERE p.status = 'detached';

-- name: in_ranges
-- The secrets in some ranges of paths, in order, of every state.
SELECT * FROM svsync_list($1, $2::text[], $3::text[], $4);
