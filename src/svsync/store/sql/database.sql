-- name: own_role
-- Would row-level security bind the role that we are?
SELECT rolname AS name, rolsuper OR rolbypassrls AS powerful FROM pg_roles WHERE rolname = current_user;
