//! The books: every database and the coordinator's audit, compared in plain SQL.
//!
//! The statements are in `examples/sql`: `books.sql` puts what all databases say side by side, `checks.sql` finds what
//! contradicts itself, `summary.sql` counts.

use std::fmt;

use anyhow::{Context, Result};
use coordinator::store::database::Database;
use sqlx::{ColumnIndex, Connection as _, Decode, FromRow, Row, Sqlite, Type};

use super::catalog::Order;
use super::databases::Layout;
use super::kinds::{Kind, sql};
use super::rules;

const BOOKS: &str = include_str!("../../sql/books.sql");
const CHECKS: &str = include_str!("../../sql/checks.sql");
const SUMMARY: &str = include_str!("../../sql/summary.sql");

/// All databases on one connection.
pub struct Books<DB: Kind = Sqlite> {
    connection: DB::Connection,
    layout: Layout,
}

impl<DB: Kind> fmt::Debug for Books<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Books")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What must hold, in words.
    pub what: &'static str,
    /// What contradicts it; empty when it holds. The first few only.
    pub found: Vec<String>,
}

/// The numbers of the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Orders in any end state.
    pub orders: i64,
    /// Accepted.
    pub accepted: i64,
    /// Cancelled for stock.
    pub no_stock: i64,
    /// Cancelled because the payment was refused.
    pub not_paid: i64,
    /// Rejected by a rule of the order databases, rolled back.
    pub rejected: i64,
    /// Orders whose placing was decided by a check-back.
    pub placed_by_check_back: i64,
    /// Transactions the coordinator knows.
    pub transactions: i64,
    /// Of these committed.
    pub committed: i64,
    /// Of these published.
    pub published: i64,
    /// Rolled back.
    pub rolled_back: i64,
    /// Decided by their producer.
    pub by_producer: i64,
    /// Decided by a check-back, from the marker.
    pub by_check_back: i64,
    /// Tombstones that check-backs have planted.
    pub tombstones: i64,
    /// Money captured, in cents.
    pub captured_cents: i64,
    /// Units that deliveries have brought.
    pub delivered: i64,
    /// Units on hand.
    pub on_hand: i64,
    /// Deliveries.
    pub deliveries: i64,
}

impl<'r, R: Row> FromRow<'r, R> for Summary
where
    i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'c> &'c str: ColumnIndex<R>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            orders: row.try_get("orders")?,
            accepted: row.try_get("accepted")?,
            no_stock: row.try_get("no_stock")?,
            not_paid: row.try_get("not_paid")?,
            rejected: row.try_get("rejected")?,
            placed_by_check_back: row.try_get("placed_by_check_back")?,
            transactions: row.try_get("transactions")?,
            committed: row.try_get("committed")?,
            published: row.try_get("published")?,
            rolled_back: row.try_get("rolled_back")?,
            by_producer: row.try_get("by_producer")?,
            by_check_back: row.try_get("by_check_back")?,
            tombstones: row.try_get("tombstones")?,
            captured_cents: row.try_get("captured_cents")?,
            delivered: row.try_get("delivered")?,
            on_hand: row.try_get("on_hand")?,
            deliveries: row.try_get("deliveries")?,
        })
    }
}

impl<DB: Kind> Books<DB> {
    /// Opens the databases of this layout at `home` and the coordinator's, and compares them with the orders that were to be
    /// placed. Nothing in them is changed.
    ///
    /// # Errors
    /// A database cannot be read.
    pub async fn open(
        (home, layout): (&DB::Home, Layout),
        coordinator: &Database,
        asked: impl Iterator<Item = Order>,
    ) -> Result<Self> {
        let text = over_all_databases(BOOKS, layout);
        let connection = DB::side_by_side(home, layout, coordinator, text).await?;
        let mut books = Self { connection, layout };
        books.note(asked).await?;
        Ok(books)
    }

    /// Lets go of the databases: once this returned, none of their files is in use any more.
    ///
    /// # Errors
    /// A database cannot be closed.
    pub async fn close(self) -> Result<()> {
        Ok(self.connection.close().await?)
    }

    async fn note(&mut self, asked: impl Iterator<Item = Order>) -> Result<()> {
        const NOTE: &str = "INSERT INTO asked VALUES ($1, $2, $3, $4, $5, $6)";
        let layout = self.layout;
        let mut tx = self.connection.begin().await?;
        for order in asked {
            let goods = rules::goods_cents(&order.lines);
            let note = sql(NOTE)
                .bind(order.id)
                .bind(rules::order_shard(&order.customer, layout.orders) as i64)
                .bind(goods)
                .bind(goods + order.freight_cents)
                .bind(rules::is_taken(goods))
                .bind(layout.tills && rules::loses_its_till(order.id));
            DB::execute(&mut tx, note).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Makes every check; the one about tills only where there are some.
    ///
    /// # Errors
    /// A database cannot be read.
    pub async fn check(&mut self) -> Result<Vec<Check>> {
        let mut checks = Vec::new();
        for (what, statement) in statements(CHECKS) {
            if !self.layout.tills && statement.contains("loses_till") {
                continue;
            }
            let found: Vec<(String,)> = DB::fetch(&mut self.connection, sql(statement))
                .await
                .with_context(|| format!("the check {what:?} cannot be made"))?;
            let found = found.into_iter().map(|(found,)| found).collect();
            checks.push(Check { what, found });
        }
        Ok(checks)
    }

    /// Counts.
    ///
    /// # Errors
    /// A database cannot be read.
    pub async fn summary(&mut self) -> Result<Summary> {
        let rows: Vec<Summary> = DB::fetch(&mut self.connection, sql(SUMMARY)).await?;
        rows.into_iter().next().context("the books have no summary")
    }

    /// The connection, for further questions: everything in `books.sql` is there.
    pub const fn connection(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }
}

/// The statements of a file in which each stands under a line `-- check: what must hold`.
fn statements(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    text.split("-- check: ")
        .skip(1)
        .filter_map(|part| part.split_once('\n'))
}

/// The text with every line `{orders: statement}`, `{payments: statement}` or `{stock: statement}` replaced by the union
/// of that statement over the service's databases, whose number stands for `{shard}`.
fn over_all_databases(text: &str, layout: Layout) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let services = [
            ("{orders: ", layout.orders),
            ("{payments: ", layout.payments),
            ("{stock: ", layout.stock),
        ];
        let mut of = services
            .iter()
            .filter_map(|(start, shards)| Some((*shards, line.strip_prefix(start)?)));
        let (shards, rest) = of.next().unwrap_or((0, line));
        let Some((statement, tail)) = rest.rsplit_once('}').filter(|_| shards > 0) else {
            lines.push(line.to_owned());
            continue;
        };
        let each = (0..shards).map(|shard| statement.replace("{shard}", &shard.to_string()));
        lines.push(each.collect::<Vec<_>>().join("\nUNION ALL ") + tail);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_made_for_each_database_of_a_service() {
        let layout = Layout {
            orders: 2,
            payments: 1,
            stock: 1,
            tills: false,
        };
        let text = "SELECT 0\n{orders: SELECT {shard}} UNION ALL\n{payments: SELECT 'p{shard}'};";
        assert_eq!(
            over_all_databases(text, layout),
            "SELECT 0\nSELECT 0\nUNION ALL SELECT 1 UNION ALL\nSELECT 'p0';"
        );
    }

    #[test]
    fn every_statement_has_its_words() {
        let checks: Vec<_> = statements(CHECKS).collect();
        assert_eq!(checks.len(), CHECKS.matches(";\n").count());
        for (what, statement) in checks {
            assert!(what.len() > 20 && statement.starts_with("SELECT"), "{what}");
        }
    }
}
