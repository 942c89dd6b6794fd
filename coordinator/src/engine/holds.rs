//! Topics that must neither go away nor lose queues, because half messages wait to be published there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mq_core::names::TopicName;

/// How many half messages wait for each topic. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Holds(Arc<Mutex<HashMap<TopicName, u64>>>);

/// One half message that is about to wait for a topic. Dropped, it does not wait; kept, it does.
#[derive(Debug)]
pub struct Hold {
    held: Option<(Holds, TopicName)>,
}

impl Hold {
    /// The half message waits until [`Holds::release`].
    pub fn keep(mut self) {
        self.held = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some((holds, topic)) = self.held.take() {
            holds.release(&topic);
        }
    }
}

impl Holds {
    /// Adds one half message that is about to wait for `topic`.
    pub fn begin(&self, topic: &TopicName) -> Hold {
        self.hold(topic, 1);
        Hold {
            held: Some((self.clone(), topic.clone())),
        }
    }

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
