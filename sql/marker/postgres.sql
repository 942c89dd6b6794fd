-- Markers in a service's own Postgres database (14 or newer), in the first schema of the search path. Run as often as you like;
-- changes nothing that exists.
--
-- A local transaction that sends a half message inserts value 1 under the transaction's id before anything else. A
-- check-back that finds no row inserts value 0, a tombstone: from then on that local transaction fails on the key.

CREATE TABLE IF NOT EXISTS halfmoon_marker (
    id    uuid     NOT NULL PRIMARY KEY,  -- transaction id, a UUID v7
    at_ms bigint   NOT NULL,              -- wall clock, ms since 1970; for people
    value smallint NOT NULL CHECK (value IN (0, 1))  -- 1 committed with its local transaction, 0 tombstone
);

CREATE TABLE IF NOT EXISTS halfmoon_marker_table (
    only_row smallint NOT NULL PRIMARY KEY CHECK (only_row = 1),
    -- Random, made here once. A half message names it, so that no other database is ever asked. Copying the database
    -- for another service instance? Give the copy a new one: UPDATE halfmoon_marker_table SET identity = gen_random_uuid()
    identity uuid     NOT NULL,
    -- The highest id that was deleted by anyone but the library. A missing row up to here proves nothing.
    horizon  uuid     NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'
);

INSERT INTO halfmoon_marker_table (only_row, identity) VALUES (1, gen_random_uuid()) ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION halfmoon_marker_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation'; END $$;

CREATE OR REPLACE TRIGGER halfmoon_marker_never_changes BEFORE UPDATE ON halfmoon_marker
FOR EACH ROW EXECUTE FUNCTION halfmoon_marker_refuse('a marker never changes');

-- The library deletes rows by id, once their decision is confirmed, and puts the horizon back in the same transaction.
CREATE OR REPLACE FUNCTION halfmoon_marker_deleted() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
    EXECUTE format('UPDATE %I.halfmoon_marker_table SET horizon = greatest(horizon, $1)', TG_TABLE_SCHEMA)
    USING (SELECT id FROM gone ORDER BY id DESC LIMIT 1);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER halfmoon_marker_deleted AFTER DELETE ON halfmoon_marker
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION halfmoon_marker_deleted();

CREATE OR REPLACE TRIGGER halfmoon_marker_no_truncate BEFORE TRUNCATE ON halfmoon_marker
FOR EACH STATEMENT EXECUTE FUNCTION halfmoon_marker_refuse('markers are deleted by id, so that the horizon is known');
