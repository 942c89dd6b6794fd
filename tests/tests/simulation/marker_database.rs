//! The services' database with the markers in it: slow, locked at times, and it loses answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coordinator::marker::model::Model;
use coordinator::marker::{Marker, MarkerError, MarkerStore};
use coordinator::store::TxReader;
use coordinator::transaction::{MarkerIdentity, State, TransactionId};

use super::dice::Dice;
use super::facts::{Facts, Met};

/// Longest time that a statement takes.
const STATEMENT: Duration = Duration::from_millis(20);

/// A connection to the database.
#[derive(Debug)]
pub(super) struct MarkerDatabase {
    pub(super) markers: Arc<Model>,
    /// What the coordinator has decided, to compare deletions with.
    pub(super) decided: Arc<dyn TxReader>,
    pub(super) dice: Arc<Dice>,
    pub(super) facts: Facts,
    /// Nothing fails.
    pub(super) good: bool,
}

impl MarkerDatabase {
    async fn fails(&self, percent: u64, error: MarkerError) -> Result<(), MarkerError> {
        tokio::time::sleep(self.dice.time(STATEMENT)).await;
        if self.good || !self.dice.percent(percent) {
            return Ok(());
        }
        self.facts.met(Met::MarkerFault);
        Err(error)
    }
}

fn unavailable() -> MarkerError {
    MarkerError::Unavailable("the connection was lost".into())
}

#[async_trait]
impl MarkerStore for MarkerDatabase {
    fn identity(&self) -> MarkerIdentity {
        self.markers.identity()
    }

    async fn read(&self, id: TransactionId) -> Result<Option<Marker>, MarkerError> {
        self.fails(4, unavailable()).await?;
        self.markers.read(id).await
    }

    async fn fence(&self, id: TransactionId) -> Result<Marker, MarkerError> {
        self.fails(4, MarkerError::Locked("by a local transaction".into()))
            .await?;
        // The database crashes before the commit of the tombstone, and behind it.
        self.fails(4, unavailable()).await?;
        let stands = self.markers.fence(id).await?;
        self.fails(4, unavailable()).await?;
        Ok(stands)
    }

    async fn prune(&self, ids: &[TransactionId]) -> Result<u64, MarkerError> {
        for id in ids {
            let row = self.decided.transaction(*id).await;
            let state = row.map(|row| row.map(|row| row.state));
            let before = self.facts.book().decided.get(id).map(|stood| stood.state);
            // It may be forgotten meanwhile.
            let committed = state.is_ok_and(|state| state.or(before) == Some(State::Committed));
            if !committed {
                self.facts.broken(format!(
                    "the marker of {id} is deleted, which is not committed"
                ));
            }
        }
        self.facts.book().pruned.extend(ids);
        self.markers.prune(ids).await
    }

    async fn committed(
        &self,
        after: TransactionId,
        before: TransactionId,
        limit: u32,
    ) -> Result<Vec<TransactionId>, MarkerError> {
        self.markers.committed(after, before, limit).await
    }

    async fn horizon(&self) -> Result<TransactionId, MarkerError> {
        self.markers.horizon().await
    }
}
