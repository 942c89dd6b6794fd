//! Reading with connections of its own. Every statement ends after a bounded number of rows and a bounded time, so that none
//! holds back the cleaning of the tables for long.

use async_trait::async_trait;
use mq_core::clock::ServerTime;
use mq_core::log::Position;
use mq_core::names::{GroupName, TopicName};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::types::Uuid;

use super::encode::int;
use super::pages;
use super::rows::{self, get, name, number, select_events, select_rows};
use super::session::{Place, Query, read_error};
use super::statements;
use crate::audit::Event;
use crate::audit::seal::Seal;
use crate::store::{Filter, Forgotten, OpenGroup, Owner, Pages, Row, StoreError, TxReader, shape};
use crate::transaction::{Incarnation, State, TransactionId};

/// A list looks at so many rows in one statement, and then goes on with another.
const WINDOW: i64 = 20_000;

/// Most events of one transaction that are read; the engine records far fewer.
const MOST_EVENTS: i64 = 10_000;

/// Open transactions, through the index that has only those: state, behind, group, topic, limit.
pub(super) const LIST_OPEN: &str = select_rows!(
    "WHERE t.decision_no IS NULL AND (t.check_at IS NULL) = ($1::smallint = 3) AND t.half_pos > $2 \
     AND ($3::int IS NULL OR t.grp = $3) AND ($4::int IS NULL OR t.topic = $4) ORDER BY t.half_pos LIMIT $5"
);

/// Transactions that could not be published: state, behind, group, topic, limit.
pub(super) const LIST_UNPUBLISHED: &str = select_rows!(
    "WHERE u.half_pos > $2 AND ($1::smallint IS NULL OR t.status = $1) AND ($3::int IS NULL OR t.grp = $3) \
     AND ($4::int IS NULL OR t.topic = $4) ORDER BY u.half_pos LIMIT $5"
);

/// The last of the rows that one statement looks at: behind, how many.
const LAST_OF_WINDOW: &str = "SELECT max(w.half_pos) FROM \
    (SELECT half_pos FROM halfmoon.tx WHERE half_pos > $1 ORDER BY half_pos LIMIT $2) AS w";

/// Any transactions between two positions: behind, last, state, group, topic, limit.
pub(super) const LIST_WINDOW: &str = select_rows!(
    "WHERE t.half_pos > $1 AND t.half_pos <= $2 AND ($3::smallint IS NULL OR t.status = $3) \
     AND ($4::int IS NULL OR t.grp = $4) AND ($5::int IS NULL OR t.topic = $5) ORDER BY t.half_pos LIMIT $6"
);

/// What is due in a group: its name, now, behind (time, position), limit.
pub(super) const DUE: &str = select_rows!(
    "WHERE t.grp = (SELECT id FROM halfmoon.name WHERE text = $1) AND t.decision_no IS NULL AND t.check_at <= $2 \
     AND (t.check_at, t.half_pos) > ($3, $4) ORDER BY t.check_at, t.half_pos LIMIT $5"
);

/// How many transactions of each topic still need it.
const OPEN_TOPICS: &str = "SELECT n.text, sum(o.open)::bigint FROM \
    (SELECT topic, count(*) AS open FROM halfmoon.tx WHERE decision_no IS NULL GROUP BY topic UNION ALL \
     SELECT t.topic, count(*) FROM halfmoon.unpublished AS u JOIN halfmoon.tx AS t USING (half_pos) GROUP BY t.topic) AS o \
    LEFT JOIN halfmoon.name AS n ON n.id = o.topic GROUP BY n.text ORDER BY n.text";

/// What is open in each group.
const OPEN_GROUPS: &str = "SELECT n.text, o.prepared, o.parked, t.prepared_at FROM \
    (SELECT grp, count(check_at) AS prepared, count(*) - count(check_at) AS parked, \
     min(half_pos) AS oldest FROM halfmoon.tx WHERE decision_no IS NULL GROUP BY grp) AS o \
    JOIN halfmoon.tx AS t ON t.half_pos = o.oldest LEFT JOIN halfmoon.name AS n ON n.id = o.grp ORDER BY n.text";

/// Which of these transactions are committed.
pub(super) const COMMITTED: &str = "SELECT t.id FROM unnest($1::uuid[]) AS u (id) JOIN halfmoon.tx AS t ON t.id = u.id AND t.n = 0 \
    WHERE t.status = 1";

/// Prepared transactions of one sender: its bytes, behind, limit.
pub(super) const OPEN_OF: &str = select_rows!(
    "WHERE t.sender = (SELECT id FROM halfmoon.identity WHERE bytes = $1) AND t.decision_no IS NULL \
     AND t.check_at IS NOT NULL AND t.half_pos > $2 ORDER BY t.half_pos LIMIT $3"
);

/// Transactions whose half message is still needed and stands before a position: that, behind, limit.
pub(super) const NEEDED: &str = select_rows!(
    "WHERE t.half_pos IN (SELECT o.half_pos FROM halfmoon.tx AS o WHERE o.decision_no IS NULL AND o.half_pos > $2 UNION ALL \
     SELECT w.half_pos FROM halfmoon.unpublished AS w WHERE w.half_pos > $2 UNION ALL \
     SELECT d.half_pos FROM halfmoon.tx AS d WHERE d.decision_no > (SELECT published FROM halfmoon.owner) \
     AND d.half_pos > $2) \
     AND coalesce(v.position, t.half_pos) < $1 ORDER BY t.half_pos LIMIT $3"
);

/// Decisions in their order: behind, limit.
pub(super) const DECIDED_AFTER: &str =
    select_rows!("WHERE t.decision_no > $1 ORDER BY t.decision_no LIMIT $2");

/// The history of one transaction: its bytes, limit. The sum keeps the planner from reading all events in their order.
pub(super) const EVENTS_OF: &str = select_events!("WHERE a.tx = $1 ORDER BY a.event + 0 LIMIT $2");

/// A reader. Clones of the pool share its connections.
#[derive(Debug)]
pub(super) struct Reader {
    pool: PgPool,
    place: Place,
}

/// A [`Filter`] whose names are numbers.
#[derive(Debug)]
struct Wanted {
    state: Option<i16>,
    group: Option<i32>,
    topic: Option<i32>,
    limit: i64,
}

impl Reader {
    pub(super) const fn new(pool: PgPool, place: Place) -> Self {
        Self { pool, place }
    }

    async fn fetch(&self, query: Query) -> Result<Vec<PgRow>, StoreError> {
        let fetched = async {
            if !self.place.pooled {
                return query.fetch_all(&self.pool).await;
            }
            let begin = AssertSqlSafe(self.place.begin());
            let mut tx = self.pool.begin_with(begin).await?;
            let rows = query.persistent(false).fetch_all(&mut *tx).await?;
            tx.commit().await?;
            Ok(rows)
        };
        self.place
            .in_time(fetched)
            .await
            .map_err(|error| read_error(&error))
    }

    async fn fetch_rows(&self, query: Query) -> Result<Vec<Row>, StoreError> {
        self.fetch(query)
            .await?
            .iter()
            .map(rows::transaction)
            .collect()
    }

    /// The number of a name; `None` if no transaction has it.
    async fn name_id(&self, text: &str) -> Result<Option<i32>, StoreError> {
        let query = sqlx::query("SELECT id FROM halfmoon.name WHERE text = $1");
        let found = self.fetch(query.bind(text.to_owned())).await?;
        found.first().map(|row| get(row, 0)).transpose()
    }

    /// `None` when nothing can match.
    async fn wanted(&self, filter: &Filter) -> Result<Option<Wanted>, StoreError> {
        let (mut group, mut topic) = (None, None);
        for (name, id) in [
            (filter.group.as_ref().map(AsRef::as_ref), &mut group),
            (filter.topic.as_ref().map(AsRef::as_ref), &mut topic),
        ] {
            if let Some(name) = name {
                *id = self.name_id(name).await?;
                if id.is_none() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(Wanted {
            state: filter.state.map(|state| i16::from(state.number())),
            group,
            topic,
            limit: i64::from(filter.limit),
        }))
    }

    /// Transactions that an index or a table of their own has.
    async fn list_few(
        &self,
        sql: &'static str,
        wanted: &Wanted,
        after: i64,
    ) -> Result<Vec<Row>, StoreError> {
        let query = sqlx::query(sql).bind(wanted.state).bind(after);
        let query = query.bind(wanted.group).bind(wanted.topic);
        self.fetch_rows(query.bind(wanted.limit)).await
    }

    /// Any transactions, window by window.
    async fn list_all(&self, wanted: &Wanted, mut after: i64) -> Result<Vec<Row>, StoreError> {
        let mut found = Vec::new();
        loop {
            let window = self
                .fetch(sqlx::query(LAST_OF_WINDOW).bind(after).bind(WINDOW))
                .await?;
            let last: Option<i64> = window.first().map(|row| get(row, 0)).transpose()?.flatten();
            let left = wanted.limit - i64::try_from(found.len()).unwrap_or(i64::MAX);
            let (Some(last), true) = (last, left > 0) else {
                return Ok(found);
            };
            let query = sqlx::query(LIST_WINDOW).bind(after).bind(last);
            let query = query
                .bind(wanted.state)
                .bind(wanted.group)
                .bind(wanted.topic);
            found.extend(self.fetch_rows(query.bind(left)).await?);
            after = last;
        }
    }
}

#[async_trait]
impl TxReader for Reader {
    async fn owner(&self) -> Result<Option<Owner>, StoreError> {
        let found = self.fetch(sqlx::query(statements::OWNER)).await?;
        found.first().map(rows::owner).transpose()
    }

    async fn transaction(&self, id: TransactionId) -> Result<Option<Row>, StoreError> {
        let query = sqlx::query(select_rows!("WHERE t.id = $1 AND t.n = 0"));
        let query = query.bind(Uuid::from_u128(id.0));
        Ok(self.fetch_rows(query).await?.pop())
    }

    async fn committed(&self, ids: &[TransactionId]) -> Result<Vec<TransactionId>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| Uuid::from_u128(id.0)).collect();
        let found = self.fetch(sqlx::query(COMMITTED).bind(ids)).await?;
        let id = |row| get::<Uuid>(row, 0).map(|id| TransactionId(id.as_u128()));
        found.iter().map(id).collect()
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Row>, StoreError> {
        let Some(wanted) = self.wanted(filter).await? else {
            return Ok(Vec::new());
        };
        let after = behind(filter.after);
        match filter.state {
            _ if filter.unpublished => self.list_few(LIST_UNPUBLISHED, &wanted, after).await,
            Some(State::Prepared | State::Parked) => self.list_few(LIST_OPEN, &wanted, after).await,
            Some(State::Committed | State::RolledBack) | None => {
                self.list_all(&wanted, after).await
            }
        }
    }

    async fn due(
        &self,
        group: &GroupName,
        now: ServerTime,
        after: Option<(ServerTime, Position)>,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let (at, position) = after.map_or((-1, -1), |(at, position)| {
            (bounded(at.0), bounded(position.0))
        });
        let query = sqlx::query(DUE)
            .bind(group.as_str().to_owned())
            .bind(bounded(now.0));
        self.fetch_rows(query.bind(at).bind(position).bind(i64::from(limit)))
            .await
    }

    async fn open_topics(&self) -> Result<Vec<(TopicName, u64)>, StoreError> {
        let topics = self.fetch(sqlx::query(OPEN_TOPICS)).await?;
        topics
            .iter()
            .map(|row| Ok((name(row, 0, "topic")?, number(row, 1)?)))
            .collect()
    }

    async fn open_groups(&self) -> Result<Vec<OpenGroup>, StoreError> {
        let groups = self.fetch(sqlx::query(OPEN_GROUPS)).await?;
        let group = |row: &PgRow| {
            Ok(OpenGroup {
                group: name(row, 0, "producer group")?,
                prepared: number(row, 1)?,
                parked: number(row, 2)?,
                oldest: ServerTime(number(row, 3)?),
            })
        };
        groups.iter().map(group).collect()
    }

    async fn open_of(
        &self,
        senders: &[Incarnation],
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let mut found = Vec::new();
        for sender in senders {
            let query = sqlx::query(OPEN_OF)
                .bind(Uuid::from_u128(sender.0))
                .bind(behind(after));
            found.extend(self.fetch_rows(query.bind(i64::from(limit))).await?);
        }
        found.sort_unstable_by_key(|row| row.half.position);
        found.dedup_by_key(|row| row.half.position);
        found.truncate(limit as usize);
        Ok(found)
    }

    async fn needed(
        &self,
        before: Position,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let query = sqlx::query(NEEDED).bind(bounded(before.0));
        self.fetch_rows(query.bind(behind(after)).bind(i64::from(limit)))
            .await
    }

    async fn decided_after(&self, after: u64, limit: u32) -> Result<Vec<Row>, StoreError> {
        let query = sqlx::query(DECIDED_AFTER);
        self.fetch_rows(query.bind(bounded(after)).bind(i64::from(limit)))
            .await
    }

    async fn forgotten(&self) -> Result<Forgotten, StoreError> {
        let query = sqlx::query("SELECT event, decisions FROM halfmoon.forgotten WHERE one = 1");
        let found = self.fetch(query).await?;
        let row = found.first().ok_or_else(|| {
            StoreError::Damaged("nothing says how far history is forgotten".into())
        })?;
        let wrong = |error: StoreError| error.of("the table forgotten");
        Ok(Forgotten {
            event: number(row, 0).map_err(wrong)?,
            decisions: number(row, 1).map_err(wrong)?,
        })
    }

    async fn events(&self, id: TransactionId) -> Result<Vec<Event>, StoreError> {
        let query = sqlx::query(EVENTS_OF).bind(Uuid::from_u128(id.0));
        let events = self.fetch(query.bind(MOST_EVENTS)).await?;
        events.iter().map(rows::event).collect()
    }

    async fn history(&self, from: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let query = sqlx::query(select_events!(
            "WHERE a.event >= $1 ORDER BY a.event LIMIT $2"
        ));
        let query = query.bind(first(from)).bind(i64::from(limit));
        let events = self.fetch(query).await?;
        events.iter().map(rows::event).collect()
    }

    async fn seals(&self, from: u64, limit: u32) -> Result<Vec<Seal>, StoreError> {
        let query = sqlx::query(
            "SELECT seq, first_event, count, published, wall_ms, hash, leaves FROM halfmoon.seal \
             WHERE seq >= $1 ORDER BY seq LIMIT $2",
        );
        let query = query.bind(first(from)).bind(i64::from(limit));
        let seals = self.fetch(query).await?;
        seals.iter().map(rows::seal).collect()
    }

    fn every_event(&self, from: u64, behind: u64) -> Pages<Event> {
        pages::every_event((&self.pool, &self.place), (first(from), bounded(behind)))
    }

    fn every_row(&self) -> Pages<Row> {
        pages::every_row((&self.pool, &self.place))
    }
}

/// The first number that is wanted. From 0 on everything is, also what was put below the first by hand.
fn first(number: u64) -> i64 {
    if number == 0 {
        i64::MIN
    } else {
        bounded(number)
    }
}

/// A bound of a range; nothing stored is above the largest.
fn bounded(number: u64) -> i64 {
    int(number.min(shape::MOST))
}

/// The last position that is not wanted.
fn behind(after: Option<Position>) -> i64 {
    after.map_or(i64::MIN, |position| bounded(position.0))
}
