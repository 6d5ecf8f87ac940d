-- name: list
-- Of the tenants that the transaction sees.
SELECT t.tenant_id, t.slug, t.status, t.created_at, (SELECT count(*) FROM backends b WHERE b.tenant_id = t.tenant_id) AS backends
FROM tenants t WHERE t.tenant_id = ANY ($1::int[]) ORDER BY t.slug;

-- name: begin
-- Nobody signs in to it yet. Nothing, where the slug is taken.
INSERT INTO tenants (slug, status) VALUES ($1, 'suspended') ON CONFLICT (slug) DO NOTHING RETURNING tenant_id;

-- name: open
-- The one that was begun; its first key comes afterwards, so one that has any was open before. But for the key that signs its
-- log: that is recorded that it is made, and a checkpoint may come.
UPDATE tenants SET status = 'active'
WHERE tenant_id = $1 AND status = 'suspended'
  AND NOT EXISTS (SELECT FROM data_keys WHERE tenant_id = $1 AND purpose <> 'audit_sign');

-- name: shredded
SELECT tenant_id, slug FROM tenants WHERE status = 'shredded' ORDER BY tenant_id;

-- name: status
SELECT status FROM tenants WHERE tenant_id = $1;

-- name: lock_leases
-- Waits for what runs have in hand.
SELECT 1 FROM leases WHERE tenant_id = $1 ORDER BY backend_id FOR UPDATE;

-- name: lock_backends
-- Waits for writes that stand by them.
SELECT backend_id FROM backends WHERE tenant_id = $1 ORDER BY backend_id FOR UPDATE;

-- name: pause_backends
-- One that was being removed, too: nothing is left that its removal could settle.
UPDATE backends SET state = 'paused', rev = rev + 1 WHERE tenant_id = $1 AND state <> 'paused';

-- name: disable_endpoints
-- Whoever has one in hand loses it: what is sent would be signed with a secret that is destroyed. Before the keys are locked, as
-- whoever replaces a secret does.
UPDATE endpoints SET state = 'disabled', reason = 'tenant_shredded', rev = rev + 1, claim = claim + 1, claimed_until = NULL
WHERE tenant_id = $1 AND state = 'active';

-- name: lock_keys
-- Every sealed row names its key, and so holds it until it is committed: this waits for those under way, and those that come
-- later wait for the end of this transaction.
SELECT key_id FROM data_keys WHERE tenant_id = $1 ORDER BY key_id FOR UPDATE;

-- name: destroy_keys
UPDATE data_keys SET state = 'destroyed', wrapped = NULL, emptied_at = NULL WHERE tenant_id = $1 AND state <> 'destroyed';

-- name: keys_left
SELECT EXISTS (SELECT FROM tenants WHERE status = 'shredded' AND NOT keys_erased);

-- name: wait_briefly
-- Whoever seals, or reserves sealings, queues behind the lock that is waited for.
SELECT set_config('lock_timeout', '2s', true);

-- name: write_keys_anew
-- A new file with the rows that stand now, and no dead one. VACUUM FULL would take along those that an older snapshot may see.
ALTER TABLE data_keys ALTER COLUMN wrapped TYPE bytea USING wrapped || ''::bytea;

-- name: mark_erased
-- Nobody destroyed keys since that file was written: the table is locked.
UPDATE tenants SET keys_erased = true WHERE status = 'shredded' AND NOT keys_erased;

-- name: tell
INSERT INTO outbox (tenant_id, event_id, backend_id, sequence, type, payload, pending) VALUES ($1, $2, '', 1, $3, $4, false);

-- name: shred
-- Whoever remembers rights, or ways to backends, asks anew.
UPDATE tenants SET status = 'shredded', auth_epoch = auth_epoch + 1, federation_epoch = federation_epoch + 1
WHERE tenant_id = $1;

-- name: anything_active
SELECT EXISTS (SELECT FROM backends WHERE tenant_id = $1 AND state <> 'paused')
    OR EXISTS (SELECT FROM endpoints WHERE tenant_id = $1 AND state = 'active');

-- name: withdraw_pushes
-- Whoever has one in hand can say nothing about it any more, and one that is planned is not sent.
UPDATE pushes u SET state = 'withdrawn', reason = 'tenant_shredded', ended_at = clock_timestamp() FROM (
  SELECT push_id FROM pushes WHERE tenant_id = $1 AND state IN ('planned', 'sent', 'unknown') ORDER BY push_id FOR UPDATE) x
WHERE u.tenant_id = $1 AND u.push_id = x.push_id;

-- What is left of a tenant that was shredded, a page at a time. Runs keep their numbers, and lose the names that they were
-- asked for; the audit log, tokens, policies and the configuration of backends hold no value and stay.

-- name: clear_pushes
DELETE FROM pushes WHERE tenant_id = $1 AND ctid = ANY (ARRAY (SELECT ctid FROM pushes WHERE tenant_id = $1 LIMIT $2));

-- name: clear_conflicts
DELETE FROM conflicts WHERE tenant_id = $1 AND ctid = ANY (ARRAY (SELECT ctid FROM conflicts WHERE tenant_id = $1 LIMIT $2));

-- name: clear_sync_state
DELETE FROM sync_state WHERE tenant_id = $1 AND ctid = ANY (ARRAY (SELECT ctid FROM sync_state WHERE tenant_id = $1 LIMIT $2));

-- name: clear_deliveries
DELETE FROM deliveries WHERE tenant_id = $1 AND ctid = ANY (ARRAY (SELECT ctid FROM deliveries WHERE tenant_id = $1 LIMIT $2));

-- name: clear_endpoints
DELETE FROM endpoints WHERE tenant_id = $1 AND ctid = ANY (ARRAY (SELECT ctid FROM endpoints WHERE tenant_id = $1 LIMIT $2));

-- name: clear_outbox
DELETE FROM outbox WHERE tenant_id = $1 AND ctid = ANY (ARRAY (
  SELECT ctid FROM outbox WHERE tenant_id = $1 AND type <> 'tenant.shredded' LIMIT $2));

-- name: clear_feed_secrets
DELETE FROM feed_secrets WHERE tenant_id = $1 AND ctid = ANY (ARRAY (SELECT ctid FROM feed_secrets WHERE tenant_id = $1 LIMIT $2));

-- name: clear_idempotency
DELETE FROM idempotency WHERE tenant_id = $1 AND ctid = ANY (ARRAY (SELECT ctid FROM idempotency WHERE tenant_id = $1 LIMIT $2));

-- name: clear_dirty_paths
DELETE FROM dirty_paths WHERE tenant_id = $1 AND ctid = ANY (ARRAY (SELECT ctid FROM dirty_paths WHERE tenant_id = $1 LIMIT $2));

-- name: clear_stage_scopes
DELETE FROM stage_scopes WHERE tenant_id = $1 AND ctid = ANY (ARRAY (SELECT ctid FROM stage_scopes WHERE tenant_id = $1 LIMIT $2));

-- name: clear_run_skips
DELETE FROM run_skips WHERE tenant_id = $1 AND ctid = ANY (ARRAY (SELECT ctid FROM run_skips WHERE tenant_id = $1 LIMIT $2));

-- name: clear_stage
DELETE FROM stage WHERE ctid = ANY (ARRAY (
  SELECT s.ctid FROM stage s JOIN runs r ON r.run_no = s.run_no WHERE r.tenant_id = $1 LIMIT $2));

-- name: clear_todo
DELETE FROM todo WHERE ctid = ANY (ARRAY (
  SELECT t.ctid FROM todo t JOIN runs r ON r.run_no = t.run_no WHERE r.tenant_id = $1 LIMIT $2));

-- name: clear_runs
UPDATE runs SET paths = NULL, suspects = NULL, in_hand = NULL WHERE tenant_id = $1 AND ctid = ANY (ARRAY (
  SELECT ctid FROM runs WHERE tenant_id = $1 AND (paths IS NOT NULL OR suspects IS NOT NULL OR in_hand IS NOT NULL) LIMIT $2));

-- name: count_secrets
SELECT count(*) FROM secrets WHERE tenant_id = $1;

-- name: lock_secrets
SELECT secret_id FROM secrets WHERE tenant_id = $1 ORDER BY secret_id LIMIT $2 FOR UPDATE;

-- name: clear_versions
DELETE FROM versions WHERE tenant_id = $1 AND secret_id = ANY ($2::bigint[]);

-- name: clear_secrets
DELETE FROM secrets WHERE tenant_id = $1 AND secret_id = ANY ($2::bigint[]);
