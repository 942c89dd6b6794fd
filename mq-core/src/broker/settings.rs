//! What an operator may set about a broker, and the defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of a broker. The defaults are RocketMQ's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether a send to an unknown topic creates it (RocketMQ `autoCreateTopicEnable`). On.
    pub auto_create_topics: bool,
    /// Queues of a topic that is created without saying how many (`defaultTopicQueueNums`). 4.
    pub default_queues: u32,
    /// Most queues of one topic. 1,024.
    pub max_queues: u32,
    /// Most topics, retry topics and dead letter topics included: each costs memory in every route answer. 50,000.
    pub max_topics: usize,
    /// Most consumer groups. 50,000.
    pub max_groups: usize,
    /// Whether plain messages are acknowledged once written, before they are durable (RocketMQ `ASYNC_FLUSH`); a power cut
    /// may lose the last 10 ms of them. Off.
    pub flush_async: bool,
    /// How often changed consumer offsets are written (RocketMQ `flushConsumerOffsetInterval`, 5 s there). 100 ms; a
    /// crash repeats at most this much and what was not acknowledged.
    pub offsets_interval: Duration,
    /// How much log may follow the broker's last snapshot before a new one is written; bounds the start after a crash.
    /// 16 MiB.
    pub snapshot_bytes: u64,
    /// Most messages of one pull answer. 32.
    pub pull_messages: usize,
    /// Most bytes of one pull answer; one message always fits. 256 KiB.
    pub pull_bytes: usize,
    /// How long a pull may be held at most. 60 s.
    pub pull_wait: Duration,
    /// Whether subscriptions may select by properties with SQL92 expressions (RocketMQ `enablePropertyFilter`, off there).
    /// On; each such pull reads the messages it leaves out.
    pub property_filter: bool,
    /// How often a message may be consumed again before it is a dead letter, unless the group says otherwise. 16.
    pub retries: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            auto_create_topics: true,
            default_queues: 4,
            max_queues: 1024,
            max_topics: 50_000,
            max_groups: 50_000,
            flush_async: false,
            offsets_interval: Duration::from_millis(100),
            snapshot_bytes: 16 << 20,
            pull_messages: 32,
            pull_bytes: 256 << 10,
            pull_wait: Duration::from_secs(60),
            property_filter: true,
            retries: 16,
        }
    }
}
