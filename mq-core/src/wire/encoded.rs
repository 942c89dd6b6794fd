//! A record on its way into the log: what was encoded for it, and its body, which is shared with whoever has it.

use bytes::Bytes;

use super::record::{HEAD_BYTES, RecordError, RecordView};

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
