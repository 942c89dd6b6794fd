//! The broker over a log in memory.

use super::clients::{Announcement, ConsumeFrom, Membership, Subscription};
use super::filter::Filter;
use super::*;
use crate::clock::TimerClock;
use crate::log::memory::MemoryLog;
use crate::log::{LogId, Position};
use crate::message::Message;
use crate::names::{GroupName, QueueId, TopicName};
use crate::random::SeededRandom;
use crate::wire::record::RecordView;

mod crashes;
mod delays;
mod groups;
mod pulling;
mod retries;
mod topics;

/// A log that outlives its brokers. Its time is that of the runtime's timers.
struct World {
    log: Arc<MemoryLog>,
    clock: Arc<TimerClock>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(TimerClock::new(1_700_000_000_000));
        let log = MemoryLog::new(LogId(1), Arc::clone(&clock) as Arc<dyn Clock>);
        Self {
            log: Arc::new(log),
            clock,
        }
    }

    async fn open(&self) -> Broker {
        self.open_with(Settings::default(), vec![]).await
    }

    async fn open_with(&self, settings: Settings, extensions: Vec<Arc<dyn Extension>>) -> Broker {
        let parts = Parts {
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            random: Arc::new(SeededRandom::new(1)),
            extensions,
        };
        Broker::open(settings, parts).await.unwrap()
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn queue(name: &str, number: u32) -> QueueId {
    QueueId::new(topic(name), number)
}

fn incoming(name: &str, tag: &str, body: &str) -> Incoming {
    let message = Message::builder(name).tag(tag).body(body.to_owned());
    Incoming::new(&message.build().unwrap(), Some(0), 1)
}

fn pull(queue: QueueId, offset: u64) -> Pull {
    let (group, filter) = (group("g"), Filter::ALL);
    Pull {
        group,
        queue,
        offset,
        filter,
        most: 32,
        most_bytes: usize::MAX,
        wait: Duration::ZERO,
    }
}

/// Bodies of everything in queue 0 of a topic.
async fn bodies(broker: &Broker, name: &str) -> Vec<String> {
    let pulled = broker.pull(pull(queue(name, 0), 0)).await.unwrap();
    let body = |bytes: &bytes::Bytes| {
        String::from_utf8(RecordView::parse(bytes).unwrap().body.to_vec()).unwrap()
    };
    pulled.records.iter().map(body).collect()
}

fn subscribed(name: &str, to: &str, from: ConsumeFrom) -> Announcement {
    let (topic, filter) = (topic(to), Filter::ALL);
    let membership = Membership {
        group: group(name),
        subscriptions: vec![Subscription { topic, filter }],
        from,
        broadcasting: false,
    };
    Announcement {
        consumer_groups: vec![membership],
        ..Announcement::default()
    }
}

#[derive(Debug)]
struct NoLink;

impl clients::Link for NoLink {
    fn push(&self, _: clients::Notice) -> bool {
        false
    }
}

/// Subscribes as a consumer that leaves at once.
async fn subscribe(broker: &Broker, announcement: Announcement) {
    let connection = broker.clients().connect("c", 1, "c", Arc::new(NoLink));
    broker.announce(&connection, announcement).await.unwrap();
}
