//! A connection to the services' database, for the library: slow, and it loses answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coordinator::marker::{Marker, MarkerError, MarkerStore};
use coordinator::store::TxReader;
use coordinator::transaction::{MarkerIdentity, State, TransactionId};

use super::dice::Dice;
use super::facts::{Facts, Met};
use super::tables::Tables;

/// Longest time that a statement takes.
const STATEMENT: Duration = Duration::from_millis(20);

/// A connection to the database.
#[derive(Debug)]
pub(super) struct MarkerDatabase {
    pub(super) tables: Arc<Tables>,
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
        self.tables.markers.identity()
    }

    async fn read(&self, id: TransactionId) -> Result<Option<Marker>, MarkerError> {
        self.fails(4, unavailable()).await?;
        self.tables.markers.read(id).await
    }

    async fn fence(&self, id: TransactionId) -> Result<Marker, MarkerError> {
        self.fails(4, MarkerError::Locked("by some other transaction".into()))
            .await?;
        // The database crashes before the commit of the tombstone, and behind it.
        self.fails(4, unavailable()).await?;
        if self.tables.is_locked(id) {
            self.facts.met(Met::LockedMarker);
            return Err(MarkerError::Locked("by the local transaction".into()));
        }
        let stands = self.tables.markers.fence(id).await?;
        self.fails(4, unavailable()).await?;
        Ok(stands)
    }

    async fn prune(&self, ids: &[TransactionId]) -> Result<u64, MarkerError> {
        self.fails(4, unavailable()).await?;
        for id in ids {
            let row = self.decided.transaction(*id).await;
            let state = row.map(|row| row.map(|row| row.state));
            let (before, put_back) = {
                let book = self.facts.book();
                let stood = book.decided.get(id).map(|stood| stood.state);
                (stood, book.put_back)
            };
            // It may be forgotten meanwhile, or lost with the database: nobody here has noticed yet.
            let state = match before {
                Some(before) if put_back => Ok(Some(before)),
                before => state.map(|state| state.or(before)),
            };
            if state != Ok(Some(State::Committed)) {
                self.facts
                    .broken(format!("the marker of {id} is deleted, which is {state:?}"));
            }
        }
        self.facts.book().pruned.extend(ids);
        let deleted = self.tables.markers.prune(ids).await?;
        let mut book = self.facts.book();
        book.counts.add_many(Met::MarkerPruned, deleted);
        Ok(deleted)
    }

    async fn committed(
        &self,
        after: TransactionId,
        before: TransactionId,
        limit: u32,
    ) -> Result<Vec<TransactionId>, MarkerError> {
        self.tables.markers.committed(after, before, limit).await
    }

    async fn horizon(&self) -> Result<TransactionId, MarkerError> {
        self.tables.markers.horizon().await
    }
}
