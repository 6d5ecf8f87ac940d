-- name: written
-- How far the primary's log of changes is, with what is seen there and not written to its disk yet.
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS written;

-- name: standing
-- How far a replica has come, and whether it is one; and would it show our role the rows of all tenants?
SELECT pg_is_in_recovery() AS is_replica, pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint AS replayed,
  (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user) AS powerful;

-- name: system
SELECT system_identifier::text AS system FROM pg_control_system();
