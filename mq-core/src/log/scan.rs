//! Reading durable records: one by position, or all in log order.

use bytes::Bytes;

use super::layout::{Codec, Item, LayoutError, RECORD_HEADER_BYTES, RecordHeader};
use super::segments::Segments;
use super::window::Window;
use super::{Position, ReadError, Stored};

/// A record is first read this far; most need no second read.
const FIRST_BYTES: usize = 2048;

/// Reads the record at `at`, which must start before `end`, the durable end.
pub(super) fn read(
    segments: &Segments,
    codec: &Codec,
    end: u64,
    at: u64,
) -> Result<Stored, ReadError> {
    let not_a_record = || ReadError::NotARecord(Position(at));
    let segment = segments.of(at).ok_or_else(|| segments.nothing_at(at))?;
    if at < segment.first_batch() || at >= end {
        return Err(not_a_record());
    }
    let room = usize::try_from(segment.end() - at).unwrap_or(usize::MAX);
    let mut first = [0; FIRST_BYTES];
    let first = first.get_mut(..room.min(FIRST_BYTES)).unwrap_or_default();
    segments.read(segment, at, first)?;
    let header = codec.decode_record(first, at).map_err(|_| not_a_record())?;
    let length = RECORD_HEADER_BYTES + header.length as usize;
    if length > room {
        return Err(not_a_record());
    }
    let damaged = |error: LayoutError| segment.damaged(at, error);
    if length <= first.len() {
        let payload = codec.payload(first, &header).map_err(damaged)?;
        return Ok(stored(&header, Bytes::copy_from_slice(payload)));
    }
    let mut whole = vec![0; length];
    segments.read(segment, at, &mut whole)?;
    codec.payload(&whole, &header).map_err(damaged)?;
    Ok(stored(
        &header,
        Bytes::from(whole).slice(RECORD_HEADER_BYTES..),
    ))
}

fn stored(header: &RecordHeader, bytes: Bytes) -> Stored {
    Stored {
        position: Position(header.position),
        next: header.next(),
        at: header.at,
        mark: header.mark,
        bytes,
        is_message: header.is_message,
    }
}

/// All records from one place to the durable end.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    window: Window<'a>,
    position: u64,
    end: u64,
}

impl<'a> Scan<'a> {
    /// Starts at `from`: a record, a batch, the durable end `end`, or 0 for the start of the log.
    pub(super) fn new(
        segments: &'a Segments,
        codec: &'a Codec,
        end: u64,
        from: u64,
    ) -> Result<Self, ReadError> {
        let first = segments.first_batch();
        let mut scan = Self {
            window: Window::new(segments, codec),
            position: from,
            end,
        };
        if from == 0 || from == first || from == end {
            scan.position = from.max(first);
            return Ok(scan);
        }
        if from < first {
            return Err(ReadError::Gone(Position(from)));
        }
        let not_a_record = ReadError::NotARecord(Position(from));
        if from > end {
            return Err(not_a_record);
        }
        // The end of the last batch in a segment is a good place too: nothing but the next segment follows.
        let starts = scan.window.item(from)?.is_ok()
            || scan
                .window
                .batch_start(from)
                .is_none_or(|start| start != from);
        if starts { Ok(scan) } else { Err(not_a_record) }
    }

    /// Starts at the start of the log and goes on as long as there are records: the end is an error.
    pub(super) const fn from_start(segments: &'a Segments, codec: &'a Codec, first: u64) -> Self {
        Self {
            window: Window::new(segments, codec),
            position: first,
            end: u64::MAX,
        }
    }

    /// Where the next record may start.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    fn advance(&mut self) -> Result<Option<Stored>, ReadError> {
        while self.position < self.end {
            let at = self.position;
            match self.window.item(at)? {
                Ok(Item::Batch(batch)) if batch.filler => self.position = batch.end(),
                Ok(Item::Batch(batch)) => self.position = batch.body(),
                Ok(Item::Record(header)) => {
                    self.position = header.next().0;
                    let why = match self.window.payload(&header)? {
                        Ok(payload) => {
                            return Ok(Some(stored(&header, Bytes::copy_from_slice(payload))));
                        }
                        Err(why) => why,
                    };
                    return Err(self.window.segment(at)?.damaged(at, why));
                }
                Err(error) => match self.window.batch_start(at) {
                    Some(start) if start != at => self.position = start,
                    _ => return Err(self.window.segment(at)?.damaged(at, error)),
                },
            }
        }
        Ok(None)
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Stored, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.position = self.end;
        }
        next.transpose()
    }
}
