-- name: add
-- A policy without rules yet. No row: another one has the name.
INSERT INTO policies (tenant_id, policy_id, name, description, created_by) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, name) DO NOTHING
RETURNING policy_id;

-- name: set_rules
-- In place of those that a policy has: patterns in their order, and the permissions of each, joined by commas.
WITH gone AS (DELETE FROM policy_rules WHERE tenant_id = $1 AND policy_id = $2 AND ord >= cardinality($3::text[]))
INSERT INTO policy_rules (tenant_id, policy_id, ord, path_pattern, permissions)
SELECT $1, $2, x.n - 1, x.pattern, string_to_array(x.permissions, ',')
FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS x(pattern, permissions, n)
ON CONFLICT (tenant_id, policy_id, ord) DO UPDATE SET path_pattern = excluded.path_pattern, permissions = excluded.permissions;

-- name: find
-- A policy by its id or its name; no name looks like an id.
SELECT p.policy_id, p.name, p.description, p.rev, p.created_by, p.created_at, p.updated_at,
       (SELECT count(*) FROM bindings b WHERE b.tenant_id = p.tenant_id AND b.policy_id = p.policy_id) AS bindings
FROM policies p WHERE p.tenant_id = $1 AND (p.policy_id = $2 OR p.name = $2);

-- name: page
-- Policies by name, behind one.
SELECT p.policy_id, p.name, p.description, p.rev, p.created_by, p.created_at, p.updated_at,
       (SELECT count(*) FROM bindings b WHERE b.tenant_id = p.tenant_id AND b.policy_id = p.policy_id) AS bindings
FROM policies p WHERE p.tenant_id = $1 AND p.name > $2 ORDER BY p.name LIMIT $3;

-- name: rules
-- The rules of some policies, each policy's in their order.
SELECT policy_id, path_pattern, permissions FROM policy_rules
WHERE tenant_id = $1 AND policy_id = ANY ($2::text[]) ORDER BY policy_id, ord;

-- name: change
-- No row: another policy has the name.
UPDATE policies p SET name = $3, description = $4, rev = rev + 1, updated_at = now()
WHERE tenant_id = $1 AND policy_id = $2
  AND NOT EXISTS (SELECT FROM policies o WHERE o.tenant_id = $1 AND o.name = $3 AND o.policy_id <> $2);

-- name: delete
-- With its rules and bindings.
DELETE FROM policies WHERE tenant_id = $1 AND policy_id = $2;

-- name: count
SELECT count(*) FROM policies WHERE tenant_id = $1;

-- name: count_rules
SELECT count(*) FROM policy_rules WHERE tenant_id = $1;

-- name: bind
-- No row: it is bound so already.
INSERT INTO bindings (tenant_id, policy_id, identity_type, identity_id, created_by) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
RETURNING identity_id;

-- name: binding
SELECT identity_type, identity_id, created_by, created_at FROM bindings
WHERE tenant_id = $1 AND policy_id = $2 AND identity_type = $3 AND identity_id = $4;

-- name: unbind
DELETE FROM bindings WHERE tenant_id = $1 AND policy_id = $2 AND identity_type = $3 AND identity_id = $4;

-- name: bindings
-- Whom a policy is bound to, by type and id, behind one.
SELECT identity_type, identity_id, created_by, created_at FROM bindings
WHERE tenant_id = $1 AND policy_id = $2 AND (identity_type COLLATE "C", identity_id) > ($3, $4)
ORDER BY identity_type COLLATE "C", identity_id LIMIT $5;

-- name: crowding
-- How many a policy is bound to, and how many policies are bound to somebody.
SELECT (SELECT count(*) FROM bindings WHERE tenant_id = $1 AND policy_id = $2) AS of_policy,
       (SELECT count(*) FROM bindings WHERE tenant_id = $1 AND identity_type = $3 AND identity_id = $4) AS of_identity;

-- name: ways
-- By what somebody has a policy: the bindings that fit an identity and its groups.
SELECT identity_type, identity_id FROM bindings
WHERE tenant_id = $1 AND policy_id = $2
  AND ((identity_type = $3 AND identity_id = $4) OR (identity_type = 'group' AND identity_id = ANY ($5::text[])))
ORDER BY identity_type = 'group', identity_id COLLATE "C";

-- name: near
-- Rules that could match a path, for their patterns begin as it does until the first wildcard; whether somebody has them, and
-- whom else they are bound to. Of theirs those too that speak of the folders beside the path's: `$8` is what these begin with.
SELECT p.policy_id, p.name, r.ord, r.path_pattern, r.permissions, h.held,
       ARRAY(SELECT b.identity_type || ' ' || b.identity_id FROM bindings b
             WHERE b.tenant_id = $1 AND b.policy_id = p.policy_id ORDER BY b.identity_type, b.identity_id LIMIT $6) AS bound
FROM policies p
JOIN policy_rules r ON r.tenant_id = p.tenant_id AND r.policy_id = p.policy_id
CROSS JOIN LATERAL (
  SELECT EXISTS (SELECT FROM bindings b WHERE b.tenant_id = $1 AND b.policy_id = p.policy_id
                 AND ((b.identity_type = $3 AND b.identity_id = $4)
                      OR (b.identity_type = 'group' AND b.identity_id = ANY ($5::text[])))) AS held) h
CROSS JOIN LATERAL (SELECT split_part(translate(r.path_pattern, '{', '*'), '*', 1) AS literal) l
WHERE p.tenant_id = $1 AND (starts_with($2, l.literal) OR h.held AND starts_with(l.literal, $8))
ORDER BY starts_with($2, l.literal) DESC, h.held DESC, length(l.literal) DESC, p.name, r.ord
LIMIT $7;
