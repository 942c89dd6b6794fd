//! A message as a consumer sees it.

use bytes::Bytes;

use crate::names::{NameError, QueueId, TopicName};
use crate::places::{Position, QueueOffset};
use crate::wire::compression::{self, CompressionError};
use crate::wire::properties::Properties;
use crate::wire::record::{RecordError, RecordView};
use crate::wire::{ids, reserved};

/// A message that was pulled. Cheap to clone: body and properties are parts of the bytes that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    topic: TopicName,
    queue: QueueId,
    queue_offset: QueueOffset,
    position: Position,
    offset_id: String,
    body: Bytes,
    properties: Bytes,
    flag: i32,
    sys_flag: i32,
    reconsume_times: u32,
    born_ms: u64,
    store_ms: u64,
}

/// Bytes that are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceivedError {
    /// They are no record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The record's topic breaks the rules of names.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The body cannot be read.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

impl Received {
    /// Reads a stored record; every length is checked. A body that its sender has compressed is inflated.
    ///
    /// # Errors
    /// [`ReceivedError`].
    pub fn parse(record: &Bytes) -> Result<Self, ReceivedError> {
        let view = RecordView::parse(record)?;
        let stored_in = TopicName::new(view.topic)?;
        let original = match view.properties.get(reserved::RETRY_TOPIC) {
            Some(original) if view.topic.starts_with(reserved::RETRY_PREFIX) => {
                Some(TopicName::new(original)?)
            }
            _ => None,
        };
        let body = match compression::inflated(view.sys_flag, view.body)? {
            Some(inflated) => inflated.into(),
            None => record.slice_ref(view.body),
        };
        Ok(Self {
            topic: original.unwrap_or_else(|| stored_in.clone()),
            queue: QueueId::new(stored_in, view.queue),
            queue_offset: QueueOffset(view.queue_offset),
            position: Position(view.position),
            offset_id: ids::offset_id(view.store_host, view.position),
            body,
            properties: record.slice_ref(view.properties.0),
            flag: view.flag,
            sys_flag: compression::without(view.sys_flag),
            reconsume_times: view.reconsume_times,
            born_ms: view.born_ms,
            store_ms: view.store_ms,
        })
    }

    /// The topic it was sent to, also when it is consumed again.
    #[must_use]
    pub const fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The queue it was read from; of a message that is consumed again a queue of the group's retry topic.
    #[must_use]
    pub const fn queue(&self) -> &QueueId {
        &self.queue
    }

    /// Its number in [`Self::queue`].
    #[must_use]
    pub const fn queue_offset(&self) -> QueueOffset {
        self.queue_offset
    }

    /// Its position in the broker's log.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The body.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.properties().get(reserved::TAGS)
    }

    /// The words it can be looked up by.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.properties()
            .get(reserved::KEYS)
            .unwrap_or_default()
            .split(' ')
            .filter(|key| !key.is_empty())
    }

    /// All properties.
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        Properties(&self.properties)
    }

    /// The id the producer gave it: the same in every copy. `None` for clients that give none.
    #[must_use]
    pub fn unique_key(&self) -> Option<&str> {
        self.properties().get(reserved::UNIQ_KEY)
    }

    /// The producer's id, or else the offset id of the first copy.
    #[must_use]
    pub fn message_id(&self) -> &str {
        let original = || self.properties().get(reserved::ORIGIN_MESSAGE_ID);
        self.unique_key()
            .or_else(original)
            .unwrap_or(&self.offset_id)
    }

    /// Where this copy is stored, as clients write it.
    #[must_use]
    pub fn offset_id(&self) -> &str {
        &self.offset_id
    }

    /// The application's own flag.
    #[must_use]
    pub const fn flag(&self) -> i32 {
        self.flag
    }

    /// RocketMQ's flag bits, without those about compression.
    #[must_use]
    pub const fn sys_flag(&self) -> i32 {
        self.sys_flag
    }

    /// How often it was consumed before.
    #[must_use]
    pub const fn reconsume_times(&self) -> u32 {
        self.reconsume_times
    }

    /// When the producer made it, ms since 1970.
    #[must_use]
    pub const fn born_ms(&self) -> u64 {
        self.born_ms
    }

    /// When the broker stored this copy, ms since 1970.
    #[must_use]
    pub const fn store_ms(&self) -> u64 {
        self.store_ms
    }
}
