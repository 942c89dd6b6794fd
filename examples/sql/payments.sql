-- One shard of the payment service's database. Run as often as you like; changes nothing that exists.

CREATE TABLE IF NOT EXISTS payment (
    order_id     INTEGER PRIMARY KEY,
    amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    status       TEXT    NOT NULL CHECK (status IN ('captured', 'refused')),
    answered_by  BLOB    NOT NULL UNIQUE CHECK (length(answered_by) = 16)   -- transaction whose message said so
) STRICT;
