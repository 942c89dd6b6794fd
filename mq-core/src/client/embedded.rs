//! The broker in the same process as a transport.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use super::ClientError;
use super::message_queue::{LOCAL, MessageQueue};
use super::transport::{Attachment, Transport};
use crate::broker::Broker;
use crate::broker::clients::Connection;
use crate::clock::Clock;
use crate::exchange::{Incoming, Pull, Pulled, Receipt, SendBack};
use crate::membership::{Announcement, Link};
use crate::names::{GroupName, TopicName};
use crate::random::Random;

/// A broker in this process. Keeps it running.
#[derive(Debug, Clone)]
pub struct Embedded(pub Broker);

#[derive(Debug)]
struct EmbeddedAttachment {
    broker: Broker,
    client_id: Arc<str>,
    connection: Connection,
}

#[async_trait]
impl Transport for Embedded {
    async fn attach(
        &self,
        client_id: Option<Arc<str>>,
        link: Arc<dyn Link>,
    ) -> Result<Box<dyn Attachment>, ClientError> {
        let incarnation = self.random().next_u128();
        let client_id = client_id.unwrap_or_else(|| format!("127.0.0.1@{incarnation:032x}").into());
        let source = format!("{client_id} in this process");
        let clients = self.0.clients();
        let connection = clients.connect(Arc::clone(&client_id), incarnation, source, link);
        Ok(Box::new(EmbeddedAttachment {
            broker: self.0.clone(),
            client_id,
            connection,
        }))
    }

    async fn queues(&self, topic: &TopicName) -> Result<Option<Vec<MessageQueue>>, ClientError> {
        let queue = |number| MessageQueue {
            topic: topic.clone(),
            broker: LOCAL.into(),
            number,
        };
        let config = self.0.topic(topic);
        Ok(config.map(|config| (0..config.read_queues).map(queue).collect()))
    }

    async fn queues_for_sending(&self, topic: &TopicName) -> Result<Option<u32>, ClientError> {
        let config = self.0.topic_for_sending(topic);
        Ok(config.map(|config| config.write_queues))
    }

    async fn send(&self, messages: Vec<Incoming>) -> Result<Vec<Receipt>, ClientError> {
        Ok(self.0.send_all(messages).await?)
    }

    async fn pull(&self, _broker: &str, pull: Pull) -> Result<Pulled, ClientError> {
        Ok(self.0.pull(pull).await?)
    }

    async fn queue_range(&self, queue: &MessageQueue) -> Result<Range<u64>, ClientError> {
        Ok(self.0.queue_range(&queue.id())?)
    }

    async fn offset_at(&self, queue: &MessageQueue, wall_ms: u64) -> Result<u64, ClientError> {
        Ok(self.0.offset_at(&queue.id(), wall_ms)?)
    }

    async fn offset(
        &self,
        group: &GroupName,
        queue: &MessageQueue,
    ) -> Result<Option<u64>, ClientError> {
        Ok(self.0.offset(group, &queue.id())?)
    }

    async fn commit_offset(
        &self,
        group: &GroupName,
        queue: &MessageQueue,
        offset: u64,
    ) -> Result<(), ClientError> {
        Ok(self.0.commit_offset(group, &queue.id(), offset)?)
    }

    async fn members(
        &self,
        group: &GroupName,
        _topic: &TopicName,
    ) -> Result<Vec<Arc<str>>, ClientError> {
        Ok(self.0.members(group))
    }

    async fn send_back(&self, _queue: &MessageQueue, request: SendBack) -> Result<(), ClientError> {
        self.0.send_back(request).await?;
        Ok(())
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        self.0.clock()
    }

    fn random(&self) -> &Arc<dyn Random> {
        self.0.random()
    }
}

#[async_trait]
impl Attachment for EmbeddedAttachment {
    fn client_id(&self) -> &Arc<str> {
        &self.client_id
    }

    async fn announce(&self, announcement: Announcement) -> Result<(), ClientError> {
        if self.broker.is_stopping() {
            return Err(ClientError::Closed);
        }
        Ok(self.broker.announce(&self.connection, announcement).await?)
    }
}
