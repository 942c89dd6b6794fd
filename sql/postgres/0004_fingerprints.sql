-- Short hashes of what no event spells out, so that `audit verify` can tell that it was touched.
ALTER TABLE halfmoon.audit ADD COLUMN fingerprint bigint;                    -- of the half message, where from_step is NULL
ALTER TABLE halfmoon.owner ADD COLUMN fingerprint bigint NOT NULL DEFAULT 0; -- of the other columns
