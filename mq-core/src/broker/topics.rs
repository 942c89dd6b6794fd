//! Topics from outside: create, set, delete, list, route, and the admission of messages to a queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::Broker;
use super::catalog::{Permission, Topic, TopicConfig};
use super::notes::Change;
use crate::log::AppendError;
use crate::names::{QueueId, TopicName};
use crate::wire::{reserved, system};

/// Why a topic is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// There is no such topic.
    #[error("topic {0} does not exist; create it first")]
    Missing(TopicName),
    /// The name belongs to the broker or to an extension.
    #[error("topic {0} is a system topic and cannot be created, changed or deleted")]
    System(TopicName),
    /// A count of queues that is not possible.
    #[error("topic {topic} cannot have {queues} queues; 1 to {most} are allowed")]
    Queues {
        /// The topic.
        topic: TopicName,
        /// How many were asked for.
        queues: u32,
        /// The setting `max_queues`.
        most: u32,
    },
    /// Too many topics.
    #[error(
        "there are {most} topics already, which is the most allowed; delete some or raise `max_topics`"
    )]
    TooMany {
        /// The setting `max_topics`.
        most: usize,
    },
    /// An extension will still publish to the topic.
    #[error(
        "topic {0} has open messages and can neither be deleted nor lose queues; settle them first"
    )]
    Held(TopicName),
    /// The change is not durable, or not known to be.
    #[error(transparent)]
    Log(#[from] AppendError),
}

/// Why a message is not admitted to a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// There is no such topic, and it is not created by sending.
    #[error("topic {0} does not exist; create it first")]
    NoSuchTopic(TopicName),
    /// The topic belongs to the broker or to an extension.
    #[error("topic {0} is a system topic and takes no messages from clients")]
    System(TopicName),
    /// The topic is closed for producers.
    #[error("topic {0} does not allow sending")]
    NotWritable(TopicName),
    /// The topic has fewer queues.
    #[error("queue {queue} does not exist; its topic has {queues} queues")]
    NoSuchQueue {
        /// The queue asked for.
        queue: QueueId,
        /// How many queues can be sent to.
        queues: u32,
    },
    /// The topic could not be created.
    #[error("the topic could not be created: {0}")]
    NotCreated(TopicError),
}

impl Broker {
    /// Creates a topic, or sets an existing one anew. Durable when it returns; dropped before that, it may or may not
    /// have happened.
    ///
    /// # Errors
    /// [`TopicError`]. Nothing has changed, except that after [`TopicError::Log`] that is not known.
    pub async fn put_topic(&self, config: TopicConfig) -> Result<(), TopicError> {
        let _one_at_a_time = self.shared.admin.lock().await;
        self.put_topic_locked(config).await
    }

    async fn put_topic_locked(&self, config: TopicConfig) -> Result<(), TopicError> {
        let topic = &config.name;
        if self.is_reserved(topic) {
            return Err(TopicError::System(topic.clone()));
        }
        let most = self.shared.settings.max_queues;
        for queues in [config.read_queues, config.write_queues] {
            if queues == 0 || queues > most {
                return Err(TopicError::Queues {
                    topic: topic.clone(),
                    queues,
                    most,
                });
            }
        }
        let old = self.find_topic(topic);
        let begins = match &old {
            Some(old) if old.config == config => return Ok(()),
            Some(old) if loses_queues(&old.config, &config) && self.shared.claimed.holds(topic) => {
                return Err(TopicError::Held(topic.clone()));
            }
            Some(old) => old.begins.clone(),
            None => self.ends(topic),
        };
        let (topics, most) = (
            self.shared.journal.known.catalog().topic_count(),
            self.shared.settings.max_topics,
        );
        if old.is_none() && topics >= most {
            return Err(TopicError::TooMany { most });
        }
        tracing::info!(topic = %config.name, read = config.read_queues, write = config.write_queues, "topic set");
        let topic = config.name.clone();
        let change = Change::Topic { config, begins };
        self.shared.journal.change(change).await?;
        self.clients().topic_changed(&topic);
        self.shared.topics_changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Deletes a topic and the offsets of all groups in it. Its messages are not delivered any more, and a topic created
    /// later under the same name begins empty. Durable when it returns.
    ///
    /// # Errors
    /// [`TopicError::Missing`], [`TopicError::System`], [`TopicError::Held`] or [`TopicError::Log`].
    pub async fn delete_topic(&self, topic: &TopicName) -> Result<(), TopicError> {
        let _one_at_a_time = self.shared.admin.lock().await;
        if self.is_reserved(topic) {
            return Err(TopicError::System(topic.clone()));
        }
        if self.find_topic(topic).is_none() {
            return Err(TopicError::Missing(topic.clone()));
        }
        if self.shared.claimed.holds(topic) {
            return Err(TopicError::Held(topic.clone()));
        }
        tracing::info!(%topic, "topic deleted");
        self.shared
            .journal
            .change(Change::TopicDeleted(topic.clone()))
            .await?;
        self.shared.topics_changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// How often topics were created, changed or deleted since the start, as a level to wait for.
    #[must_use]
    pub fn watch_topics(&self) -> watch::Receiver<u64> {
        self.shared.topics_changed.subscribe()
    }

    /// How a topic is set: its route on this broker. `None` for topics that do not exist, and for hidden ones.
    #[must_use]
    pub fn topic(&self, topic: &TopicName) -> Option<TopicConfig> {
        self.find_topic(topic).map(|topic| topic.config.clone())
    }

    /// The topic that a message for `topic` would be stored in: an existing one, or what sending would create.
    #[must_use]
    pub fn topic_for_sending(&self, topic: &TopicName) -> Option<TopicConfig> {
        let created = || {
            let allowed = self.shared.settings.auto_create_topics && self.may_be_created(topic);
            allowed.then(|| TopicConfig::new(topic.clone(), self.shared.settings.default_queues))
        };
        self.topic(topic).or_else(created)
    }

    /// All topics by name, retry and dead letter topics included, hidden ones not.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicConfig> {
        let catalog = self.shared.journal.known.catalog();
        let shown = catalog
            .topics()
            .filter(|topic| !self.shared.claimed.hides(&topic.config.name));
        shown.map(|topic| topic.config.clone()).collect()
    }

    /// Admits a message to a topic: the queue asked for, or the next one round robin. Creates an unknown topic if the
    /// settings allow that.
    ///
    /// # Errors
    /// [`AdmitError`] names the rule that is broken.
    pub async fn admit(
        &self,
        topic: &TopicName,
        queue: Option<u32>,
    ) -> Result<QueueId, AdmitError> {
        match self.admit_existing(topic, queue) {
            Err(AdmitError::NoSuchTopic(_)) if self.shared.settings.auto_create_topics => {
                // In a box: rare, and large for a part of every send's future.
                Box::pin(self.create_on_demand(topic, self.shared.settings.default_queues))
                    .await
                    .map_err(AdmitError::NotCreated)?;
                self.admit_existing(topic, queue)
            }
            admitted => admitted,
        }
    }

    /// Like [`Self::admit`], without creating anything and without waiting.
    ///
    /// # Errors
    /// [`AdmitError`] names the rule that is broken.
    pub fn admit_existing(
        &self,
        topic: &TopicName,
        queue: Option<u32>,
    ) -> Result<QueueId, AdmitError> {
        if self.is_reserved(topic) {
            return Err(AdmitError::System(topic.clone()));
        }
        let Some(found) = self.find_topic(topic) else {
            return Err(AdmitError::NoSuchTopic(topic.clone()));
        };
        if !found.config.permission.write {
            return Err(AdmitError::NotWritable(topic.clone()));
        }
        let queue = QueueId::new(topic.clone(), queue.unwrap_or_else(|| found.next_queue()));
        let queues = found.config.write_queues;
        if queue.queue >= queues {
            return Err(AdmitError::NoSuchQueue { queue, queues });
        }
        Ok(queue)
    }

    /// Creates a topic for a message, if messages may create it.
    pub(crate) async fn create_on_demand(
        &self,
        topic: &TopicName,
        queues: u32,
    ) -> Result<(), TopicError> {
        if !self.shared.settings.auto_create_topics || !self.may_be_created(topic) {
            return Err(TopicError::Missing(topic.clone()));
        }
        self.ensure_topic(TopicConfig::new(topic.clone(), queues))
            .await
    }

    /// Whether a message may create the topic. Retry topics and dead letters come with their group.
    fn may_be_created(&self, topic: &TopicName) -> bool {
        let of_a_group = [reserved::RETRY_PREFIX, reserved::DEAD_LETTER_PREFIX];
        !self.is_reserved(topic)
            && !of_a_group
                .iter()
                .any(|prefix| topic.as_str().starts_with(prefix))
    }

    /// Creates the topic if there is none; leaves an existing one as it is.
    pub(crate) async fn ensure_topic(&self, config: TopicConfig) -> Result<(), TopicError> {
        if self.find_topic(&config.name).is_some() {
            return Ok(());
        }
        let _one_at_a_time = self.shared.admin.lock().await;
        if self.find_topic(&config.name).is_some() {
            return Ok(());
        }
        self.put_topic_locked(config).await
    }

    pub(crate) fn find_topic(&self, topic: &TopicName) -> Option<Arc<Topic>> {
        if self.shared.claimed.hides(topic) {
            return None;
        }
        self.shared.journal.known.catalog().topic(topic)
    }

    /// Whether only an extension may read and write the topic.
    pub(crate) fn is_hidden(&self, topic: &TopicName) -> bool {
        self.shared.claimed.hides(topic)
    }

    /// Whether clients may not use the name at all.
    pub(crate) fn is_reserved(&self, topic: &TopicName) -> bool {
        system::is_system_topic(topic.as_str()) || self.shared.claimed.hides(topic)
    }

    /// Where a deleted topic of this name ended.
    fn ends(&self, topic: &TopicName) -> BTreeMap<u32, u64> {
        let queues =
            (0..self.shared.settings.max_queues).map(|queue| QueueId::new(topic.clone(), queue));
        let ends = queues.map(|queue| {
            (
                queue.queue,
                self.shared.journal.log.queue_range(&queue).end.0,
            )
        });
        ends.filter(|(_, end)| *end > 0).collect()
    }
}

fn loses_queues(old: &TopicConfig, new: &TopicConfig) -> bool {
    let closes =
        |old: Permission, new: Permission| (old.read && !new.read) || (old.write && !new.write);
    new.read_queues < old.read_queues
        || new.write_queues < old.write_queues
        || closes(old.permission, new.permission)
}
