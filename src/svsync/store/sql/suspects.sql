-- name: last_begun
-- The backend's run that began last (the lost one, where one is named), with what it suspected and had in hand. Not the
-- youngest: runs may begin in another order than they were queued in. One that was given back goes on as the last.
SELECT run_no, attempts, suspects, in_hand, batch_cursor, batch_size, error_code
FROM (SELECT * FROM runs WHERE tenant_id = $1 AND backend_id = $2 AND (state <> 'queued' OR handed_over)
        AND ($3::text IS NULL OR run_id = $3) ORDER BY run_id DESC LIMIT 20) r
ORDER BY started_at DESC NULLS FIRST, run_id DESC LIMIT 1;

-- name: window
-- The paths of a run's work list that it had in hand: nothing, where a crash of the server emptied the list.
SELECT remote_path FROM todo WHERE run_no = $1 AND n > $2 AND n <= $2 + $3 AND kind <> 'equal' ORDER BY n;

-- name: take_in_hand
-- These paths alone are being worked on from here on.
UPDATE runs SET in_hand = $3::text[] WHERE tenant_id = $1 AND run_id = $2;

-- name: clear
-- Whom the run suspected has been dealt with.
UPDATE runs SET suspects = NULL, in_hand = NULL, attempts = 1 WHERE tenant_id = $1 AND run_id = $2;

-- name: due
-- Paths that killed a worker once and whose quarantine is over.
SELECT remote_path FROM sync_state
WHERE tenant_id = $1 AND backend_id = $2 AND retry_at <= now() AND reason = 'crashes_worker' AND status = 'quarantined'
ORDER BY remote_path LIMIT 100;

-- name: waiting
-- Those of some paths that killed a worker and wait for their next try.
SELECT remote_path FROM sync_state
WHERE tenant_id = $1 AND backend_id = $2 AND remote_path = ANY ($3::text[]) AND retry_at > now() AND reason = 'crashes_worker'
  AND status = 'quarantined';
