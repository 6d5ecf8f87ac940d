-- name: server
-- What the server says of itself. Where parameters of statements are logged, the log holds names and ciphertext.
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_num,
  current_user::text AS role, clock_timestamp() AS now, current_setting('TimeZone') AS timezone,
  ARRAY(SELECT name || ' is ' || current_setting(name) FROM unnest(ARRAY['log_parameter_max_length',
    'log_parameter_max_length_on_error', 'auto_explain.log_parameter_max_length']) AS name
    WHERE current_setting(name, true) <> '0'
      AND (name NOT LIKE 'auto%' OR current_setting('auto_explain.log_min_duration', true) <> '-1')) AS logging_parameters;

-- name: neglected
-- What nobody has in hand any more, by backend: a run whose worker is gone, unfinished pushes whose time has long been over
-- ($1, seconds), and for how long a run has waited that could have begun.
SELECT b.tenant_id, b.backend_id,
  EXISTS (SELECT FROM runs r LEFT JOIN leases l ON l.tenant_id = r.tenant_id AND l.backend_id = r.backend_id
            AND l.holder IS NOT NULL AND l.expires_at > clock_timestamp()
          WHERE r.tenant_id = b.tenant_id AND r.backend_id = b.backend_id AND r.state = 'running' AND l.holder IS NULL) AS lost_run,
  (SELECT count(*) FROM pushes u WHERE u.tenant_id = b.tenant_id AND u.backend_id = b.backend_id
     AND u.state IN ('planned', 'sent', 'unknown') AND u.deadline < clock_timestamp() - make_interval(secs => $1)) AS pushes,
  (SELECT extract(epoch FROM clock_timestamp() - min(greatest(r.queued_at, r.not_before)))::float8 FROM runs r
   WHERE r.tenant_id = b.tenant_id AND r.backend_id = b.backend_id AND r.state = 'queued' AND r.kind <> 'dry'
     AND b.state = 'active') AS waits_s
FROM backends b ORDER BY b.tenant_id, b.backend_id;

-- name: receivers
-- Endpoints, and what of their deliveries did not arrive. `error_code` is that of the newest one.
SELECT e.tenant_id, e.endpoint_id, e.state, e.reason, e.failing_since AT TIME ZONE 'UTC' AS failing_since, d.due, d.dead, d.error_code
FROM endpoints e CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE state = 'due') AS due, count(*) FILTER (WHERE state = 'dead') AS dead,
    (array_agg(error_code ORDER BY event_id DESC) FILTER (WHERE error_code IS NOT NULL))[1] AS error_code
  FROM deliveries WHERE tenant_id = e.tenant_id AND endpoint_id = e.endpoint_id AND state <> 'delivered') d
ORDER BY e.tenant_id, e.endpoint_id;
