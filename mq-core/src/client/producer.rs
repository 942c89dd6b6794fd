//! Sending plain messages.

use std::sync::Arc;

use super::embedded::Embedded;
use super::{ClientError, Transport};
use crate::broker::filter::tag_code;
use crate::broker::{Broker, Incoming, Receipt};
use crate::message::Message;
use crate::names::TopicName;
use crate::random::Random;
use crate::wire::{ids, properties, reserved};

/// Sends messages. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Producer {
    transport: Arc<dyn Transport>,
}

impl Producer {
    /// A producer for the broker in this process.
    #[must_use]
    pub fn attach(broker: &Broker) -> Self {
        Self::over(Arc::new(Embedded(broker.clone())))
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

    /// Like [`Self::send`], to this queue.
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
        let route = self.transport.route_for_sending(topic).await?;
        let missing =
            || ClientError::Missing(format!("topic {topic} does not exist; create it first"));
        Ok(route.ok_or_else(missing)?.write_queues.max(1))
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
