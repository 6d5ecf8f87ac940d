-- Secrets $1 to $2, in sync with what the backend in memory lists, in the likeness of those that svsync imported.
CREATE TEMP TABLE fresh AS
SELECT i, nextval('secret_ids') AS id, lpad((i / 1000)::text, 4, '0') || '/' || lpad(i::text, 7, '0') AS name
FROM generate_series($1::int, $2::int - 1) AS i;

INSERT INTO secrets (tenant_id, secret_id, path, state, current_version, last_version, secret_type)
SELECT 1, id, 'ext/' || name, 'live', 1, 1, 'json' FROM fresh;

INSERT INTO versions (tenant_id, secret_id, version, encoding, key_id, nonce, sealed, fp, fp_key_id, origin, remote_version, created_by,
  run_id)
SELECT 1, f.id, 1, 'json', v.key_id, v.nonce, v.sealed, sha256(int4send(f.i)), v.fp_key_id, v.origin, '1', v.created_by, v.run_id
FROM fresh f, (SELECT * FROM versions LIMIT 1) v;

INSERT INTO sync_state (tenant_id, backend_id, remote_path, path, secret_id, rule_ord, mapping_hash, base_pair, status, base_kind,
  base_fp, base_fp_key, base_value_token, base_meta_token, base_order, base_moved_at, remote_tags, settled_version, synced_at)
SELECT 1, p.backend_id, 'big/' || f.name, 'ext/' || f.name, f.id, p.rule_ord, p.mapping_hash, p.base_pair, p.status, 'value',
  sha256(int4send(f.i)), p.base_fp_key, '1|' || f.i || '|0|False', p.base_meta_token, 1, now(), p.remote_tags, 1, now()
FROM fresh f, (SELECT * FROM sync_state LIMIT 1) p;

VACUUM ANALYZE secrets, versions, sync_state
