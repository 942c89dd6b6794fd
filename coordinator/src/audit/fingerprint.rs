//! Short hashes of what rows say and no event spells out. Pure.

use sha2::{Digest, Sha256};

use crate::store::{Half, Owner};

/// Bytes of a half message that are hashed beside its texts.
const FIELDS_BYTES: usize = 56;

/// The fingerprint of what the row of a transaction says of its half message for ever: position, queue offset, producer
/// group, topic, length, sender and marker. At most 2^63 - 1.
#[must_use]
pub fn of_half(half: &Half) -> u64 {
    let (group, topic) = (half.group.as_str(), half.topic.as_str());
    let mut fields = Vec::with_capacity(FIELDS_BYTES + group.len() + topic.len());
    fields.extend_from_slice(&half.position.0.to_be_bytes());
    fields.extend_from_slice(&half.queue_offset.0.to_be_bytes());
    fields.extend_from_slice(&half.body_len.to_be_bytes());
    for bits in [half.sender.map(|s| s.0), half.marker.map(|m| m.0)] {
        fields.push(u8::from(bits.is_some()));
        fields.extend_from_slice(&bits.unwrap_or(0).to_be_bytes());
    }
    // A byte that no name has stands between them.
    fields.extend_from_slice(group.as_bytes());
    fields.push(0);
    fields.extend_from_slice(topic.as_bytes());
    short(&fields)
}

/// The fingerprint of an owner row: of all its columns but this one. At most 2^63 - 1.
#[must_use]
pub fn of_owner(owner: &Owner) -> u64 {
    let Owner {
        log,
        epoch,
        link,
        seq,
        batch,
        watermark,
        published,
        last_decision,
        next_event,
        head,
        fingerprint: _,
    } = *owner;
    let numbers = [
        epoch,
        link,
        seq,
        watermark.0,
        published,
        last_decision,
        next_event,
    ];
    let mut fields = Vec::with_capacity(size_of::<Owner>());
    fields.extend_from_slice(&log.0.to_be_bytes());
    fields.extend_from_slice(&batch.to_be_bytes());
    for number in numbers {
        fields.extend_from_slice(&number.to_be_bytes());
    }
    fields.extend_from_slice(&head.0);
    short(&fields)
}

/// The first 63 bits of the hash: what databases keep as a number.
fn short(fields: &[u8]) -> u64 {
    let hash: [u8; 32] = Sha256::digest(fields).into();
    let first = hash.first_chunk().expect("32 bytes have a first eight");
    u64::from_be_bytes(*first) >> 1
}

#[cfg(test)]
mod tests {
    use mq_core::clock::ServerTime;
    use mq_core::log::{LogId, Position, QueueOffset};
    use mq_core::names::{GroupName, TopicName};

    use super::*;
    use crate::store::conformance::draft;
    use crate::transaction::{Incarnation, MarkerIdentity, TransactionId};

    #[test]
    fn whatever_a_row_says_of_its_half_message_changes_its_fingerprint() {
        let half = draft::prepared(1, "shop").half;
        type Touch = fn(&mut Half);
        let touches: [Touch; 9] = [
            |half| half.position = Position(half.position.0 + 1),
            |half| half.queue_offset = QueueOffset(half.queue_offset.0 + 1),
            |half| half.group = GroupName::new("shops").unwrap(),
            |half| half.topic = TopicName::new("order").unwrap(),
            |half| half.body_len += 1,
            |half| half.sender = Some(Incarnation(0)),
            |half| half.sender = None,
            |half| half.marker = Some(MarkerIdentity(0)),
            |half| half.marker = None,
        ];
        let mut seen = vec![of_half(&half)];
        for touch in touches {
            let mut other = half.clone();
            touch(&mut other);
            seen.push(of_half(&other));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), touches.len() + 1);
    }

    #[test]
    fn what_events_tell_is_not_in_it() {
        let half = draft::prepared(1, "shop").half;
        let other = Half {
            id: TransactionId(77),
            prepared_at: ServerTime(1),
            ..half.clone()
        };
        assert_eq!(of_half(&half), of_half(&other));
    }

    #[test]
    fn every_column_changes_the_fingerprint_of_an_owner_row() {
        let owner = Owner::of(LogId(7));
        type Touch = fn(&mut Owner);
        let touches: [Touch; 10] = [
            |owner| owner.log = LogId(8),
            |owner| owner.epoch += 1,
            |owner| owner.link += 1,
            |owner| owner.seq += 1,
            |owner| owner.batch += 1,
            |owner| owner.watermark.0 += 1,
            |owner| owner.published += 1,
            |owner| owner.last_decision += 1,
            |owner| owner.next_event += 1,
            |owner| owner.head.0[31] ^= 1,
        ];
        for (number, touch) in touches.into_iter().enumerate() {
            let mut other = owner;
            touch(&mut other);
            assert_ne!(of_owner(&owner), of_owner(&other), "{number}");
        }
    }
}
