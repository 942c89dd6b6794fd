//! The local transactions that run in this process, so that a check-back does not fence them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::transaction::TransactionId;

/// Ids of running local transactions.
///
/// Only a courtesy to transactions that are well: whoever is missing here is fenced, and still no answer is wrong.
#[derive(Debug, Default)]
pub struct Live {
    ids: Mutex<HashSet<TransactionId>>,
}

impl Live {
    /// Counts `id` as live until the guard is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>, id: TransactionId) -> Guard {
        self.ids().insert(id);
        Guard {
            live: Arc::clone(self),
            id,
        }
    }

    /// Whether the local transaction of `id` runs here.
    #[must_use]
    pub fn contains(&self, id: TransactionId) -> bool {
        self.ids().contains(&id)
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<TransactionId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.live.ids().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_live_until_its_guard_is_dropped() {
        let live = Arc::new(Live::default());
        let guard = live.enter(TransactionId(1));
        assert!(live.contains(TransactionId(1)));
        assert!(!live.contains(TransactionId(2)));
        drop(guard);
        assert!(!live.contains(TransactionId(1)));
    }
}
