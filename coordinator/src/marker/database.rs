//! The kinds of SQL databases a local transaction can run in, behind one closed trait.

use std::sync::Arc;

use mq_core::clock::Clock;
pub use sqlx::{Error as DatabaseError, Pool};

use super::databases::Place;
#[cfg(feature = "postgres")]
use super::postgres;
#[cfg(feature = "sqlite")]
use super::sqlite;
use super::{Marker, MarkerError, MarkerStore};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::inbox;
use crate::transaction::{MarkerIdentity, TransactionId};

mod sealed {
    pub trait Sealed {}
    #[cfg(feature = "postgres")]
    impl Sealed for sqlx::Postgres {}
    #[cfg(feature = "sqlite")]
    impl Sealed for sqlx::Sqlite {}
}

/// A database that can hold markers and an inbox. Implemented here only; what it is made of is no promise.
pub trait LocalDatabase: sqlx::Database + sealed::Sealed {
    /// How a local transaction begins: holding what it needs to commit.
    #[doc(hidden)]
    const BEGIN: &'static str;

    #[doc(hidden)]
    fn open_markers(
        pool: &Pool<Self>,
        clock: Arc<dyn Clock>,
    ) -> impl Future<Output = Result<(Place, Arc<dyn MarkerStore>), MarkerError>> + Send;

    #[doc(hidden)]
    fn place(pool: &Pool<Self>) -> impl Future<Output = Result<Place, MarkerError>> + Send;

    /// Inserts the marker; false when the table has another identity; a unique violation when it is fenced.
    #[doc(hidden)]
    fn insert_marker(
        connection: &mut Self::Connection,
        id: TransactionId,
        identity: MarkerIdentity,
        at_ms: u64,
    ) -> impl Future<Output = Result<bool, DatabaseError>> + Send;

    #[doc(hidden)]
    fn read_marker(
        connection: &mut Self::Connection,
        id: TransactionId,
    ) -> impl Future<Output = Result<Option<Marker>, DatabaseError>> + Send;

    /// Whether an error of COMMIT proves that nothing was committed.
    #[doc(hidden)]
    fn commit_was_refused(error: &DatabaseError) -> bool;

    #[doc(hidden)]
    fn ensure_inbox(pool: &Pool<Self>) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// Inserts the inbox row; false when it stands already.
    #[doc(hidden)]
    fn enter_inbox(
        connection: &mut Self::Connection,
        group: &str,
        key: &str,
        at_ms: u64,
    ) -> impl Future<Output = Result<bool, DatabaseError>> + Send;

    #[doc(hidden)]
    fn prune_inbox(
        pool: &Pool<Self>,
        group: &str,
        before_ms: u64,
    ) -> impl Future<Output = Result<u64, DatabaseError>> + Send;

    #[doc(hidden)]
    fn is_in_inbox(
        connection: &mut Self::Connection,
        group: &str,
        key: &str,
    ) -> impl Future<Output = Result<bool, DatabaseError>> + Send;

    #[doc(hidden)]
    fn forget_inbox(
        pool: &Pool<Self>,
        group: &str,
        key: &str,
    ) -> impl Future<Output = Result<bool, DatabaseError>> + Send;
}

#[cfg(feature = "sqlite")]
impl LocalDatabase for sqlx::Sqlite {
    const BEGIN: &'static str = "BEGIN IMMEDIATE";

    async fn open_markers(
        pool: &Pool<Self>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Place, Arc<dyn MarkerStore>), MarkerError> {
        let markers = sqlite::SqliteMarkers::open(pool, clock).await?;
        Ok((markers.place().clone(), Arc::new(markers)))
    }

    async fn place(pool: &Pool<Self>) -> Result<Place, MarkerError> {
        sqlite::place_of(pool).await
    }

    async fn insert_marker(
        connection: &mut Self::Connection,
        id: TransactionId,
        identity: MarkerIdentity,
        at_ms: u64,
    ) -> Result<bool, DatabaseError> {
        sqlite::insert(connection, id, identity, at_ms).await
    }

    async fn read_marker(
        connection: &mut Self::Connection,
        id: TransactionId,
    ) -> Result<Option<Marker>, DatabaseError> {
        sqlite::read_in(connection, id).await
    }

    fn commit_was_refused(error: &DatabaseError) -> bool {
        // Busy and constraint leave the transaction open; it is rolled back right after.
        matches!(sqlite::primary_code(error), Some(5 | 19))
    }

    async fn ensure_inbox(pool: &Pool<Self>) -> Result<(), DatabaseError> {
        inbox::sqlite::ensure_table(pool).await
    }

    async fn enter_inbox(
        connection: &mut Self::Connection,
        group: &str,
        key: &str,
        at_ms: u64,
    ) -> Result<bool, DatabaseError> {
        inbox::sqlite::enter(connection, group, key, at_ms).await
    }

    async fn prune_inbox(
        pool: &Pool<Self>,
        group: &str,
        before_ms: u64,
    ) -> Result<u64, DatabaseError> {
        inbox::sqlite::prune(pool, group, before_ms).await
    }

    async fn is_in_inbox(
        connection: &mut Self::Connection,
        group: &str,
        key: &str,
    ) -> Result<bool, DatabaseError> {
        inbox::sqlite::contains(connection, group, key).await
    }

    async fn forget_inbox(
        pool: &Pool<Self>,
        group: &str,
        key: &str,
    ) -> Result<bool, DatabaseError> {
        inbox::sqlite::forget(pool, group, key).await
    }
}

#[cfg(feature = "postgres")]
impl LocalDatabase for sqlx::Postgres {
    const BEGIN: &'static str = postgres::BEGIN;

    async fn open_markers(
        pool: &Pool<Self>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Place, Arc<dyn MarkerStore>), MarkerError> {
        let markers = postgres::PostgresMarkers::open(pool, clock).await?;
        Ok((markers.place().clone(), Arc::new(markers)))
    }

    async fn place(pool: &Pool<Self>) -> Result<Place, MarkerError> {
        postgres::place_of(pool).await
    }

    async fn insert_marker(
        connection: &mut Self::Connection,
        id: TransactionId,
        identity: MarkerIdentity,
        at_ms: u64,
    ) -> Result<bool, DatabaseError> {
        postgres::insert(connection, id, identity, at_ms).await
    }

    async fn read_marker(
        connection: &mut Self::Connection,
        id: TransactionId,
    ) -> Result<Option<Marker>, DatabaseError> {
        postgres::read_in(connection, id).await
    }

    fn commit_was_refused(error: &DatabaseError) -> bool {
        postgres::commit_was_refused(error)
    }

    async fn ensure_inbox(pool: &Pool<Self>) -> Result<(), DatabaseError> {
        inbox::postgres::ensure_table(pool).await
    }

    async fn enter_inbox(
        connection: &mut Self::Connection,
        group: &str,
        key: &str,
        at_ms: u64,
    ) -> Result<bool, DatabaseError> {
        inbox::postgres::enter(connection, group, key, at_ms).await
    }

    async fn prune_inbox(
        pool: &Pool<Self>,
        group: &str,
        before_ms: u64,
    ) -> Result<u64, DatabaseError> {
        inbox::postgres::prune(pool, group, before_ms).await
    }

    async fn is_in_inbox(
        connection: &mut Self::Connection,
        group: &str,
        key: &str,
    ) -> Result<bool, DatabaseError> {
        inbox::postgres::contains(connection, group, key).await
    }

    async fn forget_inbox(
        pool: &Pool<Self>,
        group: &str,
        key: &str,
    ) -> Result<bool, DatabaseError> {
        inbox::postgres::forget(pool, group, key).await
    }
}

/// Whether an insert failed because its key stands already.
pub(crate) fn is_key_violation(error: &DatabaseError) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_unique_violation())
}
