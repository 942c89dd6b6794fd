//! Deleting the markers that earlier processes left behind: those of their last while, and of commits whose answer was lost.
//!
//! Their ids tell roughly how old they are. That is a wall clock's word, and a wall clock may jump: a marker goes only once this
//! process has known for the whole grace time that its decision is confirmed, counted by its own pauses.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mq_core::clock::Clock;
use mq_core::wire::reserved::MOST_COMMITTED_ASKED;

use super::endpoint::Endpoint;
use crate::marker::databases::Markers;
use crate::marker::{MarkerError, MarkerStore};
use crate::transaction::TransactionId;

/// Markers that one question names, and one short transaction of the service's database deletes.
const PAGE: u32 = MOST_COMMITTED_ASKED as u32;
/// Between two pages, so that millions of markers are no load.
const PAUSE: Duration = Duration::from_secs(5);
/// Between two passes over all markers.
const AGAIN: Duration = Duration::from_secs(3600);

/// Asks the coordinator about old markers, and deletes those that it confirms.
pub(super) struct LeftBehind {
    pub(super) endpoint: Arc<dyn Endpoint>,
    pub(super) markers: Markers,
    pub(super) clock: Arc<dyn Clock>,
    /// Younger ones are left alone, and so are those that were confirmed a shorter while ago.
    pub(super) kept: Duration,
}

/// Markers that may go soon.
struct Confirmed {
    store: Arc<dyn MarkerStore>,
    ids: Vec<TransactionId>,
    /// How long that has been known, at least.
    for_at_least: Duration,
}

impl LeftBehind {
    /// Passes over all markers, for ever.
    pub(super) async fn run(self) {
        loop {
            // As many pages as pauses fit into the grace time.
            let mut confirmed = VecDeque::new();
            for identity in self.markers.identities() {
                let Some(store) = self.markers.get(identity) else {
                    continue;
                };
                let mut after = Some(TransactionId(0));
                while let Some(behind) = after {
                    self.pause(&mut confirmed).await;
                    let page = self.page(store, behind, &mut confirmed).await;
                    after = page.unwrap_or_else(|error| {
                        tracing::debug!(%error, "markers are deleted later");
                        None
                    });
                }
            }
            while !confirmed.is_empty() {
                self.pause(&mut confirmed).await;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Pauses, and deletes what has been confirmed for long enough by then.
    async fn pause(&self, confirmed: &mut VecDeque<Confirmed>) {
        tokio::time::sleep(PAUSE).await;
        for page in confirmed.iter_mut() {
            page.for_at_least += PAUSE;
        }
        while let Some(page) = confirmed.pop_front_if(|page| page.for_at_least >= self.kept) {
            if let Err(error) = page.store.prune(&page.ids).await {
                tracing::debug!(%error, "markers are deleted later");
            }
        }
    }

    /// Puts down what is confirmed among the next markers behind `after`; returns behind which the next page begins.
    async fn page(
        &self,
        store: &Arc<dyn MarkerStore>,
        after: TransactionId,
        confirmed: &mut VecDeque<Confirmed>,
    ) -> Result<Option<TransactionId>, MarkerError> {
        let kept = u64::try_from(self.kept.as_millis()).unwrap_or(u64::MAX);
        let before = TransactionId::new(self.clock.wall_ms().saturating_sub(kept), 0);
        let old = store.committed(after, before, PAGE).await?;
        if old.is_empty() {
            return Ok(None);
        }
        let ids = self.endpoint.committed(&old).await;
        if !ids.is_empty() {
            confirmed.push_back(Confirmed {
                store: Arc::clone(store),
                ids,
                for_at_least: Duration::ZERO,
            });
        }
        Ok(old.last().copied())
    }
}

#[cfg(test)]
mod tests {
    use mq_core::clock::ManualClock;

    use super::*;
    use crate::client::tests::double::Recorder;
    use crate::marker::Marker;
    use crate::marker::model::Model;
    use crate::transaction::{MarkerIdentity, State};

    #[tokio::test(start_paused = true)]
    async fn old_markers_go_once_the_coordinator_confirms_their_commit() {
        let kept = Duration::from_secs(600);
        let clock = Arc::new(ManualClock::new(1_000_000_000));
        let store = Arc::new(Model::new(MarkerIdentity(1)));
        let coordinator = Recorder::new();
        let id =
            |age_ms: u64, number: u128| TransactionId::new(1_000_000_000 - age_ms, number << 64);
        let many: Vec<_> = (0..1200).map(|number| id(900_000, number)).collect();
        let (open, rolled_back, young) = (id(800_000, 1), id(800_000, 2), id(599_000, 3));
        for id in many.iter().chain([&open, &rolled_back, &young]) {
            assert!(store.commit(*id));
        }
        let tombstone = id(800_000, 4);
        store.fence(tombstone).await.unwrap();
        coordinator.decide(many.iter().chain([&young, &tombstone]), State::Committed);
        coordinator.decide([&rolled_back], State::RolledBack);
        let left_behind = LeftBehind {
            endpoint: coordinator.clone(),
            markers: Markers::new().add_store(store.clone()).unwrap(),
            clock: clock.clone(),
            kept,
        };
        let pass = tokio::spawn(left_behind.run());
        tokio::time::sleep(PAUSE * 5).await;
        // A wall clock that jumps makes no marker older than it is.
        clock.set_wall_ms(1_004_000_000);
        tokio::time::sleep(kept - PAUSE * 6).await;
        let all = async || {
            let all = store.committed(TransactionId(0), TransactionId(u128::MAX), 9999);
            all.await.unwrap()
        };
        assert_eq!(all().await.len(), 1203, "nothing is confirmed for so long");
        tokio::time::sleep(PAUSE * 8).await;
        clock.set_wall_ms(1_000_000_000);
        assert_eq!(all().await, [open, rolled_back, young]);
        assert_eq!(store.read(tombstone).await, Ok(Some(Marker::Tombstone)));

        clock.advance(Duration::from_secs(3600));
        coordinator.decide([&open], State::Committed);
        tokio::time::sleep(AGAIN + kept + PAUSE * 4).await;
        assert_eq!(
            all().await,
            [rolled_back],
            "its message is not there: a person looks"
        );
        pass.abort();
    }
}
