//! Reading queues of one's own choice, at one's own pace.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "engine")]
use super::embedded::Embedded;
use super::received::Received;
use super::remote::{self, Remote};
use super::{ClientError, MessageQueue, Transport};
#[cfg(feature = "engine")]
use crate::broker::Broker;
use crate::exchange::{Pull, PullOutcome};
use crate::filter::Filter;
use crate::names::{GroupName, TopicName};

/// Reads the queues it is told to, without sharing them with anybody; only offsets belong to the group.
#[derive(Debug)]
pub struct PullConsumer {
    transport: Arc<dyn Transport>,
    group: GroupName,
    filter: Filter,
    positions: BTreeMap<MessageQueue, u64>,
}

impl PullConsumer {
    /// A consumer of the broker in this process.
    #[must_use]
    #[cfg(feature = "engine")]
    pub fn attach(broker: &Broker, group: GroupName) -> Self {
        Self::over(Arc::new(Embedded(broker.clone())), group)
    }

    /// A consumer of the brokers behind `nameservers`, as [`super::Builder::connect`] takes them.
    ///
    /// # Errors
    /// Like [`super::Builder::connect`].
    pub async fn connect(nameservers: &str, group: GroupName) -> Result<Self, ClientError> {
        let (network, _) = remote::network(nameservers, None, None).await?;
        let remote = Remote::new(network, group.as_str(), None);
        Ok(Self::over(Arc::new(remote), group))
    }

    /// A consumer over any transport.
    #[must_use]
    pub const fn over(transport: Arc<dyn Transport>, group: GroupName) -> Self {
        Self {
            transport,
            group,
            filter: Filter::ALL,
            positions: BTreeMap::new(),
        }
    }

    /// Wants only messages with these tags from now on.
    #[must_use]
    pub fn filtered(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// The queues of a topic.
    ///
    /// # Errors
    /// [`ClientError::Missing`] when there is no such topic.
    pub async fn queues(&self, topic: &TopicName) -> Result<Vec<MessageQueue>, ClientError> {
        let missing =
            || ClientError::Missing(format!("topic {topic} does not exist; create it first"));
        self.transport.queues(topic).await?.ok_or_else(missing)
    }

    /// Reads these queues from now on, each from the group's offset, or from its first message if the group has none.
    ///
    /// # Errors
    /// [`ClientError`] when a queue does not exist; nothing has changed then.
    pub async fn assign(
        &mut self,
        queues: impl IntoIterator<Item = MessageQueue>,
    ) -> Result<(), ClientError> {
        let mut positions = BTreeMap::new();
        for queue in queues {
            let start = match self.transport.offset(&self.group, &queue).await? {
                Some(offset) => offset,
                None => self.range(&queue).await?.start,
            };
            positions.insert(queue, start);
        }
        self.positions = positions;
        Ok(())
    }

    /// The next messages of a queue, in order; none when there are none within `wait`. Cancel safe: the position moves only
    /// when this returns.
    ///
    /// # Errors
    /// [`ClientError::Missing`] for a queue that was not assigned; otherwise what the broker says.
    pub async fn pull(
        &mut self,
        queue: &MessageQueue,
        wait: Duration,
    ) -> Result<Vec<Received>, ClientError> {
        let started = self.transport.clock().monotonic();
        loop {
            let waited = self.transport.clock().monotonic().saturating_sub(started);
            let pull = Pull {
                group: self.group.clone(),
                queue: queue.id(),
                offset: self.position(queue)?,
                filter: self.filter.clone(),
                most: usize::MAX,
                most_bytes: usize::MAX,
                wait: wait.saturating_sub(waited),
            };
            let pulled = self.transport.pull(&queue.broker, pull).await?;
            let read =
                |record| Received::parse(record).map_err(|e| ClientError::Refused(e.to_string()));
            let mut received = pulled
                .records
                .iter()
                .map(read)
                .collect::<Result<Vec<_>, _>>()?;
            received.retain(|message| self.filter.matches(message.tag()));
            self.positions.insert(queue.clone(), pulled.next);
            let go_on = received.is_empty()
                && (pulled.next < pulled.max || pulled.outcome == PullOutcome::Moved);
            if !go_on {
                return Ok(received);
            }
        }
    }

    /// Where a queue is read next.
    ///
    /// # Errors
    /// [`ClientError::Missing`] for a queue that was not assigned.
    pub fn position(&self, queue: &MessageQueue) -> Result<u64, ClientError> {
        let missing =
            || ClientError::Missing(format!("queue {queue} is not assigned; call assign()"));
        self.positions.get(queue).copied().ok_or_else(missing)
    }

    /// Reads an assigned queue from `offset` next.
    ///
    /// # Errors
    /// [`ClientError::Missing`] for a queue that was not assigned.
    pub fn seek(&mut self, queue: &MessageQueue, offset: u64) -> Result<(), ClientError> {
        self.position(queue)?;
        self.positions.insert(queue.clone(), offset);
        Ok(())
    }

    /// Reads an assigned queue from the first message stored at or after a wall clock time, ms since 1970.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn seek_to_time(
        &mut self,
        queue: &MessageQueue,
        wall_ms: u64,
    ) -> Result<(), ClientError> {
        let offset = self.transport.offset_at(queue, wall_ms).await?;
        self.seek(queue, offset)
    }

    /// First kept and next offset of a queue.
    ///
    /// # Errors
    /// [`ClientError::Missing`] when there is no such queue.
    pub async fn range(&self, queue: &MessageQueue) -> Result<Range<u64>, ClientError> {
        self.transport.queue_range(queue).await
    }

    /// Commits all positions for the group: whatever was pulled counts as done with.
    ///
    /// # Errors
    /// [`ClientError`]; some positions may be committed then.
    pub async fn commit(&self) -> Result<(), ClientError> {
        for (queue, position) in &self.positions {
            self.transport
                .commit_offset(&self.group, queue, *position)
                .await?;
        }
        Ok(())
    }
}
