//! A message queue among those of several brokers.

use std::fmt;
use std::sync::Arc;

use crate::names::{QueueId, TopicName};

/// A broker's name, as its settings and routes have it. The broker in the same process is [`LOCAL`].
pub type BrokerName = Arc<str>;

/// The name of the broker in the same process.
pub const LOCAL: &str = "local";

/// One message queue of a topic on one broker. They sort as RocketMQ sorts them, on which sharing rests: by topic, broker and
/// number.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageQueue {
    /// The topic.
    pub topic: TopicName,
    /// The broker that has it.
    pub broker: BrokerName,
    /// Its number on that broker, from 0.
    pub number: u32,
}

impl MessageQueue {
    /// What its broker calls it.
    #[must_use]
    pub fn id(&self) -> QueueId {
        QueueId::new(self.topic.clone(), self.number)
    }
}

impl fmt::Debug for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            broker,
            number,
        } = self;
        write!(f, "{topic}/{number} of broker {broker}")
    }
}
