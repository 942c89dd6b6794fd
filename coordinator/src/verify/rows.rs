//! Walking the transactions' rows, and the log beside them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::vec;

use mq_core::log::layout::SEGMENT_HEADER_BYTES;
use mq_core::log::reading::LogReader;
use mq_core::log::{Position, ReadError, Stored};
use tokio::sync::mpsc;

use super::{Finding, Progress, VerifyError};
use crate::audit::books::{Books, Mismatch};
use crate::audit::echo::{self, Echo, Recorded};
use crate::audit::{Event, Step};
use crate::engine::half;
use crate::store::{Half, Pages, Row, StoreError, TxReader};
use crate::transaction::TransactionId;

/// Records of the log handed over at once.
const RECORDS: usize = 256;
/// How many times as much may wait.
const WAITING: usize = 16;

/// All rows by their positions.
#[derive(Debug)]
pub(super) struct Rows {
    pages: Pages<Row>,
    page: vec::IntoIter<Row>,
    /// How many were given out.
    pub(super) count: u64,
}

impl Rows {
    pub(super) fn new(reader: &dyn TxReader) -> Self {
        Self {
            pages: reader.every_row(),
            page: Vec::new().into_iter(),
            count: 0,
        }
    }

    /// The next row, if its half message stands before `behind`.
    async fn before(&mut self, behind: Position) -> Result<Option<Row>, StoreError> {
        while self.page.len() == 0 {
            let Some(page) = self.pages.recv().await else {
                return Ok(None);
            };
            self.page = page?.into_iter();
        }
        let next = self.page.as_slice().first();
        if next.is_none_or(|row| row.half.position >= behind) {
            return Ok(None);
        }
        self.count += 1;
        Ok(self.page.next())
    }

    /// The next row.
    pub(super) async fn next(&mut self) -> Result<Option<Row>, StoreError> {
        self.before(Position(u64::MAX)).await
    }
}

/// What a record of the coordinator's tells.
enum Told {
    Half(Half),
    /// A half message that was carried forward.
    Moved {
        /// As it was where it stood first.
        half: Half,
        /// Where this copy stands.
        at: Position,
    },
    Decision(Recorded),
    /// Where the log ends.
    End(Position),
    /// A record that the coordinator cannot have written.
    Nonsense(Mismatch),
    Damaged(ReadError),
}

/// What the rows state, and where they differ from the log.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) stated: Books,
    pub(super) rows: u64,
    pub(super) found: Vec<Finding>,
}

/// Adds up what all rows state; with a log, compares each with what stands there. Before `watermark` the log has nothing
/// that no row tells of.
pub(super) async fn walk(
    reader: &Arc<dyn TxReader>,
    stated: Books,
    log: Option<&Arc<LogReader>>,
    watermark: Position,
    progress: &Arc<Progress>,
) -> Result<Walked, VerifyError> {
    let mut walk = Walk {
        rows: Rows::new(&**reader),
        reader: Arc::clone(reader),
        log: log.map(Arc::clone),
        stated,
        start: log.map_or(watermark, |log| begin(log)),
        watermark,
        end: Position(0),
        echo: Echo::default(),
        away: BTreeMap::new(),
        found: Vec::new(),
    };
    if let Some(log) = log {
        let mut told = told(log, watermark, progress);
        while let Some(chunk) = told.recv().await {
            for told in chunk? {
                walk.take(told).await?;
            }
        }
    }
    while let Some(row) = walk.rows.next().await? {
        walk.stated.state(&row);
    }
    walk.end().await
}

/// Where `log` begins; zero if nothing of it is deleted.
fn begin(log: &LogReader) -> Position {
    let start = log.start();
    if start.0 == SEGMENT_HEADER_BYTES {
        Position(0)
    } else {
        start
    }
}

struct Walk {
    reader: Arc<dyn TxReader>,
    log: Option<Arc<LogReader>>,
    rows: Rows,
    stated: Books,
    /// Where the log begins: what stood before is deleted. Zero for a log of which nothing is.
    start: Position,
    watermark: Position,
    /// Where it ends.
    end: Position,
    echo: Echo,
    /// Rows whose half messages are not, or not only, where they stood first.
    away: BTreeMap<Position, Away>,
    found: Vec<Finding>,
}

/// What a row says of a half message that was carried forward, or has to be.
struct Away {
    half: Half,
    /// Where its newest copy stands.
    to: Option<Position>,
    /// Whether somebody may still need it.
    is_needed: bool,
    /// Whether the log has that copy.
    is_there: bool,
}

impl Walk {
    async fn take(&mut self, told: Told) -> Result<(), VerifyError> {
        match told {
            Told::Half(half) => self.half(&half).await?,
            Told::Moved { half, at } => self.moved(half, at).await?,
            Told::Decision(recorded) => match self.echo.decision(&recorded) {
                Ok(true) => {}
                Ok(false) => self.unexpected(&recorded).await?,
                Err(mismatch) => self.found.push(mismatch.into()),
            },
            Told::End(end) => {
                self.end = end;
                while let Some(row) = self.rows.before(end).await? {
                    self.alone(&row);
                }
            }
            Told::Nonsense(mismatch) => self.found.push(mismatch.into()),
            Told::Damaged(error) => self.found.push(Finding::Log(error)),
        }
        Ok(())
    }

    async fn half(&mut self, half: &Half) -> Result<(), VerifyError> {
        while let Some(row) = self.rows.before(half.position).await? {
            self.alone(&row);
        }
        let here = Position(half.position.0 + 1);
        if let Some(row) = self.rows.before(here).await? {
            self.pass(&row);
            let mismatch = self.echo.half(half, &row);
            self.found.extend(mismatch.map(Finding::from));
            return Ok(());
        }
        if half.position >= self.watermark {
            // Its row is yet to be written, or was when these rows were read.
            return Ok(());
        }
        // Of two half messages with one id the second has no row: its sender broke the rules, and nobody else is to blame.
        let other = self.reader.transaction(half.id).await?;
        if other.is_none_or(|row| row.half.position >= self.watermark) {
            self.differs(
                half.id,
                "the log has its half message, and its row is missing",
            );
        }
        Ok(())
    }

    /// A copy of a half message that was carried forward.
    async fn moved(&mut self, mut half: Half, at: Position) -> Result<(), VerifyError> {
        let first = half.position;
        // Of those that stand where the log has them the rows have come by.
        let behind = Position(first.0 + 1).min(self.start.max(Position(1)));
        while let Some(row) = self.rows.before(behind).await? {
            self.alone(&row);
        }
        let Some(away) = self.away.get_mut(&first) else {
            let row = self.reader.transaction(half.id).await?;
            // Decided long ago, and forgotten.
            let Some(row) = row else { return Ok(()) };
            half.prepared_at = row.half.prepared_at;
            let what = if row.half.position == first {
                echo::differs(&half, &row.half)
            } else {
                let stated = row.half.position;
                Some(format!(
                    "its row says position {stated}, the log has a copy of the one at {first}"
                ))
            };
            if let Some(what) = what {
                self.differs(half.id, &what);
            }
            return Ok(());
        };
        half.prepared_at = away.half.prepared_at;
        away.is_there |= away.to == Some(at);
        let what = echo::differs(&half, &away.half);
        let to = away.to.unwrap_or(first);
        let lags = away.to.map_or(away.is_needed, |to| to < at);
        let is_older = lags && at < self.watermark;
        let older =
            || format!("its row says that it stands at {to}, the log has a later copy at {at}");
        if let Some(what) = what.or_else(|| is_older.then(older)) {
            self.differs(half.id, &what);
        }
        Ok(())
    }

    /// A row that came by.
    fn pass(&mut self, row: &Row) {
        self.stated.state(row);
        let is_needed = !row.state.is_decided() || row.unpublished.is_some();
        if row.moved_to.is_some() || is_needed && row.half.position < self.start {
            let away = Away {
                half: row.half.clone(),
                to: row.moved_to,
                is_needed,
                is_there: false,
            };
            self.away.insert(row.half.position, away);
        }
    }

    /// A row at whose position the log has no half message, or no longer.
    fn alone(&mut self, row: &Row) {
        self.pass(row);
        let position = row.half.position;
        if position >= self.start {
            let what =
                format!("its row says position {position}, where the log has no half message");
            self.differs(row.half.id, &what);
        }
    }

    /// The log has a decision, and no row that came by says so.
    async fn unexpected(&mut self, recorded: &Recorded) -> Result<(), VerifyError> {
        let row = self.reader.transaction(recorded.id).await?;
        let was_kept = recorded.half >= self.start;
        if row.is_none() && !was_kept {
            // Forgotten.
            return Ok(());
        }
        let (word, number) = (recorded.decision.state().word(), recorded.number);
        let what = match row.and_then(|row| Some((row.state, row.decided?))) {
            // That of a half message that is deleted.
            Some((state, decided))
                if !was_kept && (state.word(), decided.number) == (word, number) =>
            {
                return Ok(());
            }
            Some((state, decided))
                if was_kept && (state.word(), decided.number) == (word, number) =>
            {
                if recorded.position >= self.watermark {
                    // The row was read before it was decided.
                    return Ok(());
                }
                format!("the log has decision {number} twice")
            }
            Some((state, decided)) => format!(
                "its row says {} as decision {}, the log has {word} as decision {number}",
                state.word(),
                decided.number
            ),
            None => format!("its row says no decision, the log has {word} as decision {number}"),
        };
        self.differs(recorded.id, &what);
        Ok(())
    }

    /// What is wrong with where a row says that its half message stands, after all of the log came by.
    fn is_lost(&self, away: &Away) -> Option<String> {
        let is_there = away.is_there
            // Nobody needs it.
            || away.to.is_some_and(|to| to < self.start && !away.is_needed);
        match away.to {
            _ if is_there => None,
            Some(to) => Some(format!(
                "its row says that it was carried to {to}, where the log has no copy of it"
            )),
            None => Some(format!(
                "its row says position {}, the log begins at {}, and no copy is named",
                away.half.position, self.start
            )),
        }
    }

    fn differs(&mut self, transaction: TransactionId, what: &str) {
        let what = what.to_owned();
        self.found.push(Mismatch { transaction, what }.into());
    }

    async fn end(mut self) -> Result<Walked, VerifyError> {
        for mismatch in std::mem::take(&mut self.echo).unrecorded() {
            let events = self.reader.events(mismatch.transaction).await?;
            let was_late = |event: &Event| event.to == Step::Unpublished;
            if !events.iter().any(was_late) {
                self.found.push(mismatch.into());
            }
        }
        let mut away: Vec<Away> = std::mem::take(&mut self.away).into_values().collect();
        if let Some(log) = self.log.take() {
            let end = self.end;
            let look = tokio::task::spawn_blocking(move || {
                look_behind(&log, end, &mut away).map(|()| away)
            });
            let looked = look.await;
            away = looked.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        }
        for away in away {
            if let Some(what) = self.is_lost(&away) {
                self.differs(away.half.id, &what);
            }
        }
        Ok(Walked {
            stated: self.stated,
            rows: self.rows.count,
            found: self.found,
        })
    }
}

/// Looks for copies that are named behind `end`, as far as the log was read: they were written since, or are not there.
fn look_behind(log: &LogReader, end: Position, away: &mut [Away]) -> Result<(), ReadError> {
    let behind = |away: &Away| away.to.is_some_and(|to| to >= end);
    if !away.iter().any(behind) {
        return Ok(());
    }
    let now = log.again()?;
    for away in away.iter_mut().filter(|away| behind(away)) {
        if let Some(to) = away.to {
            away.is_there = has_copy(&now, &away.half, to)?;
        }
    }
    Ok(())
}

/// Whether a copy of `half` stands at `to`, or did before it was deleted.
pub(super) fn has_copy(log: &LogReader, half: &Half, to: Position) -> Result<bool, ReadError> {
    match log.read(to) {
        Ok(stored) => Ok(match tell(&stored) {
            Some(Told::Moved { half: copied, .. }) => {
                (copied.position, copied.id) == (half.position, half.id)
            }
            _ => false,
        }),
        Err(ReadError::Gone(_)) => Ok(true),
        Err(error @ ReadError::Io(_)) => Err(error),
        Err(_) => Ok(false),
    }
}

/// What the log tells, read on a thread of its own. It is known to be durable up to `durable`.
fn told(
    log: &Arc<LogReader>,
    durable: Position,
    progress: &Arc<Progress>,
) -> mpsc::Receiver<Result<Vec<Told>, VerifyError>> {
    let (send, receive) = mpsc::channel(WAITING);
    let (log, progress) = (Arc::clone(log), Arc::clone(progress));
    tokio::task::spawn_blocking(move || {
        let read = read(&log, durable, &progress, &mut |chunk| {
            send.blocking_send(Ok(chunk)).is_ok()
        });
        if let Err(error) = read {
            // Nobody listens any more: the walk has ended with an error of its own.
            let _ = send.blocking_send(Err(error.into()));
        }
    });
    receive
}

/// Reads the log and hands on what it tells for as long as `hand_on` wants more.
fn read(
    log: &LogReader,
    durable: Position,
    progress: &Progress,
    hand_on: &mut dyn FnMut(Vec<Told>) -> bool,
) -> Result<(), ReadError> {
    let mut chunk = Vec::with_capacity(RECORDS);
    let mut behind = log.start();
    for stored in log.scan(durable) {
        let told = match stored {
            Ok(stored) => {
                behind = stored.next;
                progress.read_to(behind);
                tell(&stored)
            }
            Err(error @ ReadError::Damaged { .. }) => Some(Told::Damaged(error)),
            Err(error) => return Err(error),
        };
        chunk.extend(told);
        if chunk.len() == RECORDS {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(RECORDS));
            if !hand_on(full) {
                return Ok(());
            }
        }
    }
    chunk.push(Told::End(behind));
    hand_on(chunk);
    Ok(())
}

/// What a record tells; `None` if it is not the coordinator's.
fn tell(stored: &Stored) -> Option<Told> {
    let mark = stored.mark.filter(|mark| mark.owner == half::OWNER)?;
    let id = TransactionId(mark.key);
    let told = if mark.kind == half::HALF {
        half::read(stored).map(|decoded| Told::Half(decoded.half))
    } else if mark.kind == half::MOVED {
        half::carried(stored).map(|half| Told::Moved {
            half,
            at: stored.position,
        })
    } else {
        half::recorded(stored).map(Told::Decision)
    };
    Some(told.unwrap_or_else(|error| {
        Told::Nonsense(Mismatch {
            transaction: id,
            what: error.to_string(),
        })
    }))
}

impl Progress {
    fn read_to(&self, position: Position) {
        self.read.store(position.0, Ordering::Relaxed);
    }
}
