//! What a client needs of a broker, near or far, as typed requests.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{ClientError, MessageQueue};
use crate::clock::Clock;
use crate::exchange::{Incoming, Pull, Pulled, Receipt, SendBack};
use crate::membership::{Announcement, ConsumeFrom, Link};
use crate::names::{GroupName, TopicName};
use crate::random::Random;

/// A way to one broker or several. Dropping a future does not take back what the broker has accepted.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Connects as a client that takes notices; it stays connected until the attachment is dropped. The client has the id
    /// `client_id`, or one that this way chooses.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] or [`ClientError::Closed`].
    async fn attach(
        &self,
        client_id: Option<Arc<str>>,
        link: Arc<dyn Link>,
    ) -> Result<Box<dyn Attachment>, ClientError>;

    /// The queues of a topic that can be read, sorted; `None` when there is no such topic.
    ///
    /// # Errors
    /// [`ClientError`] when nobody can be asked.
    async fn queues(&self, topic: &TopicName) -> Result<Option<Vec<MessageQueue>>, ClientError>;

    /// How many queues a topic has that can be sent to; [`Incoming::queue`] counts them over all brokers. A topic that
    /// sending would create counts as existing.
    ///
    /// # Errors
    /// [`ClientError`] when nobody can be asked.
    async fn queues_for_sending(&self, topic: &TopicName) -> Result<Option<u32>, ClientError>;

    /// Stores messages, all or none; one receipt for each.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn send(&self, messages: Vec<Incoming>) -> Result<Vec<Receipt>, ClientError>;

    /// Reads a queue of this broker.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn pull(&self, broker: &str, pull: Pull) -> Result<Pulled, ClientError>;

    /// First kept and next offset of a queue.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn queue_range(&self, queue: &MessageQueue) -> Result<Range<u64>, ClientError>;

    /// Where a group begins in a queue in which it has no offset. A broker that notes starting offsets has done so when the
    /// group was announced, so what is left are queues that came later: they are read whole.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn first_offset(
        &self,
        queue: &MessageQueue,
        _from: ConsumeFrom,
    ) -> Result<u64, ClientError> {
        Ok(self.queue_range(queue).await?.start)
    }

    /// How long offsets may wait until they are committed; zero commits at once.
    fn commit_within(&self) -> Duration {
        Duration::ZERO
    }

    /// The first offset stored at or after a wall clock time.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn offset_at(&self, queue: &MessageQueue, wall_ms: u64) -> Result<u64, ClientError>;

    /// How far a group has consumed a queue, if it has any offset there.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn offset(
        &self,
        group: &GroupName,
        queue: &MessageQueue,
    ) -> Result<Option<u64>, ClientError>;

    /// Notes how far a group has consumed a queue.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn commit_offset(
        &self,
        group: &GroupName,
        queue: &MessageQueue,
        offset: u64,
    ) -> Result<(), ClientError>;

    /// Client ids of a group's consumers that are connected to a broker of the topic, sorted.
    ///
    /// # Errors
    /// [`ClientError`] when nobody can be asked.
    async fn members(
        &self,
        group: &GroupName,
        topic: &TopicName,
    ) -> Result<Vec<Arc<str>>, ClientError>;

    /// Asks to see a message of this queue again.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Missing`] when the message is not kept any more.
    async fn send_back(&self, queue: &MessageQueue, request: SendBack) -> Result<(), ClientError>;

    /// This side's clock.
    fn clock(&self) -> &Arc<dyn Clock>;

    /// This side's chance.
    fn random(&self) -> &Arc<dyn Random>;
}

/// One client's connection; dropping it leaves all groups.
#[async_trait]
pub trait Attachment: fmt::Debug + Send + Sync + 'static {
    /// The client's id.
    fn client_id(&self) -> &Arc<str>;

    /// Says who the client is; repeated from time to time. Starting offsets of new groups are durable when it returns.
    ///
    /// # Errors
    /// [`ClientError`]; the client is not a member of its groups then.
    async fn announce(&self, announcement: Announcement) -> Result<(), ClientError>;
}
