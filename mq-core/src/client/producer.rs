//! Sending plain messages.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "engine")]
use super::embedded::Embedded;
use super::remote::{self, ANSWER_WITHIN, Remote};
use super::{ClientError, Transport};
#[cfg(feature = "engine")]
use crate::broker::Broker;
use crate::exchange::{Incoming, Receipt};
use crate::filter::tag_code;
use crate::message::Message;
use crate::names::{GroupName, TopicName};
use crate::random::Random;
use crate::wire::{ids, properties, reserved};

/// Collects what a [`Producer`] over the network is made of.
#[derive(Debug, Clone)]
pub struct Builder {
    group: String,
    answer_within: Duration,
}

impl Builder {
    /// How long a broker may take to answer before it is not known whether a message is stored; 10 s unless told otherwise.
    #[must_use]
    pub const fn answer_within(mut self, within: Duration) -> Self {
        self.answer_within = within;
        self
    }

    /// Connects to the brokers behind `nameservers`: `HOST:PORT`, several separated by `;`; empty text takes the environment
    /// variable `NAMESRV_ADDR`. Call it inside a runtime.
    ///
    /// Each message goes to the queue whose turn it is. A broker that cannot be reached is passed over, and tried again.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for a name or address that breaks a rule, [`ClientError::Unavailable`] when no nameserver
    /// answers or none knows a broker.
    pub async fn connect(self, nameservers: &str) -> Result<Producer, ClientError> {
        let group = GroupName::new(&self.group);
        let group = group.map_err(|error| ClientError::Refused(error.to_string()))?;
        let (network, _) = remote::network(nameservers, None, None).await?;
        let remote = Remote::new(network, group.as_str(), None).answer_within(self.answer_within);
        Ok(Producer::over(Arc::new(remote)))
    }
}

/// Sends messages. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Producer {
    transport: Arc<dyn Transport>,
}

impl Producer {
    /// A producer for the broker in this process.
    #[must_use]
    #[cfg(feature = "engine")]
    pub fn attach(broker: &Broker) -> Self {
        Self::over(Arc::new(Embedded(broker.clone())))
    }

    /// Starts a producer of `group`.
    #[must_use]
    pub fn builder(group: impl Into<String>) -> Builder {
        Builder {
            group: group.into(),
            answer_within: ANSWER_WITHIN,
        }
    }

    /// A producer over any transport.
    #[must_use]
    pub const fn over(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// Sends a message to a queue of its topic, in turn. When it returns, the message is durable (or as the broker's
    /// settings say). A future that is dropped may still send.
    ///
    /// # Errors
    /// [`ClientError`]. Sending again after [`ClientError::Unknown`] may store the message twice, under two ids.
    pub async fn send(&self, message: Message) -> Result<Receipt, ClientError> {
        self.send_one(&message, None).await
    }

    /// Like [`Self::send`], to this queue. Queues are counted over all brokers of the topic, in the order of their names.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_to(&self, queue: u32, message: Message) -> Result<Receipt, ClientError> {
        self.send_one(&message, Some(queue)).await
    }

    /// Like [`Self::send`]; messages with the same key go to the same queue while the number of queues stays the same, so
    /// they are consumed in order.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_by_key(&self, key: &str, message: Message) -> Result<Receipt, ClientError> {
        let queues = self.queues(message.topic()).await?;
        self.send_one(&message, Some(queue_of_key(key, queues)))
            .await
    }

    /// Sends messages that are stored together, all or none. Those of one topic go to one queue, in order.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_all(&self, messages: Vec<Message>) -> Result<Vec<Receipt>, ClientError> {
        let mut chosen: Vec<(TopicName, u32)> = Vec::new();
        let mut batch = Vec::with_capacity(messages.len());
        for message in &messages {
            let known = chosen
                .iter()
                .find(|(topic, _)| topic == message.topic())
                .map(|(_, queue)| *queue);
            let queue = match known {
                Some(queue) => queue,
                None => {
                    let queues = self.queues(message.topic()).await?;
                    let queue =
                        u32::try_from(self.transport.random().next_u64() % u64::from(queues))
                            .unwrap_or(0);
                    chosen.push((message.topic().clone(), queue));
                    queue
                }
            };
            batch.push(self.incoming(message, Some(queue)));
        }
        self.transport.send(batch).await
    }

    async fn send_one(
        &self,
        message: &Message,
        queue: Option<u32>,
    ) -> Result<Receipt, ClientError> {
        let mut receipts = self
            .transport
            .send(vec![self.incoming(message, queue)])
            .await?;
        receipts
            .pop()
            .ok_or_else(|| ClientError::Unknown("the broker answered without a receipt".into()))
    }

    fn incoming(&self, message: &Message, queue: Option<u32>) -> Incoming {
        let now = self.transport.clock().wall_ms();
        let mut incoming = Incoming::new(message, queue, now);
        let key = ids::hex128(unique_key(now, &**self.transport.random()));
        properties::push(&mut incoming.properties, reserved::UNIQ_KEY, &key);
        incoming
    }

    async fn queues(&self, topic: &TopicName) -> Result<u32, ClientError> {
        let queues = self.transport.queues_for_sending(topic).await?;
        let missing =
            || ClientError::Missing(format!("topic {topic} does not exist; create it first"));
        Ok(queues.ok_or_else(missing)?.max(1))
    }
}

/// The queue of a key: Java's `hashCode` modulo the number of queues, as RocketMQ's `SelectMessageQueueByHash`.
fn queue_of_key(key: &str, queues: u32) -> u32 {
    let queue = (tag_code(key) % i64::from(queues.max(1))).unsigned_abs();
    u32::try_from(queue).unwrap_or(0)
}

/// A UUID v7: sorts by time, unique without asking anybody.
fn unique_key(wall_ms: u64, random: &dyn Random) -> u128 {
    let random = random.next_u128().to_be_bytes();
    let ten = random
        .first_chunk::<10>()
        .expect("16 bytes have a first ten");
    uuid::Builder::from_unix_timestamp_millis(wall_ms, ten)
        .into_uuid()
        .as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_always_names_a_queue_that_exists() {
        for key in ["", "a", "polygenelubricants", "10248"] {
            for queues in 1..9 {
                assert!(queue_of_key(key, queues) < queues);
            }
        }
        assert_eq!(
            queue_of_key("polygenelubricants", 7),
            2,
            "the remainder's absolute value, as in Java"
        );
    }
}
