//! A start: makes SQL and log agree before anyone is served. Doing it twice changes nothing more.
//!
//! Everything of ours behind the watermark is read from the log: half messages without a row get one, decisions whose final or
//! echo the log lacks are handed to it again, in decision order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mq_core::clock::Clock;
use mq_core::log::layout::SEGMENT_HEADER_BYTES;
use mq_core::log::{Log, Position, ReadError, Stored};
use mq_core::names::QueueId;
use mq_core::random::Random;
use mq_core::wire::record::RecordView;

use super::check_at::CheckAt;
use super::feed::{Durable, Feed};
use super::half;
use super::impostors;
use super::ledger::{Ledger, Now, Request, What};
use super::publish::{self, Decided, Final};
use super::settings::Settings;
use super::status::Status;
use crate::steps;
use crate::store::{
    CommitError, Filter, Half, Owner, REPAIR, Row, StoreError, TxReader, TxStore, TxWriter,
};
use crate::transaction::{Actor, State};

/// Why a coordinator cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The database and the log do not belong together, or one of them was restored to an older state.
    #[error("{0}")]
    Mismatch(String),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// What recovery has to write cannot be written.
    #[error("recovery cannot write: {0}")]
    Write(#[from] CommitError),
    /// A record of ours in the log makes no sense.
    #[error(transparent)]
    Record(#[from] half::NotAHalf),
    /// A setting has a value that cannot work.
    #[error("{0}")]
    Setting(String),
}

/// What recovery works with.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The log, recovered.
    pub log: &'a Arc<dyn Log>,
    /// The store.
    pub store: &'a Arc<dyn TxStore>,
    /// The wall clock of batches.
    pub clock: &'a Arc<dyn Clock>,
    /// Batch ids.
    pub random: &'a Arc<dyn Random>,
    /// Hears when the finals that are handed over again are durable.
    pub feed: &'a Arc<Feed>,
    /// Told when the log is gone.
    pub status: &'a Status,
    /// Settings.
    pub settings: &'a Settings,
    /// When an undecided transaction whose row is written now is due.
    pub check_at: &'a CheckAt,
}

/// What was found and done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Half messages that got their row.
    pub stored: usize,
    /// Decisions that were handed to the log again.
    pub published: usize,
}

/// Takes the store over and makes SQL and log agree.
///
/// # Errors
/// [`StartError`]; except for the epoch nothing that contradicts anything was written.
pub async fn recover(parts: &Parts<'_>) -> Result<(Box<dyn TxWriter>, Ledger, Found), StartError> {
    refuse_strangers(parts).await?;
    let (mut writer, owner) = parts.store.take_over(parts.log.id()).await?;
    let mut ledger = Ledger::new(owner, parts.settings.recorded_contradictions);
    let mut found = Found::default();
    let from = owner.watermark.max(parts.log.range().start);
    refuse_lost_beginning(&**parts.log, &owner)?;
    let (mut halves, mut in_log) = (Vec::new(), HashSet::new());
    let mut moved = HashMap::new();
    for stored in parts.log.scan(from)? {
        let stored = stored?;
        let Some(mark) = stored.mark.filter(|mark| mark.owner == half::OWNER) else {
            continue;
        };
        if mark.kind == half::HALF {
            halves.push(decode(&stored, parts.settings)?);
            continue;
        }
        if mark.kind == half::MOVED {
            moved.insert(Position(mark.number), stored.position);
            // Its row says so with the batch that writes what is missing.
            ledger.take_in(Durable::Known(stored.position));
            continue;
        }
        if mark.number > owner.last_decision {
            return Err(older_database(&format!(
                "the log has decision {} and the database ends with decision {}",
                mark.number, owner.last_decision
            )));
        }
        // Half messages that stand before a decision are known before it.
        found.stored += hold_missing(&mut ledger, &mut *writer, &mut halves).await?;
        ledger.take_in(Durable::Decision {
            position: stored.position,
            number: mark.number,
        });
        in_log.insert(mark.number);
    }
    found.stored += hold_missing(&mut ledger, &mut *writer, &mut halves).await?;
    steps::reach("recovery.replayed");
    let carried = (&in_log, &moved);
    write_missing(parts, &mut ledger, &mut *writer, carried).await?;
    steps::reach("recovery.stored");
    found.published = publish_missing(parts, &mut ledger).await?;
    steps::reach("recovery.published");
    parts.log.stamp(half::OWNER, ledger.owner().seq);
    Ok((writer, ledger, found))
}

async fn refuse_strangers(parts: &Parts<'_>) -> Result<(), StartError> {
    let log = parts.log;
    let reader = parts.store.reader();
    let stamped = log.stamped(half::OWNER);
    let Some(owner) = reader.owner().await? else {
        if stamped > 0 {
            return Err(older_database(&format!(
                "the database is empty and the log has seen its batch {stamped}"
            )));
        }
        return Ok(());
    };
    refuse_foreign(&**log, &owner)?;
    if owner.seq < stamped {
        return Err(older_database(&format!(
            "the log has seen the database's batch {stamped} and the database ends with batch {}",
            owner.seq
        )));
    }
    refuse_older_log(&**log, &*reader, &owner).await
}

/// Refuses a database that belongs to another log.
pub(super) fn refuse_foreign(log: &dyn Log, owner: &Owner) -> Result<(), StartError> {
    if owner.log == log.id() {
        return Ok(());
    }
    Err(StartError::Mismatch(format!(
        "the database belongs to log {:032x}, this is log {:032x}; put the right two together",
        owner.log.0,
        log.id().0
    )))
}

/// Refuses a database that lacks what stood in the part of the log that is deleted: nothing is deleted before the database
/// reflects it.
pub(super) fn refuse_lost_beginning(log: &dyn Log, owner: &Owner) -> Result<(), StartError> {
    let kept = log.range().start;
    let is_deleted = kept.0 > SEGMENT_HEADER_BYTES && owner.watermark < kept;
    // A log that had no coordinator so far has nothing that a database could lack.
    if is_deleted && (owner.watermark.0 > 0 || log.stamped(half::OWNER) > 0) {
        return Err(StartError::Mismatch(format!(
            "the database ends at position {} and the log begins at {kept}: what stood between is deleted; \
             restore a newer database",
            owner.watermark
        )));
    }
    Ok(())
}

/// Refuses a log that ends before something that the database refers to.
pub(super) async fn refuse_older_log(
    log: &dyn Log,
    reader: &dyn TxReader,
    owner: &Owner,
) -> Result<(), StartError> {
    let end = log.range().end;
    let behind = Filter {
        after: Some(Position(end.0.saturating_sub(1))),
        limit: 1,
        ..Filter::default()
    };
    // The row of a decision may stand behind the watermark.
    let row = reader.list(&behind).await?.pop();
    let known = owner
        .watermark
        .max(row.as_ref().map_or(Position(0), |row| row.half.position));
    if row.is_none() && known <= end {
        return Ok(());
    }
    Err(StartError::Mismatch(format!(
        "the log is older than the database: it ends at position {end} and the database knows position {known}; \
         restore the log that belongs to the database"
    )))
}

pub(super) fn older_database(what: &str) -> StartError {
    StartError::Mismatch(format!(
        "the database is older than the log: {what}; bring the newer database back, or run `{REPAIR}` to write what it lacks from the log (nothing was changed)"
    ))
}

pub(super) fn decode(
    stored: &Stored,
    settings: &Settings,
) -> Result<(Half, mq_core::clock::ServerTime), StartError> {
    let half::Decoded { half, immunity, .. } = half::read(stored)?;
    let first_check = half
        .prepared_at
        .after(settings.check_back.first_wait_of(half.marker, immunity));
    Ok((half, first_check))
}

/// Has the ledger hold those of `halves` that have no row.
async fn hold_missing(
    ledger: &mut Ledger,
    writer: &mut dyn TxWriter,
    halves: &mut Vec<(Half, mq_core::clock::ServerTime)>,
) -> Result<usize, StartError> {
    if halves.is_empty() {
        return Ok(0);
    }
    let positions: Vec<Position> = halves.iter().map(|(half, _)| half.position).collect();
    let mut known = Vec::with_capacity(positions.len());
    for some in positions.chunks(CHUNK) {
        known.extend(
            writer
                .rows(some)
                .await?
                .into_iter()
                .map(|row| row.half.position),
        );
    }
    known.sort_unstable();
    let before = ledger.held();
    for (half, first_check) in halves.drain(..) {
        let news = match known.binary_search(&half.position) {
            Ok(_) => Durable::Known(half.position),
            Err(_) => Durable::Half { half, first_check },
        };
        ledger.take_in(news);
    }
    Ok(ledger.held() - before)
}

/// Writes the rows that are held, takes back that a decision could not be published if its record is `in_log` after all, and
/// notes where half messages were `moved`.
async fn write_missing(
    parts: &Parts<'_>,
    ledger: &mut Ledger,
    writer: &mut dyn TxWriter,
    (in_log, moved): (&HashSet<u64>, &HashMap<Position, Position>),
) -> Result<(), StartError> {
    let (mut requests, mut rows) = (Vec::new(), HashMap::new());
    let from: Vec<Position> = moved.keys().copied().collect();
    for some in from.chunks(CHUNK) {
        for row in writer.rows(some).await? {
            let at = row.half.position;
            if let Some(to) = moved.get(&at).filter(|to| row.moved_to < Some(**to)) {
                requests.push(about(&row.half, What::Move { to: *to }, ""));
                rows.insert(at, row);
            }
        }
    }
    for half in ledger.held_halves() {
        if let Some(to) = moved.get(&half.position) {
            requests.push(about(half, What::Move { to: *to }, ""));
        }
    }
    requests.sort_unstable_by_key(|request| request.half.position);
    if !in_log.is_empty() {
        for row in denied(parts).await? {
            if let Some(decided) = row
                .decided
                .filter(|decided| in_log.contains(&decided.number))
            {
                let what = What::Unpublished {
                    number: decided.number,
                    reason: None,
                };
                requests.push(about(&row.half, what, "found in the log"));
                rows.entry(row.half.position).or_insert(row);
            }
        }
    }
    if requests.is_empty() && ledger.held() == 0 && !ledger.lags() {
        return Ok(());
    }
    let at = parts.log.now();
    let plan = |ledger: &Ledger| {
        let now = Now {
            at,
            wall_ms: parts.clock.wall_ms(),
            batch: parts.random.next_u128(),
        };
        ledger.plan(
            now,
            &requests,
            rows.clone(),
            Duration::ZERO,
            |half, asked| parts.check_at.of(half, asked),
        )
    };
    let mut planned = plan(ledger);
    if let Err(error) = writer.commit(&planned.batch).await {
        let refused = matches!(error, CommitError::Refused(_));
        let reader = parts.store.reader();
        if !refused || impostors::give_up(ledger, &*reader).await?.is_empty() {
            return Err(error.into());
        }
        planned = plan(ledger);
        writer.commit(&planned.batch).await?;
    }
    ledger.committed(&planned);
    Ok(())
}

/// What recovery says about a half message.
fn about(half: &Half, what: What, evidence: &str) -> Request {
    Request {
        half: half.clone(),
        what,
        actor: Actor::Recovery,
        source: "".into(),
        evidence: evidence.into(),
    }
}

/// All rows that say that they could not be published.
async fn denied(parts: &Parts<'_>) -> Result<Vec<Row>, StartError> {
    let (reader, mut all) = (parts.store.reader(), Vec::<Row>::new());
    loop {
        let filter = Filter {
            unpublished: true,
            after: all.last().map(|row| row.half.position),
            limit: CHUNK as u32,
            ..Filter::default()
        };
        let rows = reader.list(&filter).await?;
        if rows.is_empty() {
            return Ok(all);
        }
        all.extend(rows);
    }
}

/// Hands every decision to the log that is in SQL and not in the log, in decision order.
async fn publish_missing(parts: &Parts<'_>, ledger: &mut Ledger) -> Result<usize, StartError> {
    let reader = parts.store.reader();
    let (mut after, mut count) = (ledger.owner().published, 0);
    loop {
        let rows = reader.decided_after(after, CHUNK as u32).await?;
        if rows.is_empty() {
            return Ok(count);
        }
        let mut missing = Vec::new();
        for row in rows {
            if let Some(decided) = row.decided {
                // Numbers that a repair skipped, since their records never came into the log, are nobody's.
                (after + 1..decided.number).for_each(|number| ledger.publish(number));
                after = decided.number;
            }
            let Some(decided) = row
                .decided
                .filter(|decided| !ledger.is_published(decided.number))
            else {
                continue;
            };
            if row.unpublished.is_some() {
                ledger.publish(decided.number);
                continue;
            }
            missing.push(decided_from_log(parts.log, row, decided.number, false)?);
        }
        count += missing.len();
        publish::hand_over(parts.log, parts.feed, parts.status, missing).await;
    }
}

/// What to append for a row that is decided: reads the half message from the log.
///
/// # Errors
/// [`StartError`] when the half message is not there or is not one.
pub fn decided_from_log(
    log: &Arc<dyn Log>,
    row: Row,
    number: u64,
    again: bool,
) -> Result<Decided, StartError> {
    let copy = match row.state {
        State::Committed => Some(final_of(log, &row)?),
        State::RolledBack | State::Prepared | State::Parked => None,
    };
    Ok(Decided {
        half: row.half,
        number,
        copy,
        again,
    })
}

fn final_of(log: &Arc<dyn Log>, row: &Row) -> Result<Final, StartError> {
    let half = &row.half;
    let stored = half::kept(&**log, row)?;
    let wrong = |_| half::NotAHalf {
        position: half.position,
        why: "it is not a message record",
    };
    let view = RecordView::parse(&stored.bytes).map_err(wrong)?;
    let decoded = half::decode(&view, half.id)?;
    let queue = QueueId::new(decoded.half.topic, decoded.queue);
    let body = stored.bytes.slice_ref(view.body);
    Ok(Final::of(&view, body, half.position, queue))
}

/// Rows read or written at a time.
const CHUNK: usize = 500;
