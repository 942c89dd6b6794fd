//! What a client needs of a broker, near or far, as typed requests.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use super::ClientError;
use crate::broker::clients::{Announcement, Link};
use crate::broker::{Incoming, Pull, Pulled, Receipt, SendBack, SentBack, TopicConfig};
use crate::clock::Clock;
use crate::names::{GroupName, QueueId, TopicName};
use crate::random::Random;

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Client id, for people and for the order in a group.
    pub client_id: Arc<str>,
    /// This process life: random, never the same twice.
    pub incarnation: u128,
}

/// A way to a broker. Dropping a future does not take back what the broker has accepted.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Connects as a named client that takes notices; it stays connected until the attachment is dropped.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] or [`ClientError::Closed`].
    async fn attach(
        &self,
        me: Identity,
        link: Arc<dyn Link>,
    ) -> Result<Box<dyn Attachment>, ClientError>;

    /// A topic's queues; `None` when there is no such topic.
    ///
    /// # Errors
    /// [`ClientError`] when the broker cannot be asked.
    async fn route(&self, topic: &TopicName) -> Result<Option<TopicConfig>, ClientError>;

    /// Like [`Self::route`]; a topic that sending would create counts as existing.
    ///
    /// # Errors
    /// [`ClientError`] when the broker cannot be asked.
    async fn route_for_sending(
        &self,
        topic: &TopicName,
    ) -> Result<Option<TopicConfig>, ClientError>;

    /// Stores messages, all or none; one receipt for each.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn send(&self, messages: Vec<Incoming>) -> Result<Vec<Receipt>, ClientError>;

    /// Reads a queue.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn pull(&self, pull: Pull) -> Result<Pulled, ClientError>;

    /// First kept and next offset of a queue.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn queue_range(&self, queue: &QueueId) -> Result<Range<u64>, ClientError>;

    /// The first offset stored at or after a wall clock time.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn offset_at(&self, queue: &QueueId, wall_ms: u64) -> Result<u64, ClientError>;

    /// How far a group has consumed a queue, if it has any offset there.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn offset(&self, group: &GroupName, queue: &QueueId) -> Result<Option<u64>, ClientError>;

    /// Notes how far a group has consumed a queue.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn commit_offset(
        &self,
        group: &GroupName,
        queue: &QueueId,
        offset: u64,
    ) -> Result<(), ClientError>;

    /// Client ids of a group's consumers, sorted.
    ///
    /// # Errors
    /// [`ClientError`] when the broker cannot be asked.
    async fn members(&self, group: &GroupName) -> Result<Vec<Arc<str>>, ClientError>;

    /// Asks to see a message again.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Missing`] when the message is not kept any more.
    async fn send_back(&self, request: SendBack) -> Result<SentBack, ClientError>;

    /// This side's clock.
    fn clock(&self) -> &Arc<dyn Clock>;

    /// This side's chance.
    fn random(&self) -> &Arc<dyn Random>;
}

/// One client's connection; dropping it leaves all groups.
#[async_trait]
pub trait Attachment: fmt::Debug + Send + Sync + 'static {
    /// Says who the client is; repeated from time to time. Starting offsets of new groups are durable when it returns.
    ///
    /// # Errors
    /// [`ClientError`]; the client is not a member of its groups then.
    async fn announce(&self, announcement: Announcement) -> Result<(), ClientError>;
}
