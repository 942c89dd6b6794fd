//! Copying the files of a log to which somebody may be writing.
//!
//! A log only grows, and a batch is written once the one before it is. A segment is therefore read from its end to its
//! beginning, and the newest segment first: whatever is found somewhere, everything before it was there already. What the
//! copy ends with may be a batch that was half written, which an opened log cuts off like any other.
//!
//! One read of many bytes is not enough for that: while it goes forward, two batches may be written, of which it finds the
//! second alone. So everything is read twice. A byte of the log is written once, so if both find the same, that is what
//! stood there between the two.
//!
//! Retention deletes the oldest segments meanwhile. What the copy of the database refers to must be in the copy of the log, so
//! they are opened before the database is copied: a file that is open can be read although its name is gone.
//!
//! Indexes and checkpoint are left out: an opened log makes them anew from its segments.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Read and written at once.
const PIECE: usize = 1 << 20;
/// Read at once where somebody is writing.
const PAGE: usize = 4 << 10;
/// How a segment's name ends.
const SEGMENT: &str = ".log";

/// What was copied.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Copied {
    /// How many segments.
    pub(super) segments: usize,
    /// Bytes in them that are not zero, in whole pieces.
    pub(super) bytes: u64,
}

/// The oldest segments of a log, kept open so that their bytes stay.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<OsString, File>);

/// Most segments that are kept open.
const HELD: usize = 256;

impl Held {
    /// Opens the oldest segments in `from`.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub(super) fn open(from: &Path) -> io::Result<Self> {
        let mut held = BTreeMap::new();
        for name in names(from)?.into_iter().take(HELD) {
            match File::open(from.join(&name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                file => drop(held.insert(name, file?)),
            }
        }
        Ok(Self(held))
    }
}

/// Copies the segments in `from`, and those that are `held`, into the new folder `to`, durably.
///
/// # Errors
/// Whatever the operating system says; part of the copy may be there.
pub(super) fn segments(from: &Path, to: &Path, held: &mut Held) -> io::Result<Copied> {
    let mut all = names(from)?;
    all.extend(held.0.keys().cloned());
    all.sort();
    all.dedup();
    fs::create_dir(to)?;
    let mut copied = Copied::default();
    let mut behind = None;
    for name in all.iter().rev() {
        let file = match held.0.remove(name) {
            Some(file) => file,
            None => File::open(from.join(name))?,
        };
        let start = start(name);
        let end = start + file.metadata()?.len();
        if behind.is_some_and(|behind| behind != end) {
            let what = format!("what follows position {end} was deleted before it could be copied");
            return Err(io::Error::other(what));
        }
        behind = Some(start);
        copied.bytes += backwards(&file, &to.join(name))?;
        copied.segments += 1;
    }
    sync(to)?;
    Ok(copied)
}

/// The names of the segments, oldest first: they have the same length and tell where a segment begins.
fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if name.to_string_lossy().ends_with(SEGMENT) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Where a segment begins.
fn start(name: &OsString) -> u64 {
    let name = name.to_string_lossy();
    let number = name.strip_suffix(SEGMENT).unwrap_or_default();
    number.parse().unwrap_or(0)
}

/// Copies one file from its end to its beginning.
fn backwards(from: &File, to: &Path) -> io::Result<u64> {
    let length = from.metadata()?.len();
    let to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    to.set_len(length)?;
    let (mut piece, mut again) = (vec![0; PIECE], vec![0; PIECE]);
    let (mut at, mut bytes) = (length, 0);
    while at > 0 {
        let start = (at - 1) / PIECE as u64 * PIECE as u64;
        let wanted = usize::try_from(at - start).unwrap_or(PIECE);
        let part = piece.get_mut(..wanted).unwrap_or_default();
        let again = again.get_mut(..wanted).unwrap_or_default();
        if !is_still(from, start, part, again)? {
            for (number, part) in part.chunks_mut(PAGE).enumerate().rev() {
                let (start, again) = (start + (number * PAGE) as u64, again.get_mut(..part.len()));
                let again = again.unwrap_or_default();
                // A page has room for few batches, and a batch takes longer than a look at a page.
                while !is_still(from, start, part, again)? {}
            }
        }
        if part.iter().any(|byte| *byte != 0) {
            to.write_all_at(part, start)?;
            bytes += part.len() as u64;
        }
        at = start;
    }
    to.sync_all()?;
    Ok(bytes)
}

/// Reads the bytes at `start` twice; whether nobody wrote there meanwhile.
fn is_still(from: &File, start: u64, part: &mut [u8], again: &mut [u8]) -> io::Result<bool> {
    from.read_exact_at(part, start)?;
    from.read_exact_at(again, start)?;
    Ok(part == again)
}

/// Makes a file, or the names in a folder, durable.
///
/// # Errors
/// Whatever the operating system says.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Copies a file of ones that grows in one of zeros, as fast as it can be written; whether each copy is without a hole.
    fn copies_while_it_grows(folder: &Path) -> bool {
        const RECORD: usize = 64;
        let (from, to) = (folder.join("0.log"), folder.join("copy"));
        let (file, done) = (File::create(&from).unwrap(), &AtomicBool::new(false));
        file.set_len(2 * PIECE as u64).unwrap();
        let mut whole = true;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..2 * PIECE / RECORD {
                    file.write_all_at(&[1; RECORD], (number * RECORD) as u64)
                        .unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                backwards(&File::open(&from).unwrap(), &to).unwrap();
                let copy = fs::read(&to).unwrap();
                let end = copy.iter().position(|byte| *byte == 0);
                let behind = copy.get(end.unwrap_or(copy.len())..).unwrap();
                whole &= behind.iter().all(|byte| *byte == 0);
                fs::remove_file(&to).unwrap();
            }
        });
        fs::remove_file(&from).unwrap();
        whole
    }

    #[test]
    fn a_copy_of_a_file_that_grows_has_no_hole() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..20 {
            assert!(copies_while_it_grows(folder.path()), "round {round}");
        }
    }

    #[test]
    fn a_copy_has_the_bytes_and_leaves_the_room_of_zeros_out() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        fs::create_dir(&from).unwrap();
        let mut bytes = vec![0; 3 * PIECE + 17];
        bytes[PIECE + 5] = 7;
        bytes[3 * PIECE + 16] = 9;
        fs::write(from.join("0.log"), &bytes).unwrap();
        fs::write(from.join("checkpoint"), "x").unwrap();
        let copied = segments(&from, &to, &mut Held::default()).unwrap();
        assert_eq!((copied.segments, copied.bytes), (1, PIECE as u64 + 17));
        assert_eq!(fs::read(to.join("0.log")).unwrap(), bytes);
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    }

    #[test]
    fn a_segment_that_is_deleted_meanwhile_is_in_the_copy() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        fs::create_dir(&from).unwrap();
        for name in ["00.log", "06.log"] {
            fs::write(from.join(name), name).unwrap();
        }
        let mut held = Held::open(&from).unwrap();
        fs::remove_file(from.join("00.log")).unwrap();
        fs::write(from.join("12.log"), "12.log").unwrap();
        let copied = segments(&from, &to, &mut held).unwrap();
        assert_eq!(copied.segments, 3);
        for name in ["00.log", "06.log", "12.log"] {
            assert_eq!(fs::read_to_string(to.join(name)).unwrap(), name);
        }
    }

    #[test]
    fn a_log_that_deletes_faster_than_it_is_copied_is_no_backup() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("00.log"), "00.log").unwrap();
        let mut held = Held::open(&from).unwrap();
        fs::remove_file(from.join("00.log")).unwrap();
        // 06.log came and went.
        fs::write(from.join("12.log"), "12.log").unwrap();
        let error = segments(&from, &to, &mut held).unwrap_err();
        assert!(error.to_string().contains("follows position 6"), "{error}");
    }
}
