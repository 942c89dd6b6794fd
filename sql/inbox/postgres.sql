-- The inbox in a consumer's own Postgres database, in the first schema of the search path. Run as often as you like; changes
-- nothing that exists.
--
-- A consumer inserts the row of a message in the same transaction in which it applies the message. A row that stands
-- already means: applied before, acknowledge and go on.

CREATE TABLE IF NOT EXISTS halfmoon_inbox (
    consumer_group text   NOT NULL,
    message_key    text   NOT NULL,  -- the message's UNIQ_KEY, or its message id when it has none
    at_ms          bigint NOT NULL,  -- wall clock, ms since 1970; for pruning by age
    PRIMARY KEY (consumer_group, message_key)
);
