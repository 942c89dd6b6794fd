//! Pages of thousands of rows, for whoever reads everything: without a join for each row, and each name once.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use mq_core::clock::ServerTime;
use mq_core::log::{Position, QueueOffset};
use mq_core::names::{GroupName, TopicName};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{AssertSqlSafe, PgTransaction};
use tokio::sync::mpsc;

use super::encode::int;
use super::rows::{damaged, get, id, maybe_number, name, number, small};
use super::session::{Place, Query, read_error};
use super::text;
use crate::audit::{Event, Step};
use crate::store::{AHEAD, Decided, Half, PAGE, Pages, Row, STATEMENT, StoreError, shape};
use crate::transaction::{Actor, Incarnation, MarkerIdentity, State, TransactionId};

const EVENTS: &str = "SELECT event, tx, from_step, to_step, actor, at, then_at, evidence, source, fingerprint FROM halfmoon.audit \
WHERE event >= $1 AND event < $2 ORDER BY event LIMIT $3";

const ROWS: &str = "SELECT half_pos, id, n, half_off, body_len, prepared_at, status, decided_at, decision_no, check_at, \
checks, repeats, contradictions, grp, topic, sender, marker FROM halfmoon.tx WHERE half_pos > $1 ORDER BY half_pos LIMIT $2";

const REASONS: &str =
    "SELECT half_pos, reason FROM halfmoon.unpublished WHERE half_pos > $1 AND half_pos <= $2";

const PLACES: &str =
    "SELECT half_pos, position FROM halfmoon.moved WHERE half_pos > $1 AND half_pos <= $2";

const NAMES: &str = "SELECT id, text FROM halfmoon.name WHERE id = ANY($1)";

const IDENTITIES: &str = "SELECT id, bytes FROM halfmoon.identity WHERE id = ANY($1)";

/// The events from number `from` up to, not including, `behind`.
pub(super) fn every_event(
    (pool, place): (&PgPool, &Place),
    (mut from, behind): (i64, i64),
) -> Pages<Event> {
    let (send, receive) = mpsc::channel(AHEAD);
    let (pool, place) = (pool.clone(), place.clone());
    tokio::spawn(async move {
        loop {
            let events = async {
                let moment = Moment::begin(&pool, &place).await?;
                moment.events((from, behind)).await
            };
            let events = events.await;
            let last = events.as_ref().ok().and_then(|events| events.last());
            from = last.map_or(from, |event| int(event.number).saturating_add(1));
            if !hand_on(events, &send).await {
                return;
            }
        }
    });
    receive
}

/// All transactions in order of position.
pub(super) fn every_row((pool, place): (&PgPool, &Place)) -> Pages<Row> {
    let (send, receive) = mpsc::channel(AHEAD);
    let (pool, place) = (pool.clone(), place.clone());
    tokio::spawn(async move {
        let mut after = i64::MIN;
        loop {
            let rows = async {
                let moment = Moment::begin(&pool, &place).await?;
                moment.rows(after).await
            };
            let rows = rows.await;
            let last = rows.as_ref().ok().and_then(|rows| rows.last());
            after = last.map_or(after, |row| int(row.half.position.0));
            if !hand_on(rows, &send).await {
                return;
            }
        }
    });
    receive
}

/// Hands on what one statement has read, page by page; false if that was the last, or nobody wants more.
async fn hand_on<T>(
    found: Result<Vec<T>, StoreError>,
    send: &mpsc::Sender<Result<Vec<T>, StoreError>>,
) -> bool {
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            // Who no longer listens does not miss it.
            let _ = send.send(Err(error)).await;
            return false;
        }
    };
    let more = found.len() == STATEMENT as usize;
    let mut found = found.into_iter();
    while found.len() > 0 {
        let page = found.by_ref().take(PAGE).collect();
        if send.send(Ok(page)).await.is_err() {
            return false;
        }
    }
    more
}

/// The database as it is at one moment.
struct Moment<'place> {
    place: &'place Place,
    transaction: PgTransaction<'static>,
}

impl<'place> Moment<'place> {
    async fn begin(pool: &PgPool, place: &'place Place) -> Result<Self, StoreError> {
        let begin = AssertSqlSafe(place.begin_reading());
        let begun = place.in_time(pool.begin_with(begin)).await;
        Ok(Self {
            place,
            transaction: begun.map_err(|error| read_error(&error))?,
        })
    }

    async fn fetch(&mut self, query: Query) -> Result<Vec<PgRow>, StoreError> {
        let query = query.persistent(!self.place.pooled);
        let fetched = query.fetch_all(&mut *self.transaction);
        let fetched = self.place.in_time(fetched).await;
        fetched.map_err(|error| read_error(&error))
    }

    /// What these numbers stand for, as far as anything has them.
    async fn known<T>(
        &mut self,
        select: &'static str,
        ids: HashSet<i32>,
        read: impl Fn(&PgRow) -> Result<T, StoreError>,
    ) -> Result<HashMap<i32, T>, StoreError> {
        let ids: Vec<i32> = ids.into_iter().collect();
        let found = self.fetch(sqlx::query(select).bind(ids)).await?;
        let pair = |row: &PgRow| {
            let id: i32 = get(row, 0)?;
            let known = read(row).map_err(|error| error.of(format_args!("the name {id}")));
            Ok((id, known?))
        };
        found.iter().map(pair).collect()
    }

    async fn end(self) -> Result<(), StoreError> {
        let ended = self.place.in_time(self.transaction.commit()).await;
        ended.map_err(|error| read_error(&error))
    }

    /// The first of the events from number `from` up to, not including, `behind`.
    async fn events(mut self, (from, behind): (i64, i64)) -> Result<Vec<Event>, StoreError> {
        let query = sqlx::query(EVENTS).bind(from).bind(behind);
        let query = query.bind(i64::from(STATEMENT));
        let found = self.fetch(query).await?;
        let sources = column(&found, 8)?;
        let sources = self.known(NAMES, sources, |row| {
            Ok(Arc::from(text::decode(get(row, 1)?)))
        });
        let sources = sources.await?;
        self.end().await?;
        found.iter().map(|row| event(row, &sources)).collect()
    }

    /// The first transactions behind position `after`.
    async fn rows(mut self, after: i64) -> Result<Vec<Row>, StoreError> {
        let query = sqlx::query(ROWS).bind(after);
        let query = query.bind(i64::from(STATEMENT));
        let found = self.fetch(query).await?;
        let (groups, topics) = (column(&found, 13)?, column(&found, 14)?);
        let identities = union(column(&found, 15)?, column(&found, 16)?);
        let names = Names {
            groups: self
                .known(NAMES, groups, |row| name(row, 1, "producer group"))
                .await?,
            topics: self
                .known(NAMES, topics, |row| name(row, 1, "topic"))
                .await?,
            identities: self.known(IDENTITIES, identities, |row| id(row, 1)).await?,
        };
        let rows = found.iter().map(|row| transaction(row, &names));
        let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
        let last = match rows.last() {
            Some(last) if rows.len() == STATEMENT as usize => int(last.half.position.0),
            _ => i64::MAX,
        };
        let reasons = self.fetch(sqlx::query(REASONS).bind(after).bind(last));
        for row in reasons.await? {
            let reason = text::decode(get(&row, 1)?).into_owned();
            row_of(&mut rows, "unpublished", &row)?.unpublished = Some(reason);
        }
        let places = self.fetch(sqlx::query(PLACES).bind(after).bind(last));
        for row in places.await? {
            let place = number(&row, 1).map_err(|error| error.of("moved"));
            row_of(&mut rows, "moved", &row)?.moved_to = Some(Position(place?));
        }
        self.end().await?;
        Ok(rows)
    }
}

/// The one of `rows` about which `found`, in a table beside them, says something.
fn row_of<'rows>(
    rows: &'rows mut [Row],
    table: &'static str,
    found: &PgRow,
) -> Result<&'rows mut Row, StoreError> {
    let position = number(found, 0).map_err(|error| error.of(table));
    let position = Position(position?);
    let at = rows.binary_search_by_key(&position, |row| row.half.position);
    let row = at.ok().and_then(|at| rows.get_mut(at));
    row.ok_or_else(|| shape::no_transaction(table, position))
}

struct Names {
    groups: HashMap<i32, GroupName>,
    topics: HashMap<i32, TopicName>,
    identities: HashMap<i32, u128>,
}

/// Every number that stands in a column.
fn column(rows: &[PgRow], at: usize) -> Result<HashSet<i32>, StoreError> {
    let mut found = HashSet::new();
    let mut last = None;
    for row in rows {
        let id: Option<i32> = get(row, at)?;
        if id != last {
            found.extend(id);
            last = id;
        }
    }
    Ok(found)
}

fn union<T: Eq + Hash>(mut one: HashSet<T>, other: HashSet<T>) -> HashSet<T> {
    one.extend(other);
    one
}

fn event(row: &PgRow, sources: &HashMap<i32, Arc<str>>) -> Result<Event, StoreError> {
    let event = number(row, 0)?;
    read_event(row, event, sources).map_err(|error| error.of(format_args!("event {event}")))
}

fn read_event(
    row: &PgRow,
    event: u64,
    sources: &HashMap<i32, Arc<str>>,
) -> Result<Event, StoreError> {
    let unknown = |what: &str| damaged(format!("no {what} we know"));
    let step = |number: i16| Step::from_number(i64::from(number)).ok_or_else(|| unknown("step"));
    let (from, actor): (Option<i16>, i16) = (get(row, 2)?, get(row, 4)?);
    let source = sources.get(&get::<i32>(row, 8)?);
    Ok(Event {
        number: event,
        transaction: TransactionId(id(row, 1)?),
        from: from.map(step).transpose()?,
        to: step(get(row, 3)?)?,
        actor: Actor::from_number(i64::from(actor)).ok_or_else(|| unknown("actor"))?,
        at: ServerTime(number(row, 5)?),
        then_at: maybe_number(row, 6)?.map(ServerTime),
        source: source.cloned().ok_or_else(|| unknown("source"))?,
        fingerprint: maybe_number(row, 9)?,
        evidence: text::decode(get(row, 7)?).into_owned(),
    })
}

fn transaction(row: &PgRow, names: &Names) -> Result<Row, StoreError> {
    let id = TransactionId(id(row, 1)?);
    let read = read_transaction(row, id, names);
    read.map_err(|error| error.of(format_args!("transaction {id}")))
}

fn read_transaction(row: &PgRow, id: TransactionId, names: &Names) -> Result<Row, StoreError> {
    let wrong = |what: &str| damaged(what.into());
    if get::<i16>(row, 2)? != 0 {
        return Err(wrong("a number that no message of it has"));
    }
    let decided = match (maybe_number(row, 7)?, maybe_number(row, 8)?) {
        (Some(at), Some(number)) => Some(Decided {
            at: ServerTime(at),
            number,
        }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err(wrong("half a decision")),
    };
    let state = State::from_number(i64::from(get::<i16>(row, 6)?));
    let identity = |at| {
        let Some(number) = get::<Option<i32>>(row, at)? else {
            return Ok(None);
        };
        let bits = names.identities.get(&number).copied();
        bits.map(Some)
            .ok_or_else(|| wrong("a sender or marker that is missing"))
    };
    let (group, topic): (i32, i32) = (get(row, 13)?, get(row, 14)?);
    let half = Half {
        id,
        position: Position(number(row, 0)?),
        queue_offset: QueueOffset(number(row, 3)?),
        group: names
            .groups
            .get(&group)
            .cloned()
            .ok_or_else(|| wrong("no producer group"))?,
        topic: names
            .topics
            .get(&topic)
            .cloned()
            .ok_or_else(|| wrong("no topic"))?,
        body_len: small(row, 4)?,
        prepared_at: ServerTime(number(row, 5)?),
        sender: identity(15)?.map(Incarnation),
        marker: identity(16)?.map(MarkerIdentity),
    };
    Ok(Row {
        half,
        state: state.ok_or_else(|| wrong("no state we know"))?,
        decided,
        check_at: maybe_number(row, 9)?.map(ServerTime),
        checks: small(row, 10)?,
        repeats: small(row, 11)?,
        contradictions: small(row, 12)?,
        unpublished: None,
        moved_to: None,
    })
}
