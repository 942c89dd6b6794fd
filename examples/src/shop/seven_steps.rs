//! The story of one placed order's message in the protocol's seven steps, as audit and markers tell it.

use std::collections::HashMap;
use std::fmt;

use anyhow::{Context, Result};
use coordinator::audit::why::{Explanation, date, explain};
use coordinator::store::database::{Database, Options};
use coordinator::transaction::TransactionId;

use super::kinds::{Kind, sql};
use super::reconcile::Books;

/// What the audit tells of one transaction, and what stands in the database of its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// The order that was placed.
    pub order: i64,
    /// What people call the database that holds it.
    pub database: String,
    /// Wall clock of its marker, ms since 1970; `None` when the marker was deleted since.
    pub marker_ms: Option<u64>,
    /// The seven steps.
    pub explanation: Explanation,
}

/// The story of a placed order, preferably one whose till died before it could say COMMIT.
///
/// # Errors
/// The databases cannot be read, or no order was placed.
pub async fn tell<DB: Kind>(books: &mut Books<DB>, coordinator: &Database) -> Result<Story> {
    const CHOOSE: &str = "SELECT b.id, b.order_id, b.place, m.at_ms \
                          FROM business b JOIN decisions d ON d.id = b.id LEFT JOIN markers m ON m.id = b.id \
                          WHERE b.what = 'orders/placed' ORDER BY d.actor <> 'marker', b.order_id LIMIT 1";
    const RECORDED: &str = "SELECT event, wall_ms FROM halfmoon.history WHERE id = $1";
    let chosen: Vec<(String, i64, String, Option<i64>)> =
        DB::fetch(books.connection(), sql(CHOOSE)).await?;
    let chosen = chosen.into_iter().next();
    let (id, order, database, marker_ms) =
        chosen.context("no order was placed, so there is no transaction to tell of")?;
    let recorded: Vec<(i64, i64)> = DB::fetch(books.connection(), sql(RECORDED).bind(&*id)).await?;
    let recorded: HashMap<i64, i64> = recorded.into_iter().collect();
    let reader = coordinator.open_reader(Options::default()).await?;
    let id: TransactionId = id.parse().context("an id of the books is none")?;
    let row = reader.transaction(id).await?;
    let row = row.with_context(|| format!("the coordinator does not know {id}"))?;
    let owner = reader.owner().await?.context("nobody owns the database")?;
    let explanation = explain(&row, &reader.events(id).await?, owner.published, |event| {
        let wall_ms = recorded.get(&i64::try_from(event).ok()?)?;
        u64::try_from(*wall_ms).ok()
    });
    Ok(Story {
        order,
        database: DB::called(&database),
        marker_ms: marker_ms.and_then(|ms| u64::try_from(ms).ok()),
        explanation,
    })
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            order, database, ..
        } = self;
        write!(f, "order {order} and its marker are in {database}")?;
        if let Some(ms) = self.marker_ms {
            write!(f, ", written at {}", date(ms))?;
        }
        write!(f, "\n{}", self.explanation)
    }
}
