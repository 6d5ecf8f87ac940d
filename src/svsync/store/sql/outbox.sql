-- name: sequence
-- The next numbers of a backend's events; one at a time, because the row is locked until the transaction ends.
UPDATE backend_health SET last_sequence = last_sequence + $3 WHERE tenant_id = $1 AND backend_id = $2
RETURNING last_sequence;

-- name: add
-- Where nobody listens, an event is a row like any other and is never looked at again.
INSERT INTO outbox (tenant_id, event_id, backend_id, sequence, type, payload, pending)
SELECT $1, x.event_id, $2, x.sequence, x.type, x.payload,
  EXISTS (SELECT FROM endpoints e WHERE e.tenant_id = $1 AND e.state = 'active')
FROM unnest($3::text[], $4::bigint[], $5::text[], $6::text[]) AS x(event_id, sequence, type, payload);

-- name: list
SELECT event_id, backend_id, sequence, type, payload, created_at FROM outbox
WHERE tenant_id = $1 AND backend_id = $2 ORDER BY sequence;

-- name: waiting
-- Of these tenants those with events of which no delivery was made yet.
SELECT t.tenant_id FROM unnest($1::int[]) AS t(tenant_id)
WHERE EXISTS (SELECT FROM outbox o WHERE o.tenant_id = t.tenant_id AND o.pending);

-- name: lock
-- One process at a time makes a tenant's deliveries, so that no later event of a backend gets ahead of an earlier one. False:
-- somebody else is at it.
SELECT pg_try_advisory_xact_lock(1398165840, $1);

-- name: pending
-- The next events, each backend's in their order. Sequence numbers are given out under a lock that ends with the commit, so
-- none of them appears later than a higher one.
SELECT event_id, backend_id, sequence, type, payload FROM outbox
WHERE tenant_id = $1 AND pending ORDER BY backend_id, sequence LIMIT $2;

-- name: fan_out
-- Deliveries of these events ($2), which wait no longer. An endpoint that was told of one of them already is not told again.
WITH told AS (UPDATE outbox SET pending = false WHERE tenant_id = $1 AND event_id = ANY ($2::text[])),
at AS (SELECT clock_timestamp() AS moment)
INSERT INTO deliveries (tenant_id, endpoint_id, event_id, backend_id, sequence, payload, created_at, next_at, give_up_at)
SELECT $1, x.endpoint_id, x.event_id, x.backend_id, x.sequence, x.payload, at.moment, at.moment,
  at.moment + make_interval(secs => $8)
FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[])
  AS x(endpoint_id, event_id, backend_id, sequence, payload), at
ON CONFLICT (tenant_id, endpoint_id, event_id) DO NOTHING;

-- name: prune
-- A page of events, and which of them are old, told to everybody, and gone now. The newest of a backend stays: its number is
-- where a backend that comes back under that id goes on.
WITH page AS (SELECT event_id, backend_id, sequence, pending, created_at <= now() - make_interval(secs => $4) AS old
              FROM outbox WHERE tenant_id = $1 AND event_id > $2 ORDER BY event_id LIMIT $3),
gone AS (
  DELETE FROM outbox o USING page
  WHERE o.tenant_id = $1 AND o.event_id = page.event_id AND page.old AND NOT page.pending
    AND EXISTS (SELECT FROM outbox n WHERE n.tenant_id = $1 AND n.backend_id = page.backend_id AND n.sequence > page.sequence)
    AND NOT EXISTS (SELECT FROM endpoints e JOIN deliveries d ON d.tenant_id = $1 AND d.endpoint_id = e.endpoint_id
                    AND d.event_id = page.event_id WHERE e.tenant_id = $1)
  RETURNING o.event_id)
SELECT page.event_id, page.old, gone.event_id IS NOT NULL AS removed
FROM page LEFT JOIN gone USING (event_id) ORDER BY page.event_id;
