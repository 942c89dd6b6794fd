//! Topics that must neither go away nor lose queues, because half messages wait to be published there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mq_core::names::TopicName;

/// How many half messages wait for each topic. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Holds(Arc<Mutex<HashMap<TopicName, u64>>>);

impl Holds {
    /// Adds `count` half messages that wait for `topic`.
    pub fn hold(&self, topic: &TopicName, count: u64) {
        let mut held = self.lock();
        match held.get_mut(topic) {
            Some(waiting) => *waiting += count,
            None => {
                held.insert(topic.clone(), count);
            }
        }
    }

    /// One of them waits no longer.
    pub fn release(&self, topic: &TopicName) {
        if let Some(waiting) = self.lock().get_mut(topic) {
            *waiting = waiting.saturating_sub(1);
        }
    }

    /// Whether any half message waits for `topic`.
    pub fn holds(&self, topic: &TopicName) -> bool {
        self.lock().get(topic).is_some_and(|waiting| *waiting > 0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicName, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
