//! A [`Disk`] in memory that can crash, fail and fill up, for tests and simulations.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, File};
use crate::random::{Random, SeededRandom};

/// What a crash keeps or loses as a whole: sectors are written entirely or not at all.
const SECTOR_BYTES: u64 = 512;

/// A folder in memory. Clones are the same folder.
///
/// Bytes are *synced* or not, names too; [`MemoryDisk::crash`] keeps what was synced and loses, keeps or tears the rest.
/// A failed sync loses what it should have made durable, although reads still show it, as Linux does: only writing it
/// again helps.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Raised by a crash, so that handles from before are dead.
    life: u64,
    /// The power is off: whoever still runs can do nothing to the folder.
    off: bool,
    names: BTreeMap<String, FileNumber>,
    durable_names: BTreeMap<String, FileNumber>,
    name_changes: Vec<NameChange>,
    files: BTreeMap<FileNumber, Content>,
    next_file: FileNumber,
    capacity: Option<u64>,
    writes: Countdown,
    syncs: Countdown,
}

type FileNumber = u64;

/// Calls so far, and those that fail.
#[derive(Default)]
struct Countdown {
    calls: u64,
    fail_at: Option<(u64, io::ErrorKind)>,
}

impl Countdown {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.fail_at {
            Some((at, kind)) if at == self.calls => Err(io::Error::new(kind, "a planned failure")),
            _ => Ok(()),
        }
    }
}

/// One change of names that no folder sync has made durable.
#[derive(Clone)]
struct NameChange {
    folder: String,
    name: String,
    to: Option<FileNumber>,
}

#[derive(Default, Clone)]
struct Content {
    synced: Vec<u8>,
    seen: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    Length(u64),
}

impl Content {
    fn apply(bytes: &mut Vec<u8>, change: &Change, keep: &mut dyn FnMut() -> bool) {
        match change {
            Change::Length(len) if keep() => bytes.resize(*len as usize, 0),
            Change::Length(_) => (),
            Change::Write { at, bytes: new } => {
                let mut from = *at;
                let end = at + new.len() as u64;
                while from < end {
                    let to = end.min((from / SECTOR_BYTES + 1) * SECTOR_BYTES);
                    if keep() {
                        let len = bytes.len().max(to as usize);
                        bytes.resize(len, 0);
                        let part = new
                            .get((from - at) as usize..(to - at) as usize)
                            .unwrap_or_default();
                        if let Some(place) = bytes.get_mut(from as usize..to as usize) {
                            place.copy_from_slice(part);
                        }
                    }
                    from = to;
                }
            }
        }
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk")
            .field("names", &self.state().names.len())
            .finish_non_exhaustive()
    }
}

impl MemoryDisk {
    /// An empty folder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power: what was not synced is lost, kept or torn at sectors, as `seed` decides. Open files are dead.
    ///
    /// A quarter of the seeds loses everything that was not synced, a quarter keeps all of it.
    pub fn crash(&self, seed: u64) {
        let random = SeededRandom::new(seed);
        let odds = match random.next_u64() % 4 {
            0 => 0,
            1 => 100,
            _ => random.next_u64() % 101,
        };
        let mut keep = || random.next_u64() % 100 < odds;
        let mut state = self.state();
        state.life += 1;
        // A file system's journal keeps the order of changes to names.
        let changes = std::mem::take(&mut state.name_changes);
        for change in changes.into_iter().take_while(|_| keep()) {
            apply_name(&mut state.durable_names, change);
        }
        state.names = state.durable_names.clone();
        for content in state.files.values_mut() {
            for change in std::mem::take(&mut content.unsynced) {
                Content::apply(&mut content.synced, &change, &mut keep);
            }
            content.seen = content.synced.clone();
        }
    }

    /// Cuts the power as [`MemoryDisk::crash`] does, in the middle of something: until [`MemoryDisk::restart`] every call
    /// fails, so that what goes on as if nothing had happened changes nothing.
    pub fn cut_power(&self, seed: u64) {
        self.crash(seed);
        self.state().off = true;
    }

    /// Ends the process but not the machine: nothing is lost, open files are dead.
    pub fn restart(&self) {
        let mut state = self.state();
        state.life += 1;
        state.off = false;
    }

    /// Lets the `n`th write from now on (counted from 1) fail with `kind`, having written half of its bytes.
    pub fn fail_write(&self, n: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        let at = state.writes.calls + n;
        state.writes.fail_at = Some((at, kind));
    }

    /// Lets the `n`th sync from now on, of a file or a folder, fail with `kind`.
    pub fn fail_sync(&self, n: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        let at = state.syncs.calls + n;
        state.syncs.fail_at = Some((at, kind));
    }

    /// How many syncs were asked for so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs.calls
    }

    /// From now on all files together may have `bytes` bytes; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// What a file reads as; `None` if there is no such file.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state
            .names
            .get(name)
            .and_then(|number| state.files.get(number))
            .map(|content| content.seen.clone())
    }

    /// Replaces a file's bytes, durably, as rot or an operator would.
    pub fn set_content(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let number = state.number(name);
        state.durable_names.insert(name.to_owned(), number);
        state.files.insert(
            number,
            Content {
                synced: bytes.clone(),
                seen: bytes,
                unsynced: Vec::new(),
            },
        );
    }

    /// An independent copy of the folder as it reads now, all of it durable.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = Self::new();
        let state = self.state();
        for (name, number) in &state.names {
            if let Some(content) = state.files.get(number) {
                copy.set_content(name, content.seen.clone());
            }
        }
        copy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self, name: &str) -> FileNumber {
        if let Some(number) = self.names.get(name) {
            return *number;
        }
        let number = self.next_file;
        self.next_file += 1;
        self.files.insert(number, Content::default());
        self.change_name(name, Some(number));
        number
    }

    fn change_name(&mut self, name: &str, to: Option<FileNumber>) {
        let folder = name
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder)
            .to_owned();
        let change = NameChange {
            folder,
            name: name.to_owned(),
            to,
        };
        apply_name(&mut self.names, change.clone());
        self.name_changes.push(change);
    }

    fn content(&mut self, handle: &MemoryFile) -> io::Result<&mut Content> {
        if handle.life != self.life {
            return Err(io::Error::other("the file was opened before a crash"));
        }
        self.files
            .get_mut(&handle.number)
            .ok_or_else(|| io::Error::other("the file is gone"))
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|number| self.files.get(number))
            .map(|content| content.seen.len() as u64)
            .sum()
    }

    fn check_power(&self) -> io::Result<()> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        Ok(())
    }

    fn check_room(&self, grow_by: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if grow_by > 0 && self.used() + grow_by > capacity => Err(
                io::Error::new(io::ErrorKind::StorageFull, "no space left on the disk"),
            ),
            _ => Ok(()),
        }
    }
}

fn apply_name(names: &mut BTreeMap<String, FileNumber>, change: NameChange) {
    match change.to {
        Some(number) => names.insert(change.name, number),
        None => names.remove(&change.name),
    };
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        state.check_power()?;
        let (number, life) = (state.number(name), state.life);
        drop(state);
        Ok(Arc::new(MemoryFile {
            disk: self.clone(),
            number,
            life,
        }))
    }

    fn open_existing(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let known = self.state().names.contains_key(name);
        if known {
            self.open(name)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check_power()?;
        let inside = |name: &String| match name.rsplit_once('/') {
            Some((parent, name)) => (parent == folder).then(|| name.to_owned()),
            None => folder.is_empty().then(|| name.clone()),
        };
        Ok(state.names.keys().filter_map(inside).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check_power()?;
        let number = state
            .names
            .get(from)
            .copied()
            .ok_or(io::ErrorKind::NotFound)?;
        // One change in a journal: both names or none. A crash between the two would show the file twice, which is no
        // worse, so they are kept as two changes in this order.
        state.change_name(to, Some(number));
        state.change_name(from, None);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check_power()?;
        if state.names.contains_key(name) {
            state.change_name(name, None);
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check_power()?;
        state.syncs.call()?;
        let changes = std::mem::take(&mut state.name_changes);
        let (synced, rest): (Vec<_>, Vec<_>) = changes
            .into_iter()
            .partition(|change| change.folder == folder);
        state.name_changes = rest;
        for change in synced {
            apply_name(&mut state.durable_names, change);
        }
        Ok(())
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    number: FileNumber,
    life: u64,
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFile")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl File for MemoryFile {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let content = state.content(self)?;
        let from = usize::try_from(at).map_err(io::Error::other)?;
        let bytes = content
            .seen
            .get(from..)
            .and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let planned = state.writes.call();
        let bytes = if planned.is_ok() {
            bytes
        } else {
            bytes.split_at(bytes.len() / 2).0
        };
        let seen = state.content(self)?.seen.len() as u64;
        state.check_room((at + bytes.len() as u64).saturating_sub(seen))?;
        let content = state.content(self)?;
        let change = Change::Write {
            at,
            bytes: bytes.to_vec(),
        };
        Content::apply(&mut content.seen, &change, &mut || true);
        content.unsynced.push(change);
        planned
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let planned = state.syncs.call();
        let content = state.content(self)?;
        let changes = std::mem::take(&mut content.unsynced);
        planned?;
        for change in changes {
            Content::apply(&mut content.synced, &change, &mut || true);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().content(self)?.seen.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let seen = state.content(self)?.seen.len() as u64;
        state.check_room(len.saturating_sub(seen))?;
        let content = state.content(self)?;
        content.seen.resize(len as usize, 0);
        content.unsynced.push(Change::Length(len));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced_and_decides_about_the_rest_by_sector() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let disk = MemoryDisk::new();
            let file = disk.open("f").unwrap();
            file.write_at(&[1; 1024], 0).unwrap();
            file.sync().unwrap();
            disk.sync_folder("").unwrap();
            file.write_at(&[2; 1024], 256).unwrap();
            disk.crash(seed);
            assert!(file.len().is_err(), "handles die in a crash");
            let bytes = disk.content("f").unwrap();
            assert_eq!(bytes[..256], [1; 256], "synced bytes stay");
            outcomes.insert((bytes[256], bytes[512], bytes.get(1024).copied()));
        }
        assert!(outcomes.len() > 3, "tears differ: {outcomes:?}");
    }

    #[test]
    fn a_new_name_needs_a_folder_sync() {
        let disk = MemoryDisk::new();
        disk.open("f").unwrap().sync().unwrap();
        let lost = (0..20).filter(|seed| {
            let disk = MemoryDisk::new();
            disk.open("f").unwrap().sync().unwrap();
            disk.crash(*seed);
            disk.content("f").is_none()
        });
        assert!((1..20).contains(&lost.count()));
    }

    #[test]
    fn a_failed_sync_loses_bytes_that_reads_still_show() {
        let disk = MemoryDisk::new();
        let file = disk.open("f").unwrap();
        file.write_at(b"old", 0).unwrap();
        file.sync().unwrap();
        disk.sync_folder("").unwrap();
        file.write_at(b"new", 0).unwrap();
        disk.fail_sync(1, io::ErrorKind::Other);
        assert!(file.sync().is_err());
        assert!(file.sync().is_ok(), "which proves nothing");
        assert_eq!(disk.content("f").unwrap(), b"new");
        disk.crash(1);
        assert_eq!(disk.content("f").unwrap(), b"old");
    }

    #[test]
    fn a_full_disk_refuses_growth_only() {
        let disk = MemoryDisk::new();
        let file = disk.open("f").unwrap();
        file.write_at(&[1; 100], 0).unwrap();
        disk.set_capacity(Some(100));
        assert!(file.write_at(&[2; 100], 0).is_ok());
        assert_eq!(
            file.write_at(&[2; 100], 1).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
    }
}
