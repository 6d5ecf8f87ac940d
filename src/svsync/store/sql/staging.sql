-- name: clear
-- Work rows of one run.
WITH a AS (DELETE FROM stage WHERE run_no = $3),
     b AS (DELETE FROM stage_scopes WHERE tenant_id = $1 AND run_id = $2)
DELETE FROM todo WHERE run_no = $3;

-- name: clear_all
-- The same, and what earlier runs of this backend left behind when they died.
WITH ended AS (SELECT run_no, run_id FROM (SELECT run_no, run_id FROM runs WHERE tenant_id = $1 AND backend_id = $4 AND kind <> 'probe'
                 AND state NOT IN ('queued', 'running')
               ORDER BY run_id DESC LIMIT 20) e
               UNION ALL SELECT $3, $2),
     a AS (DELETE FROM stage USING ended WHERE stage.run_no = ended.run_no),
     b AS (DELETE FROM stage_scopes s USING ended e WHERE s.tenant_id = $1 AND s.run_id = e.run_id)
DELETE FROM todo USING ended WHERE todo.run_no = ended.run_no;

-- name: clear_todo
DELETE FROM todo WHERE run_no = $1;

-- name: any_scope
SELECT EXISTS (SELECT FROM stage_scopes WHERE tenant_id = $1 AND run_id = $2);

-- name: add_scopes
INSERT INTO stage_scopes (tenant_id, run_id, prefix, outcome, reason)
SELECT $1, $2, p, o, r FROM unnest($3::text[], $4::text[], $5::text[]) AS x(p, o, r)
ON CONFLICT (tenant_id, run_id, prefix) DO UPDATE SET outcome = excluded.outcome, reason = excluded.reason;

-- name: count
SELECT count(*) FROM stage WHERE run_no = $1;

-- name: diff
-- The listing against what is known, in one statement: only what has to be looked at is kept, as the run's work list.
-- In the order of paths, so that a batch finds and writes its rows side by side.
-- Unlisted counts only outside scopes that were denied or failed: known pairs below these (found as in `blinded`) meet a row of
-- their own, so that the one join there is, which is hashed or merged whatever the planner believes, finds them too. A pair that both sides agree is gone is not looked
-- at again until something moves; a soft-deleted name that was never known is no pair.
WITH s AS (SELECT remote_path, value_token, meta_token, ord, gone, tags, false AS blind FROM stage WHERE run_no = $3
           UNION ALL
           SELECT q.remote_path, NULL, NULL, NULL, NULL, NULL, true FROM stage_scopes b CROSS JOIN LATERAL
             (SELECT q.remote_path FROM sync_state q
              WHERE q.tenant_id = $1 AND q.backend_id = $4 AND q.status NOT IN ('detached', 'standby')
                AND q.remote_path >= b.prefix AND q.remote_path < b.prefix || chr(1114111) OFFSET 0) q
           WHERE b.tenant_id = $1 AND b.run_id = $2 AND b.outcome <> 'complete'),
     p AS (SELECT remote_path, base_kind, base_value_token, base_meta_token, recheck, retry_at FROM sync_state
           WHERE tenant_id = $1 AND backend_id = $4 AND status NOT IN ('detached', 'standby')),
     d AS (SELECT coalesce(s.remote_path, p.remote_path) AS remote_path,
                  CASE WHEN p.remote_path IS NULL THEN 'new'
                       WHEN s.remote_path IS NULL THEN 'unlisted'
                       WHEN s.value_token IS NULL OR s.value_token IS DISTINCT FROM p.base_value_token THEN 'changed'
                       WHEN p.recheck THEN 'local'
                       ELSE 'metadata' END AS kind,
                  coalesce(p.base_kind = 'value', false) AS based,
                  s.value_token, s.meta_token, s.ord, coalesce(s.gone, false) AS gone, s.tags
           FROM s FULL JOIN p ON s.remote_path = p.remote_path
           WHERE CASE WHEN s.blind THEN false
                      WHEN p.remote_path IS NULL THEN NOT s.gone
                      WHEN p.retry_at > now() THEN false
                      WHEN s.remote_path IS NULL THEN p.base_kind <> 'absent' OR p.recheck
                      ELSE s.value_token IS NULL OR s.value_token IS DISTINCT FROM p.base_value_token OR p.recheck
                           OR (s.meta_token IS NOT NULL AND s.meta_token IS DISTINCT FROM p.base_meta_token AND NOT s.gone) END)
INSERT INTO todo (run_no, n, kind, remote_path, based, value_token, meta_token, ord, gone, tags)
SELECT $3, row_number() OVER (ORDER BY d.remote_path), d.kind, d.remote_path, d.based, d.value_token, d.meta_token, d.ord, d.gone, d.tags
FROM d;

-- name: blinded
-- Known pairs below a folder that could not be listed: nothing moves for them. All are counted, the first of each folder
-- are named, so that no folder with known pairs is missing from the answer, nor its outcome from the counts. A pair below
-- several such folders counts once, by the deepest; one that was listed all the same, never.
-- Each folder is one range of the index, whose end is its name with the last of all characters behind; OFFSET keeps the
-- planner from joining all pairs with all folders. What was listed is put aside by sorting: of a run's own rows the planner
-- knows nothing, and might compare each with each. Where every folder was listed, no pair is read.
WITH below AS (
  SELECT DISTINCT ON (x.remote_path) x.remote_path, x.base_kind, x.prefix, x.outcome, x.reason
  FROM (SELECT p.remote_path, p.base_kind, b.prefix, b.outcome, b.reason
        FROM stage_scopes b CROSS JOIN LATERAL
          (SELECT q.remote_path, q.base_kind FROM sync_state q
           WHERE q.tenant_id = $1 AND q.backend_id = $4 AND q.status NOT IN ('detached', 'standby')
             AND q.remote_path >= b.prefix AND q.remote_path < b.prefix || chr(1114111) OFFSET 0) p
        WHERE b.tenant_id = $1 AND b.run_id = $2 AND b.outcome <> 'complete'
        UNION ALL
        SELECT s.remote_path, NULL, NULL, NULL, NULL FROM stage s
        WHERE s.run_no = $3 AND EXISTS (SELECT FROM stage_scopes WHERE tenant_id = $1 AND run_id = $2 AND outcome <> 'complete')) x
  ORDER BY x.remote_path, length(x.prefix) DESC NULLS FIRST)
SELECT p.remote_path, p.outcome, p.reason, count(*) OVER (PARTITION BY p.outcome) AS many,
       count(*) FILTER (WHERE p.base_kind = 'value') OVER () AS based
FROM below p WHERE p.outcome IS NOT NULL
ORDER BY row_number() OVER (PARTITION BY p.prefix ORDER BY p.remote_path), p.remote_path LIMIT 10001;

-- name: unseen
-- Folders that could not be listed, whether or not anything below them is known.
SELECT prefix, outcome, reason FROM stage_scopes
WHERE tenant_id = $1 AND run_id = $2 AND outcome <> 'complete'
ORDER BY prefix LIMIT 10001;

-- name: mark_blinded
-- Their state says so, and they are looked at again as soon as the folder can be listed. Found as in `blinded`.
WITH below AS (
  SELECT DISTINCT ON (x.remote_path) x.remote_path, x.outcome
  FROM (SELECT p.remote_path, b.prefix, b.outcome
        FROM stage_scopes b CROSS JOIN LATERAL
          (SELECT q.remote_path FROM sync_state q
           WHERE q.tenant_id = $1 AND q.backend_id = $4 AND q.status NOT IN ('detached', 'standby')
             AND q.remote_path >= b.prefix AND q.remote_path < b.prefix || chr(1114111) OFFSET 0) p
        WHERE b.tenant_id = $1 AND b.run_id = $2 AND b.outcome <> 'complete'
        UNION ALL
        SELECT s.remote_path, NULL, NULL FROM stage s
        WHERE s.run_no = $3 AND EXISTS (SELECT FROM stage_scopes WHERE tenant_id = $1 AND run_id = $2 AND outcome <> 'complete')) x
  ORDER BY x.remote_path, length(x.prefix) DESC NULLS FIRST)
UPDATE sync_state p SET status = 'denied', reason = 'denied', recheck = true
FROM below b
WHERE b.outcome = 'denied' AND p.tenant_id = $1 AND p.backend_id = $4 AND p.remote_path = b.remote_path
  AND p.status IN ('initial', 'in_sync', 'diverged', 'retained');

-- name: add_named
-- A targeted run's work list: paths by name, never a listing.
INSERT INTO todo (run_no, n, kind, remote_path, based)
SELECT $1, x.n, 'named', x.remote_path,
       coalesce((SELECT p.base_kind = 'value' FROM sync_state p WHERE p.tenant_id = $2 AND p.backend_id = $3
                 AND p.remote_path = x.remote_path AND p.status NOT IN ('detached', 'standby')), false)
FROM unnest($4::bigint[], $5::text[]) AS x(n, remote_path);

-- name: add_unlisted
-- Paths that are here and that the listing does not show as readable, to be asked by name.
INSERT INTO todo (run_no, n, kind, remote_path, based)
SELECT $1, $2::bigint - 1 + row_number() OVER (ORDER BY x.remote_path), 'named', x.remote_path, false
FROM unnest($3::text[]) AS x(remote_path)
WHERE NOT EXISTS (SELECT FROM stage s WHERE s.run_no = $1 AND s.remote_path = x.remote_path AND NOT s.gone);

-- name: mark_equal
-- Compared before the guards let the run pass, and found settled.
UPDATE todo SET kind = 'equal' WHERE run_no = $1 AND n = ANY ($2::bigint[]);

-- name: guard_numbers
-- What the guards look at, before anything is fetched or asked; without the pairs that a dry run would detach first. LATERAL …
-- LIMIT 1: what is looked up begins with the work list, which is short, whatever the planner believes of the tables' sizes.
SELECT (SELECT count(*) FROM sync_state WHERE tenant_id = $1 AND backend_id = $2 AND base_kind = 'value'
          AND status NOT IN ('detached', 'standby') AND NOT (remote_path = ANY ($4::text[]))) AS known,
       count(*) FILTER (WHERE t.kind = 'unlisted' AND t.based) AS unlisted,
       count(*) FILTER (WHERE t.gone AND t.based) AS listed_gone,
       count(*) FILTER (WHERE t.kind = 'changed' AND t.based AND NOT t.gone) AS changed,
       count(*) FILTER (WHERE t.based) AS touched,
       count(*) FILTER (WHERE t.based AND t.ord IS NOT NULL
                          AND t.ord < (SELECT p.base_order FROM sync_state p WHERE p.tenant_id = $1 AND p.backend_id = $2
                                       AND p.remote_path = t.remote_path AND p.status NOT IN ('detached', 'standby')
                                       -- What was settled while the run listed is newer than what was listed.
                                       AND coalesce(p.base_moved_at < $7, true))) AS backwards,
       (SELECT count(*) FROM todo d CROSS JOIN LATERAL
          (SELECT p.path, p.base_fp FROM sync_state p
           WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.remote_path = d.remote_path AND p.status NOT IN ('detached', 'standby')
             AND p.rule_ord = ANY ($5::int[]) AND p.base_kind = 'value' LIMIT 1) p CROSS JOIN LATERAL
          (SELECT s.secret_id, s.current_version FROM secrets s
           WHERE s.tenant_id = $1 AND s.path = p.path AND s.state = 'live' LIMIT 1) s CROSS JOIN LATERAL
          (SELECT v.fp FROM versions v
           WHERE v.tenant_id = $1 AND v.secret_id = s.secret_id AND v.version = s.current_version LIMIT 1) v
        WHERE d.run_no = $3 AND d.kind <> 'new' AND v.fp <> p.base_fp) AS pushes,
       (SELECT count(*) FROM todo d CROSS JOIN LATERAL
          (SELECT p.path FROM sync_state p
           WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.remote_path = d.remote_path AND p.status NOT IN ('detached', 'standby')
             AND p.rule_ord = ANY ($6::int[]) AND p.base_kind = 'value' LIMIT 1) p CROSS JOIN LATERAL
          (SELECT s.path FROM secrets s
           WHERE s.tenant_id = $1 AND s.path = p.path AND s.state = 'deleted' AND s.propagate LIMIT 1) s
        WHERE d.run_no = $3 AND d.kind <> 'new') AS remote_deletes,
       (SELECT count(*) FROM todo WHERE run_no = $3) AS todo
FROM todo t WHERE t.run_no = $3 AND NOT (t.remote_path = ANY ($4::text[]));

-- name: quarantined
-- Pairs left out because their time has not come again: all are counted, the first are named. Those below a folder that
-- could not be listed are counted there, and found as there.
WITH waiting AS (
  SELECT remote_path, reason, base_kind FROM sync_state
  WHERE tenant_id = $1 AND backend_id = $2 AND retry_at > now() AND status NOT IN ('detached', 'standby')
  EXCEPT
  SELECT p.remote_path, p.reason, p.base_kind FROM stage_scopes b CROSS JOIN LATERAL
    (SELECT q.remote_path, q.reason, q.base_kind FROM sync_state q
     WHERE q.tenant_id = $1 AND q.backend_id = $2 AND q.status NOT IN ('detached', 'standby')
       AND q.remote_path >= b.prefix AND q.remote_path < b.prefix || chr(1114111) OFFSET 0) p
  WHERE b.tenant_id = $1 AND b.run_id = $3 AND b.outcome <> 'complete')
SELECT remote_path, reason, count(*) OVER () AS many, count(*) FILTER (WHERE base_kind = 'value') OVER () AS based
FROM waiting ORDER BY remote_path LIMIT 10001;

-- name: page
-- The next piece of the work list (of some paths, where any are named), each row with its pair as it stands now. LATERAL … LIMIT 1: one probe a row, whatever the
-- planner believed of the tables' sizes when it kept the plan.
SELECT t.n, t.kind, t.remote_path, t.value_token, t.meta_token, t.ord, t.gone, t.tags,
       p.path, p.rule_ord, p.status, p.base_kind, p.base_fp, p.base_fp_key, p.base_value_token, p.base_meta_token, p.base_order,
       p.base_moved_at, p.base_tokens_left, p.remote_tags, p.settled_version, p.failures, p.recheck,
       s.secret_id, s.state AS local_state, s.current_version, s.last_version, s.row_rev, s.propagate,
       s.tags AS local_tags, s.custom AS local_custom,
       coalesce(s.written_at > coalesce(p.claimed_at, b.claimed_at), false) AS written_after_claim,
       v.fp AS local_fp, v.fp_key_id AS local_fp_key,
       (SELECT c.conflict_id FROM conflicts c WHERE c.tenant_id = $1 AND c.backend_id = $2 AND c.path = p.path
          AND c.state = 'open') AS conflict_id,
       EXISTS (SELECT FROM pushes u WHERE u.tenant_id = $1 AND u.backend_id = $2 AND u.path = p.path
               AND u.state IN ('planned', 'sent', 'unknown')) AS push_unfinished
FROM todo t
JOIN backends b ON b.tenant_id = $1 AND b.backend_id = $2
LEFT JOIN LATERAL (SELECT * FROM sync_state p WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.remote_path = t.remote_path
                     AND p.status NOT IN ('detached', 'standby') LIMIT 1) p ON true
LEFT JOIN LATERAL (SELECT * FROM secrets s WHERE s.tenant_id = $1 AND s.path = p.path LIMIT 1) s ON true
LEFT JOIN LATERAL (SELECT * FROM versions v WHERE v.tenant_id = $1 AND v.secret_id = s.secret_id
                     AND v.version = s.current_version LIMIT 1) v ON true
WHERE t.run_no = $3 AND t.n > $4 AND t.n <= $4 + $5 AND ($6::text[] IS NULL OR t.remote_path = ANY ($6))
ORDER BY t.n;
