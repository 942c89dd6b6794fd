//! Consumer groups from outside: settings, subscriptions with a durable start, members and offsets.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::catalog::{GroupConfig, TopicConfig};
use super::clients::{Announcement, Connection, ConsumeFrom, Membership};
use super::notes::Change;
use super::{Broker, PullError, TopicError};
use crate::log::{AppendError, QueueOffset};
use crate::names::{GroupName, QueueId, TopicName};

/// A queue whose first message is at most this far behind the end of the log is young.
const YOUNG_BYTES: u64 = 256 << 20;

/// Why a group is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Too many groups.
    #[error(
        "there are {most} groups already, which is the most allowed; delete some or raise `max_groups`"
    )]
    TooMany {
        /// The setting `max_groups`.
        most: usize,
    },
    /// The group has no settings, no offsets and no members.
    #[error("group {0} does not exist")]
    Missing(GroupName),
    /// Consumers are connected.
    #[error("group {0} has members; stop them first")]
    InUse(GroupName),
    /// Its retry topic could not be created.
    #[error("the group's topic could not be created: {0}")]
    Topic(#[from] TopicError),
    /// A start of the group could not be found in the log.
    #[error(transparent)]
    Queue(#[from] PullError),
    /// The change is not durable, or not known to be.
    #[error(transparent)]
    Log(#[from] AppendError),
}

impl Broker {
    /// Notes what a client says about itself: retry topics exist and the starting offsets of its groups are durable before
    /// this returns, so that nothing stored afterwards is skipped. Only then is it a member.
    ///
    /// # Errors
    /// [`GroupError`]; the client is not a member of its groups then.
    pub async fn announce(
        &self,
        connection: &Connection,
        announcement: Announcement,
    ) -> Result<(), GroupError> {
        let keep_offsets = |membership: &&Membership| !membership.broadcasting;
        for membership in announcement.consumer_groups.iter().filter(keep_offsets) {
            self.subscribe(membership).await?;
        }
        connection.announce(announcement);
        Ok(())
    }

    async fn subscribe(&self, membership: &Membership) -> Result<(), GroupError> {
        let group = &membership.group;
        self.admit_group(group)?;
        let retry = TopicName::retry_of(group);
        self.ensure_topic(TopicConfig::new(retry.clone(), 1))
            .await?;
        let wanted = membership
            .subscriptions
            .iter()
            .map(|subscription| &subscription.topic);
        for topic in wanted.chain([&retry]) {
            if self.shared.journal.known.offsets().knows(group, topic) {
                continue;
            }
            let from = if *topic == retry {
                ConsumeFrom::First
            } else {
                membership.from
            };
            if from == ConsumeFrom::Client {
                continue;
            }
            let starts = self.starts(topic, from)?;
            let change = Change::Subscribed {
                group: group.clone(),
                topic: topic.clone(),
                starts,
            };
            self.shared.journal.change(change).await?;
        }
        Ok(())
    }

    /// Where to start in each queue there is. Queues that come later are read from their beginning, as everything in them
    /// is stored after the subscription.
    fn starts(&self, topic: &TopicName, from: ConsumeFrom) -> Result<Vec<(u32, u64)>, PullError> {
        let queues = self
            .find_topic(topic)
            .map_or(0, |topic| topic.config.read_queues);
        let mut starts = Vec::new();
        for number in 0..queues {
            let queue = QueueId::new(topic.clone(), number);
            let Ok(range) = self.readable_range(&queue) else {
                continue;
            };
            let start = match from {
                ConsumeFrom::First => range.start,
                ConsumeFrom::Last => range.end,
                ConsumeFrom::LastUnlessYoung if self.is_young(&queue) => range.start,
                ConsumeFrom::LastUnlessYoung | ConsumeFrom::Client => range.end,
                ConsumeFrom::Timestamp(wall_ms) => self.offset_at(&queue, wall_ms)?,
            };
            starts.push((number, start));
        }
        Ok(starts)
    }

    /// Whether a queue still has its very first message (or none yet), stored not long ago as log goes: RocketMQ looks
    /// whether that message is still in memory.
    #[must_use]
    pub fn is_young(&self, queue: &QueueId) -> bool {
        let Ok(range) = self.readable_range(queue) else {
            return false;
        };
        let end = self.log().range().end;
        range.start == 0
            && (range.end == 0
                || self
                    .log()
                    .find(queue, QueueOffset(0))
                    .is_ok_and(|first| end.0.saturating_sub(first.0) < YOUNG_BYTES))
    }

    /// How far a group has consumed a queue: the next offset it wants. `None` for a group that never subscribed to the
    /// topic and never committed in it.
    ///
    /// # Errors
    /// [`PullError`] when the queue does not exist.
    pub fn offset(&self, group: &GroupName, queue: &QueueId) -> Result<Option<u64>, PullError> {
        let range = self.readable_range(queue)?;
        let offsets = self.shared.journal.known.offsets();
        let start = || offsets.knows(group, &queue.topic).then_some(range.start);
        Ok(offsets
            .get(group, queue)
            .map(|offset| offset.min(range.end))
            .or_else(start))
    }

    /// Notes how far a group has consumed a queue; also backwards. Written a little later (`offsets_interval`) and on
    /// close: a crash before that repeats messages. An offset behind the end of the queue counts as its end.
    ///
    /// # Errors
    /// [`GroupError::Queue`] when the queue does not exist, [`GroupError::TooMany`] for one group too many.
    pub fn commit_offset(
        &self,
        group: &GroupName,
        queue: &QueueId,
        offset: u64,
    ) -> Result<(), GroupError> {
        let range = self.readable_range(queue)?;
        self.admit_group(group)?;
        let mut offsets = self.shared.journal.known.offsets();
        offsets.commit(group, queue, offset.min(range.end));
        if offsets.has_unwritten() {
            self.shared.offsets_changed.notify_one();
        }
        Ok(())
    }

    /// Client ids of the connected consumers of a group, sorted.
    #[must_use]
    pub fn members(&self, group: &GroupName) -> Vec<Arc<str>> {
        self.clients().members(group)
    }

    /// Creates a group's settings, or sets them anew. Durable when it returns.
    ///
    /// # Errors
    /// [`GroupError::TooMany`] or [`GroupError::Log`].
    pub async fn put_group(&self, config: GroupConfig) -> Result<(), GroupError> {
        let _one_at_a_time = self.shared.admin.lock().await;
        self.admit_group(&config.name)?;
        Ok(self.shared.journal.change(Change::Group(config)).await?)
    }

    /// Deletes a group's settings and offsets; its retry and dead letter topics stay. Durable when it returns.
    ///
    /// # Errors
    /// [`GroupError::Missing`], [`GroupError::InUse`] or [`GroupError::Log`].
    pub async fn delete_group(&self, group: &GroupName) -> Result<(), GroupError> {
        let _one_at_a_time = self.shared.admin.lock().await;
        if !self.members(group).is_empty() {
            return Err(GroupError::InUse(group.clone()));
        }
        if !self.groups().contains(group) {
            return Err(GroupError::Missing(group.clone()));
        }
        Ok(self
            .shared
            .journal
            .change(Change::GroupDeleted(group.clone()))
            .await?)
    }

    /// A group's settings; `None` when it has none of its own and uses the broker's.
    #[must_use]
    pub fn group(&self, group: &GroupName) -> Option<GroupConfig> {
        self.shared.journal.known.catalog().group(group).cloned()
    }

    /// All groups that have settings or offsets, by name.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupName> {
        let known = &self.shared.journal.known;
        let mut groups: BTreeSet<GroupName> = known
            .catalog()
            .groups()
            .map(|group| group.name.clone())
            .collect();
        groups.extend(known.offsets().all().map(|(group, ..)| group.clone()));
        groups.into_iter().collect()
    }

    /// The topics in which a group has offsets, or has subscribed, by name.
    #[must_use]
    pub fn topics_of(&self, group: &GroupName) -> Vec<TopicName> {
        let offsets = self.shared.journal.known.offsets();
        let known = offsets.all().filter(|(known, ..)| *known == group);
        known.map(|(_, topic, _)| topic.clone()).collect()
    }

    /// The groups that have offsets in a topic, or have subscribed to it, by name.
    #[must_use]
    pub fn groups_of(&self, topic: &TopicName) -> Vec<GroupName> {
        let offsets = self.shared.journal.known.offsets();
        let known = offsets.all().filter(|(_, known, _)| *known == topic);
        let mut groups: Vec<GroupName> = known.map(|(group, ..)| group.clone()).collect();
        groups.sort_unstable();
        groups
    }

    /// How often a group's messages may be consumed again.
    pub(crate) fn retries_of(&self, group: &GroupName) -> u32 {
        self.group(group)
            .map_or(self.shared.settings.retries, |group| group.retries)
    }

    fn admit_group(&self, group: &GroupName) -> Result<(), GroupError> {
        let known = &self.shared.journal.known;
        let most = self.shared.settings.max_groups;
        let is_new = known.catalog().group(group).is_none() && !known.offsets().has_group(group);
        if is_new && known.offsets().group_count() >= most {
            return Err(GroupError::TooMany { most });
        }
        Ok(())
    }
}
