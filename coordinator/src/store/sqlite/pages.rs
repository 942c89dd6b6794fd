//! Pages of thousands of rows, for whoever reads everything: each column is read where SQLite has it, and each name once.
//!
//! The pool's driver gives every value an allocation of its own and hands each row from one thread to another, which takes
//! several times as long as reading it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use mq_core::clock::ServerTime;
use mq_core::log::{Position, QueueOffset};
use mq_core::names::{GroupName, TopicName};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, OpenFlags, Row as SqlRow, Rows, Statement, ffi};

use super::Options;
use super::encode::int;
use crate::audit::{Event, Step};
use crate::store::{Decided, Half, PAGE, Row, STATEMENT, StoreError, shape};
use crate::transaction::{Actor, Incarnation, MarkerIdentity, State, TransactionId};

const EVENTS: &str = "SELECT event, tx, from_step, to_step, actor, at, then_at, source, evidence, fingerprint FROM audit \
WHERE event >= ?1 AND event < ?2 ORDER BY event LIMIT ?3";

const ROWS: &str = "SELECT half_pos, id, n, half_off, grp, topic, body_len, prepared_at, sender, marker, status, decided_at, \
decision_no, check_at, checks, repeats, contradictions FROM tx WHERE half_pos > ?1 ORDER BY half_pos LIMIT ?2";

const REASONS: &str =
    "SELECT half_pos, reason FROM unpublished WHERE half_pos > ?1 ORDER BY half_pos";

const PLACES: &str = "SELECT half_pos, position FROM moved WHERE half_pos > ?1 ORDER BY half_pos";

const NAME: &str = "SELECT text FROM name WHERE id = ?1";

const IDENTITY: &str = "SELECT bytes FROM identity WHERE id = ?1";

/// Reads the events from number `from` up to, not including, `behind`, and hands them on until that says false. Blocks.
pub(super) fn every_event(
    (path, options): (&Path, Options),
    (mut from, behind): (i64, i64),
    hand_on: &mut dyn FnMut(Vec<Event>) -> bool,
) -> Result<(), StoreError> {
    let connection = connect(path, options)?;
    let prepare = |sql| connection.prepare(sql).map_err(failed);
    let mut sources = Known::new(prepare(NAME)?, |row| text(row, 0).map(Arc::from));
    let mut select = prepare(EVENTS)?;
    loop {
        let moment = connection.unchecked_transaction().map_err(failed)?;
        sources.forget();
        let mut found = select.query((from, behind, STATEMENT)).map_err(failed)?;
        let (mut count, mut page) = (0, Vec::with_capacity(PAGE));
        while let Some(row) = found.next().map_err(failed)? {
            let event = event(row, &mut sources)?;
            from = int(event.number).saturating_add(1);
            count += 1;
            if !put(event, &mut page, hand_on) {
                return Ok(());
            }
        }
        drop(found);
        moment.finish().map_err(failed)?;
        if !hand_on(page) || count < STATEMENT {
            return Ok(());
        }
    }
}

/// Reads all transactions in order of position, and hands them on until that says false. Blocks.
pub(super) fn every_row(
    (path, options): (&Path, Options),
    hand_on: &mut dyn FnMut(Vec<Row>) -> bool,
) -> Result<(), StoreError> {
    let connection = connect(path, options)?;
    let prepare = |sql| connection.prepare(sql).map_err(failed);
    let mut names = Names {
        groups: Known::new(prepare(NAME)?, |row| name(row, "producer group")),
        topics: Known::new(prepare(NAME)?, |row| name(row, "topic")),
        identities: Known::new(prepare(IDENTITY)?, |row| {
            bytes(row, 0).map(u128::from_be_bytes)
        }),
    };
    let (mut select, mut refusals) = (prepare(ROWS)?, prepare(REASONS)?);
    let mut moves = prepare(PLACES)?;
    let mut after = i64::MIN;
    loop {
        let moment = connection.unchecked_transaction().map_err(failed)?;
        names.forget();
        let reasons = refusals.query((after,)).map_err(failed)?;
        let mut reasons = Beside::new("unpublished", reasons, |row| {
            text(row, 1).map(str::to_owned)
        })?;
        let places = moves.query((after,)).map_err(failed)?;
        let mut places = Beside::new("moved", places, |row| number(row, 1).map(Position))?;
        let mut found = select.query((after, STATEMENT)).map_err(failed)?;
        let (mut count, mut page) = (0, Vec::with_capacity(PAGE));
        while let Some(row) = found.next().map_err(failed)? {
            let mut row = transaction(row, &mut names)?;
            row.unpublished = reasons.of(row.half.position)?;
            row.moved_to = places.of(row.half.position)?;
            after = int(row.half.position.0);
            count += 1;
            if !put(row, &mut page, hand_on) {
                return Ok(());
            }
        }
        let is_last = count < STATEMENT;
        if is_last {
            reasons.of(Position(u64::MAX))?;
            places.of(Position(u64::MAX))?;
        }
        drop((found, reasons, places));
        moment.finish().map_err(failed)?;
        if !hand_on(page) || is_last {
            return Ok(());
        }
    }
}

/// Puts `one` on `page`, which is handed on when it is full; false once nobody wants more.
fn put<T>(one: T, page: &mut Vec<T>, hand_on: &mut dyn FnMut(Vec<T>) -> bool) -> bool {
    page.push(one);
    page.len() < PAGE || hand_on(std::mem::replace(page, Vec::with_capacity(PAGE)))
}

fn connect(path: &Path, options: Options) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection
        .busy_timeout(options.busy_timeout)
        .map_err(failed)?;
    connection
        .execute_batch("PRAGMA trusted_schema = OFF")
        .map_err(failed)?;
    Ok(connection)
}

/// What a table beside that of transactions says of a few of them, in order of position: mostly nothing.
struct Beside<'statement, T> {
    table: &'static str,
    found: Rows<'statement>,
    read: fn(&SqlRow<'_>) -> Result<T, StoreError>,
    next: Option<(Position, T)>,
}

impl<'statement, T> Beside<'statement, T> {
    fn new(
        table: &'static str,
        found: Rows<'statement>,
        read: fn(&SqlRow<'_>) -> Result<T, StoreError>,
    ) -> Result<Self, StoreError> {
        let mut beside = Self {
            table,
            found,
            read,
            next: None,
        };
        beside.advance()?;
        Ok(beside)
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        let next = self.found.next().map_err(failed)?;
        let pair = |row: &SqlRow<'_>| Ok((Position(number(row, 0)?), (self.read)(row)?));
        let next = next.map(pair).transpose();
        self.next = next.map_err(|error: StoreError| error.of(self.table))?;
        Ok(())
    }

    /// What is said of the transaction at `position`; those before it must have been asked for.
    fn of(&mut self, position: Position) -> Result<Option<T>, StoreError> {
        match self.next.take() {
            Some((at, said)) if at == position => {
                self.advance()?;
                Ok(Some(said))
            }
            Some((at, _)) if at < position => Err(shape::no_transaction(self.table, at)),
            next => {
                self.next = next;
                Ok(None)
            }
        }
    }
}

/// What numbers in rows stand for, each looked up once.
struct Known<'connection, T> {
    select: Statement<'connection>,
    read: fn(&SqlRow<'_>) -> Result<T, StoreError>,
    last: Option<(i64, T)>,
    all: HashMap<i64, T>,
}

impl<'connection, T: Clone> Known<'connection, T> {
    fn new(select: Statement<'connection>, read: fn(&SqlRow<'_>) -> Result<T, StoreError>) -> Self {
        Self {
            select,
            read,
            last: None,
            all: HashMap::new(),
        }
    }

    /// So that memory does not grow with what there is.
    fn forget(&mut self) {
        self.last = None;
        self.all.clear();
    }

    /// What `id` stands for; `None` if nothing has that number.
    fn get(&mut self, id: i64) -> Result<Option<T>, StoreError> {
        if let Some((last, value)) = &self.last
            && *last == id
        {
            return Ok(Some(value.clone()));
        }
        let known = self.all.get(&id).cloned();
        let value = match known {
            Some(value) => value,
            None => {
                let mut found = self.select.query((id,)).map_err(failed)?;
                let Some(row) = found.next().map_err(failed)? else {
                    return Ok(None);
                };
                let value = (self.read)(row)?;
                self.all.insert(id, value.clone());
                value
            }
        };
        self.last = Some((id, value.clone()));
        Ok(Some(value))
    }
}

struct Names<'connection> {
    groups: Known<'connection, GroupName>,
    topics: Known<'connection, TopicName>,
    identities: Known<'connection, u128>,
}

impl Names<'_> {
    fn forget(&mut self) {
        self.groups.forget();
        self.topics.forget();
        self.identities.forget();
    }
}

fn event(row: &SqlRow<'_>, sources: &mut Known<'_, Arc<str>>) -> Result<Event, StoreError> {
    let event = number(row, 0)?;
    read_event(row, event, sources).map_err(|error| error.of(format_args!("event {event}")))
}

fn read_event(
    row: &SqlRow<'_>,
    event: u64,
    sources: &mut Known<'_, Arc<str>>,
) -> Result<Event, StoreError> {
    let unknown = |what: &str| damaged(format!("no {what} we know"));
    let step = |number| Step::from_number(number).ok_or_else(|| unknown("step"));
    Ok(Event {
        number: event,
        transaction: TransactionId::from_bytes(bytes(row, 1)?),
        from: maybe_integer(row, 2)?.map(step).transpose()?,
        to: step(integer(row, 3)?)?,
        actor: Actor::from_number(integer(row, 4)?).ok_or_else(|| unknown("actor"))?,
        at: ServerTime(number(row, 5)?),
        then_at: maybe_number(row, 6)?.map(ServerTime),
        source: sources
            .get(integer(row, 7)?)?
            .ok_or_else(|| unknown("source"))?,
        fingerprint: maybe_number(row, 9)?,
        evidence: text(row, 8)?.to_owned(),
    })
}

fn transaction(row: &SqlRow<'_>, names: &mut Names<'_>) -> Result<Row, StoreError> {
    let position = number(row, 0);
    let at_position = |error: StoreError| match position {
        Ok(position) => error.of(format_args!("the transaction at position {position}")),
        Err(_) => error,
    };
    let id = TransactionId::from_bytes(bytes(row, 1).map_err(at_position)?);
    let read = read_transaction(row, id, names);
    read.map_err(|error| error.of(format_args!("transaction {id}")))
}

fn read_transaction(
    row: &SqlRow<'_>,
    id: TransactionId,
    names: &mut Names<'_>,
) -> Result<Row, StoreError> {
    let wrong = |what: &str| damaged(what.into());
    if number(row, 2)? != 0 {
        return Err(wrong("a number that no message of it has"));
    }
    let decided = match (maybe_number(row, 11)?, maybe_number(row, 12)?) {
        (Some(at), Some(number)) => Some(Decided {
            at: ServerTime(at),
            number,
        }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err(wrong("half a decision")),
    };
    let state = State::from_number(integer(row, 10)?);
    let mut identity = |at| {
        let Some(number) = maybe_integer(row, at)? else {
            return Ok(None);
        };
        let bits = names.identities.get(number)?;
        bits.map(Some)
            .ok_or_else(|| wrong("a sender or marker that is missing"))
    };
    let (sender, marker) = (identity(8)?, identity(9)?);
    let half = Half {
        id,
        position: Position(number(row, 0)?),
        queue_offset: QueueOffset(number(row, 3)?),
        group: names
            .groups
            .get(integer(row, 4)?)?
            .ok_or_else(|| wrong("no producer group"))?,
        topic: names
            .topics
            .get(integer(row, 5)?)?
            .ok_or_else(|| wrong("no topic"))?,
        body_len: small(row, 6)?,
        prepared_at: ServerTime(number(row, 7)?),
        sender: sender.map(Incarnation),
        marker: marker.map(MarkerIdentity),
    };
    Ok(Row {
        half,
        state: state.ok_or_else(|| wrong("no state we know"))?,
        decided,
        check_at: maybe_number(row, 13)?.map(ServerTime),
        checks: small(row, 14)?,
        repeats: small(row, 15)?,
        contradictions: small(row, 16)?,
        unpublished: None,
        moved_to: None,
    })
}

fn value<'row>(row: &'row SqlRow<'_>, at: usize) -> Result<ValueRef<'row>, StoreError> {
    row.get_ref(at).map_err(failed)
}

fn maybe_integer(row: &SqlRow<'_>, at: usize) -> Result<Option<i64>, StoreError> {
    let found = value(row, at)?;
    if let ValueRef::Integer(number) = found {
        return Ok(Some(number));
    }
    if found == ValueRef::Null {
        return Ok(None);
    }
    Err(kind(row, at, "a number"))
}

fn integer(row: &SqlRow<'_>, at: usize) -> Result<i64, StoreError> {
    maybe_integer(row, at)?.ok_or_else(|| kind(row, at, "a number"))
}

/// A number that was unsigned when it was stored.
fn maybe_number(row: &SqlRow<'_>, at: usize) -> Result<Option<u64>, StoreError> {
    let number = maybe_integer(row, at)?.map(shape::unsigned).transpose();
    number.map_err(|error| error.of(column(row, at)))
}

fn number(row: &SqlRow<'_>, at: usize) -> Result<u64, StoreError> {
    shape::unsigned(integer(row, at)?).map_err(|error| error.of(column(row, at)))
}

fn small(row: &SqlRow<'_>, at: usize) -> Result<u32, StoreError> {
    shape::small(number(row, at)?).map_err(|error| error.of(column(row, at)))
}

fn bytes<const N: usize>(row: &SqlRow<'_>, at: usize) -> Result<[u8; N], StoreError> {
    let ValueRef::Blob(bytes) = value(row, at)? else {
        return Err(kind(row, at, "bytes"));
    };
    bytes.try_into().map_err(|_| {
        let (column, found) = (column(row, at), bytes.len());
        damaged(format!("{column}: {found} bytes stand where {N} must be"))
    })
}

fn text<'row>(row: &'row SqlRow<'_>, at: usize) -> Result<&'row str, StoreError> {
    let ValueRef::Text(text) = value(row, at)? else {
        return Err(kind(row, at, "a text"));
    };
    std::str::from_utf8(text).map_err(|error| damaged(format!("{}: {error}", column(row, at))))
}

/// A topic or producer group.
fn name<T: for<'text> TryFrom<&'text str>>(row: &SqlRow<'_>, what: &str) -> Result<T, StoreError> {
    let text = text(row, 0)?;
    T::try_from(text).map_err(|_| damaged(format!("a {what} breaks the rules of names: {text:?}")))
}

/// Something else stands where `wanted` must be.
fn kind(row: &SqlRow<'_>, at: usize, wanted: &str) -> StoreError {
    match value(row, at) {
        Ok(found) => {
            let (column, found) = (column(row, at), found.data_type());
            damaged(format!("{column}: {found} stands where {wanted} must be"))
        }
        Err(error) => error,
    }
}

fn column<'row>(row: &'row SqlRow<'_>, at: usize) -> &'row str {
    // Only for messages: a column that has no name is not worth an error of its own.
    row.as_ref().column_name(at).unwrap_or("a column")
}

fn damaged(why: String) -> StoreError {
    StoreError::Damaged(why)
}

/// The error of reading or connecting, by what it means.
fn failed(error: Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ffi::ErrorCode::DatabaseCorrupt | ffi::ErrorCode::NotADatabase) => {
            damaged(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}
