//! The stored and pulled message record, layout V1 (RocketMQ `CommitLog`, `MessageDecoder`), both hosts IPv4.

use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;

use super::encoded::EncodedRecord;
use super::properties::Properties;
use super::reserved;

/// Magic of layout V1.
pub const MAGIC_V1: i32 = 0xDAA3_20A7_u32 as i32;
/// Bytes of a record before the body.
pub const HEAD_BYTES: usize = 88;
/// Most bytes of a body (RocketMQ `maxMessageSize`).
pub const BODY_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Where an embedded broker says a record is stored; a server overwrites it when it sends.
pub const EMBEDDED_HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 10911);

/// What a record says, except what only its place in the log decides (queue offset, position, store time).
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// The topic; at most 127 bytes.
    pub topic: &'a str,
    /// The queue's number.
    pub queue: u32,
    /// The application's own flag.
    pub flag: i32,
    /// RocketMQ's flag bits (`MessageSysFlag`).
    pub sys_flag: i32,
    /// When the producer made the message, ms since 1970.
    pub born_ms: u64,
    /// Who sent it.
    pub born_host: SocketAddrV4,
    /// Who stores it.
    pub store_host: SocketAddrV4,
    /// How often it was sent back by a consumer.
    pub reconsume_times: u32,
    /// For a published copy: the position of the record it was made from.
    pub prepared_position: u64,
    /// The body; at most 4 MiB.
    pub body: &'a [u8],
    /// Encoded properties; at most 32,767 bytes.
    pub properties: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Fewer bytes than the record says or needs.
    #[error("the record is cut short")]
    Short,
    /// Not layout V1.
    #[error("the record's magic number is not RocketMQ's V1")]
    Magic,
    /// Lengths inside the record contradict each other, or text is not UTF-8.
    #[error("the record's parts do not fit together")]
    Inconsistent,
    /// IPv6 hosts take another layout than the one stored here.
    #[error("the record has an IPv6 host")]
    Host,
    /// The body is not the one that was stored.
    #[error("the body does not match its checksum")]
    BodyChecksum,
}

impl<'a> NewRecord<'a> {
    /// An empty record for a queue, from and on the embedded host; set the other fields with `..`.
    #[must_use]
    pub const fn new(topic: &'a str, queue: u32) -> Self {
        Self {
            topic,
            queue,
            flag: 0,
            sys_flag: 0,
            born_ms: 0,
            born_host: EMBEDDED_HOST,
            store_host: EMBEDDED_HOST,
            reconsume_times: 0,
            prepared_position: 0,
            body: &[],
            properties: &[],
        }
    }

    /// Length of the encoded record in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        HEAD_BYTES + self.body.len() + 1 + self.topic.len() + 2 + self.properties.len()
    }

    /// Appends the record to `out`; queue offset, position and store time are zero until [`place`] sets them.
    ///
    /// Callers have checked the lengths: topic up to 127, body up to 4 MiB, properties up to 32,767 bytes. Longer ones
    /// would be written with a length that does not fit and read back as [`RecordError::Inconsistent`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        self.encode_head(body_checksum(self.body), out);
        out.extend_from_slice(self.body);
        self.encode_tail(out);
    }

    /// The encoded record; `body`, which is [`NewRecord::body`], is shared and not copied.
    #[must_use]
    pub fn encode_around(&self, body: Bytes) -> EncodedRecord {
        self.encode_around_known(body, body_checksum(self.body))
    }

    /// As [`NewRecord::encode_around`] for a body whose checksum field is known, as it is for the body of a stored record.
    #[must_use]
    pub fn encode_around_known(&self, body: Bytes, checksum: i32) -> EncodedRecord {
        debug_assert_eq!(self.body, body);
        let mut around = Vec::with_capacity(self.encoded_len() - self.body.len());
        self.encode_head(checksum, &mut around);
        self.encode_tail(&mut around);
        EncodedRecord::new(around, body)
    }

    fn encode_head(&self, checksum: i32, out: &mut Vec<u8>) {
        let int = |out: &mut Vec<u8>, v: i32| out.extend_from_slice(&v.to_be_bytes());
        let long = |out: &mut Vec<u8>, v: u64| out.extend_from_slice(&v.to_be_bytes());
        int(out, self.encoded_len() as i32);
        int(out, MAGIC_V1);
        int(out, checksum);
        int(out, self.queue as i32);
        int(out, self.flag);
        long(out, 0);
        long(out, 0);
        int(out, self.sys_flag);
        long(out, self.born_ms);
        host(out, self.born_host);
        long(out, 0);
        host(out, self.store_host);
        int(out, self.reconsume_times as i32);
        long(out, self.prepared_position);
        int(out, self.body.len() as i32);
    }

    fn encode_tail(&self, out: &mut Vec<u8>) {
        out.push(self.topic.len() as u8);
        out.extend_from_slice(self.topic.as_bytes());
        out.extend_from_slice(&(self.properties.len() as u16).to_be_bytes());
        out.extend_from_slice(self.properties);
    }
}

/// Writes into an encoded record what its place decides. Does nothing to bytes shorter than a record's head.
pub fn place(record: &mut [u8], queue_offset: u64, position: u64, store_ms: u64) {
    let mut put = |at: usize, v: u64| {
        if let Some(field) = record.get_mut(at..at + 8) {
            field.copy_from_slice(&v.to_be_bytes());
        }
    };
    put(20, queue_offset);
    put(28, position);
    put(56, store_ms);
}

/// CRC-32 of a body with the top bit cleared, as RocketMQ keeps it.
#[must_use]
pub fn body_checksum(body: &[u8]) -> i32 {
    (crc32fast::hash(body) & 0x7FFF_FFFF) as i32
}

/// One record, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Length of the whole record in bytes.
    pub size: usize,
    /// Checksum field, see [`RecordView::check_body`].
    pub body_checksum: i32,
    /// The queue's number.
    pub queue: u32,
    /// The application's own flag.
    pub flag: i32,
    /// Number of the record in its queue, from 0.
    pub queue_offset: u64,
    /// Byte position in the log.
    pub position: u64,
    /// RocketMQ's flag bits.
    pub sys_flag: i32,
    /// When the producer made the message, ms since 1970.
    pub born_ms: u64,
    /// Who sent it.
    pub born_host: SocketAddrV4,
    /// When the broker stored it, ms since 1970.
    pub store_ms: u64,
    /// Who stores it.
    pub store_host: SocketAddrV4,
    /// How often a consumer sent it back.
    pub reconsume_times: u32,
    /// For a published copy: the position of the record it was made from.
    pub prepared_position: u64,
    /// The body as stored.
    pub body: &'a [u8],
    /// The topic.
    pub topic: &'a str,
    /// The properties.
    pub properties: Properties<'a>,
}

impl<'a> RecordView<'a> {
    /// The words the message can be looked up by: its `UNIQ_KEY` and each word of its `KEYS`. A word may come twice.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let unique = self
            .properties
            .get(reserved::UNIQ_KEY)
            .filter(|key| !key.is_empty());
        let words = self.properties.get(reserved::KEYS).unwrap_or_default();
        unique.into_iter().chain(words.split_whitespace())
    }

    /// Reads the record at the start of `bytes`; what follows it is ignored. Every length is checked before it is used.
    ///
    /// # Errors
    /// [`RecordError`] except `BodyChecksum`, which only [`Self::check_body`] finds.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let size = usize::try_from(int(bytes, 0)?).map_err(|_| RecordError::Inconsistent)?;
        if int(bytes, 4)? != MAGIC_V1 {
            return Err(RecordError::Magic);
        }
        let bytes = bytes.get(..size).ok_or(RecordError::Short)?;
        let (head, rest) = bytes
            .split_at_checked(HEAD_BYTES)
            .ok_or(RecordError::Short)?;
        let body_len = usize::try_from(int(head, 84)?).map_err(|_| RecordError::Inconsistent)?;
        let (body, tail) = rest
            .split_at_checked(body_len)
            .ok_or(RecordError::Inconsistent)?;
        Self::of_parts(head, body, tail)
    }

    /// Reads a record that lies in three pieces, whose lengths together are those it must have.
    pub(super) fn of_parts(
        head: &'a [u8],
        body: &'a [u8],
        tail: &'a [u8],
    ) -> Result<Self, RecordError> {
        let size = head.len() + body.len() + tail.len();
        if int(head, 4)? != MAGIC_V1 {
            return Err(RecordError::Magic);
        }
        let sys_flag = int(head, 36)?;
        if sys_flag & 0x30 != 0 {
            return Err(RecordError::Host);
        }
        let same = |at: usize, length: usize| {
            int(head, at).map(|said| usize::try_from(said) == Ok(length))
        };
        if !same(0, size)? || !same(84, body.len())? {
            return Err(RecordError::Inconsistent);
        }
        let (topic_len, rest) = tail.split_first().ok_or(RecordError::Inconsistent)?;
        let (topic, rest) = rest
            .split_at_checked(usize::from(*topic_len))
            .ok_or(RecordError::Inconsistent)?;
        let (properties_len, properties) = rest
            .split_first_chunk::<2>()
            .ok_or(RecordError::Inconsistent)?;
        if properties.len() != usize::from(u16::from_be_bytes(*properties_len)) {
            return Err(RecordError::Inconsistent);
        }
        Ok(Self {
            size,
            body_checksum: int(head, 8)?,
            queue: int(head, 12)? as u32,
            flag: int(head, 16)?,
            queue_offset: long(head, 20)?,
            position: long(head, 28)?,
            sys_flag,
            born_ms: long(head, 40)?,
            born_host: read_host(head, 48)?,
            store_ms: long(head, 56)?,
            store_host: read_host(head, 64)?,
            reconsume_times: int(head, 72)? as u32,
            prepared_position: long(head, 76)?,
            body,
            topic: std::str::from_utf8(topic).map_err(|_| RecordError::Inconsistent)?,
            properties: Properties(properties),
        })
    }

    /// Compares the body with its checksum.
    ///
    /// # Errors
    /// [`RecordError::BodyChecksum`] when they differ.
    pub fn check_body(&self) -> Result<(), RecordError> {
        if body_checksum(self.body) == self.body_checksum {
            Ok(())
        } else {
            Err(RecordError::BodyChecksum)
        }
    }
}

/// The records that stand one behind the other in the body of a pull's answer; what follows the first broken length is left
/// out.
pub fn split(mut body: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let size = usize::try_from(int(&body, 0).ok()?).ok()?;
        (size >= HEAD_BYTES && size <= body.len()).then(|| body.split_to(size))
    })
}

/// Writes into an encoded record who stores it. Does nothing to bytes shorter than a record's head.
pub fn set_store_host(record: &mut [u8], host: SocketAddrV4) {
    if let Some(field) = record.get_mut(64..72) {
        let [a, b, c, d] = host.ip().octets();
        let [high, low] = host.port().to_be_bytes();
        field.copy_from_slice(&[a, b, c, d, 0, 0, high, low]);
    }
}

fn host(out: &mut Vec<u8>, host: SocketAddrV4) {
    out.extend_from_slice(&host.ip().octets());
    out.extend_from_slice(&i32::from(host.port()).to_be_bytes());
}

fn read_host(bytes: &[u8], at: usize) -> Result<SocketAddrV4, RecordError> {
    let ip = bytes
        .get(at..)
        .and_then(|b| b.first_chunk::<4>())
        .ok_or(RecordError::Short)?;
    let port = u16::try_from(int(bytes, at + 4)?).map_err(|_| RecordError::Inconsistent)?;
    Ok(SocketAddrV4::new(Ipv4Addr::from(*ip), port))
}

fn int(bytes: &[u8], at: usize) -> Result<i32, RecordError> {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk::<4>())
        .map(|b| i32::from_be_bytes(*b))
        .ok_or(RecordError::Short)
}

fn long(bytes: &[u8], at: usize) -> Result<u64, RecordError> {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk::<8>())
        .map(|b| u64::from_be_bytes(*b))
        .ok_or(RecordError::Short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample<'a>(body: &'a [u8], properties: &'a [u8]) -> NewRecord<'a> {
        NewRecord {
            topic: "TopicTest",
            queue: 3,
            flag: 7,
            sys_flag: 0,
            born_ms: 1_700_000_000_000,
            born_host: EMBEDDED_HOST,
            store_host: EMBEDDED_HOST,
            reconsume_times: 1,
            prepared_position: 42,
            body,
            properties,
        }
    }

    #[test]
    fn the_layout_is_rocketmqs() {
        let mut bytes = Vec::new();
        sample(b"hello", b"TAGS\x01A\x02").encode(&mut bytes);
        place(&mut bytes, 5, 0x0102_0304, 99);
        assert_eq!(bytes.len(), 88 + 5 + 1 + 9 + 2 + 7);
        assert_eq!(&bytes[..8], &[0, 0, 0, 112, 0xDA, 0xA3, 0x20, 0xA7]);
        assert_eq!(
            &bytes[20..36],
            &[0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4]
        );
        assert_eq!(&bytes[48..56], &[127, 0, 0, 1, 0, 0, 0x2A, 0x9F]);
        assert_eq!(&bytes[84..93], b"\0\0\0\x05hello");
        let elsewhere = SocketAddrV4::new(Ipv4Addr::new(10, 1, 2, 3), 40_911);
        set_store_host(&mut bytes, elsewhere);
        let view = RecordView::parse(&bytes).unwrap();
        assert_eq!((view.store_host, view.store_ms), (elsewhere, 99));
    }

    proptest! {
        #[test]
        fn a_record_is_read_back(body in proptest::collection::vec(any::<u8>(), 0..300), tag in "[a-z]{0,9}") {
            let mut properties = Vec::new();
            super::super::properties::push(&mut properties, "TAGS", &tag);
            let mut bytes = Vec::new();
            sample(&body, &properties).encode(&mut bytes);
            place(&mut bytes, 9, 1000, 5);
            let view = RecordView::parse(&bytes).unwrap();
            prop_assert_eq!(view.body, &body[..]);
            prop_assert_eq!((view.queue, view.flag, view.queue_offset, view.position), (3, 7, 9, 1000));
            prop_assert_eq!((view.store_ms, view.reconsume_times, view.prepared_position), (5, 1, 42));
            prop_assert_eq!(view.properties.get("TAGS"), Some(&*tag));
            prop_assert!(view.check_body().is_ok());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), flip in 0..400_usize) {
            let _ = RecordView::parse(&bytes);
            let mut good = Vec::new();
            sample(&bytes, b"A\x01b\x02").encode(&mut good);
            let at = flip % good.len();
            good[at] ^= 0x55;
            let _ = RecordView::parse(&good);
            let _ = RecordView::parse(&good[..at]);
        }
    }
}
