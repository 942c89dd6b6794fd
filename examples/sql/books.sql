-- The books: what all databases say, side by side, for checks.sql and summary.sql.
--
-- One connection finds every database under its name: orders_0 and further, payments_0 and further, stock_0 and further, and
-- the coordinator's as halfmoon. SQLite and Postgres both understand what is written here. A line {orders: ...}, {payments: ...}
-- or {stock: ...} stands for the union over the databases of that service.
-- `asked` is filled by the program with the orders that were to be placed.

CREATE TEMP TABLE asked (
    order_id     BIGINT  PRIMARY KEY,
    shard        BIGINT  NOT NULL,
    goods_cents  BIGINT  NOT NULL,
    amount_cents BIGINT  NOT NULL,
    is_taken     BOOLEAN NOT NULL,   -- whether the shop's rule lets it in
    loses_till   BOOLEAN NOT NULL    -- whether its till dies after the local COMMIT
);

CREATE TEMP VIEW all_orders AS
{orders: SELECT {shard} AS shard, * FROM orders_{shard}.orders};

CREATE TEMP VIEW all_lines AS
{orders: SELECT * FROM orders_{shard}.order_line};

CREATE TEMP VIEW all_rejected AS
{orders: SELECT {shard} AS shard, * FROM orders_{shard}.rejected_order};

CREATE TEMP VIEW all_payments AS
{payments: SELECT {shard} AS shard, * FROM payments_{shard}.payment};

CREATE TEMP VIEW all_reserved_lines AS
{stock: SELECT {shard} AS shard, * FROM stock_{shard}.reservation_line};

CREATE TEMP VIEW all_products AS
{stock: SELECT {shard} AS shard, * FROM stock_{shard}.product};

CREATE TEMP VIEW all_deliveries AS
{stock: SELECT {shard} AS shard, * FROM stock_{shard}.restocking};

-- What became of each order, whichever database says so.
CREATE TEMP TABLE ends (order_id BIGINT NOT NULL, shard BIGINT NOT NULL, how TEXT NOT NULL);
INSERT INTO ends
SELECT order_id, shard, CASE status WHEN 'cancelled' THEN 'cancelled for ' || reason ELSE status END FROM all_orders
UNION ALL
SELECT order_id, shard, 'rejected' FROM all_rejected;
CREATE INDEX ends_order ON ends (order_id);

-- Payments and reservations beside their orders.
CREATE TEMP TABLE paid (order_id BIGINT NOT NULL, amount_cents BIGINT NOT NULL, status TEXT NOT NULL);
INSERT INTO paid SELECT order_id, amount_cents, status FROM all_payments;
CREATE INDEX paid_order ON paid (order_id);

CREATE TEMP TABLE reserved (shard BIGINT NOT NULL, order_id BIGINT NOT NULL, status TEXT NOT NULL, answered_by TEXT NOT NULL);
INSERT INTO reserved
{stock: SELECT {shard}, order_id, status, hex(answered_by) FROM stock_{shard}.reservation};
CREATE INDEX reserved_order ON reserved (order_id);

-- Rows that a message hangs on, each with the hex id of the transaction that wrote it.
CREATE TEMP TABLE business (id TEXT NOT NULL, order_id BIGINT NOT NULL, what TEXT NOT NULL, place TEXT NOT NULL);
INSERT INTO business
SELECT hex(placed_by), order_id, 'orders/placed', 'orders_' || shard FROM all_orders
UNION ALL
SELECT hex(cancelled_by), order_id, 'orders/cancelled', 'orders_' || shard FROM all_orders WHERE cancelled_by IS NOT NULL
UNION ALL
SELECT answered_by, order_id, CASE status WHEN 'refused' THEN 'stock/refused' ELSE 'stock/reserved' END, 'stock_' || shard FROM reserved
UNION ALL
SELECT hex(answered_by), order_id, 'payments/' || status, 'payments_' || shard FROM all_payments;
CREATE INDEX business_id ON business (id);

CREATE TEMP TABLE markers (id TEXT NOT NULL, value BIGINT NOT NULL, at_ms BIGINT NOT NULL, place TEXT NOT NULL);
INSERT INTO markers
{orders: SELECT hex(id), value, at_ms, 'orders_{shard}' FROM orders_{shard}.halfmoon_marker} UNION ALL
{payments: SELECT hex(id), value, at_ms, 'payments_{shard}' FROM payments_{shard}.halfmoon_marker} UNION ALL
{stock: SELECT hex(id), value, at_ms, 'stock_{shard}' FROM stock_{shard}.halfmoon_marker};
CREATE INDEX markers_id ON markers (id);

-- The coordinator's view of the same transactions, and who decided them according to its history.
CREATE TEMP TABLE transactions (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, outcome TEXT NOT NULL, topic TEXT NOT NULL, contradictions BIGINT NOT NULL
);
INSERT INTO transactions
SELECT id, state, outcome, topic, contradictions FROM halfmoon.tx_view;

CREATE TEMP TABLE decisions (id TEXT NOT NULL, state TEXT NOT NULL, actor TEXT NOT NULL, evidence TEXT NOT NULL);
INSERT INTO decisions
SELECT id, step, actor, evidence FROM halfmoon.history WHERE step IN ('committed', 'rolled_back');
CREATE INDEX decisions_id ON decisions (id);
