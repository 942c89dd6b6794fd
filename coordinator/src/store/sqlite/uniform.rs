//! Chunks of rows that say almost the same, as they do under load: what their rows share is bound once, their ids are one
//! value, and only a few numbers are bound for each.
//!
//! In the SQL, `?` takes the next argument, and `$7` the seventh, which all rows may use: those stand behind the others.
//! A chunk of transactions and the chunk of their events go to SQLite together.

use std::fmt::Write as _;
use std::sync::LazyLock;

use sqlx::Arguments as _;
use sqlx::sqlite::SqliteArguments;

use super::encode::{add, int};
use super::statements::CHUNKS;
use crate::audit::Event;
use crate::store::Row;
use crate::store::names::Names;
use crate::transaction::TransactionId;

/// Bytes of a transaction's id.
const ID_BYTES: usize = 16;
/// What is bound for each row: position, queue offset, prepared at, decided at, decision number.
const OF_ROW: usize = 5;
/// What is bound for each event: its two times and its fingerprint.
const OF_EVENT: usize = 3;
/// What is bound once for all rows, and once for all events.
const SHARED: usize = 7;

/// The INSERT of as many decided transactions as `CHUNKS` says at the same index, with the arguments of [`rows`].
pub(super) static ROW_CHUNKS: LazyLock<[String; CHUNKS.len()]> =
    LazyLock::new(|| CHUNKS.map(|rows| insert_rows(rows, rows * OF_ROW)));

/// The INSERT of as many events as `CHUNKS` says at the same index, with the arguments of [`events`].
pub(super) static EVENT_CHUNKS: LazyLock<[String; CHUNKS.len()]> =
    LazyLock::new(|| CHUNKS.map(|rows| insert_events(rows, rows * OF_EVENT)));

/// Both INSERTs, with the arguments of [`both`].
pub(super) static BOTH_CHUNKS: LazyLock<[String; CHUNKS.len()]> = LazyLock::new(|| {
    CHUNKS.map(|rows| {
        let behind = rows * (OF_ROW + OF_EVENT);
        let (transactions, events) = (
            insert_rows(rows, behind),
            insert_events(rows, behind + SHARED),
        );
        format!("{transactions}; {events}")
    })
});

/// `shared_behind` is the number of arguments before those that the rows share.
fn insert_rows(rows: usize, shared_behind: usize) -> String {
    let into = "INSERT INTO tx (half_pos, half_off, prepared_at, decided_at, decision_no, id, grp, topic, sender, \
                marker, status, body_len) VALUES ";
    let [ids, group, topic, sender, marker, state, body_len] = shared(shared_behind);
    values(into, rows, |row| {
        let from = row * ID_BYTES + 1;
        format!(
            "(?,?,?,?,?,substr({ids},{from},{ID_BYTES}),{group},{topic},{sender},{marker},{state},{body_len})"
        )
    })
}

/// `shared_behind` is the number of arguments before those that the events share.
fn insert_events(rows: usize, shared_behind: usize) -> String {
    let into = "INSERT INTO audit (at, then_at, fingerprint, event, tx, from_step, to_step, actor, source, evidence) VALUES ";
    let [ids, event, step_from, step_to, actor, source, evidence] = shared(shared_behind);
    values(into, rows, |row| {
        let from = row * ID_BYTES + 1;
        format!(
            "(?,?,?,{event}+{row},substr({ids},{from},{ID_BYTES}),{step_from},{step_to},{actor},{source},{evidence})"
        )
    })
}

/// The names of the arguments behind the first `others`.
fn shared(others: usize) -> [String; SHARED] {
    std::array::from_fn(|n| format!("${}", others + n + 1))
}

fn values(into: &str, rows: usize, row: impl Fn(usize) -> String) -> String {
    let mut sql = String::from(into);
    for number in 0..rows {
        // Writing to a String cannot fail.
        let _ = write!(sql, "{}{}", if number == 0 { "" } else { "," }, row(number));
    }
    sql
}

/// The arguments of the INSERT of this chunk, if all its transactions are decided and share what they must.
pub(super) fn rows(chunk: &[&Row], names: &Names) -> Option<SqliteArguments> {
    let first = shared_by_rows(chunk)?;
    let mut arguments = SqliteArguments::default();
    arguments.reserve(chunk.len() * OF_ROW + SHARED, 0);
    bind_rows(&mut arguments, chunk);
    bind_shared_by_rows(&mut arguments, first, chunk, names);
    Some(arguments)
}

/// The arguments of the INSERT of this chunk, if its events are numbered without gaps and share what they must.
pub(super) fn events(chunk: &[Event], names: &Names) -> Option<SqliteArguments> {
    let first = shared_by_events(chunk)?;
    let mut arguments = SqliteArguments::default();
    arguments.reserve(chunk.len() * OF_EVENT + SHARED, 0);
    bind_events(&mut arguments, chunk);
    bind_shared_by_events(&mut arguments, first, chunk, names);
    Some(arguments)
}

/// The arguments of both INSERTs, if both chunks are as [`rows`] and [`events`] want them.
pub(super) fn both(
    (transactions, told): (&[&Row], &[Event]),
    names: &Names,
) -> Option<SqliteArguments> {
    let first = (shared_by_rows(transactions)?, shared_by_events(told)?);
    let mut arguments = SqliteArguments::default();
    let bound = transactions.len() * OF_ROW + told.len() * OF_EVENT;
    arguments.reserve(bound + 2 * SHARED, 0);
    bind_rows(&mut arguments, transactions);
    bind_events(&mut arguments, told);
    bind_shared_by_rows(&mut arguments, first.0, transactions, names);
    bind_shared_by_events(&mut arguments, first.1, told, names);
    Some(arguments)
}

/// The first row, if all of them are decided and like it.
fn shared_by_rows<'a>(chunk: &[&'a Row]) -> Option<&'a Row> {
    let (first, rest) = chunk.split_first()?;
    let is_like_first = |row: &&Row| {
        let (half, other) = (&row.half, &first.half);
        row.state == first.state
            && half.body_len == other.body_len
            && half.sender == other.sender
            && half.marker == other.marker
            && half.topic == other.topic
            && half.group == other.group
    };
    let are_decided = chunk
        .iter()
        .all(|row| row.decided.is_some() && row.check_at.is_none());
    (are_decided && rest.iter().all(is_like_first)).then_some(first)
}

fn bind_rows(arguments: &mut SqliteArguments, chunk: &[&Row]) {
    for row in chunk {
        let half = &row.half;
        add(arguments, int(half.position.0));
        add(arguments, int(half.queue_offset.0));
        add(arguments, int(half.prepared_at.0));
        add(arguments, row.decided.map(|decided| int(decided.at.0)));
        add(arguments, row.decided.map(|decided| int(decided.number)));
    }
}

fn bind_shared_by_rows(
    arguments: &mut SqliteArguments,
    first: &Row,
    chunk: &[&Row],
    names: &Names,
) {
    let half = &first.half;
    let identity = |bits: Option<u128>| bits.map(|bits| names.identity(bits));
    add(arguments, ids(chunk.iter().map(|row| row.half.id)));
    add(arguments, names.text(half.group.as_str()));
    add(arguments, names.text(half.topic.as_str()));
    add(arguments, identity(half.sender.map(|sender| sender.0)));
    add(arguments, identity(half.marker.map(|marker| marker.0)));
    add(arguments, i64::from(first.state.number()));
    add(arguments, i64::from(half.body_len));
}

/// The first event, if all of them are like it and numbered without gaps.
fn shared_by_events(chunk: &[Event]) -> Option<&Event> {
    let (first, rest) = chunk.split_first()?;
    let is_like_first = |event: &Event| {
        event.from == first.from
            && event.to == first.to
            && event.actor == first.actor
            && event.source == first.source
            && event.evidence == first.evidence
    };
    let are_numbered = chunk
        .iter()
        .zip(first.number..)
        .all(|(event, number)| event.number == number);
    (are_numbered && rest.iter().all(is_like_first)).then_some(first)
}

fn bind_events(arguments: &mut SqliteArguments, chunk: &[Event]) {
    for event in chunk {
        add(arguments, int(event.at.0));
        add(arguments, event.then_at.map(|at| int(at.0)));
        add(arguments, event.fingerprint.map(int));
    }
}

fn bind_shared_by_events(
    arguments: &mut SqliteArguments,
    first: &Event,
    chunk: &[Event],
    names: &Names,
) {
    add(arguments, ids(chunk.iter().map(|event| event.transaction)));
    add(arguments, int(first.number));
    add(arguments, first.from.map(|step| step as i64));
    add(arguments, first.to as i64);
    add(arguments, first.actor as i64);
    add(arguments, names.text(&first.source));
    add(arguments, first.evidence.as_str());
}

fn ids(ids: impl ExactSizeIterator<Item = TransactionId>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ids.len() * ID_BYTES);
    for id in ids {
        bytes.extend_from_slice(&id.to_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use mq_core::clock::ServerTime;
    use mq_core::names::{GroupName, TopicName};

    use super::*;
    use crate::audit::Step;
    use crate::store::conformance::draft::{Draft, id, position};
    use crate::store::sqlite::{Options, Sqlite};
    use crate::store::{Batch, TxStore as _};
    use crate::transaction::{Actor, Decision, Incarnation, State};

    /// More than one chunk of the largest size, one of each other, and some left over.
    const ROWS: u64 = 2 * 256 + 128 + 64 + 32 + 9;

    /// A batch whose rows and events are all alike.
    fn alike(draft: &mut Draft) -> Batch {
        for number in 1..=ROWS {
            draft.prepare_decided(number, "g", Decision::Commit);
        }
        let mut batch = draft.batch();
        for row in &mut batch.new {
            row.half.sender = Some(Incarnation(1));
        }
        batch
    }

    /// The batch with one row and one event changed, written to a new store, is read as it was written.
    async fn is_kept(row: impl Fn(&mut Row), event: impl Fn(&mut Event)) -> (bool, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.db");
        let store = Sqlite::open(path, Options::default()).await.unwrap();
        let mut draft = Draft::take_over(&store).await;
        let mut batch = alike(&mut draft);
        row(&mut batch.new[100]);
        event(&mut batch.events[100]);
        draft.writer().commit(&batch).await.unwrap();

        let positions: Vec<_> = (1..=ROWS).map(position).collect();
        let mut found = draft.writer().rows(&positions).await.unwrap();
        found.sort_by_key(|row| row.half.position);
        assert!(found == batch.new, "the rows are those of the batch");
        let found = store.reader().history(1, 10_000).await.unwrap();
        assert!(found == batch.events, "the events are those of the batch");

        let mut names = Names::default();
        let missing = names.missing(&batch);
        names.number(missing);
        let chunk: Vec<_> = batch.new.iter().take(256).collect();
        (
            rows(&chunk, &names).is_some(),
            events(&batch.events[..256], &names).is_some(),
        )
    }

    #[tokio::test]
    async fn rows_that_are_alike_are_kept_as_they_are() {
        assert_eq!(is_kept(|_| (), |_| ()).await, (true, true));
    }

    #[tokio::test]
    async fn their_numbers_may_stand_in_any_order() {
        let swap = |row: &mut Row| {
            row.half.id = id(9000);
            row.half.prepared_at = ServerTime(3);
        };
        let times = |event: &mut Event| {
            event.transaction = id(9000);
            event.then_at = None;
            event.fingerprint = None;
        };
        assert_eq!(is_kept(swap, times).await, (true, true));
    }

    #[tokio::test]
    async fn a_row_that_differs_is_kept_as_it_is() {
        let differences: [fn(&mut Row); 8] = [
            |row| row.half.group = GroupName::new("other").unwrap(),
            |row| row.half.topic = TopicName::new("other").unwrap(),
            |row| row.half.body_len = 7,
            |row| row.half.sender = None,
            |row| row.half.sender = Some(Incarnation(2)),
            |row| row.half.marker = None,
            |row| row.state = State::RolledBack,
            |row| row.state = State::Committed,
        ];
        for (number, difference) in differences.into_iter().enumerate() {
            let same = number == 7;
            assert_eq!(is_kept(difference, |_| ()).await, (same, true), "{number}");
        }
    }

    #[tokio::test]
    async fn an_event_that_differs_is_kept_as_it_is() {
        let differences: [fn(&mut Event); 5] = [
            |event| event.from = Some(Step::Prepared),
            |event| event.to = Step::RolledBack,
            |event| event.actor = Actor::Marker,
            |event| event.source = "elsewhere".into(),
            |event| event.evidence = "because".into(),
        ];
        for (number, difference) in differences.into_iter().enumerate() {
            assert_eq!(is_kept(|_| (), difference).await, (true, false), "{number}");
        }
    }

    #[tokio::test]
    async fn open_transactions_are_not_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.db");
        let store = Sqlite::open(path, Options::default()).await.unwrap();
        let mut draft = Draft::take_over(&store).await;
        draft.prepare(1, "g");
        draft.prepare(2, "g");
        let batch = draft.batch();
        let chunk: Vec<_> = batch.new.iter().collect();
        assert!(rows(&chunk, &Names::default()).is_none());
    }
}
