//! The names of the log's files and a bounded number of open ones.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use super::disk::{Disk, File};
use super::lock;

/// Most files kept open: far below the usual limit of 1024 for a process.
const OPEN_MAX: usize = 128;
/// End of a name that is being made.
pub(super) const NEW: &str = ".new";
/// End of a segment's name.
const SEGMENT: &str = ".log";
/// Folder of the queues' indexes.
pub(super) const QUEUES: &str = "queues";
/// Folder of the key runs.
pub(super) const KEYS: &str = "keys";
/// The checkpoint's name.
pub(super) const CHECKPOINT: &str = "checkpoint";

/// A file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// The segment that starts at this position.
    Segment(u64),
    /// The index of the queue with this number.
    Queue(u32),
    /// The key run with this number.
    Keys(u32),
}

impl Name {
    /// The segment whose file is called `name`.
    pub(super) fn segment(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(SEGMENT)?;
        let well_formed = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
        digits
            .parse()
            .ok()
            .filter(|_| well_formed)
            .map(Self::Segment)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(start) => write!(f, "{start:020}{SEGMENT}"),
            Self::Queue(number) => write!(f, "{QUEUES}/{number:010}"),
            Self::Keys(number) => write!(f, "{KEYS}/{number:010}"),
        }
    }
}

/// Opens files once and keeps the ones used last.
#[derive(Debug)]
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    uses: u64,
    files: HashMap<Name, (Arc<dyn File>, u64)>,
}

impl Files {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            open: Mutex::default(),
        }
    }

    pub(super) const fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The open file; it is created if it is missing, unless it is a segment: those are made in another way, and one that is
    /// missing may have been deleted a moment ago.
    pub(super) fn get(&self, name: Name) -> io::Result<Arc<dyn File>> {
        let mut open = lock(&self.open);
        open.uses += 1;
        let now = open.uses;
        if let Some((file, used)) = open.files.get_mut(&name) {
            *used = now;
            return Ok(file.clone());
        }
        let file = match name {
            Name::Segment(_) => self.disk.open_existing(&name.to_string())?,
            Name::Queue(_) | Name::Keys(_) => self.disk.open(&name.to_string())?,
        };
        if open.files.len() >= OPEN_MAX {
            let oldest = open
                .files
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(name, _)| *name);
            oldest.and_then(|oldest| open.files.remove(&oldest));
        }
        open.files.insert(name, (file.clone(), now));
        Ok(file)
    }

    /// Removes the file; one that is missing is no error.
    pub(super) fn remove(&self, name: Name) -> io::Result<()> {
        let mut open = lock(&self.open);
        open.files.remove(&name);
        self.disk.remove(&name.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_named_by_its_start() {
        assert_eq!(
            Name::Segment(67_108_864).to_string(),
            "00000000000067108864.log"
        );
        assert_eq!(
            Name::segment("00000000000067108864.log"),
            Some(Name::Segment(67_108_864))
        );
        for other in [
            "0.log",
            "00000000000067108864",
            "+0000000000067108864.log",
            "99999999999999999999.log",
        ] {
            assert_eq!(Name::segment(other), None, "{other}");
        }
    }
}
