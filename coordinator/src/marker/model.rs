//! Markers in memory, with faults on demand: for tests and simulations only, since they are lost with the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Marker, MarkerError, MarkerStore};
use crate::transaction::{MarkerIdentity, TransactionId};

/// What shall go wrong once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The next fence cannot have the lock.
    FenceLocked,
    /// The next fence plants its tombstone and cannot commit it.
    FenceNotCommitted,
    /// The next fence commits, and its answer is lost.
    FenceAnswerLost,
    /// The next read fails.
    Read,
}

/// Markers of a database that exists only in memory.
#[derive(Debug)]
pub struct Model {
    identity: MarkerIdentity,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<TransactionId, Marker>,
    horizon: u128,
    fault: Option<Fault>,
    fences: u64,
}

impl Model {
    /// An empty database with this identity.
    #[must_use]
    pub fn new(identity: MarkerIdentity) -> Self {
        Self {
            identity,
            state: Mutex::default(),
        }
    }

    /// Commits a local transaction under `id`; false when it is fenced.
    pub fn commit(&self, id: TransactionId) -> bool {
        *self.state().rows.entry(id).or_insert(Marker::Committed) == Marker::Committed
    }

    /// Deletes a marker as a person with a SQL prompt would.
    pub fn delete_by_hand(&self, id: TransactionId) {
        let mut state = self.state();
        if state.rows.remove(&id).is_some() {
            state.horizon = state.horizon.max(id.0);
        }
    }

    /// Arranges `fault`, once.
    pub fn arrange(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// What stands under `id`.
    #[must_use]
    pub fn standing(&self, id: TransactionId) -> Option<Marker> {
        self.state().rows.get(&id).copied()
    }

    /// Every marker that stands.
    #[must_use]
    pub fn all(&self) -> BTreeMap<TransactionId, Marker> {
        self.state().rows.clone()
    }

    /// How many fences were tried.
    #[must_use]
    pub fn fences(&self) -> u64 {
        self.state().fences
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, fault: Fault) -> bool {
        let now = self.fault == Some(fault);
        if now {
            self.fault = None;
        }
        now
    }

    fn fence(&mut self, id: TransactionId) -> Result<Marker, MarkerError> {
        self.fences += 1;
        if self.take(Fault::FenceLocked) {
            return Err(MarkerError::Locked("arranged".into()));
        }
        if let Some(marker) = self.rows.get(&id) {
            return Ok(*marker);
        }
        if id.0 <= self.horizon {
            return Err(MarkerError::MayBeDeleted(id));
        }
        if self.take(Fault::FenceNotCommitted) {
            return Err(MarkerError::Unavailable("arranged".into()));
        }
        self.rows.insert(id, Marker::Tombstone);
        if self.take(Fault::FenceAnswerLost) {
            return Err(MarkerError::Unavailable("arranged".into()));
        }
        Ok(Marker::Tombstone)
    }
}

#[async_trait]
impl MarkerStore for Model {
    fn identity(&self) -> MarkerIdentity {
        self.identity
    }

    async fn read(&self, id: TransactionId) -> Result<Option<Marker>, MarkerError> {
        let mut state = self.state();
        if state.take(Fault::Read) {
            return Err(MarkerError::Unavailable("arranged".into()));
        }
        Ok(state.rows.get(&id).copied())
    }

    async fn fence(&self, id: TransactionId) -> Result<Marker, MarkerError> {
        self.state().fence(id)
    }

    async fn prune(&self, ids: &[TransactionId]) -> Result<u64, MarkerError> {
        let mut state = self.state();
        let before = state.rows.len();
        state
            .rows
            .retain(|id, marker| *marker == Marker::Tombstone || !ids.contains(id));
        Ok((before - state.rows.len()) as u64)
    }

    async fn committed(
        &self,
        after: TransactionId,
        before: TransactionId,
        limit: u32,
    ) -> Result<Vec<TransactionId>, MarkerError> {
        let state = self.state();
        let between = (Bound::Excluded(after), Bound::Excluded(before));
        if before <= after {
            return Ok(Vec::new());
        }
        let standing = state.rows.range(between);
        let committed = standing.filter(|(_, marker)| **marker == Marker::Committed);
        Ok(committed.map(|(id, _)| *id).take(limit as usize).collect())
    }

    async fn horizon(&self) -> Result<TransactionId, MarkerError> {
        Ok(TransactionId(self.state().horizon))
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, Subject};
    use super::*;

    #[async_trait]
    impl Subject for Model {
        fn store(&self) -> &dyn MarkerStore {
            self
        }

        async fn commit(&self, id: TransactionId) -> bool {
            Self::commit(self, id)
        }

        async fn delete_by_hand(&self, id: TransactionId) {
            Self::delete_by_hand(self, id);
        }
    }

    #[tokio::test]
    async fn the_model_keeps_every_promise() {
        conformance::check(&Model::new(MarkerIdentity(1))).await;
    }
}
