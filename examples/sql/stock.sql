-- The stock service's database. Run as often as you like; changes nothing that exists.

CREATE TABLE IF NOT EXISTS product (
    product_id INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL,
    initial    INTEGER NOT NULL CHECK (initial >= 0),
    on_hand    INTEGER NOT NULL CHECK (on_hand >= 0)   -- nobody ever sells what is not there
) STRICT;

-- The answer to one order: all of its lines, or none.
CREATE TABLE IF NOT EXISTS reservation (
    order_id    INTEGER PRIMARY KEY,
    status      TEXT NOT NULL CHECK (status IN ('reserved', 'refused', 'released')),
    answered_by BLOB NOT NULL UNIQUE CHECK (length(answered_by) = 16)   -- transaction whose message said so
) STRICT;

CREATE TABLE IF NOT EXISTS reservation_line (
    order_id   INTEGER NOT NULL REFERENCES reservation (order_id),
    product_id INTEGER NOT NULL REFERENCES product (product_id),
    quantity   INTEGER NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, product_id)
) STRICT, WITHOUT ROWID;

-- What came in: the n-th delivery, after so many orders were answered.
CREATE TABLE IF NOT EXISTS restocking (
    after_answers INTEGER NOT NULL,
    product_id    INTEGER NOT NULL REFERENCES product (product_id),
    quantity      INTEGER NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (after_answers, product_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS warehouse (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    answers  INTEGER NOT NULL                          -- orders answered so far
) STRICT;
INSERT INTO warehouse (only_row, answers) VALUES (1, 0) ON CONFLICT DO NOTHING;
