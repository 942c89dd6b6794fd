//! The broker in the same process as a transport.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use super::ClientError;
use super::transport::{Attachment, Identity, Transport};
use crate::broker::clients::{Announcement, Connection, Link};
use crate::broker::{Broker, Incoming, Pull, Pulled, Receipt, SendBack, SentBack, TopicConfig};
use crate::clock::Clock;
use crate::names::{GroupName, QueueId, TopicName};
use crate::random::Random;

/// A broker in this process. Keeps it running.
#[derive(Debug, Clone)]
pub struct Embedded(pub Broker);

#[derive(Debug)]
struct EmbeddedAttachment {
    broker: Broker,
    connection: Connection,
}

#[async_trait]
impl Transport for Embedded {
    async fn attach(
        &self,
        me: Identity,
        link: Arc<dyn Link>,
    ) -> Result<Box<dyn Attachment>, ClientError> {
        let source = format!("{} in this process", me.client_id);
        let connection = self
            .0
            .clients()
            .connect(me.client_id, me.incarnation, source, link);
        Ok(Box::new(EmbeddedAttachment {
            broker: self.0.clone(),
            connection,
        }))
    }

    async fn route(&self, topic: &TopicName) -> Result<Option<TopicConfig>, ClientError> {
        Ok(self.0.topic(topic))
    }

    async fn route_for_sending(
        &self,
        topic: &TopicName,
    ) -> Result<Option<TopicConfig>, ClientError> {
        Ok(self.0.topic_for_sending(topic))
    }

    async fn send(&self, messages: Vec<Incoming>) -> Result<Vec<Receipt>, ClientError> {
        Ok(self.0.send_all(messages).await?)
    }

    async fn pull(&self, pull: Pull) -> Result<Pulled, ClientError> {
        Ok(self.0.pull(pull).await?)
    }

    async fn queue_range(&self, queue: &QueueId) -> Result<Range<u64>, ClientError> {
        Ok(self.0.queue_range(queue)?)
    }

    async fn offset_at(&self, queue: &QueueId, wall_ms: u64) -> Result<u64, ClientError> {
        Ok(self.0.offset_at(queue, wall_ms)?)
    }

    async fn offset(&self, group: &GroupName, queue: &QueueId) -> Result<Option<u64>, ClientError> {
        Ok(self.0.offset(group, queue)?)
    }

    async fn commit_offset(
        &self,
        group: &GroupName,
        queue: &QueueId,
        offset: u64,
    ) -> Result<(), ClientError> {
        Ok(self.0.commit_offset(group, queue, offset)?)
    }

    async fn members(&self, group: &GroupName) -> Result<Vec<Arc<str>>, ClientError> {
        Ok(self.0.members(group))
    }

    async fn send_back(&self, request: SendBack) -> Result<SentBack, ClientError> {
        Ok(self.0.send_back(request).await?)
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
    async fn announce(&self, announcement: Announcement) -> Result<(), ClientError> {
        if self.broker.is_stopping() {
            return Err(ClientError::Closed);
        }
        Ok(self.broker.announce(&self.connection, announcement).await?)
    }
}
