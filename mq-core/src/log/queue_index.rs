//! The queue index: where each message of each queue is.
//!
//! Entries are 20 bytes: position (u64), size of the record (u32), tag code (i64), little-endian; entry `n` of a queue's
//! file belongs to queue offset `n`. The newest entries are in memory only, until a checkpoint flushes them: what a
//! queue's file holds beyond the count in the checkpoint means nothing. Files have numbers, not names of topics, so that
//! no name from outside ever reaches the file system.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use tokio::sync::watch;

use super::checkpoint::QueueRow;
use super::files::{Files, Name, QUEUES};
use super::{Position, QueueEntry, QueueOffset, ReadError, lock};
use crate::names::QueueId;

/// Bytes of an entry in a file.
pub(super) const ENTRY_BYTES: usize = 20;
/// Bytes of an entry in memory, for the bound on memory.
pub(super) const ENTRY_MEMORY_BYTES: usize = size_of::<Entry>();
/// Entries are written and read in pieces of at most this many.
const PIECE: usize = 4096;

/// One message of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) position: u64,
    pub(super) size: u32,
    pub(super) tag_code: i64,
}

impl Entry {
    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.position.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.tag_code.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (position, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        Some(Self {
            position: u64::from_le_bytes(*position),
            size: u32::from_le_bytes(*size),
            tag_code: i64::from_le_bytes(*rest.first_chunk()?),
        })
    }
}

/// All queues of a log.
#[derive(Debug)]
pub(super) struct QueueIndex {
    files: Arc<Files>,
    queues: RwLock<HashMap<QueueId, Arc<Queue>>>,
    next_number: AtomicU32,
    /// A file was made whose name may not be durable.
    new_names: AtomicBool,
}

/// The index of one queue.
#[derive(Debug)]
pub(super) struct Queue {
    /// The number of its file; set before its first entry is flushed.
    number: OnceLock<u32>,
    /// Offset of the first message that is kept.
    kept: AtomicU64,
    /// How many of the entries before it the file has given back to the disk.
    freed: AtomicU64,
    tail: Mutex<Tail>,
    end: watch::Sender<QueueOffset>,
}

/// The entries that only memory has for certain.
#[derive(Debug, Default)]
struct Tail {
    /// Queue offset of the first of them, which is the number of those in the file.
    first: u64,
    entries: VecDeque<Entry>,
}

impl Tail {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
}

/// What a checkpoint will say of one queue once its entries are flushed.
#[derive(Debug)]
pub(super) struct Flushing {
    id: QueueId,
    queue: Arc<Queue>,
    kept: u64,
    count: u64,
}

/// Why entries could not be flushed.
#[derive(Debug)]
pub(super) enum FlushError {
    /// Nothing is lost: the same may be written again.
    Write(io::Error),
    /// A sync failed: what was written may be lost without a trace, so the process must stop.
    Sync(io::Error),
}

impl QueueIndex {
    /// The index as a checkpoint has it. The files are not looked at.
    pub(super) fn new(files: Arc<Files>, rows: Vec<QueueRow>) -> Self {
        let next = rows.iter().map(|row| row.number + 1).max().unwrap_or(1);
        let queues = rows
            .into_iter()
            .map(|row| {
                let queue = Queue::new(Some(row.number), row.kept, row.count);
                (row.queue, Arc::new(queue))
            })
            .collect();
        Self {
            files,
            queues: RwLock::new(queues),
            next_number: AtomicU32::new(next),
            new_names: AtomicBool::new(false),
        }
    }

    /// The first queue whose file is missing or shorter than it should be, with the byte where it ends.
    pub(super) fn cut_short(&self) -> io::Result<Option<(Name, u64)>> {
        let names = self.files.disk().list(QUEUES)?;
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        for queue in queues.values() {
            let Some(name) = queue.number.get().map(|number| Name::Queue(*number)) else {
                continue;
            };
            let first = lock(&queue.tail).first;
            let needed = if first > queue.kept() {
                first * ENTRY_BYTES as u64
            } else {
                0
            };
            let exists = names.iter().any(|file| name.to_string().ends_with(file));
            let length = if exists {
                self.files.get(name)?.len()?
            } else {
                0
            };
            if length < needed {
                return Ok(Some((name, length)));
            }
        }
        Ok(None)
    }

    /// The queue, if anything was ever written to or asked of it.
    pub(super) fn get(&self, id: &QueueId) -> Option<Arc<Queue>> {
        self.queues
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// The queue, made if it is new.
    pub(super) fn get_or_make(&self, id: &QueueId) -> Arc<Queue> {
        if let Some(queue) = self.get(id) {
            return queue;
        }
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        queues
            .entry(id.clone())
            .or_insert_with(|| Arc::new(Queue::new(None, 0, 0)))
            .clone()
    }

    /// Up to `most` entries of a queue from `from` on.
    ///
    /// # Errors
    /// [`ReadError::Gone`] with the position 0 when the message at `from` is no longer kept.
    pub(super) fn entries(
        &self,
        queue: &Queue,
        from: u64,
        most: usize,
    ) -> Result<Vec<QueueEntry>, ReadError> {
        let found = self.known_entries(queue, from, most);
        // What is forgotten meanwhile may read as anything.
        if from < queue.kept() {
            return Err(ReadError::Gone(Position(0)));
        }
        found
    }

    fn known_entries(
        &self,
        queue: &Queue,
        from: u64,
        most: usize,
    ) -> Result<Vec<QueueEntry>, ReadError> {
        let mut found: Vec<(u64, Entry)> = Vec::new();
        let in_file = {
            let tail = lock(&queue.tail);
            let most =
                most.min(usize::try_from(tail.end().saturating_sub(from)).unwrap_or(usize::MAX));
            let in_file =
                most.min(usize::try_from(tail.first.saturating_sub(from)).unwrap_or(usize::MAX));
            let skip = usize::try_from(from.saturating_sub(tail.first)).unwrap_or(usize::MAX);
            let start = from.max(tail.first);
            found.extend(
                (start..).zip(tail.entries.iter().skip(skip).take(most - in_file).copied()),
            );
            in_file
        };
        // What was in the file a moment ago stays there as it is.
        let mut entries = self.flushed(queue, from, in_file)?;
        entries.extend(
            found
                .into_iter()
                .map(|(offset, entry)| shown(offset, entry)),
        );
        Ok(entries)
    }

    fn flushed(
        &self,
        queue: &Queue,
        from: u64,
        count: usize,
    ) -> Result<Vec<QueueEntry>, ReadError> {
        let Some(number) = queue.number.get().filter(|_| count > 0) else {
            return Ok(Vec::new());
        };
        let name = Name::Queue(*number);
        let at = from * ENTRY_BYTES as u64;
        let mut bytes = vec![0; count * ENTRY_BYTES];
        let read = self
            .files
            .get(name)
            .and_then(|file| file.read_at(&mut bytes, at));
        read.map_err(|error| ReadError::Io(format!("{name} at byte {at}: {error}")))?;
        let entries = bytes.chunks_exact(ENTRY_BYTES).filter_map(Entry::decode);
        let entries: Vec<_> = (from..)
            .zip(entries)
            .map(|(offset, entry)| shown(offset, entry))
            .collect();
        let wrong = entries.windows(2).position(|pair| match pair {
            [a, b] => a.position >= b.position,
            _ => false,
        });
        let zero = entries
            .iter()
            .position(|entry| entry.position == Position(0) || entry.size == 0);
        match wrong.or(zero) {
            None => Ok(entries),
            Some(index) => Err(ReadError::Damaged {
                file: name.to_string(),
                offset: at + (index * ENTRY_BYTES) as u64,
                what: "the entries of a queue must ascend".into(),
            }),
        }
    }

    /// The queues, beside empty ones, that keep no message if everything before position `kept` goes, and their next offsets.
    pub(super) fn ends_before(&self, kept: u64) -> Result<Vec<(QueueId, u64)>, ReadError> {
        let mut ends = Vec::new();
        for (id, queue) in self.all() {
            let end = queue.end();
            if end > 0 && self.first_behind(&queue, kept, end)? == end {
                ends.push((id, end));
            }
        }
        Ok(ends)
    }

    /// From now on no message before position `kept` is found; if a file cannot be read, nothing is forgotten.
    pub(super) fn forget_before(&self, kept: u64) -> Result<(), ReadError> {
        let mut firsts = Vec::new();
        for (_, queue) in self.all() {
            let first = self.first_behind(&queue, kept, queue.end())?;
            firsts.push((queue, first));
        }
        for (queue, first) in firsts {
            queue.kept.fetch_max(first, Ordering::AcqRel);
        }
        Ok(())
    }

    /// The offset of a queue's first message at or behind position `kept`, `end` if it has none.
    fn first_behind(&self, queue: &Queue, kept: u64, end: u64) -> Result<u64, ReadError> {
        let (mut low, mut high) = (queue.kept(), end);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.known_entries(queue, middle, 1)?;
            if entry.first().is_some_and(|entry| entry.position.0 < kept) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Gives the room of entries that are forgotten back to the disk; only once a durable checkpoint says so. Best effort.
    pub(super) fn free_before(&self) {
        for (id, queue) in self.all() {
            let kept = queue.kept().min(lock(&queue.tail).first);
            // Less than a few pages is not worth a call.
            if kept < queue.freed.load(Ordering::Relaxed) + PIECE as u64 {
                continue;
            }
            let Some(number) = queue.number.get() else {
                continue;
            };
            let file = self.files.get(Name::Queue(*number));
            if let Err(error) = file.and_then(|file| file.free(kept * ENTRY_BYTES as u64)) {
                tracing::debug!(%error, queue = %id, "the index of a queue keeps its room");
            }
            queue.freed.store(kept, Ordering::Relaxed);
        }
    }

    fn all(&self) -> Vec<(QueueId, Arc<Queue>)> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let all = queues.iter().map(|(id, queue)| (id.clone(), queue.clone()));
        all.collect()
    }

    /// How many entries are in memory.
    #[cfg(test)]
    pub(super) fn memory_entries(&self) -> usize {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues
            .values()
            .map(|queue| lock(&queue.tail).entries.len())
            .sum()
    }

    /// What a checkpoint has to flush and to say. Entries that are added later are not part of it.
    pub(super) fn begin_flush(&self) -> Vec<Flushing> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let flushing = queues.iter().map(|(id, queue)| {
            let count = lock(&queue.tail).end();
            Flushing {
                id: id.clone(),
                queue: queue.clone(),
                kept: queue.kept(),
                count,
            }
        });
        flushing.filter(|flushing| flushing.count > 0).collect()
    }

    /// Writes the entries to the files and makes them durable. Memory keeps them until [`Self::end_flush`].
    pub(super) fn flush(&self, flushing: &[Flushing]) -> Result<Vec<QueueRow>, FlushError> {
        let mut rows = Vec::with_capacity(flushing.len());
        for Flushing {
            id,
            queue,
            kept,
            count,
        } in flushing
        {
            let number = *queue.number.get_or_init(|| {
                self.new_names.store(true, Ordering::Relaxed);
                self.next_number.fetch_add(1, Ordering::Relaxed)
            });
            self.flush_queue(queue, number, *count)?;
            rows.push(QueueRow {
                queue: id.clone(),
                number,
                kept: *kept,
                count: *count,
            });
        }
        // Kept for the next try if this one fails before the names are durable.
        if self.new_names.load(Ordering::Relaxed) {
            self.files
                .disk()
                .sync_folder(QUEUES)
                .map_err(FlushError::Sync)?;
            self.new_names.store(false, Ordering::Relaxed);
        }
        Ok(rows)
    }

    fn flush_queue(&self, queue: &Queue, number: u32, count: u64) -> Result<(), FlushError> {
        let mut at = lock(&queue.tail).first;
        if at == count {
            return Ok(());
        }
        let file = self
            .files
            .get(Name::Queue(number))
            .map_err(FlushError::Write)?;
        while at < count {
            let mut bytes = Vec::new();
            {
                let tail = lock(&queue.tail);
                let skip = (at - tail.first) as usize;
                let most = PIECE.min((count - at) as usize);
                tail.entries
                    .iter()
                    .skip(skip)
                    .take(most)
                    .for_each(|entry| entry.encode(&mut bytes));
            }
            file.write_at(&bytes, at * ENTRY_BYTES as u64)
                .map_err(FlushError::Write)?;
            at += (bytes.len() / ENTRY_BYTES) as u64;
        }
        file.sync().map_err(FlushError::Sync)
    }

    /// Forgets what a durable checkpoint has, or, in recovery, what was flushed ahead of one.
    pub(super) fn end_flush(&self, flushing: &[Flushing]) {
        for Flushing { queue, count, .. } in flushing {
            let mut tail = lock(&queue.tail);
            let flushed = (count - tail.first) as usize;
            tail.entries.drain(..flushed);
            tail.first = *count;
            if tail.entries.capacity() > PIECE {
                tail.entries.shrink_to_fit();
            }
        }
    }
}

impl Queue {
    fn new(number: Option<u32>, kept: u64, count: u64) -> Self {
        Self {
            number: number.map_or_else(OnceLock::new, OnceLock::from),
            kept: AtomicU64::new(kept),
            freed: AtomicU64::new(0),
            tail: Mutex::new(Tail {
                first: count,
                entries: VecDeque::new(),
            }),
            end: watch::Sender::new(QueueOffset(count)),
        }
    }

    /// Raises the next offset of a queue that has no message to `next`: those before it are deleted.
    pub(super) fn begin_at(&self, next: u64) {
        let mut tail = lock(&self.tail);
        let has_none = self.kept() == tail.end();
        if has_none && next > tail.first {
            tail.first = next;
            self.kept.store(next, Ordering::Release);
            self.end.send_replace(QueueOffset(next));
        }
    }

    /// Offset of the first message that is kept.
    pub(super) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Acquire)
    }

    /// The next offset.
    pub(super) fn end(&self) -> u64 {
        self.end.borrow().0
    }

    pub(super) fn watch(&self) -> watch::Receiver<QueueOffset> {
        self.end.subscribe()
    }

    /// Adds entries at the end. Whoever watches learns of them from [`Queue::announce`].
    pub(super) fn extend(&self, entries: &[Entry]) {
        lock(&self.tail).entries.extend(entries);
    }

    /// Tells the watchers where the queue ends.
    pub(super) fn announce(&self, end: u64) {
        self.end.send_replace(QueueOffset(end));
    }
}

const fn shown(offset: u64, entry: Entry) -> QueueEntry {
    QueueEntry {
        offset: QueueOffset(offset),
        position: Position(entry.position),
        size: entry.size,
        tag_code: entry.tag_code,
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::queue;
    use super::super::disk::Disk as _;
    use super::super::memory_disk::MemoryDisk;
    use super::*;

    fn entry(i: u64) -> Entry {
        Entry {
            position: 100 + i,
            size: i as u32 + 1,
            tag_code: -(i as i64),
        }
    }

    fn offsets(entries: &[QueueEntry]) -> Vec<u64> {
        assert!(
            entries
                .iter()
                .all(|e| *e == shown(e.offset.0, entry(e.offset.0))),
            "{entries:?}"
        );
        entries.iter().map(|entry| entry.offset.0).collect()
    }

    #[test]
    fn entries_are_read_across_file_and_memory() {
        let index = QueueIndex::new(
            Arc::new(Files::new(Arc::new(MemoryDisk::new()))),
            Vec::new(),
        );
        let queue = index.get_or_make(&queue("t", 0));
        queue.extend(&(0..10).map(entry).collect::<Vec<_>>());
        let flushing = index.begin_flush();
        queue.extend(&(10..15).map(entry).collect::<Vec<_>>());
        let rows = index.flush(&flushing).unwrap();
        assert_eq!((rows[0].number, rows[0].count), (1, 10));
        for flushed in [false, true] {
            if flushed {
                index.end_flush(&flushing);
                assert_eq!(
                    lock(&queue.tail).entries.len(),
                    5,
                    "memory keeps only what no checkpoint has"
                );
            }
            assert_eq!(
                offsets(&index.entries(&queue, 0, 100).unwrap()),
                (0..15).collect::<Vec<_>>()
            );
            assert_eq!(
                offsets(&index.entries(&queue, 8, 4).unwrap()),
                [8, 9, 10, 11]
            );
            assert_eq!(
                offsets(&index.entries(&queue, 12, 100).unwrap()),
                [12, 13, 14]
            );
            assert_eq!(offsets(&index.entries(&queue, 3, 2).unwrap()), [3, 4]);
            assert_eq!(offsets(&index.entries(&queue, 15, 2).unwrap()), [0; 0]);
            assert_eq!(
                offsets(&index.entries(&queue, u64::MAX, 2).unwrap()),
                [0; 0]
            );
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let disk = MemoryDisk::new();
        let index = QueueIndex::new(Arc::new(Files::new(Arc::new(disk.clone()))), Vec::new());
        let queue = index.get_or_make(&queue("t", 0));
        queue.extend(&(0..10).map(entry).collect::<Vec<_>>());
        let flushing = index.begin_flush();
        index.flush(&flushing).unwrap();
        index.end_flush(&flushing);
        disk.open("queues/0000000001")
            .unwrap()
            .write_at(&[0; 8], 5 * ENTRY_BYTES as u64)
            .unwrap();
        let error = index.entries(&queue, 0, 10).unwrap_err();
        assert!(error.to_string().contains("queues/0000000001"), "{error}");
    }
}
