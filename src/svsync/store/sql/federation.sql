-- name: tenant
SELECT tenant_id, status FROM tenants WHERE slug = $1;

-- name: active
SELECT tenant_id, slug FROM tenants WHERE status = 'active' ORDER BY tenant_id;

-- name: tenants
SELECT slug FROM tenants WHERE status = 'active' ORDER BY slug;

-- name: lock_file
SELECT pg_advisory_xact_lock(1398165839, $1);

-- name: by_file
SELECT backend_id FROM backends WHERE tenant_id = $1 AND managed_by = 'file' AND state = 'active';

-- name: stored
SELECT spec, mapping_hash, state, vanished FROM backends WHERE tenant_id = $1 AND backend_id = $2 FOR UPDATE;

-- name: as_stored
SELECT backend_id, spec, mapping_hash, state, vanished FROM backends WHERE tenant_id = $1;

-- name: get
SELECT b.backend_id, b.name, b.type, b.spec, b.mapping_hash, b.applied_hash, b.applied_tags, b.identity, b.initial, b.managed_by, b.state, b.rev, b.claimed_at
FROM backends b WHERE b.tenant_id = $1 AND (b.backend_id = $2 OR b.name = $2) ORDER BY b.backend_id <> $2 LIMIT 1;

-- name: get_by_id
SELECT b.backend_id, b.name, b.type, b.spec, b.mapping_hash, b.applied_hash, b.applied_tags, b.identity, b.initial, b.managed_by, b.state, b.rev, b.claimed_at
FROM backends b WHERE b.tenant_id = $1 AND b.backend_id = $2;

-- name: list
SELECT b.backend_id, b.name, b.type, b.spec, b.mapping_hash, b.applied_hash, b.applied_tags, b.identity, b.initial, b.managed_by, b.state, b.rev, b.claimed_at
FROM backends b WHERE b.tenant_id = $1 ORDER BY b.backend_id;

-- name: epoch
SELECT federation_epoch FROM tenants WHERE tenant_id = $1;

-- name: lock
-- Before a change by which writes may go elsewhere or nowhere: it waits for those that stand by the configuration as it is
-- (`stand_by`), and they for it. An update alone would not.
SELECT 1 FROM backends WHERE tenant_id = $1 AND backend_id = $2 FOR UPDATE;

-- name: stand_by
-- The revision that a write may rely on until its transaction ends.
SELECT rev FROM backends WHERE tenant_id = $1 AND backend_id = $2 FOR KEY SHARE;

-- name: add
INSERT INTO backends (tenant_id, backend_id, name, type, spec, mapping_hash, managed_by, syncs, interval_s, stale_after_s)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: add_health
-- Its events go on with the numbers of one of that id that was removed. It is due at once.
INSERT INTO backend_health (tenant_id, backend_id, next_due_at, last_sequence)
SELECT $1, $2, now(), coalesce(max(sequence), 0) FROM outbox WHERE tenant_id = $1 AND backend_id = $2;

-- name: change
-- A new configuration; the claim on the paths is new where the mapping is, and another store has an identity of its own.
UPDATE backends SET name = $3, type = $4, spec = $5, state = $7, rev = rev + 1, identity = CASE WHEN $8 THEN identity END,
  vanished = false, syncs = $9, interval_s = $10, stale_after_s = $11, managed_by = $12,
  claimed_at = CASE WHEN mapping_hash = $6 THEN claimed_at ELSE now() END, mapping_hash = $6
WHERE tenant_id = $1 AND backend_id = $2;

-- name: due_now
UPDATE backend_health SET next_due_at = now() WHERE tenant_id = $1 AND backend_id = $2;

-- name: vanish
-- Paused by the file, which also resumes it; what a person paused stays so when the file names it again.
UPDATE backends SET state = 'paused', vanished = true WHERE tenant_id = $1 AND backend_id = $2 AND state = 'active';

-- name: set_applied
-- With $4, everything of it was listed as well. Most cycles change neither, and then leave the row alone.
UPDATE backends SET applied_hash = $3, initial = CASE WHEN $4 THEN '[]' ELSE initial END
WHERE tenant_id = $1 AND backend_id = $2 AND (applied_hash IS DISTINCT FROM $3 OR $4 AND initial <> '[]');

-- name: forget_applied
UPDATE backends SET applied_hash = NULL WHERE tenant_id = $1 AND backend_id = $2 AND applied_hash IS NOT NULL;

-- name: set_transforms
UPDATE backends SET applied_tags = $3 WHERE tenant_id = $1 AND backend_id = $2;

-- name: set_initial
UPDATE backends SET initial = $3 WHERE tenant_id = $1 AND backend_id = $2 AND initial <> $3;

-- name: set_identity
UPDATE backends SET identity = $3 WHERE tenant_id = $1 AND backend_id = $2 AND identity IS NULL;

-- name: health
SELECT h.*, (SELECT count(*) FROM conflicts c WHERE c.tenant_id = $1 AND c.backend_id = $2 AND c.state = 'open') AS conflicts_now,
  (SELECT count(*) FROM sync_state p WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.status = 'pending_push')
  + (SELECT count(*) FROM pushes u WHERE u.tenant_id = $1 AND u.backend_id = $2 AND u.state IN ('planned', 'sent', 'unknown')
       AND NOT EXISTS (SELECT FROM sync_state p WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.path = u.path
                       AND p.remote_path = u.remote_path AND p.status = 'pending_push')) AS pending_pushes,
  extract(epoch FROM now() - h.last_success_at) AS staleness_s,
  l.holder, l.expires_at AS lease_until, h.quiet_cycle::text AS cycle, q.put_off, q.not_before AS put_off_until
FROM backend_health h
LEFT JOIN LATERAL (SELECT r.put_off, r.not_before FROM runs r WHERE r.tenant_id = $1 AND r.backend_id = $2 AND r.state = 'queued'
                   AND r.put_off IS NOT NULL AND r.not_before > now() ORDER BY r.not_before LIMIT 1) q ON true
LEFT JOIN leases l ON l.tenant_id = h.tenant_id AND l.backend_id = h.backend_id AND l.holder IS NOT NULL AND l.expires_at > now()
WHERE h.tenant_id = $1 AND h.backend_id = $2;

-- name: run_ended
-- What status shows, set in the transaction that ends the run. A targeted run says nothing of the whole: success,
-- the next due time, and what a cycle skips and costs are a full run's to tell.
UPDATE backend_health SET last_run_id = $3, last_sync_at = now(),
  last_success_at = CASE WHEN $4 AND $5 THEN now() ELSE last_success_at END,
  failures = CASE WHEN NOT $5 THEN failures + 1 WHEN $4 THEN 0 ELSE failures END,
  told_stale = told_stale AND NOT ($4 AND $5),
  status = coalesce($6, status), last_error = CASE WHEN NOT $5 THEN $7 WHEN $4 THEN NULL ELSE last_error END,
  -- A cycle that was broken off is not late for a whole interval: half a minute, doubling to half an hour.
  next_due_at = CASE WHEN $4 AND $18 THEN now() + make_interval(secs => least($8::float8, 30 * power(2, least(failures, 6))))
                     WHEN $4 THEN $17::timestamptz + make_interval(secs => $8) ELSE next_due_at END,
  secrets_synced = coalesce($9, secrets_synced), diverged = coalesce($10, diverged), quarantined = coalesce($11, quarantined),
  retained = coalesce($12, retained), conflicts_open = coalesce($13, conflicts_open), skipped = coalesce($14, skipped),
  calls_per_cycle = coalesce($15, calls_per_cycle), latency_ms = coalesce($16, latency_ms),
  -- A cycle in which something changed tells what a quiet one takes at most.
  quiet_cycle = CASE WHEN $19::jsonb IS NOT NULL AND ($20 OR quiet_cycle IS NULL OR $15 <= (quiet_cycle ->> 'total')::bigint)
                     THEN $19::jsonb ELSE quiet_cycle END
WHERE tenant_id = $1 AND backend_id = $2;

-- name: connection_seen
-- A connection was made ($3) or failed. The row is locked by nobody else who could tell: only the holder of the lease does.
UPDATE backend_health h SET
  connection_failures = CASE WHEN $3 THEN 0 ELSE h.connection_failures + 1 END,
  unreachable_since = CASE WHEN $3 THEN NULL ELSE coalesce(h.unreachable_since, now()) END,
  told_unreachable = NOT $3 AND (h.told_unreachable OR h.connection_failures + 1 >= $4),
  -- What could not be reached has missed cycles: the next one begins at once.
  next_due_at = CASE WHEN $3 AND before.unreachable_since IS NOT NULL THEN now() ELSE h.next_due_at END
FROM (SELECT told_unreachable, unreachable_since FROM backend_health WHERE tenant_id = $1 AND backend_id = $2) before
WHERE h.tenant_id = $1 AND h.backend_id = $2
RETURNING before.told_unreachable AS had_told, h.told_unreachable AS told, h.connection_failures AS failures,
  coalesce(h.unreachable_since, before.unreachable_since) AS since,
  extract(epoch FROM now() - before.unreachable_since) AS down_for_s;

-- name: probe_ended
-- A look at a backend that is no cycle: its status and latency, where it learned them.
-- That one with cycles is healthy, a full run alone can say; that it is not unreachable any more, a look can.
UPDATE backend_health h SET latency_ms = coalesce($4, h.latency_ms),
  status = CASE WHEN $3 = 'healthy' AND b.syncs THEN CASE h.status WHEN 'unreachable' THEN 'degraded' ELSE h.status END
                ELSE coalesce($3, h.status) END
FROM backends b WHERE h.tenant_id = $1 AND h.backend_id = $2 AND b.tenant_id = $1 AND b.backend_id = $2;

-- name: run_lost
UPDATE backend_health SET last_run_id = $3, last_sync_at = now(), failures = failures + 1, last_error = $4
WHERE tenant_id = $1 AND backend_id = $2;

-- name: alone_below
-- Live secrets below a literal prefix that no pair of this backend brought in, a page at a time.
SELECT s.path FROM secrets s
WHERE s.tenant_id = $1 AND s.path > $3 AND s.path >= $4 AND starts_with(s.path, $4) AND s.state = 'live'
  AND NOT EXISTS (SELECT FROM sync_state p WHERE p.tenant_id = $1 AND p.path = s.path AND p.backend_id = $2
                  AND p.status NOT IN ('detached', 'standby'))
ORDER BY s.path LIMIT $5;

-- name: paired_below
-- Active pairs of a backend whose local path begins with a literal prefix, with their secrets, a page at a time.
SELECT p.path, p.remote_path, s.secret_id FROM sync_state p
LEFT JOIN secrets s ON s.tenant_id = p.tenant_id AND s.path = p.path
WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.path > $3 AND p.path >= $4 AND starts_with(p.path, $4)
  AND p.status NOT IN ('detached', 'standby')
ORDER BY p.path LIMIT $5;

-- name: lock_secrets
-- In the order in which everybody locks them.
SELECT secret_id FROM secrets WHERE tenant_id = $1 AND secret_id = ANY ($2::bigint[]) ORDER BY secret_id FOR UPDATE;

-- name: unpushed
-- What is here alone and would be hidden with these paths: changes and deletes that the backend has not got, values that it
-- has no more, open conflicts, pushes on their way.
SELECT x.path, x.why FROM (
  SELECT p.path, CASE
    WHEN EXISTS (SELECT FROM pushes u WHERE u.tenant_id = $1 AND u.backend_id = $2 AND u.path = p.path
                 AND u.state IN ('planned', 'sent', 'unknown')) THEN 'push'
    WHEN EXISTS (SELECT FROM conflicts c WHERE c.tenant_id = $1 AND c.backend_id = $2 AND c.path = p.path AND c.state = 'open')
      THEN 'conflict'
    WHEN s.state = 'live' AND p.base_kind = 'absent' THEN 'retained'
    WHEN s.state = 'live' AND (p.base_kind = 'none' OR v.fp IS DISTINCT FROM p.base_fp) THEN 'changed'
    WHEN s.state = 'deleted' AND p.base_kind = 'value' THEN 'deleted' END AS why
  FROM sync_state p
  LEFT JOIN secrets s ON s.tenant_id = $1 AND s.path = p.path
  LEFT JOIN versions v ON v.tenant_id = $1 AND v.secret_id = s.secret_id AND v.version = s.current_version
  WHERE p.tenant_id = $1 AND p.path = ANY ($3::text[]) AND p.backend_id = $2 AND p.status NOT IN ('detached', 'standby')) x
WHERE x.why IS NOT NULL ORDER BY x.path;

-- name: unfinished
-- Unfinished pushes of a backend (of some of its paths, where any are named), in the order of their ids; `in_hand`: the time
-- of who sends it, or asks about it, is not over; `sending`: of who sends it.
SELECT push_id, attempts, deadline > clock_timestamp() AS in_hand,
       deadline > clock_timestamp() AND state <> 'unknown' AS sending FROM pushes
WHERE tenant_id = $1 AND backend_id = $2 AND ($3::text[] IS NULL OR path = ANY ($3::text[])) AND state IN ('planned', 'sent', 'unknown')
ORDER BY push_id;

-- name: hide
-- Copies of what is read through the backend from now on: no read sees them.
UPDATE secrets SET state = 'hidden', hidden_by = $2, hidden_at = now(), row_rev = row_rev + 1
WHERE tenant_id = $1 AND secret_id = ANY ($3::bigint[]) AND state IN ('live', 'deleted');

-- name: hidden
-- Hidden copies of a backend, by path, a page at a time.
SELECT secret_id, path FROM secrets
WHERE tenant_id = $1 AND state = 'hidden' AND hidden_by = $2 AND path > $3 ORDER BY path LIMIT $4;

-- name: count_hidden
SELECT count(*) FROM secrets WHERE tenant_id = $1 AND state = 'hidden' AND hidden_by = $2;

-- name: show_again
-- Hidden copies as they were before.
UPDATE secrets SET state = CASE WHEN deleted_at IS NULL THEN 'live' ELSE 'deleted' END, hidden_by = NULL, hidden_at = NULL,
  row_rev = row_rev + 1
WHERE tenant_id = $1 AND secret_id = ANY ($2::bigint[]) AND state = 'hidden';

-- name: overdue_hidden
-- Copies that have been hidden for so many seconds, locked; what somebody else has in hand is left to him.
SELECT secret_id FROM secrets
WHERE tenant_id = $1 AND state = 'hidden' AND hidden_by = $2 AND hidden_at <= now() - make_interval(secs => $3)
ORDER BY secret_id LIMIT $4 FOR UPDATE SKIP LOCKED;

-- name: destroy
-- Nothing is left of these secrets but their counters: no version, no base.
WITH doomed AS (SELECT secret_id, path FROM secrets WHERE tenant_id = $1 AND secret_id = ANY ($3::bigint[])),
     a AS (DELETE FROM versions v USING doomed d WHERE v.tenant_id = $1 AND v.secret_id = d.secret_id),
     b AS (DELETE FROM sync_state p USING doomed d WHERE p.tenant_id = $1 AND p.backend_id = $2 AND p.path = d.path)
UPDATE secrets s SET state = 'void', tags = '{}', owner = NULL, description = NULL, custom = '{}', propagate = false,
  hidden_by = NULL, hidden_at = NULL, deleted_at = NULL, row_rev = s.row_rev + 1, updated_at = now()
FROM doomed d WHERE s.tenant_id = $1 AND s.secret_id = d.secret_id;

-- name: set_state
-- The configuration stays; the revision rises, so that what was decided under the state before is told apart.
UPDATE backends SET state = $3, rev = rev + 1 WHERE tenant_id = $1 AND backend_id = $2 AND state = ANY ($4::text[]) RETURNING rev;

-- name: close_conflicts
-- Nobody can decide them any more; both values are kept as those of any closed conflict.
UPDATE conflicts SET state = 'backend_removed', closed_at = now(), updated_at = now()
WHERE tenant_id = $1 AND conflict_id IN (SELECT conflict_id FROM conflicts WHERE tenant_id = $1 AND backend_id = $2 AND state = 'open'
                                         ORDER BY conflict_id LIMIT $3);

-- name: forget_nothing_settled
-- Pairs of these paths that never had a base say nothing.
DELETE FROM sync_state WHERE tenant_id = $1 AND backend_id = $2 AND path = ANY ($3::text[]) AND base_kind = 'none';

-- name: any_left
-- Is there anything of this backend that its removal has not settled?
SELECT EXISTS (SELECT FROM sync_state WHERE tenant_id = $1 AND backend_id = $2 AND status NOT IN ('detached', 'standby'))
    OR EXISTS (SELECT FROM pushes WHERE tenant_id = $1 AND backend_id = $2 AND state IN ('planned', 'sent', 'unknown'));

-- name: end_queued
-- Runs that waited for a backend which is no more.
UPDATE runs SET state = 'superseded', ended_at = clock_timestamp() WHERE tenant_id = $1 AND backend_id = $2 AND state = 'queued';

-- name: remove
-- Its health row goes with it; its runs, events, pushes and closed conflicts stay until their time is over.
WITH a AS (DELETE FROM leases WHERE tenant_id = $1 AND backend_id = $2),
     b AS (DELETE FROM sync_state WHERE tenant_id = $1 AND backend_id = $2 AND status = 'standby'),
     c AS (DELETE FROM dirty_paths WHERE tenant_id = $1 AND backend_id = $2)
DELETE FROM backends WHERE tenant_id = $1 AND backend_id = $2;

-- name: destroy_sides
-- Values that were kept beside these secrets: the sides of closed conflicts, and what a push was about to replace.
WITH doomed AS (SELECT secret_id, path FROM secrets WHERE tenant_id = $1 AND secret_id = ANY ($3::bigint[])),
     c AS (UPDATE conflicts c SET local_key_id = NULL, local_nonce = NULL, local_sealed = NULL, remote_key_id = NULL,
             remote_nonce = NULL, remote_sealed = NULL
           FROM doomed d WHERE c.tenant_id = $1 AND c.backend_id = $2 AND c.path = d.path AND c.state <> 'open')
UPDATE pushes u SET before_key_id = NULL, before_nonce = NULL, before_sealed = NULL
FROM doomed d WHERE u.tenant_id = $1 AND u.backend_id = $2 AND u.path = d.path AND u.before_sealed IS NOT NULL;
