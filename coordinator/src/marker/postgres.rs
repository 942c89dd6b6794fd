//! Markers in Postgres: the table, the local transaction's two statements, and the store that answers check-backs.
//!
//! Check-backs use connections of their own, so that they neither wait for the service's pool nor hold up its users. Each
//! question is a transaction of its own, so that a pooler may stand in between. A fence waits at most [`LOCK_WAIT`] for a local
//! transaction that has inserted the same marker and not ended yet.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mq_core::clock::Clock;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::types::Uuid;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::databases::Place;
use super::slot::{Lease, Slot};
use super::{Marker, MarkerError, MarkerStore};
use crate::transaction::{MarkerIdentity, TransactionId};

/// How long a fence waits for a local transaction before it says *locked*. Short, because the coordinator asks again.
pub const LOCK_WAIT: Duration = Duration::from_millis(100);

/// How long a question may take altogether: a database that says nothing is told from one that is slow.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The oldest Postgres that is used: the oldest that still gets corrections.
const OLDEST_POSTGRES: i32 = 14;

/// How a local transaction begins, whatever the database's defaults are.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// How a question of ours begins: durable whatever the defaults are, and ended by the database if this process freezes.
const BEGIN_QUESTION: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
    SELECT set_config('lock_timeout', '100', true), set_config('statement_timeout', '5000', true), \
    set_config('idle_in_transaction_session_timeout', '5000', true), \
    set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
    WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)";

const TABLE: &str = include_str!("../../../sql/marker/postgres.sql");

/// Creates the marker table if it is missing; changes nothing otherwise.
///
/// The same as running `sql/marker/postgres.sql` by hand.
///
/// # Errors
/// [`MarkerError::Unavailable`] when the database refuses it.
pub async fn ensure_table(pool: &PgPool) -> Result<(), MarkerError> {
    let mut connection = pool.acquire().await.map_err(unavailable)?;
    create_table(&mut connection).await
}

async fn create_table(connection: &mut PgConnection) -> Result<(), MarkerError> {
    // Who uses the tables need not be allowed to make them.
    const MADE: &str = "SELECT to_regclass('halfmoon_marker') IS NOT NULL AND EXISTS (SELECT 1 FROM pg_trigger \
        WHERE tgrelid = to_regclass('halfmoon_marker') AND tgname = 'halfmoon_marker_no_truncate')";
    // "HMmk": two instances that start at once would trip over each other.
    const ALONE: &str = "SELECT pg_advisory_xact_lock(1213164907)";
    let made = sqlx::raw_sql(MADE)
        .fetch_one(&mut *connection)
        .await
        .map_err(unavailable)?;
    if made.try_get(0).map_err(unavailable)? {
        return Ok(());
    }
    let mut tx = connection.begin_with(BEGIN).await.map_err(unavailable)?;
    for sql in [ALONE, TABLE] {
        sqlx::raw_sql(sql)
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
    }
    tx.commit().await.map_err(unavailable)
}

/// A database with its marker table.
#[derive(Debug, Clone)]
struct Found {
    place: Place,
    /// The schema of the marker table, quoted.
    schema: String,
}

/// Reads which database `connection`, which was made with `options`, leads to; `None` if it has no marker table.
async fn find(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<Option<Found>, MarkerError> {
    const SCHEMA: &str = "SELECT current_database()::text, quote_ident(n.nspname)::text FROM (SELECT 1) AS one \
        LEFT JOIN pg_class AS c ON c.oid = to_regclass('halfmoon_marker_table') \
        LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace";
    let row = sqlx::raw_sql(SCHEMA)
        .fetch_one(&mut *connection)
        .await
        .map_err(from_sqlx)?;
    let database: String = row.try_get(0).map_err(unavailable)?;
    let schema: Option<String> = row.try_get(1).map_err(unavailable)?;
    let Some(schema) = schema else {
        return Ok(None);
    };
    let identity = format!("SELECT identity::text FROM {schema}.halfmoon_marker_table");
    let row = sqlx::raw_sql(AssertSqlSafe(identity))
        .fetch_optional(&mut *connection)
        .await
        .map_err(from_sqlx)?;
    let lost = || {
        MarkerError::Refused(
            "the marker table has lost its identity; run sql/marker/postgres.sql again".into(),
        )
    };
    let identity: String = row.ok_or_else(lost)?.try_get(0).map_err(unavailable)?;
    let identity: Uuid = identity.parse().map_err(|_| lost())?;
    let host = match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let place = Place {
        identity: MarkerIdentity(identity.as_u128()),
        location: format!("Postgres database {database}, schema {schema}, at {host}"),
    };
    Ok(Some(Found { place, schema }))
}

/// Reads which database `pool` leads to; one without a marker table is refused.
pub(super) async fn place_of(pool: &PgPool) -> Result<Place, MarkerError> {
    let mut connection = pool.acquire().await.map_err(unavailable)?;
    let found = find(&mut connection, &pool.connect_options()).await?;
    found.map(|found| found.place).ok_or_else(|| {
        MarkerError::Refused(
            "the database has no marker table; add its pool with Markers::add".into(),
        )
    })
}

/// Refuses a server whose commits may be lost in a power cut, that answers from a copy, or that is too old.
async fn check_server(connection: &mut PgConnection) -> Result<(), MarkerError> {
    const FACTS: &str = "SELECT current_setting('server_version_num')::int / 10000, pg_is_in_recovery(), \
                         current_setting('fsync')";
    let row = sqlx::raw_sql(FACTS)
        .fetch_one(connection)
        .await
        .map_err(unavailable)?;
    let version: i32 = row.try_get(0).map_err(unavailable)?;
    let is_standby: bool = row.try_get(1).map_err(unavailable)?;
    let fsync: String = row.try_get(2).map_err(unavailable)?;
    let refuse = |why: String| Err(MarkerError::Refused(why));
    if version < OLDEST_POSTGRES {
        return refuse(format!(
            "markers need Postgres {OLDEST_POSTGRES} or newer; this is {version}"
        ));
    }
    if is_standby {
        return refuse(
            "markers are read and written on the primary; this server is a standby".into(),
        );
    }
    if fsync != "on" {
        return refuse(
            "the server runs with fsync=off: a power cut could undo a commit whose message is published; set fsync = on"
                .into(),
        );
    }
    Ok(())
}

/// Inserts the marker of a local transaction, its first write, and makes its commit durable whatever the defaults are.
///
/// `Ok(false)`: the table has another identity than `identity`. A unique violation: a tombstone stands.
pub(super) async fn insert(
    connection: &mut PgConnection,
    id: TransactionId,
    identity: MarkerIdentity,
    at_ms: u64,
) -> Result<bool, sqlx::Error> {
    const INSERT: &str = "INSERT INTO halfmoon_marker (id, value, at_ms) SELECT $1, 1, $2 FROM halfmoon_marker_table \
        WHERE identity = $3 AND set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
        WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true) IS NOT NULL";
    let done = sqlx::query(INSERT)
        .bind(Uuid::from_u128(id.0))
        .bind(i64::try_from(at_ms).unwrap_or(i64::MAX))
        .bind(Uuid::from_u128(identity.0))
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// What stands under `id`, as the open transaction of `connection` sees it.
pub(super) async fn read_in(
    connection: &mut PgConnection,
    id: TransactionId,
) -> Result<Option<Marker>, sqlx::Error> {
    const READ: &str = "SELECT value::bigint FROM halfmoon_marker WHERE id = $1";
    let value: Option<i64> = sqlx::query_scalar(READ)
        .bind(Uuid::from_u128(id.0))
        .fetch_optional(connection)
        .await?;
    Ok(value.and_then(Marker::from_number))
}

/// Whether an error of COMMIT proves that nothing was committed: a constraint or trigger that waited for the end, or another
/// transaction in the way.
pub(super) fn commit_was_refused(error: &sqlx::Error) -> bool {
    state(error).is_some_and(|state| {
        let refused = ["22", "23", "40", "44", "P0"]
            .iter()
            .any(|class| state.starts_with(class));
        // Says of itself that the outcome is unknown.
        refused && state != "40003"
    })
}

/// The markers of one Postgres database.
#[derive(Debug)]
pub struct PostgresMarkers {
    found: Found,
    options: PgConnectOptions,
    clock: Arc<dyn Clock>,
    reader: Slot<PgConnection>,
    writer: Slot<PgConnection>,
}

impl PostgresMarkers {
    /// Takes the database of `pool` for markers, creating the table if it is missing.
    ///
    /// # Errors
    /// [`MarkerError::Refused`] names the rule the server breaks; nothing was changed then.
    pub async fn open(pool: &PgPool, clock: Arc<dyn Clock>) -> Result<Self, MarkerError> {
        let mut connection = pool.acquire().await.map_err(unavailable)?;
        check_server(&mut connection).await?;
        create_table(&mut connection).await?;
        let options = PgConnectOptions::clone(&pool.connect_options())
            .application_name("halfmoon")
            .disable_statement_logging();
        let found = find(&mut connection, &options).await?;
        Ok(Self {
            found: found.ok_or_else(|| {
                MarkerError::Refused(
                    "the marker table is not in the search path of this user".into(),
                )
            })?,
            options,
            clock,
            reader: Slot::default(),
            writer: Slot::default(),
        })
    }

    pub(super) const fn place(&self) -> &Place {
        &self.found.place
    }

    /// A statement about the tables of this database: `#` stands for their schema.
    fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(text.replace('#', &self.found.schema))
    }

    async fn take<'a>(
        &self,
        slot: &'a Slot<PgConnection>,
    ) -> Result<Lease<'a, PgConnection>, MarkerError> {
        slot.take(async || {
            let mut connection = self.options.connect().await.map_err(from_sqlx)?;
            check_server(&mut connection).await?;
            // Whatever the search path of this connection is, only the table that was found counts.
            let text = self.sql("SELECT identity::text FROM #.halfmoon_marker_table");
            let row = sqlx::raw_sql(text).fetch_optional(&mut connection).await;
            let row = row.map_err(from_sqlx)?;
            let identity = row.and_then(|row| row.try_get::<String, _>(0).ok());
            let identity = identity.and_then(|text| text.parse::<Uuid>().ok());
            if identity.map(|identity| identity.as_u128()) != Some(self.found.place.identity.0) {
                return Err(MarkerError::Refused(format!(
                    "{} is not the database it was: its marker identity has changed",
                    self.found.place.location
                )));
            }
            Ok(connection)
        })
        .await
    }

    async fn plant(
        &self,
        connection: &mut PgConnection,
        id: TransactionId,
    ) -> Result<Marker, MarkerError> {
        let at_ms = i64::try_from(self.clock.wall_ms()).unwrap_or(i64::MAX);
        let id_bound = Uuid::from_u128(id.0);
        let mut tx = connection
            .begin_with(BEGIN_QUESTION)
            .await
            .map_err(from_sqlx)?;
        // Waits for whoever has inserted or deleted this marker and not ended yet; what they did is read after that.
        let plant = self.sql(
            "INSERT INTO #.halfmoon_marker (id, value, at_ms) VALUES ($1, 0, $2) ON CONFLICT (id) DO NOTHING",
        );
        let plant = sqlx::query(plant).bind(id_bound).bind(at_ms);
        let planted = plant.persistent(false).execute(&mut *tx).await;
        let planted = planted.map_err(from_sqlx)?.rows_affected() == 1;
        let stands = self.sql(
            "SELECT (SELECT value::bigint FROM #.halfmoon_marker WHERE id = $1), horizon FROM #.halfmoon_marker_table",
        );
        let stands = sqlx::query(stands).bind(id_bound).persistent(false);
        let stands = stands.fetch_one(&mut *tx).await.map_err(from_sqlx)?;
        let marker: Option<i64> = stands.try_get(0).map_err(unavailable)?;
        let horizon: Uuid = stands.try_get(1).map_err(unavailable)?;
        if !planted {
            tx.rollback().await.map_err(from_sqlx)?;
            let gone = || MarkerError::Unavailable("the marker was deleted just now".into());
            return marker.and_then(Marker::from_number).ok_or_else(gone);
        }
        if id.0 <= horizon.as_u128() {
            tx.rollback().await.map_err(from_sqlx)?;
            return Err(MarkerError::MayBeDeleted(id));
        }
        tx.commit().await.map_err(from_sqlx)?;
        Ok(Marker::Tombstone)
    }

    async fn delete(
        &self,
        connection: &mut PgConnection,
        ids: &[TransactionId],
    ) -> Result<u64, sqlx::Error> {
        let ids: Vec<Uuid> = ids.iter().map(|id| Uuid::from_u128(id.0)).collect();
        let mut tx = connection.begin_with(BEGIN_QUESTION).await?;
        // Locked, so that what others delete meanwhile is noted after the horizon was put back.
        let horizon = self.sql("SELECT horizon FROM #.halfmoon_marker_table FOR UPDATE");
        let horizon: Uuid = sqlx::query_scalar(horizon)
            .persistent(false)
            .fetch_one(&mut *tx)
            .await?;
        let delete = self.sql("DELETE FROM #.halfmoon_marker WHERE value = 1 AND id = ANY($1)");
        let delete = sqlx::query(delete).bind(ids).persistent(false);
        let gone = delete.execute(&mut *tx).await?.rows_affected();
        let back = self.sql("UPDATE #.halfmoon_marker_table SET horizon = $1");
        let back = sqlx::query(back).bind(horizon).persistent(false);
        back.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(gone)
    }

    /// The first row that `text` finds for `id`, in a transaction of its own.
    async fn one<T>(
        &self,
        text: &str,
        id: Option<TransactionId>,
        value: impl FnOnce(Option<sqlx::postgres::PgRow>) -> Result<T, sqlx::Error>,
    ) -> Result<T, MarkerError> {
        in_time(async {
            let mut lease = self.take(&self.reader).await?;
            let found = async {
                let mut tx = lease.connection.begin_with(BEGIN_QUESTION).await?;
                let mut query = sqlx::query(self.sql(text)).persistent(false);
                if let Some(id) = id {
                    query = query.bind(Uuid::from_u128(id.0));
                }
                let found = value(query.fetch_optional(&mut *tx).await?)?;
                tx.commit().await?;
                Ok(found)
            };
            let found = found.await.map_err(from_sqlx)?;
            lease.put_back();
            Ok(found)
        })
        .await
    }
}

#[async_trait]
impl MarkerStore for PostgresMarkers {
    fn identity(&self) -> MarkerIdentity {
        self.found.place.identity
    }

    async fn read(&self, id: TransactionId) -> Result<Option<Marker>, MarkerError> {
        let read = "SELECT value::bigint FROM #.halfmoon_marker WHERE id = $1";
        self.one(read, Some(id), |row| {
            let value: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
            Ok(value.and_then(Marker::from_number))
        })
        .await
    }

    async fn fence(&self, id: TransactionId) -> Result<Marker, MarkerError> {
        in_time(async {
            let mut lease = self.take(&self.writer).await?;
            let planted = self.plant(&mut lease.connection, id).await;
            if matches!(
                planted,
                Ok(_) | Err(MarkerError::Locked(_) | MarkerError::MayBeDeleted(_))
            ) {
                lease.put_back();
            }
            planted
        })
        .await
    }

    async fn prune(&self, ids: &[TransactionId]) -> Result<u64, MarkerError> {
        in_time(async {
            let mut lease = self.take(&self.writer).await?;
            let gone = self.delete(&mut lease.connection, ids).await;
            let gone = gone.map_err(from_sqlx)?;
            lease.put_back();
            Ok(gone)
        })
        .await
    }

    async fn committed(
        &self,
        after: TransactionId,
        before: TransactionId,
        limit: u32,
    ) -> Result<Vec<TransactionId>, MarkerError> {
        in_time(async {
            let mut lease = self.take(&self.reader).await?;
            let found = async {
                let mut tx = lease.connection.begin_with(BEGIN_QUESTION).await?;
                let committed = self.sql(
                    "SELECT id FROM #.halfmoon_marker WHERE id > $1 AND id < $2 AND value = 1 ORDER BY id LIMIT $3",
                );
                let ids: Vec<Uuid> = sqlx::query_scalar(committed)
                    .bind(Uuid::from_u128(after.0))
                    .bind(Uuid::from_u128(before.0))
                    .bind(i64::from(limit))
                    .persistent(false)
                    .fetch_all(&mut *tx)
                    .await?;
                tx.commit().await?;
                Ok(ids)
            };
            let ids = found.await.map_err(from_sqlx)?;
            lease.put_back();
            Ok(ids.iter().map(|id| TransactionId(id.as_u128())).collect())
        })
        .await
    }

    async fn horizon(&self) -> Result<TransactionId, MarkerError> {
        let horizon = "SELECT horizon FROM #.halfmoon_marker_table";
        self.one(horizon, None, |row| {
            let horizon: Option<Uuid> = row.map(|row| row.try_get(0)).transpose()?;
            // Should the row be gone, nothing below any id is believed.
            let horizon = horizon.map_or(u128::MAX, |horizon| horizon.as_u128());
            Ok(TransactionId(horizon))
        })
        .await
    }
}

async fn in_time<T>(
    question: impl Future<Output = Result<T, MarkerError>>,
) -> Result<T, MarkerError> {
    let late = |_| MarkerError::Unavailable("the database does not answer".into());
    tokio::time::timeout(ANSWER_TIME, question)
        .await
        .map_err(late)?
}

fn unavailable(error: sqlx::Error) -> MarkerError {
    MarkerError::Unavailable(error.to_string())
}

/// What an error of Postgres means for a check-back: whoever has to wait is locked, everything else tells nothing.
fn from_sqlx(error: sqlx::Error) -> MarkerError {
    // Lock not available, statement timeout, serialization failure, deadlock.
    let waited = ["55P03", "57014", "40001", "40P01"];
    if state(&error).is_some_and(|state| waited.contains(&state.as_str())) {
        MarkerError::Locked(error.to_string())
    } else {
        unavailable(error)
    }
}

/// SQLSTATE, if Postgres said no.
fn state(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}

#[cfg(test)]
mod tests;
