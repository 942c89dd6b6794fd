//! Reading with connections of its own. Every statement ends after a bounded number of rows, so that none holds the
//! write-ahead log back for long.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use mq_core::clock::ServerTime;
use mq_core::log::Position;
use mq_core::names::{GroupName, TopicName};
use sqlx::Executor;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use tokio::sync::mpsc;

use super::encode::int;
use super::rows::{self, get, name, number, select_events, select_rows};
use super::{Options, pages, read_error};
use crate::audit::Event;
use crate::audit::seal::Seal;
use crate::store::{AHEAD, Filter, Forgotten, OpenGroup, Owner, Pages, Row, StoreError, TxReader};
use crate::transaction::{Incarnation, State, TransactionId};

/// A list looks at so many rows in one statement, and then goes on with another.
const WINDOW: i64 = 20_000;

/// Most events of one transaction that are read; the engine records far fewer.
const MOST_EVENTS: i64 = 10_000;

/// Open transactions, through the index that has only those: state, behind, group, topic, limit.
pub(super) const LIST_OPEN: &str = select_rows!(
    "WHERE t.half_pos IN (SELECT o.half_pos FROM tx AS o WHERE o.decision_no IS NULL \
             AND (o.check_at IS NULL) = (?1 = 3) AND o.half_pos > ?2 AND (?3 IS NULL OR o.grp = ?3) \
             AND (?4 IS NULL OR o.topic = ?4) ORDER BY o.half_pos LIMIT ?5) ORDER BY t.half_pos"
);

/// Transactions that could not be published: state, behind, group, topic, limit.
pub(super) const LIST_UNPUBLISHED: &str = select_rows!(
    "WHERE t.half_pos IN (SELECT w.half_pos FROM unpublished AS w JOIN tx AS o ON o.half_pos = w.half_pos \
             WHERE w.half_pos > ?2 AND (?1 IS NULL OR o.status = ?1) AND (?3 IS NULL OR o.grp = ?3) \
             AND (?4 IS NULL OR o.topic = ?4) ORDER BY w.half_pos LIMIT ?5) ORDER BY t.half_pos"
);

/// Any transactions between two positions: behind, last, state, group, topic, limit.
pub(super) const LIST_WINDOW: &str = select_rows!(
    "WHERE t.half_pos > ?1 AND t.half_pos <= ?2 AND (?3 IS NULL OR t.status = ?3) \
             AND (?4 IS NULL OR t.grp = ?4) AND (?5 IS NULL OR t.topic = ?5) ORDER BY t.half_pos LIMIT ?6"
);

/// What is due in a group: its name, now, behind (time, position), limit.
pub(super) const DUE: &str = select_rows!(
    "WHERE t.grp = (SELECT id FROM name WHERE text = ?1) AND t.decision_no IS NULL AND t.check_at <= ?2 \
             AND (t.check_at, t.half_pos) > (?3, ?4) ORDER BY t.check_at, t.half_pos LIMIT ?5"
);

/// How many transactions of each topic still need it.
pub(super) const OPEN_TOPICS: &str = "SELECT n.text, sum(o.open) FROM \
                   (SELECT topic, count(*) AS open FROM tx WHERE decision_no IS NULL GROUP BY topic UNION ALL \
                    SELECT t.topic, count(*) FROM unpublished AS u JOIN tx AS t USING (half_pos) GROUP BY t.topic) AS o \
                   LEFT JOIN name AS n ON n.id = o.topic GROUP BY o.topic ORDER BY n.text";

/// What is open in each group.
pub(super) const OPEN_GROUPS: &str = "SELECT n.text, o.prepared, o.parked, t.prepared_at FROM \
                   (SELECT grp, count(check_at) AS prepared, count(*) - count(check_at) AS parked, \
                    min(half_pos) AS oldest FROM tx WHERE decision_no IS NULL GROUP BY grp) AS o \
                   JOIN tx AS t ON t.half_pos = o.oldest LEFT JOIN name AS n ON n.id = o.grp ORDER BY n.text";

/// Which of these transactions are committed: their ids in hex, as JSON.
pub(super) const COMMITTED: &str = "SELECT t.id FROM json_each(?1) AS j JOIN tx AS t ON t.id = unhex(j.value) AND t.n = 0 \
WHERE t.status = 1";

/// Prepared transactions of one sender: its bytes, behind, limit.
pub(super) const OPEN_OF: &str = select_rows!(
    "WHERE t.sender = (SELECT id FROM identity WHERE bytes = ?) AND t.decision_no IS NULL \
             AND t.check_at IS NOT NULL AND t.half_pos > ? ORDER BY t.half_pos LIMIT ?"
);

/// Transactions whose half message is still needed and stands before a position: that, behind, limit.
pub(super) const NEEDED: &str = select_rows!(
    "WHERE t.half_pos IN (SELECT o.half_pos FROM tx AS o WHERE o.decision_no IS NULL AND o.half_pos > ?2 UNION ALL \
             SELECT w.half_pos FROM unpublished AS w WHERE w.half_pos > ?2 UNION ALL \
             SELECT d.half_pos FROM tx AS d WHERE d.decision_no > (SELECT published FROM owner) \
             AND d.half_pos > ?2) \
             AND coalesce(v.position, t.half_pos) < ?1 ORDER BY t.half_pos LIMIT ?3"
);

/// Decisions in their order: behind, limit.
pub(super) const DECIDED_AFTER: &str =
    select_rows!("WHERE t.decision_no > ? ORDER BY t.decision_no LIMIT ?");

/// The history of one transaction: its bytes, limit.
pub(super) const EVENTS_OF: &str = select_events!("WHERE a.tx = ? ORDER BY a.event LIMIT ?");

type Query = sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments>;

/// A reader. Clones of the pool share its connections.
#[derive(Debug)]
pub(super) struct Reader {
    pool: SqlitePool,
    path: Arc<Path>,
    options: Options,
}

/// A [`Filter`] whose names are numbers.
#[derive(Debug)]
struct Wanted {
    state: Option<State>,
    group: Option<i64>,
    topic: Option<i64>,
    limit: i64,
}

impl Reader {
    pub(super) fn new(pool: SqlitePool, path: &Path, options: Options) -> Self {
        Self {
            pool,
            path: path.into(),
            options,
        }
    }

    /// Has `read` read pages on a thread where it may block.
    fn pages<T: Send + 'static>(
        &self,
        read: impl FnOnce((&Path, Options), HandOn<'_, T>) -> Result<(), StoreError> + Send + 'static,
    ) -> Pages<T> {
        let (send, receive) = mpsc::channel(AHEAD);
        let (path, options) = (Arc::clone(&self.path), self.options);
        tokio::task::spawn_blocking(move || {
            let ended = read((&path, options), &mut |page| {
                send.blocking_send(Ok(page)).is_ok()
            });
            if let Err(error) = ended {
                // Who no longer listens does not miss it.
                let _ = send.blocking_send(Err(error));
            }
        });
        receive
    }

    async fn fetch(&self, query: Query) -> Result<Vec<SqliteRow>, StoreError> {
        self.pool
            .fetch_all(query)
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
    async fn name_id(&self, text: &str) -> Result<Option<i64>, StoreError> {
        let found = self
            .fetch(sqlx::query("SELECT id FROM name WHERE text = ?").bind(text.to_owned()))
            .await?;
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
            state: filter.state,
            group,
            topic,
            limit: i64::from(filter.limit),
        }))
    }

    /// Open transactions, through the index that has only those.
    async fn list_open(&self, wanted: &Wanted, after: i64) -> Result<Vec<Row>, StoreError> {
        let state = wanted.state.map(|state| i64::from(state.number()));
        let query = sqlx::query(LIST_OPEN).bind(state).bind(after);
        self.fetch_rows(
            query
                .bind(wanted.group)
                .bind(wanted.topic)
                .bind(wanted.limit),
        )
        .await
    }

    /// Transactions that could not be published, through the table that has only those.
    async fn list_unpublished(&self, wanted: &Wanted, after: i64) -> Result<Vec<Row>, StoreError> {
        let state = wanted.state.map(|state| i64::from(state.number()));
        let query = sqlx::query(LIST_UNPUBLISHED).bind(state).bind(after);
        self.fetch_rows(
            query
                .bind(wanted.group)
                .bind(wanted.topic)
                .bind(wanted.limit),
        )
        .await
    }

    /// Any transactions, window by window.
    async fn list_all(&self, wanted: &Wanted, mut after: i64) -> Result<Vec<Row>, StoreError> {
        let last_of_window = "SELECT max(half_pos) FROM \
                              (SELECT half_pos FROM tx WHERE half_pos > ? ORDER BY half_pos LIMIT ?)";
        let state = wanted.state.map(|state| i64::from(state.number()));
        let mut found = Vec::new();
        loop {
            let window = self
                .fetch(sqlx::query(last_of_window).bind(after).bind(WINDOW))
                .await?;
            let last: Option<i64> = window.first().map(|row| get(row, 0)).transpose()?.flatten();
            let left = wanted.limit - i64::try_from(found.len()).unwrap_or(i64::MAX);
            let (Some(last), true) = (last, left > 0) else {
                return Ok(found);
            };
            let query = sqlx::query(LIST_WINDOW).bind(after).bind(last).bind(state);
            found.extend(
                self.fetch_rows(query.bind(wanted.group).bind(wanted.topic).bind(left))
                    .await?,
            );
            after = last;
        }
    }
}

#[async_trait]
impl TxReader for Reader {
    async fn owner(&self) -> Result<Option<Owner>, StoreError> {
        let mut connection = self
            .pool
            .acquire()
            .await
            .map_err(|error| read_error(&error))?;
        rows::owner(&mut connection).await
    }

    async fn transaction(&self, id: TransactionId) -> Result<Option<Row>, StoreError> {
        let query = sqlx::query(select_rows!("WHERE t.id = ? AND t.n = 0 LIMIT 1"))
            .bind(id.to_bytes().to_vec());
        Ok(self.fetch_rows(query).await?.pop())
    }

    async fn committed(&self, ids: &[TransactionId]) -> Result<Vec<TransactionId>, StoreError> {
        let list: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
        let query = sqlx::query(COMMITTED).bind(format!("[{}]", list.join(",")));
        let found = self.fetch(query).await?;
        found.iter().map(rows::id).collect()
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Row>, StoreError> {
        let Some(wanted) = self.wanted(filter).await? else {
            return Ok(Vec::new());
        };
        let after = behind(filter.after);
        match filter.state {
            _ if filter.unpublished => self.list_unpublished(&wanted, after).await,
            Some(State::Prepared | State::Parked) => self.list_open(&wanted, after).await,
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
        let group = |row: &SqliteRow| {
            let (prepared, parked, oldest) = (
                number(row, 1)?,
                number(row, 2)?,
                ServerTime(number(row, 3)?),
            );
            Ok(OpenGroup {
                group: name(row, 0, "producer group")?,
                prepared,
                parked,
                oldest,
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
                .bind(sender.0.to_be_bytes().to_vec())
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
        let query = sqlx::query("SELECT event, decisions FROM forgotten WHERE one = 1");
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
        let query = sqlx::query(EVENTS_OF);
        self.fetch(query.bind(id.to_bytes().to_vec()).bind(MOST_EVENTS))
            .await?
            .iter()
            .map(rows::event)
            .collect()
    }

    async fn history(&self, from: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let query = sqlx::query(select_events!(
            "WHERE a.event >= ? ORDER BY a.event LIMIT ?"
        ));
        self.fetch(query.bind(first(from)).bind(i64::from(limit)))
            .await?
            .iter()
            .map(rows::event)
            .collect()
    }

    async fn seals(&self, from: u64, limit: u32) -> Result<Vec<Seal>, StoreError> {
        let query = sqlx::query(
            "SELECT seq, first_event, count, published, wall_ms, hash, leaves FROM seal WHERE seq >= ? ORDER BY seq LIMIT ?",
        );
        self.fetch(query.bind(first(from)).bind(i64::from(limit)))
            .await?
            .iter()
            .map(rows::seal)
            .collect()
    }

    fn every_event(&self, from: u64, behind: u64) -> Pages<Event> {
        let numbers = (first(from), bounded(behind));
        self.pages(move |place, hand_on| pages::every_event(place, numbers, hand_on))
    }

    fn every_row(&self) -> Pages<Row> {
        self.pages(pages::every_row)
    }
}

/// Takes a page; false once nobody wants more.
type HandOn<'a, T> = &'a mut dyn FnMut(Vec<T>) -> bool;

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
    int(number.min(crate::store::shape::MOST))
}

/// The last position that is not wanted.
fn behind(after: Option<Position>) -> i64 {
    after.map_or(i64::MIN, |position| bounded(position.0))
}
