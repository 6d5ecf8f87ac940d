-- name: record
-- One row for each (local version, remote value token); a closed one is opened again when the path must wait for a person.
INSERT INTO conflicts AS c (tenant_id, conflict_id, backend_id, secret_id, path, remote_path, kind, state, local_version, local_state,
  local_encoding, local_key_id, local_nonce, local_sealed, base_fp, remote_token, remote_order, remote_gone, remote_fp, remote_fp_key,
  remote_encoding, remote_key_id, remote_nonce, remote_sealed, sealed_as, opened_run, closed_at)
SELECT $1, x.conflict_id, $2, x.secret_id, x.path, x.remote_path, x.kind, x.state, x.local_version, x.local_state,
  x.local_encoding, x.local_key, x.local_nonce, x.local_sealed, x.base_fp, x.remote_token, x.remote_order, x.remote_gone, x.remote_fp,
  x.remote_fp_key, x.remote_encoding, x.remote_key, x.remote_nonce, x.remote_sealed, x.conflict_id, $3, CASE WHEN x.state <> 'open' THEN now() END
FROM unnest($4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[], $10::int[], $11::text[], $12::text[], $13::int[],
  $14::bytea[], $15::bytea[], $16::bytea[], $17::text[], $18::bigint[], $19::bool[], $20::bytea[], $21::int[], $22::text[], $23::int[],
  $24::bytea[], $25::bytea[])
  AS x(conflict_id, secret_id, path, remote_path, kind, state, local_version, local_state, local_encoding, local_key, local_nonce,
       local_sealed, base_fp, remote_token, remote_order, remote_gone, remote_fp, remote_fp_key, remote_encoding, remote_key,
       remote_nonce, remote_sealed)
ON CONFLICT (tenant_id, backend_id, path, local_version, remote_token) WHERE state <> 'superseded' DO UPDATE SET
  state = 'open', opened_run = excluded.opened_run, closed_at = NULL, updated_at = now(), resolved_by = NULL
WHERE excluded.state = 'open' AND c.state <> 'open'
RETURNING c.conflict_id, c.path, c.kind, c.state;

-- name: get_open
SELECT conflict_id, path, kind, local_version, local_state, remote_token, remote_order, remote_gone, remote_fp, remote_fp_key, remote_encoding,
       sealed_as
FROM conflicts
WHERE tenant_id = $1 AND backend_id = $2 AND path = ANY ($3::text[]) AND state = 'open' FOR UPDATE;

-- name: keep_sides
-- Before an open conflict moves on: what it holds is kept as a row of its own, and a closed twin of what it becomes steps aside.
WITH old AS (SELECT * FROM conflicts WHERE tenant_id = $1 AND conflict_id = $2 AND state = 'open'),
twin AS (UPDATE conflicts c SET state = 'superseded' FROM old
         WHERE c.tenant_id = $1 AND c.backend_id = old.backend_id AND c.path = old.path AND c.local_version = $4
           AND c.remote_token = $5 AND c.conflict_id <> old.conflict_id AND c.state <> 'superseded')
INSERT INTO conflicts (tenant_id, conflict_id, backend_id, secret_id, path, remote_path, kind, state, local_version, local_state,
  local_encoding, local_key_id, local_nonce, local_sealed, base_fp, remote_token, remote_order, remote_gone, remote_fp, remote_fp_key,
  remote_encoding, remote_key_id, remote_nonce, remote_sealed, sealed_as, opened_run, detected_at, closed_at)
SELECT tenant_id, $3, backend_id, secret_id, path, remote_path, kind, 'superseded', local_version, local_state, local_encoding,
  local_key_id, local_nonce, local_sealed, base_fp, remote_token, remote_order, remote_gone, remote_fp, remote_fp_key,
  remote_encoding, remote_key_id, remote_nonce, remote_sealed, sealed_as, opened_run, detected_at, now()
FROM old;

-- name: move_on
UPDATE conflicts SET local_version = $3, local_state = $4, local_encoding = $5, local_key_id = $6, local_nonce = $7, local_sealed = $8,
  remote_token = $9, remote_order = $10, remote_gone = $11, remote_fp = $12, remote_fp_key = $13, remote_encoding = $14,
  remote_key_id = $15, remote_nonce = $16, remote_sealed = $17, sealed_as = $18, updated_at = now()
WHERE tenant_id = $1 AND conflict_id = $2 AND state = 'open';

-- name: converge
-- Both sides say the same again: nobody has to decide any more.
UPDATE conflicts SET state = 'converged', closed_at = now(), updated_at = now()
WHERE tenant_id = $1 AND conflict_id = ANY ($2::text[]) AND state = 'open'
RETURNING conflict_id, path, kind;

-- name: list
-- By id, without any value; `now`: the local side as it stands by now, which the record learns of in the next run.
SELECT c.conflict_id, c.path, c.remote_path, c.kind, c.state, c.local_version, c.local_state, c.remote_token, c.remote_gone, c.detected_at,
       c.updated_at, c.closed_at, c.resolved_by, c.backend_id, s.state AS now_state, s.current_version AS now_version
FROM conflicts c JOIN secrets s ON s.tenant_id = c.tenant_id AND s.secret_id = c.secret_id
WHERE c.tenant_id = $1 AND c.backend_id = $2 AND ($3 OR c.state = 'open') AND c.conflict_id > $4
ORDER BY c.conflict_id LIMIT $5;

-- name: count_open
SELECT count(*) FROM conflicts WHERE tenant_id = $1 AND backend_id = $2 AND state = 'open';

-- name: get
-- One conflict with both sides sealed: the one of this id or, without one, the path's open or else its latest. `now`: the
-- local secret as it stands; its version is the current one of an open conflict, the recorded one of any other.
SELECT c.*, s.state AS now_state, s.current_version AS now_version, v.state AS version_state, v.version, v.encoding,
       v.key_id, v.nonce, v.sealed, v.created_at
FROM (SELECT * FROM conflicts WHERE tenant_id = $1 AND backend_id = $2 AND path = $3 AND ($4::text IS NULL OR conflict_id = $4)
        AND ($4 IS NOT NULL OR state <> 'superseded')
      ORDER BY state = 'open' DESC, detected_at DESC, conflict_id DESC LIMIT 1) c
JOIN secrets s ON s.tenant_id = c.tenant_id AND s.secret_id = c.secret_id
LEFT JOIN versions v ON v.tenant_id = c.tenant_id AND v.secret_id = c.secret_id
  AND v.version = CASE WHEN c.state = 'open' THEN s.current_version ELSE c.local_version END;

-- name: earlier
-- Sides that conflicts of a path had before they moved on, latest first; all are counted, the first are named.
SELECT conflict_id, count(*) OVER () AS many FROM conflicts
WHERE tenant_id = $1 AND backend_id = $2 AND path = $3 AND state = 'superseded'
ORDER BY conflict_id DESC LIMIT 100;

-- name: lock_pair
-- Between the secret, which is locked before it, and the conflict, which is locked after it.
SELECT FROM sync_state WHERE tenant_id = $1 AND backend_id = $2 AND remote_path = $3 AND status NOT IN ('detached', 'standby') FOR UPDATE;

-- name: settle_pair
-- Base is the remote side that a person saw when they decided. The next run looks at the pair, whatever its tokens say.
UPDATE sync_state SET base_kind = $4, base_fp = $5, base_fp_key = $6, base_value_token = $7, base_order = $8,
  base_tokens_left = $9::text[],
  base_moved_at = CASE WHEN $10::timestamptz IS DISTINCT FROM base_moved_at THEN now() ELSE base_moved_at END, settled_version = $11, base_raw_sealed = $12, base_raw_key = $13, base_raw_nonce = $14,
  status = $15, recheck = true, failures = 0, retry_at = NULL, reason = NULL,
  synced_at = CASE WHEN $15 = 'in_sync' THEN now() ELSE synced_at END
WHERE tenant_id = $1 AND backend_id = $2 AND remote_path = $3 AND status NOT IN ('detached', 'standby');

-- name: resolve
UPDATE conflicts SET state = 'resolved', resolved_by = $3, closed_at = now(), updated_at = now()
WHERE tenant_id = $1 AND conflict_id = $2 AND state = 'open';
