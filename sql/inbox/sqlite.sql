-- The inbox in a consumer's own SQLite database. Run as often as you like; changes nothing that exists.
--
-- A consumer inserts the row of a message in the same transaction in which it applies the message. A row that stands
-- already means: applied before, acknowledge and go on.

CREATE TABLE IF NOT EXISTS halfmoon_inbox (
    consumer_group TEXT    NOT NULL,
    message_key    TEXT    NOT NULL,  -- the message's UNIQ_KEY, or its message id when it has none
    at_ms          INTEGER NOT NULL,  -- wall clock, ms since 1970; for pruning by age
    PRIMARY KEY (consumer_group, message_key)
) STRICT, WITHOUT ROWID;
