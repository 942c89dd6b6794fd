//! A [`Log`] in memory, for tests and for brokers that need not survive their process.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::{
    Append, AppendError, BROKER, Entry, Full, Log, LogId, OwnerId, Placed, Position, QueueEntry,
    QueueOffset, ReadError, Ready, Stored, Submission, lock,
};
use crate::clock::{Clock, ServerTime};
use crate::names::QueueId;
use crate::wire::record::{self, RecordView};

/// Where the first record starts; 0 is never a record.
const START: Position = Position(64);
/// What a record costs beside its bytes, so that positions look like those of a file.
const HEAD_BYTES: u64 = 64;
/// How many submissions wait while the log is held.
const WAITING_MAX: usize = 65_536;

/// A log whose records are durable at once, as long as the process lives.
///
/// `then` is called on the thread of some caller of [`Log::append`], one at a time, in order, and without a lock held:
/// it may append again. [`MemoryLog::hold`] lets a test look at the time between an append and its durability.
pub struct MemoryLog {
    id: LogId,
    clock: Arc<dyn Clock>,
    started: Duration,
    unindexed: Vec<String>,
    append_max: AtomicU64,
    state: Mutex<State>,
    room: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Submission>,
    /// Whether some thread is storing what waits.
    driven: bool,
    held: bool,
    fail_next: VecDeque<AppendError>,
    poisoned: Option<AppendError>,
    records: Vec<Stored>,
    queues: HashMap<QueueId, Queue>,
    keys: HashMap<(String, String), Vec<Position>>,
    stamps: BTreeMap<OwnerId, u64>,
    bookmarks: BTreeMap<OwnerId, Position>,
    /// Who has marked records.
    owners: BTreeSet<OwnerId>,
    keep: BTreeMap<OwnerId, Position>,
    wanted: watch::Sender<Position>,
}

struct Queue {
    /// Offset of the first kept message.
    kept: u64,
    entries: Vec<QueueEntry>,
    end: watch::Sender<QueueOffset>,
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLog")
            .field("range", &self.range())
            .finish_non_exhaustive()
    }
}

impl MemoryLog {
    /// An empty log with server time zero, whose `id` the caller chooses.
    #[must_use]
    pub fn new(id: LogId, clock: Arc<dyn Clock>) -> Self {
        let started = clock.monotonic();
        Self {
            id,
            clock,
            started,
            unindexed: Vec::new(),
            append_max: AtomicU64::new(u64::MAX),
            state: Mutex::default(),
            room: Notify::new(),
        }
    }

    /// Leaves the keys of messages in `topic` out of [`Log::find_key`].
    #[must_use]
    pub fn without_keys_of(mut self, topic: impl Into<String>) -> Self {
        self.unindexed.push(topic.into());
        self
    }

    /// From now on an append may have so many bytes; there is no limit before.
    pub fn limit_appends(&self, bytes: u64) {
        self.append_max.store(bytes, Ordering::Relaxed);
    }

    /// From now on appends wait, unacknowledged and invisible, until [`MemoryLog::release`].
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Stores what waits and goes on.
    pub fn release(&self) {
        self.state().held = false;
        self.drive();
    }

    /// The process dies and the log is opened again: what waits is lost, whoever waited for it learns nothing, and
    /// appends are stored again. Returns how many records were lost.
    pub fn crash(&self) -> usize {
        let mut state = self.state();
        state.held = false;
        let lost = std::mem::take(&mut state.waiting);
        drop(state);
        lost.iter().map(|submission| submission.entries.len()).sum()
    }

    /// What stands before `position` shall go, as far as the broker and all owners of marks let it.
    pub fn want(&self, position: Position) {
        let mut state = self.state();
        state.wanted.send_replace(position);
        state.trim();
    }

    /// The next append that is stored gets `error` instead. After [`AppendError::Poisoned`] every later one gets it too.
    pub fn fail_next(&self, error: AppendError) {
        self.state().fail_next.push_back(error);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Stores what waits, unless another thread (or a caller further up this one) is doing it.
    fn drive(&self) {
        let mut state = self.state();
        if state.driven {
            return;
        }
        state.driven = true;
        while !state.held {
            let Some(submission) = state.waiting.pop_front() else {
                break;
            };
            let bytes: u64 = submission.entries.iter().map(Append::stored_len).sum();
            let placed = if bytes > self.append_max_bytes() {
                Err(AppendError::Refused(format!("it has {bytes} bytes")))
            } else {
                let (at, wall_ms) = (self.now(), self.clock.wall_ms());
                state.store(submission.entries, at, wall_ms, &self.unindexed)
            };
            drop(state);
            self.room.notify_waiters();
            match placed {
                Ok(placed) => (submission.then)(Ok(&placed)),
                Err(error) => (submission.then)(Err(error)),
            }
            state = self.state();
        }
        state.driven = false;
    }
}

impl State {
    /// Deletes what is wanted and nobody keeps.
    fn trim(&mut self) {
        let wanted = *self.wanted.borrow();
        let of = |owner| self.keep.get(owner).copied().unwrap_or_default();
        let keep = self.owners.iter().map(of).min().unwrap_or_default();
        let from = wanted.min(keep).min(of(&BROKER));
        self.records
            .retain(|record| record.position >= from || record.next > from);
        let Some(first) = self.records.first().map(|record| record.position) else {
            return;
        };
        for queue in self.queues.values_mut() {
            let gone = queue
                .entries
                .partition_point(|entry| entry.position < first);
            queue.entries.drain(..gone);
            queue.kept += gone as u64;
        }
        for found in self.keys.values_mut() {
            found.retain(|position| *position >= first);
        }
    }

    fn start(&self) -> Position {
        self.records.first().map_or(START, |record| record.position)
    }

    fn store(
        &mut self,
        entries: Vec<Append>,
        at: ServerTime,
        store_ms: u64,
        unindexed: &[String],
    ) -> Result<Vec<Placed>, AppendError> {
        if let Some(poison) = &self.poisoned {
            return Err(poison.clone());
        }
        if let Some(error) = self.fail_next.pop_front() {
            if matches!(error, AppendError::Poisoned(_)) {
                self.poisoned = Some(error.clone());
            }
            return Err(error);
        }
        if entries.is_empty() {
            return Err(AppendError::Refused("it has no records".into()));
        }
        entries.iter().try_for_each(Append::check)?;
        Ok(entries
            .into_iter()
            .map(|entry| self.store_one(entry, at, store_ms, unindexed))
            .collect())
    }

    fn store_one(
        &mut self,
        append: Append,
        at: ServerTime,
        store_ms: u64,
        unindexed: &[String],
    ) -> Placed {
        let position = self.end();
        self.owners.extend(append.mark.map(|mark| mark.owner));
        let (bytes, queue_offset, is_message) = match append.entry {
            Entry::Note { payload } => (payload, QueueOffset(0), false),
            Entry::Message {
                queue,
                tag_code,
                record,
            } => {
                let queue = self.queue(&queue);
                let offset = QueueOffset(queue.next());
                let size = u32::try_from(record.len()).unwrap_or(u32::MAX);
                queue.entries.push(QueueEntry {
                    offset,
                    position,
                    size,
                    tag_code,
                });
                // Whoever wakes up waits for the lock, and so sees the record.
                queue.end.send_replace(QueueOffset(offset.0 + 1));
                let mut record = record.to_vec();
                record::place(&mut record, offset.0, position.0, store_ms);
                self.index_keys(&record, position, unindexed);
                (record, offset, true)
            }
        };
        let next = Position(position.0 + HEAD_BYTES + (bytes.len() as u64).next_multiple_of(8));
        self.records.push(Stored {
            position,
            next,
            at,
            mark: append.mark,
            bytes: Bytes::from(bytes),
            is_message,
        });
        Placed {
            position,
            queue_offset,
            at,
            store_ms,
        }
    }

    fn index_keys(&mut self, record: &[u8], position: Position, unindexed: &[String]) {
        let Ok(view) = RecordView::parse(record) else {
            return;
        };
        if unindexed.iter().any(|topic| topic == view.topic) {
            return;
        }
        for key in view.keys() {
            let found = self
                .keys
                .entry((view.topic.to_owned(), key.to_owned()))
                .or_default();
            if found.last() != Some(&position) {
                found.push(position);
            }
        }
    }

    fn queue(&mut self, queue: &QueueId) -> &mut Queue {
        self.queues.entry(queue.clone()).or_insert_with(|| Queue {
            kept: 0,
            entries: Vec::new(),
            end: watch::Sender::new(QueueOffset(0)),
        })
    }

    fn end(&self) -> Position {
        self.records.last().map_or(START, |record| record.next)
    }
}

impl Log for MemoryLog {
    fn id(&self) -> LogId {
        self.id
    }

    fn append_max_bytes(&self) -> u64 {
        self.append_max.load(Ordering::Relaxed)
    }

    fn range(&self) -> Range<Position> {
        let state = self.state();
        state.start()..state.end()
    }

    fn now(&self) -> ServerTime {
        ServerTime::default().after(self.clock.monotonic().saturating_sub(self.started))
    }

    fn append(&self, submission: Submission) -> Result<(), Full> {
        let mut state = self.state();
        if state.waiting.len() >= WAITING_MAX {
            return Err(Full(submission));
        }
        state.waiting.push_back(submission);
        drop(state);
        self.drive();
        Ok(())
    }

    fn ready(&self) -> Ready<'_> {
        Box::pin(async {
            loop {
                let room = self.room.notified();
                if self.state().waiting.len() < WAITING_MAX {
                    return;
                }
                room.await;
            }
        })
    }

    fn read(&self, at: Position) -> Result<Stored, ReadError> {
        let state = self.state();
        let found = state
            .records
            .binary_search_by_key(&at, |record| record.position);
        found
            .ok()
            .and_then(|i| state.records.get(i).cloned())
            .ok_or_else(|| {
                if at < state.start() && at >= START {
                    ReadError::Gone(at)
                } else {
                    ReadError::NotARecord(at)
                }
            })
    }

    fn find(&self, queue: &QueueId, offset: QueueOffset) -> Result<Position, ReadError> {
        let state = self.state();
        let found = state.queues.get(queue);
        let entries = found
            .map(|found| found.entries_from(offset.0))
            .transpose()?;
        let entry = entries.and_then(<[QueueEntry]>::first);
        entry
            .map(|entry| entry.position)
            .ok_or_else(|| ReadError::NoSuchOffset {
                queue: queue.clone(),
                offset,
            })
    }

    fn entries(
        &self,
        queue: &QueueId,
        from: QueueOffset,
        most: usize,
    ) -> Result<Vec<QueueEntry>, ReadError> {
        let state = self.state();
        let found = state.queues.get(queue);
        let entries = found.map(|found| found.entries_from(from.0)).transpose()?;
        let entries = entries.unwrap_or_default();
        Ok(entries.iter().take(most).cloned().collect())
    }

    fn queue_range(&self, queue: &QueueId) -> Range<QueueOffset> {
        let state = self.state();
        let queue = state.queues.get(queue);
        let (kept, end) = queue.map_or((0, 0), |queue| (queue.kept, queue.next()));
        QueueOffset(kept)..QueueOffset(end)
    }

    fn watch(&self, queue: &QueueId) -> watch::Receiver<QueueOffset> {
        self.state().queue(queue).end.subscribe()
    }

    fn find_key(&self, topic: &str, key: &str, most: usize) -> Result<Vec<Position>, ReadError> {
        let state = self.state();
        let found = state.keys.get(&(topic.to_owned(), key.to_owned()));
        Ok(found.map_or_else(Vec::new, |found| {
            found.iter().rev().take(most).copied().collect()
        }))
    }

    fn scan(
        &self,
        from: Position,
    ) -> Result<Box<dyn Iterator<Item = Result<Stored, ReadError>> + Send + '_>, ReadError> {
        let state = self.state();
        if from < state.start() && from >= START {
            return Err(ReadError::Gone(from));
        }
        let first = state
            .records
            .partition_point(|record| record.position < from);
        let starts_there = state.records.get(first).map(|record| record.position) == Some(from);
        if !starts_there && from != state.end() && from > START {
            return Err(ReadError::NotARecord(from));
        }
        let found: Vec<_> = state.records.iter().skip(first).cloned().collect();
        Ok(Box::new(found.into_iter().map(Ok)))
    }

    fn stamp(&self, owner: OwnerId, number: u64) {
        self.state().stamps.insert(owner, number);
    }

    fn stamped(&self, owner: OwnerId) -> u64 {
        self.state().stamps.get(&owner).copied().unwrap_or(0)
    }

    fn set_bookmark(&self, owner: OwnerId, position: Position) {
        self.state().bookmarks.insert(owner, position);
    }

    fn bookmark(&self, owner: OwnerId) -> Option<Position> {
        self.state().bookmarks.get(&owner).copied()
    }

    fn keep_from(&self, owner: OwnerId, position: Position) {
        let mut state = self.state();
        let kept = state.keep.entry(owner).or_default();
        *kept = position.max(*kept);
        state.trim();
    }

    fn deleted(&self) -> Position {
        self.range().start
    }

    fn wanted(&self) -> watch::Receiver<Position> {
        self.state().wanted.subscribe()
    }
}

impl Queue {
    fn next(&self) -> u64 {
        self.kept + self.entries.len() as u64
    }

    fn entries_from(&self, from: u64) -> Result<&[QueueEntry], ReadError> {
        let Some(skip) = from.checked_sub(self.kept) else {
            return Err(ReadError::Gone(Position(0)));
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Ok(self.entries.get(skip..).unwrap_or_default())
    }
}

impl Drop for MemoryLog {
    fn drop(&mut self) {
        for submission in std::mem::take(&mut self.state().waiting) {
            (submission.then)(Err(AppendError::Closed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::log::Flush;
    use crate::log::conformance::{self, append, message, note, queue, submit};

    fn log() -> MemoryLog {
        MemoryLog::new(LogId(1), Arc::new(ManualClock::new(0)))
    }

    #[test]
    fn it_keeps_the_promises_of_a_log() {
        for most in [u64::MAX, 64 << 10] {
            conformance::all(|clock| {
                let log = MemoryLog::new(LogId(1), clock).without_keys_of(conformance::UNINDEXED);
                log.limit_appends(most);
                Arc::new(log)
            });
        }
    }

    #[test]
    fn what_is_held_is_invisible_until_it_is_released() {
        let log = log();
        log.hold();
        let queue = queue("t", 0);
        let answer = submit(&log, vec![message(&queue, b"", &[])], Flush::Sync);
        assert!(answer.try_recv().is_err());
        assert_eq!(log.queue_range(&queue), QueueOffset(0)..QueueOffset(0));
        log.release();
        assert!(answer.recv().unwrap().is_ok());
        assert_eq!(log.queue_range(&queue), QueueOffset(0)..QueueOffset(1));
    }

    #[test]
    fn a_full_disk_passes_but_poison_stays() {
        let log = log();
        let try_one = || append(&log, vec![note(BROKER, b"")], Flush::Sync);
        log.fail_next(AppendError::Full("as told".into()));
        assert_eq!(try_one(), Err(AppendError::Full("as told".into())));
        assert!(try_one().is_ok());
        log.fail_next(AppendError::Poisoned("as told".into()));
        assert!(try_one().is_err());
        assert_eq!(try_one(), Err(AppendError::Poisoned("as told".into())));
    }

    #[test]
    fn a_full_queue_hands_the_append_back() {
        let log = log();
        log.hold();
        for _ in 0..WAITING_MAX {
            drop(submit(&log, vec![note(BROKER, b"")], Flush::Sync));
        }
        let submission = Submission {
            entries: vec![note(BROKER, b"last")],
            flush: Flush::Sync,
            then: Box::new(|_| ()),
        };
        let Err(Full(back)) = log.append(submission) else {
            panic!("the queue is full")
        };
        assert_eq!(back.entries.len(), 1);
        log.release();
        assert!(log.append(back).is_ok());
    }
}
