//! The checkpoint: what recovery need not find out again.
//!
//! One small file, replaced as a whole (written under another name, made durable, renamed). It says up to which position
//! the indexes are on disk, so recovery reads the log from there, and it carries what is true of the log as a whole. It can
//! be lost: without it, recovery reads the whole log and makes the indexes anew; only the bookmarks are gone then.
//!
//! ```text
//!  0  8 bytes  magic "HMLOGCHK"
//!  8  u32      CRC-32 of everything behind it
//! 12  u16      layout version of the log, 1
//! 14  u8       1 if the log was closed and has nothing behind this checkpoint
//! 15  u8       0
//! 16  u128     log id
//! 32  u64      life
//! 40  u64      position up to which the indexes are on disk
//! 48  u64      durable end
//! 56  u64      server time in microseconds
//! 64  u64      start of the oldest segment
//! 72  u32      number of the next key run
//! 76  u32, u32, u32, u32, u32   numbers of queues, runs, stamps, bookmarks, owners, which follow:
//!     queue      u32 file, u64 first kept, u64 count, u32 queue, u8 length of the topic, the topic
//!     run        u32 file, u32 level, u64 keys, u64 end of the stretch of log
//!     stamp      u8 owner, u64 number
//!     bookmark   u8 owner, u64 position
//!     owner      u8
//! ```

use std::io;

use super::disk::Disk;
use super::files::{CHECKPOINT, NEW};
use super::layout::{LayoutError, VERSION};
use super::queue_index::FlushError;
use super::steps::{CHECKPOINT_RENAMED, CHECKPOINT_WRITTEN, Steps};
use super::{LogId, OwnerId};
use crate::clock::ServerTime;
use crate::names::{QueueId, TopicName};

const MAGIC: [u8; 8] = *b"HMLOGCHK";
/// A checkpoint is far smaller; anything longer is no checkpoint.
const MAX_BYTES: u64 = 256 << 20;

/// A queue's index as far as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRow {
    /// The queue.
    pub queue: QueueId,
    /// Number of its file.
    pub number: u32,
    /// Offset of the first message that is kept; the entries before it mean nothing.
    pub kept: u64,
    /// Entries in the file.
    pub count: u64,
}

/// A sorted run of the key index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunRow {
    /// Number of its file.
    pub number: u32,
    /// How often its keys were merged.
    pub level: u32,
    /// Keys in the file.
    pub keys: u64,
    /// All of them stand for records before this position.
    pub end: u64,
}

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log it belongs to.
    pub id: LogId,
    /// Whether the log was closed: nothing follows `indexed_to`.
    pub closed: bool,
    /// How often the log had been opened.
    pub life: u64,
    /// Where recovery begins to read: the end of a batch.
    pub indexed_to: u64,
    /// Everything before this position is durable.
    pub durable_end: u64,
    /// Server time when it was made.
    pub at: ServerTime,
    /// Start of the oldest segment.
    pub kept_from: u64,
    /// Number of the next key run.
    pub next_run: u32,
    /// All queues that have entries.
    pub queues: Vec<QueueRow>,
    /// All key runs, oldest first.
    pub runs: Vec<RunRow>,
    /// The owners' numbers.
    pub stamps: Vec<(OwnerId, u64)>,
    /// The owners' bookmarks.
    pub bookmarks: Vec<(OwnerId, u64)>,
    /// All owners of marked records before `indexed_to`.
    pub owners: Vec<OwnerId>,
}

impl Checkpoint {
    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&VERSION.to_le_bytes());
        body.extend_from_slice(&[u8::from(self.closed), 0]);
        body.extend_from_slice(&self.id.0.to_le_bytes());
        for long in [
            self.life,
            self.indexed_to,
            self.durable_end,
            self.at.0,
            self.kept_from,
        ] {
            body.extend_from_slice(&long.to_le_bytes());
        }
        body.extend_from_slice(&self.next_run.to_le_bytes());
        let counts = [
            self.queues.len(),
            self.runs.len(),
            self.stamps.len(),
            self.bookmarks.len(),
            self.owners.len(),
        ];
        for count in counts {
            body.extend_from_slice(&(count as u32).to_le_bytes());
        }
        for row in &self.queues {
            body.extend_from_slice(&row.number.to_le_bytes());
            body.extend_from_slice(&row.kept.to_le_bytes());
            body.extend_from_slice(&row.count.to_le_bytes());
            body.extend_from_slice(&row.queue.queue.to_le_bytes());
            let topic = row.queue.topic.as_str().as_bytes();
            body.push(topic.len() as u8);
            body.extend_from_slice(topic);
        }
        for run in &self.runs {
            body.extend_from_slice(&run.number.to_le_bytes());
            body.extend_from_slice(&run.level.to_le_bytes());
            body.extend_from_slice(&run.keys.to_le_bytes());
            body.extend_from_slice(&run.end.to_le_bytes());
        }
        for (owner, number) in self.stamps.iter().chain(&self.bookmarks) {
            body.push(owner.0);
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend(self.owners.iter().map(|owner| owner.0));
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        let mut bytes = Reader(bytes);
        if bytes.array::<8>()? != MAGIC {
            return Err(LayoutError::Magic);
        }
        if u32::from_le_bytes(bytes.array()?) != crc32fast::hash(bytes.0) {
            return Err(LayoutError::Checksum);
        }
        match u16::from_le_bytes(bytes.array()?) {
            VERSION => (),
            version => return Err(LayoutError::Version(version)),
        }
        let [closed, _] = bytes.array()?;
        let id = LogId(u128::from_le_bytes(bytes.array()?));
        let (life, indexed_to, durable_end) = (bytes.long()?, bytes.long()?, bytes.long()?);
        let (at, kept_from) = (ServerTime(bytes.long()?), bytes.long()?);
        let next_run = bytes.int()?;
        let [queues, runs, stamps, bookmarks, owners] = [
            bytes.int()?,
            bytes.int()?,
            bytes.int()?,
            bytes.int()?,
            bytes.int()?,
        ];
        let checkpoint = Self {
            id,
            closed: closed == 1,
            life,
            indexed_to,
            durable_end,
            at,
            kept_from,
            next_run,
            queues: (0..queues)
                .map(|_| bytes.queue())
                .collect::<Result<_, _>>()?,
            runs: (0..runs).map(|_| bytes.run()).collect::<Result<_, _>>()?,
            stamps: (0..stamps)
                .map(|_| bytes.owned())
                .collect::<Result<_, _>>()?,
            bookmarks: (0..bookmarks)
                .map(|_| bytes.owned())
                .collect::<Result<_, _>>()?,
            owners: (0..owners)
                .map(|_| Ok(OwnerId(bytes.byte()?)))
                .collect::<Result<_, LayoutError>>()?,
        };
        if bytes.0.is_empty() {
            Ok(checkpoint)
        } else {
            Err(LayoutError::Inconsistent)
        }
    }

    /// Replaces the checkpoint file, durably.
    pub(super) fn store(&self, disk: &dyn Disk, steps: &Steps) -> Result<(), FlushError> {
        let new = format!("{CHECKPOINT}{NEW}");
        let write = || {
            disk.remove(&new)?;
            let file = disk.open(&new)?;
            file.write_at(&self.encode(), 0)?;
            Ok(file)
        };
        let file = write().map_err(FlushError::Write)?;
        file.sync().map_err(FlushError::Sync)?;
        steps.at(CHECKPOINT_WRITTEN);
        disk.rename(&new, CHECKPOINT).map_err(FlushError::Write)?;
        steps.at(CHECKPOINT_RENAMED);
        disk.sync_folder("").map_err(FlushError::Sync)
    }

    /// Reads the checkpoint file; `None` if there is none.
    pub(super) fn load(disk: &dyn Disk) -> io::Result<Option<Result<Self, LayoutError>>> {
        if !disk.list("")?.iter().any(|name| name == CHECKPOINT) {
            return Ok(None);
        }
        let file = disk.open(CHECKPOINT)?;
        let length = file.len()?;
        if length > MAX_BYTES {
            return Ok(Some(Err(LayoutError::Inconsistent)));
        }
        let mut bytes = vec![0; length as usize];
        file.read_at(&mut bytes, 0)?;
        Ok(Some(Self::decode(&bytes)))
    }
}

/// The bytes not read yet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], LayoutError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(LayoutError::Short)?;
        self.0 = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, LayoutError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn int(&mut self) -> Result<u32, LayoutError> {
        self.array().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Result<u64, LayoutError> {
        self.array().map(u64::from_le_bytes)
    }

    fn queue(&mut self) -> Result<QueueRow, LayoutError> {
        let (number, kept, count) = (self.int()?, self.long()?, self.long()?);
        let queue = self.int()?;
        if kept > count {
            return Err(LayoutError::Inconsistent);
        }
        let length = usize::from(self.byte()?);
        let (topic, rest) = self.0.split_at_checked(length).ok_or(LayoutError::Short)?;
        self.0 = rest;
        let topic = std::str::from_utf8(topic)
            .ok()
            .and_then(|topic| TopicName::new(topic).ok());
        let topic = topic.ok_or(LayoutError::Inconsistent)?;
        Ok(QueueRow {
            queue: QueueId::new(topic, queue),
            number,
            kept,
            count,
        })
    }

    fn run(&mut self) -> Result<RunRow, LayoutError> {
        Ok(RunRow {
            number: self.int()?,
            level: self.int()?,
            keys: self.long()?,
            end: self.long()?,
        })
    }

    fn owned(&mut self) -> Result<(OwnerId, u64), LayoutError> {
        Ok((OwnerId(self.byte()?), self.long()?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::queue;
    use super::super::memory_disk::MemoryDisk;
    use super::*;

    fn sample() -> Checkpoint {
        Checkpoint {
            id: LogId(77),
            closed: true,
            life: 3,
            indexed_to: 4096,
            durable_end: 5000,
            at: ServerTime(8),
            kept_from: 1024,
            next_run: 12,
            queues: vec![
                QueueRow {
                    queue: queue("%RETRY%g", 3),
                    number: 1,
                    kept: 1 << 39,
                    count: 1 << 40,
                },
                QueueRow {
                    queue: queue("t", u32::MAX),
                    number: 2,
                    kept: 0,
                    count: 9,
                },
            ],
            runs: vec![RunRow {
                number: 11,
                level: 2,
                keys: 1234,
                end: 4096,
            }],
            stamps: vec![(OwnerId(1), 2)],
            bookmarks: vec![(OwnerId(0), 4096), (OwnerId(255), 1)],
            owners: vec![OwnerId(0), OwnerId(1)],
        }
    }

    #[test]
    fn it_is_read_back_and_every_byte_counts() {
        let bytes = sample().encode();
        assert_eq!(Checkpoint::decode(&bytes), Ok(sample()));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Checkpoint::decode(&bad).is_err(), "byte {at}");
            assert!(Checkpoint::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_crash_leaves_the_old_one_or_the_new_one() {
        let disk = MemoryDisk::new();
        sample().store(&disk, &Steps::default()).unwrap();
        for seed in 0..50 {
            for step in [CHECKPOINT_WRITTEN, CHECKPOINT_RENAMED, "afterwards"] {
                let disk = disk.copy();
                let new = Checkpoint {
                    life: 4,
                    ..sample()
                };
                let at_step = disk.clone();
                let hook = Steps(Some(std::sync::Arc::new(move |at| {
                    if at == step {
                        at_step.crash(seed);
                    }
                })));
                let stored = new.store(&disk, &hook);
                let found = Checkpoint::load(&disk).unwrap().unwrap().unwrap();
                assert!(found == sample() || found == new);
                if step == "afterwards" {
                    stored.unwrap();
                    disk.crash(seed);
                    assert_eq!(Checkpoint::load(&disk).unwrap().unwrap().unwrap(), new);
                }
            }
        }
    }
}
