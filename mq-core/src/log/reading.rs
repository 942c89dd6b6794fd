//! Reading a log that another process may be writing to, changing nothing.

use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::disk::Disk;
use super::files::Files;
use super::layout::Codec;
use super::open::{OpenError, Settings};
use super::recovery::{check_segments, find_segments};
use super::scan::{self, Scan};
use super::segments::{Segment, Segments};
use super::{LogId, Position, ReadError, Stored};

/// The segments of a log as they were when it was opened. What of them is durable only its owner knows: whoever reads must
/// have learnt from elsewhere how far to go.
#[derive(Debug)]
pub struct LogReader {
    files: Arc<Files>,
    segments: Segments,
    codec: Codec,
}

impl LogReader {
    /// Opens the log on `disk`, such as a [`super::disk::ReadOnlyFolder`]. Nothing is made, changed or locked.
    ///
    /// # Errors
    /// [`OpenError`] when there is no segment, one is missing, or one belongs to another log.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        Self::settled(&Arc::new(Files::new(disk)))
    }

    /// The same log with the segments that it has now: its owner may have made some since, and deleted others.
    ///
    /// # Errors
    /// [`ReadError::Io`], with what [`LogReader::open`] would say.
    pub fn again(&self) -> Result<Self, ReadError> {
        Self::settled(&self.files).map_err(|error| ReadError::Io(error.to_string()))
    }

    /// Looks until nobody has made or deleted a file meanwhile, or nothing was missed although somebody has.
    fn settled(files: &Arc<Files>) -> Result<Self, OpenError> {
        let mut before = files.disk().list("").ok();
        loop {
            let found = Self::look(files);
            let now = files.disk().list("").ok();
            if found.is_ok() || now == before {
                return found;
            }
            before = now;
        }
    }

    fn look(files: &Arc<Files>) -> Result<Self, OpenError> {
        let mut found = find_segments(files)?;
        // Files that are deleted according to the checkpoint, and are still there or again: a crash may have come between.
        if let Ok(Some(Ok(checkpoint))) = Checkpoint::load(&**files.disk()) {
            let is_gone = |segment: &Segment| segment.end() <= checkpoint.kept_from;
            found.retain(|(id, segment)| *id != checkpoint.id || !is_gone(segment));
        }
        let Some((id, _)) = found.first().copied() else {
            return Err(OpenError::Foreign {
                file: "the log's folder".into(),
                what: "it has no segment".into(),
            });
        };
        let segments = check_segments(&found, id, None)?;
        Ok(Self {
            segments: Segments::new(Arc::clone(files), id, &Settings::default(), segments),
            files: Arc::clone(files),
            codec: Codec::new(id),
        })
    }

    /// The log's identity.
    #[must_use]
    pub const fn id(&self) -> LogId {
        self.codec.id()
    }

    /// The oldest position that is kept; what the log has deleted is not, even where a crash has left the file.
    #[must_use]
    pub fn start(&self) -> Position {
        Position(self.segments.first_batch())
    }

    /// The whole record at `at`, which may or may not be durable.
    ///
    /// # Errors
    /// [`ReadError`] if there is none.
    pub fn read(&self, at: Position) -> Result<Stored, ReadError> {
        scan::read(&self.segments, &self.codec, u64::MAX, at.0)
    }

    /// All records from the oldest on, in log order, each checked; up to `durable`, which must be a position up to which the
    /// log is known to be durable, or 0. Behind it as far as there are whole records: those may or may not be durable.
    #[must_use]
    pub fn scan(&self, durable: Position) -> Reading<'_> {
        Reading {
            scan: Scan::from_start(&self.segments, &self.codec, self.start().0),
            durable: durable.0,
        }
    }
}

/// The records of a log that is read beside its owner. After an error it ends.
#[derive(Debug)]
pub struct Reading<'a> {
    scan: Scan<'a>,
    durable: u64,
}

impl Iterator for Reading<'_> {
    type Item = Result<Stored, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let behind = self.scan.position() >= self.durable;
        self.scan.next().filter(|next| next.is_ok() || !behind)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::{fs, io};

    use super::*;
    use crate::clock::ManualClock;
    use crate::log::conformance::{OWNER, append, note};
    use crate::log::disk::{File, FolderDisk, ReadOnlyFolder};
    use crate::log::file::FileLog;
    use crate::log::{Flush, Log as _};
    use crate::random::SeededRandom;

    fn reader(folder: &std::path::Path) -> Result<LogReader, OpenError> {
        LogReader::open(Arc::new(ReadOnlyFolder::new(folder)))
    }

    fn settings() -> Settings {
        Settings {
            segment_bytes: 16 << 10,
            owners: vec![OWNER],
            ..Settings::default()
        }
    }

    #[test]
    fn a_log_is_read_beside_its_owner_as_far_as_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(FolderDisk::open(folder.path()).unwrap());
        let clock = Arc::new(ManualClock::new(0));
        let log = FileLog::open(disk, settings(), clock, &SeededRandom::new(1)).unwrap();
        for number in 0..20_u8 {
            let entries = vec![note(OWNER, &[number; 3000])];
            append(&log, entries, Flush::Sync).unwrap();
        }
        let expected: Vec<Stored> = log.scan(Position(0)).unwrap().map(Result::unwrap).collect();
        let names = || {
            let names = fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = names();
        let reading = reader(folder.path()).unwrap();
        assert_eq!(
            (reading.id(), reading.start()),
            (log.id(), log.range().start)
        );
        for durable in [Position(0), expected[7].position, log.range().end] {
            let records = reading.scan(durable);
            let read: Vec<Stored> = records.map(Result::unwrap).collect();
            assert_eq!(read, expected);
        }
        for record in &expected {
            assert_eq!(reading.read(record.position).as_ref(), Ok(record));
            let inside = Position(record.position.0 + 1);
            assert!(reading.read(inside).is_err());
        }
        assert!(reading.read(Position(u64::MAX)).is_err());
        assert_eq!(names(), before);
        // What is written into a segment that was not there yet.
        let mut placed = Vec::new();
        for _ in 0..10 {
            placed.extend(append(&log, vec![note(OWNER, &[7; 3000])], Flush::Sync).unwrap());
        }
        let last = placed.last().unwrap().position;
        assert!(reading.read(last).is_err());
        assert_eq!(reading.again().unwrap().read(last).unwrap().position, last);
    }

    /// A folder whose oldest file is deleted in the moment in which somebody opens it.
    #[derive(Debug)]
    struct Shrinking(ReadOnlyFolder, PathBuf);

    impl Disk for Shrinking {
        fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
            self.0.open(name)
        }

        fn open_existing(&self, name: &str) -> io::Result<Arc<dyn File>> {
            if name == OLDEST {
                fs::remove_file(self.1.join(name))?;
            }
            self.0.open_existing(name)
        }

        fn list(&self, folder: &str) -> io::Result<Vec<String>> {
            self.0.list(folder)
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }

        fn sync_folder(&self, folder: &str) -> io::Result<()> {
            self.0.sync_folder(folder)
        }
    }

    const OLDEST: &str = "00000000000000000000.log";

    #[test]
    fn a_log_whose_oldest_segment_is_deleted_meanwhile_is_read_from_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(FolderDisk::open(folder.path()).unwrap());
        let clock = Arc::new(ManualClock::new(0));
        let log = FileLog::open(disk, settings(), clock, &SeededRandom::new(1)).unwrap();
        for number in 0..20_u8 {
            let entries = vec![note(OWNER, &[number; 3000])];
            append(&log, entries, Flush::Sync).unwrap();
        }
        let shrinking = Shrinking(ReadOnlyFolder::new(folder.path()), folder.path().into());
        let reading = LogReader::open(Arc::new(shrinking)).unwrap();
        assert!(reading.start() > Position(16 << 10));
        assert!(reading.scan(log.range().end).all(|record| record.is_ok()));
    }

    #[test]
    fn what_is_missing_or_damaged_is_named_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let error = reader(folder.path()).unwrap_err();
        assert!(error.to_string().contains("no segment"), "{error}");
        let gone = folder.path().join("gone");
        assert!(reader(&gone).is_err() && !gone.exists());
        let disk = Arc::new(FolderDisk::open(folder.path()).unwrap());
        let clock = Arc::new(ManualClock::new(0));
        let log = FileLog::open(disk, settings(), clock, &SeededRandom::new(1)).unwrap();
        for number in 0..20_u8 {
            let entries = vec![note(OWNER, &[number; 3000])];
            append(&log, entries, Flush::Sync).unwrap();
        }
        let end = log.range().end;
        drop(log);
        let first = folder.path().join("00000000000000000000.log");
        let whole = fs::read(&first).unwrap();
        let mut touched = whole.clone();
        touched[8000] ^= 1;
        fs::write(&first, &touched).unwrap();
        let reading = reader(folder.path()).unwrap();
        let last = reading.scan(end).last();
        assert!(
            matches!(last, Some(Err(ReadError::Damaged { .. }))),
            "{last:?}"
        );
        // Where nobody says that more was durable, that is the end.
        assert!(reading.scan(Position(0)).all(|record| record.is_ok()));
        let second = folder.path().join("00000000000000016384.log");
        fs::remove_file(second).unwrap();
        let error = reader(folder.path()).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }
}
