//! Rows of the database as the values they stand for. Whatever does not fit is [`StoreError::Damaged`].

use std::sync::Arc;

use mq_core::clock::ServerTime;
use mq_core::log::{LogId, Position, QueueOffset};
use sqlx::sqlite::SqliteRow;
use sqlx::{Column as _, Decode, Row as _, Sqlite, SqliteConnection, Type};

use super::read_error;
use crate::audit::seal::{Hash, Seal};
use crate::audit::{Event, Step};
use crate::store::{Decided, Half, Owner, Row, StoreError, shape};
use crate::transaction::{Actor, Incarnation, MarkerIdentity, State, TransactionId};

/// A SELECT of whole transactions from `tx AS t`, with what stands behind it.
macro_rules! select_rows {
    ($behind:expr) => {
        concat!(
            "SELECT t.half_pos, t.id, t.half_off, g.text, p.text, t.body_len, t.prepared_at, s.bytes, m.bytes, t.status, ",
            "t.decided_at, t.decision_no, t.check_at, t.checks, t.repeats, t.contradictions, u.reason, v.position FROM tx AS t ",
            "LEFT JOIN name AS g ON g.id = t.grp LEFT JOIN name AS p ON p.id = t.topic ",
            "LEFT JOIN identity AS s ON s.id = t.sender LEFT JOIN identity AS m ON m.id = t.marker ",
            "LEFT JOIN unpublished AS u ON u.half_pos = t.half_pos ",
            "LEFT JOIN moved AS v ON v.half_pos = t.half_pos ",
            $behind
        )
    };
}
pub(super) use select_rows;

/// A SELECT of events from `audit AS a`, with what stands behind it.
macro_rules! select_events {
    ($behind:expr) => {
        concat!(
            "SELECT a.event, a.tx, a.from_step, a.to_step, a.actor, a.at, a.then_at, n.text, a.evidence, a.fingerprint ",
            "FROM audit AS a LEFT JOIN name AS n ON n.id = a.source ",
            $behind
        )
    };
}
pub(super) use select_events;

/// The owner row, if the store has one.
pub(super) async fn owner(connection: &mut SqliteConnection) -> Result<Option<Owner>, StoreError> {
    let select = sqlx::query(
        "SELECT log, epoch, seq, batch, watermark, published, last_decision, next_event, head, fingerprint FROM owner WHERE one = 1",
    );
    let row = select
        .fetch_optional(connection)
        .await
        .map_err(|error| read_error(&error))?;
    let owner = row.as_ref().map(read_owner).transpose();
    owner.map_err(|error| error.of("the owner row"))
}

fn read_owner(row: &SqliteRow) -> Result<Owner, StoreError> {
    Ok(Owner {
        log: LogId(u128::from_be_bytes(bytes(row, 0)?)),
        epoch: number(row, 1)?,
        link: 0,
        seq: number(row, 2)?,
        batch: u128::from_be_bytes(bytes(row, 3)?),
        watermark: Position(number(row, 4)?),
        published: number(row, 5)?,
        last_decision: number(row, 6)?,
        next_event: number(row, 7)?,
        head: Hash(bytes(row, 8)?),
        fingerprint: number(row, 9)?,
    })
}

/// A transaction's id that stands alone.
pub(super) fn id(row: &SqliteRow) -> Result<TransactionId, StoreError> {
    Ok(TransactionId::from_bytes(bytes(row, 0)?))
}

/// The transactions at these positions.
pub(super) async fn at(
    connection: &mut SqliteConnection,
    positions: &[Position],
) -> Result<Vec<Row>, StoreError> {
    let positions: Vec<u64> = positions.iter().map(|position| position.0).collect();
    let positions = serde_json::to_string(&positions)
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let select = sqlx::query(select_rows!(
        "WHERE t.half_pos IN (SELECT value FROM json_each(?))"
    ))
    .bind(positions);
    let found = select
        .fetch_all(connection)
        .await
        .map_err(|error| read_error(&error))?;
    found.iter().map(transaction).collect()
}

/// One row of `select_rows!`.
pub(super) fn transaction(row: &SqliteRow) -> Result<Row, StoreError> {
    let id = TransactionId::from_bytes(bytes(row, 1)?);
    read_transaction(row, id).map_err(|error| error.of(format_args!("transaction {id}")))
}

fn read_transaction(row: &SqliteRow, id: TransactionId) -> Result<Row, StoreError> {
    let decided = match (maybe_number(row, 10)?, maybe_number(row, 11)?) {
        (Some(at), Some(number)) => Some(Decided {
            at: ServerTime(at),
            number,
        }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(damaged("half a decision".into()));
        }
    };
    let state = State::from_number(get(row, 9)?);
    let half = Half {
        id,
        position: Position(number(row, 0)?),
        queue_offset: QueueOffset(number(row, 2)?),
        group: name(row, 3, "producer group")?,
        topic: name(row, 4, "topic")?,
        body_len: small(row, 5)?,
        prepared_at: ServerTime(number(row, 6)?),
        sender: maybe_bytes(row, 7)?.map(Incarnation),
        marker: maybe_bytes(row, 8)?.map(MarkerIdentity),
    };
    Ok(Row {
        half,
        state: state.ok_or_else(|| damaged("no state we know".into()))?,
        decided,
        check_at: maybe_number(row, 12)?.map(ServerTime),
        checks: small(row, 13)?,
        repeats: small(row, 14)?,
        contradictions: small(row, 15)?,
        unpublished: get(row, 16)?,
        moved_to: maybe_number(row, 17)?.map(Position),
    })
}

/// One row of `select_events!`.
pub(super) fn event(row: &SqliteRow) -> Result<Event, StoreError> {
    let event = number(row, 0)?;
    read_event(row, event).map_err(|error| error.of(format_args!("event {event}")))
}

fn read_event(row: &SqliteRow, event: u64) -> Result<Event, StoreError> {
    let unknown = |what: &str| damaged(format!("no {what} we know"));
    let from: Option<i64> = get(row, 2)?;
    let source: Option<&str> = get(row, 7)?;
    Ok(Event {
        number: event,
        transaction: TransactionId::from_bytes(bytes(row, 1)?),
        from: from
            .map(|step| Step::from_number(step).ok_or_else(|| unknown("step")))
            .transpose()?,
        to: Step::from_number(get(row, 3)?).ok_or_else(|| unknown("step"))?,
        actor: Actor::from_number(get(row, 4)?).ok_or_else(|| unknown("actor"))?,
        at: ServerTime(number(row, 5)?),
        then_at: maybe_number(row, 6)?.map(ServerTime),
        source: Arc::from(source.ok_or_else(|| unknown("source"))?),
        fingerprint: maybe_number(row, 9)?,
        evidence: get(row, 8)?,
    })
}

/// One row of `seal`: seq, first_event, count, published, wall_ms, hash, leaves.
pub(super) fn seal(row: &SqliteRow) -> Result<Seal, StoreError> {
    let seq = number(row, 0)?;
    read_seal(row, seq).map_err(|error| error.of(format_args!("seal {seq}")))
}

fn read_seal(row: &SqliteRow, seq: u64) -> Result<Seal, StoreError> {
    Ok(Seal {
        seq,
        first_event: number(row, 1)?,
        count: small(row, 2)?,
        published: number(row, 3)?,
        wall_ms: number(row, 4)?,
        hash: Hash(bytes(row, 5)?),
        leaves: get(row, 6)?,
    })
}

/// A column as it is.
pub(super) fn get<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(
    row: &'r SqliteRow,
    at: usize,
) -> Result<T, StoreError> {
    row.try_get(at).map_err(|error| damaged(error.to_string()))
}

/// A number that was unsigned when it was stored.
pub(super) fn number(row: &SqliteRow, at: usize) -> Result<u64, StoreError> {
    shape::unsigned(get(row, at)?).map_err(|error| error.of(column(row, at)))
}

fn maybe_number(row: &SqliteRow, at: usize) -> Result<Option<u64>, StoreError> {
    let number = get::<Option<i64>>(row, at)?;
    let number = number.map(shape::unsigned).transpose();
    number.map_err(|error| error.of(column(row, at)))
}

fn small(row: &SqliteRow, at: usize) -> Result<u32, StoreError> {
    shape::small(number(row, at)?).map_err(|error| error.of(column(row, at)))
}

fn bytes<const N: usize>(row: &SqliteRow, at: usize) -> Result<[u8; N], StoreError> {
    let bytes: &[u8] = get(row, at)?;
    bytes.try_into().map_err(|_| {
        let (column, found) = (column(row, at), bytes.len());
        damaged(format!("{column}: {found} bytes stand where {N} must be"))
    })
}

fn maybe_bytes(row: &SqliteRow, at: usize) -> Result<Option<u128>, StoreError> {
    let is_null = get::<Option<&[u8]>>(row, at)?.is_none();
    if is_null {
        Ok(None)
    } else {
        bytes(row, at).map(u128::from_be_bytes).map(Some)
    }
}

/// A topic or producer group.
pub(super) fn name<'r, T: TryFrom<&'r str>>(
    row: &'r SqliteRow,
    at: usize,
    what: &str,
) -> Result<T, StoreError> {
    let text: Option<&str> = get(row, at)?;
    let name = text.and_then(|text| T::try_from(text).ok());
    name.ok_or_else(|| {
        damaged(format!(
            "a {what} is missing or breaks the rules of names: {text:?}"
        ))
    })
}

/// The name of a column that was read.
fn column(row: &SqliteRow, at: usize) -> &str {
    row.column(at).name()
}

fn damaged(why: String) -> StoreError {
    StoreError::Damaged(why)
}
