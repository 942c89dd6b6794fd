-- One shard of the payment service's database, in the first schema of the search path. Run as often as you like; changes nothing
-- that exists.

CREATE TABLE IF NOT EXISTS payment (
    order_id     bigint PRIMARY KEY,
    amount_cents bigint NOT NULL CHECK (amount_cents > 0),
    status       text   NOT NULL CHECK (status IN ('captured', 'refused')),
    answered_by  bytea  NOT NULL UNIQUE CHECK (length(answered_by) = 16)   -- transaction whose message said so
);
