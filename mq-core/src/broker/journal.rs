//! What the broker knows (topics, groups, offsets, delivered delays) and how the log keeps it: the shell around the pure
//! parts.
//!
//! A change is a note; it takes effect in memory when the note is durable, in log order. Consumer offsets alone are
//! changed in memory first and written a little later. A snapshot note bounds how far the next start reads back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::oneshot;

use super::acks::Acks;
use super::catalog::Catalog;
use super::notes::{self, Change, NoteError};
use super::offsets::Offsets;
use super::sending::waiting_queue;
use crate::log::{
    Append, AppendError, BROKER, Flush, Full, Log, Mark, Placed, Position, QueueOffset, ReadError,
    Stored, Submission,
};
use crate::random::Random;
use crate::wire::delays::LEVELS;

/// What the broker knows.
#[derive(Debug, Default)]
pub(crate) struct Known {
    catalog: RwLock<Catalog>,
    offsets: Mutex<Offsets>,
    /// The next offset to deliver of each delay level.
    delayed: Mutex<[u64; LEVELS]>,
    /// Position of the last note or delivered copy whose change is in memory.
    applied: AtomicU64,
}

/// Why the broker's own notes cannot be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// A note is not one that this version writes.
    #[error("the broker's note at position {position} cannot be used: {why}")]
    Note {
        /// Where it is.
        position: Position,
        /// What is wrong with it and what to do.
        why: String,
    },
}

impl Known {
    pub(crate) fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn offsets(&self) -> MutexGuard<'_, Offsets> {
        self.offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next offset to deliver of a delay level, 1 to 18.
    pub(crate) fn next_delayed(&self, level: u8) -> u64 {
        self.delayed()
            .get(usize::from(level).wrapping_sub(1))
            .copied()
            .unwrap_or(0)
    }

    fn catalog_mut(&self) -> RwLockWriteGuard<'_, Catalog> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn delayed(&self) -> MutexGuard<'_, [u64; LEVELS]> {
        self.delayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, change: Change) {
        match change {
            Change::Topic { config, begins } => self.catalog_mut().put_topic(config, begins),
            Change::TopicDeleted(topic) => {
                self.catalog_mut().remove_topic(&topic);
                self.offsets().forget_topic(&topic);
            }
            Change::Group(config) => self.catalog_mut().put_group(config),
            Change::GroupDeleted(group) => {
                self.catalog_mut().remove_group(&group);
                self.offsets().forget_group(&group);
            }
            Change::Subscribed {
                group,
                topic,
                starts,
            } => self.offsets().subscribe(&group, &topic, &starts),
            Change::Offset((group, topic, queue, offset)) => {
                self.offsets().set(&group, &topic, queue, offset)
            }
            Change::Delayed { level, next } => {
                if let Some(known) = self.delayed().get_mut(usize::from(level).wrapping_sub(1)) {
                    *known = next.max(*known);
                }
            }
        }
    }

    /// Everything, as changes that lead to it from nothing.
    fn snapshot(&self) -> Vec<Change> {
        let catalog = self.catalog();
        let topics = catalog.topics().map(|topic| Change::Topic {
            config: topic.config.clone(),
            begins: topic.begins.clone(),
        });
        let groups = catalog.groups().cloned().map(Change::Group);
        let mut changes: Vec<Change> = topics.chain(groups).collect();
        drop(catalog);
        for (group, topic, queues) in self.offsets().all() {
            let starts = queues
                .iter()
                .map(|(queue, offset)| (*queue, *offset))
                .collect();
            changes.push(Change::Subscribed {
                group: group.clone(),
                topic: topic.clone(),
                starts,
            });
        }
        for (level, next) in (1..).zip(*self.delayed()) {
            if next > 0 {
                changes.push(Change::Delayed { level, next });
            }
        }
        changes
    }
}

/// The broker's door to the log.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) known: Arc<Known>,
    /// Those who wait for the log.
    pub(crate) acks: Arc<Acks>,
    /// Where the last snapshot starts.
    snapshot_at: Arc<AtomicU64>,
    /// The next start reads the broker's records from here on.
    needed_from: Arc<AtomicU64>,
}

impl Journal {
    /// Restores what the log's notes say.
    pub(crate) fn restore(log: Arc<dyn Log>) -> Result<Self, RestoreError> {
        let known = Arc::new(Known::default());
        let bookmark = match log.bookmark(BROKER) {
            None => last_snapshot(&*log)?,
            bookmark => bookmark,
        };
        if let Some(bookmark) = bookmark {
            read_snapshot(&*log, bookmark, &known)?;
        }
        let applied = Position(known.applied.load(Ordering::Relaxed));
        let needed_from = applied.max(log.range().start).0;
        for stored in log.scan(applied.max(log.range().start))? {
            let stored = stored?;
            if stored.position > applied {
                replay(&stored, &known)?;
            }
        }
        known.offsets().clamp(|queue| log.queue_range(queue).end.0);
        let snapshot_at = Arc::new(AtomicU64::new(bookmark.unwrap_or(log.range().start).0));
        Ok(Self {
            log,
            known,
            acks: Arc::default(),
            snapshot_at,
            needed_from: Arc::new(AtomicU64::new(needed_from)),
        })
    }

    /// Appends records and waits until they are acknowledged; waits for room as long as it takes. Dropping the future
    /// does not take back what the log has accepted.
    pub(crate) async fn append(
        &self,
        entries: Vec<Append>,
        flush: Flush,
    ) -> Result<Vec<Placed>, AppendError> {
        self.append_then(entries, flush, |_| ()).await
    }

    /// Like [`Self::append`]; `then` is called in log order, before anything later is acknowledged.
    pub(crate) async fn append_then(
        &self,
        entries: Vec<Append>,
        flush: Flush,
        then: impl FnOnce(&[Placed]) + Send + 'static,
    ) -> Result<Vec<Placed>, AppendError> {
        let (tell, told) = oneshot::channel();
        let acks = Arc::clone(&self.acks);
        let then = Box::new(move |placed: Result<&[Placed], AppendError>| {
            let placed = placed.map(|placed| {
                then(placed);
                placed.to_vec()
            });
            acks.push(move || {
                // The waiter may have been dropped; the records stay.
                let _ = tell.send(placed);
            });
        });
        let submission = Submission {
            entries,
            flush,
            then,
        };
        self.hand_over(submission).await;
        told.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Hands records to the log; waits for room as long as it takes, and for nothing else.
    pub(crate) async fn hand_over(&self, mut submission: Submission) {
        while let Err(Full(back)) = self.log.append(submission) {
            submission = back;
            self.log.ready().await;
        }
    }

    /// Makes a change durable; it is in effect when this returns. Dropped, it may or may not take effect.
    pub(crate) async fn change(&self, change: Change) -> Result<(), AppendError> {
        let note = notes::of_changes(std::slice::from_ref(&change));
        let known = Arc::clone(&self.known);
        self.append_then(vec![note], Flush::Sync, move |placed| {
            known.apply(change);
            known.note_applied(placed);
        })
        .await?;
        Ok(())
    }

    /// Appends copies of delayed messages; each entry's mark says which.
    pub(crate) async fn deliver(&self, copies: Vec<Append>) -> Result<(), AppendError> {
        let changes: Vec<Change> = copies
            .iter()
            .filter_map(|copy| notes::read_delivered(copy.mark.as_ref()?))
            .collect();
        let known = Arc::clone(&self.known);
        self.append_then(copies, Flush::Sync, move |placed| {
            changes.into_iter().for_each(|change| known.apply(change));
            known.note_applied(placed);
        })
        .await?;
        Ok(())
    }

    /// Writes the consumer offsets that changed. What fails is kept for the next time.
    pub(crate) async fn write_offsets(&self, flush: Flush) -> Result<(), AppendError> {
        let most = notes::offsets_max(self.log.append_max_bytes());
        loop {
            let taken = self.known.offsets().take_unwritten(most);
            if taken.is_empty() {
                return Ok(());
            }
            let changes: Vec<Change> = taken.iter().cloned().map(Change::Offset).collect();
            // Memory may be ahead of this note by now, so it is not applied.
            let known = Arc::clone(&self.known);
            let written = self
                .append_then(vec![notes::of_changes(&changes)], flush, move |placed| {
                    known.note_applied(placed)
                })
                .await;
            if let Err(error) = written {
                self.known.offsets().put_back(taken);
                return Err(error);
            }
        }
    }

    /// Bytes of log behind the last snapshot.
    pub(crate) fn behind_snapshot(&self) -> u64 {
        self.log
            .range()
            .end
            .0
            .saturating_sub(self.snapshot_at.load(Ordering::Relaxed))
    }

    /// Whether a snapshot would save the next start anything.
    pub(crate) fn changed_since_snapshot(&self) -> bool {
        self.known.applied.load(Ordering::Acquire) > self.snapshot_at.load(Ordering::Relaxed)
    }

    /// Writes everything, and tells the log that the next start reads from here.
    pub(crate) async fn snapshot(&self, random: &dyn Random) -> Result<(), AppendError> {
        // Whoever waits for a note knows that everything before it is applied, whoever wrote it: the next start reads from
        // there. What is applied until the state is read is in the snapshot and is repeated without harm.
        let barrier = self
            .append(vec![notes::of_changes(&[])], Flush::Sync)
            .await?;
        let applied = barrier.first().map_or(0, |placed| placed.position.0);
        let mut first = None;
        let (changes, room) = (self.known.snapshot(), self.log.append_max_bytes());
        for note in notes::of_snapshot(random.next_u128(), applied, changes, room) {
            let placed = self.append(vec![note], Flush::Sync).await?;
            first = first.or(placed.first().map(|placed| placed.position));
        }
        if let Some(first) = first {
            self.log.set_bookmark(BROKER, first);
            self.snapshot_at.store(first.0, Ordering::Relaxed);
            self.needed_from.store(applied, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Lets the log delete what it wants to, but for what the next start reads and for delayed messages that wait. Writes a
    /// snapshot first if that sets more free.
    pub(crate) async fn let_go(&self, random: &dyn Random) -> Result<(), AppendError> {
        let wanted = *self.log.wanted().borrow();
        if wanted.0 > self.needed_from.load(Ordering::Relaxed) {
            self.snapshot(random).await?;
        }
        let mut kept = Position(self.needed_from.load(Ordering::Relaxed));
        for level in 1..=LEVELS as u8 {
            let waiting = waiting_queue(level);
            let next = QueueOffset(self.known.next_delayed(level));
            if next >= self.log.queue_range(&waiting).end {
                continue;
            }
            match self.log.find(&waiting, next) {
                Ok(position) => kept = kept.min(position),
                Err(error) => {
                    tracing::warn!(%error, level, "which delayed messages wait is not known; nothing is deleted");
                    return Ok(());
                }
            }
        }
        self.log.keep_from(BROKER, kept);
        Ok(())
    }
}

impl Known {
    fn note_applied(&self, placed: &[Placed]) {
        if let Some(last) = placed.last() {
            self.applied.fetch_max(last.position.0, Ordering::AcqRel);
        }
    }
}

/// Where the last snapshot begins that the log has as a whole; for a log that has lost its bookmark.
fn last_snapshot(log: &dyn Log) -> Result<Option<Position>, RestoreError> {
    let (mut last, mut begun) = (None, HashMap::new());
    for stored in log.scan(Position(0))? {
        let stored = stored?;
        let ours = |mark: &Mark| mark.owner == BROKER && mark.kind == notes::SNAPSHOT;
        let Some(mark) = stored.mark.filter(ours) else {
            continue;
        };
        let part = notes::read_snapshot(&stored.bytes).map_err(|error| RestoreError::Note {
            position: stored.position,
            why: error.to_string(),
        })?;
        let (first, seen) = begun.entry(mark.key).or_insert((stored.position, 0));
        *seen += 1;
        // A part that is missing at the beginning leaves too few.
        if *seen == part.parts {
            last = Some(*first);
        }
    }
    Ok(last)
}

fn read_snapshot(log: &dyn Log, at: Position, known: &Known) -> Result<(), RestoreError> {
    let unusable = |position, why: &dyn ToString| RestoreError::Note {
        position,
        why: why.to_string(),
    };
    let mut id = None;
    let (mut wanted, mut seen) = (1, 0);
    for stored in log.scan(at)? {
        let stored = stored?;
        let Some(mark) = stored
            .mark
            .filter(|mark| mark.owner == BROKER && mark.kind == notes::SNAPSHOT)
        else {
            continue;
        };
        if *id.get_or_insert(mark.key) != mark.key {
            continue;
        }
        let part =
            notes::read_snapshot(&stored.bytes).map_err(|e| unusable(stored.position, &e))?;
        part.changes
            .into_iter()
            .for_each(|change| known.apply(change));
        known.applied.store(part.applied, Ordering::Relaxed);
        (wanted, seen) = (part.parts, seen + 1);
        if seen == wanted {
            return Ok(());
        }
    }
    Err(unusable(
        at,
        &format!(
            "the snapshot that begins here has {seen} of {wanted} parts; the log is incomplete"
        ),
    ))
}

fn replay(stored: &Stored, known: &Known) -> Result<(), RestoreError> {
    let unusable = |why: &dyn ToString| RestoreError::Note {
        position: stored.position,
        why: why.to_string(),
    };
    let Some(mark) = stored.mark.filter(|mark| mark.owner == BROKER) else {
        return Ok(());
    };
    let changes = match mark.kind {
        notes::CHANGES => {
            notes::read_changes(&stored.bytes).map_err(|e: NoteError| unusable(&e))?
        }
        notes::SNAPSHOT => vec![],
        notes::DELIVERED => notes::read_delivered(&mark).into_iter().collect(),
        kind => {
            return Err(unusable(&format!(
                "its kind {kind} is not known; it was written by a newer version"
            )));
        }
    };
    changes.into_iter().for_each(|change| known.apply(change));
    known.applied.store(stored.position.0, Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::log::LogId;
    use crate::log::conformance;
    use crate::log::memory::MemoryLog;
    use crate::random::SeededRandom;

    /// Others fill the log without a note of the broker's; a start after that read all of it.
    #[tokio::test]
    async fn a_snapshot_spares_the_next_start_whatever_others_wrote() {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(LogId(1), Arc::new(ManualClock::new(0))));
        let journal = Journal::restore(Arc::clone(&log)).unwrap();
        let queue = conformance::queue("orders", 0);
        for _ in 0..100 {
            let message = conformance::message(&queue, b"body", &[]);
            journal.append(vec![message], Flush::Sync).await.unwrap();
        }
        let end = log.range().end;
        journal.snapshot(&SeededRandom::new(1)).await.unwrap();
        let known = Known::default();
        read_snapshot(&*log, log.bookmark(BROKER).unwrap(), &known).unwrap();
        assert!(known.applied.load(Ordering::Relaxed) >= end.0);
    }
}
