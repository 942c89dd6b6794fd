//! The segments: which exist, reading from them by position, and preparing the next one.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::disk::File;
use super::files::{Files, NEW, Name};
use super::layout::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::open::Settings;
use super::steps::{SEGMENT_CREATED, Steps};
use super::{LogId, Position, ReadError, lock};

/// One segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Position of its first byte.
    pub(super) start: u64,
    /// Length of its file.
    pub(super) length: u64,
}

impl Segment {
    pub(super) const fn end(self) -> u64 {
        self.start + self.length
    }

    /// Position of its first batch.
    pub(super) const fn first_batch(self) -> u64 {
        self.start + SEGMENT_HEADER_BYTES
    }

    pub(super) const fn name(self) -> Name {
        Name::Segment(self.start)
    }

    pub(super) const fn contains(self, position: u64) -> bool {
        position >= self.start && position < self.end()
    }

    /// Damage at `position`, in the words of this segment's file.
    pub(super) fn damaged(self, position: u64, what: impl ToString) -> ReadError {
        ReadError::Damaged {
            file: self.name().to_string(),
            offset: position - self.start,
            what: what.to_string(),
        }
    }
}

/// All segments of a log, laid end to end.
#[derive(Debug)]
pub(super) struct Segments {
    files: Arc<Files>,
    id: LogId,
    length: u64,
    /// How much of the log behind a new segment is left in the operating system's cache.
    cached: u64,
    steps: Steps,
    known: RwLock<BTreeMap<u64, Segment>>,
    /// Held while a segment is made, so that it is made once.
    making: Mutex<()>,
}

impl Segments {
    /// The segments `known`, which must be contiguous; new ones are made as `settings` say.
    pub(super) fn new(
        files: Arc<Files>,
        id: LogId,
        settings: &Settings,
        known: Vec<Segment>,
    ) -> Self {
        let known = known
            .into_iter()
            .map(|segment| (segment.start, segment))
            .collect();
        Self {
            files,
            id,
            length: settings.segment_bytes,
            cached: settings.cached_bytes,
            steps: Steps(settings.steps.clone()),
            known: RwLock::new(known),
            making: Mutex::default(),
        }
    }

    /// The segment that holds `position`.
    pub(super) fn of(&self, position: u64) -> Option<Segment> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .range(..=position)
            .next_back()
            .map(|(_, segment)| *segment)
            .filter(|segment| segment.contains(position))
    }

    /// All segments, oldest first.
    pub(super) fn all(&self) -> Vec<Segment> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .copied()
            .collect()
    }

    /// Position of the oldest kept batch.
    pub(super) fn first_batch(&self) -> u64 {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .values()
            .next()
            .map_or(SEGMENT_HEADER_BYTES, |segment| segment.first_batch())
    }

    /// Why nothing is at `position`, which no segment holds.
    pub(super) fn nothing_at(&self, position: u64) -> ReadError {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let oldest = known.keys().next().copied().unwrap_or(0);
        if position < oldest {
            ReadError::Gone(Position(position))
        } else {
            ReadError::NotARecord(Position(position))
        }
    }

    /// From now on nothing before `start`, the start of a segment, is found. Returns what is forgotten, oldest first.
    pub(super) fn forget_before(&self, start: u64) -> Vec<Segment> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let kept = known.split_off(&start);
        std::mem::replace(&mut *known, kept).into_values().collect()
    }

    pub(super) fn file(&self, segment: Segment) -> io::Result<Arc<dyn File>> {
        self.files.get(segment.name())
    }

    /// Reads `into.len()` bytes at `position`, which must all be in `segment`.
    pub(super) fn read(
        &self,
        segment: Segment,
        position: u64,
        into: &mut [u8],
    ) -> Result<(), ReadError> {
        let read = self
            .file(segment)
            .and_then(|file| file.read_at(into, position - segment.start));
        read.map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                segment.damaged(position, "the file is cut short")
            } else if self.of(position).is_none() {
                self.nothing_at(position)
            } else {
                let offset = position - segment.start;
                ReadError::Io(format!("{} at byte {offset}: {error}", segment.name()))
            }
        })
    }

    /// The segment that starts at `start`, making it if it is not there yet. Slow then: it is written with zeros.
    ///
    /// # Errors
    /// `StorageFull` or another error of the disk. Nothing of the segment remains, and trying again is safe: it will be
    /// another file.
    pub(super) fn at_or_make(&self, start: u64) -> io::Result<Segment> {
        let _making = lock(&self.making);
        if let Some(segment) = self.of(start) {
            return Ok(segment);
        }
        let segment = Segment {
            start,
            length: self.length,
        };
        self.make(segment).inspect_err(|_| {
            // Best effort: what is left over is deleted at the next start.
            let _ = self
                .files
                .disk()
                .remove(&format!("{}{NEW}", segment.name()));
        })?;
        self.known
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(start, segment);
        self.steps.at(SEGMENT_CREATED);
        Ok(segment)
    }

    /// Lets go of the memory of segments that ended long before `start`.
    ///
    /// A new segment touches as many pages as it has. Pages that old segments give back cost a third of pages the machine
    /// has to find, on a virtual machine far less.
    fn let_go_of_cache(&self, start: u64) {
        for segment in self.all().into_iter().rev() {
            let age = start.saturating_sub(segment.end());
            if age < self.cached {
                continue;
            }
            if let Err(error) = self.file(segment).and_then(|file| file.forget()) {
                tracing::debug!(%error, segment = %segment.name(), "its memory could not be let go");
            }
            if age >= self.cached + segment.length {
                return;
            }
        }
    }

    fn make(&self, segment: Segment) -> io::Result<()> {
        self.let_go_of_cache(segment.start);
        let disk = self.files.disk();
        let (new, name) = (
            format!("{}{NEW}", segment.name()),
            segment.name().to_string(),
        );
        disk.remove(&new)?;
        disk.make_zeros(&new, segment.length)?;
        let file = disk.open(&new)?;
        let header = SegmentHeader {
            id: self.id,
            start: segment.start,
            length: segment.length,
        };
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        drop(file);
        disk.rename(&new, &name)?;
        disk.sync_folder("")
    }
}
