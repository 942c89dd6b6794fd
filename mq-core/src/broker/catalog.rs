//! Which topics and groups exist and how they are set: pure, changed only by what the log has made durable.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use crate::names::{GroupName, TopicName};

/// Who may use a topic (RocketMQ `perm`: 4 read, 2 write).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// Consumers may pull.
    pub read: bool,
    /// Producers may send.
    pub write: bool,
}

impl Permission {
    /// Read and write.
    pub const ALL: Self = Self {
        read: true,
        write: true,
    };

    /// RocketMQ's bits.
    #[must_use]
    pub const fn bits(self) -> i32 {
        (self.read as i32) << 2 | (self.write as i32) << 1
    }

    /// The permission with these bits; others are ignored, as RocketMQ does.
    #[must_use]
    pub const fn from_bits(bits: i32) -> Self {
        Self {
            read: bits & 4 != 0,
            write: bits & 2 != 0,
        }
    }
}

/// How a topic is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// The topic.
    pub name: TopicName,
    /// Queues 0 to this, exclusive, can be pulled from.
    pub read_queues: u32,
    /// Queues 0 to this, exclusive, can be sent to.
    pub write_queues: u32,
    /// Who may use it.
    pub permission: Permission,
}

impl TopicConfig {
    /// A topic with this many queues that everybody may read and write.
    #[must_use]
    pub const fn new(name: TopicName, queues: u32) -> Self {
        Self {
            name,
            read_queues: queues,
            write_queues: queues,
            permission: Permission::ALL,
        }
    }
}

/// How a consumer group is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupConfig {
    /// The group.
    pub name: GroupName,
    /// Whether its consumers may pull.
    pub consume: bool,
    /// How often a message may be consumed again before it is a dead letter.
    pub retries: u32,
}

/// A topic as it exists.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) config: TopicConfig,
    /// Where the topic begins in queues that a deleted topic of the same name has used.
    pub(crate) begins: BTreeMap<u32, u64>,
    turn: AtomicU32,
}

impl Topic {
    /// The next write queue, round robin.
    pub(crate) fn next_queue(&self) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.config.write_queues.max(1)
    }
}

/// Topics and groups.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    topics: BTreeMap<TopicName, Arc<Topic>>,
    groups: HashMap<GroupName, GroupConfig>,
}

impl Catalog {
    pub(crate) fn topic(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.topics.get(name).cloned()
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    pub(crate) fn topic_count(&self) -> usize {
        self.topics.len()
    }

    pub(crate) fn put_topic(&mut self, config: TopicConfig, begins: BTreeMap<u32, u64>) {
        let topic = Topic {
            begins,
            turn: AtomicU32::new(0),
            config,
        };
        self.topics
            .insert(topic.config.name.clone(), Arc::new(topic));
    }

    pub(crate) fn remove_topic(&mut self, name: &TopicName) {
        self.topics.remove(name);
    }

    pub(crate) fn group(&self, name: &GroupName) -> Option<&GroupConfig> {
        self.groups.get(name)
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &GroupConfig> {
        self.groups.values()
    }

    pub(crate) fn put_group(&mut self, config: GroupConfig) {
        self.groups.insert(config.name.clone(), config);
    }

    pub(crate) fn remove_group(&mut self, name: &GroupName) {
        self.groups.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_bits_are_rocketmqs() {
        for bits in [0, 2, 4, 6] {
            assert_eq!(Permission::from_bits(bits).bits(), bits);
        }
        assert_eq!(Permission::ALL.bits(), 6);
    }

    #[test]
    fn queues_take_turns() {
        let mut catalog = Catalog::default();
        let name = TopicName::new("t").unwrap();
        catalog.put_topic(TopicConfig::new(name.clone(), 3), BTreeMap::new());
        let topic = catalog.topic(&name).unwrap();
        let chosen: Vec<_> = (0..6).map(|_| topic.next_queue()).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
    }
}
