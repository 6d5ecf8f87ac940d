-- name: look
SELECT * FROM svsync_look($1, $2::int[], $3::text[], $4::int[], $5::bigint[], $6::int[]);

-- name: record
SELECT svsync_record($1, $2::int[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::text[], $7::text[], $8::text[], $9::text[],
  $10::text[], $11::int[], $12::text[], $13::text[], $14::text[], $15::text[], $16::bytea[]);

-- name: open_chains
SELECT tenant_id, chain_id FROM svsync_open_chains($1, $2::int[], $3);

-- name: end_chains
SELECT svsync_end_chains($1, $2::int[], $3::bigint[], $4::bigint[], $5::bytea[], $6);
