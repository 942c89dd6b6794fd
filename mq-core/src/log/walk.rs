//! The way from the checkpoint to the end of the log, a look behind the end, and the repair of the tail.

use std::io;

use super::files::Name;
use super::key_index::{KEY_BYTES, Key, KeyIndex};
use super::layout::{
    ALIGN, BatchHeader, Codec, Item, LayoutError, RecordHeader, SEGMENT_HEADER_BYTES,
};
use super::open::{OpenError, Settings};
use super::queue_ends::{self, QUEUE_ENDS, QueueEnd};
use super::queue_index::{ENTRY_MEMORY_BYTES, Entry, FlushError, QueueIndex};
use super::recovery::{Known, damaged};
use super::segments::{Segment, Segments};
use super::window::Window;
use super::{LOG, OwnerId, ReadError};
use crate::names::{QueueId, TopicName};
use crate::wire::record::RecordView;

/// What is behind the end is looked at, and overwritten, in pieces of this size.
const PIECE_BYTES: u64 = 4096;

/// Reads every batch from a known place on.
pub(super) struct Walk<'a> {
    window: Window<'a>,
    segments: &'a Segments,
    queues: &'a QueueIndex,
    keys: &'a KeyIndex,
    settings: &'a Settings,
    /// The log's beginning is deleted and no checkpoint says where queues begin.
    trimmed: bool,
    /// Before this position everything was to be deleted, as far as notes say.
    noted: u64,
    /// Bytes that the indexes have in memory.
    in_memory: usize,
}

/// What a valid record means to the indexes.
struct Found {
    position: u64,
    owner: Option<OwnerId>,
    message: Option<FoundMessage>,
    /// Where the log begins after a deletion, and where queues end of which it keeps nothing.
    ends: Option<(u64, Vec<QueueEnd>)>,
}

struct FoundMessage {
    queue: QueueId,
    offset: u64,
    entry: Entry,
    keys: Vec<Key>,
}

/// Why a walk goes no further.
enum Stop {
    /// Nothing valid stands at this position.
    Invalid(u64, LayoutError),
    Refuse(OpenError),
}

impl From<OpenError> for Stop {
    fn from(error: OpenError) -> Self {
        Self::Refuse(error)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Refuse(refusal(error))
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        segments: &'a Segments,
        codec: &'a Codec,
        queues: &'a QueueIndex,
        keys: &'a KeyIndex,
        settings: &'a Settings,
        trimmed: bool,
    ) -> Self {
        Self {
            window: Window::new(segments, codec),
            segments,
            queues,
            keys,
            settings,
            trimmed,
            noted: 0,
            in_memory: 0,
        }
    }

    /// Goes from `known.end` to the end of the log, and learns on the way. Changes nothing but the files of indexes,
    /// where nobody looks yet. `claimed` is the position up to which the checkpoint says the log is durable.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] when durable bytes are not what was written.
    pub(super) fn run(mut self, known: &mut Known, mut claimed: u64) -> Result<Tail, OpenError> {
        let (bad, why) = loop {
            let Some(start) = self.window.batch_start(known.end) else {
                break (known.end, LayoutError::Short);
            };
            known.end = start;
            match self.batch(start, known.life) {
                Ok((header, found)) => {
                    claimed = claimed.max(header.durable_end);
                    self.learn(known, &header, found)?;
                }
                Err(Stop::Invalid(at, why)) => break (at, why),
                Err(Stop::Refuse(error)) => return Err(error),
            }
        };
        let mut leftovers = Vec::new();
        for segment in self
            .segments
            .all()
            .into_iter()
            .filter(|segment| segment.end() > known.end)
        {
            claimed = claimed.max(self.look_behind(segment, known.end, &mut leftovers)?);
        }
        let start = self.segments.first_batch() - SEGMENT_HEADER_BYTES;
        if self.trimmed && self.noted < start {
            // Whoever deletes notes it first.
            let name = format!("the segment before {}", Name::Segment(start));
            return Err(damaged(&name, 0, "the file is missing".into()));
        }
        if claimed <= known.end {
            return Ok(Tail {
                rewrite_from: claimed,
                leftovers,
            });
        }
        let segment = self.segments.of(bad).or_else(|| self.segments.all().pop());
        let segment = segment.unwrap_or(Segment {
            start: 0,
            length: 0,
        });
        let what = format!("{why}; everything before position {claimed} was durable once");
        Err(damaged(
            &segment.name().to_string(),
            bad.saturating_sub(segment.start),
            what,
        ))
    }

    /// Reads and checks the batch at `start`, written in life `life` or later.
    fn batch(&mut self, start: u64, life: u64) -> Result<(BatchHeader, Vec<Found>), Stop> {
        let segment = self.window.segment(start)?;
        let header = match self.window.item(start)? {
            Ok(Item::Batch(header)) => header,
            Ok(Item::Record(_)) => return Err(Stop::Invalid(start, LayoutError::Inconsistent)),
            Err(why) => return Err(Stop::Invalid(start, why)),
        };
        let fits =
            header.end() <= segment.end() && (!header.filler || header.end() == segment.end());
        if !fits || header.life < life {
            return Err(Stop::Invalid(start, LayoutError::Foreign));
        }
        // Brings the whole batch into the window at once.
        self.window.look(start, header.length)?;
        let mut found = Vec::new();
        let mut position = header.body();
        while !header.filler && position < header.end() {
            let record = match self.window.item(position)? {
                Ok(Item::Record(record)) => record,
                Ok(Item::Batch(_)) => {
                    return Err(Stop::Invalid(position, LayoutError::Inconsistent));
                }
                Err(why) => return Err(Stop::Invalid(position, why)),
            };
            if record.next().0 > header.end() {
                return Err(Stop::Invalid(position, LayoutError::Inconsistent));
            }
            found.push(self.record(&record)?);
            position = record.next().0;
        }
        if found.len() as u64 != u64::from(header.records) {
            return Err(Stop::Invalid(start, LayoutError::Inconsistent));
        }
        Ok((header, found))
    }

    fn record(&mut self, header: &RecordHeader) -> Result<Found, Stop> {
        let position = header.position;
        let (keys, unindexed) = (self.keys, &self.settings.unindexed_topics);
        let payload = self
            .window
            .payload(header)?
            .map_err(|why| Stop::Invalid(position, why))?;
        let owner = header.mark.map(|mark| mark.owner);
        if !header.is_message {
            let own = header
                .mark
                .filter(|mark| (mark.owner, mark.kind) == (LOG, QUEUE_ENDS));
            let ends = own.map(|mark| queue_ends::read(payload).map(|ends| (mark.number, ends)));
            if ends == Some(None) {
                return Err(self
                    .refuse(position, "it is no note of queues".into())
                    .into());
            }
            return Ok(Found {
                position,
                owner,
                message: None,
                ends: ends.flatten(),
            });
        }
        // The checksum says that this is what was written, so this is no torn tail.
        let message = message(header, payload, keys, unindexed)
            .map_err(|what| self.refuse(position, what))?;
        Ok(Found {
            position,
            owner,
            message: Some(message),
            ends: None,
        })
    }

    fn learn(
        &mut self,
        known: &mut Known,
        header: &BatchHeader,
        found: Vec<Found>,
    ) -> Result<(), OpenError> {
        for Found {
            position,
            owner,
            message,
            ends,
        } in found
        {
            known.owners.extend(owner);
            if let Some((kept, ends)) = ends.filter(|_| self.trimmed) {
                self.noted = self.noted.max(kept);
                for (queue, next) in ends {
                    self.queues.get_or_make(&queue).begin_at(next);
                }
            }
            let Some(message) = message else { continue };
            let queue = self.queues.get_or_make(&message.queue);
            if self.trimmed {
                queue.begin_at(message.offset);
            }
            let next = queue.end();
            if message.offset != next {
                let what = format!(
                    "the message has offset {} in {}; {next} was next",
                    message.offset, message.queue
                );
                return Err(self.refuse(position, what));
            }
            queue.extend(&[message.entry]);
            queue.announce(next + 1);
            self.keys.extend(&message.keys);
            self.in_memory += ENTRY_MEMORY_BYTES + message.keys.len() * KEY_BYTES;
        }
        for (owner, number) in &header.stamps {
            let stamp = known.stamps.entry(*owner).or_default();
            *stamp = (*stamp).max(*number);
        }
        known.end = header.end();
        known.life = header.life;
        known.at = known.at.max(header.at);
        if self.in_memory >= self.settings.index_bytes {
            self.flush(known)
        } else {
            Ok(())
        }
    }

    /// Moves the indexes to their files, so that memory does not grow with the log.
    fn flush(&mut self, known: &mut Known) -> Result<(), OpenError> {
        self.in_memory = 0;
        let failed = |error| match error {
            FlushError::Write(error) | FlushError::Sync(error) => {
                OpenError::from_io("an index of the log", &error)
            }
        };
        let flushing = self.queues.begin_flush();
        self.queues.flush(&flushing).map_err(failed)?;
        self.queues.end_flush(&flushing);
        self.keys.begin_flush();
        let covered = self.segments.first_batch()..known.end;
        let runs = self
            .keys
            .flush(&mut known.next_run, covered)
            .map_err(failed)?;
        self.keys.end_flush(runs);
        Ok(())
    }

    /// Looks at what stands behind `end` in `segment`: the highest claim of durability by a batch, and what is not zero.
    fn look_behind(
        &mut self,
        segment: Segment,
        end: u64,
        leftovers: &mut Vec<(u64, u64)>,
    ) -> Result<u64, OpenError> {
        let mut claimed = 0;
        let mut at = end.max(segment.first_batch());
        while at < segment.end() {
            let length = (PIECE_BYTES - at % PIECE_BYTES).min(segment.end() - at);
            let piece = self.window.look(at, length).map_err(refusal)?;
            if piece.iter().any(|byte| *byte != 0) {
                leftovers.push((at, length));
                for position in (at..at + length).step_by(ALIGN as usize) {
                    if let Ok(Item::Batch(header)) = self.window.item(position).map_err(refusal)? {
                        claimed = claimed.max(header.durable_end);
                    }
                }
            }
            at += length;
        }
        Ok(claimed)
    }

    fn refuse(&self, position: u64, what: String) -> OpenError {
        let segment = self.segments.of(position).unwrap_or(Segment {
            start: 0,
            length: 0,
        });
        damaged(&segment.name().to_string(), position - segment.start, what)
    }
}

fn message(
    header: &RecordHeader,
    payload: &[u8],
    index: &KeyIndex,
    unindexed: &[String],
) -> Result<FoundMessage, String> {
    let view = RecordView::parse(payload).map_err(|error| error.to_string())?;
    let topic = TopicName::new(view.topic).map_err(|error| error.to_string())?;
    let entry = Entry {
        position: header.position,
        size: header.length,
        tag_code: header.tag_code,
    };
    let indexed = !unindexed.iter().any(|topic| topic == view.topic);
    let keys = view
        .keys()
        .filter(|_| indexed)
        .map(|key| (index.hash(view.topic, key), header.position))
        .collect();
    Ok(FoundMessage {
        queue: QueueId::new(topic, view.queue),
        offset: view.queue_offset,
        entry,
        keys,
    })
}

fn refusal(error: ReadError) -> OpenError {
    match error {
        ReadError::Damaged { file, offset, what } => OpenError::Damaged { file, offset, what },
        ReadError::Io(what) => OpenError::Io {
            file: "a segment".into(),
            what,
        },
        ReadError::Gone(_) | ReadError::NotARecord(_) | ReadError::NoSuchOffset { .. } => {
            OpenError::Io {
                file: "a segment".into(),
                what: error.to_string(),
            }
        }
    }
}

/// What is to be done at the end of the log, now that it is clear that nothing is damaged.
#[derive(Debug)]
pub(super) struct Tail {
    /// From here to the end nobody has claimed that the bytes are durable.
    rewrite_from: u64,
    /// Pieces behind the end that are not zero: position and length.
    leftovers: Vec<(u64, u64)>,
}

impl Tail {
    /// Cuts what is behind `end` and makes everything before it durable.
    pub(super) fn repair(&self, segments: &Segments, end: u64) -> Result<(), OpenError> {
        let touched =
            |segment: &Segment| segment.end() > self.rewrite_from.min(end.saturating_sub(1));
        for segment in segments.all().into_iter().filter(touched) {
            let repaired = self.repair_segment(segments, segment, end);
            repaired.map_err(|error| OpenError::from_io(segment.name().to_string(), &error))?;
        }
        Ok(())
    }

    fn repair_segment(&self, segments: &Segments, segment: Segment, end: u64) -> io::Result<()> {
        let file = segments.file(segment)?;
        let zeros = [0; PIECE_BYTES as usize];
        for (at, length) in self
            .leftovers
            .iter()
            .filter(|(at, _)| segment.contains(*at))
        {
            file.write_at(
                zeros.get(..*length as usize).unwrap_or(&zeros),
                at - segment.start,
            )?;
        }
        let mut at = self.rewrite_from.max(segment.start);
        let to = end.min(segment.end());
        let mut bytes = Vec::new();
        while at < to {
            bytes.resize((to - at).min(64 * PIECE_BYTES) as usize, 0);
            file.read_at(&mut bytes, at - segment.start)?;
            file.write_at(&bytes, at - segment.start)?;
            at += bytes.len() as u64;
        }
        file.sync()
    }
}
