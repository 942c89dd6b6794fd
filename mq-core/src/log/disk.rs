//! Files, behind one trait: the only file that opens any.
//!
//! The names are relative to one folder, which a [`Disk`] owns and has locked. All calls block; they are made from the
//! log's thread or for reads that the page cache answers.

use std::fmt;
use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use super::open::OpenError;

/// One folder of files.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file for reading and writing, creating it empty if it is missing. A new file's name is durable only after
    /// [`Disk::sync_folder`]. A folder in the name (`folder/name`) is created, durably, if it is missing.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens a file that is there, as [`Disk::open`] does, and never creates one.
    ///
    /// # Errors
    /// `NotFound`, or whatever the operating system says.
    fn open_existing(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// The names of the files in the folder, sorted; empty for a folder that does not exist.
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

    /// Makes a file of `len` zeros, durable but for its name, whose bytes can be overwritten and synced without the disk
    /// having to find room for them. A file of that name must not exist.
    ///
    /// # Errors
    /// `StorageFull`, or whatever the operating system says; part of the file may be there.
    fn make_zeros(&self, name: &str, len: u64) -> io::Result<()> {
        write_zeros(&*self.open(name)?, len, &vec![0; ZEROS_BYTES])
    }
}

/// Zeros are written in pieces of this size: large enough to be fast, small enough to cost no memory.
const ZEROS_BYTES: usize = 256 << 10;
/// A file of zeros is synced whenever this much of it is written, so that the fsyncs of others do not wait behind it.
const SYNC_BYTES: u64 = 8 << 20;
/// What writes past the page cache must be aligned to.
const PAGE_BYTES: usize = 4 << 10;

fn write_zeros(file: &dyn File, len: u64, zeros: &[u8]) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        let piece = len - at;
        let piece =
            usize::try_from(piece).map_or(zeros, |piece| zeros.get(..piece).unwrap_or(zeros));
        file.write_at(piece, at)?;
        at += piece.len() as u64;
        if at.is_multiple_of(SYNC_BYTES) {
            file.sync()?;
        }
    }
    file.sync()
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

    /// Tells the operating system that what is durable of this file will hardly be read soon, so that its memory can serve
    /// other pages. Changes nothing else; a disk without a cache does nothing.
    ///
    /// # Errors
    /// Whatever the operating system says; nothing is lost.
    fn forget(&self) -> io::Result<()> {
        Ok(())
    }

    /// Gives the room of the first `bytes` bytes back to the disk, where it can; nobody reads them any more. The length stays.
    ///
    /// # Errors
    /// Whatever the operating system says; nothing is lost.
    fn free(&self, bytes: u64) -> io::Result<()> {
        let _ = bytes;
        Ok(())
    }

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Name of the file whose lock says that the folder is in use.
const LOCK_FILE: &str = "lock";

/// A real folder, locked for as long as this lives.
pub struct FolderDisk {
    folder: PathBuf,
    /// Closing it gives up the lock, also when the process dies.
    _lock: fs::File,
}

impl fmt::Debug for FolderDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FolderDisk").field(&self.folder).finish()
    }
}

impl FolderDisk {
    /// Opens the folder at `path`, creating it if it is missing, and locks it.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when somebody has it, [`OpenError::NotWritable`], [`OpenError::Full`], [`OpenError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let folder = path.as_ref().to_path_buf();
        let shown = |path: &Path| path.display().to_string();
        create_folder(&folder).map_err(|error| OpenError::from_io(shown(&folder), &error))?;
        let lock_path = folder.join(LOCK_FILE);
        let failed = |error: &io::Error| OpenError::from_io(shown(&lock_path), error);
        let lock = open_or_create(&lock_path).map_err(|error| failed(&error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                folder,
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked {
                folder: shown(&folder),
            }),
            Err(TryLockError::Error(error)) => Err(failed(&error)),
        }
    }
}

impl Disk for FolderDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            create_folder(parent)?;
        }
        Ok(Arc::new(RealFile(open_or_create(&path)?)))
    }

    fn open_existing(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .open(self.folder.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        list(&self.folder.join(folder))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        fs::File::open(self.folder.join(folder))?.sync_all()
    }

    /// Past the page cache where the file system can: zeros that nobody will read are neither copied nor kept.
    fn make_zeros(&self, name: &str, len: u64) -> io::Result<()> {
        let buffer = vec![0; ZEROS_BYTES + PAGE_BYTES];
        let skipped = buffer.as_ptr().align_offset(PAGE_BYTES);
        let zeros = buffer
            .get(skipped..)
            .and_then(|aligned| aligned.get(..ZEROS_BYTES));
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            create_folder(parent)?;
        }
        let direct = OpenOptions::new()
            .write(true)
            .create_new(true)
            .custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32)
            .open(path);
        match (direct, zeros) {
            (Ok(file), Some(zeros)) if len.is_multiple_of(PAGE_BYTES as u64) => {
                match write_zeros(&RealFile(file), len, zeros) {
                    // As a file system says that has no such writes.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                    written => return written,
                }
            }
            (Err(error), _) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
            _ => {}
        }
        write_zeros(
            &*self.open(name)?,
            len,
            buffer.get(..ZEROS_BYTES).unwrap_or(&buffer),
        )
    }
}

/// A folder that somebody else may have locked, for reading only: nothing in it is made or changed.
#[derive(Debug)]
pub struct ReadOnlyFolder {
    folder: PathBuf,
}

impl ReadOnlyFolder {
    /// The folder at `path`, which need not exist before something in it is asked for.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            folder: path.into(),
        }
    }

    fn refuse(&self) -> io::Error {
        let what = format!("{} was opened for reading only", self.folder.display());
        io::Error::new(io::ErrorKind::Unsupported, what)
    }
}

impl Disk for ReadOnlyFolder {
    /// Opens a file that is there; writing to it fails.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(fs::File::open(self.folder.join(name))?)))
    }

    fn open_existing(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.open(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        list(&self.folder.join(folder))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(self.refuse())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(self.refuse())
    }

    fn sync_folder(&self, _: &str) -> io::Result<()> {
        Err(self.refuse())
    }
}

/// Creates a folder and those above it, and makes the new names durable.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    create_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::File::open(parent)?.sync_all(),
    }
}

fn open_or_create(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// The names of the files in `folder`, sorted.
fn list(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

struct RealFile(fs::File);

impl fmt::Debug for RealFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl File for RealFile {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(into, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn forget(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(
            &self.0,
            0,
            None,
            rustix::fs::Advice::DontNeed,
        )?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn free(&self, bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.0, flags, 0, bytes) {
            // A file system that cannot keeps the room.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            freed => Ok(freed?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/log");
        let disk = FolderDisk::open(&path).unwrap();
        let error = FolderDisk::open(&path).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("new/log is in use by another process"),
            "{error}"
        );
        drop(disk);
        FolderDisk::open(&path).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let error = FolderDisk::open(file.join("log")).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }

    /// A folder that knows only what every disk must.
    #[derive(Debug)]
    struct Plain(FolderDisk);

    impl Disk for Plain {
        fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
            self.0.open(name)
        }

        fn open_existing(&self, name: &str) -> io::Result<Arc<dyn File>> {
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

    fn is_made_of_zeros(disk: &dyn Disk, name: &str, len: u64) {
        disk.make_zeros(name, len).unwrap();
        let file = disk.open(name).unwrap();
        assert_eq!(file.len().unwrap(), len);
        let mut bytes = vec![1; len as usize];
        file.read_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "{len} zeros");
    }

    #[test]
    fn a_file_of_zeros_has_the_length_that_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let plain = Plain(FolderDisk::open(folder.path().join("plain")).unwrap());
        // The last lengths are no whole number of pages, which cannot be written past the page cache.
        let lengths = [
            0,
            4 << 10,
            256 << 10,
            (9 << 20) + (8 << 10),
            1,
            (256 << 10) + 7,
        ];
        for len in lengths {
            is_made_of_zeros(&disk, &format!("zeros-{len}"), len);
            is_made_of_zeros(&plain, &format!("zeros-{len}"), len);
        }
    }

    #[test]
    fn zeros_never_take_the_place_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        disk.open("kept").unwrap().write_at(b"bytes", 0).unwrap();
        for len in [4 << 10, 7] {
            let error = disk.make_zeros("kept", len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read(folder.path().join("kept")).unwrap(), b"bytes");
    }

    #[test]
    fn files_are_written_listed_renamed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let file = disk.open("sub/a").unwrap();
        file.write_at(b"hello", 3).unwrap();
        file.sync().unwrap();
        let mut read = [0; 5];
        file.read_at(&mut read, 3).unwrap();
        assert_eq!((&read, file.len().unwrap()), (b"hello", 8));
        assert_eq!(
            file.read_at(&mut read, 4).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        disk.rename("sub/a", "sub/b").unwrap();
        disk.sync_folder("sub").unwrap();
        assert_eq!(disk.list("sub").unwrap(), ["b"]);
        disk.remove("sub/b").unwrap();
        disk.remove("sub/b").unwrap();
        assert_eq!(disk.list("sub").unwrap(), [""; 0]);
        assert_eq!(disk.list("none").unwrap(), [""; 0]);
    }
}
