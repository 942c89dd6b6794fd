-- Markers in a service's own SQLite database. Run as often as you like; changes nothing that exists.
--
-- A local transaction that sends a half message inserts value 1 under the transaction's id before anything else. A
-- check-back that finds no row inserts value 0, a tombstone: from then on that local transaction fails on the key.

CREATE TABLE IF NOT EXISTS halfmoon_marker (
    id    BLOB    NOT NULL PRIMARY KEY,  -- transaction id, a UUID v7 as 16 bytes
    value INTEGER NOT NULL,              -- 1 committed with its local transaction, 0 tombstone
    at_ms INTEGER NOT NULL,              -- wall clock, ms since 1970; for people
    CHECK (typeof(id) = 'blob' AND length(id) = 16),
    CHECK (value IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS halfmoon_marker_table (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    -- Random, made here once. A half message names it, so that no other database is ever asked. Copying the database
    -- for another service instance? Give the copy a new one: UPDATE halfmoon_marker_table SET identity = randomblob(16)
    identity BLOB    NOT NULL CHECK (length(identity) = 16),
    -- The highest id that was deleted by anyone but the library. A missing row up to here proves nothing.
    horizon  BLOB    NOT NULL DEFAULT (zeroblob(16)) CHECK (length(horizon) = 16)
) STRICT;

INSERT INTO halfmoon_marker_table (only_row, identity) VALUES (1, randomblob(16)) ON CONFLICT DO NOTHING;

CREATE TRIGGER IF NOT EXISTS halfmoon_marker_never_changes BEFORE UPDATE ON halfmoon_marker
BEGIN
    SELECT RAISE(ABORT, 'a marker never changes');
END;

-- The library deletes rows by id, once their decision is confirmed, and puts the horizon back in the same transaction.
CREATE TRIGGER IF NOT EXISTS halfmoon_marker_deleted AFTER DELETE ON halfmoon_marker
BEGIN
    UPDATE halfmoon_marker_table SET horizon = max(horizon, OLD.id);
END;
