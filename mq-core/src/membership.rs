//! What a client says about itself, and what it is told.

use std::fmt;

use bytes::Bytes;

use crate::filter::Filter;
use crate::names::{GroupName, TopicName};

/// A request from the broker to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The request code.
    pub code: i32,
    /// The header's fields.
    pub fields: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// The way to one connected client.
pub trait Link: fmt::Debug + Send + Sync + 'static {
    /// Hands a notice to the client. Never blocks. False when the connection is gone or its bounded queue is full: the
    /// notice is lost.
    fn push(&self, notice: Notice) -> bool;
}

/// Where a group starts in a queue it has never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConsumeFrom {
    /// With the oldest message kept.
    #[default]
    First,
    /// With the first message stored after the group subscribed.
    Last,
    /// As [`Self::Last`], but with the oldest message of a queue that is young: one that still has its first message, not
    /// long ago. RocketMQ's brokers answer so, and programs rely on it.
    LastUnlessYoung,
    /// With the first message stored at or after this wall clock time, ms since 1970.
    Timestamp(u64),
    /// Where the client says by its first commit: no start is noted.
    Client,
}

/// What a consumer wants of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The topic.
    pub topic: TopicName,
    /// Which tags.
    pub filter: Filter,
}

/// A consumer's part in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: GroupName,
    /// What the group reads; all members must want the same.
    pub subscriptions: Vec<Subscription>,
    /// Where the group starts in queues it has never read.
    pub from: ConsumeFrom,
    /// Whether every member gets every message. Such members keep their offsets themselves: the group gets neither a
    /// retry topic nor starting offsets.
    pub broadcasting: bool,
}

/// What a client says about itself, again and again (a heartbeat). Replaces what the same connection said before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Announcement {
    /// Groups it produces for.
    pub producer_groups: Vec<GroupName>,
    /// Groups it consumes for.
    pub consumer_groups: Vec<Membership>,
    /// Identities it can answer questions about; the meaning is the asking extension's.
    pub answers_for: Vec<u128>,
}
