//! Copying the files of a log to which somebody may be writing.
//!
//! A log only grows, and a batch is written once the one before it is. A segment is therefore read from its end to its
//! beginning, and the newest segment first: whatever is found somewhere, everything before it was there already. What the
//! copy ends with may be a batch that was half written, which an opened log cuts off like any other.
//! Indexes and checkpoint are left out: an opened log makes them anew from its segments.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Read and written at once.
const PIECE: usize = 1 << 20;
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

/// Copies the segments in `from` into the new folder `to`, durably.
///
/// # Errors
/// Whatever the operating system says; part of the copy may be there.
pub(super) fn segments(from: &Path, to: &Path) -> io::Result<Copied> {
    let mut names = Vec::new();
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if name.to_string_lossy().ends_with(SEGMENT) {
            names.push(name);
        }
    }
    // Names have the same length and tell where a segment begins.
    names.sort();
    fs::create_dir(to)?;
    let mut copied = Copied::default();
    for name in names.iter().rev() {
        copied.bytes += backwards(&from.join(name), &to.join(name))?;
        copied.segments += 1;
    }
    sync(to)?;
    Ok(copied)
}

/// Copies one file from its end to its beginning.
fn backwards(from: &Path, to: &Path) -> io::Result<u64> {
    let from = File::open(from)?;
    let length = from.metadata()?.len();
    let to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    to.set_len(length)?;
    let (mut piece, mut at, mut bytes) = (vec![0; PIECE], length, 0);
    while at > 0 {
        let start = (at - 1) / PIECE as u64 * PIECE as u64;
        let wanted = usize::try_from(at - start).unwrap_or(PIECE);
        let part = piece.get_mut(..wanted).unwrap_or_default();
        from.read_exact_at(part, start)?;
        if part.iter().any(|byte| *byte != 0) {
            to.write_all_at(part, start)?;
            bytes += part.len() as u64;
        }
        at = start;
    }
    to.sync_all()?;
    Ok(bytes)
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
    use super::*;

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
        let copied = segments(&from, &to).unwrap();
        assert_eq!((copied.segments, copied.bytes), (1, PIECE as u64 + 17));
        assert_eq!(fs::read(to.join("0.log")).unwrap(), bytes);
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    }
}
