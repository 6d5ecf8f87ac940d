-- name: load_new
-- For remote paths that no active pair knows: the local secret at the mapped path, the pair that was detached there (its
-- base counts again only if nothing moved since), and who else owns the path.
SELECT x.remote_path, x.path,
       s.secret_id, s.state AS local_state, s.current_version, s.last_version, s.row_rev, s.propagate,
       s.tags AS local_tags, s.custom AS local_custom,
       coalesce(s.written_at > b.claimed_at, false) AS written_after_claim,
       v.fp AS local_fp, v.fp_key_id AS local_fp_key,
       o.backend_id AS claimed_by, o.remote_path AS claimed_remote,
       EXISTS (SELECT FROM pushes u WHERE u.tenant_id = $1 AND u.backend_id = $2 AND u.path = x.path
               AND u.state IN ('planned', 'sent', 'unknown')) AS push_unfinished,
       d.base_kind, d.base_fp, d.base_fp_key, d.base_value_token, d.base_meta_token, d.base_order, d.base_moved_at,
       d.base_tokens_left, d.remote_tags, d.settled_version
FROM unnest($3::text[], $4::text[]) AS x(remote_path, path)
JOIN backends b ON b.tenant_id = $1 AND b.backend_id = $2
LEFT JOIN LATERAL (SELECT * FROM secrets s WHERE s.tenant_id = $1 AND s.path = x.path LIMIT 1) s ON true
LEFT JOIN LATERAL (SELECT * FROM versions v WHERE v.tenant_id = $1 AND v.secret_id = s.secret_id
                     AND v.version = s.current_version LIMIT 1) v ON true
LEFT JOIN LATERAL (SELECT * FROM sync_state o WHERE o.tenant_id = $1 AND o.path = x.path
                     AND o.status NOT IN ('detached', 'standby') LIMIT 1) o ON true
LEFT JOIN LATERAL (SELECT * FROM sync_state d WHERE d.tenant_id = $1 AND d.backend_id = $2 AND d.path = x.path
                     AND d.remote_path = x.remote_path AND d.status = 'detached' AND d.detached_version = s.current_version
                     AND d.detached_state = s.state AND d.base_pair = $5
                     AND d.detached_at > now() - interval '90 days' LIMIT 1) d ON true;

-- name: lock
-- The local rows a batch was decided for, locked; those that moved meanwhile are missing from the answer.
SELECT s.secret_id FROM secrets s
JOIN unnest($2::bigint[], $3::int[], $4::bigint[]) AS x(secret_id, version, row_rev)
  ON s.tenant_id = $1 AND s.secret_id = x.secret_id AND s.current_version = x.version AND s.row_rev = x.row_rev
ORDER BY s.secret_id FOR UPDATE OF s;

-- name: upsert
-- Where each pair stands after its decision. The exact remote text of base is replaced when base moved. A path that waits
-- for a person is not synced meanwhile.
INSERT INTO sync_state AS p (tenant_id, backend_id, remote_path, path, secret_id, rule_ord, mapping_hash, base_pair, status, base_kind,
  base_fp, base_fp_key, base_value_token, base_meta_token, base_order, base_tokens_left, base_moved_at, remote_tags, settled_version,
  base_raw_sealed, base_raw_key, base_raw_nonce, recheck, failures, retry_at, reason, synced_at)
SELECT $1, $2, x.remote_path, x.path, x.secret_id, x.rule_ord, $3, $4, x.status, x.base_kind, x.base_fp, x.base_fp_key,
  x.value_token, x.meta_token, x.ord, coalesce(string_to_array(x.tokens_left, E'\n'), '{}'), x.moved_at, x.remote_tags, x.settled,
  x.raw_sealed, x.raw_key, x.raw_nonce, x.recheck, 0, NULL, x.reason, CASE WHEN x.status <> 'conflict' THEN now() END
FROM unnest($5::text[], $6::text[], $7::bigint[], $8::int[], $9::text[], $10::text[], $11::bytea[], $12::int[], $13::text[], $14::text[],
  $15::bigint[], $16::text[], $17::timestamptz[], $18::text[], $19::int[], $20::bytea[], $21::int[], $22::bytea[], $23::bool[], $24::text[])
  AS x(remote_path, path, secret_id, rule_ord, status, base_kind, base_fp, base_fp_key, value_token, meta_token,
       ord, tokens_left, moved_at, remote_tags, settled, raw_sealed, raw_key, raw_nonce, recheck, reason)
ON CONFLICT (tenant_id, backend_id, path, remote_path) DO UPDATE SET
  secret_id = excluded.secret_id, rule_ord = excluded.rule_ord, mapping_hash = excluded.mapping_hash, base_pair = excluded.base_pair,
  status = excluded.status, base_kind = excluded.base_kind, base_fp = excluded.base_fp, base_fp_key = excluded.base_fp_key,
  base_value_token = excluded.base_value_token, base_meta_token = excluded.base_meta_token, base_order = excluded.base_order,
  base_tokens_left = excluded.base_tokens_left, base_moved_at = excluded.base_moved_at, remote_tags = excluded.remote_tags,
  settled_version = excluded.settled_version,
  base_raw_sealed = CASE WHEN excluded.base_moved_at IS NOT DISTINCT FROM p.base_moved_at THEN p.base_raw_sealed ELSE excluded.base_raw_sealed END,
  base_raw_key = CASE WHEN excluded.base_moved_at IS NOT DISTINCT FROM p.base_moved_at THEN p.base_raw_key ELSE excluded.base_raw_key END,
  base_raw_nonce = CASE WHEN excluded.base_moved_at IS NOT DISTINCT FROM p.base_moved_at THEN p.base_raw_nonce ELSE excluded.base_raw_nonce END,
  recheck = excluded.recheck, failures = 0, retry_at = NULL, reason = excluded.reason, synced_at = coalesce(excluded.synced_at, p.synced_at),
  detached_at = NULL, detached_version = NULL, detached_state = NULL, moved_to = NULL;

-- name: skip
-- What could not be looked at this time: base, value and local side stay as they are; the reason and the count of
-- failures are kept, and when to try again. It is looked at again whatever its tokens say, so that its state does not lie: a
-- conflict that was resolved while the run was under way waits no more, and no skip opens one.
-- A pair that is detached stays so until its value can be read: its old base must not decide about another store.
INSERT INTO sync_state AS p (tenant_id, backend_id, remote_path, path, rule_ord, mapping_hash, base_pair, status, failures, retry_at, reason,
  recheck)
SELECT $1, $2, x.remote_path, x.path, x.rule_ord, $3, $4, x.status, x.failures, now() + make_interval(secs => x.retry_s), x.reason, true
FROM unnest($5::text[], $6::text[], $7::int[], $8::text[], $9::int[], $10::float8[], $11::text[])
  AS x(remote_path, path, rule_ord, status, failures, retry_s, reason)
ON CONFLICT (tenant_id, backend_id, path, remote_path) DO UPDATE SET
  status = CASE WHEN p.status IN ('conflict', 'pending_push') OR excluded.status NOT IN ('denied', 'quarantined', 'pending_push')
                THEN p.status ELSE excluded.status END,
  failures = excluded.failures, retry_at = excluded.retry_at, reason = excluded.reason, recheck = true
WHERE p.status <> 'detached';

-- name: forget_unsettled
-- Gone now, and nothing was ever settled: they are no pairs (any more). But not where somebody made a secret there meanwhile
-- (`$4`: one was seen, and is locked), or a push is under way.
DELETE FROM sync_state p USING unnest($3::text[], $4::bool[]) AS x(remote_path, seen)
WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.base_kind = 'none' AND p.remote_path = x.remote_path
  AND p.status NOT IN ('detached', 'standby')
  AND (x.seen OR NOT EXISTS (SELECT FROM secrets s WHERE s.tenant_id = $1 AND s.path = p.path AND s.state <> 'void'))
  AND NOT EXISTS (SELECT FROM pushes u WHERE u.tenant_id = $1 AND u.backend_id = $2 AND u.path = p.path
                  AND u.state IN ('planned', 'sent', 'unknown'));

-- name: active
-- Active pairs by remote path, a page at a time.
SELECT remote_path, path, base_pair FROM sync_state
WHERE tenant_id = $1 AND backend_id = $2 AND remote_path > $3 AND status NOT IN ('detached', 'standby')
ORDER BY remote_path LIMIT $4;

-- name: tagged
-- Active pairs with raw tags, each with its secret's tag strings, locked; a page at a time.
SELECT p.remote_path, p.rule_ord, p.remote_tags, s.secret_id, s.tags, s.custom
FROM sync_state p JOIN secrets s ON s.tenant_id = p.tenant_id AND s.path = p.path
WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.remote_path > $3 AND p.remote_tags IS NOT NULL AND p.remote_tags <> '{}'
  AND p.status NOT IN ('detached', 'standby')
ORDER BY p.remote_path LIMIT $4 FOR UPDATE OF s;

-- name: active_below
-- Active pairs whose local path begins with a literal prefix, a page at a time.
SELECT remote_path, path FROM sync_state
WHERE tenant_id = $1 AND path > $3 AND path >= $4 AND starts_with(path, $4) AND backend_id = $2
  AND status NOT IN ('detached', 'standby')
ORDER BY path LIMIT $5;

-- name: unjoined
-- Live secrets whose path begins with a literal prefix and that no pair joins, a page at a time.
SELECT s.path FROM secrets s
WHERE s.tenant_id = $1 AND s.path > $2 AND s.path >= $3 AND starts_with(s.path, $3) AND s.state = 'live'
  AND NOT EXISTS (SELECT FROM sync_state p WHERE p.tenant_id = $1 AND p.path = s.path AND p.status NOT IN ('detached', 'standby'))
ORDER BY s.path LIMIT $4;

-- name: lock_secrets
SELECT 1 FROM secrets s WHERE s.tenant_id = $1 AND s.path = ANY ($2::text[]) ORDER BY s.secret_id FOR UPDATE;

-- name: detach
-- These pairs left the mapping; one whose push is not settled yet stays for now. The local secret stays as it is; an open conflict is closed with its values kept.
WITH gone AS (
  UPDATE sync_state p SET status = 'detached', detached_at = now(), recheck = false, moved_to = x.moved_to,
    detached_version = s.current_version, detached_state = s.state
  FROM unnest($3::text[], $4::text[]) AS x(remote_path, moved_to), sync_state q
    LEFT JOIN secrets s ON s.tenant_id = $1 AND s.path = q.path
  WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.remote_path = x.remote_path AND p.status NOT IN ('detached', 'standby')
    AND NOT EXISTS (SELECT FROM pushes u WHERE u.tenant_id = $1 AND u.backend_id = $2 AND u.path = p.path
                    AND u.state IN ('planned', 'sent', 'unknown'))
    AND q.tenant_id = p.tenant_id AND q.backend_id = p.backend_id AND q.path = p.path AND q.remote_path = p.remote_path
  RETURNING p.path, p.remote_path),
closed AS (
  UPDATE conflicts c SET state = 'detached', closed_at = now(), updated_at = now() FROM gone
  WHERE c.tenant_id = $1 AND c.backend_id = $2 AND c.path = gone.path AND c.state = 'open'),
tombs AS (
  UPDATE secrets s SET propagate = false FROM gone WHERE s.tenant_id = $1 AND s.path = gone.path AND s.propagate)
SELECT remote_path FROM gone;

-- name: retag
-- Rule numbers may change with the rules while the pair stays the same pair.
UPDATE sync_state p SET rule_ord = x.rule_ord, mapping_hash = $3
FROM unnest($4::text[], $5::int[]) AS x(remote_path, rule_ord)
WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.remote_path = x.remote_path AND p.status NOT IN ('detached', 'standby');

-- name: recheck_all
-- After a change of settings every pair that is not simply in sync is looked at again.
UPDATE sync_state SET recheck = true
WHERE tenant_id = $1 AND backend_id = $2 AND status NOT IN ('detached', 'standby', 'in_sync');

-- name: any_settled
-- Has this backend brought in anything yet?
SELECT EXISTS (SELECT FROM sync_state WHERE tenant_id = $1 AND backend_id = $2 AND base_kind = 'value'
                 AND status NOT IN ('detached', 'standby', 'quarantined'));

-- name: counts
-- What `status` shows, counted once at the end of a run.
SELECT count(*) FILTER (WHERE base_kind = 'value' AND status <> 'quarantined') AS synced,
       count(*) FILTER (WHERE status = 'diverged') AS diverged,
       count(*) FILTER (WHERE status = 'quarantined') AS quarantined,
       count(*) FILTER (WHERE status = 'retained') AS retained,
       count(*) FILTER (WHERE status = 'denied') AS denied
FROM sync_state WHERE tenant_id = $1 AND backend_id = $2 AND status NOT IN ('detached', 'standby');

-- name: load
-- Active pairs as they stand now, each with its local secret.
SELECT p.remote_path, p.path, p.base_pair, p.rule_ord, p.status, p.base_kind, p.base_fp, p.base_fp_key, p.base_value_token, p.base_meta_token,
       p.base_order, p.base_moved_at, p.base_tokens_left, p.remote_tags, p.settled_version, p.failures, p.recheck,
       s.secret_id, s.state AS local_state, s.current_version, s.last_version, s.row_rev, s.propagate,
       s.tags AS local_tags, s.custom AS local_custom,
       coalesce(s.written_at > coalesce(p.claimed_at, b.claimed_at), false) AS written_after_claim,
       v.fp AS local_fp, v.fp_key_id AS local_fp_key,
       (SELECT c.conflict_id FROM conflicts c WHERE c.tenant_id = $1 AND c.backend_id = $2 AND c.path = p.path
          AND c.state = 'open') AS conflict_id,
       EXISTS (SELECT FROM pushes u WHERE u.tenant_id = $1 AND u.backend_id = $2 AND u.path = p.path
               AND u.state IN ('planned', 'sent', 'unknown')) AS push_unfinished
FROM sync_state p
JOIN backends b ON b.tenant_id = $1 AND b.backend_id = $2
LEFT JOIN LATERAL (SELECT * FROM secrets s WHERE s.tenant_id = $1 AND s.path = p.path LIMIT 1) s ON true
LEFT JOIN LATERAL (SELECT * FROM versions v WHERE v.tenant_id = $1 AND v.secret_id = s.secret_id
                     AND v.version = s.current_version LIMIT 1) v ON true
WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.remote_path = ANY ($3::text[]) AND p.status NOT IN ('detached', 'standby');
