//! A disk that is attached to one machine, and can be taken from it and given to another, or have no room for checkpoints.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mq_core::log::disk::{Disk, File};
use mq_core::log::memory_disk::MemoryDisk;

/// The disk as one machine has it.
#[derive(Debug, Clone)]
pub(super) struct Attached {
    disk: MemoryDisk,
    is_gone: Arc<AtomicBool>,
    is_tight: Arc<AtomicBool>,
}

/// The name under which a checkpoint is written.
const CHECKPOINT: &str = "checkpoint.new";

impl Attached {
    pub(super) fn new(disk: &MemoryDisk) -> Self {
        Self {
            disk: disk.clone(),
            is_gone: Arc::default(),
            is_tight: Arc::default(),
        }
    }

    /// Takes the disk away: whatever this machine does to it from here on fails.
    pub(super) fn detach(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
        // What it has open is dead, too.
        self.disk.restart();
    }

    /// Whether there is room for what was set aside, segments that is, and for nothing else.
    pub(super) fn tighten(&self, is_tight: bool) {
        self.is_tight.store(is_tight, Ordering::Relaxed);
    }

    fn here(&self) -> io::Result<&MemoryDisk> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk was taken away"));
        }
        Ok(&self.disk)
    }
}

impl Disk for Attached {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        if name == CHECKPOINT && self.is_tight.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.here()?.open(name)
    }

    fn open_existing(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.here()?.open_existing(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.here()?.list(folder)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.here()?.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.here()?.remove(name)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.here()?.sync_folder(folder)
    }
}
