//! Markers in SQLite: the table, the local transaction's two statements, and the store that answers check-backs.
//!
//! Check-backs use connections of their own, so that they neither wait for the service's pool nor hold up its users. A
//! fence waits at most [`LOCK_WAIT`] for the write lock, which any writer of the database may hold.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mq_core::clock::Clock;
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};

use super::databases::Place;
use super::slot::{Lease, Slot};
use super::{Marker, MarkerError, MarkerStore};
use crate::transaction::{MarkerIdentity, TransactionId};

/// How long a fence waits for the write lock before it says *locked*. Short, because the coordinator asks again.
pub const LOCK_WAIT: Duration = Duration::from_millis(100);

/// `PRAGMA application_id` of the coordinator's own databases: "HMtx".
pub(crate) const COORDINATORS: i64 = 0x484D_7478;

const TABLE: &str = include_str!("../../../sql/marker/sqlite.sql");

/// Creates the marker table if it is missing; changes nothing otherwise.
///
/// The same as running `sql/marker/sqlite.sql` by hand.
///
/// # Errors
/// [`MarkerError::Unavailable`] when the database refuses it.
pub async fn ensure_table(pool: &SqlitePool) -> Result<(), MarkerError> {
    let mut connection = pool.acquire().await.map_err(unavailable)?;
    create_table(&mut connection).await
}

async fn create_table(connection: &mut SqliteConnection) -> Result<(), MarkerError> {
    const MADE: &str = "SELECT count(*) FROM main.sqlite_schema \
                        WHERE name IN ('halfmoon_marker', 'halfmoon_marker_table', \
                                       'halfmoon_marker_never_changes', 'halfmoon_marker_deleted')";
    let made: i64 = sqlx::query_scalar(MADE)
        .fetch_one(&mut *connection)
        .await
        .map_err(unavailable)?;
    if made == 4 {
        return Ok(());
    }
    let mut tx = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(unavailable)?;
    sqlx::raw_sql(TABLE)
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
    tx.commit().await.map_err(unavailable)
}

/// Reads which database `connection` leads to.
pub(crate) async fn place(connection: &mut SqliteConnection) -> Result<Place, MarkerError> {
    const PLACE: &str = "SELECT identity, (SELECT file FROM pragma_database_list WHERE name = 'main') \
                         FROM main.halfmoon_marker_table";
    let row: Option<(Vec<u8>, String)> = sqlx::query_as(PLACE)
        .fetch_optional(connection)
        .await
        .map_err(from_sqlx)?;
    let (identity, file) = row.ok_or_else(|| {
        MarkerError::Refused(
            "the marker table has lost its identity; run sql/marker/sqlite.sql again".into(),
        )
    })?;
    let identity = read_u128(&identity).ok_or_else(|| {
        MarkerError::Refused(format!("{file}: the marker identity is not 16 bytes"))
    })?;
    Ok(Place {
        identity: MarkerIdentity(identity),
        location: file,
    })
}

/// Reads which database `pool` leads to; one without a marker table is refused.
pub(crate) async fn place_of(pool: &SqlitePool) -> Result<Place, MarkerError> {
    const KNOWN: &str = "SELECT count(*), (SELECT file FROM pragma_database_list WHERE name = 'main') \
                         FROM main.sqlite_schema WHERE name = 'halfmoon_marker_table'";
    let mut connection = pool.acquire().await.map_err(unavailable)?;
    let (tables, file): (i64, String) = sqlx::query_as(KNOWN)
        .fetch_one(&mut *connection)
        .await
        .map_err(from_sqlx)?;
    if tables == 0 {
        return Err(MarkerError::Refused(format!(
            "{file} has no marker table; add its pool with Markers::add"
        )));
    }
    place(&mut connection).await
}

/// Refuses a database whose commits may be lost in a power cut, that is no file, that an old SQLite writes, or that is
/// the coordinator's own.
async fn check_database(connection: &mut SqliteConnection) -> Result<(), MarkerError> {
    const FACTS: &str = "SELECT sqlite_version(), application_id, synchronous, journal_mode, \
                         (SELECT file FROM pragma_database_list WHERE name = 'main') \
                         FROM pragma_application_id, pragma_synchronous, pragma_journal_mode";
    let (version, application, synchronous, journal, file): (String, i64, i64, String, String) =
        sqlx::query_as(FACTS)
            .fetch_one(connection)
            .await
            .map_err(unavailable)?;
    let refuse = |why: String| Err(MarkerError::Refused(why));
    if file.is_empty() {
        return refuse(
            "markers need a database file: one in memory loses them with the process".into(),
        );
    }
    if application == COORDINATORS {
        return refuse(format!(
            "{file} is the coordinator's own database; give the service a file of its own"
        ));
    }
    if !is_new_enough(&version) {
        return refuse(format!(
            "{file} is used through SQLite {version}, which can corrupt a WAL database; 3.51.3 or newer is needed"
        ));
    }
    if synchronous < 2 || matches!(journal.as_str(), "off" | "memory") {
        return refuse(format!(
            "{file} is opened with synchronous={synchronous}, journal_mode={journal}: a power cut could undo a commit \
             whose message is published; set synchronous=FULL and journal_mode=WAL on the pool"
        ));
    }
    Ok(())
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next()) >= (3, 51, 3)
}

/// Inserts the marker of a local transaction, its first write.
///
/// `Ok(false)`: the table has another identity than `identity`. A unique violation: a tombstone stands.
pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    id: TransactionId,
    identity: MarkerIdentity,
    at_ms: u64,
) -> Result<bool, sqlx::Error> {
    const INSERT: &str = "INSERT INTO main.halfmoon_marker (id, value, at_ms) \
                          SELECT ?1, 1, ?2 FROM main.halfmoon_marker_table WHERE identity = ?3";
    let done = sqlx::query(INSERT)
        .bind(id.to_bytes().to_vec())
        .bind(i64::try_from(at_ms).unwrap_or(i64::MAX))
        .bind(identity.0.to_be_bytes().to_vec())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// What stands under `id`, as `connection` sees it, its own open transaction included.
pub(crate) async fn read_in(
    connection: &mut SqliteConnection,
    id: TransactionId,
) -> Result<Option<Marker>, sqlx::Error> {
    const READ: &str = "SELECT value FROM main.halfmoon_marker WHERE id = ?1";
    let value: Option<i64> = sqlx::query_scalar(READ)
        .bind(id.to_bytes().to_vec())
        .fetch_optional(connection)
        .await?;
    Ok(value.and_then(Marker::from_number))
}

/// The markers of one SQLite database.
#[derive(Debug)]
pub struct SqliteMarkers {
    place: Place,
    options: SqliteConnectOptions,
    clock: Arc<dyn Clock>,
    reader: Slot<SqliteConnection>,
    writer: Slot<SqliteConnection>,
}

impl SqliteMarkers {
    /// Takes the database of `pool` for markers, creating the table if it is missing.
    ///
    /// # Errors
    /// [`MarkerError::Refused`] names the rule the database breaks; nothing was changed then.
    pub async fn open(pool: &SqlitePool, clock: Arc<dyn Clock>) -> Result<Self, MarkerError> {
        let mut connection = pool.acquire().await.map_err(unavailable)?;
        check_database(&mut connection).await?;
        create_table(&mut connection).await?;
        let place = place(&mut connection).await?;
        let options = SqliteConnectOptions::clone(&pool.connect_options())
            .create_if_missing(false)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(LOCK_WAIT)
            .disable_statement_logging();
        Ok(Self {
            place,
            options,
            clock,
            reader: Slot::default(),
            writer: Slot::default(),
        })
    }

    pub(crate) const fn place(&self) -> &Place {
        &self.place
    }

    async fn take<'a>(
        &self,
        slot: &'a Slot<SqliteConnection>,
    ) -> Result<Lease<'a, SqliteConnection>, MarkerError> {
        slot.take(async || {
            let mut connection = self.options.connect().await.map_err(from_sqlx)?;
            if place(&mut connection).await? != self.place {
                return Err(MarkerError::Refused(format!(
                    "{} is not the database it was: its marker identity has changed",
                    self.place.location
                )));
            }
            Ok(connection)
        })
        .await
    }
}

#[async_trait]
impl MarkerStore for SqliteMarkers {
    fn identity(&self) -> MarkerIdentity {
        self.place.identity
    }

    async fn read(&self, id: TransactionId) -> Result<Option<Marker>, MarkerError> {
        let mut lease = self.take(&self.reader).await?;
        let marker = read_in(&mut lease.connection, id)
            .await
            .map_err(from_sqlx)?;
        lease.put_back();
        Ok(marker)
    }

    async fn fence(&self, id: TransactionId) -> Result<Marker, MarkerError> {
        let mut lease = self.take(&self.writer).await?;
        let at_ms = self.clock.wall_ms();
        let planted = plant(&mut lease.connection, id, at_ms).await;
        if matches!(planted, Ok(_) | Err(MarkerError::Locked(_))) {
            lease.put_back();
        }
        planted
    }

    async fn prune(&self, ids: &[TransactionId]) -> Result<u64, MarkerError> {
        let mut lease = self.take(&self.writer).await?;
        let gone = delete(&mut lease.connection, ids)
            .await
            .map_err(from_sqlx)?;
        lease.put_back();
        Ok(gone)
    }

    async fn committed(
        &self,
        after: TransactionId,
        before: TransactionId,
        limit: u32,
    ) -> Result<Vec<TransactionId>, MarkerError> {
        const COMMITTED: &str = "SELECT id FROM main.halfmoon_marker \
                                 WHERE id > ?1 AND id < ?2 AND value = 1 ORDER BY id LIMIT ?3";
        let mut lease = self.take(&self.reader).await?;
        let ids: Vec<Vec<u8>> = sqlx::query_scalar(COMMITTED)
            .bind(after.to_bytes().to_vec())
            .bind(before.to_bytes().to_vec())
            .bind(limit)
            .fetch_all(&mut lease.connection)
            .await
            .map_err(from_sqlx)?;
        lease.put_back();
        let ids = ids.iter().filter_map(|id| read_u128(id));
        Ok(ids.map(TransactionId).collect())
    }

    async fn horizon(&self) -> Result<TransactionId, MarkerError> {
        let mut lease = self.take(&self.reader).await?;
        let horizon = read_horizon(&mut lease.connection)
            .await
            .map_err(from_sqlx)?;
        lease.put_back();
        Ok(horizon)
    }
}

async fn plant(
    connection: &mut SqliteConnection,
    id: TransactionId,
    at_ms: u64,
) -> Result<Marker, MarkerError> {
    const PLANT: &str = "INSERT INTO main.halfmoon_marker (id, value, at_ms) VALUES (?1, 0, ?2)";
    let mut tx = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(from_sqlx)?;
    if let Some(marker) = read_in(&mut tx, id).await.map_err(from_sqlx)? {
        tx.rollback().await.map_err(from_sqlx)?;
        return Ok(marker);
    }
    if id <= read_horizon(&mut tx).await.map_err(from_sqlx)? {
        tx.rollback().await.map_err(from_sqlx)?;
        return Err(MarkerError::MayBeDeleted(id));
    }
    sqlx::query(PLANT)
        .bind(id.to_bytes().to_vec())
        .bind(i64::try_from(at_ms).unwrap_or(i64::MAX))
        .execute(&mut *tx)
        .await
        .map_err(from_sqlx)?;
    tx.commit().await.map_err(from_sqlx)?;
    Ok(Marker::Tombstone)
}

async fn delete(
    connection: &mut SqliteConnection,
    ids: &[TransactionId],
) -> Result<u64, sqlx::Error> {
    const DELETE: &str = "DELETE FROM main.halfmoon_marker \
                          WHERE value = 1 AND id IN (SELECT unhex(value) FROM json_each(?1))";
    const HORIZON_BACK: &str = "UPDATE main.halfmoon_marker_table SET horizon = ?1";
    let list: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    let horizon = read_horizon(&mut tx).await?;
    let gone = sqlx::query(DELETE)
        .bind(format!("[{}]", list.join(",")))
        .execute(&mut *tx)
        .await?
        .rows_affected();
    sqlx::query(HORIZON_BACK)
        .bind(horizon.to_bytes().to_vec())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(gone)
}

async fn read_horizon(connection: &mut SqliteConnection) -> Result<TransactionId, sqlx::Error> {
    const HORIZON: &str = "SELECT horizon FROM main.halfmoon_marker_table";
    let horizon: Vec<u8> = sqlx::query_scalar(HORIZON).fetch_one(connection).await?;
    // The table's check allows 16 bytes only; should it be gone, nothing below any id is believed.
    Ok(TransactionId(read_u128(&horizon).unwrap_or(u128::MAX)))
}

fn read_u128(bytes: &[u8]) -> Option<u128> {
    Some(u128::from_be_bytes(bytes.try_into().ok()?))
}

fn unavailable(error: sqlx::Error) -> MarkerError {
    MarkerError::Unavailable(error.to_string())
}

/// What an error of SQLite means for a check-back: busy and locked are a lock, everything else tells nothing.
fn from_sqlx(error: sqlx::Error) -> MarkerError {
    if is_lock(&error) {
        MarkerError::Locked(error.to_string())
    } else {
        unavailable(error)
    }
}

pub(crate) fn is_lock(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(5 | 6))
}

/// SQLite's primary result code: 5 busy, 6 locked, 19 constraint.
pub(crate) fn primary_code(error: &sqlx::Error) -> Option<i64> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i64>().ok().map(|code| code & 0xFF)
}

#[cfg(test)]
mod tests {
    use mq_core::clock::ManualClock;

    use super::super::conformance::{self, Subject};
    use super::*;
    use crate::client::tests::double;

    struct Database {
        pool: SqlitePool,
        markers: SqliteMarkers,
        _folder: tempfile::TempDir,
    }

    async fn database() -> Database {
        let folder = tempfile::tempdir().unwrap();
        let pool = double::pool(&folder, "service.db").await;
        let clock = Arc::new(ManualClock::new(1));
        let markers = SqliteMarkers::open(&pool, clock).await.unwrap();
        Database {
            pool,
            markers,
            _folder: folder,
        }
    }

    #[async_trait]
    impl Subject for Database {
        fn store(&self) -> &dyn MarkerStore {
            &self.markers
        }

        async fn commit(&self, id: TransactionId) -> bool {
            let mut connection = self.pool.acquire().await.unwrap();
            insert(&mut connection, id, self.markers.identity(), 1)
                .await
                .is_ok()
        }

        async fn delete_by_hand(&self, id: TransactionId) {
            sqlx::query("DELETE FROM halfmoon_marker WHERE id = ?1")
                .bind(id.to_bytes().to_vec())
                .execute(&self.pool)
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn sqlite_keeps_every_promise_of_a_marker_store() {
        conformance::check(&database().await).await;
    }

    #[tokio::test]
    async fn the_database_itself_refuses_to_change_a_marker() {
        let database = database().await;
        assert!(database.commit(TransactionId(1)).await);
        let changed = sqlx::query("UPDATE halfmoon_marker SET value = 0")
            .execute(&database.pool)
            .await;
        let error = changed.unwrap_err().to_string();
        assert!(error.contains("a marker never changes"), "{error}");
    }

    #[tokio::test]
    async fn a_database_whose_commits_a_power_cut_may_undo_is_refused_and_given_no_table() {
        use sqlx::sqlite::SqliteJournalMode as Journal;
        let folder = tempfile::tempdir().unwrap();
        for (journal, synchronous, fits) in [
            (Journal::Wal, SqliteSynchronous::Off, false),
            (Journal::Wal, SqliteSynchronous::Normal, false),
            (Journal::Delete, SqliteSynchronous::Normal, false),
            (Journal::Memory, SqliteSynchronous::Full, false),
            (Journal::Off, SqliteSynchronous::Full, false),
            (Journal::Delete, SqliteSynchronous::Full, true),
            (Journal::Wal, SqliteSynchronous::Extra, true),
        ] {
            let what = format!("{journal:?} {synchronous:?}");
            let options = SqliteConnectOptions::new()
                .filename(folder.path().join(&what))
                .create_if_missing(true)
                .journal_mode(journal)
                .synchronous(synchronous);
            let pool = SqlitePool::connect_with(options).await.unwrap();
            let opened = SqliteMarkers::open(&pool, Arc::new(ManualClock::new(1))).await;
            let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'halfmoon_marker'";
            let tables: i64 = sqlx::query_scalar(tables).fetch_one(&pool).await.unwrap();
            assert_eq!((opened.is_ok(), tables == 1), (fits, fits), "{what}");
            if let Err(error) = opened {
                let error = error.to_string();
                assert!(error.contains("set synchronous=FULL"), "{what}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn a_marker_of_another_identity_is_not_written() {
        let database = database().await;
        let mut connection = database.pool.acquire().await.unwrap();
        let other = MarkerIdentity(1);
        let inserted = insert(&mut connection, TransactionId(1), other, 1).await;
        assert!(!inserted.unwrap());
        let there = read_in(&mut connection, TransactionId(1)).await;
        assert_eq!(there.unwrap(), None);
    }

    #[tokio::test]
    async fn a_fence_waits_for_the_lock_no_longer_than_it_says_and_plants_nothing() {
        let database = database().await;
        let lock = database.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let fenced = database.markers.fence(TransactionId(9)).await;
        assert!(matches!(fenced, Err(MarkerError::Locked(_))), "{fenced:?}");
        let read = database.markers.read(TransactionId(9)).await;
        assert_eq!(read, Ok(None), "reading needs no lock");
        lock.rollback().await.unwrap();
        let fenced = database.markers.fence(TransactionId(9)).await;
        assert_eq!(fenced, Ok(Marker::Tombstone));
    }

    #[tokio::test]
    async fn a_table_that_is_there_is_left_alone() {
        let database = database().await;
        let place = database.markers.place().clone();
        ensure_table(&database.pool).await.unwrap();
        let again = SqliteMarkers::open(&database.pool, Arc::new(ManualClock::new(2))).await;
        assert_eq!(*again.unwrap().place(), place);
    }

    #[test]
    fn only_sqlite_3_51_3_and_newer_will_do() {
        for (version, good) in [
            ("3.51.3", true),
            ("3.51.2", false),
            ("3.52.0", true),
            ("4.0", true),
            ("3.9.9", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), good, "{version}");
        }
    }
}
