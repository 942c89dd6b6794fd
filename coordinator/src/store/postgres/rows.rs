//! Rows of the database as the values they stand for. Whatever does not fit is [`StoreError::Damaged`].

use std::sync::Arc;

use mq_core::clock::ServerTime;
use mq_core::log::{LogId, Position, QueueOffset};
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;
use sqlx::{Column as _, Decode, Postgres, Row as _, Type};

use super::text;
use crate::audit::seal::{Hash, Seal};
use crate::audit::{Event, Step};
use crate::store::{Decided, Half, Owner, Row, StoreError, shape};
use crate::transaction::{Actor, Incarnation, MarkerIdentity, State, TransactionId};

/// A SELECT of whole transactions from `halfmoon.tx AS t`, with what stands behind it.
macro_rules! select_rows {
    ($behind:expr) => {
        concat!(
            "SELECT t.half_pos, t.id, t.half_off, g.text, p.text, t.body_len, t.prepared_at, s.bytes, m.bytes, t.status, ",
            "t.decided_at, t.decision_no, t.check_at, t.checks, t.repeats, t.contradictions, u.reason, v.position FROM halfmoon.tx AS t ",
            "LEFT JOIN halfmoon.name AS g ON g.id = t.grp LEFT JOIN halfmoon.name AS p ON p.id = t.topic ",
            "LEFT JOIN halfmoon.identity AS s ON s.id = t.sender LEFT JOIN halfmoon.identity AS m ON m.id = t.marker ",
            "LEFT JOIN halfmoon.unpublished AS u ON u.half_pos = t.half_pos ",
            "LEFT JOIN halfmoon.moved AS v ON v.half_pos = t.half_pos ",
            $behind
        )
    };
}
pub(super) use select_rows;

/// A SELECT of events from `halfmoon.audit AS a`, with what stands behind it.
macro_rules! select_events {
    ($behind:expr) => {
        concat!(
            "SELECT a.event, a.tx, a.from_step, a.to_step, a.actor, a.at, a.then_at, n.text, a.evidence, a.fingerprint ",
            "FROM halfmoon.audit AS a LEFT JOIN halfmoon.name AS n ON n.id = a.source ",
            $behind
        )
    };
}
pub(super) use select_events;

/// One row of `owner`.
pub(super) fn owner(row: &PgRow) -> Result<Owner, StoreError> {
    read_owner(row).map_err(|error| error.of("the owner row"))
}

fn read_owner(row: &PgRow) -> Result<Owner, StoreError> {
    Ok(Owner {
        log: LogId(id(row, 0)?),
        epoch: number(row, 1)?,
        seq: number(row, 2)?,
        batch: id(row, 3)?,
        watermark: Position(number(row, 4)?),
        published: number(row, 5)?,
        last_decision: number(row, 6)?,
        next_event: number(row, 7)?,
        head: hash(row, 8)?,
        link: number(row, 9)?,
        fingerprint: number(row, 10)?,
    })
}

/// One row of `select_rows!`.
pub(super) fn transaction(row: &PgRow) -> Result<Row, StoreError> {
    let id = TransactionId(id(row, 1)?);
    read_transaction(row, id).map_err(|error| error.of(format_args!("transaction {id}")))
}

fn read_transaction(row: &PgRow, id: TransactionId) -> Result<Row, StoreError> {
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
    let state = State::from_number(i64::from(get::<i16>(row, 9)?));
    let half = Half {
        id,
        position: Position(number(row, 0)?),
        queue_offset: QueueOffset(number(row, 2)?),
        group: name(row, 3, "producer group")?,
        topic: name(row, 4, "topic")?,
        body_len: small(row, 5)?,
        prepared_at: ServerTime(number(row, 6)?),
        sender: maybe_id(row, 7)?.map(Incarnation),
        marker: maybe_id(row, 8)?.map(MarkerIdentity),
    };
    let reason: Option<&str> = get(row, 16)?;
    Ok(Row {
        half,
        state: state.ok_or_else(|| damaged("no state we know".into()))?,
        decided,
        check_at: maybe_number(row, 12)?.map(ServerTime),
        checks: small(row, 13)?,
        repeats: small(row, 14)?,
        contradictions: small(row, 15)?,
        unpublished: reason.map(|reason| text::decode(reason).into_owned()),
        moved_to: maybe_number(row, 17)?.map(Position),
    })
}

/// One row of `select_events!`.
pub(super) fn event(row: &PgRow) -> Result<Event, StoreError> {
    let event = number(row, 0)?;
    read_event(row, event).map_err(|error| error.of(format_args!("event {event}")))
}

fn read_event(row: &PgRow, event: u64) -> Result<Event, StoreError> {
    let unknown = |what: &str| damaged(format!("no {what} we know"));
    let step = |number: i16| Step::from_number(i64::from(number)).ok_or_else(|| unknown("step"));
    let from: Option<i16> = get(row, 2)?;
    let source: Option<&str> = get(row, 7)?;
    let actor: i16 = get(row, 4)?;
    Ok(Event {
        number: event,
        transaction: TransactionId(id(row, 1)?),
        from: from.map(step).transpose()?,
        to: step(get(row, 3)?)?,
        actor: Actor::from_number(i64::from(actor)).ok_or_else(|| unknown("actor"))?,
        at: ServerTime(number(row, 5)?),
        then_at: maybe_number(row, 6)?.map(ServerTime),
        source: Arc::from(text::decode(source.ok_or_else(|| unknown("source"))?)),
        fingerprint: maybe_number(row, 9)?,
        evidence: text::decode(get(row, 8)?).into_owned(),
    })
}

/// One row of `seal`: seq, first_event, count, published, wall_ms, hash, leaves.
pub(super) fn seal(row: &PgRow) -> Result<Seal, StoreError> {
    let seq = number(row, 0)?;
    read_seal(row, seq).map_err(|error| error.of(format_args!("seal {seq}")))
}

fn read_seal(row: &PgRow, seq: u64) -> Result<Seal, StoreError> {
    Ok(Seal {
        seq,
        first_event: number(row, 1)?,
        count: small(row, 2)?,
        published: number(row, 3)?,
        wall_ms: number(row, 4)?,
        hash: hash(row, 5)?,
        leaves: get(row, 6)?,
    })
}

/// A column as it is.
pub(super) fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
    row: &'r PgRow,
    at: usize,
) -> Result<T, StoreError> {
    row.try_get(at).map_err(|error| damaged(error.to_string()))
}

/// A number that was unsigned when it was stored.
pub(super) fn number(row: &PgRow, at: usize) -> Result<u64, StoreError> {
    shape::unsigned(get(row, at)?).map_err(|error| error.of(column(row, at)))
}

pub(super) fn maybe_number(row: &PgRow, at: usize) -> Result<Option<u64>, StoreError> {
    let number = get::<Option<i64>>(row, at)?;
    let number = number.map(shape::unsigned).transpose();
    number.map_err(|error| error.of(column(row, at)))
}

pub(super) fn small(row: &PgRow, at: usize) -> Result<u32, StoreError> {
    shape::small(number(row, at)?).map_err(|error| error.of(column(row, at)))
}

/// 16 bytes.
pub(super) fn id(row: &PgRow, at: usize) -> Result<u128, StoreError> {
    get::<Uuid>(row, at).map(|id| id.as_u128())
}

fn maybe_id(row: &PgRow, at: usize) -> Result<Option<u128>, StoreError> {
    let id: Option<Uuid> = get(row, at)?;
    Ok(id.map(|id| id.as_u128()))
}

fn hash(row: &PgRow, at: usize) -> Result<Hash, StoreError> {
    let bytes: &[u8] = get(row, at)?;
    bytes.try_into().map(Hash).map_err(|_| {
        let (column, found) = (column(row, at), bytes.len());
        damaged(format!("{column}: {found} bytes stand where 32 must be"))
    })
}

/// A topic or producer group.
pub(super) fn name<'r, T: TryFrom<&'r str>>(
    row: &'r PgRow,
    at: usize,
    what: &str,
) -> Result<T, StoreError> {
    // No character of a name is ever encoded.
    let text: Option<&str> = get(row, at)?;
    let name = text.and_then(|text| T::try_from(text).ok());
    name.ok_or_else(|| {
        damaged(format!(
            "a {what} is missing or breaks the rules of names: {text:?}"
        ))
    })
}

/// The name of a column that was read.
fn column(row: &PgRow, at: usize) -> &str {
    row.column(at).name()
}

pub(super) fn damaged(why: String) -> StoreError {
    StoreError::Damaged(why)
}
