//! Where a topic is, and which of its queues a message goes to: pure.

use std::collections::BTreeMap;

use crate::client::{BrokerName, MessageQueue};
use crate::names::TopicName;
use crate::wire::route::{BrokerData, TopicRoute};

/// Bits of a topic's permission.
const READ: i32 = 4;
const WRITE: i32 = 2;

/// Where a topic is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Route {
    /// Addresses of its brokers by name.
    pub(super) brokers: BTreeMap<BrokerName, String>,
    /// Its queues that can be read, sorted.
    pub(super) readable: Vec<MessageQueue>,
    /// Its queues that can be sent to, sorted.
    pub(super) writable: Vec<MessageQueue>,
}

/// Name and address of a broker that takes messages. One whose slaves alone are left has none.
pub(super) fn broker(data: &BrokerData) -> Option<(BrokerName, String)> {
    let address = data.broker_addrs.get(&0)?;
    Some((data.broker_name.as_str().into(), address.clone()))
}

impl Route {
    /// The route of `topic` as a nameserver tells it.
    pub(super) fn of(topic: &TopicName, told: &TopicRoute) -> Self {
        let brokers: BTreeMap<BrokerName, String> =
            told.broker_datas.iter().filter_map(broker).collect();
        let mut route = Self {
            brokers,
            ..Self::default()
        };
        for data in &told.queue_datas {
            let Some((broker, _)) = route.brokers.get_key_value(data.broker_name.as_str()) else {
                continue;
            };
            let queue = |number| MessageQueue {
                topic: topic.clone(),
                broker: broker.clone(),
                number,
            };
            if data.perm & READ != 0 {
                route.readable.extend((0..data.read_queue_nums).map(queue));
            }
            if data.perm & WRITE != 0 {
                route.writable.extend((0..data.write_queue_nums).map(queue));
            }
        }
        for queues in [&mut route.readable, &mut route.writable] {
            queues.sort_unstable();
            queues.dedup();
        }
        route
    }

    /// The route that `topic` will have once sending to it has created it, taken from the topic it inherits from.
    pub(super) fn inherited(&self, topic: &TopicName, most: u32) -> Self {
        let own = |queues: &[MessageQueue]| {
            let few = queues.iter().filter(|queue| queue.number < most);
            few.map(|queue| MessageQueue {
                topic: topic.clone(),
                ..queue.clone()
            })
            .collect()
        };
        Self {
            brokers: self.brokers.clone(),
            readable: own(&self.readable),
            writable: own(&self.writable),
        }
    }
}

/// The queues to try for one message, in order: the one whose turn it is first, then one of each other broker, those
/// that are `down` last.
pub(super) fn tries(
    queues: &[MessageQueue],
    turn: u64,
    down: impl Fn(&str) -> bool,
) -> Vec<MessageQueue> {
    let start = match u64::try_from(queues.len()) {
        Ok(0) | Err(_) => return Vec::new(),
        Ok(count) => usize::try_from(turn % count).unwrap_or(0),
    };
    let in_turn = queues.iter().cycle().skip(start).take(queues.len());
    let mut tries: Vec<MessageQueue> = Vec::new();
    for queue in in_turn {
        if tries.iter().all(|known| known.broker != queue.broker) {
            tries.push(queue.clone());
        }
    }
    tries.sort_by_key(|queue| down(&queue.broker));
    tries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::route::QueueData;

    fn told() -> TopicRoute {
        let queues = |name: &str, read, write, perm| QueueData {
            broker_name: name.into(),
            read_queue_nums: read,
            write_queue_nums: write,
            perm,
            topic_syn_flag: 0,
            topic_sys_flag: 0,
        };
        let broker = |name: &str, id| BrokerData {
            cluster: "c".into(),
            broker_name: name.into(),
            broker_addrs: [(id, format!("{name}:1"))].into(),
            enable_acting_master: false,
        };
        TopicRoute {
            queue_datas: vec![
                queues("b", 2, 3, 6),
                queues("a", 1, 1, 4),
                queues("slave-only", 4, 4, 6),
                queues("unknown", 4, 4, 6),
            ],
            broker_datas: vec![broker("b", 0), broker("a", 0), broker("slave-only", 1)],
            ..TopicRoute::default()
        }
    }

    fn text(queues: &[MessageQueue]) -> Vec<String> {
        let short = |queue: &MessageQueue| format!("{}{}", queue.broker, queue.number);
        queues.iter().map(short).collect()
    }

    #[test]
    fn queues_are_those_of_brokers_that_take_messages() {
        let topic = TopicName::new("t").unwrap();
        let route = Route::of(&topic, &told());
        assert_eq!(text(&route.readable), ["a0", "b0", "b1"]);
        assert_eq!(text(&route.writable), ["b0", "b1", "b2"]);
        assert_eq!(route.brokers.len(), 2);
        let new = TopicName::new("new").unwrap();
        let inherited = route.inherited(&new, 2);
        assert_eq!(text(&inherited.writable), ["b0", "b1"]);
        assert!(inherited.writable.iter().all(|queue| queue.topic == new));
    }

    #[test]
    fn every_queue_has_its_turn_and_a_broker_that_is_down_comes_last() {
        let topic = TopicName::new("t").unwrap();
        let mut told = told();
        told.queue_datas[1].perm = 6;
        let queues = Route::of(&topic, &told).writable;
        let first = |turn| text(&tries(&queues, turn, |_| false)).remove(0);
        assert_eq!([0, 1, 2, 3, 4].map(first), ["a0", "b0", "b1", "b2", "a0"]);
        assert_eq!(text(&tries(&queues, 2, |_| false)), ["b1", "a0"]);
        assert_eq!(
            text(&tries(&queues, 2, |broker| broker == "b")),
            ["a0", "b1"]
        );
        assert!(tries(&[], 3, |_| false).is_empty());
    }
}
