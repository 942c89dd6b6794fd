-- One shard of the order service's database, in the first schema of the search path. Run as often as you like; changes nothing
-- that exists.

CREATE TABLE IF NOT EXISTS orders (
    order_id      bigint PRIMARY KEY,
    customer_id   text   NOT NULL,
    ordered_on    text   NOT NULL,
    goods_cents   bigint NOT NULL,
    freight_cents bigint NOT NULL CHECK (freight_cents >= 0),
    status        text   NOT NULL DEFAULT 'placed' CHECK (status IN ('placed', 'accepted', 'cancelled')),
    reason        text   CHECK (reason IN ('stock', 'payment')),         -- why it was cancelled
    placed_by     bytea  NOT NULL UNIQUE CHECK (length(placed_by) = 16), -- transaction whose message said so
    cancelled_by  bytea  UNIQUE CHECK (length(cancelled_by) = 16),       -- the same for a refused payment
    CONSTRAINT minimum_order_value CHECK (goods_cents >= 10000),
    CHECK ((status = 'cancelled') = (reason IS NOT NULL)),
    CHECK ((reason IS NOT DISTINCT FROM 'payment') = (cancelled_by IS NOT NULL))
);

CREATE TABLE IF NOT EXISTS order_line (
    order_id         bigint NOT NULL REFERENCES orders (order_id),
    product_id       bigint NOT NULL,
    quantity         bigint NOT NULL CHECK (quantity > 0),
    unit_price_cents bigint NOT NULL CHECK (unit_price_cents >= 0),
    discount_percent bigint NOT NULL CHECK (discount_percent BETWEEN 0 AND 100),
    PRIMARY KEY (order_id, product_id)
);

-- Orders that broke a rule of this database. Their local transaction was rolled back; this row is written after it.
CREATE TABLE IF NOT EXISTS rejected_order (
    order_id bigint PRIMARY KEY,
    reason   text NOT NULL
);

CREATE OR REPLACE FUNCTION orders_end_once() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'an order ends once' USING ERRCODE = 'integrity_constraint_violation'; END $$;
CREATE OR REPLACE TRIGGER orders_end_once BEFORE UPDATE ON orders
FOR EACH ROW WHEN (OLD.status <> 'placed') EXECUTE FUNCTION orders_end_once();
