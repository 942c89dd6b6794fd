//! A first attempt that meets a conflict of the database: what is said of it, and that the second one is another.

use sqlx::postgres::PgPool;
use sqlx::types::Uuid;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::double::message;
use super::{PRODUCER_COMMIT, PRODUCER_ROLLBACK, on_postgres};
use crate::client::half::Settled;
use crate::client::local::CommitError;
use crate::marker::Marker;
use crate::marker::database::LocalDatabase as _;
use crate::transaction::{Resolution, TransactionId};

/// SQLSTATE or SQLite's extended code.
fn code(error: &sqlx::Error) -> String {
    let error = error.as_database_error().expect("the database said no");
    error.code().expect("it says why").into_owned()
}

mod on_sqlite {
    use std::time::Duration;

    use sqlx::SqlitePool;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};

    use super::super::{execute, place_order, service, service_over};
    use super::*;
    use crate::client::producer::BeginError;

    const BUSY: &str = "5";
    const BUSY_SNAPSHOT: &str = "517";
    /// How long a local transaction waits for a lock.
    const WAIT: Duration = Duration::from_millis(50);

    /// Somebody else holds the only write lock for longer than it is waited for.
    #[tokio::test]
    async fn story_8_an_attempt_that_finds_the_database_busy_is_rolled_back_and_the_next_one_commits()
     {
        let service = service().await;
        let options = SqliteConnectOptions::clone(&service.pool.connect_options());
        let impatient = options.busy_timeout(WAIT);
        let impatient = SqlitePool::connect_with(impatient).await.unwrap();
        let lock = service.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let begun = service.producer.begin(&impatient, message()).await;
        let Err(BeginError::Database(error)) = begun else {
            panic!("{begun:?}");
        };
        assert_eq!(code(&error), BUSY);
        lock.rollback().await.unwrap();
        let mut second = service.producer.begin(&impatient, message()).await.unwrap();
        place_order(&mut second).await.unwrap();
        let id = second.id();
        assert_eq!(second.commit().await.unwrap(), Settled::Decided);
        service.producer.flush().await;
        let failed = service.coordinator.halves()[0].id;
        assert_ne!(failed, id);
        assert_eq!(service.said_about(failed), PRODUCER_ROLLBACK);
        assert_eq!(service.said_about(id), PRODUCER_COMMIT);
        assert_eq!(service.check(failed).await, Resolution::RollBack);
        assert_eq!(service.orders().await, 1);
    }

    #[tokio::test]
    async fn story_8_a_commit_that_finds_the_database_busy_is_refused_and_nothing_is_said() {
        // In this mode a commit has to wait for whoever reads.
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("orders.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Delete)
            .busy_timeout(WAIT);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        let service = service_over(folder, pool.clone()).await;
        let mut reader = pool.begin().await.unwrap();
        reader.execute("SELECT * FROM orders").await.unwrap();
        let mut tx = service.producer.begin(&pool, message()).await.unwrap();
        let failed = tx.id();
        place_order(&mut tx).await.unwrap();
        let error = tx.commit().await.unwrap_err();
        let CommitError::Refused(busy) = &error else {
            panic!("{error}");
        };
        assert_eq!(code(busy), BUSY);
        assert_eq!(service.said_about(failed), [], "COMMIT was issued");
        // The tombstone cannot be committed either, which proves nothing.
        assert_eq!(service.check(failed).await, Resolution::InFlight);
        reader.rollback().await.unwrap();

        let mut tx = service.producer.begin(&pool, message()).await.unwrap();
        let id = tx.id();
        place_order(&mut tx).await.unwrap();
        assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
        assert_ne!(id, failed);
        assert_eq!(service.check(failed).await, Resolution::RollBack);
        assert_eq!(service.check(id).await, Resolution::Commit);
        assert_eq!(service.orders().await, 1);
    }

    #[tokio::test]
    async fn story_8_a_snapshot_that_somebody_has_overtaken_is_rolled_back_and_tried_again() {
        let service = service().await;
        let marker = "INSERT INTO halfmoon_marker (id, value, at_ms) VALUES (?1, 1, 1)";
        let insert = |id: TransactionId| sqlx::query(marker).bind(id.to_bytes().to_vec());
        let order = "INSERT INTO orders SELECT count(*), 'VINET' FROM orders";
        let mut attempts = Vec::new();
        // The service runs its own transaction, and does not begin it with the lock.
        loop {
            let half = service
                .producer
                .half_in(service.store.identity(), message())
                .await
                .unwrap();
            let id = half.id();
            let mut tx = service.pool.begin().await.unwrap();
            tx.execute("SELECT * FROM orders").await.unwrap();
            if attempts.is_empty() {
                execute(&service.pool, order).await;
            }
            attempts.push(id);
            match insert(id).execute(&mut *tx).await {
                Err(error) => {
                    assert_eq!(code(&error), BUSY_SNAPSHOT);
                    tx.rollback().await.unwrap();
                    assert_eq!(half.roll_back().await, Settled::Decided);
                }
                Ok(_) => {
                    tx.execute(order).await.unwrap();
                    tx.commit().await.unwrap();
                    assert_eq!(half.commit().await, Settled::Decided);
                    break;
                }
            }
        }
        let [failed, id] = attempts[..] else {
            panic!("{attempts:?}");
        };
        assert_eq!(service.said_about(failed), PRODUCER_ROLLBACK);
        assert_eq!(service.said_about(id), PRODUCER_COMMIT);
        assert_eq!(service.check(failed).await, Resolution::RollBack);
        assert_eq!(service.orders().await, 2, "the one in the way, and one");
    }
}

/// Begins as services do that need more than the library's isolation, marker first.
async fn begin_serializable<'a>(
    connection: &'a mut PgConnection,
    id: TransactionId,
) -> sqlx::Transaction<'a, sqlx::Postgres> {
    let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE";
    let mut tx = connection.begin_with(begin).await.unwrap();
    let marker = "INSERT INTO halfmoon_marker (id, value, at_ms) VALUES ($1, 1, 1)";
    let marker = sqlx::query(marker).bind(Uuid::from_u128(id.0));
    marker.execute(&mut *tx).await.unwrap();
    tx
}

/// Decides by what it reads, and writes what the other one has read.
async fn order_next(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let order = "INSERT INTO orders SELECT count(*) FROM orders";
    connection.execute(order).await.map(|_| ())
}

#[tokio::test]
async fn story_8_a_serialization_failure_at_the_commit_says_nothing_and_the_next_attempt_commits() {
    let service = on_postgres::service().await;
    let identity = service.store.identity();
    let half = |order| service.producer.half_in(identity, order);
    let (first, second) = (half(message()).await, half(message()).await);
    let (first, second) = (first.unwrap(), second.unwrap());
    let failed = second.id();
    let pool: &PgPool = &service.pool;
    let (mut one, mut two) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    // Each reads what the other writes: one after the other they would number their orders differently.
    let mut one = begin_serializable(&mut one, first.id()).await;
    let mut two = begin_serializable(&mut two, failed).await;
    order_next(&mut one).await.unwrap();
    order_next(&mut two).await.unwrap();
    one.commit().await.unwrap();
    assert_eq!(first.commit().await, Settled::Decided);
    let error = two.commit().await.unwrap_err();
    assert_eq!(code(&error), "40001");
    assert!(sqlx::Postgres::commit_was_refused(&error));
    // COMMIT was issued, so the service says nothing.
    drop(second);
    assert_eq!(service.said_about(failed), []);
    assert_eq!(service.store.read(failed).await, Ok(None));
    assert_eq!(service.check(failed).await, Resolution::RollBack);

    let third = half(message()).await.unwrap();
    let mut again = pool.acquire().await.unwrap();
    let mut again = begin_serializable(&mut again, third.id()).await;
    order_next(&mut again).await.unwrap();
    again.commit().await.unwrap();
    let id = third.id();
    assert_ne!(id, failed);
    assert_eq!(third.commit().await, Settled::Decided);
    assert_eq!(service.said_about(id), PRODUCER_COMMIT);
    let stands = service.store.read(failed).await;
    assert_eq!(stands, Ok(Some(Marker::Tombstone)));
    assert_eq!(service.orders().await, 2);
}

/// Two transactions wait for each other, and the database ends ours.
#[tokio::test]
async fn story_8_an_attempt_that_ends_in_a_deadlock_is_rolled_back_and_the_next_one_commits() {
    let service = on_postgres::service().await;
    let stock = "CREATE TABLE stock (product integer PRIMARY KEY, left_over integer);
                 INSERT INTO stock VALUES (1, 9), (2, 9)";
    sqlx::raw_sql(stock).execute(&service.pool).await.unwrap();
    let take = |product| {
        let sql = "UPDATE stock SET left_over = left_over - 1 WHERE product = $1";
        sqlx::query(sql).bind(product)
    };
    let mut first = service.begin().await;
    // Whoever looks first finds the deadlock and is its victim.
    let soon = "SET LOCAL deadlock_timeout = '10ms'";
    sqlx::raw_sql(soon).execute(&mut *first).await.unwrap();
    take(1).execute(&mut *first).await.unwrap();
    let mut other = service.pool.begin().await.unwrap();
    let late = "SET LOCAL deadlock_timeout = '60s'";
    sqlx::raw_sql(late).execute(&mut *other).await.unwrap();
    take(2).execute(&mut *other).await.unwrap();
    let (ours, theirs) = tokio::join!(take(2).execute(&mut *first), take(1).execute(&mut *other));
    let error = ours.unwrap_err();
    assert_eq!(code(&error), "40P01");
    let failed = first.id();
    let ended = first.commit().await;
    assert!(matches!(ended, Err(CommitError::Database(_))), "{ended:?}");
    theirs.unwrap();
    other.commit().await.unwrap();

    let mut second = service.begin().await;
    let id = second.id();
    take(1).execute(&mut *second).await.unwrap();
    take(2).execute(&mut *second).await.unwrap();
    assert_eq!(second.commit().await.unwrap(), Settled::Decided);
    assert_ne!(failed, id);
    assert_eq!(service.said_about(failed), PRODUCER_ROLLBACK);
    assert_eq!(service.said_about(id), PRODUCER_COMMIT);
    let taken: i64 = sqlx::query_scalar("SELECT sum(left_over) FROM stock")
        .fetch_one(&service.pool)
        .await
        .unwrap();
    assert_eq!(taken, 18 - 4, "each product twice");
}
