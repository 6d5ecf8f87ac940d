-- name: tenant
SELECT tenant_id, status FROM tenants WHERE slug = $1;

-- name: tenants
SELECT slug FROM tenants WHERE status = 'active' ORDER BY slug;

-- name: lock_file
SELECT pg_advisory_xact_lock(1398165839, $1);

-- name: by_file
SELECT backend_id FROM backends WHERE tenant_id = $1 AND managed_by = 'file' AND state = 'active';

-- name: stored
SELECT spec, mapping_hash, state, vanished FROM backends WHERE tenant_id = $1 AND backend_id = $2 FOR UPDATE;

-- name: get
SELECT b.backend_id, b.name, b.type, b.spec, b.mapping_hash, b.applied_hash, b.applied_tags, b.identity, b.managed_by, b.state, b.rev, b.claimed_at
FROM backends b WHERE b.tenant_id = $1 AND (b.backend_id = $2 OR b.name = $2);

-- name: list
SELECT b.backend_id, b.name, b.type, b.spec, b.mapping_hash, b.applied_hash, b.applied_tags, b.identity, b.managed_by, b.state, b.rev, b.claimed_at
FROM backends b WHERE b.tenant_id = $1 ORDER BY b.backend_id;

-- name: add
INSERT INTO backends (tenant_id, backend_id, name, type, spec, mapping_hash, managed_by)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: add_health
INSERT INTO backend_health (tenant_id, backend_id) VALUES ($1, $2);

-- name: change
-- A new configuration; the claim on the paths is new where the mapping is, and another store has an identity of its own.
UPDATE backends SET name = $3, type = $4, spec = $5, state = $7, rev = rev + 1, identity = CASE WHEN $8 THEN identity END,
  vanished = false,
  claimed_at = CASE WHEN mapping_hash = $6 THEN claimed_at ELSE now() END, mapping_hash = $6
WHERE tenant_id = $1 AND backend_id = $2;

-- name: vanish
-- Paused by the file, which also resumes it; what a person paused stays so when the file names it again.
UPDATE backends SET state = 'paused', vanished = true WHERE tenant_id = $1 AND backend_id = $2 AND state = 'active';

-- name: set_applied
UPDATE backends SET applied_hash = $3 WHERE tenant_id = $1 AND backend_id = $2;

-- name: forget_applied
UPDATE backends SET applied_hash = NULL WHERE tenant_id = $1 AND backend_id = $2 AND applied_hash IS NOT NULL;

-- name: set_transforms
UPDATE backends SET applied_tags = $3 WHERE tenant_id = $1 AND backend_id = $2;

-- name: set_identity
UPDATE backends SET identity = $3 WHERE tenant_id = $1 AND backend_id = $2 AND identity IS NULL;

-- name: health
SELECT h.*, (SELECT count(*) FROM conflicts c WHERE c.tenant_id = $1 AND c.backend_id = $2 AND c.state = 'open') AS conflicts_now,
  extract(epoch FROM now() - h.last_success_at) AS staleness_s,
  l.holder, l.expires_at AS lease_until
FROM backend_health h
LEFT JOIN leases l ON l.tenant_id = h.tenant_id AND l.backend_id = h.backend_id AND l.holder IS NOT NULL AND l.expires_at > now()
WHERE h.tenant_id = $1 AND h.backend_id = $2;

-- name: run_ended
-- What status shows, set in the transaction that ends the run. A targeted run says nothing of the whole: success,
-- the next due time, and what a cycle skips and costs are a full run's to tell.
UPDATE backend_health SET last_run_id = $3, last_sync_at = now(),
  last_success_at = CASE WHEN $4 AND $5 THEN now() ELSE last_success_at END,
  failures = CASE WHEN NOT $5 THEN failures + 1 WHEN $4 THEN 0 ELSE failures END,
  unreachable_since = CASE WHEN $6 = 'unreachable' THEN coalesce(unreachable_since, now())
                           WHEN $6 IS NULL THEN unreachable_since END,
  status = coalesce($6, status), last_error = CASE WHEN NOT $5 THEN $7 WHEN $4 THEN NULL ELSE last_error END,
  next_due_at = CASE WHEN $4 THEN now() + make_interval(secs => $8) ELSE next_due_at END,
  secrets_synced = coalesce($9, secrets_synced), diverged = coalesce($10, diverged), quarantined = coalesce($11, quarantined),
  retained = coalesce($12, retained), conflicts_open = coalesce($13, conflicts_open), skipped = coalesce($14, skipped),
  calls_per_cycle = coalesce($15, calls_per_cycle), latency_ms = coalesce($16, latency_ms)
WHERE tenant_id = $1 AND backend_id = $2;

-- name: run_lost
UPDATE backend_health SET last_run_id = $3, last_sync_at = now(), failures = failures + 1, last_error = $4
WHERE tenant_id = $1 AND backend_id = $2;
