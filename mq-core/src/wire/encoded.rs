//! A record on its way into the log: what was encoded for it, and its body, which is shared with whoever has it.

use bytes::Bytes;

use super::record::{HEAD_BYTES, RecordError, RecordView};
use super::reserved;
use crate::names::QueueId;

/// Where the head of a record has its queue.
const QUEUE_AT: usize = 12;
/// Where it has its flags.
const SYS_FLAG_AT: usize = 36;
/// Where it has the position of the half message.
const PREPARED_AT: usize = 76;

/// An encoded V1 record whose body is not copied before it is stored. Cheap to clone.
///
/// Made by [`NewRecord::encode_around`](super::record::NewRecord::encode_around), or of bytes from elsewhere, which need not
/// be a record: [`EncodedRecord::view`] says.
#[derive(Debug, Clone)]
pub struct EncodedRecord {
    /// What stands before the body, then what stands behind it.
    around: Bytes,
    /// Where the body belongs in `around`.
    split: usize,
    body: Bytes,
}

impl EncodedRecord {
    /// The head and, behind it, the tail of a record, and its body.
    pub(super) fn new(around: Vec<u8>, body: Bytes) -> Self {
        Self {
            around: around.into(),
            split: HEAD_BYTES,
            body,
        }
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.around.len() + self.body.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The body; empty if this was made of bytes from elsewhere.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Appends all bytes to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let (head, tail) = self.around_body();
        out.extend_from_slice(head);
        out.extend_from_slice(&self.body);
        out.extend_from_slice(tail);
    }

    /// All bytes in one piece.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.write_to(&mut bytes);
        bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`RecordError`] when it is not exactly one record.
    pub fn view(&self) -> Result<RecordView<'_>, RecordError> {
        let (head, tail) = self.around_body();
        if head.len() == HEAD_BYTES {
            return RecordView::of_parts(head, &self.body, tail);
        }
        let view = RecordView::parse(&self.around)?;
        if view.size == self.len() {
            Ok(view)
        } else {
            Err(RecordError::Inconsistent)
        }
    }

    /// The final of this half message in `target`: the same head and body, and the first `properties_len` bytes of its
    /// properties. `position` is where the half message stands. `None` if this was made of bytes from elsewhere, or has fewer
    /// properties.
    #[must_use]
    pub fn final_copy(
        &self,
        target: &QueueId,
        position: u64,
        properties_len: usize,
    ) -> Option<Self> {
        let (head, tail) = self.around_body();
        let head: &[u8; HEAD_BYTES] = head.try_into().ok()?;
        let (topic_len, behind) = tail.split_first()?;
        let properties = behind.get(usize::from(*topic_len) + 2..)?;
        let properties = properties.get(..properties_len)?;
        let length = u16::try_from(properties_len).ok()?.to_be_bytes();

        let topic = target.topic.as_str();
        let tail_len = 1 + topic.len() + length.len() + properties.len();
        let mut around = Vec::with_capacity(HEAD_BYTES + tail_len);
        around.extend_from_slice(head);
        let mut put = |at: usize, value: &[u8]| {
            if let Some(field) = around.get_mut(at..at + value.len()) {
                field.copy_from_slice(value);
            }
        };
        let size = HEAD_BYTES + self.body.len() + tail_len;
        put(0, &u32::try_from(size).ok()?.to_be_bytes());
        put(QUEUE_AT, &target.queue.to_be_bytes());
        let sys_flag = head.get(SYS_FLAG_AT..)?.first_chunk()?;
        let sys_flag = i32::from_be_bytes(*sys_flag) | reserved::FLAG_COMMIT;
        put(SYS_FLAG_AT, &sys_flag.to_be_bytes());
        put(PREPARED_AT, &position.to_be_bytes());
        around.push(u8::try_from(topic.len()).ok()?);
        around.extend_from_slice(topic.as_bytes());
        around.extend_from_slice(&length);
        around.extend_from_slice(properties);
        Some(Self::new(around, self.body.clone()))
    }

    fn around_body(&self) -> (&[u8], &[u8]) {
        self.around
            .split_at_checked(self.split)
            .unwrap_or((&self.around, &[]))
    }
}

impl From<Bytes> for EncodedRecord {
    fn from(bytes: Bytes) -> Self {
        Self {
            split: bytes.len(),
            around: bytes,
            body: Bytes::new(),
        }
    }
}

impl From<Vec<u8>> for EncodedRecord {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::NewRecord;
    use super::*;

    fn sample() -> NewRecord<'static> {
        NewRecord {
            body: b"hello",
            properties: b"TAGS\x01A\x02",
            ..NewRecord::new("orders", 3)
        }
    }

    #[test]
    fn a_shared_body_makes_the_same_bytes_and_the_same_view() {
        let mut whole = Vec::new();
        sample().encode(&mut whole);
        let shared = sample().encode_around(Bytes::from_static(b"hello"));
        assert_eq!(
            (shared.to_vec(), shared.len()),
            (whole.clone(), whole.len())
        );
        assert_eq!(shared.view(), RecordView::parse(&whole));
        assert_eq!(
            EncodedRecord::from(whole.clone()).view(),
            RecordView::parse(&whole)
        );
    }

    #[test]
    fn bytes_from_elsewhere_are_one_record_or_none() {
        let mut whole = Vec::new();
        sample().encode(&mut whole);
        for length in 0..whole.len() {
            assert!(
                EncodedRecord::from(whole[..length].to_vec())
                    .view()
                    .is_err(),
                "{length}"
            );
        }
        whole.push(0);
        assert_eq!(
            EncodedRecord::from(whole).view(),
            Err(RecordError::Inconsistent)
        );
        assert!(EncodedRecord::from(Bytes::new()).is_empty());
    }

    #[test]
    fn a_body_that_the_head_does_not_announce_is_refused() {
        let shared = sample().encode_around(Bytes::from_static(b"hello"));
        for body in ["hell", "hello, world"] {
            let other = EncodedRecord {
                body: Bytes::from_static(body.as_bytes()),
                ..shared.clone()
            };
            assert_eq!(other.view(), Err(RecordError::Inconsistent));
        }
    }
}
