//! What a batch must look like before a store touches it, and what it makes of the owner row. Pure.

use mq_core::clock::ServerTime;
use mq_core::log::{LogId, Position};

use super::{Batch, Change, CommitError, Fate, Owner, Row, SKIPPED, StoreError};
use crate::audit::fingerprint;
use crate::audit::seal::Hash;
use crate::transaction::State;

/// The largest number a store keeps: databases count in signed 64 bits.
pub(super) const MOST: u64 = i64::MAX as u64;

/// Checks that `batch` follows the owner row: numbers without gaps, nothing going back, everything within [`MOST`].
/// Returns the highest decision number after it.
///
/// # Errors
/// [`CommitError::Refused`] naming the first thing that does not fit.
pub(super) fn check(batch: &Batch, owner: &Owner) -> Result<u64, CommitError> {
    let seal = &batch.seal;
    let repairs = owner
        .seq
        .checked_add(SKIPPED)
        .is_some_and(|least| seal.seq >= least);
    if !repairs {
        follows("the seal's number", seal.seq, owner.seq.checked_add(1))?;
    }
    follows(
        "the seal's first event",
        seal.first_event,
        Some(owner.next_event),
    )?;
    follows(
        "the seal's count",
        u64::from(seal.count),
        u64::try_from(batch.events.len()).ok(),
    )?;
    for (event, expected) in batch.events.iter().zip(owner.next_event..) {
        follows("an event's number", event.number, Some(expected))?;
        let then = event.then_at.map_or(0, |at| at.0);
        let fingerprint = event.fingerprint.unwrap_or(0);
        within(&[
            ("an event's number", event.number),
            ("an event's time", event.at.0),
            ("an event's time", then),
            ("an event's fingerprint", fingerprint),
        ])?;
    }
    check_rows(&batch.new)?;
    check_changes(&batch.changes)?;
    let last_decision = last_decision(batch, owner.last_decision, repairs)?;
    if batch.watermark < owner.watermark {
        return Err(refused(format!(
            "the watermark goes back from {} to {}",
            owner.watermark, batch.watermark
        )));
    }
    if seal.published < owner.published || seal.published > last_decision {
        let allowed = format!("{} to {last_decision}", owner.published);
        return Err(refused(format!(
            "published is {}; it must be in {allowed}",
            seal.published
        )));
    }
    within(&[
        ("the watermark", batch.watermark.0),
        ("the wall clock", seal.wall_ms),
        ("the seal's number", seal.seq),
    ])?;
    Ok(last_decision)
}

/// The check time as stores keep it: a time beyond [`MOST`] means *never* and is kept as that.
pub(crate) fn check_time(at: ServerTime) -> ServerTime {
    ServerTime(at.0.min(MOST))
}

/// Why rows cannot be read, where connecting failed with `error`.
pub(super) fn of_reading(error: CommitError) -> StoreError {
    match error {
        CommitError::TakenOver | CommitError::Older(_) => StoreError::Foreign(error.to_string()),
        CommitError::Unknown(why) | CommitError::Refused(why) | CommitError::Unavailable(why) => {
            StoreError::Unavailable(why)
        }
    }
}

/// A number that was unsigned when it was stored.
pub(super) fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| {
        StoreError::Damaged(format!("{number} stands where no negative number can be"))
    })
}

/// A number that had 32 bits when it was stored.
pub(super) fn small(number: u64) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| {
        StoreError::Damaged(format!("{number} stands where no number above 2^32 can be"))
    })
}

/// A row of a table beside that of transactions that belongs to none.
pub(super) fn no_transaction(table: &str, position: Position) -> StoreError {
    StoreError::Damaged(format!(
        "the table {table} names position {position}, where no transaction is"
    ))
}

/// The refusal of a batch for `why`.
pub(super) fn refused(why: impl Into<String>) -> CommitError {
    CommitError::Refused(why.into())
}

impl Owner {
    /// The owner row of a store that has just been paired with `log` and has no writer yet.
    pub(crate) fn of(log: LogId) -> Self {
        Self {
            log,
            epoch: 0,
            link: 0,
            seq: 0,
            batch: 0,
            watermark: Position(0),
            published: 0,
            last_decision: 0,
            next_event: 1,
            head: Hash::default(),
            fingerprint: 0,
        }
        .signed()
    }

    /// The same with the fingerprint that it must have.
    pub(crate) fn signed(self) -> Self {
        Self {
            fingerprint: fingerprint::of_owner(&self),
            ..self
        }
    }

    /// The owner row once its writer, or another, has a new connection.
    #[cfg(feature = "postgres")]
    pub(super) fn linked(self) -> Self {
        Self {
            link: self.link + 1,
            ..self
        }
        .signed()
    }

    /// The owner row once another writer has taken the store over.
    pub(super) fn taken_over(self) -> Self {
        Self {
            epoch: self.epoch + 1,
            ..self
        }
        .signed()
    }

    /// Itself, if it belongs to `log`.
    pub(super) fn for_log(self, log: LogId) -> Result<Self, StoreError> {
        if self.log == log {
            return Ok(self);
        }
        let (ours, theirs) = (self.log.0, log.0);
        Err(StoreError::Foreign(format!(
            "the database belongs to log {ours:032x}, not to {theirs:032x}; give the data folder and the database that belong together"
        )))
    }

    /// The owner row once `batch` is committed.
    pub(super) fn after(self, batch: &Batch, last_decision: u64) -> Self {
        Self {
            seq: batch.seal.seq,
            batch: batch.id,
            watermark: batch.watermark,
            published: batch.seal.published,
            last_decision,
            next_event: batch.seal.first_event + u64::from(batch.seal.count),
            head: batch.seal.hash,
            ..self
        }
        .signed()
    }

    /// What became of the batch with id `batch` that a writer with this `epoch` sent after its batch `seq`.
    pub(super) fn fate_of(&self, batch: u128, epoch: u64, seq: u64) -> Result<Fate, CommitError> {
        self.not_older(epoch, seq)?;
        if self.epoch != epoch {
            Err(CommitError::TakenOver)
        } else if self.seq == seq {
            Ok(Fate::Redo)
        } else if self.batch == batch {
            Ok(Fate::Done)
        } else {
            Err(CommitError::TakenOver)
        }
    }
}

impl Owner {
    /// Refuses the owner row of a database that lacks what a writer of this `epoch` has committed up to its batch `seq`.
    pub(super) fn not_older(&self, epoch: u64, seq: u64) -> Result<(), CommitError> {
        if self.epoch > epoch || (self.epoch == epoch && self.seq >= seq) {
            return Ok(());
        }
        Err(CommitError::Older(format!(
            "it ends with batch {} of owner {}, and this process, owner {epoch}, has committed batch {seq}",
            self.seq, self.epoch
        )))
    }
}

fn check_rows(rows: &[Row]) -> Result<(), CommitError> {
    let mut before = None;
    for row in rows {
        let half = &row.half;
        if before.is_some_and(|before| before >= half.position) {
            return Err(refused(format!(
                "new rows are not in order of position at {}",
                half.position
            )));
        }
        before = Some(half.position);
        within(&[
            ("a position", half.position.0),
            ("a queue offset", half.queue_offset.0),
            ("a half message's time", half.prepared_at.0),
        ])?;
        let fits = row.state.is_decided() == row.decided.is_some()
            && (row.state == State::Prepared) == row.check_at.is_some()
            && (row.unpublished.is_none() || row.state == State::Committed)
            && row.moved_to.is_none();
        if !fits {
            let what = "decision, check time, reason or place do not fit its state";
            return Err(refused(format!(
                "transaction {}: {what} ({})",
                half.id,
                row.state.word()
            )));
        }
    }
    Ok(())
}

/// A row takes one change of each kind: which of two came first would differ from store to store.
fn check_changes(changes: &[(Position, Change)]) -> Result<(), CommitError> {
    let kind = |change: &Change| match change {
        Change::Decide { .. } | Change::Check { .. } | Change::Park { .. } => 0,
        Change::Count { .. } => 1,
        Change::Unpublished(_) => 2,
        Change::Move(_) => 3,
    };
    let mut seen: Vec<_> = changes
        .iter()
        .map(|(position, change)| (*position, kind(change)))
        .collect();
    for (position, change) in changes {
        if let Change::Move(to) = change {
            within(&[("a position", to.0)])?;
            if to <= position {
                return Err(refused(format!(
                    "the half message at position {position} cannot be moved to {to}, which is not behind it"
                )));
            }
        }
    }
    seen.sort_unstable();
    let again = seen
        .iter()
        .zip(seen.iter().skip(1))
        .find(|(one, next)| one == next);
    match again {
        Some(((position, _), _)) => Err(refused(format!(
            "position {position} is changed twice in the same way"
        ))),
        None => Ok(()),
    }
}

/// The highest decision number after `batch`, which must carry those behind `last`, without a gap unless it `repairs`.
fn last_decision(batch: &Batch, last: u64, repairs: bool) -> Result<u64, CommitError> {
    let mut count = 0;
    let mut highest = last;
    let of_rows = batch.new.iter().filter_map(|row| row.decided);
    let of_changes = batch.changes.iter().filter_map(|(_, change)| match change {
        Change::Decide { decided, .. } => Some(*decided),
        Change::Check { .. }
        | Change::Park { .. }
        | Change::Count { .. }
        | Change::Unpublished(_)
        | Change::Move(_) => None,
    });
    for decided in of_rows.chain(of_changes) {
        if decided.number <= last {
            return Err(refused(format!(
                "decision {} was given before; the last one is {last}",
                decided.number
            )));
        }
        within(&[
            ("a decision's number", decided.number),
            ("a decision's time", decided.at.0),
        ])?;
        highest = highest.max(decided.number);
        count += 1;
    }
    // Stores keep the numbers unique, so a highest number that equals the count leaves no gap.
    if !repairs && highest != last.saturating_add(count) {
        return Err(refused(format!(
            "{count} decisions after {last} must be numbered without gaps; found {highest}"
        )));
    }
    Ok(highest)
}

fn follows(what: &str, found: u64, expected: Option<u64>) -> Result<(), CommitError> {
    if Some(found) == expected {
        return Ok(());
    }
    let expected = expected.map_or_else(|| "nothing more".to_owned(), |number| number.to_string());
    Err(refused(format!("{what} is {found}; expected {expected}")))
}

fn within(numbers: &[(&str, u64)]) -> Result<(), CommitError> {
    match numbers.iter().find(|(_, number)| *number > MOST) {
        Some((what, number)) => Err(refused(format!(
            "{what} is {number}; at most {MOST} can be kept"
        ))),
        None => Ok(()),
    }
}
