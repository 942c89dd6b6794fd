//! Which topics and flag bits clients may not use: they belong to the broker or to its extensions.

use super::reserved::{AUTO_CREATE_TOPIC, FLAG_TRANSACTION_MASK, SCHEDULE_TOPIC};

/// Topics that belong to the broker itself; nobody sends to them, pulls from them or deletes them.
pub const BROKER_TOPICS: [&str; 2] = [SCHEDULE_TOPIC, AUTO_CREATE_TOPIC];

/// Prefix of system topics: only the broker or an extension uses them, but [`TRACE_TOPIC`] is open to all.
pub const PREFIX: &str = "RMQ_SYS_";

/// The topic that clients send their traces to.
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";

/// Flag bits that only an extension may accept on a sent message; copies for a retry never carry them.
pub const CLAIMABLE_FLAGS: i32 = FLAG_TRANSACTION_MASK;

/// Whether ordinary clients may not use the topic, whoever is linked in.
#[must_use]
pub fn is_system_topic(topic: &str) -> bool {
    BROKER_TOPICS.contains(&topic) || (topic.starts_with(PREFIX) && topic != TRACE_TOPIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_trace_topic_among_system_topics_is_open() {
        for closed in ["TBW102", "SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC"] {
            assert!(is_system_topic(closed), "{closed}");
        }
        for open in [TRACE_TOPIC, "orders", "%RETRY%g"] {
            assert!(!is_system_topic(open), "{open}");
        }
    }
}
