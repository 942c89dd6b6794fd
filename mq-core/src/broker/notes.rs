//! The broker's own notes in the log: changes of topics, groups and offsets, and snapshots of all of them, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::catalog::{GroupConfig, TopicConfig};
use super::offsets::GroupOffset;
use crate::log::{Append, BROKER, Entry, Mark};
use crate::names::{GroupName, TopicName};

/// Mark of a note that holds a list of [`Change`]s.
pub(crate) const CHANGES: u8 = 1;
/// Mark of a note that holds one [`SnapshotPart`].
pub(crate) const SNAPSHOT: u8 = 2;
/// Mark of the delivered copy of a delayed message; the key is the level, the number its offset in the level's queue.
pub(crate) const DELIVERED: u8 = 3;

/// Most consumer offsets in one note, so that it stays well below its limit.
pub(crate) const OFFSETS_MAX: usize = 2_000;
/// About how many bytes an offset with the longest names has.
const OFFSET_BYTES: u64 = 340;
/// About how many bytes of changes one note of a snapshot has: half of what a note can hold.
const SNAPSHOT_NOTE_BYTES: usize = 512 << 10;

/// One durable change of what the broker knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// A topic is created or set anew.
    Topic {
        config: TopicConfig,
        begins: BTreeMap<u32, u64>,
    },
    TopicDeleted(TopicName),
    Group(GroupConfig),
    GroupDeleted(GroupName),
    /// A group subscribes and starts here; offsets it has already stay.
    Subscribed {
        group: GroupName,
        topic: TopicName,
        starts: Vec<(u32, u64)>,
    },
    Offset(GroupOffset),
    /// Everything of a delay level before this offset is delivered or given up.
    Delayed {
        level: u8,
        next: u64,
    },
}

/// One piece of a snapshot. Pieces of one snapshot carry its id as their mark's key and their number, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotPart {
    /// How many pieces there are.
    pub(crate) parts: u64,
    /// Every change up to and including the record at this position is in the snapshot; later ones are not, or are
    /// repeated without harm.
    pub(crate) applied: u64,
    pub(crate) changes: Vec<Change>,
}

/// A note that cannot be read; the log is written by a newer version or by something else.
#[derive(Debug, thiserror::Error)]
#[error("a note of the broker cannot be read: {0}; it was written by a newer version")]
pub(crate) struct NoteError(#[from] serde_json::Error);

/// Most consumer offsets in one note of a log with `room` bytes for one append.
pub(crate) fn offsets_max(room: u64) -> usize {
    usize::try_from(room / 2 / OFFSET_BYTES).map_or(OFFSETS_MAX, |most| most.clamp(1, OFFSETS_MAX))
}

/// The note that holds `changes`: one change, or at most [`OFFSETS_MAX`] offsets.
pub(crate) fn of_changes(changes: &[Change]) -> Append {
    note(CHANGES, 0, 0, serde_json::to_vec(changes))
}

/// The notes of a snapshot.
pub(crate) fn of_snapshot(id: u128, applied: u64, changes: Vec<Change>, room: u64) -> Vec<Append> {
    // What is around the changes, and what the log adds, is far less than the half that is left.
    let most = usize::try_from(room / 2).unwrap_or(usize::MAX);
    let pieces = split(changes, most.min(SNAPSHOT_NOTE_BYTES));
    let parts = pieces.len() as u64;
    let mut notes = Vec::new();
    for (number, changes) in (0..).zip(pieces) {
        let part = SnapshotPart {
            parts,
            applied,
            changes,
        };
        notes.push(note(SNAPSHOT, id, number, serde_json::to_vec(&part)));
    }
    notes
}

/// Pieces of about `most` bytes each, at least one.
fn split(changes: Vec<Change>, most: usize) -> Vec<Vec<Change>> {
    let mut pieces = Vec::new();
    let (mut piece, mut bytes) = (Vec::new(), 0);
    for change in changes {
        let len = serde_json::to_vec(&change).map_or(0, |json| json.len() + 1);
        if bytes + len > most && !piece.is_empty() {
            pieces.push(std::mem::take(&mut piece));
            bytes = 0;
        }
        bytes += len;
        piece.push(change);
    }
    pieces.push(piece);
    pieces
}

pub(crate) fn read_changes(payload: &[u8]) -> Result<Vec<Change>, NoteError> {
    Ok(serde_json::from_slice(payload)?)
}

pub(crate) fn read_snapshot(payload: &[u8]) -> Result<SnapshotPart, NoteError> {
    Ok(serde_json::from_slice(payload)?)
}

/// The mark of the copy that delivers the delayed message at `offset` of a level.
pub(crate) fn delivered(level: u8, offset: u64) -> Mark {
    Mark {
        owner: BROKER,
        kind: DELIVERED,
        key: u128::from(level),
        number: offset,
    }
}

/// What a delivered copy's mark says.
pub(crate) fn read_delivered(mark: &Mark) -> Option<Change> {
    if mark.owner != BROKER || mark.kind != DELIVERED {
        return None;
    }
    let level = u8::try_from(mark.key).ok()?;
    Some(Change::Delayed {
        level,
        next: mark.number.saturating_add(1),
    })
}

fn note(kind: u8, key: u128, number: u64, payload: serde_json::Result<Vec<u8>>) -> Append {
    let payload = payload.expect("names and numbers are always valid JSON");
    Append {
        mark: Some(Mark {
            owner: BROKER,
            kind,
            key,
            number,
        }),
        entry: Entry::Note { payload },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::NOTE_MAX_BYTES;

    fn payload(note: &Append) -> &[u8] {
        match &note.entry {
            Entry::Note { payload } => payload,
            Entry::Message { .. } => unreachable!("notes only"),
        }
    }

    #[test]
    fn a_full_note_of_longest_names_fits() {
        let group = GroupName::new("g".repeat(120)).unwrap();
        let topic = TopicName::new("t".repeat(127)).unwrap();
        let change = Change::Offset((group, topic, u32::MAX, u64::MAX));
        let note = of_changes(&vec![change.clone(); OFFSETS_MAX]);
        assert!(payload(&note).len() <= NOTE_MAX_BYTES);
        assert_eq!(read_changes(payload(&note)).unwrap().len(), OFFSETS_MAX);
        let notes = of_snapshot(7, 99, vec![change; 4 * OFFSETS_MAX], u64::MAX);
        let parts: Vec<_> = notes
            .iter()
            .map(|note| read_snapshot(payload(note)).unwrap())
            .collect();
        assert!(
            notes
                .iter()
                .all(|note| payload(note).len() <= NOTE_MAX_BYTES)
        );
        assert!(
            parts
                .iter()
                .all(|part| (part.parts, part.applied) == (notes.len() as u64, 99))
        );
        assert_eq!(
            parts.iter().map(|part| part.changes.len()).sum::<usize>(),
            4 * OFFSETS_MAX
        );
    }

    #[test]
    fn a_full_note_of_offsets_has_room_in_the_log() {
        let group = GroupName::new("g".repeat(120)).unwrap();
        let topic = TopicName::new("t".repeat(127)).unwrap();
        let change = Change::Offset((group, topic, u32::MAX, u64::MAX));
        assert_eq!(offsets_max(u64::MAX), OFFSETS_MAX);
        let note = of_changes(&vec![change; offsets_max(7_000)]);
        assert!(note.stored_len() <= 7_000 && note.stored_len() > 2_000);
    }

    #[test]
    fn each_note_of_a_snapshot_has_room_in_the_log() {
        let (group, topic) = (GroupName::new("g").unwrap(), TopicName::new("t").unwrap());
        let change = Change::Offset((group, topic, 0, 7));
        let notes = of_snapshot(7, 99, vec![change; 200], 4000);
        assert!(notes.len() > 2, "{}", notes.len());
        assert!(notes.iter().all(|note| note.stored_len() <= 4000));
    }

    #[test]
    fn an_empty_snapshot_still_has_a_note() {
        assert_eq!(of_snapshot(1, 0, vec![], u64::MAX).len(), 1);
    }

    #[test]
    fn a_note_of_another_version_says_so() {
        assert!(
            read_changes(b"[{\"Unknown\":1}]")
                .unwrap_err()
                .to_string()
                .contains("newer version")
        );
    }
}
