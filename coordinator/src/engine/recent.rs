//! Half messages that became durable a moment ago, so that most decisions need not read them back from the log.
//!
//! What is kept is what the log has acknowledged, byte for byte except for the three fields that its place decides. A half
//! message that is not here any more, or never was, is read from the log.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use mq_core::log::QueueOffset;
use mq_core::wire::encoded::EncodedRecord;

use crate::store::Half;

/// Most bytes of records that are kept; the oldest are forgotten first. Enough for thousands of transactions in flight.
const MOST_BYTES: usize = 8 << 20;
/// Most places from the oldest half message that is kept to the youngest.
const MOST_PLACES: usize = 16 << 10;

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

/// Half messages by their place in the half queue, where they stand one behind the other.
#[derive(Debug, Default)]
struct Table {
    /// Offset of the first place.
    first: u64,
    places: VecDeque<Option<Kept>>,
    bytes: usize,
}

impl Recent {
    /// Keeps a half message that is durable.
    pub(super) fn keep(&self, kept: Kept) {
        let mut table = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        table.keep(kept);
    }

    /// Takes the half message at `offset` out, if it is here and `fits`.
    pub(super) fn take(&self, offset: QueueOffset, fits: impl Fn(&Half) -> bool) -> Option<Kept> {
        let mut table = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = table.place(offset)?;
        let kept = place.take_if(|kept| fits(&kept.half))?;
        table.bytes -= kept.record.len();
        table.forget_until_it_fits();
        Some(kept)
    }
}

impl Table {
    fn place(&mut self, offset: QueueOffset) -> Option<&mut Option<Kept>> {
        let index = offset.0.checked_sub(self.first)?;
        self.places.get_mut(usize::try_from(index).ok()?)
    }

    fn keep(&mut self, kept: Kept) {
        let (offset, bytes) = (kept.half.queue_offset, kept.record.len());
        if self.places.is_empty() {
            self.first = offset.0;
        }
        let next = self.first + self.places.len() as u64;
        let skipped = offset.0.saturating_sub(next);
        if skipped > MOST_PLACES as u64 {
            *self = Self {
                first: offset.0,
                ..Self::default()
            };
        } else {
            self.places.extend((0..skipped).map(|_| None));
        }
        if offset.0 >= next {
            self.places.push_back(Some(kept));
        } else if let Some(place) = self.place(offset) {
            let before = place.replace(kept);
            self.bytes -= before.map_or(0, |before| before.record.len());
        } else {
            // Older than all that is kept.
            return;
        }
        self.bytes += bytes;
        self.forget_until_it_fits();
    }

    /// Forgets the oldest while there are too many, and gives up their places.
    fn forget_until_it_fits(&mut self) {
        while let Some(oldest) = self.places.front() {
            let too_many = self.bytes > MOST_BYTES || self.places.len() > MOST_PLACES;
            if let Some(oldest) = oldest {
                if !too_many {
                    return;
                }
                self.bytes -= oldest.record.len();
            }
            self.places.pop_front();
            self.first += 1;
        }
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

    #[test]
    fn one_that_nobody_decides_does_not_keep_the_places_of_all_that_follow() {
        let recent = Recent::default();
        for number in 0..100_000 {
            recent.keep(kept(number, 100));
            if number > 0 {
                assert!(recent.take(QueueOffset(number), |_| true).is_some());
            }
            let places = recent.kept.lock().unwrap().places.len();
            assert!(places <= MOST_PLACES, "{places} places");
        }
        assert!(recent.take(QueueOffset(0), |_| true).is_none());
        assert_eq!(recent.kept.lock().unwrap().bytes, 0);
    }

    #[test]
    fn what_was_taken_can_be_put_back() {
        let recent = Recent::default();
        for number in [7, 8, 12, 90_000] {
            recent.keep(kept(number, 100));
        }
        assert!(
            recent.take(QueueOffset(8), |_| true).is_none(),
            "too far behind"
        );
        let last = recent.take(QueueOffset(90_000), |_| true);
        recent.keep(last.unwrap());
        assert!(recent.take(QueueOffset(90_000), |_| true).is_some());
        assert!(recent.take(QueueOffset(90_000), |_| true).is_none());
        for number in [20, 21, 24] {
            recent.keep(kept(number, 100));
        }
        let middle = recent.take(QueueOffset(21), |_| true);
        recent.keep(middle.unwrap());
        for number in [24, 21, 20] {
            assert!(recent.take(QueueOffset(number), |_| true).is_some());
        }
        assert!(recent.take(QueueOffset(22), |_| true).is_none());
    }
}
