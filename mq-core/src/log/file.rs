//! A [`Log`] of files in one folder.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::disk::Disk;
use super::files::{CHECKPOINT, Files};
use super::inbox::Inbox;
use super::open::{OpenError, Settings};
use super::queue_index::FlushError;
use super::recovery::{Known, Recovered, recover};
use super::retention::Retention;
use super::scan::{self, Scan};
use super::shared::{LastCheckpoint, Shared, Time};
use super::steps::Steps;
use super::thread::Threads;
use super::writer::Writer;
use super::{
    AppendError, Full, Log, LogId, OwnerId, Position, QueueEntry, QueueOffset, ReadError, Ready,
    Stored, Submission, lock,
};
use crate::clock::{Clock, ServerTime};
use crate::names::QueueId;
use crate::random::Random;
use crate::wire::record::RecordView;

/// A log of files. Dropping it closes it.
///
/// With [`Flush::Sync`](super::Flush::Sync) an acknowledged append survives the loss of power; with
/// [`Flush::Async`](super::Flush::Async) it survives the end of the process.
pub struct FileLog {
    shared: Arc<Shared>,
    threads: Option<Threads>,
}

impl fmt::Debug for FileLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileLog")
            .field("range", &self.range())
            .finish_non_exhaustive()
    }
}

/// Drives a log that has no threads, step by step, for tests and simulations.
#[derive(Debug)]
pub struct Driver {
    shared: Arc<Shared>,
    writer: Writer,
    submissions: Vec<Submission>,
}

impl FileLog {
    /// Opens the log in `disk`, recovering what is there or making a new one, and starts its two threads.
    ///
    /// Blocks while it reads: about as long as the log behind the last checkpoint takes.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed if it is [`OpenError::Damaged`].
    pub fn open(
        disk: Arc<dyn Disk>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<Self, OpenError> {
        let (mut log, driver) = Self::open_stepped(disk, settings, clock, random)?;
        let threads = Threads::start(&log.shared, driver.writer);
        let threads = threads.map_err(|error| OpenError::Io {
            file: "a thread".into(),
            what: error.to_string(),
        })?;
        log.threads = Some(threads);
        Ok(log)
    }

    /// As [`FileLog::open`], but nothing happens by itself: the driver does what the threads would do.
    ///
    /// # Errors
    /// As for [`FileLog::open`].
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<(Self, Driver), OpenError> {
        settings.check()?;
        let files = Arc::new(Files::new(disk));
        let recovered = recover(&files, &settings, random)?;
        let end = recovered.known.end;
        let shared = Arc::new(share(files, settings, clock, recovered));
        // Tells the next start that this life may have written behind the checkpoint.
        shared.checkpoint(false).map_err(|error| match error {
            FlushError::Write(error) | FlushError::Sync(error) => {
                OpenError::from_io(CHECKPOINT, &error)
            }
        })?;
        let writer = Writer::new(shared.clone(), end);
        let writer =
            writer.map_err(|error| OpenError::from_io("the log's last segment", &error))?;
        let driver = Driver {
            shared: shared.clone(),
            writer,
            submissions: Vec::new(),
        };
        Ok((
            Self {
                shared,
                threads: None,
            },
            driver,
        ))
    }

    /// Becomes the reason once the log is poisoned: a write or fsync has failed and nothing is acknowledged any more.
    /// Whoever owns the process should end it then; the next start recovers.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.failure.subscribe()
    }

    /// Writes what waits, makes it durable, and leaves a checkpoint with which the next start is instant. Blocks until
    /// that is done. Appends that come later get [`AppendError::Closed`]; reading goes on. Closing again does nothing.
    ///
    /// # Errors
    /// [`AppendError::Poisoned`] when the log is, [`AppendError::Full`] when there was no room for the checkpoint, which
    /// only makes the next start slower.
    pub fn close(&self) -> Result<(), AppendError> {
        let Some(threads) = &self.threads else {
            return Ok(());
        };
        if threads.stop(&self.shared) {
            finish(&self.shared)
        } else {
            Ok(())
        }
    }
}

/// Leaves the checkpoint of a closed log, once its writer has written everything.
fn finish(shared: &Shared) -> Result<(), AppendError> {
    if std::mem::replace(&mut *lock(&shared.finished), true) {
        return Ok(());
    }
    if let Some(reason) = shared.failure.borrow().clone() {
        return Err(AppendError::Poisoned(reason));
    }
    shared.checkpoint(true).map_err(|error| match error {
        FlushError::Write(error) => AppendError::Full(error.to_string()),
        FlushError::Sync(error) => AppendError::Poisoned(error.to_string()),
    })
}

fn share(
    files: Arc<Files>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    recovered: Recovered,
) -> Shared {
    let Recovered {
        codec,
        segments,
        queues,
        keys,
        known,
        bookmarks,
    } = recovered;
    let Known {
        end,
        life,
        at,
        stamps,
        owners,
        next_run,
    } = known;
    let begins = segments.first_batch();
    Shared {
        steps: Steps(settings.steps.clone()),
        files,
        codec,
        life,
        time: Time {
            base: at,
            opened: clock.monotonic(),
            clock,
        },
        inbox: Inbox::new(settings.waiting_appends, settings.waiting_bytes),
        settings,
        segments,
        queues,
        keys,
        visible: AtomicU64::new(end),
        publishing: Mutex::default(),
        stamped: stamps.clone(),
        stamps: Mutex::new(stamps),
        bookmarks: Mutex::new(bookmarks),
        owners: Mutex::new(owners),
        failure: watch::Sender::new(None),
        upkeep: Arc::default(),
        retention: Retention::new(begins),
        checkpoints: Mutex::new(LastCheckpoint {
            indexed_to: end,
            bookmarks: BTreeMap::new(),
            next_run,
        }),
        finished: Mutex::new(false),
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        // Whoever wants to know calls close.
        let _ = self.close();
    }
}

impl Driver {
    /// Writes everything that waits and answers what can be answered; `false` if nothing waited.
    pub fn turn(&mut self) -> bool {
        let any = self.shared.inbox.take(&mut self.submissions);
        self.writer.turn(&mut self.submissions);
        any
    }

    /// Makes everything that was written durable and visible.
    pub fn sync(&mut self) {
        self.writer.sync();
    }

    /// Prepares a segment, writes a checkpoint or deletes what is too old if that is due; `false` if nothing was.
    pub fn upkeep(&mut self) -> bool {
        let wanted = self.shared.upkeep.take();
        self.shared.do_upkeep(wanted);
        wanted.checkpoint || wanted.segment_at.is_some() || wanted.retention
    }

    /// Writes a checkpoint now.
    ///
    /// # Errors
    /// As for [`FileLog::close`].
    pub fn checkpoint(&mut self) -> Result<(), AppendError> {
        self.shared.checkpoint(false).map_err(|error| match error {
            FlushError::Write(error) => AppendError::Full(error.to_string()),
            FlushError::Sync(error) => AppendError::Poisoned(error.to_string()),
        })
    }

    /// As [`FileLog::close`].
    ///
    /// # Errors
    /// As for [`FileLog::close`].
    pub fn close(mut self) -> Result<(), AppendError> {
        self.shared.inbox.close();
        self.turn();
        self.sync();
        finish(&self.shared)
    }
}

impl Log for FileLog {
    fn id(&self) -> LogId {
        self.shared.codec.id()
    }

    fn append_max_bytes(&self) -> u64 {
        self.shared.settings.append_max_bytes()
    }

    fn range(&self) -> Range<Position> {
        Position(self.shared.segments.first_batch())..Position(self.shared.visible())
    }

    fn now(&self) -> ServerTime {
        self.shared.time.now()
    }

    fn append(&self, submission: Submission) -> Result<(), Full> {
        self.shared.inbox.push(submission)
    }

    fn ready(&self) -> Ready<'_> {
        self.shared.inbox.ready()
    }

    fn read(&self, at: Position) -> Result<Stored, ReadError> {
        scan::read(
            &self.shared.segments,
            &self.shared.codec,
            self.shared.visible(),
            at.0,
        )
    }

    fn find(&self, queue: &QueueId, offset: QueueOffset) -> Result<Position, ReadError> {
        let entries = self.entries(queue, offset, 1)?;
        let entry = entries.first();
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
        match self.shared.queues.get(queue) {
            Some(queue) => self.shared.queues.entries(&queue, from.0, most),
            None => Ok(Vec::new()),
        }
    }

    fn queue_range(&self, queue: &QueueId) -> Range<QueueOffset> {
        let queue = self.shared.queues.get(queue);
        let (kept, end) = queue.map_or((0, 0), |queue| (queue.kept(), queue.end()));
        QueueOffset(kept)..QueueOffset(end)
    }

    fn watch(&self, queue: &QueueId) -> watch::Receiver<QueueOffset> {
        self.shared.queues.get_or_make(queue).watch()
    }

    fn find_key(&self, topic: &str, key: &str, most: usize) -> Result<Vec<Position>, ReadError> {
        let mut found = Vec::new();
        if most == 0 {
            return Ok(found);
        }
        self.shared
            .keys
            .find(self.shared.keys.hash(topic, key), |position| {
                let stored = match self.read(Position(position)) {
                    Err(ReadError::Gone(_)) => return Ok(false),
                    stored => stored?,
                };
                let same = RecordView::parse(&stored.bytes)
                    .is_ok_and(|view| view.topic == topic && view.keys().any(|word| word == key));
                if same {
                    found.push(Position(position));
                }
                Ok(found.len() < most)
            })?;
        Ok(found)
    }

    fn scan(
        &self,
        from: Position,
    ) -> Result<Box<dyn Iterator<Item = Result<Stored, ReadError>> + Send + '_>, ReadError> {
        let scan = Scan::new(
            &self.shared.segments,
            &self.shared.codec,
            self.shared.visible(),
            from.0,
        )?;
        Ok(Box::new(scan))
    }

    fn stamp(&self, owner: OwnerId, number: u64) {
        lock(&self.shared.stamps).insert(owner, number);
    }

    fn stamped(&self, owner: OwnerId) -> u64 {
        self.shared.stamped.get(&owner).copied().unwrap_or(0)
    }

    fn set_bookmark(&self, owner: OwnerId, position: Position) {
        lock(&self.shared.bookmarks).insert(owner, position.0);
    }

    fn bookmark(&self, owner: OwnerId) -> Option<Position> {
        lock(&self.shared.bookmarks)
            .get(&owner)
            .copied()
            .map(Position)
    }

    fn keep_from(&self, owner: OwnerId, position: Position) {
        self.shared.keep_from(owner, position);
    }

    fn deleted(&self) -> Position {
        self.shared.retention.deleted()
    }

    fn wanted(&self) -> watch::Receiver<Position> {
        self.shared.retention.wanted()
    }
}

#[cfg(test)]
mod tests;
