-- The stock service's database, in the first schema of the search path. Run as often as you like; changes nothing that exists.

CREATE TABLE IF NOT EXISTS product (
    product_id bigint PRIMARY KEY,
    name       text   NOT NULL,
    initial    bigint NOT NULL CHECK (initial >= 0),
    on_hand    bigint NOT NULL CHECK (on_hand >= 0)   -- nobody ever sells what is not there
);

-- The answer to one order: all of its lines, or none.
CREATE TABLE IF NOT EXISTS reservation (
    order_id    bigint PRIMARY KEY,
    status      text  NOT NULL CHECK (status IN ('reserved', 'refused', 'released')),
    answered_by bytea NOT NULL UNIQUE CHECK (length(answered_by) = 16)   -- transaction whose message said so
);

CREATE TABLE IF NOT EXISTS reservation_line (
    order_id   bigint NOT NULL REFERENCES reservation (order_id),
    product_id bigint NOT NULL REFERENCES product (product_id),
    quantity   bigint NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, product_id)
);

-- What came in: the n-th delivery, after so many orders were answered.
CREATE TABLE IF NOT EXISTS restocking (
    after_answers bigint NOT NULL,
    product_id    bigint NOT NULL REFERENCES product (product_id),
    quantity      bigint NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (after_answers, product_id)
);

CREATE TABLE IF NOT EXISTS warehouse (
    only_row smallint PRIMARY KEY CHECK (only_row = 1),
    answers  bigint NOT NULL                           -- orders answered so far
);
INSERT INTO warehouse (only_row, answers) VALUES (1, 0) ON CONFLICT DO NOTHING;
