//! The rule by which a marker answers a check-back: read, live here?, fence, and only then speak.
//!
//! | read | live here | then |
//! |---|---|---|
//! | committed | any | COMMIT |
//! | tombstone | any | ROLLBACK |
//! | nothing, or locked | yes | in flight |
//! | nothing | no | fence: committed → COMMIT, tombstone → ROLLBACK |
//! | locked, or the fence is | no | in flight: the lock may be the local transaction's |
//! | any other error | any | UNKNOWN |

use super::{Marker, MarkerError, MarkerStore};
use crate::steps;
use crate::transaction::{Resolution, TransactionId};

/// What is said to a check-back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The resolution.
    pub resolution: Resolution,
    /// What proves it, for the history.
    pub evidence: String,
}

impl Answer {
    /// `resolution`, proved by `evidence`.
    #[must_use]
    pub fn new(resolution: Resolution, evidence: impl Into<String>) -> Self {
        Self {
            resolution,
            evidence: evidence.into(),
        }
    }
}

/// What to do after the marker was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Say this.
    Say(Answer),
    /// Fence, then ask [`after_fence`].
    Fence,
}

/// What follows from reading; `live` says whether the local transaction still runs in this process.
#[must_use]
pub fn after_read(read: Result<Option<Marker>, MarkerError>, live: bool) -> Next {
    match read {
        Ok(Some(marker)) => Next::Say(decided(marker, "marker=committed", "marker=tombstone")),
        Ok(None) if live => Next::Say(Answer::new(
            Resolution::InFlight,
            "the local transaction is running in this process",
        )),
        Ok(None) => Next::Fence,
        Err(error) => Next::Say(undecided(&error)),
    }
}

/// What follows from the fence.
#[must_use]
pub fn after_fence(fenced: Result<Marker, MarkerError>) -> Answer {
    match fenced {
        Ok(marker) => decided(
            marker,
            "marker=committed (read under the fence)",
            "tombstone planted",
        ),
        Err(error) => undecided(&error),
    }
}

fn decided(marker: Marker, committed: &str, tombstone: &str) -> Answer {
    match marker {
        Marker::Committed => Answer::new(Resolution::Commit, committed),
        Marker::Tombstone => Answer::new(Resolution::RollBack, tombstone),
    }
}

fn undecided(error: &MarkerError) -> Answer {
    let resolution = match error {
        MarkerError::Locked(_) => Resolution::InFlight,
        MarkerError::MayBeDeleted(_) | MarkerError::Unavailable(_) | MarkerError::Refused(_) => {
            Resolution::Unknown
        }
    };
    Answer::new(resolution, error.to_string())
}

/// Answers a check-back from `store`. `live` is asked after the read, so that a transaction that ends in between is
/// either found committed or no longer live.
///
/// If the future is dropped nothing was said; a tombstone may have been planted.
pub async fn answer(
    store: &dyn MarkerStore,
    id: TransactionId,
    live: impl FnOnce() -> bool,
) -> Answer {
    let read = store.read(id).await;
    steps::reach("check_back.read");
    match after_read(read, live()) {
        Next::Say(answer) => answer,
        Next::Fence => {
            let fenced = store.fence(id).await;
            steps::reach("check_back.fenced");
            after_fence(fenced)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker::model::{Fault, Model};
    use crate::transaction::MarkerIdentity;

    const ID: TransactionId = TransactionId(1 << 64);

    async fn asked(store: &Model, live: bool) -> Resolution {
        answer(store, ID, || live).await.resolution
    }

    #[tokio::test]
    async fn story_12_nothing_is_said_before_the_fence_is_known_to_be_committed() {
        for fault in [Fault::FenceNotCommitted, Fault::FenceAnswerLost] {
            let store = Model::new(MarkerIdentity(1));
            store.arrange(fault);
            assert_eq!(asked(&store, false).await, Resolution::Unknown, "{fault:?}");
            assert_eq!(
                asked(&store, false).await,
                Resolution::RollBack,
                "asked again"
            );
        }
        // What was not committed left the way open.
        let store = Model::new(MarkerIdentity(1));
        store.arrange(Fault::FenceNotCommitted);
        assert_eq!(asked(&store, false).await, Resolution::Unknown);
        assert!(store.commit(ID));
        assert_eq!(asked(&store, false).await, Resolution::Commit);
    }

    #[tokio::test]
    async fn story_22_a_live_transaction_is_never_fenced_but_found_when_committed() {
        let store = Model::new(MarkerIdentity(1));
        assert_eq!(asked(&store, true).await, Resolution::InFlight);
        assert_eq!(store.fences(), 0);
        assert!(store.commit(ID));
        assert_eq!(asked(&store, true).await, Resolution::Commit);
        assert_eq!(store.fences(), 0, "committed is said without a lock");
    }

    #[tokio::test]
    async fn story_25_a_lock_is_in_flight_and_any_other_error_is_unknown() {
        let store = Model::new(MarkerIdentity(1));
        store.arrange(Fault::FenceLocked);
        assert_eq!(asked(&store, false).await, Resolution::InFlight);
        store.arrange(Fault::Read);
        assert_eq!(asked(&store, false).await, Resolution::Unknown);
        assert_eq!(store.fences(), 1, "nothing is fenced unread");
    }

    #[tokio::test]
    async fn story_15_a_marker_deleted_by_hand_is_unknown_for_ever() {
        let store = Model::new(MarkerIdentity(1));
        assert!(store.commit(ID));
        store.delete_by_hand(ID);
        assert_eq!(asked(&store, false).await, Resolution::Unknown);
        assert!(store.commit(ID), "no tombstone was planted");
    }

    #[tokio::test]
    async fn a_transaction_that_commits_between_read_and_fence_is_found() {
        let store = Model::new(MarkerIdentity(1));
        let said = answer(&store, ID, || {
            assert!(store.commit(ID));
            false
        });
        assert_eq!(said.await.resolution, Resolution::Commit);
    }
}
