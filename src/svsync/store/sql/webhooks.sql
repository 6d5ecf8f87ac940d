-- name: add
INSERT INTO endpoints (tenant_id, endpoint_id, url, types, path_patterns, only_if_changed, key_id, nonce, sealed, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: get
-- `rotating`: the secret before the current one is younger than so many seconds, and valid.
SELECT e.*, coalesce(e.rotated_at > now() - make_interval(secs => $3), false) AS rotating, (SELECT count(*) FROM deliveries d WHERE d.tenant_id = $1 AND d.endpoint_id = e.endpoint_id AND d.state = 'due') AS due
FROM endpoints e WHERE e.tenant_id = $1 AND e.endpoint_id = $2;

-- name: list
SELECT e.*, (SELECT count(*) FROM deliveries d WHERE d.tenant_id = $1 AND d.endpoint_id = e.endpoint_id AND d.state = 'due') AS due
FROM endpoints e WHERE e.tenant_id = $1 ORDER BY e.created_at, e.endpoint_id;

-- name: lock
-- Before its deliveries, as everybody locks them.
SELECT * FROM endpoints WHERE tenant_id = $1 AND endpoint_id = $2 FOR UPDATE;

-- name: change
-- What is to be tried anew at another address is not held back any more.
UPDATE endpoints SET url = $3, types = $4, path_patterns = $5, only_if_changed = $6, state = $7, reason = $8, rev = rev + 1,
  failures = CASE WHEN url = $3 AND state = $7 THEN failures ELSE 0 END,
  failing_since = CASE WHEN url = $3 AND state = $7 THEN failing_since END,
  held_until = CASE WHEN url = $3 AND state = $7 THEN held_until END
WHERE tenant_id = $1 AND endpoint_id = $2;

-- name: set_secrets
UPDATE endpoints SET key_id = $3, nonce = $4, sealed = $5, rotated_at = now() WHERE tenant_id = $1 AND endpoint_id = $2;

-- name: remove
DELETE FROM endpoints WHERE tenant_id = $1 AND endpoint_id = $2;

-- name: listeners
-- Active endpoints; none of them is removed before the transaction ends.
SELECT endpoint_id, types, path_patterns, only_if_changed FROM endpoints
WHERE tenant_id = $1 AND state = 'active' ORDER BY endpoint_id FOR SHARE;

-- name: claim
-- Endpoints to which something is due and that nobody has in hand, the longest unserved first, for so many seconds.
WITH free AS (
  SELECT e.tenant_id, e.endpoint_id FROM endpoints e
  WHERE e.state = 'active' AND (e.claimed_until IS NULL OR e.claimed_until <= now()) AND (e.held_until IS NULL OR e.held_until <= now())
    AND EXISTS (SELECT FROM deliveries d WHERE d.tenant_id = e.tenant_id AND d.endpoint_id = e.endpoint_id
                AND d.state = 'due' AND d.next_at <= now())
  ORDER BY e.served_at LIMIT $1 FOR UPDATE OF e SKIP LOCKED)
UPDATE endpoints e SET claim = claim + 1, claimed_until = clock_timestamp() + make_interval(secs => $2), served_at = clock_timestamp()
FROM free WHERE e.tenant_id = free.tenant_id AND e.endpoint_id = free.endpoint_id
RETURNING e.tenant_id, e.endpoint_id, e.claim, e.failures;

-- name: renew
-- The endpoint as it is now, in hand for so many seconds more. Nothing: it was taken over, disabled or removed.
UPDATE endpoints SET claimed_until = clock_timestamp() + make_interval(secs => $4)
WHERE tenant_id = $1 AND endpoint_id = $2 AND claim = $3 AND state = 'active'
RETURNING endpoint_id, url, key_id, nonce, sealed, coalesce(rotated_at > now() - make_interval(secs => $5), false) AS rotating;

-- name: by_key
-- A plan that was made while the tables were small would be kept, and read a tenant whole for each row, however large it has
-- become: each statement is planned for the tables as they are.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'off', true);

-- name: due
-- What is due to an endpoint in hand, in the order in which it goes out, but for backends whose events are on their way.
WITH d AS MATERIALIZED (
  SELECT event_id, backend_id, attempts, payload, next_at, sequence FROM deliveries
  WHERE tenant_id = $1 AND endpoint_id = $2 AND state = 'due' AND next_at <= now() AND backend_id <> ALL ($3::text[])
  ORDER BY next_at, sequence LIMIT $4)
SELECT d.event_id, d.backend_id, d.attempts, o.type, o.created_at, coalesce(d.payload, o.payload) AS payload
FROM d CROSS JOIN LATERAL (SELECT type, created_at, payload FROM outbox WHERE tenant_id = $1 AND event_id = d.event_id LIMIT 1) o
ORDER BY d.next_at, d.sequence;

-- name: settle
-- What became of deliveries, and how their endpoint stands, where it is in hand still. One that failed for longer than it is
-- tried is dead; so is one that has no next time.
WITH mine AS (
  UPDATE endpoints SET failures = $4, failing_since = CASE WHEN $4 > 0 THEN coalesce(failing_since, now()) END,
    held_until = now() + make_interval(secs => $5)
  WHERE tenant_id = $1 AND endpoint_id = $2 AND claim = $3
  RETURNING endpoint_id)
UPDATE deliveries d SET attempts = d.attempts + 1, status_code = x.status_code, error_code = x.error_code,
  state = CASE WHEN x.error_code IS NULL THEN 'delivered' WHEN x.next_at <= d.give_up_at THEN 'due' ELSE 'dead' END,
  next_at = CASE WHEN x.next_at <= d.give_up_at THEN x.next_at ELSE d.next_at END,
  ended_at = CASE WHEN x.next_at <= d.give_up_at THEN NULL ELSE now() END
FROM mine, (SELECT event_id, status_code, error_code, now() + make_interval(secs => delay_s) AS next_at
            FROM unnest($6::text[], $7::int[], $8::text[], $9::float8[]) AS x(event_id, status_code, error_code, delay_s)) x
WHERE d.tenant_id = $1 AND d.endpoint_id = $2 AND d.event_id = ANY ($6::text[]) AND d.event_id = x.event_id AND d.state = 'due';

-- name: resume
-- After an outage everything that failed in it goes out in its old order.
UPDATE deliveries SET next_at = created_at
WHERE tenant_id = $1 AND endpoint_id = $2 AND state = 'due' AND attempts > 0 AND next_at > now();

-- name: expire
-- What an endpoint that takes nothing has not taken in all its time.
UPDATE deliveries SET state = 'dead', error_code = coalesce(error_code, $3), ended_at = now()
WHERE tenant_id = $1 AND endpoint_id = $2 AND state = 'due' AND give_up_at <= now();

-- name: release
UPDATE endpoints SET claimed_until = NULL WHERE tenant_id = $1 AND endpoint_id = $2 AND claim = $3;

-- name: disable
UPDATE endpoints SET state = 'disabled', reason = $4, rev = rev + 1
WHERE tenant_id = $1 AND endpoint_id = $2 AND claim = $3 AND state = 'active';

-- name: bury
-- Nothing goes to an endpoint that is disabled.
UPDATE deliveries SET state = 'dead', error_code = $3, ended_at = now()
WHERE tenant_id = $1 AND endpoint_id = $2 AND state = 'due';

-- name: next_due
-- Seconds until something is due to an endpoint that may be taken in hand then; 0 where an event waits to be handed out.
-- Null: nothing is.
SELECT least(CASE WHEN EXISTS (SELECT FROM outbox o WHERE o.tenant_id = ANY ($1::int[]) AND o.pending) THEN 0 END,
             (SELECT extract(epoch FROM min(greatest(d.next_at, e.held_until, e.claimed_until)) - now())
              FROM endpoints e
              CROSS JOIN LATERAL (SELECT min(d.next_at) AS next_at FROM deliveries d
                                  WHERE d.tenant_id = e.tenant_id AND d.endpoint_id = e.endpoint_id AND d.state = 'due') d
              WHERE e.state = 'active' AND d.next_at IS NOT NULL))::float8;

-- name: deliveries
-- An endpoint's deliveries, newest first, from below a delivery on.
SELECT d.event_id, d.backend_id, d.sequence, o.type, d.state, d.attempts, d.next_at, d.status_code, d.error_code, d.created_at, d.ended_at
FROM deliveries d JOIN outbox o ON o.tenant_id = d.tenant_id AND o.event_id = d.event_id
WHERE d.tenant_id = $1 AND d.endpoint_id = $2 AND ($3::text IS NULL OR d.state = $3) AND ($4::text IS NULL OR d.event_id < $4)
ORDER BY d.event_id DESC LIMIT $5;

-- name: replay
-- Dead deliveries, or one that ended as it may, as if they were new.
UPDATE deliveries SET state = 'due', attempts = 0, next_at = now(), give_up_at = now() + make_interval(secs => $4),
  status_code = NULL, error_code = NULL, ended_at = NULL
WHERE tenant_id = $1 AND endpoint_id = $2 AND (CASE WHEN $3::text IS NULL THEN state = 'dead' ELSE event_id = $3 AND state <> 'due' END);

-- name: prune
-- A page of an endpoint's deliveries, and which of them are old, have ended, and are gone now.
WITH page AS (SELECT event_id, created_at <= now() - make_interval(secs => $5) AS old FROM deliveries
              WHERE tenant_id = $1 AND endpoint_id = $2 AND event_id > $3 ORDER BY event_id LIMIT $4),
due AS (SELECT d.event_id FROM deliveries d JOIN page USING (event_id)
        WHERE d.tenant_id = $1 AND d.endpoint_id = $2 AND d.state <> 'due' AND d.ended_at <= now() - make_interval(secs => $5)
        FOR UPDATE OF d SKIP LOCKED),
gone AS (DELETE FROM deliveries d USING due WHERE d.tenant_id = $1 AND d.endpoint_id = $2 AND d.event_id = due.event_id
         RETURNING d.event_id)
SELECT page.event_id, page.old, gone.event_id IS NOT NULL AS removed
FROM page LEFT JOIN gone USING (event_id) ORDER BY page.event_id;
