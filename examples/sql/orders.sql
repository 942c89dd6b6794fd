-- One shard of the order service's database. Run as often as you like; changes nothing that exists.

CREATE TABLE IF NOT EXISTS orders (
    order_id      INTEGER PRIMARY KEY,
    customer_id   TEXT    NOT NULL,
    ordered_on    TEXT    NOT NULL,
    goods_cents   INTEGER NOT NULL,
    freight_cents INTEGER NOT NULL CHECK (freight_cents >= 0),
    status        TEXT    NOT NULL DEFAULT 'placed' CHECK (status IN ('placed', 'accepted', 'cancelled')),
    reason        TEXT    CHECK (reason IN ('stock', 'payment')),        -- why it was cancelled
    placed_by     BLOB    NOT NULL UNIQUE CHECK (length(placed_by) = 16), -- transaction whose message said so
    cancelled_by  BLOB    UNIQUE CHECK (length(cancelled_by) = 16),      -- the same for a refused payment
    CONSTRAINT minimum_order_value CHECK (goods_cents >= 10000),
    CHECK ((status = 'cancelled') = (reason IS NOT NULL)),
    CHECK ((reason IS 'payment') = (cancelled_by IS NOT NULL))
) STRICT;

CREATE TABLE IF NOT EXISTS order_line (
    order_id         INTEGER NOT NULL REFERENCES orders (order_id),
    product_id       INTEGER NOT NULL,
    quantity         INTEGER NOT NULL CHECK (quantity > 0),
    unit_price_cents INTEGER NOT NULL CHECK (unit_price_cents >= 0),
    discount_percent INTEGER NOT NULL CHECK (discount_percent BETWEEN 0 AND 100),
    PRIMARY KEY (order_id, product_id)
) STRICT, WITHOUT ROWID;

-- Orders that broke a rule of this database. Their local transaction was rolled back; this row is written after it.
CREATE TABLE IF NOT EXISTS rejected_order (
    order_id INTEGER PRIMARY KEY,
    reason   TEXT NOT NULL
) STRICT;

CREATE TRIGGER IF NOT EXISTS orders_end_once BEFORE UPDATE ON orders WHEN OLD.status <> 'placed'
BEGIN
    SELECT RAISE(ABORT, 'an order ends once');
END;
