//! The commit log: one sequence of records in the order they became durable, and the queues that point into it.
//!
//! A log holds *messages* (RocketMQ's V1 record, in a queue) and *notes* (small records of whoever owns them, in no
//! queue). Both may carry a [`Mark`], by which an owner finds its records again when it scans the log after a crash.
//!
//! Promises of every [`Log`], checked by [`conformance`]:
//!
//! - A record is visible (to [`Log::read`], [`Log::find`], [`Log::scan`], [`Log::watch`]) only once it is durable.
//! - Positions and queue offsets are never given twice, a crash included; queue offsets have no gaps.
//! - Records of one append stand together, in order; appends stand in the order they were accepted.
//! - After a failed write or fsync nothing is ever acknowledged again ([`AppendError::Poisoned`]); start again to recover.
//! - Nothing at or behind a position that an owner wants to be kept ([`Log::keep_from`]) is deleted, and nothing at all before
//!   every owner has said so since the log was opened. What is deleted is the log's beginning.

pub mod checkpoint;
pub mod conformance;
pub mod disk;
pub mod file;
mod files;
mod inbox;
mod key_index;
pub mod layout;
pub mod memory;
pub mod memory_disk;
pub mod open;
pub mod portions;
mod queue_ends;
mod queue_index;
pub mod reading;
mod recovery;
mod retention;
mod scan;
mod segments;
mod shared;
pub mod steps;
mod thread;
mod walk;
mod window;
mod writer;

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::clock::ServerTime;
use crate::names::QueueId;
pub use crate::places::{Position, QueueOffset};
use crate::wire::encoded::EncodedRecord;
use crate::wire::record::RecordView;

/// A random number given to a log when it is created; databases that belong to the log remember it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub u128);

/// Whose mark or note it is. 0 is the broker itself, 255 the log; an extension claims one of 1 to 254.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u8);

/// The broker's own notes: topics, groups, offsets.
pub const BROKER: OwnerId = OwnerId(0);

/// The log's own notes: where queues end of which it keeps no message any more.
pub const LOG: OwnerId = OwnerId(255);

/// What an owner writes beside a record, in the log's own record header, never on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Whose it is.
    pub owner: OwnerId,
    /// What it means to the owner.
    pub kind: u8,
    /// What it is about: an id of the owner's.
    pub key: u128,
    /// A number of the owner's, such as the order of decisions.
    pub number: u64,
}

/// One record to append.
#[derive(Debug, Clone)]
pub struct Append {
    /// The owner's mark. A note must have one.
    pub mark: Option<Mark>,
    /// Message or note.
    pub entry: Entry,
}

/// The bytes of a record to append.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A message for the queue named in the record.
    Message {
        /// The queue; the same as in `record`.
        queue: QueueId,
        /// What the queue index keeps beside the position: the hash of the tag, or whatever the queue's owner wants.
        tag_code: i64,
        /// A V1 record from [`crate::wire::record::NewRecord`]. The log sets queue offset, position, store time.
        record: EncodedRecord,
    },
    /// Bytes for the owner of the mark only.
    Note {
        /// At most [`NOTE_MAX_BYTES`].
        payload: Vec<u8>,
    },
}

impl Entry {
    /// Length in bytes of a message's record, or of a note's payload.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        match self {
            Self::Message { record, .. } => record.len(),
            Self::Note { payload } => payload.len(),
        }
    }
}

/// Most bytes of a note's payload: a note can carry a whole record.
pub const NOTE_MAX_BYTES: usize = crate::wire::record::BODY_MAX_BYTES + (64 << 10);

impl Append {
    /// Bytes that its record takes in a log.
    #[must_use]
    pub const fn stored_len(&self) -> u64 {
        layout::stored_len(self.entry.payload_len())
    }

    /// Checks what every log insists on: a message is one whole record of the queue it names, a note has an owner and a
    /// payload that is not too long.
    ///
    /// # Errors
    /// [`AppendError::Refused`] names the rule that is broken.
    pub fn check(&self) -> Result<(), AppendError> {
        self.checked().map(|_| ())
    }

    /// As [`Append::check`]; the view of a message's record.
    fn checked(&self) -> Result<Option<RecordView<'_>>, AppendError> {
        let refused = |what: String| Err(AppendError::Refused(what));
        match &self.entry {
            Entry::Note { .. } if self.mark.is_none() => refused("a note needs a mark".into()),
            Entry::Note { payload } if payload.len() > NOTE_MAX_BYTES => refused(format!(
                "a note has {} bytes; at most {NOTE_MAX_BYTES} are allowed",
                payload.len()
            )),
            Entry::Note { .. } => Ok(None),
            Entry::Message { queue, record, .. } => match record.view() {
                Err(error) => refused(error.to_string()),
                Ok(view) if view.topic != queue.topic.as_str() || view.queue != queue.queue => {
                    refused(format!(
                        "it names queue {}/{}, not {queue}",
                        view.topic, view.queue
                    ))
                }
                Ok(view) => Ok(Some(view)),
            },
        }
    }
}

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flush {
    /// Once it is durable.
    #[default]
    Sync,
    /// Once it is durable, as with `Sync`; but alone it waits for up to 1 ms for others to share their write and fsync. For
    /// records that nobody waits for.
    Along,
    /// Once it is written to the operating system; durable and visible at most 10 ms later. A power cut may lose it.
    Async,
}

/// Where one record of an append ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its position.
    pub position: Position,
    /// Its number in its queue; 0 for a note.
    pub queue_offset: QueueOffset,
    /// Server time of its batch.
    pub at: ServerTime,
    /// Wall clock of its batch, ms since 1970; the record's store time.
    pub store_ms: u64,
}

/// Why an append that was accepted is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The disk is full. Nothing of this append was written; later ones may succeed.
    #[error("the log's disk is full: {0}")]
    Full(String),
    /// The record is larger than a segment or not a record at all. Nothing of this append was written.
    #[error("the log refuses the record: {0}")]
    Refused(String),
    /// A write or fsync failed, now or before. Whether this append is durable is unknown until the log is opened again.
    #[error("the log is poisoned: {0}; stop and start again")]
    Poisoned(String),
    /// The log was closed before this append was written.
    #[error("the log is closed")]
    Closed,
}

/// The log's queue of appends is full; the append is handed back untouched.
pub struct Full(pub Submission);

impl fmt::Debug for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full")
    }
}

/// What to call once the fate of an append is known, with one [`Placed`] for each record.
///
/// Calls come one at a time, in log order, from the thread that drives the log: hand the news on and return.
pub type Then = Box<dyn FnOnce(Result<&[Placed], AppendError>) + Send>;

/// Records that stand together in the log, and whom to tell.
pub struct Submission {
    /// The records, at least one.
    pub entries: Vec<Append>,
    /// When to acknowledge.
    pub flush: Flush,
    /// Whom to tell.
    pub then: Then,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("entries", &self.entries.len())
            .field("flush", &self.flush)
            .finish_non_exhaustive()
    }
}

/// One durable record, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where it starts.
    pub position: Position,
    /// Where the next record may start; pass it to [`Log::scan`] to go on behind this one.
    pub next: Position,
    /// Server time of its batch.
    pub at: ServerTime,
    /// The owner's mark.
    pub mark: Option<Mark>,
    /// A message's V1 record, or a note's payload.
    pub bytes: Bytes,
    /// Whether `bytes` is a message.
    pub is_message: bool,
}

/// Why a position cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Retention has deleted it, or the queue has no such offset any more.
    #[error("position {0} is no longer kept")]
    Gone(Position),
    /// Nothing durable starts there.
    #[error("no record starts at position {0}")]
    NotARecord(Position),
    /// The queue has no message with that offset (yet).
    #[error("queue {queue} has no offset {offset}")]
    NoSuchOffset {
        /// The queue.
        queue: QueueId,
        /// The offset asked for.
        offset: QueueOffset,
    },
    /// What was durable is damaged.
    #[error("the log is damaged: {file} at byte {offset}: {what}")]
    Damaged {
        /// File name inside the log's folder.
        file: String,
        /// Byte in that file.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// The disk could not be read.
    #[error("the log cannot be read: {0}")]
    Io(String),
}

/// A run of messages of one queue, as a pull answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueEntry {
    /// The message's number in its queue.
    pub offset: QueueOffset,
    /// Where it is.
    pub position: Position,
    /// Length of its V1 record in bytes.
    pub size: u32,
    /// What its append said.
    pub tag_code: i64,
}

/// A commit log. See the module for the promises.
pub trait Log: fmt::Debug + Send + Sync + 'static {
    /// The log's identity, the same over all its lives.
    fn id(&self) -> LogId;

    /// Most bytes that the records of one append may have, each counted by [`layout::stored_len`] of its payload. A larger
    /// append is [`AppendError::Refused`], however much room there is.
    fn append_max_bytes(&self) -> u64;

    /// From the oldest kept position to the end of what is durable.
    fn range(&self) -> Range<Position>;

    /// Server time now: continues where the last durable batch or checkpoint of the previous life left it.
    fn now(&self) -> ServerTime;

    /// Hands records to the log's writer and returns at once. `then` is called exactly once, also when the log closes.
    ///
    /// # Errors
    /// [`Full`] when the bounded queue of appends has no room; `then` was not called.
    fn append(&self, submission: Submission) -> Result<(), Full>;

    /// Waits until [`Log::append`] may have room again.
    fn ready(&self) -> Ready<'_>;

    /// Reads the record that starts at `at`, and checks its checksum.
    ///
    /// # Errors
    /// [`ReadError`]; a position inside a record or behind the durable end is [`ReadError::NotARecord`].
    fn read(&self, at: Position) -> Result<Stored, ReadError>;

    /// The position of a message by its place in its queue.
    ///
    /// # Errors
    /// [`ReadError::Gone`] or [`ReadError::NoSuchOffset`].
    fn find(&self, queue: &QueueId, offset: QueueOffset) -> Result<Position, ReadError>;

    /// Up to `most` entries of a queue from `from` on, in order; empty at the end of the queue.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when `from` is older than the queue's first kept message.
    fn entries(
        &self,
        queue: &QueueId,
        from: QueueOffset,
        most: usize,
    ) -> Result<Vec<QueueEntry>, ReadError>;

    /// First kept and next offset of a queue; `0..0` for a queue nobody has written to.
    fn queue_range(&self, queue: &QueueId) -> Range<QueueOffset>;

    /// The end of a queue as a level: the value is the next offset, changed once per batch.
    fn watch(&self, queue: &QueueId) -> watch::Receiver<QueueOffset>;

    /// Positions of messages that carry `key` as `UNIQ_KEY` or as a word of `KEYS` in `topic`, newest first, at most `most`.
    /// Messages of topics that were excluded when the log was opened are not found.
    ///
    /// # Errors
    /// [`ReadError::Io`] or [`ReadError::Damaged`].
    fn find_key(&self, topic: &str, key: &str, most: usize) -> Result<Vec<Position>, ReadError>;

    /// Durable records in log order from `from` (a record's start, or the start of the log) up to the durable end at the
    /// time of the call.
    ///
    /// # Errors
    /// [`ReadError`] at the start; the iterator ends after the first error. Position 0 always means the start of the log.
    fn scan(
        &self,
        from: Position,
    ) -> Result<Box<dyn Iterator<Item = Result<Stored, ReadError>> + Send + '_>, ReadError>;

    /// Every batch written from now on carries `number` for `owner`: the last thing the owner has acknowledged elsewhere.
    fn stamp(&self, owner: OwnerId, number: u64);

    /// The highest number stamped for `owner` in any batch or checkpoint that was durable when the log was opened.
    fn stamped(&self, owner: OwnerId) -> u64;

    /// Remembers where `owner` wants to begin its next [`Log::scan`] after a restart, such as its last snapshot note.
    ///
    /// It becomes durable with the log's next checkpoint and on close, so a crash may bring back an older bookmark.
    /// `position` must be that of a durable record.
    fn set_bookmark(&self, owner: OwnerId, position: Position);

    /// The last bookmark of `owner` that is known; `None` if it never set one.
    fn bookmark(&self, owner: OwnerId) -> Option<Position>;

    /// Lets the log delete what stands before `position`, as far as `owner` is concerned. It holds until the log is closed;
    /// an earlier position than before changes nothing.
    fn keep_from(&self, owner: OwnerId, position: Position);

    /// What stood before this position is deleted for good: the log does not begin before it after a crash either. Behind the
    /// start of [`Log::range`] by what is being deleted, which may take long while the disk is full.
    fn deleted(&self) -> Position;

    /// What stands before this position is old enough, or more than there shall be: it is deleted as soon as every owner lets
    /// it. A level: whoever wants to keep something of it carries it forward and then calls [`Log::keep_from`].
    fn wanted(&self) -> watch::Receiver<Position>;
}

/// The future of [`Log::ready`], boxed so that the trait stays object-safe.
pub type Ready<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A log that can be shared.
pub type SharedLog = Arc<dyn Log>;

/// Locks. Everything under a lock in this module is changed in steps that cannot panic half-way, so what a panic elsewhere
/// leaves behind is sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
