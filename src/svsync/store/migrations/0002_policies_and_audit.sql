-- Who may do what, and who did: policies with their rules and bindings, groups of
-- identities, and the audit log in hash chains with signed checkpoints.
--
-- min_code: 1

-- Policies -----------------------------------------------------------------------

CREATE TABLE policies (
  tenant_id   int NOT NULL REFERENCES tenants,
  policy_id   text COLLATE "C" NOT NULL,
  name        text COLLATE "C" NOT NULL,
  description text,
  rev         bigint NOT NULL DEFAULT 1,
  created_by  text,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, policy_id),
  UNIQUE (tenant_id, name)
);

CREATE TABLE policy_rules (
  tenant_id    int NOT NULL,
  policy_id    text COLLATE "C" NOT NULL,
  ord          int NOT NULL,
  path_pattern text NOT NULL,
  permissions  text[] NOT NULL,
  PRIMARY KEY (tenant_id, policy_id, ord),
  FOREIGN KEY (tenant_id, policy_id) REFERENCES policies ON DELETE CASCADE
);

CREATE TABLE bindings (
  tenant_id     int NOT NULL,
  policy_id     text COLLATE "C" NOT NULL,
  identity_type text NOT NULL CHECK (identity_type IN ('service_account', 'user', 'group')),
  identity_id   text COLLATE "C" NOT NULL,
  created_by    text,
  created_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, policy_id, identity_type, identity_id),
  FOREIGN KEY (tenant_id, policy_id) REFERENCES policies ON DELETE CASCADE
);
CREATE INDEX bindings_of_identity ON bindings (tenant_id, identity_type, identity_id);

-- What a directory last said; `groups` are names as bindings name them.
CREATE TABLE identity_groups (
  tenant_id    int NOT NULL REFERENCES tenants,
  identity_id  text COLLATE "C" NOT NULL,
  groups       text[] NOT NULL,
  refreshed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, identity_id)
);

-- Who is super_admin, and by what. A row stays, so that the bootstrap happens once.
CREATE TABLE super_admins (
  tenant_id   int NOT NULL REFERENCES tenants,
  identity_id text COLLATE "C" NOT NULL,
  by          text NOT NULL,
  at          timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, identity_id)
);

-- Of backends with a budget of calls: those that reads were given, and that writes and connection tests made, by the hour.
CREATE TABLE proxied_calls (
  tenant_id  int NOT NULL REFERENCES tenants,
  backend_id text COLLATE "C" NOT NULL,
  hour       timestamptz NOT NULL,
  made       bigint NOT NULL,
  PRIMARY KEY (tenant_id, backend_id, hour)
);

-- Cost and quota -----------------------------------------------------------------

-- Of the calls of a budget, those that a run under way was given; they count as made until it tells what it called.
ALTER TABLE runs ADD COLUMN granted bigint;
-- Why a run that waits is not begun before its time: a published code.
ALTER TABLE runs ADD COLUMN put_off text;
-- When a run that waits was given back by its worker: from then on its listing grows old, and its calls too.
ALTER TABLE runs ADD COLUMN given_back_at timestamptz;
-- For what ended lately: a run may wait for days, so its id tells nothing of when it ended.
CREATE INDEX runs_by_end ON runs (tenant_id, backend_id, ended_at);
-- A person asked for what the schedule or a feed had asked for already.
ALTER TABLE runs ADD COLUMN asked_for boolean NOT NULL DEFAULT false;
-- What the last full run took in which nothing changed, or that called least: calls by operation, their total, and seconds.
ALTER TABLE backend_health ADD COLUMN quiet_cycle jsonb;

-- The audit log ------------------------------------------------------------------

CREATE SEQUENCE audit_chain_ids AS bigint CACHE 1;

-- One writer appends to a chain: its rows are numbered from 1 on, and each names the hash of the one before. The first names
-- that of the chain itself. `trimmed_seq` and `trimmed_hash`: up to where retention removed its rows. `covered_seq`: up to where
-- checkpoints know of it; at rest, it is looked at for them once a day.
CREATE TABLE audit_chains (
  tenant_id    int NOT NULL REFERENCES tenants,
  chain_id     bigint NOT NULL,
  writer       text NOT NULL,
  started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_seq    bigint,
  ended_hash   bytea,
  end_reason   text,
  trimmed_seq  bigint NOT NULL DEFAULT 0,
  trimmed_hash bytea,
  covered_seq  bigint NOT NULL DEFAULT 0,
  covered_at   timestamptz,
  at_rest      boolean NOT NULL DEFAULT false,
  PRIMARY KEY (tenant_id, chain_id)
);
CREATE INDEX audit_chains_that_go_on ON audit_chains (tenant_id, chain_id) WHERE NOT at_rest;

CREATE TABLE audit (
  tenant_id     int NOT NULL,
  chain_id      bigint NOT NULL,
  seq           bigint NOT NULL,
  at            timestamptz NOT NULL,
  identity_type text NOT NULL,
  identity_id   text COLLATE "C" NOT NULL,
  action        text NOT NULL,
  decision      text NOT NULL CHECK (decision IN ('allow', 'deny')),
  secret_path   text COLLATE "C",
  version       int,
  backend_id    text COLLATE "C",
  request_id    text,
  source_ip     text,
  detail        text,                       -- JSON text, hashed as it stands; never a value
  hash          bytea NOT NULL,
  PRIMARY KEY (tenant_id, chain_id, seq, at)
) PARTITION BY RANGE (at);
CREATE INDEX audit_in_order ON audit (tenant_id, at, chain_id, seq);
CREATE INDEX audit_denied ON audit (tenant_id, at, chain_id, seq) WHERE decision = 'deny';
CREATE INDEX audit_of_identity ON audit (tenant_id, identity_id, at);
CREATE INDEX audit_of_path ON audit (tenant_id, secret_path, at) WHERE secret_path IS NOT NULL;

-- Nothing is ever written there while there is a partition for the month; without it a month that was forgotten would
-- refuse every access.
CREATE TABLE audit_rest PARTITION OF audit DEFAULT;

-- `heads`: JSON text, [chain, seq, hash] of each chain that went on since the checkpoint before; `root` is its hash.
CREATE TABLE audit_checkpoints (
  tenant_id  int NOT NULL REFERENCES tenants,
  n          bigint NOT NULL,
  at         timestamptz NOT NULL,
  heads      text NOT NULL,
  root       bytea NOT NULL,
  prev_hash  bytea NOT NULL,
  hash       bytea NOT NULL,
  key_id     int NOT NULL,
  signature  bytea NOT NULL,
  PRIMARY KEY (tenant_id, n),
  FOREIGN KEY (tenant_id, key_id) REFERENCES data_keys
);

-- How far each place outside has the checkpoints of a tenant.
CREATE TABLE audit_anchors (
  tenant_id   int NOT NULL REFERENCES tenants,
  place       text COLLATE "C" NOT NULL,
  first_n     bigint NOT NULL,
  last_n      bigint NOT NULL,
  anchored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, place)
);

-- A row of the log is written once. Whoever owns the table could drop this; that is what checkpoints and anchors are for.
CREATE FUNCTION svsync_written_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a row of % is written once', TG_TABLE_NAME;
END $$;
CREATE TRIGGER written_once BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION svsync_written_once();
CREATE TRIGGER written_once BEFORE UPDATE OR DELETE ON audit_checkpoints FOR EACH ROW EXECUTE FUNCTION svsync_written_once();

-- The partition of a month, by its first day, where there is none. Its rows are reached through the log alone: it is under
-- row-level security and has no policy of its own.
CREATE FUNCTION svsync_audit_month(first_day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  month date := date_trunc('month', first_day)::date;
  named text := format('audit_%s', to_char(month, 'YYYY_MM'));
BEGIN
  IF to_regclass(named) IS NOT NULL THEN
    RETURN false;
  END IF;
  EXECUTE format('CREATE TABLE %I PARTITION OF audit FOR VALUES FROM (%L) TO (%L)', named,
                 month::timestamp AT TIME ZONE 'UTC', (month + interval '1 month')::timestamp AT TIME ZONE 'UTC');
  EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', named);
  EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', named);
  RETURN true;
END $$;

-- Remove the rows of a month, by its first day, together with their partition; of each chain it is kept where they ended, so
-- that the rest still links. What it says: `removed`; `absent`, there is no such partition; `uncovered`, a row of it is under
-- no checkpoint yet. A tenant that was shredded has no key any more that could sign one: nothing waits for that. It needs to
-- see every tenant, and waits for nobody longer than a second.
CREATE FUNCTION svsync_audit_drop_month(first_day date) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  month date := date_trunc('month', first_day)::date;
  low timestamptz := month::timestamp AT TIME ZONE 'UTC';
  high timestamptz := (month + interval '1 month')::timestamp AT TIME ZONE 'UTC';
  named text := format('audit_%s', to_char(month, 'YYYY_MM'));
BEGIN
  IF to_regclass(named) IS NULL THEN
    RETURN 'absent';
  END IF;
  PERFORM set_config('lock_timeout', '1s', true);
  LOCK TABLE audit IN ACCESS EXCLUSIVE MODE;
  -- A chain is begun a moment after the time that its first rows bear.
  IF EXISTS (SELECT FROM audit_chains c
             JOIN tenants t ON t.tenant_id = c.tenant_id AND t.status <> 'shredded'
             CROSS JOIN LATERAL (SELECT a.seq FROM audit a
                                 WHERE a.tenant_id = c.tenant_id AND a.chain_id = c.chain_id AND a.at >= low AND a.at < high
                                 ORDER BY a.seq DESC LIMIT 1) e
             WHERE c.started_at < high + interval '1 day' AND e.seq > c.covered_seq) THEN
    RETURN 'uncovered';
  END IF;
  UPDATE audit_chains c SET trimmed_seq = e.seq, trimmed_hash = e.hash
  FROM audit_chains x
  JOIN tenants t ON t.tenant_id = x.tenant_id
  CROSS JOIN LATERAL (SELECT a.seq, a.hash FROM audit a
                      WHERE a.tenant_id = x.tenant_id AND a.chain_id = x.chain_id AND a.at >= low AND a.at < high
                      ORDER BY a.seq DESC LIMIT 1) e
  WHERE x.started_at < high + interval '1 day' AND (x.trimmed_seq < x.covered_seq OR t.status = 'shredded') AND e.seq > x.trimmed_seq
    AND c.tenant_id = x.tenant_id AND c.chain_id = x.chain_id;
  EXECUTE format('ALTER TABLE audit DETACH PARTITION %I', named);
  EXECUTE format('DROP TABLE %I', named);
  RETURN 'removed';
END $$;

ALTER TABLE audit_rest ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_rest FORCE ROW LEVEL SECURITY;

-- Requests that bring a key ---------------------------------------------------------

-- What became of a request that brought an `Idempotency-Key`, so that a repeated one is not done twice. `request`: a keyed
-- hash of it, for its body may hold a value. `answer`: never one that holds a secret.
CREATE TABLE idempotency (
  tenant_id   int NOT NULL REFERENCES tenants,
  identity_id text COLLATE "C" NOT NULL,
  key         text COLLATE "C" NOT NULL,
  attempt     text COLLATE "C" NOT NULL,    -- whoever is doing it
  request     bytea NOT NULL,
  state       text NOT NULL DEFAULT 'under_way' CHECK (state IN ('under_way', 'done', 'unknown')),
  status      int,
  headers     text,                         -- JSON text
  answer      text,
  made_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, identity_id, key)
);
CREATE INDEX idempotency_made ON idempotency (tenant_id, made_at);

-- Backends of the API ---------------------------------------------------------------

-- What a backend that the API made may be used for, as somebody was asked when they made or changed it: their right to use the
-- credential at that path, for that endpoint and that mapping. Compared each time that the backend is opened.
CREATE TABLE backend_authorisations (
  tenant_id     int NOT NULL,
  backend_id    text COLLATE "C" NOT NULL,
  credential    text COLLATE "C" NOT NULL,  -- a path; empty: it has none of its own
  origin        text NOT NULL,
  mapping       text NOT NULL,              -- a hash
  authorised_by text COLLATE "C" NOT NULL,
  authorised_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, backend_id),
  FOREIGN KEY (tenant_id, backend_id) REFERENCES backends ON DELETE CASCADE
);

-- Change feeds that arrive over HTTP -------------------------------------------------

-- What a sender shows that tells of changes: the hash of its secret, and the one feed of one backend that it is good for.
CREATE TABLE feed_secrets (
  tenant_id    int NOT NULL,
  secret_id    text COLLATE "C" NOT NULL,
  backend_id   text COLLATE "C" NOT NULL,
  feed         text NOT NULL,
  hash         bytea NOT NULL,
  created_by   text COLLATE "C" NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  last_used_on date,
  PRIMARY KEY (tenant_id, secret_id),
  FOREIGN KEY (tenant_id, backend_id) REFERENCES backends ON DELETE CASCADE
);
CREATE INDEX feed_secrets_of_backend ON feed_secrets (tenant_id, backend_id, feed);

-- Keeping tenants apart ----------------------------------------------------------

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['policies', 'policy_rules', 'bindings', 'identity_groups', 'super_admins', 'audit', 'audit_chains',
                           'audit_checkpoints', 'audit_anchors', 'idempotency', 'backend_authorisations',
                           'proxied_calls', 'feed_secrets'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format($p$CREATE POLICY tenant_rows ON %I
      USING (tenant_id = ANY ((SELECT string_to_array(current_setting('svsync.tenants', true), ',')::int[])::int[]))
      WITH CHECK (tenant_id = ANY ((SELECT string_to_array(current_setting('svsync.tenants', true), ',')::int[])::int[]))$p$, t);
  END LOOP;
END $$;

SELECT svsync_audit_month((now() AT TIME ZONE 'UTC')::date),
       svsync_audit_month(((now() AT TIME ZONE 'UTC') + interval '1 month')::date),
       svsync_audit_month(((now() AT TIME ZONE 'UTC') + interval '2 months')::date);

-- What is read through -----------------------------------------------------------

-- Rises with each change of a backend by which another path is read through, or the same in another way. Whoever remembers
-- that compares it with every read. It rises when the change is committed: a row of `tenants` is the last that is locked.
ALTER TABLE tenants ADD COLUMN federation_epoch bigint NOT NULL DEFAULT 1;

-- Of a tenant that was shredded no backend is active: it would pull again what was destroyed.
CREATE FUNCTION svsync_raise_federation_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  standing text;
BEGIN
  UPDATE tenants SET federation_epoch = federation_epoch + 1 WHERE tenant_id = coalesce(NEW.tenant_id, OLD.tenant_id)
  RETURNING status INTO standing;
  IF standing = 'shredded' AND TG_OP <> 'DELETE' AND NEW.state = 'active' THEN
    RAISE EXCEPTION 'the tenant was shredded' USING ERRCODE = 'SV002';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER made_or_removed AFTER INSERT OR DELETE ON backends DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION svsync_raise_federation_epoch();
CREATE CONSTRAINT TRIGGER changed AFTER UPDATE ON backends DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN ((OLD.spec, OLD.initial, OLD.state, OLD.rev) IS DISTINCT FROM (NEW.spec, NEW.initial, NEW.state, NEW.rev))
  EXECUTE FUNCTION svsync_raise_federation_epoch();

-- The read path ------------------------------------------------------------------

-- What a batch of accesses looks up, in one round trip and without a transaction of the client's: for each asked path, in
-- its order, the epoch of its tenant and the secret with its current version (or the one asked for, where that is not null).
-- What the caller has is left out: the ciphertext with this nonce, and what is said of the secret at this `row_rev`. A nonce
-- stands for one sealing, also where a restored database numbers its versions a second time.
CREATE TYPE svsync_asked AS (tenant int, path text, version int, known_nonce bytea, known_rev bigint);
CREATE FUNCTION svsync_look(tenants text, asked svsync_asked[])
RETURNS TABLE (n bigint, at timestamptz, epoch bigint, federation_epoch bigint, tenant_status text, secret_id bigint, state text, row_rev bigint,
               version int, version_state text, has_value boolean, key_id int, nonce bytea, sealed bytea, created_at timestamptz,
               secret_type text, tags text[], owner text, description text, custom text,
               backend_id text, pair_status text, synced_at timestamptz, rule_ord int, rev bigint)
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('svsync.tenants', tenants, true);
  RETURN QUERY
    SELECT x.n, clock_timestamp(), t.auth_epoch, t.federation_epoch, t.status, s.secret_id, s.state, s.row_rev,
           v.version, v.state, v.sealed IS NOT NULL, k.key_id, k.nonce, k.sealed, k.created_at,
           k.secret_type, k.tags, k.owner, k.description, k.custom,
           p.backend_id, p.status, p.synced_at, CASE WHEN p.mapping_hash = b.mapping_hash THEN p.rule_ord END, b.rev
    FROM unnest(asked) WITH ORDINALITY AS x(tenant, path, version, known_nonce, known_rev, n)
    JOIN tenants t ON t.tenant_id = x.tenant
    LEFT JOIN secrets s ON s.tenant_id = x.tenant AND s.path = x.path
    LEFT JOIN versions v ON v.tenant_id = x.tenant AND v.secret_id = s.secret_id AND v.version = coalesce(x.version, s.current_version)
    LEFT JOIN LATERAL (SELECT v.key_id, v.nonce, v.sealed, v.created_at, s.secret_type, s.tags, s.owner, s.description, s.custom
                       WHERE x.known_nonce IS DISTINCT FROM v.nonce OR x.known_rev IS DISTINCT FROM s.row_rev) k ON true
    LEFT JOIN sync_state p ON p.tenant_id = x.tenant AND p.path = x.path AND p.status NOT IN ('detached', 'standby')
    LEFT JOIN backends b ON b.tenant_id = x.tenant AND b.backend_id = p.backend_id
    ORDER BY x.n;
END $$;

-- A page of the secrets in some ranges of paths, which do not overlap and are given in order: from (inclusive) and to
-- (exclusive). Rows of every state, so that what it costs is bounded by what it gives.
CREATE FUNCTION svsync_list(asked_tenant int, range_from text[], range_to text[], most int)
RETURNS TABLE (path text, state text, version int, secret_type text, tags text[], owner text, description text, custom text,
               updated_at timestamptz, status text)
LANGUAGE plpgsql STABLE AS $$
DECLARE
  got int := 0;
  came int;
BEGIN
  FOR n IN 1 .. cardinality(range_from) LOOP
    RETURN QUERY
      SELECT s.path, s.state, s.current_version, s.secret_type, s.tags, s.owner, s.description, s.custom, s.updated_at,
             coalesce(p.status, 'local')
      FROM (SELECT * FROM secrets c WHERE c.tenant_id = asked_tenant AND c.path >= range_from[n] AND c.path < range_to[n]
            ORDER BY c.path LIMIT most - got) s
      LEFT JOIN sync_state p ON p.tenant_id = asked_tenant AND p.path = s.path AND p.status NOT IN ('detached', 'standby')
      ORDER BY s.path;
    GET DIAGNOSTICS came = ROW_COUNT;
    got := got + came;
    EXIT WHEN got >= most;
  END LOOP;
END $$;

-- Pairs of a backend whose local paths lie in some ranges (from, inclusive, and to, exclusive), which are in order, behind
-- a pair, by local and remote path; those that are detached only where they are asked for.
CREATE FUNCTION svsync_pairs(asked_tenant int, asked_backend text, after_path text, after_remote text, wanted text,
                             range_from text[], range_to text[], most int)
RETURNS TABLE (path text, remote_path text, status text, reason text, failures int, retry_at timestamptz,
               synced_at timestamptz, moved_to text, version int)
LANGUAGE plpgsql STABLE AS $$
DECLARE
  got int := 0;
  came int;
BEGIN
  FOR n IN 1 .. cardinality(range_from) LOOP
    RETURN QUERY
      SELECT p.path, p.remote_path, p.status, p.reason, p.failures, p.retry_at, p.synced_at, p.moved_to,
             CASE WHEN s.state = 'live' THEN s.current_version END
      FROM sync_state p
      LEFT JOIN secrets s ON s.tenant_id = p.tenant_id AND s.path = p.path
      WHERE p.tenant_id = asked_tenant AND p.backend_id = asked_backend
        AND p.path >= range_from[n] AND p.path < range_to[n] AND (p.path, p.remote_path) > (after_path, after_remote)
        AND CASE WHEN wanted IS NULL THEN p.status <> 'detached' ELSE p.status = wanted END
      ORDER BY p.path, p.remote_path LIMIT most - got;
    GET DIAGNOSTICS came = ROW_COUNT;
    got := got + came;
    EXIT WHEN got >= most;
  END LOOP;
END $$;

-- Append a batch of rows to the log; committed when this is answered.
CREATE FUNCTION svsync_record(tenants text, appended audit[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('svsync.tenants', tenants, true);
  INSERT INTO audit SELECT * FROM unnest(appended);
END $$;

-- Begin a chain for each of these tenants; its id, in their order.
CREATE FUNCTION svsync_open_chains(tenants text, tenant int[], writing text) RETURNS TABLE (tenant_id int, chain_id bigint)
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('svsync.tenants', tenants, true);
  RETURN QUERY
    INSERT INTO audit_chains AS c (tenant_id, chain_id, writer)
    SELECT x, nextval('audit_chain_ids'), writing FROM unnest(tenant) AS x
    RETURNING c.tenant_id, c.chain_id;
END $$;

-- Say of chains that nothing is appended to them any more, and where they end.
CREATE FUNCTION svsync_end_chains(tenants text, tenant int[], chain bigint[], seq bigint[], hash bytea[], reason text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('svsync.tenants', tenants, true);
  UPDATE audit_chains c SET ended_seq = x.seq, ended_hash = x.hash, end_reason = reason
  FROM unnest(tenant, chain, seq, hash) AS x(tenant, chain, seq, hash)
  WHERE c.tenant_id = x.tenant AND c.chain_id = x.chain;
END $$;

-- Tenants that were shredded ---------------------------------------------------------

-- A process that was at work when the keys were destroyed has them in memory still. What it would write is refused: it comes
-- here when its rows have waited for the lock on their keys, so it sees what was decided under that. SV002.
CREATE FUNCTION svsync_refuse_shredded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM tenants WHERE status = 'shredded'
             AND tenant_id = ANY (string_to_array(current_setting('svsync.tenants', true), ',')::int[])) THEN
    RAISE EXCEPTION 'the tenant was shredded' USING ERRCODE = 'SV002';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER not_once_shredded AFTER INSERT ON versions FOR EACH STATEMENT EXECUTE FUNCTION svsync_refuse_shredded();
CREATE TRIGGER not_once_shredded AFTER INSERT ON conflicts FOR EACH STATEMENT EXECUTE FUNCTION svsync_refuse_shredded();
CREATE TRIGGER not_once_shredded AFTER INSERT ON endpoints FOR EACH STATEMENT EXECUTE FUNCTION svsync_refuse_shredded();
CREATE TRIGGER not_once_shredded AFTER INSERT ON pushes FOR EACH STATEMENT EXECUTE FUNCTION svsync_refuse_shredded();
CREATE TRIGGER not_active_once_shredded AFTER UPDATE ON endpoints FOR EACH ROW WHEN (NEW.state = 'active' AND OLD.state <> 'active')
  EXECUTE FUNCTION svsync_refuse_shredded();
-- The transaction that sends a push is committed before its call.
CREATE TRIGGER not_sent_once_shredded AFTER UPDATE ON pushes FOR EACH ROW WHEN (NEW.state = 'sent' AND OLD.state <> 'sent')
  EXECUTE FUNCTION svsync_refuse_shredded();

-- Whether no page of `data_keys` holds what the keys of one that was shredded were, as dead rows do.
ALTER TABLE tenants ADD COLUMN keys_erased boolean NOT NULL DEFAULT false;
-- Nor do the planner's samples.
ALTER TABLE data_keys ALTER COLUMN wrapped SET STATISTICS 0;

-- Data keys that go ------------------------------------------------------------------

-- Since when no row names it any more.
ALTER TABLE data_keys ADD COLUMN emptied_at timestamptz;

-- As of versions and endpoints: whoever removes a data key, none goes while anything is sealed under it.
ALTER TABLE sync_state ADD FOREIGN KEY (tenant_id, base_raw_key) REFERENCES data_keys;
ALTER TABLE pushes ADD FOREIGN KEY (tenant_id, before_key_id) REFERENCES data_keys;
ALTER TABLE conflicts ADD FOREIGN KEY (tenant_id, local_key_id) REFERENCES data_keys,
                      ADD FOREIGN KEY (tenant_id, remote_key_id) REFERENCES data_keys;
