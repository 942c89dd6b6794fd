//! Deleting markers that nobody can ask for any more: by id, once the coordinator has confirmed COMMIT, after a while.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mq_core::clock::Clock;

use crate::marker::databases::Markers;
use crate::transaction::{MarkerIdentity, TransactionId};

/// Markers that wait to be deleted; beyond, the oldest do not wait any longer. 65,536 take 3 MiB.
const WAITING: usize = 65_536;
/// Markers deleted in one short transaction of the service's database.
const AT_ONCE: usize = 512;
/// How often to look.
const LOOK: Duration = Duration::from_secs(5);

/// One marker to delete, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decided {
    due: Duration,
    identity: MarkerIdentity,
    id: TransactionId,
}

/// The markers of decided transactions, in the order they were confirmed.
#[derive(Debug)]
pub(super) struct Pruning {
    clock: Arc<dyn Clock>,
    grace: Duration,
    waiting: Mutex<VecDeque<Decided>>,
}

impl Pruning {
    pub(super) fn new(clock: Arc<dyn Clock>, grace: Duration) -> Self {
        Self {
            clock,
            grace,
            waiting: Mutex::default(),
        }
    }

    /// Takes note that the coordinator has the COMMIT of `id` on disk.
    pub(super) fn confirmed(&self, identity: MarkerIdentity, id: TransactionId) {
        let due = self.clock.monotonic().saturating_add(self.grace);
        self.waiting().push_back(Decided { due, identity, id });
    }

    /// Takes out up to [`AT_ONCE`] markers of one database that are due.
    fn take_due(&self) -> Option<(MarkerIdentity, Vec<TransactionId>)> {
        let now = self.clock.monotonic();
        let mut waiting = self.waiting();
        let surplus = waiting.len().saturating_sub(WAITING);
        let due = waiting
            .iter()
            .take_while(|decided| decided.due <= now)
            .count();
        let ready: Vec<Decided> = {
            let ready = due.max(surplus).min(AT_ONCE);
            waiting.drain(..ready).collect()
        };
        let identity = ready.first()?.identity;
        let (these, others): (Vec<_>, Vec<_>) = ready
            .into_iter()
            .partition(|decided| decided.identity == identity);
        for other in others.into_iter().rev() {
            waiting.push_front(other);
        }
        Some((
            identity,
            these.into_iter().map(|decided| decided.id).collect(),
        ))
    }

    /// Deletes what is due, for ever.
    pub(super) async fn run(self: Arc<Self>, markers: Markers) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            self.prune(&markers).await;
        }
    }

    pub(super) async fn prune(&self, markers: &Markers) {
        while let Some((identity, ids)) = self.take_due() {
            let Some(store) = markers.get(identity) else {
                continue;
            };
            if let Err(error) = store.prune(&ids).await {
                tracing::debug!(%error, markers = ids.len(), "markers are deleted later");
                for id in ids {
                    self.confirmed(identity, id);
                }
                return;
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Decided>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use mq_core::clock::ManualClock;

    use super::*;
    use crate::marker::model::Model;
    use crate::marker::{Marker, MarkerStore};

    const GRACE: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn markers_are_deleted_after_the_grace_time_each_in_its_database() {
        let clock = Arc::new(ManualClock::default());
        let pruning = Pruning::new(clock.clone(), GRACE);
        let stores = [1, 2].map(|identity| Arc::new(Model::new(MarkerIdentity(identity))));
        let mut markers = Markers::new();
        for store in &stores {
            markers = markers.add_store(store.clone()).unwrap();
        }
        for number in 0..6 {
            let store = &stores[number % 2];
            assert!(store.commit(TransactionId(number as u128)));
            if number < 4 {
                pruning.confirmed(store.identity(), TransactionId(number as u128));
            }
        }
        clock.advance(GRACE - Duration::from_secs(1));
        pruning.prune(&markers).await;
        assert_eq!(
            stores[0].read(TransactionId(0)).await,
            Ok(Some(Marker::Committed))
        );
        clock.advance(Duration::from_secs(1));
        pruning.prune(&markers).await;
        for number in 0..6 {
            let stands = stores[number % 2].read(TransactionId(number as u128)).await;
            let unconfirmed = number >= 4;
            assert_eq!(stands.unwrap().is_some(), unconfirmed, "marker {number}");
        }
        let horizon = stores[0].horizon().await;
        assert_eq!(
            horizon,
            Ok(TransactionId(0)),
            "the library deletes without doubt"
        );
    }

    #[test]
    fn beyond_the_bound_the_oldest_do_not_wait() {
        let pruning = Pruning::new(Arc::new(ManualClock::default()), GRACE);
        for number in 0..=WAITING {
            pruning.confirmed(MarkerIdentity(1), TransactionId(number as u128));
        }
        let oldest = vec![TransactionId(0)];
        assert_eq!(pruning.take_due(), Some((MarkerIdentity(1), oldest)));
        assert_eq!(pruning.take_due(), None);
    }
}
