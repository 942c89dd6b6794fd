//! What is Postgres' own about markers: locks of open local transactions, search paths, and tables that guard themselves.

use mq_core::clock::ManualClock;

use super::super::conformance::{self, Subject};
use super::*;
use crate::marker::databases::Markers;

struct Database {
    pool: PgPool,
    markers: PostgresMarkers,
}

async fn database() -> Database {
    let pool = private_postgres::pool().await;
    let clock = Arc::new(ManualClock::new(1));
    let markers = PostgresMarkers::open(&pool, clock).await.unwrap();
    Database { pool, markers }
}

async fn execute(pool: &PgPool, sql: &'static str) -> Result<(), String> {
    let done = sqlx::raw_sql(sql).execute(pool).await;
    done.map(|_| ()).map_err(|error| error.to_string())
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
        sqlx::query("DELETE FROM halfmoon_marker WHERE id = $1")
            .bind(Uuid::from_u128(id.0))
            .execute(&self.pool)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn postgres_keeps_every_promise_of_a_marker_store() {
    conformance::check(&database().await).await;
}

/// A function of ours that stands before that of the server says what such a server would.
#[tokio::test]
async fn a_server_that_keeps_no_promises_is_refused_and_given_no_table() {
    for (says, why) in [
        (
            "CREATE FUNCTION current_setting(name text) RETURNS text LANGUAGE sql AS \
             'SELECT CASE name WHEN ''fsync'' THEN ''off'' ELSE pg_catalog.current_setting(name) END'",
            "set fsync = on",
        ),
        (
            "CREATE FUNCTION current_setting(name text) RETURNS text LANGUAGE sql AS \
             'SELECT CASE name WHEN ''server_version_num'' THEN ''130022'' ELSE pg_catalog.current_setting(name) END'",
            "this is 13",
        ),
        (
            "CREATE FUNCTION pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'",
            "is a standby",
        ),
    ] {
        let pool = private_postgres::pool().await;
        execute(&pool, says).await.unwrap();
        let options = PgConnectOptions::clone(&pool.connect_options())
            .options([("search_path", "public,pg_catalog")]);
        let ours_first = PgPool::connect_with(options).await.unwrap();
        let opened = PostgresMarkers::open(&ours_first, Arc::new(ManualClock::new(1))).await;
        let refused = opened.map(|_| ()).unwrap_err();
        assert!(matches!(refused, MarkerError::Refused(_)), "{refused:?}");
        assert!(refused.to_string().contains(why), "{refused}");
        let none: bool = sqlx::query_scalar("SELECT to_regclass('halfmoon_marker') IS NULL")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert!(none, "{why}");
    }
}

#[tokio::test]
async fn the_database_itself_refuses_to_change_or_truncate_markers() {
    let database = database().await;
    assert!(database.commit(TransactionId(1)).await);
    for (sql, why) in [
        (
            "UPDATE halfmoon_marker SET value = 0",
            "a marker never changes",
        ),
        ("TRUNCATE halfmoon_marker", "markers are deleted by id"),
        (
            "INSERT INTO halfmoon_marker VALUES (gen_random_uuid(), 1, 2)",
            "violates check constraint",
        ),
    ] {
        let error = execute(&database.pool, sql).await.unwrap_err();
        assert!(error.contains(why), "{sql}: {error}");
    }
}

#[tokio::test]
async fn story_25_a_fence_waits_for_an_open_local_transaction_no_longer_than_it_says() {
    let database = database().await;
    let id = TransactionId(9);
    let identity = database.markers.identity();
    let mut local = database.pool.begin().await.unwrap();
    assert!(insert(&mut local, id, identity, 1).await.unwrap());
    let fenced = database.markers.fence(id).await;
    assert!(matches!(fenced, Err(MarkerError::Locked(_))), "{fenced:?}");
    assert_eq!(database.markers.read(id).await, Ok(None));
    local.commit().await.unwrap();
    assert_eq!(database.markers.fence(id).await, Ok(Marker::Committed));
}

#[tokio::test]
async fn story_13_a_fence_sees_what_was_committed_whatever_the_default_isolation_is() {
    let database = database().await;
    let name: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    let sql = format!("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&database.pool)
        .await
        .unwrap();
    let identity = database.markers.identity();
    // Its connection is open from here on.
    database.markers.fence(TransactionId(8)).await.unwrap();
    for id in (9..29).map(TransactionId) {
        let mut local = database.pool.begin().await.unwrap();
        assert!(insert(&mut local, id, identity, 1).await.unwrap());
        // The fence begins before the commit, waits for it, and finds it.
        let (fenced, waited) = tokio::join!(database.markers.fence(id), async {
            let waited = somebody_waits(&database.pool).await;
            local.commit().await.unwrap();
            waited
        });
        match fenced {
            // The machine was so slow that it waited no longer.
            Err(MarkerError::Locked(_)) => {}
            fenced => {
                assert!(waited, "it began after the commit");
                assert_eq!(fenced, Ok(Marker::Committed));
                return;
            }
        }
    }
    panic!("a fence never waits as long as it says");
}

/// Looks until a session waits for a lock; false if none has for a thousand looks.
async fn somebody_waits(pool: &PgPool) -> bool {
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for _ in 0..1_000 {
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(pool).await.unwrap();
        if waiting > 0 {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn story_14_a_marker_in_another_schema_of_the_search_path_is_another_database() {
    let database = database().await;
    execute(&database.pool, "CREATE SCHEMA tenant")
        .await
        .unwrap();
    let other = PgConnectOptions::clone(&database.pool.connect_options())
        .options([("search_path", "tenant")]);
    let other = PgPool::connect_with(other).await.unwrap();
    let markers = Markers::new().add(database.pool.clone()).await.unwrap();
    let unknown = markers.identity_of(&other).await.unwrap_err().to_string();
    assert!(unknown.contains("has no marker table"), "{unknown}");
    ensure_table(&other).await.unwrap();
    let unknown = markers.identity_of(&other).await.unwrap_err().to_string();
    assert!(unknown.contains("schema tenant"), "{unknown}");
    let mut connection = other.acquire().await.unwrap();
    let identity = database.markers.identity();
    let inserted = insert(&mut connection, TransactionId(1), identity, 1).await;
    assert!(!inserted.unwrap(), "nothing is written into the wrong one");
    let markers = markers.add(other.clone()).await.unwrap();
    assert_eq!(markers.identities().len(), 2);
}

#[tokio::test]
async fn commits_of_local_transactions_and_fences_are_durable_although_the_default_is_not() {
    let database = database().await;
    let mut local = database.pool.begin().await.unwrap();
    sqlx::raw_sql("SET LOCAL synchronous_commit = off")
        .execute(&mut *local)
        .await
        .unwrap();
    let identity = database.markers.identity();
    assert!(
        insert(&mut local, TransactionId(1), identity, 1)
            .await
            .unwrap()
    );
    let row = sqlx::raw_sql("SHOW synchronous_commit").fetch_one(&mut *local);
    assert_eq!(row.await.unwrap().get::<String, _>(0), "on");
    local.rollback().await.unwrap();

    // What stands while a marker is written decides about its commit.
    let listening = "CREATE TABLE heard AS SELECT 'nothing' AS setting; \
        CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS \
        'BEGIN UPDATE heard SET setting = current_setting(''synchronous_commit''); RETURN NEW; END'; \
        CREATE TRIGGER hear BEFORE INSERT ON halfmoon_marker FOR EACH ROW EXECUTE FUNCTION hear(); \
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$";
    execute(&database.pool, listening).await.unwrap();
    let fenced = database.markers.fence(TransactionId(2)).await;
    assert_eq!(fenced, Ok(Marker::Tombstone));
    let heard: String = sqlx::query_scalar("SELECT setting FROM heard")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(heard, "on");
}

#[tokio::test]
async fn a_table_that_is_there_is_left_alone() {
    let database = database().await;
    let place = database.markers.place().clone();
    ensure_table(&database.pool).await.unwrap();
    let again = PostgresMarkers::open(&database.pool, Arc::new(ManualClock::new(2))).await;
    assert_eq!(*again.unwrap().place(), place);
    sqlx::raw_sql(TABLE).execute(&database.pool).await.unwrap();
    assert_eq!(place_of(&database.pool).await.unwrap(), place);
}
