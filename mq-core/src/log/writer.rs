//! The writer: turns waiting appends into batches, makes them durable, publishes and acknowledges them.
//!
//! A state machine without a thread and without waiting: [`Writer::turn`] is given appends and does everything that can
//! be done with them now. One thread drives it in production, a test or a simulation step by step.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::disk::File;
use super::key_index::{KEY_BYTES, Key};
use super::layout::{BATCH_HEADER_BYTES, BatchHeader, RecordHeader};
use super::open::is_full;
use super::queue_index::{ENTRY_MEMORY_BYTES, Entry as IndexEntry, Queue};
use super::segments::Segment;
use super::shared::Shared;
use super::{
    Append, AppendError, BROKER, Entry, Flush, LOG, OwnerId, Placed, Position, QueueOffset,
    Submission, Then, lock, steps,
};
use crate::clock::ServerTime;
use crate::names::QueueId;
use crate::wire::encoded::EncodedRecord;
use crate::wire::record;

/// After the disk was found full, appends that need a new segment are refused at once for this long.
const FULL_FOR: Duration = Duration::from_secs(1);

/// Bytes of a page of the page cache.
const PAGE_BYTES: u64 = 4 << 10;

/// The next segment is made ready once this part (one over it) of a segment is in use: early, because writing it takes about
/// as long as filling one at full speed, but not at once, because a small log shall stay small.
const PREPARE_AT: u64 = 8;

/// The only one that appends to a log.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    segment: Segment,
    file: Arc<dyn File>,
    /// Where the next batch goes.
    end: u64,
    /// The batch that is gathered: its header's place, then records. Empty when none is begun.
    buffer: Vec<u8>,
    batch: Batch,
    by_id: HashMap<QueueId, usize>,
    queues: Vec<OpenQueue>,
    /// Indexes of the queues that have unpublished entries.
    touched: Vec<usize>,
    keys: Vec<Key>,
    /// Since when written batches wait for their sync.
    unsynced_since: Option<Duration>,
    /// Until when the disk counts as full, and what it said.
    full: Option<(Duration, String)>,
    /// The owners whose marks this writer has met.
    owners: Vec<OwnerId>,
}

/// What belongs to the batch that is gathered.
#[derive(Debug, Default)]
struct Batch {
    at: ServerTime,
    wall_ms: u64,
    records: u32,
    stamps: Vec<(OwnerId, u64)>,
    sync: bool,
    placed: Vec<Placed>,
    answers: Vec<Answer>,
}

/// An append whose fate is known as soon as its batch's is.
struct Answer {
    then: Then,
    /// How many records it has, or why it has none.
    outcome: Result<usize, AppendError>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

/// A queue as the writer sees it: ahead of what is visible.
#[derive(Debug)]
struct OpenQueue {
    queue: Arc<Queue>,
    next: u64,
    pending: Vec<IndexEntry>,
    keys_indexed: bool,
}

impl Writer {
    /// A writer that goes on at `end`, the end of the last valid batch.
    ///
    /// # Errors
    /// When the segment cannot be opened.
    pub(super) fn new(shared: Arc<Shared>, end: u64) -> io::Result<Self> {
        let segments = &shared.segments;
        let segment = segments
            .of(end)
            .or_else(|| segments.of(end.saturating_sub(1)));
        let segment =
            segment.ok_or_else(|| io::Error::other("the log's last segment is missing"))?;
        let file = segments.file(segment)?;
        Ok(Self {
            shared,
            segment,
            file,
            end,
            buffer: Vec::new(),
            batch: Batch::default(),
            by_id: HashMap::new(),
            queues: Vec::new(),
            touched: Vec::new(),
            keys: Vec::new(),
            unsynced_since: None,
            full: None,
            owners: Vec::new(),
        })
    }

    /// Appends everything in `submissions` and answers as far as that is possible now, in order.
    pub(super) fn turn(&mut self, submissions: &mut Vec<Submission>) {
        if let Some(poison) = self.failed() {
            submissions
                .drain(..)
                .for_each(|submission| (submission.then)(Err(poison.clone())));
            return;
        }
        for submission in submissions.drain(..) {
            self.add(submission);
        }
        self.finish_batch();
        let due = self
            .unsynced_for()
            .is_some_and(|passed| passed >= self.shared.settings.sync_after);
        if due {
            self.sync();
        }
    }

    /// How long written batches have been waiting for their sync; `None` if none is.
    pub(super) fn unsynced_for(&self) -> Option<Duration> {
        self.unsynced_since
            .map(|since| self.shared.time.clock.monotonic().saturating_sub(since))
    }

    /// Makes everything that was written durable, and visible.
    pub(super) fn sync(&mut self) {
        if self.unsynced_since.is_none() || self.failed().is_some() {
            return;
        }
        if let Err(error) = self.file.sync() {
            self.shared
                .fail(format!("fsync of {} failed: {error}", self.segment.name()));
            return;
        }
        self.shared.steps.at(steps::SYNCED);
        self.unsynced_since = None;
        self.publish();
    }

    fn failed(&self) -> Option<AppendError> {
        self.shared
            .failure
            .borrow()
            .clone()
            .map(AppendError::Poisoned)
    }

    fn add(&mut self, submission: Submission) {
        let outcome = self
            .admit(&submission.entries)
            .map(|()| submission.entries.len());
        if outcome.is_ok() {
            self.batch.sync |= submission.flush != Flush::Async;
            for append in submission.entries {
                self.encode(append);
            }
        }
        self.batch.answers.push(Answer {
            then: submission.then,
            outcome,
        });
    }

    /// Checks the records and makes room for them in a batch.
    fn admit(&mut self, entries: &[Append]) -> Result<(), AppendError> {
        if entries.is_empty() {
            return Err(AppendError::Refused("it has no records".into()));
        }
        let mut bytes = 0;
        for append in entries {
            append.check()?;
            self.check_owner(append)?;
            bytes += append.stored_len();
        }
        let most = self.shared.settings.append_max_bytes();
        if bytes > most {
            return Err(AppendError::Refused(format!(
                "it has {bytes} bytes; the segments have room for {most}"
            )));
        }
        if !self.buffer.is_empty()
            && self.buffer.len() as u64 + bytes > self.shared.settings.batch_bytes as u64
        {
            self.finish_batch();
        }
        loop {
            self.begin_batch();
            if self.end + self.buffer.len() as u64 + bytes <= self.segment.end() {
                return Ok(());
            }
            self.finish_batch();
            self.roll()?;
        }
    }

    fn check_owner(&self, append: &Append) -> Result<(), AppendError> {
        let Some(mark) = append.mark else {
            return Ok(());
        };
        if [BROKER, LOG].contains(&mark.owner) || self.shared.settings.owners.contains(&mark.owner)
        {
            return Ok(());
        }
        Err(AppendError::Refused(format!(
            "owner {} was not among those the log was opened for",
            mark.owner.0
        )))
    }

    /// Starts a batch if none is: its time, its stamps, and room for its header.
    fn begin_batch(&mut self) {
        if !self.buffer.is_empty() {
            return;
        }
        self.batch.at = self.shared.time.now();
        self.batch.wall_ms = self.shared.time.clock.wall_ms();
        self.batch.stamps.clear();
        self.batch.stamps.extend(
            lock(&self.shared.stamps)
                .iter()
                .map(|(owner, number)| (*owner, *number)),
        );
        self.buffer
            .resize(BatchHeader::encoded_len(self.batch.stamps.len()), 0);
    }

    fn encode(&mut self, append: Append) {
        let position = self.end + self.buffer.len() as u64;
        let mut header = RecordHeader {
            position,
            length: append.entry.payload_len() as u32,
            is_message: false,
            mark: append.mark,
            tag_code: 0,
            at: self.batch.at,
        };
        if let Some(mark) = append.mark
            && !self.owners.contains(&mark.owner)
        {
            self.owners.push(mark.owner);
            lock(&self.shared.owners).insert(mark.owner);
        }
        let mut queue_offset = 0;
        match append.entry {
            Entry::Note { payload } => {
                let codec = &self.shared.codec;
                codec.encode_record(&header, &mut self.buffer, |out| {
                    out.extend_from_slice(&payload);
                });
            }
            Entry::Message {
                queue,
                tag_code,
                record,
            } => {
                header.is_message = true;
                header.tag_code = tag_code;
                queue_offset = self.index(&queue, &record, position, tag_code);
                let wall_ms = self.batch.wall_ms;
                let codec = &self.shared.codec;
                codec.encode_record(&header, &mut self.buffer, |out| {
                    let start = out.len();
                    record.write_to(out);
                    let written = out.get_mut(start..).unwrap_or_default();
                    record::place(written, queue_offset, position, wall_ms);
                });
            }
        }
        self.batch.records += 1;
        self.batch.placed.push(Placed {
            position: Position(position),
            queue_offset: QueueOffset(queue_offset),
            at: self.batch.at,
            store_ms: self.batch.wall_ms,
        });
    }

    /// Notes the message for the indexes and returns its queue offset.
    fn index(&mut self, id: &QueueId, record: &EncodedRecord, position: u64, tag_code: i64) -> u64 {
        let index = match self.by_id.get(id) {
            Some(index) => *index,
            None => self.open_queue(id),
        };
        let Some(queue) = self.queues.get_mut(index) else {
            return 0;
        };
        if queue.pending.is_empty() {
            self.touched.push(index);
        }
        let offset = queue.next;
        queue.next += 1;
        queue.pending.push(IndexEntry {
            position,
            size: record.len() as u32,
            tag_code,
        });
        if queue.keys_indexed
            && let Ok(view) = record.view()
        {
            let keys = view
                .keys()
                .map(|key| (self.shared.keys.hash(view.topic, key), position));
            self.keys.extend(keys);
        }
        offset
    }

    fn open_queue(&mut self, id: &QueueId) -> usize {
        let queue = self.shared.queues.get_or_make(id);
        let next = queue.end();
        let unindexed = &self.shared.settings.unindexed_topics;
        let keys_indexed = !unindexed.iter().any(|topic| topic == id.topic.as_str());
        self.queues.push(OpenQueue {
            queue,
            next,
            pending: Vec::new(),
            keys_indexed,
        });
        self.by_id.insert(id.clone(), self.queues.len() - 1);
        self.queues.len() - 1
    }

    /// Writes the gathered batch, syncs it if anybody waits for that, and answers.
    fn finish_batch(&mut self) {
        if self.batch.records > 0 && self.failed().is_none() {
            self.write_batch();
            if self.batch.sync {
                self.sync();
            }
        }
        let written = self.batch.records > 0;
        self.buffer.clear();
        self.buffer.shrink_to(self.shared.settings.batch_bytes);
        self.batch.records = 0;
        self.batch.sync = false;
        self.answer();
        if written && self.failed().is_none() {
            self.shared.steps.at(steps::ACKED);
        }
    }

    fn write_batch(&mut self) {
        let header = self.header(self.buffer.len() as u64, false);
        self.shared.codec.encode_batch(&header, &mut self.buffer);
        self.shared.steps.at(steps::BEFORE_WRITE);
        let at = self.end - self.segment.start;
        let written = self.begin_page();
        if let Err(error) = written.and_then(|()| self.file.write_at(&self.buffer, at)) {
            self.shared.fail(format!(
                "a write to {} failed: {error}",
                self.segment.name()
            ));
            return;
        }
        self.shared.steps.at(steps::WRITTEN);
        let due = self.segment.start + self.segment.length / PREPARE_AT;
        if self.end < due && header.end() >= due {
            self.shared.upkeep.want_segment(self.segment.end());
        }
        self.end = header.end();
        self.unsynced_since
            .get_or_insert_with(|| self.shared.time.clock.monotonic());
    }

    /// Writes zeros over the page in which the batch will end, where they stand already, if nothing else is in it: a page that
    /// was once written whole need not be read from the disk when part of it is.
    fn begin_page(&self) -> io::Result<()> {
        let start = self.end - self.segment.start;
        let end = start + self.buffer.len() as u64;
        let page = end - end % PAGE_BYTES;
        if page < start || page == end || page + PAGE_BYTES > self.segment.length {
            return Ok(());
        }
        self.file.write_at(&[0; PAGE_BYTES as usize], page)
    }

    fn header(&self, length: u64, filler: bool) -> BatchHeader {
        BatchHeader {
            position: self.end,
            length,
            filler,
            records: self.batch.records,
            at: self.batch.at,
            wall_ms: self.batch.wall_ms,
            durable_end: self.shared.visible(),
            life: self.shared.life,
            stamps: if filler {
                Vec::new()
            } else {
                self.batch.stamps.clone()
            },
        }
    }

    /// Closes the segment and goes on in the next one. Everything in the old one is durable afterwards.
    fn roll(&mut self) -> Result<(), AppendError> {
        if let Some(error) = self.failed() {
            return Err(error);
        }
        let next = self.next_segment()?;
        let file = self
            .shared
            .segments
            .file(next)
            .map_err(|error| self.poison("opening the next segment", &error))?;
        let rest = self.segment.end() - self.end;
        if rest >= BATCH_HEADER_BYTES as u64 {
            self.batch.at = self.shared.time.now();
            self.batch.wall_ms = self.shared.time.clock.wall_ms();
            let filler = self.header(rest, true);
            let mut bytes = [0; BATCH_HEADER_BYTES];
            self.shared.codec.encode_batch(&filler, &mut bytes);
            let written = self.file.write_at(&bytes, self.end - self.segment.start);
            written.map_err(|error| self.poison("closing a segment", &error))?;
            self.end = self.segment.end();
            self.unsynced_since.get_or_insert(Duration::ZERO);
        }
        self.sync();
        self.failed().map_or(Ok(()), Err)?;
        self.segment = next;
        self.file = file;
        self.end = next.first_batch();
        Ok(())
    }

    fn next_segment(&mut self) -> Result<Segment, AppendError> {
        let now = self.shared.time.clock.monotonic();
        if let Some((until, what)) = &self.full
            && now < *until
        {
            return Err(AppendError::Full(what.clone()));
        }
        self.full = None;
        let made = self.shared.segments.at_or_make(self.segment.end());
        made.map_err(|error| {
            if is_full(&error) {
                self.full = Some((now + FULL_FOR, error.to_string()));
                AppendError::Full(error.to_string())
            } else {
                self.poison("making a segment", &error)
            }
        })
    }

    fn poison(&self, doing: &str, error: &io::Error) -> AppendError {
        self.shared.fail(format!("{doing} failed: {error}"));
        self.failed().unwrap_or(AppendError::Closed)
    }

    /// Makes everything that is durable visible, all indexes at once.
    fn publish(&mut self) {
        let shared = &self.shared;
        let log_bytes = self.end - shared.visible();
        let mut entries = 0;
        {
            let _all_or_nothing = lock(&shared.publishing);
            shared.visible.store(self.end, Ordering::Release);
            for index in &self.touched {
                let Some(queue) = self.queues.get_mut(*index) else {
                    continue;
                };
                queue.queue.extend(&queue.pending);
                entries += queue.pending.len();
                queue.pending.clear();
            }
            shared.keys.extend(&self.keys);
        }
        for index in self.touched.drain(..) {
            if let Some(queue) = self.queues.get(index) {
                queue.queue.announce(queue.next);
            }
        }
        let index_bytes = entries * ENTRY_MEMORY_BYTES + self.keys.len() * KEY_BYTES;
        self.keys.clear();
        shared
            .upkeep
            .count(&shared.settings, index_bytes, log_bytes);
    }

    /// Tells everybody whose fate is known, in order.
    fn answer(&mut self) {
        let poisoned = self.failed();
        let mut placed = self.batch.placed.as_slice();
        for Answer { then, outcome } in self.batch.answers.drain(..) {
            match (outcome, &poisoned) {
                (Err(error), _) => then(Err(error)),
                (Ok(_), Some(poison)) => then(Err(poison.clone())),
                (Ok(count), None) => {
                    let (own, rest) = placed.split_at_checked(count).unwrap_or((placed, &[]));
                    placed = rest;
                    then(Ok(own));
                }
            }
        }
        self.batch.placed.clear();
    }
}
