-- name: page
-- Secrets by number, a page at a time, and what may be due of each: the history of a tombstone whose time is over, or its marker;
-- versions beyond those that are kept. A hint: it is asked again under the secret's lock.
SELECT s.secret_id,
  s.state = 'deleted' AND s.deleted_at <= now() - make_interval(secs => $4)
    AND (p.base_kind IS DISTINCT FROM 'value' OR p.base_raw_sealed IS NOT NULL OR n.versions > 0) AS expired,
  n.versions > CASE WHEN s.state = 'void' THEN 0 ELSE coalesce(s.max_versions, o.max_versions, $5) END AS crowded
FROM (SELECT * FROM secrets WHERE tenant_id = $1 AND secret_id > $2 ORDER BY secret_id LIMIT $3) s
CROSS JOIN LATERAL (SELECT count(*) AS versions FROM versions v WHERE v.tenant_id = $1 AND v.secret_id = s.secret_id) n
LEFT JOIN LATERAL (SELECT * FROM sync_state p WHERE p.tenant_id = $1 AND p.path = s.path
                     AND p.status NOT IN ('detached', 'standby') LIMIT 1) p ON true
LEFT JOIN unnest($6::text[], $7::int[]) AS o(backend_id, max_versions) ON o.backend_id = p.backend_id
ORDER BY s.secret_id;

-- name: lock
-- These secrets, in the order in which everybody locks them, without those that somebody else has in hand. What hides behind a
-- proxy is not touched here.
SELECT secret_id FROM secrets WHERE tenant_id = $1 AND secret_id = ANY ($2::bigint[]) AND state <> 'hidden'
ORDER BY secret_id FOR UPDATE SKIP LOCKED;

-- name: trim
-- Versions of locked secrets beyond the newest that can be read. Those that did not land count for nothing and go with the
-- versions around them. What is current, settled with a backend, a side of an open conflict, or named by an unfinished push
-- stays, and so does what is pending or came here only just now.
WITH s AS (
  SELECT s.secret_id, s.path, s.state, s.current_version, p.settled_version,
         CASE WHEN s.state = 'void' THEN 0 ELSE coalesce(s.max_versions, o.max_versions, $4) END AS kept,
         now() - make_interval(secs => coalesce(o.grace_s, $5)) AS before
  FROM secrets s
  LEFT JOIN LATERAL (SELECT * FROM sync_state p WHERE p.tenant_id = $1 AND p.path = s.path
                       AND p.status NOT IN ('detached', 'standby') LIMIT 1) p ON true
  LEFT JOIN unnest($6::text[], $7::int[], $8::float8[]) AS o(backend_id, max_versions, grace_s) ON o.backend_id = p.backend_id
  WHERE s.tenant_id = $1 AND s.secret_id = ANY ($2::bigint[])),
needed AS (
  SELECT secret_id, current_version AS version FROM s
  UNION ALL SELECT secret_id, settled_version FROM s
  UNION ALL SELECT s.secret_id, d.settled_version FROM s
    JOIN sync_state d ON d.tenant_id = $1 AND d.path = s.path AND d.status = 'detached'
  UNION ALL SELECT secret_id, local_version FROM conflicts
    WHERE tenant_id = $1 AND state = 'open' AND secret_id = ANY ($2::bigint[])
  UNION ALL SELECT secret_id, version FROM pushes
    WHERE tenant_id = $1 AND state IN ('planned', 'sent', 'unknown') AND secret_id = ANY ($2::bigint[])),
ranked AS (
  SELECT v.secret_id, v.version, v.state, s.kept, v.stored_at <= s.before AS old,
         count(*) FILTER (WHERE v.state = 'live') OVER (PARTITION BY v.secret_id ORDER BY v.version DESC)
           - (v.state = 'live')::int AS newer
  FROM s JOIN versions v ON v.tenant_id = $1 AND v.secret_id = s.secret_id),
due AS (
  SELECT r.secret_id, r.version FROM ranked r
  WHERE r.newer >= r.kept AND r.old AND r.state <> 'pending'
    AND NOT EXISTS (SELECT FROM needed n WHERE n.secret_id = r.secret_id AND n.version = r.version)
  LIMIT $3)
DELETE FROM versions v USING due WHERE v.tenant_id = $1 AND v.secret_id = due.secret_id AND v.version = due.version;

-- name: lock_pairs
-- Of these locked secrets those all of whose pairs could be locked too. Nobody is waited for: whoever detaches a pair has it
-- locked before its secret.
WITH s AS (SELECT secret_id, path FROM secrets WHERE tenant_id = $1 AND secret_id = ANY ($2::bigint[])),
active AS (SELECT p.path FROM s JOIN sync_state p ON p.tenant_id = $1 AND p.path = s.path AND p.status NOT IN ('detached', 'standby')
           FOR UPDATE OF p SKIP LOCKED),
detached AS (SELECT p.path FROM s JOIN sync_state p ON p.tenant_id = $1 AND p.path = s.path AND p.status = 'detached'
             FOR UPDATE OF p SKIP LOCKED)
SELECT s.secret_id FROM s
WHERE (SELECT count(*) FROM active WHERE active.path = s.path)
    = (SELECT count(*) FROM sync_state p WHERE p.tenant_id = $1 AND p.path = s.path AND p.status NOT IN ('detached', 'standby'))
  AND (SELECT count(*) FROM detached WHERE detached.path = s.path)
    = (SELECT count(*) FROM sync_state p WHERE p.tenant_id = $1 AND p.path = s.path AND p.status = 'detached');

-- name: expired
-- Of these locked secrets the tombstones whose time is over and that no person and no push has to do with. `marks`: the
-- tombstone still tells a run that the path was deleted here: base is a value, or the next run has yet to look at the pair.
SELECT s.secret_id,
  EXISTS (SELECT FROM sync_state p WHERE p.tenant_id = $1 AND p.path = s.path AND p.status NOT IN ('detached', 'standby')
          AND (p.base_kind = 'value' OR p.recheck OR p.status IN ('conflict', 'pending_push')))
  OR EXISTS (SELECT FROM sync_state p WHERE p.tenant_id = $1 AND p.path = s.path AND p.status = 'detached'
             AND p.base_kind = 'value') AS marks
FROM secrets s
WHERE s.tenant_id = $1 AND s.secret_id = ANY ($2::bigint[]) AND s.state = 'deleted'
  AND s.deleted_at <= now() - make_interval(secs => $3)
  AND NOT EXISTS (SELECT FROM conflicts c WHERE c.tenant_id = $1 AND c.state = 'open' AND c.path = s.path)
  AND NOT EXISTS (SELECT FROM pushes u WHERE u.tenant_id = $1 AND u.state IN ('planned', 'sent', 'unknown') AND u.path = s.path);

-- name: empty
-- The values of these tombstones, with the exact text of base. What was decided on what was there is decided again.
WITH gone AS (DELETE FROM versions v WHERE v.tenant_id = $1 AND v.secret_id = ANY ($2::bigint[]) RETURNING v.secret_id),
exact AS (
  UPDATE sync_state p SET base_raw_sealed = NULL, base_raw_key = NULL, base_raw_nonce = NULL FROM secrets s
  WHERE s.tenant_id = $1 AND s.secret_id = ANY ($2::bigint[]) AND p.tenant_id = $1 AND p.path = s.path
    AND p.status NOT IN ('detached', 'standby') AND p.base_raw_sealed IS NOT NULL
  RETURNING s.secret_id)
UPDATE secrets SET row_rev = row_rev + 1
WHERE tenant_id = $1 AND secret_id IN (SELECT secret_id FROM gone UNION SELECT secret_id FROM exact);

-- name: forget
-- Tombstones that mark nothing any more: their pairs go, and of the secret nothing is left but the counter of its versions.
WITH paths AS (SELECT path FROM secrets WHERE tenant_id = $1 AND secret_id = ANY ($2::bigint[])),
active AS (DELETE FROM sync_state p USING paths
           WHERE p.tenant_id = $1 AND p.path = paths.path AND p.status NOT IN ('detached', 'standby')),
detached AS (DELETE FROM sync_state p USING paths WHERE p.tenant_id = $1 AND p.path = paths.path AND p.status = 'detached')
UPDATE secrets SET state = 'void', current_version = 0, secret_type = 'json', tags = '{}', owner = NULL, description = NULL,
  custom = '{}', max_versions = NULL, propagate = false, written_at = NULL, deleted_at = NULL, row_rev = row_rev + 1, updated_at = now()
WHERE tenant_id = $1 AND secret_id = ANY ($2::bigint[]);

-- name: conflicts
-- A page of conflicts, and which of them were closed long enough ago and are gone now. The earlier sides of a conflict go with
-- it, never before: not while it is open, nor until its own time is over.
WITH page AS (SELECT conflict_id FROM conflicts WHERE tenant_id = $1 AND conflict_id > $2 ORDER BY conflict_id LIMIT $3),
due AS (
  SELECT c.conflict_id FROM conflicts c JOIN page USING (conflict_id)
  WHERE c.tenant_id = $1 AND c.state <> 'open' AND c.closed_at <= now() - make_interval(secs => $4)
    AND NOT (c.state = 'superseded'
             AND EXISTS (SELECT FROM conflicts o WHERE o.tenant_id = $1 AND o.backend_id = c.backend_id AND o.path = c.path
                         AND o.state <> 'superseded' AND (o.state = 'open' OR o.closed_at > now() - make_interval(secs => $4))))
  FOR UPDATE OF c SKIP LOCKED),
gone AS (DELETE FROM conflicts c USING due WHERE c.tenant_id = $1 AND c.conflict_id = due.conflict_id RETURNING c.conflict_id)
SELECT page.conflict_id, true AS old, gone.conflict_id IS NOT NULL AS removed
FROM page LEFT JOIN gone USING (conflict_id) ORDER BY page.conflict_id;

-- name: last_runs
-- Of each backend the newest runs, and the newest full ones that went through, whose calls tell what a cycle costs.
SELECT DISTINCT r.run_id FROM (SELECT DISTINCT backend_id FROM runs WHERE tenant_id = $1) b
CROSS JOIN LATERAL (
  (SELECT run_id FROM runs WHERE tenant_id = $1 AND backend_id = b.backend_id ORDER BY run_id DESC LIMIT $2)
  UNION ALL
  (SELECT run_id FROM runs WHERE tenant_id = $1 AND backend_id = b.backend_id AND kind = 'full' AND state = 'completed'
   ORDER BY run_id DESC LIMIT 10)) r;

-- name: runs
-- A page of runs, and which of them ended long enough ago and are gone now, with their skipped paths. For two days each is
-- kept: a budget of calls counts them.
WITH page AS (SELECT run_id, ended_at FROM runs WHERE tenant_id = $1 AND run_id > $2 ORDER BY run_id LIMIT $3),
due AS (
  SELECT r.run_id FROM runs r JOIN page USING (run_id)
  WHERE r.tenant_id = $1 AND r.state IN ('completed', 'failed', 'superseded') AND r.run_id <> ALL ($5::text[])
    AND r.ended_at <= now() - greatest(make_interval(secs => $4), interval '48 hours')
  FOR UPDATE OF r SKIP LOCKED),
skips AS (DELETE FROM run_skips k USING due WHERE k.tenant_id = $1 AND k.run_id = due.run_id),
scopes AS (DELETE FROM stage_scopes k USING due WHERE k.tenant_id = $1 AND k.run_id = due.run_id),
gone AS (DELETE FROM runs r USING due WHERE r.tenant_id = $1 AND r.run_id = due.run_id RETURNING r.run_id)
SELECT page.run_id, coalesce(page.ended_at <= now() - make_interval(secs => $4), false) AS old, gone.run_id IS NOT NULL AS removed
FROM page LEFT JOIN gone USING (run_id) ORDER BY page.run_id;

-- name: pushes
-- A page of pushes, and which of them ended long enough ago and are gone now. For seven days what was given up after it had been
-- sent is kept: should it appear after all, it is our own late call.
WITH page AS (SELECT push_id, ended_at FROM pushes WHERE tenant_id = $1 AND push_id > $2 ORDER BY push_id LIMIT $3),
due AS (
  SELECT u.push_id FROM pushes u JOIN page USING (push_id)
  WHERE u.tenant_id = $1 AND u.state IN ('landed', 'refused', 'withdrawn')
    AND u.ended_at <= now() - CASE WHEN u.state <> 'landed' AND u.sent_at IS NOT NULL
                                   THEN greatest(make_interval(secs => $4), interval '7 days') ELSE make_interval(secs => $4) END
  FOR UPDATE OF u SKIP LOCKED),
gone AS (DELETE FROM pushes u USING due WHERE u.tenant_id = $1 AND u.push_id = due.push_id RETURNING u.push_id)
SELECT page.push_id, coalesce(page.ended_at <= now() - make_interval(secs => $4), false) AS old, gone.push_id IS NOT NULL AS removed
FROM page LEFT JOIN gone USING (push_id) ORDER BY page.push_id;

-- name: detached
-- A page of detached pairs, and which of them were detached long enough ago and are gone now. Their secrets stay.
WITH page AS (SELECT path, backend_id, remote_path FROM sync_state
              WHERE tenant_id = $1 AND status = 'detached' AND (path, backend_id, remote_path) > ($2, $3, $4)
              ORDER BY path, backend_id, remote_path LIMIT $5),
due AS (
  SELECT p.path, p.backend_id, p.remote_path FROM sync_state p JOIN page USING (path, backend_id, remote_path)
  WHERE p.tenant_id = $1 AND p.status = 'detached' AND p.detached_at <= now() - make_interval(secs => $6)
  FOR UPDATE OF p SKIP LOCKED),
gone AS (DELETE FROM sync_state p USING due
         WHERE p.tenant_id = $1 AND p.path = due.path AND p.backend_id = due.backend_id AND p.remote_path = due.remote_path
         RETURNING p.path, p.backend_id, p.remote_path)
SELECT path, backend_id, remote_path, true AS old, gone.path IS NOT NULL AS removed
FROM page LEFT JOIN gone USING (path, backend_id, remote_path) ORDER BY path, backend_id, remote_path;

-- name: tokens
-- A page of tokens, and which of them expired or were revoked long enough ago and are gone now: whichever came first.
WITH page AS (SELECT token_id, created_at FROM tokens WHERE tenant_id = $1 AND token_id > $2 ORDER BY token_id LIMIT $3),
due AS (
  SELECT t.token_id FROM tokens t JOIN page USING (token_id)
  WHERE t.tenant_id = $1 AND least(t.expires_at, t.revoked_at) <= now() - make_interval(secs => $4)
  FOR UPDATE OF t SKIP LOCKED),
gone AS (DELETE FROM tokens t USING due WHERE t.tenant_id = $1 AND t.token_id = due.token_id RETURNING t.token_id)
SELECT page.token_id, page.created_at <= now() - make_interval(secs => $4) AS old, gone.token_id IS NOT NULL AS removed
FROM page LEFT JOIN gone USING (token_id) ORDER BY page.token_id;
