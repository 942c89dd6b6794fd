//! What clients ask of a broker and get from it, as values.

use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;

use crate::filter::Filter;
use crate::message::Message;
use crate::names::{GroupName, QueueId, TopicName};
use crate::places::{Position, QueueOffset};
use crate::wire::record::EMBEDDED_HOST;

/// A message as it arrives, from a front end or from the client library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The topic.
    pub topic: TopicName,
    /// The queue; `None` takes turns.
    pub queue: Option<u32>,
    /// The application's own flag.
    pub flag: i32,
    /// RocketMQ's flag bits. Bits that an extension claims are refused here: such messages go to the extension.
    pub sys_flag: i32,
    /// When the producer made it, ms since 1970.
    pub born_ms: u64,
    /// Who sent it.
    pub born_host: SocketAddrV4,
    /// How often it was consumed before; 0 except for copies that a client makes for a retry.
    pub reconsume_times: u32,
    /// Encoded properties.
    pub properties: Vec<u8>,
    /// The body.
    pub body: Bytes,
}

impl Incoming {
    /// What the client library sends for `message`, from this process.
    #[must_use]
    pub fn new(message: &Message, queue: Option<u32>, born_ms: u64) -> Self {
        Self {
            topic: message.topic().clone(),
            queue,
            flag: message.flag(),
            sys_flag: 0,
            born_ms,
            born_host: EMBEDDED_HOST,
            reconsume_times: 0,
            properties: message.properties().0.to_vec(),
            body: message.body().clone(),
        }
    }
}

/// Where a message is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The offset id: where the record is. Of a delayed message it names the record that waits.
    pub message_id: String,
    /// The client's id of the message, if it has one.
    pub unique_key: Option<String>,
    /// The queue the message is for.
    pub queue: QueueId,
    /// Its number in that queue; of a delayed message its number among those that wait.
    pub queue_offset: QueueOffset,
    /// The record's position.
    pub position: Position,
    /// When it was stored, ms since 1970.
    pub store_ms: u64,
}

/// A request for messages of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// The consumer group.
    pub group: GroupName,
    /// The queue.
    pub queue: QueueId,
    /// The first offset wanted.
    pub offset: u64,
    /// Which messages. Tags are compared by hash: the receiver compares the tags themselves.
    pub filter: Filter,
    /// Most messages wanted; the setting `pull_messages` bounds it.
    pub most: usize,
    /// Most bytes wanted, though one message always fits; the setting `pull_bytes` bounds it.
    pub most_bytes: usize,
    /// How long to wait for a message that may match; the setting `pull_wait` bounds it.
    pub wait: Duration,
}

/// What a pull found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullOutcome {
    /// Messages (RocketMQ 0).
    Found,
    /// Only messages that do not match; go on at `next` at once (20).
    NoMatch,
    /// Nothing behind the offset yet (19).
    NoNew,
    /// The offset is outside of the queue; go on at `next` (21).
    Moved,
}

/// The answer to a [`Pull`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What was found.
    pub outcome: PullOutcome,
    /// V1 records as stored, in order.
    pub records: Vec<Bytes>,
    /// Where to go on.
    pub next: u64,
    /// First offset kept.
    pub min: u64,
    /// Next offset to be written.
    pub max: u64,
}

/// A consumer's request to see a message again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendBack {
    /// The consumer group.
    pub group: GroupName,
    /// The message's position.
    pub position: Position,
    /// 0 leaves the delay to the broker, 1 to 18 is a delay level, below 0 asks for the dead letters at once.
    pub delay_level: i32,
    /// How often it may be consumed again, instead of the group's setting.
    pub retries: Option<u32>,
}
