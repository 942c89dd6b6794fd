//! The bytes of the log's files: a pure codec.
//!
//! # Files of a log
//!
//! ```text
//! lock                    held exclusively while a process has the log open
//! checkpoint              where recovery begins, and the table of queues and key runs (see `checkpoint`)
//! 00000000000000000000.log  segments, named by the position of their first byte, 20 digits
//! 00000000000067108864.log
//! queues/0000000001       the index of one queue: 20 bytes for each message (see `queue_index`)
//! keys/0000000001         a sorted run of the key index: 16 bytes for each key (see `key_index`)
//! *.new                   being made; deleted at start
//! ```
//!
//! A *position* is a byte position in all segments laid end to end, so the byte at position `p` is byte `p - start` of
//! the segment whose name is `start`. All integers are little-endian; everything starts at a multiple of 8. A segment is
//! written with zeros to its full length and made durable before it is used, so appending never changes a file's size.
//!
//! # Segment
//!
//! 4096 bytes of header, then batches one behind the other, then zeros.
//!
//! ```text
//!  0  8 bytes  magic "HMLOGSEG"
//!  8  u32      CRC-32 of bytes 12 to 48
//! 12  u16      layout version, 1
//! 14  u16      0
//! 16  u128     log id
//! 32  u64      position of the segment's first byte (its name)
//! 40  u64      length of the file
//! ```
//!
//! # Batch
//!
//! What one write put there; never spans two segments. The last batch of a segment is a *filler* that reaches to the end
//! of the file and has no records, unless fewer than 80 bytes are left.
//!
//! ```text
//!  0  u32      magic "HMB1"
//!  4  u32      CRC-32 of the header from byte 8 on, stamps included
//!  8  u16      layout version, 1
//! 10  u8       0 for records, 1 for a filler
//! 11  u8       number of stamps
//! 12  u32      number of records
//! 16  u64      its own position
//! 24  u64      length, header included
//! 32  u128     log id
//! 48  u64      server time in microseconds
//! 56  u64      wall clock in milliseconds since 1970
//! 64  u64      durable end: every byte before this position was durable when the batch was written
//! 72  u64      life: how often the log had been opened
//! 80           stamps of 16 bytes: u64 owner, u64 number
//! ```
//!
//! A batch is valid if its header and every record in it is, and its life is not smaller than that of the batch before.
//! Position, log id and life make sure that bytes left behind from earlier never count.
//!
//! The first invalid batch ends the log. It is a *torn tail*, and cut, if nobody claims that it was durable; if the
//! durable end of a later batch or of the checkpoint lies behind it, durable bytes are *damaged* and the log stays shut.
//!
//! # Record
//!
//! ```text
//!  0  u32      magic "HMR1"
//!  4  u32      CRC-32 of the log id, then bytes 8 to 64, then the payload
//!  8  u64      its own position
//! 16  u32      length of the payload
//! 20  u8       0 for a message, 1 for a note
//! 21  u8       1 if there is a mark
//! 22  u8       mark: owner
//! 23  u8       mark: kind
//! 24  u128     mark: key
//! 40  u64      mark: number
//! 48  i64      tag code of a message
//! 56  u64      server time of its batch in microseconds
//! 64           payload (RocketMQ's record, or the note), then zeros up to a multiple of 8
//! ```

use crc32fast::Hasher;

use super::{LogId, Mark, OwnerId, Position};
use crate::clock::ServerTime;

/// The version this program writes, and the newest it reads.
pub const VERSION: u16 = 1;
/// Bytes before a segment's first batch.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;
/// Bytes of a batch header without stamps; fewer bytes at a segment's end are left as they are.
pub const BATCH_HEADER_BYTES: usize = 80;
/// Bytes of one stamp.
pub const STAMP_BYTES: usize = 16;
/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 64;
/// Everything starts at a multiple of this.
pub const ALIGN: u64 = 8;

/// No batch is longer: no segment is.
const LENGTH_MAX: u64 = 1 << 30;
const SEGMENT_MAGIC: [u8; 8] = *b"HMLOGSEG";
const BATCH_MAGIC: [u8; 4] = *b"HMB1";
const RECORD_MAGIC: [u8; 4] = *b"HMR1";
const SEGMENT_FIELDS_BYTES: usize = 48;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Something else starts there, or nothing.
    #[error("its magic number is not there")]
    Magic,
    /// Written by a newer program.
    #[error("its layout version {0} is not known")]
    Version(u16),
    /// A bit has changed, or only a part was written.
    #[error("its checksum does not match")]
    Checksum,
    /// It is from another log or another place.
    #[error("it belongs to another log or another place")]
    Foreign,
    /// Lengths or kinds contradict each other.
    #[error("its parts do not fit together")]
    Inconsistent,
    /// Fewer bytes than it says or needs.
    #[error("it is cut short")]
    Short,
}

/// The first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log it belongs to.
    pub id: LogId,
    /// Position of its first byte.
    pub start: u64,
    /// Length of the file.
    pub length: u64,
}

impl SegmentHeader {
    /// The header's fields; the rest of its 4096 bytes is zero.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_FIELDS_BYTES] {
        let mut out = [0; SEGMENT_FIELDS_BYTES];
        put(&mut out, 0, SEGMENT_MAGIC);
        put(&mut out, 12, VERSION.to_le_bytes());
        put(&mut out, 16, self.id.0.to_le_bytes());
        put(&mut out, 32, self.start.to_le_bytes());
        put(&mut out, 40, self.length.to_le_bytes());
        let crc = crc32fast::hash(tail(&out, 12));
        put(&mut out, 8, crc.to_le_bytes());
        out
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        let bytes = bytes
            .get(..SEGMENT_FIELDS_BYTES)
            .ok_or(LayoutError::Short)?;
        if get::<8>(bytes, 0)? != SEGMENT_MAGIC {
            return Err(LayoutError::Magic);
        }
        if u32::from_le_bytes(get(bytes, 8)?) != crc32fast::hash(tail(bytes, 12)) {
            return Err(LayoutError::Checksum);
        }
        version(u16::from_le_bytes(get(bytes, 12)?))?;
        Ok(Self {
            id: LogId(u128::from_le_bytes(get(bytes, 16)?)),
            start: u64::from_le_bytes(get(bytes, 32)?),
            length: u64::from_le_bytes(get(bytes, 40)?),
        })
    }
}

/// What a batch says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchHeader {
    /// Where it starts.
    pub position: u64,
    /// Length with its header.
    pub length: u64,
    /// Whether it only fills the rest of a segment.
    pub filler: bool,
    /// How many records it has.
    pub records: u32,
    /// Server time when it was written.
    pub at: ServerTime,
    /// Wall clock when it was written.
    pub wall_ms: u64,
    /// Everything before this position was durable when it was written.
    pub durable_end: u64,
    /// How often the log had been opened.
    pub life: u64,
    /// The owners' numbers; at most 255.
    pub stamps: Vec<(OwnerId, u64)>,
}

impl BatchHeader {
    /// Length in bytes of a header with `stamps` stamps.
    #[must_use]
    pub const fn encoded_len(stamps: usize) -> usize {
        BATCH_HEADER_BYTES + stamps * STAMP_BYTES
    }

    /// Where its first record or, for a filler, nothing starts.
    #[must_use]
    pub fn body(&self) -> u64 {
        self.position + Self::encoded_len(self.stamps.len()) as u64
    }

    /// Where the next batch starts.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.position + self.length
    }
}

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Where it starts.
    pub position: u64,
    /// Length of its payload.
    pub length: u32,
    /// Whether it is a message.
    pub is_message: bool,
    /// The owner's mark.
    pub mark: Option<Mark>,
    /// A message's tag code; 0 for a note.
    pub tag_code: i64,
    /// Server time of its batch.
    pub at: ServerTime,
}

impl RecordHeader {
    /// Where the next record or batch starts.
    #[must_use]
    pub fn next(&self) -> Position {
        Position(self.position + stored_len(self.length as usize))
    }
}

/// Bytes that a record with a payload of `payload` bytes takes, header and padding included.
#[must_use]
pub const fn stored_len(payload: usize) -> u64 {
    (RECORD_HEADER_BYTES as u64 + payload as u64).next_multiple_of(ALIGN)
}

/// What may start at a place between records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A record, its payload not yet read.
    Record(RecordHeader),
    /// A batch.
    Batch(BatchHeader),
}

/// Encodes and checks the batches and records of one log.
#[derive(Debug, Clone)]
pub struct Codec {
    id: LogId,
    seed: Hasher,
}

impl Codec {
    /// The codec of log `id`.
    #[must_use]
    pub fn new(id: LogId) -> Self {
        let mut seed = Hasher::new();
        seed.update(&id.0.to_le_bytes());
        Self { id, seed }
    }

    /// The log's id.
    #[must_use]
    pub const fn id(&self) -> LogId {
        self.id
    }

    /// Writes `header` over the first bytes of `out`, which must have room for it.
    pub fn encode_batch(&self, header: &BatchHeader, out: &mut [u8]) {
        put(out, 0, BATCH_MAGIC);
        put(out, 8, VERSION.to_le_bytes());
        put(
            out,
            10,
            [u8::from(header.filler), header.stamps.len() as u8],
        );
        put(out, 12, header.records.to_le_bytes());
        put(out, 16, header.position.to_le_bytes());
        put(out, 24, header.length.to_le_bytes());
        put(out, 32, self.id.0.to_le_bytes());
        put(out, 48, header.at.0.to_le_bytes());
        put(out, 56, header.wall_ms.to_le_bytes());
        put(out, 64, header.durable_end.to_le_bytes());
        put(out, 72, header.life.to_le_bytes());
        for (i, (owner, number)) in header.stamps.iter().enumerate() {
            put(
                out,
                BATCH_HEADER_BYTES + i * STAMP_BYTES,
                u64::from(owner.0).to_le_bytes(),
            );
            put(
                out,
                BATCH_HEADER_BYTES + i * STAMP_BYTES + 8,
                number.to_le_bytes(),
            );
        }
        let fields = out
            .get(8..BatchHeader::encoded_len(header.stamps.len()))
            .unwrap_or_default();
        let crc = crc32fast::hash(fields);
        put(out, 4, crc.to_le_bytes());
    }

    /// Reads the batch header at the start of `bytes`, which stand at `position`.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn decode_batch(&self, bytes: &[u8], position: u64) -> Result<BatchHeader, LayoutError> {
        if get::<4>(bytes, 0)? != BATCH_MAGIC {
            return Err(LayoutError::Magic);
        }
        let [filler, stamps] = get::<2>(bytes, 10)?;
        let header = bytes
            .get(..BatchHeader::encoded_len(usize::from(stamps)))
            .ok_or(LayoutError::Short)?;
        if u32::from_le_bytes(get(header, 4)?) != crc32fast::hash(tail(header, 8)) {
            return Err(LayoutError::Checksum);
        }
        version(u16::from_le_bytes(get(header, 8)?))?;
        let long = |at| get(header, at).map(u64::from_le_bytes);
        if long(16)? != position || u128::from_le_bytes(get(header, 32)?) != self.id.0 {
            return Err(LayoutError::Foreign);
        }
        let length = long(24)?;
        let lengths = header.len() as u64..=LENGTH_MAX;
        if filler > 1 || !length.is_multiple_of(ALIGN) || !lengths.contains(&length) {
            return Err(LayoutError::Inconsistent);
        }
        let stamps = (0..usize::from(stamps)).map(|i| {
            let owner = long(BATCH_HEADER_BYTES + i * STAMP_BYTES)?;
            let owner = u8::try_from(owner).map_err(|_| LayoutError::Inconsistent)?;
            Ok((
                OwnerId(owner),
                long(BATCH_HEADER_BYTES + i * STAMP_BYTES + 8)?,
            ))
        });
        Ok(BatchHeader {
            position,
            length,
            filler: filler == 1,
            records: u32::from_le_bytes(get(header, 12)?),
            at: ServerTime(long(48)?),
            wall_ms: long(56)?,
            durable_end: long(64)?,
            life: long(72)?,
            stamps: stamps.collect::<Result<_, _>>()?,
        })
    }

    /// Appends a record to `out`, padding included. `payload` appends its payload, which the length field is taken from.
    pub fn encode_record(
        &self,
        header: &RecordHeader,
        out: &mut Vec<u8>,
        payload: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = out.len();
        out.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        payload(out);
        let Some((room, payload)) = out
            .get_mut(start..)
            .and_then(|record| record.split_first_chunk_mut::<RECORD_HEADER_BYTES>())
        else {
            return;
        };
        let mut head = [0; RECORD_HEADER_BYTES];
        put(&mut head, 0, RECORD_MAGIC);
        put(&mut head, 8, header.position.to_le_bytes());
        put(&mut head, 16, (payload.len() as u32).to_le_bytes());
        put(
            &mut head,
            20,
            [
                u8::from(!header.is_message),
                u8::from(header.mark.is_some()),
            ],
        );
        if let Some(mark) = header.mark {
            put(&mut head, 22, [mark.owner.0, mark.kind]);
            put(&mut head, 24, mark.key.to_le_bytes());
            put(&mut head, 40, mark.number.to_le_bytes());
        }
        put(&mut head, 48, header.tag_code.to_le_bytes());
        put(&mut head, 56, header.at.0.to_le_bytes());
        let crc = self.record_crc(&head, payload);
        put(&mut head, 4, crc.to_le_bytes());
        *room = head;
        out.resize(out.len().next_multiple_of(ALIGN as usize), 0);
    }

    /// Reads the record header at the start of `bytes`, which stand at `position`. Its payload is not checked yet.
    ///
    /// # Errors
    /// [`LayoutError`]; `Magic` and `Foreign` mean that no record of this log starts there.
    pub fn decode_record(&self, bytes: &[u8], position: u64) -> Result<RecordHeader, LayoutError> {
        if get::<4>(bytes, 0)? != RECORD_MAGIC {
            return Err(LayoutError::Magic);
        }
        let head = bytes.get(..RECORD_HEADER_BYTES).ok_or(LayoutError::Short)?;
        if u64::from_le_bytes(get(head, 8)?) != position {
            return Err(LayoutError::Foreign);
        }
        let [note, marked, owner, kind] = get(head, 20)?;
        if note > 1 || marked > 1 {
            return Err(LayoutError::Inconsistent);
        }
        let mark = Mark {
            owner: OwnerId(owner),
            kind,
            key: u128::from_le_bytes(get(head, 24)?),
            number: u64::from_le_bytes(get(head, 40)?),
        };
        Ok(RecordHeader {
            position,
            length: u32::from_le_bytes(get(head, 16)?),
            is_message: note == 0,
            mark: (marked == 1).then_some(mark),
            tag_code: i64::from_le_bytes(get(head, 48)?),
            at: ServerTime(u64::from_le_bytes(get(head, 56)?)),
        })
    }

    /// Checks the record at the start of `bytes` against its checksum and returns its payload.
    ///
    /// # Errors
    /// [`LayoutError::Short`] or [`LayoutError::Checksum`].
    pub fn payload<'a>(
        &self,
        bytes: &'a [u8],
        header: &RecordHeader,
    ) -> Result<&'a [u8], LayoutError> {
        let (head, rest) = bytes
            .split_first_chunk::<RECORD_HEADER_BYTES>()
            .ok_or(LayoutError::Short)?;
        let payload = rest
            .get(..header.length as usize)
            .ok_or(LayoutError::Short)?;
        if u32::from_le_bytes(get(head, 4)?) == self.record_crc(head, payload) {
            Ok(payload)
        } else {
            Err(LayoutError::Checksum)
        }
    }

    /// Reads whichever header starts at `bytes`, which stand at `position`.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn decode_item(&self, bytes: &[u8], position: u64) -> Result<Item, LayoutError> {
        match self.decode_record(bytes, position) {
            Err(LayoutError::Magic) => self.decode_batch(bytes, position).map(Item::Batch),
            record => record.map(Item::Record),
        }
    }

    fn record_crc(&self, head: &[u8; RECORD_HEADER_BYTES], payload: &[u8]) -> u32 {
        let mut crc = self.seed.clone();
        crc.update(tail(head, 8));
        crc.update(payload);
        crc.finalize()
    }
}

fn version(version: u16) -> Result<(), LayoutError> {
    if version == VERSION {
        Ok(())
    } else {
        Err(LayoutError::Version(version))
    }
}

fn put<const N: usize>(out: &mut [u8], at: usize, bytes: [u8; N]) {
    if let Some(field) = out.get_mut(at..at + N) {
        field.copy_from_slice(&bytes);
    }
}

fn get<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], LayoutError> {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk::<N>())
        .copied()
        .ok_or(LayoutError::Short)
}

fn tail(bytes: &[u8], from: usize) -> &[u8] {
    bytes.get(from..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> BatchHeader {
        BatchHeader {
            position: 8192,
            length: 4096,
            filler: false,
            records: 3,
            at: ServerTime(77),
            wall_ms: 1_700_000_000_000,
            durable_end: 8000,
            life: 4,
            stamps: vec![(OwnerId(0), 5), (OwnerId(200), u64::MAX)],
        }
    }

    fn encoded(codec: &Codec, header: &BatchHeader) -> Vec<u8> {
        let mut out = vec![0; BatchHeader::encoded_len(header.stamps.len())];
        codec.encode_batch(header, &mut out);
        out
    }

    #[test]
    fn a_batch_header_is_read_back_only_where_and_by_whom_it_was_written() {
        let codec = Codec::new(LogId(9));
        let bytes = encoded(&codec, &header());
        assert_eq!(codec.decode_batch(&bytes, 8192), Ok(header()));
        assert_eq!(codec.decode_batch(&bytes, 8200), Err(LayoutError::Foreign));
        assert_eq!(
            Codec::new(LogId(8)).decode_batch(&bytes, 8192),
            Err(LayoutError::Foreign)
        );
        assert_eq!(codec.decode_batch(&[0; 200], 8192), Err(LayoutError::Magic));
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = SegmentHeader {
            id: LogId(1),
            start: 0,
            length: 1 << 20,
        }
        .encode();
        bytes[12] = 2;
        let crc = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(LayoutError::Version(2)));
    }

    #[test]
    fn every_bit_of_every_header_counts() {
        let codec = Codec::new(LogId(9));
        let batch = encoded(&codec, &header());
        let segment = SegmentHeader {
            id: LogId(1),
            start: 4096,
            length: 1 << 20,
        }
        .encode();
        let record = RecordHeader {
            position: 64,
            length: 3,
            is_message: false,
            mark: Some(Mark {
                owner: OwnerId(1),
                kind: 2,
                key: 3,
                number: 4,
            }),
            tag_code: -1,
            at: ServerTime(5),
        };
        let mut stored = Vec::new();
        codec.encode_record(&record, &mut stored, |out| out.extend_from_slice(b"abc"));
        assert_eq!(stored.len() as u64, stored_len(3));
        assert_eq!(codec.decode_record(&stored, 64), Ok(record));
        assert_eq!(codec.payload(&stored, &record), Ok(&b"abc"[..]));
        let sound = |stored: &[u8]| {
            codec
                .decode_record(stored, 64)
                .and_then(|header| codec.payload(stored, &header).map(|_| ()))
                .is_ok()
        };
        for bit in 0..batch.len() * 8 {
            let mut bad = batch.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                codec.decode_batch(&bad, 8192).is_err(),
                "batch header, bit {bit}"
            );
        }
        for bit in 0..segment.len() * 8 {
            let mut bad = segment;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                SegmentHeader::decode(&bad).is_err(),
                "segment header, bit {bit}"
            );
        }
        for bit in 0..(RECORD_HEADER_BYTES + 3) * 8 {
            let mut bad = stored.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!sound(&bad), "record, bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in 0..3) {
            let codec = Codec::new(LogId(1));
            let mut bytes = bytes;
            let start: &[u8] = [&SEGMENT_MAGIC[..], &BATCH_MAGIC, &RECORD_MAGIC][magic as usize];
            bytes.splice(..start.len().min(bytes.len()), start.iter().copied());
            let _ = SegmentHeader::decode(&bytes);
            let _ = codec.decode_item(&bytes, 0);
        }
    }
}
