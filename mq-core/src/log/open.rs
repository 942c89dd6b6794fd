//! What it takes to open a log of files: its settings, and the reasons to refuse.

use std::fmt;
use std::io;
use std::time::Duration;

use super::OwnerId;
use super::layout::{BATCH_HEADER_BYTES, SEGMENT_HEADER_BYTES, STAMP_BYTES};
use super::steps::Hook;

/// How a log of files behaves. Start from `Settings::default()`.
#[derive(Clone)]
pub struct Settings {
    /// Length of a new segment file; at least 16 KiB, a multiple of 4 KiB, 64 MiB unless set. No append may be larger.
    pub segment_bytes: u64,
    /// How much of the log's end is left in the operating system's cache when a segment is made; 256 MiB unless set.
    /// Consumers that lag further behind read from the disk.
    pub cached_bytes: u64,
    /// Appends are gathered into one write up to this size; 4 MiB unless set. A larger append is written alone.
    pub batch_bytes: usize,
    /// Most appends that wait for the writer; 65,536 unless set.
    pub waiting_appends: usize,
    /// Most bytes that wait for the writer; 32 MiB unless set. One append alone may be larger.
    pub waiting_bytes: usize,
    /// How long after the first [`super::Flush::Async`] write the fsync starts; 5 ms unless set.
    pub sync_after: Duration,
    /// A checkpoint is written after this much new log; 64 MiB unless set. Start replays at most about this much.
    pub checkpoint_bytes: u64,
    /// A checkpoint is written this long after the last one if anything was appended; 10 s unless set.
    pub checkpoint_every: Duration,
    /// A checkpoint is written once the indexes hold this much in memory; 3 MiB unless set.
    pub index_bytes: usize,
    /// Topics whose keys are left out of [`super::Log::find_key`].
    pub unindexed_topics: Vec<String>,
    /// The owners, beside the broker, that may mark records. A log in which another owner has marked does not open.
    pub owners: Vec<OwnerId>,
    /// The oldest segments may go once everything in them is older than this, in server time; kept for ever unless set.
    pub keep_for: Option<Duration>,
    /// The oldest segments may go while all of them together have more bytes than this; no limit unless set. The segment that
    /// is written stays.
    pub keep_bytes: Option<u64>,
    /// Called at each step of [`super::steps::ALL`].
    pub steps: Option<Hook>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            cached_bytes: 256 << 20,
            batch_bytes: 4 << 20,
            waiting_appends: 65_536,
            waiting_bytes: 32 << 20,
            sync_after: Duration::from_millis(5),
            checkpoint_bytes: 64 << 20,
            checkpoint_every: Duration::from_secs(10),
            index_bytes: 3 << 20,
            unindexed_topics: Vec::new(),
            owners: Vec::new(),
            keep_for: None,
            keep_bytes: None,
            steps: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("segment_bytes", &self.segment_bytes)
            .field("batch_bytes", &self.batch_bytes)
            .field("owners", &self.owners)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Smallest segment: room for its header and some batches.
    pub const SEGMENT_MIN_BYTES: u64 = 16 << 10;
    /// Largest segment: batch and record lengths must stay far below 32 bits.
    pub const SEGMENT_MAX_BYTES: u64 = 1 << 30;

    /// Checks what would make a log that cannot work.
    ///
    /// # Errors
    /// [`OpenError::Settings`] names the setting.
    pub fn check(&self) -> Result<(), OpenError> {
        let wrong = |what: String| Err(OpenError::Settings(what));
        let sizes = Self::SEGMENT_MIN_BYTES..=Self::SEGMENT_MAX_BYTES;
        if !sizes.contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(4096) {
            return wrong(format!(
                "segment_bytes is {}; it must be a multiple of 4096 from 16 KiB to 1 GiB",
                self.segment_bytes
            ));
        }
        if self.waiting_appends == 0 || self.waiting_bytes == 0 || self.batch_bytes == 0 {
            return wrong("waiting_appends, waiting_bytes and batch_bytes must not be 0".into());
        }
        Ok(())
    }

    /// Most bytes that the records of one append may need, headers included: they stand in one batch, with any stamps.
    pub(super) fn append_max_bytes(&self) -> u64 {
        let stamps = 255 * STAMP_BYTES as u64;
        self.segment_bytes - SEGMENT_HEADER_BYTES - BATCH_HEADER_BYTES as u64 - stamps
    }
}

/// Why a log does not open. Each names the file and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting cannot work.
    #[error("a setting of the log is wrong: {0}")]
    Settings(String),
    /// Another process has the folder.
    #[error(
        "{folder} is in use by another process (its lock file is held); stop that process or choose another folder"
    )]
    Locked {
        /// The folder.
        folder: String,
    },
    /// The folder or a file cannot be created or written.
    #[error("{file} cannot be written: {what}; check its owner and permissions")]
    NotWritable {
        /// File or folder.
        file: String,
        /// What the operating system says.
        what: String,
    },
    /// There is no room for the files a log needs to start.
    #[error("the disk is full: {file} cannot be written ({what}); free some space and start again")]
    Full {
        /// The file.
        file: String,
        /// What the operating system says.
        what: String,
    },
    /// A file belongs to something else: another log, another program.
    #[error(
        "{file} does not belong to this log: {what}; choose another folder or put the right file back"
    )]
    Foreign {
        /// The file.
        file: String,
        /// How that shows.
        what: String,
    },
    /// A newer program has written the file.
    #[error(
        "{file} has layout version {version}, which is newer than this program; start the newer program"
    )]
    NewerVersion {
        /// The file.
        file: String,
        /// Its version.
        version: u16,
    },
    /// Bytes that were durable are not what was written.
    #[error(
        "{file} is damaged at byte {offset}: {what}; nothing was changed, restore the file from a backup"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// The log holds records of an owner that is not there.
    #[error("the log holds records marked by owner {}, who is not among the owners given; start with the extension that uses this owner", .0.0)]
    OwnerMissing(OwnerId),
    /// The disk failed.
    #[error("{file} cannot be used: {what}; check the disk and start again")]
    Io {
        /// The file.
        file: String,
        /// What the operating system says.
        what: String,
    },
}

impl OpenError {
    /// What `error`, met at `file`, means for somebody who wants to open a log.
    #[must_use]
    pub fn from_io(file: impl Into<String>, error: &io::Error) -> Self {
        let (file, what) = (file.into(), error.to_string());
        let denied = matches!(
            error.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        );
        if is_full(error) {
            Self::Full { file, what }
        } else if denied {
            Self::NotWritable { file, what }
        } else {
            Self::Io { file, what }
        }
    }
}

/// Whether the disk had no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
