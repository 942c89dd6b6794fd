//! The shop's rules: pure, so that a crash, a repetition and the books all come to the same answer.

use super::catalog::Line;

/// What the goods of an order must be worth at least. The order databases refuse less by a constraint of their own.
pub const MINIMUM_ORDER_CENTS: i64 = 10_000;
/// The largest amount a payment is captured for.
pub const PAYMENT_LIMIT_CENTS: i64 = 200_000;
/// After so many answers of the stock service a delivery comes in.
pub const RESTOCK_EVERY: i64 = 25;
/// A delivery fills each product up to its first level, and to this at least.
pub const RESTOCK_TO: i64 = 40;

/// What a line costs: rounded down to whole cents.
#[must_use]
pub const fn line_cents(line: &Line) -> i64 {
    line.unit_price_cents * line.quantity * (100 - line.discount_percent) / 100
}

/// What all lines cost together.
#[must_use]
pub fn goods_cents(lines: &[Line]) -> i64 {
    lines.iter().map(line_cents).sum()
}

/// Whether an order over goods of this worth is taken.
#[must_use]
pub const fn is_taken(goods_cents: i64) -> bool {
    goods_cents >= MINIMUM_ORDER_CENTS
}

/// Whether the till that takes this order dies before it can say what became of it.
#[must_use]
pub const fn loses_its_till(order: i64) -> bool {
    order % 16 == 5
}

/// Whether a till begins with this order and dies before it writes a row; another one takes the order then.
#[must_use]
pub const fn is_begun_twice(order: i64) -> bool {
    order % 32 == 13
}

/// Whether a payment of this amount is captured.
#[must_use]
pub const fn is_captured(amount_cents: i64) -> bool {
    amount_cents <= PAYMENT_LIMIT_CENTS
}

/// Whether a delivery comes in with the `answers`-th answer of the stock service.
#[must_use]
pub const fn is_restocked(answers: i64) -> bool {
    answers % RESTOCK_EVERY == 0
}

/// Which of `shards` databases holds a customer's orders: FNV-1a over the customer's id.
#[must_use]
pub fn order_shard(customer: &str, shards: usize) -> usize {
    let hash = customer.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3)
    });
    // The low bits of FNV-1a depend on the low bits of the input only.
    (hash >> 32) as usize % shards.max(1)
}

/// Which of `shards` databases holds an order's payment.
#[must_use]
pub fn payment_shard(order: i64, shards: usize) -> usize {
    order.unsigned_abs() as usize % shards.max(1)
}

/// Which of `shards` databases, a warehouse each, holds an order's goods.
#[must_use]
pub fn stock_shard(order: i64, shards: usize) -> usize {
    // Another way than for payments, so that what belongs together stands together by chance only.
    (order.unsigned_abs() / 2) as usize % shards.max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::catalog::{Catalog, ORDERS};
    use super::*;

    #[derive(Debug, Default)]
    struct Ends {
        accepted: u32,
        no_stock: u32,
        no_payment: u32,
        rejected: u32,
        till_lost: u32,
    }

    /// The ends that the rules lead to when orders are answered one after the other.
    fn one_by_one(catalog: &Catalog, count: u64) -> Ends {
        let mut stock: BTreeMap<i64, i64> =
            catalog.products.iter().map(|p| (p.id, p.stock)).collect();
        let mut ends = Ends::default();
        let mut answers = 0;
        for order in catalog.orders(count) {
            let goods = goods_cents(&order.lines);
            if !is_taken(goods) {
                ends.rejected += 1;
                continue;
            }
            ends.till_lost += u32::from(loses_its_till(order.id));
            if order.lines.iter().all(|l| stock[&l.product] >= l.quantity) {
                let captured = is_captured(goods + order.freight_cents);
                for line in order.lines.iter().filter(|_| captured) {
                    *stock.get_mut(&line.product).unwrap() -= line.quantity;
                }
                *(if captured {
                    &mut ends.accepted
                } else {
                    &mut ends.no_payment
                }) += 1;
            } else {
                ends.no_stock += 1;
            }
            answers += 1;
            for product in catalog.products.iter().filter(|_| is_restocked(answers)) {
                let level = stock.get_mut(&product.id).unwrap();
                *level = (*level).max(product.stock.max(RESTOCK_TO));
            }
        }
        ends
    }

    #[test]
    fn the_order_book_leads_to_every_end_often_enough() {
        let ends = one_by_one(&Catalog::northwind().unwrap(), ORDERS);
        let Ends {
            accepted,
            no_stock,
            no_payment,
            rejected,
            till_lost,
        } = ends;
        assert_eq!(
            u64::from(accepted + no_stock + no_payment + rejected),
            ORDERS
        );
        // Services answer several orders at a time, so the numbers move a little: far above what is promised.
        assert!(accepted >= 300, "{ends:?}");
        assert!(no_stock >= 150, "{ends:?}");
        assert!(no_payment >= 40, "{ends:?}");
        assert_eq!(rejected, 37);
        assert!(till_lost >= 40, "{ends:?}");
    }

    #[test]
    fn customers_are_spread_over_all_shards() {
        let catalog = Catalog::northwind().unwrap();
        let mut orders = [0; 4];
        for order in catalog.orders(ORDERS) {
            orders[order_shard(&order.customer, 4)] += 1;
        }
        assert!(orders.iter().all(|count| *count > 100), "{orders:?}");
    }

    #[test]
    fn a_line_is_rounded_down() {
        let line = Line {
            product: 1,
            quantity: 3,
            unit_price_cents: 333,
            discount_percent: 15,
        };
        assert_eq!(line_cents(&line), 849);
    }
}
