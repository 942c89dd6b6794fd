//! A window on the log's bytes that moves forward: many small looks, few reads.

use super::ReadError;
use super::layout::{BATCH_HEADER_BYTES, BatchHeader, Codec, Item, LayoutError, RecordHeader};
use super::segments::{Segment, Segments};

/// How much is read ahead.
const AHEAD_BYTES: u64 = 256 << 10;
/// A header of any kind is shorter.
const HEADER_MAX_BYTES: u64 = BatchHeader::encoded_len(255) as u64;

/// Bytes of one segment around the place that is looked at.
#[derive(Debug)]
pub(super) struct Window<'a> {
    segments: &'a Segments,
    codec: &'a Codec,
    start: u64,
    bytes: Vec<u8>,
    /// Where the segment ends that these bytes are from.
    segment_end: u64,
}

impl<'a> Window<'a> {
    pub(super) const fn new(segments: &'a Segments, codec: &'a Codec) -> Self {
        Self {
            segments,
            codec,
            start: 0,
            bytes: Vec::new(),
            segment_end: 0,
        }
    }

    /// The segment that holds `position`.
    ///
    /// # Errors
    /// [`ReadError::NotARecord`] when no segment does, [`ReadError::Gone`] when one did.
    pub(super) fn segment(&self, position: u64) -> Result<Segment, ReadError> {
        let segment = self.segments.of(position);
        segment.ok_or_else(|| self.segments.nothing_at(position))
    }

    /// `length` bytes at `position`, or fewer if the segment ends before.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails, or no segment holds `position`.
    pub(super) fn look(&mut self, position: u64, length: u64) -> Result<&[u8], ReadError> {
        let end = self.start + self.bytes.len() as u64;
        let mut wanted = length.min(self.segment_end.saturating_sub(position));
        // Mostly it is in the window, and which segment that is need not be looked up.
        if position < self.start || position >= end || position + wanted > end {
            let segment = self.segment(position)?;
            wanted = length.min(segment.end() - position);
            let read = wanted.max(AHEAD_BYTES).min(segment.end() - position);
            self.bytes.resize(read as usize, 0);
            self.start = position;
            self.segment_end = segment.end();
            if let Err(error) = self.segments.read(segment, position, &mut self.bytes) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let from = (position - self.start) as usize;
        Ok(self
            .bytes
            .get(from..from + wanted as usize)
            .unwrap_or_default())
    }

    /// What starts at `position`: a record or a batch.
    ///
    /// # Errors
    /// The outer one is the disk's, the inner one says why nothing starts there.
    pub(super) fn item(&mut self, position: u64) -> Result<Result<Item, LayoutError>, ReadError> {
        let codec = self.codec;
        Ok(codec.decode_item(self.look(position, HEADER_MAX_BYTES)?, position))
    }

    /// The payload of the record with this header, checked.
    ///
    /// # Errors
    /// As for [`Window::item`].
    pub(super) fn payload(
        &mut self,
        header: &RecordHeader,
    ) -> Result<Result<&[u8], LayoutError>, ReadError> {
        let codec = self.codec;
        let length = header.next().0 - header.position;
        Ok(codec.payload(self.look(header.position, length)?, header))
    }

    /// Where the batch behind `position` starts if `position` is the end of one: the same place, or in the next segment
    /// when no header fits into the rest of this one. `None` when the next segment does not exist.
    pub(super) fn batch_start(&self, position: u64) -> Option<u64> {
        match self.segments.of(position) {
            Some(segment) if segment.end() - position >= BATCH_HEADER_BYTES as u64 => {
                Some(position.max(segment.first_batch()))
            }
            Some(segment) => self.segments.of(segment.end()).map(Segment::first_batch),
            None => None,
        }
    }
}
