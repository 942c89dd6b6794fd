-- The books: what all databases say, side by side, for checks.sql and summary.sql.
--
-- One connection has attached every database: orders_0 and further, payments_0 and further, stock_0 and further, and the
-- coordinator's own as `coordinator`. A line {orders: ...}, {payments: ...} or {stock: ...} stands for the union over the
-- databases of that service.
-- `asked` is filled by the program with the orders that were to be placed.

CREATE TEMP TABLE asked (
    order_id     INTEGER PRIMARY KEY,
    shard        INTEGER NOT NULL,
    goods_cents  INTEGER NOT NULL,
    amount_cents INTEGER NOT NULL,
    is_taken     INTEGER NOT NULL,   -- whether the shop's rule lets it in
    loses_till   INTEGER NOT NULL    -- whether its till dies after the local COMMIT
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
CREATE TEMP TABLE ends (order_id INTEGER NOT NULL, shard INTEGER NOT NULL, how TEXT NOT NULL);
INSERT INTO ends
SELECT order_id, shard, CASE status WHEN 'cancelled' THEN 'cancelled for ' || reason ELSE status END FROM all_orders
UNION ALL
SELECT order_id, shard, 'rejected' FROM all_rejected;
CREATE INDEX temp.ends_order ON ends (order_id);

-- Payments and reservations beside their orders.
CREATE TEMP TABLE paid (order_id INTEGER NOT NULL, amount_cents INTEGER NOT NULL, status TEXT NOT NULL);
INSERT INTO paid SELECT order_id, amount_cents, status FROM all_payments;
CREATE INDEX temp.paid_order ON paid (order_id);

CREATE TEMP TABLE reserved (shard INTEGER NOT NULL, order_id INTEGER NOT NULL, status TEXT NOT NULL, answered_by BLOB NOT NULL);
INSERT INTO reserved
{stock: SELECT {shard}, order_id, status, answered_by FROM stock_{shard}.reservation};
CREATE INDEX temp.reserved_order ON reserved (order_id);

-- Rows that a message hangs on, each with the transaction that wrote it.
CREATE TEMP TABLE business (id BLOB NOT NULL, order_id INTEGER NOT NULL, what TEXT NOT NULL, place TEXT NOT NULL);
INSERT INTO business
SELECT placed_by, order_id, 'orders/placed', 'orders_' || shard FROM all_orders
UNION ALL
SELECT cancelled_by, order_id, 'orders/cancelled', 'orders_' || shard FROM all_orders WHERE cancelled_by IS NOT NULL
UNION ALL
SELECT answered_by, order_id, CASE status WHEN 'refused' THEN 'stock/refused' ELSE 'stock/reserved' END, 'stock_' || shard FROM reserved
UNION ALL
SELECT answered_by, order_id, 'payments/' || status, 'payments_' || shard FROM all_payments;
CREATE INDEX temp.business_id ON business (id);

CREATE TEMP TABLE markers (id BLOB NOT NULL, value INTEGER NOT NULL, at_ms INTEGER NOT NULL, place TEXT NOT NULL);
INSERT INTO markers
{orders: SELECT id, value, at_ms, 'orders_{shard}' FROM orders_{shard}.halfmoon_marker} UNION ALL
{payments: SELECT id, value, at_ms, 'payments_{shard}' FROM payments_{shard}.halfmoon_marker} UNION ALL
{stock: SELECT id, value, at_ms, 'stock_{shard}' FROM stock_{shard}.halfmoon_marker};
CREATE INDEX temp.markers_id ON markers (id);

-- The coordinator's view of the same transactions, and who decided them according to its history.
CREATE TEMP TABLE transactions (
    id BLOB PRIMARY KEY, state TEXT NOT NULL, outcome TEXT NOT NULL, topic TEXT NOT NULL, contradictions INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO transactions
SELECT unhex(id), state, outcome, topic, contradictions FROM coordinator.tx_view;

CREATE TEMP TABLE decisions (id BLOB NOT NULL, state TEXT NOT NULL, actor TEXT NOT NULL, evidence TEXT NOT NULL);
INSERT INTO decisions
SELECT unhex(id), step, actor, evidence FROM coordinator.history WHERE step IN ('committed', 'rolled_back');
CREATE INDEX temp.decisions_id ON decisions (id);
