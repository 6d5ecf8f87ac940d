-- name: enqueue
-- A run is born queued. One full and one targeted run wait per backend at most: nothing is
-- inserted where one waits already.
INSERT INTO runs (tenant_id, run_id, backend_id, kind, trigger, paths, allow, rev)
SELECT $1, $2, $3, $4, $5, $6::text[], $7::text[], b.rev FROM backends b WHERE b.tenant_id = $1 AND b.backend_id = $3
FOR KEY SHARE
ON CONFLICT (tenant_id, backend_id, kind) WHERE state = 'queued' DO NOTHING
RETURNING run_id;

-- name: join_waiting
-- Whoever asks for what waits already gets that run, which then has his leave and his paths too. Where a person asks, it is
-- not put off any more as the schedule's are.
UPDATE runs SET allow = ARRAY (SELECT DISTINCT unnest(allow || $4::text[])), not_before = least(not_before, clock_timestamp()),
  asked_for = asked_for OR $6 IN ('api', 'run_once'), put_off = NULL,
  paths = CASE WHEN paths IS NULL THEN $5::text[] WHEN $5::text[] IS NULL THEN paths
               ELSE ARRAY (SELECT DISTINCT unnest(paths || $5::text[])) END
WHERE tenant_id = $1 AND backend_id = $2 AND kind = $3 AND state = 'queued'
RETURNING run_id;

-- name: lock_queued
-- A run that waits, for whoever takes it; nothing where another one is about to. Nor where all runs were stopped, or a newer svsync
-- migrated the schema: whoever takes it was told of it a moment ago, and has more of them in hand.
SELECT backend_id FROM runs WHERE tenant_id = $1 AND run_id = $2 AND state = 'queued' AND not_before <= clock_timestamp()
  AND NOT EXISTS (SELECT FROM store_home WHERE stopped_at IS NOT NULL)
  AND NOT EXISTS (SELECT FROM schema_migrations WHERE min_code > $3)
FOR UPDATE SKIP LOCKED;

-- name: inherit
-- A run that its stopped worker gives back, while another one of its kind waits: that one goes on with its work rows,
-- what it suspects, and what it was asked for.
UPDATE runs w SET run_no = r.run_no, handed_over = true, given_back_at = clock_timestamp(), not_before = clock_timestamp(),
  staged_count = CASE WHEN $6 THEN r.staged_count END, scope_hash = r.scope_hash,
  counts = $3::jsonb, calls = $4::jsonb, stages_ms = $5::jsonb, suspects = r.suspects, attempts = r.attempts,
  allow = ARRAY (SELECT DISTINCT unnest(w.allow || r.allow)), asked_for = w.asked_for OR r.asked_for OR r.trigger IN ('api', 'run_once'),
  paths = CASE WHEN w.paths IS NULL THEN r.paths WHEN r.paths IS NULL THEN w.paths
               ELSE ARRAY (SELECT DISTINCT unnest(w.paths || r.paths)) END
FROM runs r
WHERE r.tenant_id = $1 AND r.run_id = $2 AND r.state = 'running'
  AND w.tenant_id = $1 AND w.backend_id = r.backend_id AND w.kind = r.kind AND w.state = 'queued'
RETURNING w.run_id;

-- name: pass_scopes
UPDATE stage_scopes SET run_id = $3 WHERE tenant_id = $1 AND run_id = $2;

-- name: supersede
-- Its work rows are another run's now, and so is the count of its calls.
UPDATE runs SET state = 'superseded', ended_at = clock_timestamp(), run_no = DEFAULT, calls = NULL, granted = NULL
WHERE tenant_id = $1 AND run_id = $2 AND state = 'running';

-- name: requeue
-- Given back by a worker that was stopped: it waits again, with its stage and what it has done so far.
UPDATE runs SET state = 'queued', handed_over = true, given_back_at = clock_timestamp(), fence = NULL, worker = NULL, started_at = NULL,
  staged_count = CASE WHEN $6 THEN staged_count END,
  counts = $3::jsonb, calls = $4::jsonb, stages_ms = $5::jsonb, not_before = clock_timestamp(), granted = NULL
WHERE tenant_id = $1 AND run_id = $2 AND state = 'running';

-- name: put_off
-- A run that nobody waits for and that would come to no end now: looked at again at that time, or in a minute where nobody can
-- tell when. Not where a person has asked for it meanwhile.
UPDATE runs SET put_off = $3, not_before = greatest(coalesce($4, clock_timestamp() + interval '1 minute'), clock_timestamp() + interval '1 second')
WHERE tenant_id = $1 AND run_id = $2 AND state = 'queued' AND (asked_for OR trigger IN ('api', 'run_once')) = $5;

-- name: look_again
-- What put a backend's runs off may be otherwise under its new configuration. Who has one in hand sees that, and is not
-- waited for: it may wait for our lease.
UPDATE runs SET put_off = NULL, not_before = clock_timestamp() FROM (
  SELECT run_id FROM runs WHERE tenant_id = $1 AND backend_id = $2 AND state = 'queued' AND put_off IS NOT NULL
  FOR UPDATE SKIP LOCKED) w
WHERE runs.tenant_id = $1 AND runs.run_id = w.run_id;

-- name: grant
-- Calls of a budget that a run may make from now on; once it has ended, those count that it made.
UPDATE runs SET granted = coalesce(granted, 0) + $3 WHERE tenant_id = $1 AND run_id = $2 AND state = 'running';

-- name: withdraw
-- A run that nobody can work: its backend has nothing to run any more.
UPDATE runs SET state = 'superseded', ended_at = clock_timestamp() WHERE tenant_id = $1 AND run_id = $2 AND state = 'queued';

-- name: waiting
-- The run that waits for this backend, of one kind.
SELECT run_id FROM runs WHERE tenant_id = $1 AND backend_id = $2 AND kind = $3 AND state = 'queued' FOR UPDATE;

-- name: take_lease
-- Take the lease if nobody holds it; the fence rises with the holder.
INSERT INTO leases (tenant_id, backend_id, fence, holder, run_id, acquired_at, expires_at)
VALUES ($1, $2, 1, $3, $4, clock_timestamp(), clock_timestamp() + make_interval(secs => $5))
ON CONFLICT (tenant_id, backend_id) DO UPDATE
SET fence = leases.fence + 1, holder = excluded.holder, run_id = excluded.run_id,
    acquired_at = excluded.acquired_at, expires_at = excluded.expires_at
WHERE leases.holder IS NULL OR leases.expires_at <= clock_timestamp()
RETURNING fence;

-- name: holder
-- Who holds the lease now, and until when.
SELECT holder, run_id, expires_at, fence FROM leases
WHERE tenant_id = $1 AND backend_id = $2 AND holder IS NOT NULL AND expires_at > clock_timestamp();

-- name: renew_lease
-- Still ours? Then for some seconds more. The fence does not move, so no open transaction waits.
UPDATE leases SET expires_at = clock_timestamp() + make_interval(secs => $5)
WHERE tenant_id = $1 AND backend_id = $2 AND fence = $3 AND holder = $4;

-- name: release_lease
UPDATE leases SET holder = NULL, run_id = NULL, expires_at = NULL
WHERE tenant_id = $1 AND backend_id = $2 AND fence = $3;

-- name: lock_lease
SELECT 1 FROM leases WHERE tenant_id = $1 AND backend_id = $2 FOR UPDATE;

-- name: raise_fence
-- A change of configuration: what runs now loses its next commit. A new lease begins behind the runs of a backend of that
-- id that was removed, whose workers may still be there.
INSERT INTO leases (tenant_id, backend_id, fence)
SELECT $1, $2, 1 + coalesce(max(fence), 0) FROM runs WHERE tenant_id = $1 AND backend_id = $2
ON CONFLICT (tenant_id, backend_id) DO UPDATE
SET fence = leases.fence + 1, holder = NULL, run_id = NULL, expires_at = NULL;

-- name: supersede_running
-- Not lost: its successor goes on by the new configuration, and reports.
UPDATE runs SET state = 'superseded', ended_at = clock_timestamp() WHERE tenant_id = $1 AND backend_id = $2 AND state = 'running';

-- name: end_lost
-- Whoever takes a lease over ends the run that its holder left behind.
UPDATE runs SET state = 'failed', result = 'failed', error_code = 'worker_lost', error_stage = stage,
  error_message = 'the worker of this run died or lost its lease; another one took over', ended_at = clock_timestamp()
WHERE tenant_id = $1 AND backend_id = $2 AND state = 'running'
RETURNING run_id, run_no, trigger, kind, started_at, ended_at, attempts, error_code, error_stage, error_message;

-- name: start
-- `attempts` rises here, not at failure, so that a run that kills its worker is seen: it goes on from the deaths before.
UPDATE runs SET state = 'running', started_at = clock_timestamp(), attempts = $5 + 1, suspects = $6::text[], fence = $3, worker = $4,
  -- A listing that nobody went on with within a minute is old: what has changed since would be taken for unchanged.
  staged_count = CASE WHEN given_back_at > clock_timestamp() - interval '60 s' THEN staged_count END,
  stage = CASE WHEN given_back_at > clock_timestamp() - interval '60 s' AND staged_count IS NOT NULL THEN 'diff' ELSE 'list' END,
  put_off = NULL, granted = NULL, given_back_at = NULL,
  -- What an earlier worker had in hand is of a work list that is made anew.
  todo_count = NULL, batch_cursor = 0, batch_size = NULL, in_hand = NULL, rev = (SELECT rev FROM backends b WHERE b.tenant_id = runs.tenant_id AND b.backend_id = runs.backend_id)
WHERE tenant_id = $1 AND run_id = $2 AND state = 'queued'
RETURNING run_no, started_at, attempts, allow, paths, kind, trigger, asked_for OR trigger IN ('api', 'run_once') AS asked_for,
  handed_over, staged_count, scope_hash,
  counts::text AS counts, calls::text AS calls, stages_ms::text AS stages_ms;

-- name: set_stage
UPDATE runs SET stage = $3 WHERE tenant_id = $1 AND run_id = $2;

-- name: record_staged
-- The logged memory of an unlogged stage: an emptied stage no longer matches it.
UPDATE runs SET stage = 'diff', staged_count = $3, scope_hash = $4 WHERE tenant_id = $1 AND run_id = $2;

-- name: record_todo
UPDATE runs SET stage = 'fetch', todo_count = $3 WHERE tenant_id = $1 AND run_id = $2;

-- name: advance
-- The batch in hand, named before it is worked on, and the last one committed.
UPDATE runs SET batch_cursor = $3, batch_size = $4 WHERE tenant_id = $1 AND run_id = $2;

-- name: finish
UPDATE runs SET state = $3, result = $4, stage = $5, counts = $6::jsonb, calls = $7::jsonb, stages_ms = $8::jsonb,
  error_code = $9, error_stage = $10, error_message = $11, ended_at = clock_timestamp(), granted = NULL,
  -- A full run that went through has cleared whom it suspected; any other passes that on.
  suspects = CASE WHEN $3 = 'completed' AND kind = 'full' THEN NULL ELSE suspects END
WHERE tenant_id = $1 AND run_id = $2 AND state = 'running'
RETURNING started_at, ended_at;

-- name: add_skips
INSERT INTO run_skips (tenant_id, run_id, n, remote_path, reason, detail)
SELECT $1, $2, n, p, r, d FROM unnest($3::int[], $4::text[], $5::text[], $6::text[]) AS x(n, p, r, d);

-- name: get
SELECT run_id, backend_id, kind, trigger, state, result, started_at, ended_at, counts::text AS counts, calls::text AS calls,
  stages_ms::text AS stages_ms, error_code, error_stage, error_message
FROM runs WHERE tenant_id = $1 AND run_id = $2;

-- name: skips
SELECT remote_path, reason, detail FROM run_skips WHERE tenant_id = $1 AND run_id = $2 ORDER BY n;

-- name: recent
SELECT run_id, backend_id, kind, trigger, state, result, started_at, ended_at, counts::text AS counts, calls::text AS calls,
  stages_ms::text AS stages_ms, error_code, error_stage, error_message
FROM runs WHERE tenant_id = $1 AND backend_id = $2 ORDER BY run_id DESC LIMIT $3;

-- name: calls_of_last_day
-- Of the runs that ended within a day or were given back within it, and of those under way. What was granted to a run counts
-- until it tells what it called; one whose worker died, or that was overtaken, never does.
SELECT coalesce(sum(coalesce(c.made, 0) + coalesce(r.granted, 0)), 0)::bigint FROM runs r
CROSS JOIN LATERAL (SELECT sum(x.made::bigint) AS made FROM jsonb_each_text(r.calls) AS x(operation, made)) c
WHERE r.tenant_id = $1 AND r.backend_id = $2
  AND (r.ended_at > now() - interval '24 hours'
       OR r.ended_at IS NULL AND coalesce(r.given_back_at > now() - interval '24 hours', true));

-- name: calls_come_free
-- When so many calls more ($3) than now are older than a day, as `calls_of_last_day` and `proxied_calls.made` count them.
WITH spent AS (
  SELECT coalesce(r.ended_at, r.given_back_at) + interval '24 hours' AS until, coalesce(c.made, 0) + coalesce(r.granted, 0) AS made
  FROM runs r
  CROSS JOIN LATERAL (SELECT sum(x.made::bigint) AS made FROM jsonb_each_text(r.calls) AS x(operation, made)) c
  WHERE r.tenant_id = $1 AND r.backend_id = $2
    AND (r.ended_at > now() - interval '24 hours' OR r.ended_at IS NULL AND r.given_back_at > now() - interval '24 hours')
  UNION ALL
  SELECT hour + interval '25 hours', made FROM proxied_calls
  WHERE tenant_id = $1 AND backend_id = $2 AND hour > now() - interval '25 hours')
SELECT min(until) FROM (SELECT until, sum(made) OVER (ORDER BY until) AS free FROM spent) s WHERE s.free >= $3;

-- name: calls_of_short_cycle
-- What the full run called that ended last, where that was within a day, and for want of calls.
SELECT (SELECT sum(x.made::bigint)::bigint FROM jsonb_each_text(r.calls) AS x(operation, made)) FROM (
  SELECT error_code, calls FROM runs
  WHERE tenant_id = $1 AND backend_id = $2 AND kind = 'full' AND state IN ('completed', 'failed') AND ended_at > now() - interval '24 hours'
  ORDER BY ended_at DESC LIMIT 1) r
WHERE r.error_code = 'call_budget_spent';

-- name: calls_of_cycles
-- What the last full runs cost that went through; a dry run is no cycle.
SELECT calls::text AS calls FROM runs
WHERE tenant_id = $1 AND backend_id = $2 AND kind = 'full' AND state = 'completed' AND calls IS NOT NULL
ORDER BY run_id DESC LIMIT 10;
