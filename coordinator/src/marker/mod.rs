//! Markers: the row in a local transaction by which anybody can tell later whether it committed, as promises.
//!
//! The local transaction inserts *committed* under its id before anything else. A check-back that finds nothing plants a
//! *tombstone* in a short transaction of its own. Both go through the same primary key, so one of them wins for ever:
//! "not there yet" can never be taken for "rolled back".
//!
//! | module | owns |
//! |---|---|
//! | [`answer`] | the rule by which a marker answers a check-back |
//! | [`databases`] | the set of marker databases of one process |
//! | [`database`] | the kinds of SQL databases a local transaction can run in |
//! | `local` | an open transaction on a connection of the service's pool |
//! | `sqlite`, `postgres` | markers in SQLite and in Postgres |
//! | `slot` | the connections of check-backs |
//! | [`model`] | markers in memory, with faults on demand |
//! | [`conformance`] | the suite every implementation passes |
//!
//! For database libraries other than sqlx: implement [`MarkerStore`] and insert the marker with the statements in
//! `sql/marker/README.md`.

pub mod answer;
pub mod conformance;
pub mod database;
pub mod databases;
pub(crate) mod local;
pub mod model;
#[cfg(feature = "postgres")]
pub mod postgres;
mod slot;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::fmt;

use async_trait::async_trait;

use crate::transaction::{MarkerIdentity, TransactionId};

/// What stands under a transaction's id. It never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Marker {
    /// The local transaction committed.
    Committed,
    /// It had not committed when somebody asked, and never can.
    Tombstone,
}

impl Marker {
    /// The number in the database: 1 or 0.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Committed => 1,
            Self::Tombstone => 0,
        }
    }

    /// The marker with this number in the database.
    #[must_use]
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Committed),
            0 => Some(Self::Tombstone),
            _ => None,
        }
    }
}

/// Why a marker is not known. None of these says anything about the local transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MarkerError {
    /// Another transaction holds the lock, perhaps the one asked about. Ask again soon.
    #[error("the marker database is locked by another transaction: {0}")]
    Locked(String),
    /// The marker may have been deleted by somebody else than the library, so that its absence proves nothing.
    #[error("the marker of {0} may have been deleted by hand; decide it as an operator")]
    MayBeDeleted(TransactionId),
    /// The database cannot be reached or used, or the outcome of the commit is unknown. Ask again.
    #[error("the marker database cannot be used: {0}")]
    Unavailable(String),
    /// The database must not hold markers; the text says why and what to do. Nothing was changed.
    #[error("{0}")]
    Refused(String),
}

/// The markers of one database.
///
/// Promises, checked by [`conformance`]:
///
/// - What `read` or `fence` returned stands for ever, power cuts included, until `prune` names its id.
/// - After `fence` returned [`Marker::Tombstone`] no local transaction can commit under that id.
/// - An error plants nothing that is reported as an answer; a tombstone may stand all the same.
#[async_trait]
pub trait MarkerStore: fmt::Debug + Send + Sync + 'static {
    /// The random identity of the marker table. The same in every process that uses the database.
    fn identity(&self) -> MarkerIdentity;

    /// What stands under `id`. Takes no lock that a local transaction could wait for or hold.
    ///
    /// # Errors
    /// [`MarkerError`].
    async fn read(&self, id: TransactionId) -> Result<Option<Marker>, MarkerError>;

    /// Plants a tombstone under `id` unless a marker stands there, and returns what stands then.
    ///
    /// One short transaction of its own with bounded lock wait and full durability; answers only after its COMMIT has
    /// returned. If the future is dropped, the tombstone may or may not stand.
    ///
    /// # Errors
    /// [`MarkerError`]; [`MarkerError::Locked`] when the lock could not be had in time, [`MarkerError::MayBeDeleted`]
    /// when nothing stands there and `id` is not above the horizon.
    async fn fence(&self, id: TransactionId) -> Result<Marker, MarkerError>;

    /// Deletes those of these markers that say *committed*, whose decision is durably known to the coordinator; returns how
    /// many stood. The horizon stays. Tombstones stay, too: the local transaction they keep out may still be on its way,
    /// however long ago it was decided.
    ///
    /// # Errors
    /// [`MarkerError`]; none or all are deleted.
    async fn prune(&self, ids: &[TransactionId]) -> Result<u64, MarkerError>;

    /// The ids above `after` and below `before` under which *committed* stands, the lowest `limit`, in order.
    ///
    /// # Errors
    /// [`MarkerError`].
    async fn committed(
        &self,
        after: TransactionId,
        before: TransactionId,
        limit: u32,
    ) -> Result<Vec<TransactionId>, MarkerError>;

    /// The highest id whose marker was deleted by anyone but [`MarkerStore::prune`], zero if none was.
    ///
    /// # Errors
    /// [`MarkerError`].
    async fn horizon(&self) -> Result<TransactionId, MarkerError>;
}
