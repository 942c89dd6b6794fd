//! The broker over a log in memory.

use super::*;
use crate::clock::ManualClock;
use crate::log::LogId;
use crate::log::memory::MemoryLog;
use crate::names::TopicName;
use crate::random::SeededRandom;

mod topics;

/// A log that outlives its brokers.
struct World {
    log: Arc<MemoryLog>,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
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
