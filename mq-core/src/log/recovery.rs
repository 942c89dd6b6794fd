//! Recovery: finds the end of the log, tells a torn tail from damage, and makes the tail durable again.
//!
//! 1. Read the checkpoint; look at the names and headers of all segments.
//! 2. From the checkpoint on, check every batch and add its records to the indexes. The first invalid batch ends the log.
//! 3. Look at everything behind the end. If a batch there, or the checkpoint, claims that more was durable, refuse: durable
//!    bytes are damaged. Nothing was changed so far.
//! 4. Otherwise write zeros over whatever is behind the end, write the bytes that nobody claims to be durable once more
//!    (they may be in the page cache only, after a failed fsync even if it looks clean), and sync.
//!
//! Segments that the checkpoint no longer has are left over from a deletion and removed.
//!
//! A log that was closed has nothing behind its checkpoint: 2 to 4 are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::files::{CHECKPOINT, Files, NEW, Name};
use super::key_index::KeyIndex;
use super::layout::{Codec, LayoutError, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::open::{OpenError, Settings};
use super::queue_index::QueueIndex;
use super::segments::{Segment, Segments};
use super::steps::{RECOVERY_TAIL_SYNCED, Steps};
use super::walk::Walk;
use super::{BROKER, LOG, LogId, OwnerId};
use crate::clock::ServerTime;
use crate::random::Random;

/// What to do about a damaged index; the log itself is whole.
const REBUILD: &str = "remove the file `checkpoint` to have all indexes made again from the log";

/// A log that is ready to be used.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) codec: Codec,
    pub(super) segments: Segments,
    pub(super) queues: QueueIndex,
    pub(super) keys: KeyIndex,
    pub(super) known: Known,
    pub(super) bookmarks: BTreeMap<OwnerId, u64>,
}

/// What is known of a log up to some position.
#[derive(Debug)]
pub(super) struct Known {
    /// The position; in the end where the next batch goes.
    pub(super) end: u64,
    /// How often the log had been opened.
    pub(super) life: u64,
    pub(super) at: ServerTime,
    pub(super) stamps: BTreeMap<OwnerId, u64>,
    pub(super) owners: BTreeSet<OwnerId>,
    /// Number of the next key run.
    pub(super) next_run: u32,
}

/// Opens what is in the folder, or makes a new log if nothing is.
pub(super) fn recover(
    files: &Arc<Files>,
    settings: &Settings,
    random: &dyn Random,
) -> Result<Recovered, OpenError> {
    let checkpoint = load_checkpoint(files)?;
    let kept_from = checkpoint
        .as_ref()
        .map_or(0, |checkpoint| checkpoint.kept_from);
    let is_gone = |(_, segment): &(LogId, Segment)| segment.end() <= kept_from;
    let (gone, found): (Vec<_>, Vec<_>) = find_segments(files)?.into_iter().partition(is_gone);
    let id = match (&checkpoint, found.first()) {
        (Some(checkpoint), _) => checkpoint.id,
        (None, Some((id, _))) => *id,
        (None, None) => LogId(random.next_u128()),
    };
    let segments = check_segments(&found, id, checkpoint.as_ref())?;
    remove_unfinished(files)?;
    for (_, segment) in gone {
        let name = segment.name();
        let removed = files.remove(name);
        removed.map_err(|error| OpenError::from_io(name.to_string(), &error))?;
    }
    let steps = Steps(settings.steps.clone());
    let segments = Segments::new(files.clone(), id, settings, segments);
    if segments.all().is_empty() {
        segments
            .at_or_make(0)
            .map_err(|error| OpenError::from_io(Name::Segment(0).to_string(), &error))?;
    }
    let codec = Codec::new(id);
    let closed = checkpoint
        .as_ref()
        .is_some_and(|checkpoint| checkpoint.closed);
    let trimmed = checkpoint.is_none() && segments.first_batch() > SEGMENT_HEADER_BYTES;
    let claimed = checkpoint
        .as_ref()
        .map_or(0, |checkpoint| checkpoint.durable_end);
    let mut recovered = from_checkpoint(files, codec, segments, checkpoint);
    check_indexes(&recovered)?;
    if !closed {
        let Recovered {
            codec,
            segments,
            queues,
            keys,
            known,
            ..
        } = &mut recovered;
        let walk = Walk::new(segments, codec, queues, keys, settings, trimmed);
        let tail = walk.run(known, claimed)?;
        tail.repair(segments, known.end)?;
        steps.at(RECOVERY_TAIL_SYNCED);
    }
    recovered.known.life += 1;
    let allowed =
        |owner: &OwnerId| [BROKER, LOG].contains(owner) || settings.owners.contains(owner);
    match recovered.known.owners.iter().find(|owner| !allowed(owner)) {
        Some(owner) => Err(OpenError::OwnerMissing(*owner)),
        None => Ok(recovered),
    }
}

fn load_checkpoint(files: &Files) -> Result<Option<Checkpoint>, OpenError> {
    let loaded = Checkpoint::load(&**files.disk())
        .map_err(|error| OpenError::from_io(CHECKPOINT, &error))?;
    match loaded {
        None => Ok(None),
        Some(Ok(checkpoint)) => Ok(Some(checkpoint)),
        Some(Err(LayoutError::Version(version))) => Err(OpenError::NewerVersion {
            file: CHECKPOINT.into(),
            version,
        }),
        Some(Err(error)) => Err(damaged(CHECKPOINT, 0, format!("{error}; {REBUILD}"))),
    }
}

/// The segments in the folder with the logs they belong to, by start.
pub(super) fn find_segments(files: &Files) -> Result<Vec<(LogId, Segment)>, OpenError> {
    let names = files
        .disk()
        .list("")
        .map_err(|error| OpenError::from_io("the log's folder", &error))?;
    let mut found = Vec::new();
    for name in names.iter().filter_map(|name| Name::segment(name)) {
        let file = name.to_string();
        let failed = |error: io::Error| OpenError::from_io(name.to_string(), &error);
        let handle = files.get(name).map_err(failed)?;
        let length = handle.len().map_err(failed)?;
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES.min(length) as usize];
        handle.read_at(&mut bytes, 0).map_err(failed)?;
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) => header,
            Err(LayoutError::Version(version)) => {
                return Err(OpenError::NewerVersion { file, version });
            }
            Err(error) => return Err(damaged(&file, 0, format!("the segment's header: {error}"))),
        };
        if name != Name::Segment(header.start) {
            return Err(OpenError::Foreign {
                file,
                what: format!("it starts at position {}", header.start),
            });
        }
        if length != header.length {
            let what = format!(
                "the file has {length} bytes, its header says {}",
                header.length
            );
            return Err(damaged(&file, length.min(header.length), what));
        }
        found.push((
            header.id,
            Segment {
                start: header.start,
                length,
            },
        ));
    }
    Ok(found)
}

/// Checks that the segments belong together and reach as far as the checkpoint says.
pub(super) fn check_segments(
    found: &[(LogId, Segment)],
    id: LogId,
    checkpoint: Option<&Checkpoint>,
) -> Result<Vec<Segment>, OpenError> {
    let missing = |start: u64| {
        damaged(
            &Name::Segment(start).to_string(),
            0,
            "the file is missing".into(),
        )
    };
    let mut end = None;
    for (other, segment) in found {
        if *other != id {
            let what = format!("its log id is {:032x}, not {:032x}", other.0, id.0);
            return Err(OpenError::Foreign {
                file: segment.name().to_string(),
                what,
            });
        }
        if end.is_some_and(|end| end != segment.start) {
            return Err(missing(end.unwrap_or(0)));
        }
        end = Some(segment.end());
    }
    if let Some(checkpoint) = checkpoint {
        let first = found.first().map_or(u64::MAX, |(_, segment)| segment.start);
        if checkpoint.kept_from < first {
            return Err(missing(checkpoint.kept_from));
        }
        if checkpoint.durable_end > end.unwrap_or(0) {
            return Err(missing(end.unwrap_or(0)));
        }
    }
    Ok(found.iter().map(|(_, segment)| *segment).collect())
}

fn remove_unfinished(files: &Files) -> Result<(), OpenError> {
    let failed = |error: io::Error| OpenError::from_io("the log's folder", &error);
    for name in files.disk().list("").map_err(failed)? {
        if name.ends_with(NEW) {
            files.disk().remove(&name).map_err(failed)?;
        }
    }
    Ok(())
}

fn from_checkpoint(
    files: &Arc<Files>,
    codec: Codec,
    segments: Segments,
    checkpoint: Option<Checkpoint>,
) -> Recovered {
    let (first, id) = (segments.first_batch(), codec.id());
    let checkpoint = checkpoint.unwrap_or(Checkpoint {
        id,
        closed: false,
        life: 0,
        indexed_to: first,
        durable_end: 0,
        at: ServerTime::default(),
        kept_from: 0,
        next_run: 1,
        queues: Vec::new(),
        runs: Vec::new(),
        stamps: Vec::new(),
        bookmarks: Vec::new(),
        owners: Vec::new(),
    });
    Recovered {
        codec,
        segments,
        queues: QueueIndex::new(files.clone(), checkpoint.queues),
        keys: KeyIndex::new(files.clone(), id, checkpoint.runs),
        known: Known {
            end: checkpoint.indexed_to,
            life: checkpoint.life,
            at: checkpoint.at,
            stamps: checkpoint.stamps.into_iter().collect(),
            owners: checkpoint.owners.into_iter().collect(),
            next_run: checkpoint.next_run,
        },
        bookmarks: checkpoint.bookmarks.into_iter().collect(),
    }
}

fn check_indexes(recovered: &Recovered) -> Result<(), OpenError> {
    let failed = |error: io::Error| OpenError::from_io("the log's indexes", &error);
    let short = recovered.queues.cut_short().map_err(failed)?;
    let short = match short {
        None => recovered.keys.check_files().map_err(failed)?,
        short => short,
    };
    match short {
        None => Ok(()),
        Some((name, length)) => Err(damaged(
            &name.to_string(),
            length,
            format!("the index file is missing or has the wrong length; {REBUILD}"),
        )),
    }
}

/// Damage at byte `offset` of `file`.
pub(super) fn damaged(file: &str, offset: u64, what: String) -> OpenError {
    OpenError::Damaged {
        file: file.to_owned(),
        offset,
        what,
    }
}
