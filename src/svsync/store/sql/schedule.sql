-- name: beat
INSERT INTO instances (instance_id, roles, version) VALUES ($1, $2::text[], $3)
ON CONFLICT (instance_id) DO UPDATE SET roles = excluded.roles, version = excluded.version, beat_at = clock_timestamp();

-- name: leave
DELETE FROM instances WHERE instance_id = $1 OR beat_at < clock_timestamp() - interval '1 day';

-- name: count_live
SELECT count(*) AS live, count(*) FILTER (WHERE 'api' = ANY (roles)) AS answering FROM instances WHERE beat_at > clock_timestamp() - make_interval(secs => $1);

-- name: share
-- How many processes work runs, and how many of them come before this one in the order of their names.
SELECT count(*) AS many, count(*) FILTER (WHERE instance_id < $2) AS before FROM instances
WHERE beat_at > clock_timestamp() - make_interval(secs => $1) AND 'worker' = ANY (roles);

-- name: next_due
-- How many backends are due, and seconds until the next one is; how many processes look for that.
SELECT count(*) FILTER (WHERE h.next_due_at <= now()) AS due, extract(epoch FROM min(h.next_due_at) - now())::float8 AS seconds,
  (SELECT count(*) FROM instances WHERE beat_at > clock_timestamp() - make_interval(secs => $1) AND 'scheduler' = ANY (roles)) AS looking
FROM backend_health h JOIN backends b USING (tenant_id, backend_id) WHERE b.state = 'active';

-- name: enqueue_due
-- Backends that are due become queued runs, and are due again one interval later, less up to a tenth: whichever replica is
-- first, the others find nothing. Where no rule syncs there is a probe instead. $1: run ids, as many as are wanted at most.
-- While a person has stopped all runs there is none, and what is due is so again in a few seconds: no tick is made in vain.
WITH halt AS (SELECT EXISTS (SELECT FROM store_home WHERE stopped_at IS NOT NULL) AS halted),
     due AS (
       SELECT h.tenant_id, h.backend_id, b.syncs, b.rev, b.interval_s, row_number() OVER (ORDER BY h.next_due_at) AS n
       FROM backend_health h JOIN backends b USING (tenant_id, backend_id)
       WHERE (h.tenant_id, h.backend_id) IN (
         SELECT d.tenant_id, d.backend_id FROM backend_health d JOIN backends e USING (tenant_id, backend_id)
         WHERE d.next_due_at <= now() AND e.state = 'active'
         ORDER BY d.next_due_at LIMIT cardinality($1::text[]) FOR UPDATE OF d SKIP LOCKED)),
     moved AS (
       UPDATE backend_health h SET next_due_at = now()
         + make_interval(secs => CASE WHEN halt.halted THEN 5 WHEN d.syncs THEN d.interval_s * (1 - 0.1 * random()) ELSE $2 END)
       FROM due d CROSS JOIN halt WHERE h.tenant_id = d.tenant_id AND h.backend_id = d.backend_id)
INSERT INTO runs (tenant_id, run_id, backend_id, kind, trigger, rev)
SELECT d.tenant_id, i.id, d.backend_id, CASE WHEN d.syncs THEN 'full' ELSE 'probe' END,
  CASE WHEN d.syncs THEN 'schedule' ELSE 'probe' END, d.rev
FROM due d JOIN unnest($1::text[]) WITH ORDINALITY AS i(id, n) ON i.n = d.n WHERE NOT (SELECT halt.halted FROM halt)
-- One that waits for its time, for a feed, need not any more; one that could begin already is left as it is.
-- So is one that was put off.
ON CONFLICT (tenant_id, backend_id, kind) WHERE state = 'queued'
DO UPDATE SET not_before = now() WHERE runs.not_before > now() AND runs.put_off IS NULL
RETURNING run_id;

-- name: candidates
-- Runs that could begin now, best first: what somebody named, what was never synced, and what has waited long; then what was
-- asked for; then the schedule. Between tenants the one that has fewest at work, as if those before it had begun. None while a
-- person has stopped all runs, nor on a schema that asks for newer code than $2: a newer svsync has migrated it meanwhile.
WITH busy AS MATERIALIZED (SELECT tenant_id, count(*) AS n FROM runs WHERE state = 'running' GROUP BY tenant_id),
urgent AS (
  SELECT r.tenant_id, r.run_id, r.queued_at, coalesce(busy.n, 0) AS busy,
    CASE WHEN r.kind IN ('targeted', 'probe') OR h.last_success_at IS NULL OR r.queued_at < clock_timestamp() - interval '60 s' THEN 0
         WHEN r.trigger <> 'schedule' THEN 1 ELSE 2 END AS class
  FROM runs r
  JOIN backends b ON b.tenant_id = r.tenant_id AND b.backend_id = r.backend_id AND b.state = 'active'
  JOIN backend_health h ON h.tenant_id = r.tenant_id AND h.backend_id = r.backend_id
  LEFT JOIN leases l ON l.tenant_id = r.tenant_id AND l.backend_id = r.backend_id
    AND l.holder IS NOT NULL AND l.expires_at > clock_timestamp()
  LEFT JOIN busy ON busy.tenant_id = r.tenant_id
  WHERE r.state = 'queued' AND r.not_before <= clock_timestamp() AND r.kind <> 'dry' AND l.holder IS NULL
    AND NOT EXISTS (SELECT FROM store_home WHERE stopped_at IS NOT NULL)
    AND NOT EXISTS (SELECT FROM schema_migrations WHERE min_code > $2)),
turns AS (
  SELECT tenant_id, run_id, queued_at, class, busy + row_number() OVER (PARTITION BY tenant_id, class ORDER BY queued_at) AS turn
  FROM urgent)
SELECT tenant_id, run_id, class < 2 AS urgent FROM turns ORDER BY class, turn, queued_at LIMIT $1;

-- name: next_begin
-- Seconds until a waiting run may begin that may not yet; none where no such run waits.
SELECT extract(epoch FROM min(not_before) - clock_timestamp())::float8 AS seconds FROM runs
WHERE state = 'queued' AND not_before > clock_timestamp();

-- name: enqueue_probe
INSERT INTO runs (tenant_id, run_id, backend_id, kind, trigger, rev, not_before)
SELECT $1, $3, $2, 'probe', 'probe', b.rev, clock_timestamp() + make_interval(secs => $4)
FROM backends b WHERE b.tenant_id = $1 AND b.backend_id = $2
ON CONFLICT (tenant_id, backend_id, kind) WHERE state = 'queued' DO NOTHING;

-- name: ask_for_probe
-- Who meets a failed connection does not judge. A probe that waits goes on waiting: it is the next of a row, ever later.
INSERT INTO runs (tenant_id, run_id, backend_id, kind, trigger, rev)
SELECT $1, $3, $2, 'probe', 'probe', b.rev FROM backends b WHERE b.tenant_id = $1 AND b.backend_id = $2 AND b.state = 'active'
  AND NOT EXISTS (SELECT FROM runs r WHERE r.tenant_id = $1 AND r.backend_id = $2 AND r.kind = 'probe' AND r.state IN ('queued', 'running'))
ON CONFLICT (tenant_id, backend_id, kind) WHERE state = 'queued' DO NOTHING;

-- name: enqueue_hinted
-- A run that a change feed asked for, no sooner than so many seconds after the last one that any feed asked for.
INSERT INTO runs (tenant_id, run_id, backend_id, kind, trigger, rev, not_before)
SELECT $1, $3, $2, $4, 'feed', b.rev, greatest(clock_timestamp(), make_interval(secs => $5) + (
    SELECT max(x.queued_at) FROM (SELECT trigger, queued_at FROM runs WHERE tenant_id = $1 AND backend_id = $2
                                  ORDER BY run_id DESC LIMIT 20) x WHERE x.trigger = 'feed'))
FROM backends b WHERE b.tenant_id = $1 AND b.backend_id = $2 AND b.state = 'active' AND b.syncs
-- The one that waits is locked, so that nobody begins it before the paths that it is to look at are there.
ON CONFLICT (tenant_id, backend_id, kind) WHERE state = 'queued'
DO UPDATE SET not_before = CASE WHEN runs.put_off IS NULL THEN least(runs.not_before, excluded.not_before) ELSE runs.not_before END
RETURNING run_id;

-- name: add_dirty
-- A path that is named again gets a new number.
INSERT INTO dirty_paths (tenant_id, backend_id, remote_path, seq, feed)
SELECT $1, $2, p, nextval('dirty_seqs'), $4 FROM unnest($3::text[]) AS p ORDER BY p
ON CONFLICT (tenant_id, backend_id, remote_path) DO UPDATE SET seq = excluded.seq, feed = excluded.feed;

-- name: dirty
SELECT remote_path, seq FROM dirty_paths WHERE tenant_id = $1 AND backend_id = $2 ORDER BY remote_path;

-- name: dirty_first
SELECT remote_path, seq FROM dirty_paths WHERE tenant_id = $1 AND backend_id = $2 LIMIT $3;

-- name: clean
-- What was looked at, unless somebody has named it again since.
DELETE FROM dirty_paths d USING unnest($3::text[], $4::bigint[]) AS x(remote_path, seq)
WHERE d.tenant_id = $1 AND d.backend_id = $2 AND d.remote_path = x.remote_path AND d.seq = x.seq;

-- name: overdue_pushes
-- Paths whose pushes nobody has in hand any more, of backends that can be asked and are at rest; the less often, the more of
-- their runs fail. A run of everything that was put off keeps nobody from asking.
SELECT u.tenant_id, u.backend_id, array_agg(DISTINCT u.remote_path) AS paths FROM pushes u
JOIN backends b ON b.tenant_id = u.tenant_id AND b.backend_id = u.backend_id AND b.state = 'active' AND b.syncs
JOIN backend_health h ON h.tenant_id = u.tenant_id AND h.backend_id = u.backend_id AND h.unreachable_since IS NULL
  AND (h.last_sync_at IS NULL OR h.last_sync_at < clock_timestamp() - make_interval(mins => least(1 + h.failures, 60)))
WHERE u.state IN ('planned', 'sent', 'unknown') AND u.deadline < clock_timestamp() - make_interval(secs => $1)
  AND NOT EXISTS (SELECT FROM runs r WHERE r.tenant_id = u.tenant_id AND r.backend_id = u.backend_id
                  AND (r.state = 'running' OR r.state = 'queued' AND (r.kind = 'targeted' OR r.put_off IS NULL)))
GROUP BY u.tenant_id, u.backend_id LIMIT 100;

-- name: stale
-- Backends whose last success is older than they promise, of which nobody has told yet.
SELECT h.tenant_id, h.backend_id FROM backend_health h JOIN backends b USING (tenant_id, backend_id)
WHERE b.state = 'active' AND b.stale_after_s IS NOT NULL AND NOT h.told_stale
  AND coalesce(h.last_success_at, b.created_at) < now() - make_interval(secs => b.stale_after_s) LIMIT 1000;

-- name: tell_stale
-- Once: whoever sets the mark tells.
UPDATE backend_health h SET told_stale = true FROM backends b
WHERE h.tenant_id = $1 AND h.backend_id = $2 AND b.tenant_id = $1 AND b.backend_id = $2 AND NOT h.told_stale
  AND coalesce(h.last_success_at, b.created_at) < now() - make_interval(secs => b.stale_after_s)
RETURNING b.name, b.stale_after_s, h.last_success_at,
  extract(epoch FROM now() - coalesce(h.last_success_at, b.created_at))::float8 AS staleness_s;

-- name: abandoned
-- Running runs whose lease is over: whoever takes the backend next ends them; where no run waits, one is to be queued. One
-- that was put off is begun all the same.
SELECT r.tenant_id, r.backend_id, b.syncs FROM runs r
JOIN backends b ON b.tenant_id = r.tenant_id AND b.backend_id = r.backend_id AND b.state = 'active'
LEFT JOIN leases l ON l.tenant_id = r.tenant_id AND l.backend_id = r.backend_id AND l.expires_at > clock_timestamp()
WHERE r.state = 'running' AND l.holder IS NULL
  AND NOT EXISTS (SELECT FROM runs q WHERE q.tenant_id = r.tenant_id AND q.backend_id = r.backend_id AND q.state = 'queued'
                  AND q.put_off IS NULL)
LIMIT 1000;

-- name: lost_at_rest
-- The same of backends that nobody runs any more: paused, or being removed.
SELECT DISTINCT r.tenant_id, r.backend_id FROM runs r
JOIN backends b ON b.tenant_id = r.tenant_id AND b.backend_id = r.backend_id AND b.state <> 'active'
LEFT JOIN leases l ON l.tenant_id = r.tenant_id AND l.backend_id = r.backend_id AND l.expires_at > clock_timestamp()
WHERE r.state = 'running' AND l.holder IS NULL
LIMIT 1000;

-- name: take_turn
-- The lease of a task that one process does for all, unless somebody holds it or did it a short while ago.
INSERT INTO leases (tenant_id, backend_id, fence, holder, acquired_at, expires_at)
VALUES ($1, $2, 1, $3, clock_timestamp(), clock_timestamp() + make_interval(secs => $4))
ON CONFLICT (tenant_id, backend_id) DO UPDATE
SET fence = leases.fence + 1, holder = excluded.holder, acquired_at = excluded.acquired_at, expires_at = excluded.expires_at
WHERE (leases.holder IS NULL OR leases.expires_at <= clock_timestamp())
  AND leases.acquired_at <= clock_timestamp() - make_interval(secs => $5)
RETURNING fence;
