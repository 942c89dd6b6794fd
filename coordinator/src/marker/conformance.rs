//! What every [`MarkerStore`] must do, as tests that an implementation calls: [`check`] panics at the first broken promise.

use async_trait::async_trait;

use super::{Marker, MarkerError, MarkerStore};
use crate::transaction::TransactionId;

/// An empty marker database, and what a service does with it.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The store under test.
    fn store(&self) -> &dyn MarkerStore;

    /// Runs a local transaction that inserts the marker of `id` and commits; false when it fails on the key.
    async fn commit(&self, id: TransactionId) -> bool;

    /// Deletes the row of `id` without the store's knowledge.
    async fn delete_by_hand(&self, id: TransactionId);
}

/// Runs the whole suite on one fresh database.
///
/// # Panics
/// At the first promise that is broken; the message says which.
pub async fn check(subject: &dyn Subject) {
    committed_stays_committed(subject).await;
    a_tombstone_keeps_the_local_transaction_out(subject).await;
    a_fence_is_repeatable(subject).await;
    pruning_names_ids_and_leaves_the_horizon(subject).await;
    committed_markers_are_listed_in_order(subject).await;
    a_marker_deleted_by_hand_is_never_taken_for_absent(subject).await;
}

fn id(number: u128) -> TransactionId {
    TransactionId::new(1_700_000_000_000, number << 64)
}

async fn committed_stays_committed(subject: &dyn Subject) {
    let store = subject.store();
    assert_eq!(
        store.read(id(1)).await,
        Ok(None),
        "an empty table has no marker"
    );
    assert!(subject.commit(id(1)).await, "nobody fenced it");
    assert_eq!(store.read(id(1)).await, Ok(Some(Marker::Committed)));
    assert_eq!(
        store.fence(id(1)).await,
        Ok(Marker::Committed),
        "a fence returns what stands"
    );
    assert_eq!(store.read(id(1)).await, Ok(Some(Marker::Committed)));
}

async fn a_tombstone_keeps_the_local_transaction_out(subject: &dyn Subject) {
    let store = subject.store();
    assert_eq!(store.fence(id(2)).await, Ok(Marker::Tombstone));
    assert!(
        !subject.commit(id(2)).await,
        "a fenced transaction fails on the key"
    );
    assert_eq!(store.read(id(2)).await, Ok(Some(Marker::Tombstone)));
}

async fn a_fence_is_repeatable(subject: &dyn Subject) {
    let store = subject.store();
    assert_eq!(store.fence(id(3)).await, Ok(Marker::Tombstone));
    assert_eq!(
        store.fence(id(3)).await,
        Ok(Marker::Tombstone),
        "asked twice, said twice"
    );
    assert_eq!(store.identity(), store.identity());
}

async fn pruning_names_ids_and_leaves_the_horizon(subject: &dyn Subject) {
    let store = subject.store();
    assert!(subject.commit(id(5)).await);
    assert_eq!(
        store.prune(&[id(5), id(3), id(99)]).await,
        Ok(1),
        "one of three said committed"
    );
    assert_eq!(store.read(id(5)).await, Ok(None));
    assert_eq!(
        store.read(id(1)).await,
        Ok(Some(Marker::Committed)),
        "others stay"
    );
    assert!(
        !subject.commit(id(3)).await,
        "a tombstone keeps its local transaction out for ever"
    );
    assert_eq!(store.prune(&[]).await, Ok(0));
    assert_eq!(
        store.horizon().await,
        Ok(TransactionId(0)),
        "the library knows what it deleted"
    );
}

async fn committed_markers_are_listed_in_order(subject: &dyn Subject) {
    let store = subject.store();
    for number in [12, 10, 11] {
        assert!(subject.commit(id(number)).await);
    }
    let all = store.committed(TransactionId(0), id(99), 10).await;
    assert_eq!(
        all,
        Ok(vec![id(1), id(10), id(11), id(12)]),
        "no tombstone, nothing pruned"
    );
    let page = store.committed(id(1), id(12), 1).await;
    assert_eq!(page, Ok(vec![id(10)]), "the lowest of the page");
    let between = store.committed(id(10), id(12), 10).await;
    assert_eq!(between, Ok(vec![id(11)]), "both ends excluded");
    let nothing = store.committed(id(12), id(12), 10).await;
    assert_eq!(nothing, Ok(Vec::new()));
    let pruned = store.prune(&[id(10), id(11), id(12)]).await;
    assert_eq!(pruned, Ok(3));
}

async fn a_marker_deleted_by_hand_is_never_taken_for_absent(subject: &dyn Subject) {
    let store = subject.store();
    assert!(subject.commit(id(7)).await);
    subject.delete_by_hand(id(7)).await;
    assert_eq!(store.horizon().await, Ok(id(7)));
    for absent in [id(6), id(7)] {
        assert_eq!(
            store.fence(absent).await,
            Err(MarkerError::MayBeDeleted(absent))
        );
        assert_eq!(store.read(absent).await, Ok(None), "nothing was planted");
    }
    assert_eq!(
        store.fence(id(1)).await,
        Ok(Marker::Committed),
        "what stands still counts"
    );
    assert_eq!(
        store.fence(id(8)).await,
        Ok(Marker::Tombstone),
        "newer ids are not in doubt"
    );
}
