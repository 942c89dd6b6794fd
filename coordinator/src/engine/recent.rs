//! Half messages that became durable a moment ago, so that most decisions need not read them back from the log.
//!
//! What is kept is what the log has acknowledged, byte for byte except for the three fields that its place decides. A half
//! message that is not here any more, or never was, is read from the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use mq_core::log::QueueOffset;
use mq_core::wire::encoded::EncodedRecord;

use crate::store::Half;

/// Most bytes of records that are kept; the oldest are forgotten first. Enough for thousands of transactions in flight.
const MOST_BYTES: usize = 8 << 20;

/// A half message that is durable.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// What the store keeps of it.
    pub(super) half: Half,
    /// The queue of the real topic.
    pub(super) queue: u32,
    /// Its record, without queue offset, position and store time.
    pub(super) record: EncodedRecord,
    /// How many bytes of its properties its final has, too.
    pub(super) of_final: usize,
    /// Hash of its tag.
    pub(super) tag_code: i64,
}

/// The youngest half messages that nobody has decided.
#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_offset: BTreeMap<QueueOffset, Kept>,
    bytes: usize,
}

impl Recent {
    /// Keeps a half message that has just become durable.
    pub(super) fn keep(&self, kept: Kept) {
        let mut table = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        table.bytes += kept.record.len();
        table.by_offset.insert(kept.half.queue_offset, kept);
        while table.bytes > MOST_BYTES
            && let Some((_, oldest)) = table.by_offset.pop_first()
        {
            table.bytes -= oldest.record.len();
        }
    }

    /// Takes the half message at `offset` out, if it is here and `fits`.
    pub(super) fn take(&self, offset: QueueOffset, fits: impl Fn(&Half) -> bool) -> Option<Kept> {
        let mut table = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !table
            .by_offset
            .get(&offset)
            .is_some_and(|kept| fits(&kept.half))
        {
            return None;
        }
        let kept = table.by_offset.remove(&offset)?;
        table.bytes -= kept.record.len();
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::TransactionId;
    use mq_core::clock::ServerTime;
    use mq_core::log::Position;
    use mq_core::names::{GroupName, TopicName};

    fn kept(number: u64, bytes: usize) -> Kept {
        let half = Half {
            id: TransactionId(u128::from(number)),
            position: Position(number),
            queue_offset: QueueOffset(number),
            group: GroupName::new("g").unwrap(),
            topic: TopicName::new("t").unwrap(),
            body_len: 0,
            prepared_at: ServerTime(0),
            sender: None,
            marker: None,
        };
        Kept {
            half,
            queue: 0,
            record: vec![0; bytes].into(),
            of_final: 0,
            tag_code: 0,
        }
    }

    #[test]
    fn the_oldest_are_forgotten_when_there_are_too_many_bytes() {
        let recent = Recent::default();
        for number in 0..20 {
            recent.keep(kept(number, 1 << 20));
        }
        assert!(recent.take(QueueOffset(11), |_| true).is_none());
        assert!(recent.take(QueueOffset(12), |_| true).is_some());
        assert!(
            recent.take(QueueOffset(12), |_| true).is_none(),
            "taken twice"
        );
        assert!(
            recent
                .take(QueueOffset(19), |half| half.id.0 == 18)
                .is_none()
        );
        assert!(
            recent
                .take(QueueOffset(19), |half| half.id.0 == 19)
                .is_some()
        );
    }
}
