-- name: applied
-- Which migrations the database has seen; it tells as well that it answers.
SELECT n, min_code FROM schema_migrations;
