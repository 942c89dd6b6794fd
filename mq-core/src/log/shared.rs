//! What the writer, the readers and the upkeep of one open log share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::checkpoint::Checkpoint;
use super::files::Files;
use super::inbox::Inbox;
use super::key_index::KeyIndex;
use super::layout::{Codec, SEGMENT_HEADER_BYTES};
use super::open::Settings;
use super::queue_index::{FlushError, QueueIndex};
use super::retention::Retention;
use super::segments::Segments;
use super::steps::Steps;
use super::{OwnerId, lock};
use crate::clock::{Clock, ServerTime};

/// One open log.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) steps: Steps,
    pub(super) files: Arc<Files>,
    pub(super) codec: Codec,
    pub(super) life: u64,
    pub(super) time: Time,
    pub(super) inbox: Inbox,
    pub(super) segments: Segments,
    pub(super) queues: QueueIndex,
    pub(super) keys: KeyIndex,
    /// Everything before it is durable and visible. Always the end of a batch.
    pub(super) visible: AtomicU64,
    /// Held while a batch becomes visible in all indexes, so that a checkpoint sees all of it or nothing.
    pub(super) publishing: Mutex<()>,
    pub(super) stamps: Mutex<BTreeMap<OwnerId, u64>>,
    /// The stamps that were durable when the log was opened.
    pub(super) stamped: BTreeMap<OwnerId, u64>,
    pub(super) bookmarks: Mutex<BTreeMap<OwnerId, u64>>,
    /// Who has ever marked a record.
    pub(super) owners: Mutex<BTreeSet<OwnerId>>,
    /// Why nothing is acknowledged any more.
    pub(super) failure: watch::Sender<Option<String>>,
    pub(super) upkeep: Arc<Upkeep>,
    pub(super) retention: Retention,
    pub(super) checkpoints: Mutex<LastCheckpoint>,
    /// Whether the checkpoint of a closed log is written.
    pub(super) finished: Mutex<bool>,
}

/// Server time of this life.
#[derive(Debug)]
pub(super) struct Time {
    pub(super) clock: Arc<dyn Clock>,
    /// Server time when the log was opened.
    pub(super) base: ServerTime,
    /// Monotonic time when the log was opened.
    pub(super) opened: Duration,
}

impl Time {
    pub(super) fn now(&self) -> ServerTime {
        self.base
            .after(self.clock.monotonic().saturating_sub(self.opened))
    }
}

/// What the last checkpoint has, and the next number for a key run.
#[derive(Debug)]
pub(super) struct LastCheckpoint {
    pub(super) indexed_to: u64,
    pub(super) bookmarks: BTreeMap<OwnerId, u64>,
    pub(super) next_run: u32,
}

/// What is to be done beside writing.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    /// Bytes of index entries that became visible since the last checkpoint began.
    index_bytes: AtomicUsize,
    /// Bytes of log since the last checkpoint began.
    log_bytes: AtomicU64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The segment that starts here is needed soon.
    pub(super) segment_at: Option<u64>,
    pub(super) checkpoint: bool,
    /// An owner wants less to be kept, or what must be noted before a deletion is.
    pub(super) retention: bool,
    pub(super) closed: bool,
}

impl Upkeep {
    pub(super) fn want_segment(&self, start: u64) {
        lock(&self.wanted).segment_at = Some(start);
        self.changed.notify_all();
    }

    pub(super) fn want_retention(&self) {
        lock(&self.wanted).retention = true;
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        lock(&self.wanted).closed = true;
        self.changed.notify_all();
    }

    /// Counts what became visible, and asks for a checkpoint once it is enough.
    pub(super) fn count(&self, settings: &Settings, index_bytes: usize, log_bytes: u64) {
        let index = self.index_bytes.fetch_add(index_bytes, Ordering::Relaxed) + index_bytes;
        let log = self.log_bytes.fetch_add(log_bytes, Ordering::Relaxed) + log_bytes;
        if index >= settings.index_bytes || log >= settings.checkpoint_bytes {
            let mut wanted = lock(&self.wanted);
            if !std::mem::replace(&mut wanted.checkpoint, true) {
                self.changed.notify_all();
            }
        }
    }

    /// Takes what is wanted now.
    pub(super) fn take(&self) -> Wanted {
        let mut wanted = lock(&self.wanted);
        let closed = wanted.closed;
        std::mem::replace(
            &mut wanted,
            Wanted {
                closed,
                ..Wanted::default()
            },
        )
    }

    /// Waits until something is wanted, at most for `at_most`, and takes it.
    pub(super) fn wait(&self, at_most: Duration) -> Wanted {
        let wanted = lock(&self.wanted);
        let nothing = |wanted: &mut Wanted| *wanted == Wanted::default();
        drop(
            self.changed
                .wait_timeout_while(wanted, at_most, nothing)
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.take()
    }
}

impl Shared {
    pub(super) fn visible(&self) -> u64 {
        self.visible.load(Ordering::Acquire)
    }

    /// Poisons the log: from now on nothing is acknowledged. The first reason stays.
    pub(super) fn fail(&self, reason: String) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(reason, "the log is poisoned");
                *failure = Some(reason);
            }
            first
        });
    }

    /// Writes a checkpoint of everything that is visible. With `closed`, the next start reads nothing behind it.
    ///
    /// A failed sync poisons the log; after any other error the same may be tried again.
    pub(super) fn checkpoint(&self, closed: bool) -> Result<(), FlushError> {
        let mut last = lock(&self.checkpoints);
        let (indexed_to, flushing) = {
            let _all_or_nothing = lock(&self.publishing);
            self.keys.begin_flush();
            self.upkeep.index_bytes.store(0, Ordering::Relaxed);
            self.upkeep.log_bytes.store(0, Ordering::Relaxed);
            (self.visible(), self.queues.begin_flush())
        };
        let made = self.make_checkpoint(&mut last, indexed_to, &flushing, closed);
        if let Err(FlushError::Sync(error)) = &made {
            self.fail(format!("a checkpoint could not be made durable: {error}"));
        }
        made
    }

    fn make_checkpoint(
        &self,
        last: &mut LastCheckpoint,
        indexed_to: u64,
        flushing: &[super::queue_index::Flushing],
        closed: bool,
    ) -> Result<(), FlushError> {
        let queues = self.queues.flush(flushing)?;
        let kept = self.segments.first_batch();
        let runs = self.keys.flush(&mut last.next_run, kept..indexed_to)?;
        let bookmarks = lock(&self.bookmarks).clone();
        let checkpoint = Checkpoint {
            id: self.codec.id(),
            closed,
            life: self.life,
            indexed_to,
            durable_end: self.visible(),
            at: self.time.now(),
            kept_from: kept - SEGMENT_HEADER_BYTES,
            next_run: last.next_run,
            queues,
            runs: runs.runs.clone(),
            stamps: lock(&self.stamps)
                .iter()
                .map(|(owner, number)| (*owner, *number))
                .collect(),
            bookmarks: bookmarks
                .iter()
                .map(|(owner, position)| (*owner, *position))
                .collect(),
            owners: lock(&self.owners).iter().copied().collect(),
        };
        checkpoint.store(&**self.files.disk(), &self.steps)?;
        self.queues.end_flush(flushing);
        self.keys.end_flush(runs);
        self.keys.remove_superseded();
        self.remove_condemned(kept);
        last.indexed_to = indexed_to;
        last.bookmarks = bookmarks;
        Ok(())
    }

    /// Whether a checkpoint made now would say anything new.
    pub(super) fn changed_since_checkpoint(&self) -> bool {
        let last = lock(&self.checkpoints);
        last.indexed_to != self.visible() || last.bookmarks != *lock(&self.bookmarks)
    }

    /// Does what is wanted beside writing.
    pub(super) fn do_upkeep(&self, wanted: Wanted) {
        if let Some(start) = wanted.segment_at
            && let Err(error) = self.segments.at_or_make(start)
        {
            // The writer will try for itself, and decide what it means.
            tracing::warn!(start, %error, "the next segment could not be made");
        }
        if wanted.checkpoint
            && self.failure.borrow().is_none()
            && let Err(FlushError::Write(error)) = self.checkpoint(false)
        {
            tracing::warn!(%error, "a checkpoint could not be written; it is tried again later");
        }
        self.retain();
    }
}
