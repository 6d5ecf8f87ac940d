-- name: plan
-- Write pushes down before their calls. Their secrets' row_rev rises, so that no decision made before this one is applied.
WITH x AS (
  SELECT * FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::int[], $9::bool[], $10::text[], $11::text[],
                       $12::bigint[], $13::bytea[], $14::int[])
    AS x(push_id, path, remote_path, kind, secret_id, version, pending, metadata, expected_token, expected_order, target_fp, target_fp_key)),
raised AS (
  UPDATE secrets s SET row_rev = s.row_rev + 1 FROM x WHERE s.tenant_id = $1 AND s.secret_id = x.secret_id
  RETURNING s.secret_id, s.row_rev)
INSERT INTO pushes (tenant_id, push_id, backend_id, path, remote_path, kind, secret_id, version, pending, metadata, expected_token,
  expected_order, target_fp, target_fp_key, row_rev, fence, run_id, created_by, deadline)
SELECT $1, x.push_id, $2, x.path, x.remote_path, x.kind, x.secret_id, x.version, x.pending, x.metadata, x.expected_token, x.expected_order,
  x.target_fp, x.target_fp_key, raised.row_rev, $15, $16, $17, clock_timestamp() + make_interval(secs => $18)
FROM x JOIN raised USING (secret_id);

-- name: send
-- Taken in hand: from here on the call may have been made.
UPDATE pushes SET state = 'sent', sent_at = clock_timestamp(), deadline = clock_timestamp() + make_interval(secs => $3),
  attempts = attempts + 1
WHERE tenant_id = $1 AND push_id = ANY ($2::text[]) AND state = 'planned'
RETURNING push_id, attempts;

-- name: load
-- Pushes with what their making needs: the sealed version, the pair as it stands, the local tags, and the secret's name.
SELECT u.push_id, u.path, u.remote_path, u.kind, u.state AS push_state, u.secret_id AS pushed_secret, u.version, u.pending, u.metadata,
       u.expected_token, u.expected_order, u.target_fp, u.target_fp_key, u.attempts, u.row_rev AS planned_rev, u.created_by, u.sent_at,
       v.encoding, v.key_id, v.nonce, v.sealed
FROM pushes u
LEFT JOIN versions v ON v.tenant_id = $1 AND v.secret_id = u.secret_id AND v.version = u.version AND u.kind IN ('put', 'create')
WHERE u.tenant_id = $1 AND u.push_id = ANY ($2::text[])
ORDER BY u.push_id;

-- name: take_over
-- Pushes whose sender has had its time: whoever takes them in hand asks the backend what became of them.
UPDATE pushes u SET state = 'unknown', attempts = u.attempts + 1, deadline = clock_timestamp() + make_interval(secs => $3)
FROM (SELECT push_id FROM pushes WHERE tenant_id = $1 AND backend_id = $2 AND state IN ('planned', 'sent', 'unknown')
        AND deadline < clock_timestamp() ORDER BY push_id LIMIT $4 FOR UPDATE SKIP LOCKED) due
WHERE u.tenant_id = $1 AND u.push_id = due.push_id
RETURNING u.push_id;

-- name: lock_secrets
-- The secrets of these pushes, in the order in which everybody locks them.
SELECT s.secret_id, s.row_rev, s.state, s.current_version, s.tags, s.custom FROM secrets s
WHERE s.tenant_id = $1 AND s.secret_id IN (SELECT secret_id FROM pushes WHERE tenant_id = $1 AND push_id = ANY ($2::text[]))
ORDER BY s.secret_id FOR UPDATE;

-- name: end
-- How pushes ended (or did not); only those that are still in the hand of whoever says so.
UPDATE pushes u SET state = x.state, reason = x.reason, result_token = x.token,
  ended_at = CASE WHEN x.state IN ('landed', 'refused', 'withdrawn') THEN clock_timestamp() END
FROM unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::text[]) AS x(push_id, attempts, state, reason, token)
WHERE u.tenant_id = $1 AND u.push_id = x.push_id AND u.attempts = x.attempts AND u.state IN ('planned', 'sent', 'unknown')
RETURNING u.push_id;

-- name: again
-- One that was surely not made goes out once more, under the same id and condition.
UPDATE pushes SET state = 'planned' WHERE tenant_id = $1 AND push_id = ANY ($2::text[]) AND state = 'unknown';

-- name: settle_pairs
-- Base moves to what landed, by this clock: a write without a lease knows only its own. Nobody touched the secret meanwhile: both sides agree; else the next run looks again.
UPDATE sync_state p SET base_kind = x.base_kind, base_fp = x.base_fp, base_fp_key = x.base_fp_key, base_value_token = x.value_token,
  base_meta_token = x.meta_token, base_order = x.ord, base_tokens_left = coalesce(string_to_array(x.tokens_left, E'\n'), '{}'),
  base_moved_at = CASE WHEN x.moved_at IS DISTINCT FROM p.base_moved_at THEN now() ELSE p.base_moved_at END, remote_tags = x.remote_tags, settled_version = x.settled, base_raw_sealed = NULL, base_raw_key = NULL,
  base_raw_nonce = NULL, status = x.status, recheck = x.recheck, failures = 0, retry_at = NULL, reason = NULL, synced_at = now()
FROM unnest($3::text[], $4::text[], $5::bytea[], $6::int[], $7::text[], $8::text[], $9::bigint[], $10::text[], $11::timestamptz[],
            $12::text[], $13::int[], $14::text[], $15::bool[])
  AS x(remote_path, base_kind, base_fp, base_fp_key, value_token, meta_token, ord, tokens_left, moved_at, remote_tags, settled, status,
       recheck)
WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.remote_path = x.remote_path AND p.status NOT IN ('detached', 'standby');

-- name: make_current
-- Pending versions that landed are current from here on, with the metadata that came with the write.
WITH x AS (SELECT * FROM unnest($2::bigint[], $3::int[]) AS x(secret_id, version)),
lived AS (
  UPDATE versions v SET state = 'live' FROM x WHERE v.tenant_id = $1 AND v.secret_id = x.secret_id AND v.version = x.version
    AND v.state = 'pending')
UPDATE secrets s SET current_version = x.version, state = 'live', deleted_at = NULL, propagate = false, updated_at = now(),
  written_at = now()
FROM x WHERE s.tenant_id = $1 AND s.secret_id = x.secret_id;

-- name: bury_pending
-- Deletes that went to the backend first and landed there: their tombstones, which delete nothing any more.
UPDATE secrets SET state = 'deleted', deleted_at = now(), propagate = false, updated_at = now(), written_at = now()
WHERE tenant_id = $1 AND secret_id = ANY ($2::bigint[]);

-- name: destroy_pending
-- Pending versions that did not land: nothing can read them, and their numbers are never used again. Of a secret that never had
-- another one nothing is left but its counter, nor do the tags that came with the write wait for the next one.
WITH x AS (SELECT * FROM unnest($2::bigint[], $3::int[]) AS x(secret_id, version)),
gone AS (
  UPDATE versions v SET state = 'destroyed', sealed = NULL, nonce = NULL FROM x
  WHERE v.tenant_id = $1 AND v.secret_id = x.secret_id AND v.version = x.version AND v.state = 'pending')
UPDATE secrets s SET state = 'void', secret_type = 'json', tags = '{}', owner = NULL, description = NULL, custom = '{}',
  max_versions = NULL, written_at = NULL
FROM x WHERE s.tenant_id = $1 AND s.secret_id = x.secret_id AND s.state = 'pending';

-- name: raise_revs
UPDATE secrets SET row_rev = row_rev + 1 WHERE tenant_id = $1 AND secret_id = ANY ($2::bigint[]);

-- name: describe
UPDATE secrets SET secret_type = $3, tags = $4::text[], owner = $5, description = $6, custom = $7, max_versions = $8
WHERE tenant_id = $1 AND secret_id = $2;

-- name: set_metadata
-- Local tags and custom metadata as both sides have them now.
UPDATE secrets s SET tags = CASE WHEN x.tags = '[]' THEN '{}' ELSE ARRAY(SELECT json_array_elements_text(x.tags::json)) END,
  custom = x.custom
FROM unnest($2::bigint[], $3::text[], $4::text[]) AS x(secret_id, tags, custom)
WHERE s.tenant_id = $1 AND s.secret_id = x.secret_id;

-- name: look_again
-- Pairs whose push did not land are looked at by the next run, whatever their tokens say.
UPDATE sync_state SET recheck = true WHERE tenant_id = $1 AND backend_id = $2 AND remote_path = ANY ($3::text[])
  AND status NOT IN ('detached', 'standby');

-- name: keep_before
UPDATE pushes SET before_key_id = $3, before_nonce = $4, before_sealed = $5 WHERE tenant_id = $1 AND push_id = $2;

-- name: unfinished_at
-- The unfinished push of a path, if there is one; `pending`: of a version that is not current yet.
SELECT push_id, pending, kind, state, version, deadline FROM pushes
WHERE tenant_id = $1 AND path = $2 AND state IN ('planned', 'sent', 'unknown') LIMIT 1;

-- name: count_unfinished
SELECT count(*) FROM pushes WHERE tenant_id = $1 AND backend_id = $2 AND state IN ('planned', 'sent', 'unknown');

-- name: recent
-- Paths with a push that landed within so many seconds.
SELECT DISTINCT path FROM pushes WHERE tenant_id = $1 AND backend_id = $2 AND path = ANY ($3::text[]) AND state = 'landed'
  AND kind IN ('put', 'create') AND ended_at > clock_timestamp() - make_interval(secs => $4);

-- name: late
-- What pushes of these paths would have written that nobody could say the end of (somebody took them over, and asked): should
-- it appear after all, it is our own late call and nobody else's write. Told by the number of the remote version it would have made, or by its id
-- where a store takes that for the version's: one that does neither has no such mark.
SELECT path, push_id, target_fp, expected_order FROM pushes WHERE tenant_id = $1 AND backend_id = $2 AND path = ANY ($3::text[])
  AND state IN ('withdrawn', 'refused') AND sent_at IS NOT NULL AND attempts > 1 AND target_fp IS NOT NULL
  AND ended_at > clock_timestamp() - interval '7 days';
