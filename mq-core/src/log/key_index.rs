//! The key index: at which positions a word of a topic's messages occurs.
//!
//! Keys are kept as a 64 bit hash of topic and word beside the position, 16 bytes each, little-endian. New ones are in
//! memory; each checkpoint writes them as a *run*, a file sorted by hash and position that never changes. Runs of the same
//! level are merged once there are [`MERGE_AT`] of them, so a look-up reads few files. Each run covers a stretch of the
//! log of its own, newer runs newer ones. Equal hashes of different words are told apart by reading the record.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::checkpoint::RunRow;
use super::disk::File;
use super::files::{Files, KEYS, Name};
use super::queue_index::FlushError;
use super::{LogId, ReadError, lock};

/// Bytes of a key in memory and in a run.
pub(super) const KEY_BYTES: usize = 16;
/// So many runs of one level become one of the next.
const MERGE_AT: usize = 4;
/// Runs larger than this are not merged any more: a merge must not hold up a checkpoint for long.
const MERGE_MAX_KEYS: u64 = (256 << 20) / KEY_BYTES as u64;
/// Runs are read and written in pieces of so many keys.
const PIECE: usize = 4096;

/// Hash of topic and word, and a record's position.
pub(super) type Key = (u64, u64);

/// All keys of a log.
#[derive(Debug)]
pub(super) struct KeyIndex {
    files: Arc<Files>,
    id: LogId,
    memory: Mutex<Memory>,
    runs: RwLock<Vec<RunRow>>,
    /// Merged into others, but the last durable checkpoint may still have them.
    superseded: Mutex<Vec<RunRow>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// In log order.
    fresh: Vec<Key>,
    /// Being written as a run; in log order too.
    flushing: Arc<Vec<Key>>,
}

/// What a flush has made: the runs as the checkpoint shall have them, and the files it makes superfluous.
#[derive(Debug)]
pub(super) struct NewRuns {
    pub(super) runs: Vec<RunRow>,
    superseded: Vec<RunRow>,
}

impl KeyIndex {
    /// The index as a checkpoint has it.
    pub(super) fn new(files: Arc<Files>, id: LogId, runs: Vec<RunRow>) -> Self {
        Self {
            files,
            id,
            memory: Mutex::default(),
            runs: RwLock::new(runs),
            superseded: Mutex::default(),
        }
    }

    /// The first run whose file is missing or has the wrong length, with the byte where it ends; other files are deleted.
    pub(super) fn check_files(&self) -> io::Result<Option<(Name, u64)>> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let names = self.files.disk().list(KEYS)?;
        for name in &names {
            let path = format!("{KEYS}/{name}");
            if !runs
                .iter()
                .any(|run| Name::Keys(run.number).to_string() == path)
            {
                self.files.disk().remove(&path)?;
            }
        }
        for run in runs.iter() {
            let name = Name::Keys(run.number);
            let exists = names.iter().any(|file| name.to_string().ends_with(file));
            let length = if exists {
                self.files.get(name)?.len()?
            } else {
                0
            };
            if length != run.keys * KEY_BYTES as u64 {
                return Ok(Some((name, length)));
            }
        }
        Ok(None)
    }

    /// The hash under which `word` of `topic` is kept: FNV-1a, seeded with the log's id.
    pub(super) fn hash(&self, topic: &str, word: &str) -> u64 {
        const PRIME: u64 = 0x0000_0100_0000_01B3;
        let seed = 0xCBF2_9CE4_8422_2325 ^ (self.id.0 as u64);
        let bytes = topic.bytes().chain([0]).chain(word.bytes());
        bytes.fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(PRIME)
        })
    }

    /// Adds keys, which must be newer than all before.
    pub(super) fn extend(&self, keys: &[Key]) {
        lock(&self.memory).fresh.extend_from_slice(keys);
    }

    /// Calls `found` with the positions kept under `hash`, newest first, until it answers `false`.
    pub(super) fn find(
        &self,
        hash: u64,
        mut found: impl FnMut(u64) -> Result<bool, ReadError>,
    ) -> Result<(), ReadError> {
        // Runs stay as they are while they are read. Keys move from memory to runs, so one may be met twice, and skipped.
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let (fresh, flushing) = {
            let memory = lock(&self.memory);
            let fresh = memory
                .fresh
                .iter()
                .filter(|key| key.0 == hash)
                .map(|key| key.1);
            (fresh.collect::<Vec<_>>(), memory.flushing.clone())
        };
        let in_memory = flushing
            .iter()
            .filter(|key| key.0 == hash)
            .map(|key| key.1)
            .chain(fresh);
        let mut last = None;
        let mut offer = |position: u64| match last {
            Some(newer) if position >= newer => Ok(true),
            _ => {
                last = Some(position);
                found(position)
            }
        };
        for position in in_memory.collect::<Vec<_>>().into_iter().rev() {
            if !offer(position)? {
                return Ok(());
            }
        }
        for run in runs.iter().rev() {
            if !self.find_in_run(run, hash, &mut offer)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn find_in_run(
        &self,
        run: &RunRow,
        hash: u64,
        offer: &mut dyn FnMut(u64) -> Result<bool, ReadError>,
    ) -> Result<bool, ReadError> {
        let name = Name::Keys(run.number);
        let failed = |error: io::Error| ReadError::Io(format!("{name}: {error}"));
        let file = self.files.get(name).map_err(failed)?;
        let mut end = first_not_below(&*file, run.keys, hash.checked_add(1)).map_err(failed)?;
        while end > 0 {
            let from = end.saturating_sub(PIECE as u64 / 16);
            for key in read_keys(&*file, from, (end - from) as usize)
                .map_err(failed)?
                .into_iter()
                .rev()
            {
                if key.0 != hash {
                    return Ok(true);
                }
                if !offer(key.1)? {
                    return Ok(false);
                }
            }
            end = from;
        }
        Ok(true)
    }

    /// Sets the fresh keys aside for [`KeyIndex::flush`]; look-ups still find them.
    pub(super) fn begin_flush(&self) {
        let mut memory = lock(&self.memory);
        if memory.flushing.is_empty() {
            memory.flushing = Arc::new(std::mem::take(&mut memory.fresh));
        } else {
            // The last flush failed; both go into one run.
            let fresh = std::mem::take(&mut memory.fresh);
            Arc::make_mut(&mut memory.flushing).extend(fresh);
        }
    }

    /// Writes what was set aside as a run, merges where due, and makes all of it durable. File numbers are taken from
    /// `next_number`. `covered` says which stretch of the log all keys stand for: runs from before it are given up, and what
    /// is written now ends with it.
    pub(super) fn flush(
        &self,
        next_number: &mut u32,
        covered: Range<u64>,
    ) -> Result<NewRuns, FlushError> {
        let known = self
            .runs
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let is_gone = |run: &RunRow| run.end <= covered.start;
        let (mut superseded, mut runs): (Vec<_>, Vec<_>) = known.into_iter().partition(is_gone);
        let mut keys = lock(&self.memory).flushing.to_vec();
        if keys.is_empty() {
            return Ok(NewRuns { runs, superseded });
        }
        keys.sort_unstable();
        let mut number = || {
            let number = *next_number;
            *next_number += 1;
            number
        };
        let mut out = RunWriter::new(&self.files, number())?;
        keys.iter().try_for_each(|key| out.push(*key))?;
        runs.push(out.finish(0, covered.end)?);
        while let Some(from) = due(&runs) {
            let merged = runs.split_off(from);
            let mut out = RunWriter::new(&self.files, number())?;
            self.merge(&merged, &mut out)?;
            let level = merged.first().map_or(0, |run| run.level) + 1;
            let end = merged.last().map_or(covered.end, |run| run.end);
            runs.push(out.finish(level, end)?);
            superseded.extend(merged);
        }
        self.files
            .disk()
            .sync_folder(KEYS)
            .map_err(FlushError::Sync)?;
        Ok(NewRuns { runs, superseded })
    }

    fn merge(&self, runs: &[RunRow], out: &mut RunWriter) -> Result<(), FlushError> {
        let readers = runs
            .iter()
            .map(|run| RunReader::new(&self.files, run))
            .collect::<Result<Vec<_>, _>>();
        let mut readers = readers.map_err(FlushError::Write)?;
        loop {
            let smallest = readers
                .iter_mut()
                .filter_map(|reader| reader.peek().map(|key| (key, reader)));
            let Some((key, reader)) = smallest.min_by_key(|(key, _)| *key) else {
                break;
            };
            out.push(key)?;
            reader.advance().map_err(FlushError::Write)?;
        }
        Ok(())
    }

    /// Takes the new runs into use.
    pub(super) fn end_flush(&self, new: NewRuns) {
        *self.runs.write().unwrap_or_else(PoisonError::into_inner) = new.runs;
        lock(&self.memory).flushing = Arc::default();
        lock(&self.superseded).extend(new.superseded);
    }

    /// Deletes what was merged into others; only once a durable checkpoint no longer has it.
    pub(super) fn remove_superseded(&self) {
        for run in std::mem::take(&mut *lock(&self.superseded)) {
            // Best effort: what is left over is deleted at the next start.
            let _ = self.files.remove(Name::Keys(run.number));
        }
    }
}

/// From which run on a merge is due: the last [`MERGE_AT`] runs have the same level and are small enough.
fn due(runs: &[RunRow]) -> Option<usize> {
    let from = runs.len().checked_sub(MERGE_AT)?;
    let last = runs.get(from..)?;
    let level = last.first()?.level;
    let keys: u64 = last.iter().map(|run| run.keys).sum();
    (last.iter().all(|run| run.level == level) && keys <= MERGE_MAX_KEYS).then_some(from)
}

/// Index of the first key whose hash is not below `hash`; the end if there is no such hash.
fn first_not_below(file: &dyn File, keys: u64, hash: Option<u64>) -> io::Result<u64> {
    let Some(hash) = hash else { return Ok(keys) };
    let (mut low, mut high) = (0, keys);
    while low < high {
        let middle = low + (high - low) / 2;
        let below = read_keys(file, middle, 1)?
            .first()
            .is_some_and(|key| key.0 < hash);
        if below {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn read_keys(file: &dyn File, from: u64, count: usize) -> io::Result<Vec<Key>> {
    let mut bytes = vec![0; count * KEY_BYTES];
    file.read_at(&mut bytes, from * KEY_BYTES as u64)?;
    let keys = bytes.chunks_exact(KEY_BYTES).filter_map(|key| {
        let (hash, rest) = key.split_first_chunk()?;
        Some((
            u64::from_le_bytes(*hash),
            u64::from_le_bytes(*rest.first_chunk()?),
        ))
    });
    Ok(keys.collect())
}

/// Writes one run in pieces.
struct RunWriter {
    file: Arc<dyn File>,
    number: u32,
    keys: u64,
    bytes: Vec<u8>,
}

impl RunWriter {
    fn new(files: &Files, number: u32) -> Result<Self, FlushError> {
        let file = files.get(Name::Keys(number)).map_err(FlushError::Write)?;
        file.set_len(0).map_err(FlushError::Write)?;
        Ok(Self {
            file,
            number,
            keys: 0,
            bytes: Vec::new(),
        })
    }

    fn push(&mut self, key: Key) -> Result<(), FlushError> {
        self.bytes.extend_from_slice(&key.0.to_le_bytes());
        self.bytes.extend_from_slice(&key.1.to_le_bytes());
        if self.bytes.len() >= PIECE * KEY_BYTES {
            self.write()
        } else {
            Ok(())
        }
    }

    fn write(&mut self) -> Result<(), FlushError> {
        self.file
            .write_at(&self.bytes, self.keys * KEY_BYTES as u64)
            .map_err(FlushError::Write)?;
        self.keys += (self.bytes.len() / KEY_BYTES) as u64;
        self.bytes.clear();
        Ok(())
    }

    fn finish(mut self, level: u32, end: u64) -> Result<RunRow, FlushError> {
        self.write()?;
        self.file.sync().map_err(FlushError::Sync)?;
        Ok(RunRow {
            number: self.number,
            level,
            keys: self.keys,
            end,
        })
    }
}

/// Reads one run in pieces.
struct RunReader {
    file: Arc<dyn File>,
    left: u64,
    at: u64,
    piece: std::vec::IntoIter<Key>,
    next: Option<Key>,
}

impl RunReader {
    fn new(files: &Files, run: &RunRow) -> io::Result<Self> {
        let file = files.get(Name::Keys(run.number))?;
        let mut reader = Self {
            file,
            left: run.keys,
            at: 0,
            piece: Vec::new().into_iter(),
            next: None,
        };
        reader.advance()?;
        Ok(reader)
    }

    const fn peek(&self) -> Option<Key> {
        self.next
    }

    fn advance(&mut self) -> io::Result<()> {
        if self.piece.as_slice().is_empty() && self.left > 0 {
            let count = self.left.min(PIECE as u64);
            self.piece = read_keys(&*self.file, self.at, count as usize)?.into_iter();
            self.at += count;
            self.left -= count;
        }
        self.next = self.piece.next();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory_disk::MemoryDisk;
    use super::*;

    fn index() -> KeyIndex {
        KeyIndex::new(
            Arc::new(Files::new(Arc::new(MemoryDisk::new()))),
            LogId(1),
            Vec::new(),
        )
    }

    fn found(index: &KeyIndex, hash: u64, most: usize) -> Vec<u64> {
        let mut positions = Vec::new();
        let take = |position| {
            positions.push(position);
            Ok(positions.len() < most)
        };
        index.find(hash, take).unwrap();
        positions
    }

    #[test]
    fn keys_are_found_newest_first_in_memory_and_in_runs() {
        let (index, mut number) = (index(), 1);
        // 40 flushes make runs of three levels; hash 7 is everywhere, the others once.
        for i in 0..40_u64 {
            index.extend(&[(7, i * 10 + 1), (1000 + i, i * 10 + 2), (7, i * 10 + 3)]);
            index.begin_flush();
            let new = index.flush(&mut number, 0..i * 10 + 10).unwrap();
            assert_eq!(
                found(&index, 7, 1),
                [i * 10 + 3],
                "keys are found while they are flushed"
            );
            index.end_flush(new);
            index.remove_superseded();
        }
        index.extend(&[(7, 1001), (u64::MAX, 1002)]);
        let newest_first: Vec<_> = [1001]
            .into_iter()
            .chain((0..40).rev().flat_map(|i| [i * 10 + 3, i * 10 + 1]))
            .collect();
        assert_eq!(found(&index, 7, 1000), newest_first);
        assert_eq!(found(&index, 7, 5), newest_first[..5]);
        assert_eq!(found(&index, 1000, 9), [2]);
        assert_eq!(found(&index, 1039, 9), [392]);
        assert_eq!(found(&index, u64::MAX, 9), [1002]);
        assert_eq!(found(&index, 8, 9), [0; 0]);
        let runs = index.runs.read().unwrap().clone();
        assert_eq!(
            runs.iter().map(|run| run.level).collect::<Vec<_>>(),
            [2, 2, 1, 1]
        );
        assert_eq!(
            index.files.disk().list(KEYS).unwrap().len(),
            runs.len(),
            "merged runs are deleted"
        );
        // What stands before 320 is deleted: the first two runs are, of 160 records each.
        let new = index.flush(&mut number, 320..400).unwrap();
        index.end_flush(new);
        index.remove_superseded();
        assert_eq!(index.runs.read().unwrap()[..], runs[2..]);
        assert_eq!(index.files.disk().list(KEYS).unwrap().len(), 2);
        assert_eq!(found(&index, 1039, 9), [392]);
    }

    #[test]
    fn a_key_with_more_positions_than_a_piece_is_read_to_the_end() {
        let (index, mut number) = (index(), 1);
        let many = PIECE as u64 * 3;
        index.extend(&(1..=many).map(|i| (i % 2, i)).collect::<Vec<_>>());
        index.begin_flush();
        let new = index.flush(&mut number, 0..many + 1).unwrap();
        index.end_flush(new);
        assert_eq!(found(&index, 1, usize::MAX).len() as u64, many / 2);
        assert!(found(&index, 0, usize::MAX).windows(2).all(|w| w[0] > w[1]));
    }
}
