//! The local transactions that run in this process, so that a check-back does not fence them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mq_core::clock::Clock;

use crate::transaction::TransactionId;

/// Ids of running local transactions, and since when they run.
///
/// Only a courtesy to transactions that are well: whoever is missing here is fenced, and still no answer is wrong.
#[derive(Debug)]
pub struct Live {
    clock: Arc<dyn Clock>,
    longest: Duration,
    since: Mutex<HashMap<TransactionId, Duration>>,
}

impl Live {
    /// Nobody yet; a transaction counts as live for at most `longest`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, longest: Duration) -> Self {
        Self {
            clock,
            longest,
            since: Mutex::default(),
        }
    }

    /// Counts `id` as live until the guard is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>, id: TransactionId) -> Guard {
        self.since().insert(id, self.clock.monotonic());
        Guard {
            live: Arc::clone(self),
            id,
        }
    }

    /// Whether the local transaction of `id` runs here and has not run for too long.
    #[must_use]
    pub fn contains(&self, id: TransactionId) -> bool {
        let now = self.clock.monotonic();
        self.since()
            .get(&id)
            .is_some_and(|since| now.saturating_sub(*since) < self.longest)
    }

    fn since(&self) -> MutexGuard<'_, HashMap<TransactionId, Duration>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps one id live.
#[derive(Debug)]
pub struct Guard {
    live: Arc<Live>,
    id: TransactionId,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.live.since().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use mq_core::clock::ManualClock;

    use super::*;

    #[test]
    fn an_id_is_live_until_its_guard_is_dropped_or_it_is_too_old() {
        let clock = Arc::new(ManualClock::default());
        let live = Arc::new(Live::new(clock.clone(), Duration::from_secs(600)));
        let guard = live.enter(TransactionId(1));
        assert!(live.contains(TransactionId(1)));
        assert!(!live.contains(TransactionId(2)));
        drop(guard);
        assert!(!live.contains(TransactionId(1)));

        let _guard = live.enter(TransactionId(3));
        clock.advance(Duration::from_secs(599));
        assert!(live.contains(TransactionId(3)));
        clock.advance(Duration::from_secs(1));
        assert!(!live.contains(TransactionId(3)));
    }
}
