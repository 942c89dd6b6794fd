//! The log's own note about queues of which it keeps no message any more: where their next one goes. Pure.
//!
//! Without it a start that has lost the checkpoint would begin such a queue anew, and its offsets would be given twice. Entries
//! follow each other: next offset (u64), queue (u32), length of the topic (u8), the topic; little-endian.

use super::{Append, Entry, LOG, Mark};
use crate::names::{QueueId, TopicName};

/// The kind of the note's mark; the mark's number is the position before which everything is deleted.
pub(super) const QUEUE_ENDS: u8 = 1;

/// A queue and the offset of its next message.
pub(super) type QueueEnd = (QueueId, u64);

/// The notes for `ends`, each with at most `most` bytes; at least one. `kept` is where the log begins afterwards.
pub(super) fn notes(ends: &[QueueEnd], kept: u64, most: usize) -> Vec<Append> {
    let mut payloads = vec![Vec::new()];
    for (queue, end) in ends {
        let topic = queue.topic.as_str().as_bytes();
        let needed = 8 + 4 + 1 + topic.len();
        if payloads
            .last()
            .is_some_and(|last| !last.is_empty() && last.len() + needed > most)
        {
            payloads.push(Vec::new());
        }
        if let Some(last) = payloads.last_mut() {
            last.extend_from_slice(&end.to_le_bytes());
            last.extend_from_slice(&queue.queue.to_le_bytes());
            last.push(topic.len() as u8);
            last.extend_from_slice(topic);
        }
    }
    let note = |payload| Append {
        mark: Some(Mark {
            owner: LOG,
            kind: QUEUE_ENDS,
            key: 0,
            number: kept,
        }),
        entry: Entry::Note { payload },
    };
    payloads.into_iter().map(note).collect()
}

/// Reads a note's payload; `None` if it is not one.
pub(super) fn read(mut payload: &[u8]) -> Option<Vec<QueueEnd>> {
    let mut ends = Vec::new();
    while !payload.is_empty() {
        let (end, rest) = payload.split_first_chunk()?;
        let (queue, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first()?;
        let (topic, rest) = rest.split_at_checked(usize::from(*length))?;
        let topic = TopicName::new(std::str::from_utf8(topic).ok()?).ok()?;
        ends.push((
            QueueId::new(topic, u32::from_le_bytes(*queue)),
            u64::from_le_bytes(*end),
        ));
        payload = rest;
    }
    Some(ends)
}

#[cfg(test)]
mod tests {
    use super::super::conformance::queue;
    use super::*;

    fn payloads(notes: Vec<Append>) -> Vec<Vec<u8>> {
        let payload = |note: Append| match note.entry {
            Entry::Note { payload } => payload,
            Entry::Message { .. } => panic!("a note"),
        };
        notes.into_iter().map(payload).collect()
    }

    #[test]
    fn what_is_noted_is_read_back_however_many_notes_it_takes() {
        let ends: Vec<QueueEnd> = (0..50)
            .map(|number| (queue("%RETRY%g", number), u64::from(number) << 40))
            .collect();
        for most in [1, 100, 1 << 20] {
            let payloads = payloads(notes(&ends, 7, most));
            assert!(payloads.iter().all(|payload| payload.len() <= most.max(21)));
            let read: Vec<QueueEnd> = payloads
                .iter()
                .flat_map(|payload| read(payload).unwrap())
                .collect();
            assert_eq!(read, ends);
        }
        assert_eq!(payloads(notes(&[], 7, 1)), [[0_u8; 0]]);
    }

    #[test]
    fn what_is_cut_short_is_not_a_note() {
        let whole = payloads(notes(&[(queue("t", 1), 5)], 7, 100)).remove(0);
        for length in 1..whole.len() {
            assert_eq!(read(whole.get(..length).unwrap()), None, "{length} bytes");
        }
    }
}
