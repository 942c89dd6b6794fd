//! Files, behind one trait: the only file that opens any.
//!
//! The names are relative to one folder, which a [`Disk`] owns and has locked. All calls block; they are made from the
//! log's thread or for reads that the page cache answers.

use std::fmt;
use std::io;
use std::sync::Arc;

/// One folder of files.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file for reading and writing, creating it empty if it is missing. A new file's name is durable only after
    /// [`Disk::sync_folder`].
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// The names in the folder, sorted; empty for a folder that does not exist.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Makes `to` the name of what was `from`, replacing what was there. Durable only after [`Disk::sync_folder`].
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; one that is missing is no error.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names in `folder` durable ("" is the disk's own folder).
    ///
    /// # Errors
    /// Whatever the operating system says. Never try again: treat as a failed [`File::sync`].
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
}

/// One open file, shared by everyone who opened it.
pub trait File: fmt::Debug + Send + Sync + 'static {
    /// Reads exactly `into.len()` bytes from `at`.
    ///
    /// # Errors
    /// `UnexpectedEof` behind the end of the file, or whatever the operating system says.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()>;

    /// Writes all `bytes` at `at`, growing the file if needed. Not durable before [`File::sync`].
    ///
    /// # Errors
    /// `StorageFull`, or whatever the operating system says; any part of `bytes` may have been written.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes everything written so far durable (fdatasync).
    ///
    /// # Errors
    /// Whatever the operating system says. What was written since the last success is lost or not: never try again.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Cuts or extends (with zeros) to `len` bytes.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}
