//! The story of one transaction in the protocol's seven steps, as audit and markers tell it.

use anyhow::{Context, Result};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _, SqliteConnection};

use super::reconcile::Books;

/// What the tables know about one transaction.
#[derive(Debug)]
struct Found {
    id: String,
    order_id: i64,
    what: String,
    place: String,
    producer_group: String,
    position: i64,
    queue_offset: i64,
    open_us: i64,
    decision_no: i64,
    outcome: String,
    marker_at: Option<String>,
}

/// One row of the history.
#[derive(Debug)]
struct Event {
    step: String,
    actor: String,
    source: String,
    evidence: String,
    recorded_at: String,
}

impl FromRow<'_, SqliteRow> for Found {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            order_id: row.try_get("order_id")?,
            what: row.try_get("what")?,
            place: row.try_get("place")?,
            producer_group: row.try_get("producer_group")?,
            position: row.try_get("position")?,
            queue_offset: row.try_get("queue_offset")?,
            open_us: row.try_get("open_us")?,
            decision_no: row.try_get("decision_no")?,
            outcome: row.try_get("outcome")?,
            marker_at: row.try_get("marker_at")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for Event {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            step: row.try_get("step")?,
            actor: row.try_get("actor")?,
            source: row.try_get("source")?,
            evidence: row.try_get("evidence")?,
            recorded_at: row.try_get("recorded_at")?,
        })
    }
}

/// Seven lines about one placed order, preferably one that a check-back has decided.
///
/// # Errors
/// The books cannot be read, or no order was placed.
pub async fn tell(books: &mut Books) -> Result<Vec<(&'static str, String)>> {
    let found = find(books.connection()).await?;
    let events = history(books.connection(), &found.id).await?;
    let last = events
        .iter()
        .rfind(|event| matches!(&*event.step, "committed" | "rolled_back"))
        .with_context(|| format!("the history of {} has no decision", found.id))?;
    Ok(words(&found, last))
}

async fn find(connection: &mut SqliteConnection) -> Result<Found> {
    const FIND: &str = "SELECT hex(b.id) AS id, b.order_id, b.what, b.place, t.producer_group, t.position, t.queue_offset, \
                               t.open_us, t.decision_no, t.outcome, \
                               strftime('%H:%M:%f', m.at_ms / 1000.0, 'unixepoch') AS marker_at \
                        FROM business b JOIN decisions d ON d.id = b.id LEFT JOIN markers m ON m.id = b.id \
                        JOIN coordinator.tx_view t ON t.id = hex(b.id) \
                        WHERE b.id = (SELECT c.id FROM business c JOIN decisions e ON e.id = c.id \
                                      WHERE c.what = 'orders/placed' ORDER BY e.actor <> 'marker', c.order_id LIMIT 1)";
    sqlx::query_as(FIND)
        .fetch_optional(connection)
        .await?
        .context("no order was placed, so there is no transaction to tell of")
}

async fn history(connection: &mut SqliteConnection, id: &str) -> Result<Vec<Event>> {
    const HISTORY: &str = "SELECT step, actor, source, evidence, strftime('%H:%M:%f', wall_ms / 1000.0, 'unixepoch') AS recorded_at \
                           FROM coordinator.history WHERE id = ?1 ORDER BY event";
    let history = sqlx::query_as(HISTORY).bind(id);
    Ok(history.fetch_all(connection).await?)
}

fn words(found: &Found, decision: &Event) -> Vec<(&'static str, String)> {
    let Found {
        id,
        order_id,
        what,
        place,
        producer_group,
        position,
        queue_offset,
        open_us,
        decision_no,
        outcome,
        marker_at,
    } = found;
    let by_producer = decision.actor == "producer";
    let not_needed = || "not needed".to_owned();
    // "marker=committed, asked: producer gone, answered after 3 ms"
    let asked = decision
        .evidence
        .split(", ")
        .find_map(|part| part.strip_prefix("asked: "));
    let written = marker_at
        .as_deref()
        .map_or(String::new(), |at| format!(" at {at}"));
    let took = format!("{}.{:03} ms", open_us / 1000, open_us % 1000);
    vec![
        (
            "1 half message",
            format!("{producer_group} sends {what} of order {order_id}: {id}"),
        ),
        (
            "2 stored",
            format!(
                "durable at position {position} of the log, offset {queue_offset} of the half queue"
            ),
        ),
        (
            "3 local transaction",
            format!("order and marker in one transaction of {place}.db, written{written}"),
        ),
        (
            "4 resolution",
            if by_producer {
                format!("COMMIT, said by {}", decision.source)
            } else {
                "never came: the till was gone after its COMMIT".into()
            },
        ),
        (
            "5 noticed",
            asked.map_or_else(not_needed, |reason| {
                format!("{reason}; somebody else of the group is asked")
            }),
        ),
        (
            "6 check-back",
            if by_producer {
                not_needed()
            } else {
                format!(
                    "{} reads the marker: {}",
                    decision.source, decision.evidence
                )
            },
        ),
        (
            "7 settled",
            format!(
                "{} as decision {decision_no}, {took} after step 2, in the books at {}; {outcome}",
                decision.step, decision.recorded_at
            ),
        ),
    ]
}
