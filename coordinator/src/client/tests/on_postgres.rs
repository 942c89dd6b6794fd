//! Local transactions on Postgres, against a coordinator that records: what differs from SQLite.

use std::sync::Arc;

use sqlx::PgPool;

use super::double::{Recorder, message};
use super::{PRODUCER_COMMIT, PRODUCER_ROLLBACK};
use crate::client::check_back::CheckBackQueue;
use crate::client::half::Settled;
use crate::client::local::{CommitError, Transaction};
use crate::client::producer::Producer;
use crate::marker::databases::Markers;
use crate::marker::{Marker, MarkerStore};
use crate::transaction::{Actor, Resolution, TransactionId};

pub(super) struct Service {
    pub(super) pool: PgPool,
    pub(super) store: Arc<dyn MarkerStore>,
    pub(super) coordinator: Arc<Recorder>,
    pub(super) producer: Producer,
    asks: CheckBackQueue,
}

pub(super) async fn service() -> Service {
    service_over(private_postgres::pool().await).await
}

/// A service in the empty database behind `pool`.
pub(super) async fn service_over(pool: PgPool) -> Service {
    let table = "CREATE TABLE orders (number integer, \
                 CONSTRAINT once UNIQUE (number) DEFERRABLE INITIALLY DEFERRED)";
    sqlx::raw_sql(table).execute(&pool).await.unwrap();
    let markers = Markers::new().add(pool.clone()).await.unwrap();
    let store = Arc::clone(markers.get(markers.identities()[0]).unwrap());
    let coordinator = Recorder::new();
    let builder = Producer::builder("order-service").markers(markers);
    let (producer, asks) = coordinator.connect(builder).await;
    Service {
        pool,
        store,
        coordinator,
        producer,
        asks,
    }
}

impl Service {
    pub(super) async fn begin(&self) -> Transaction<sqlx::Postgres> {
        self.producer.begin(&self.pool, message()).await.unwrap()
    }

    pub(super) async fn orders(&self) -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM orders");
        count.fetch_one(&self.pool).await.unwrap()
    }

    pub(super) async fn check(&self, id: TransactionId) -> Resolution {
        self.coordinator.check(&self.asks, id).await.resolution
    }

    pub(super) fn said_about(&self, id: TransactionId) -> Vec<(Resolution, Actor)> {
        self.coordinator.said_about(id)
    }
}

/// From now on every COMMIT with a marker in it is refused, or no longer.
pub(super) async fn commits_with_markers_fail(pool: &PgPool, fail: bool) {
    let sql = if fail {
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''too late''; END';
         CREATE CONSTRAINT TRIGGER refused AFTER INSERT ON halfmoon_marker DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION refuse()"
    } else {
        "DROP TRIGGER refused ON halfmoon_marker"
    };
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

pub(super) async fn place_order(tx: &mut Transaction<sqlx::Postgres>) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO orders VALUES (10248)")
        .execute(&mut **tx)
        .await?;
    Ok(())
}

#[tokio::test]
async fn order_and_message_are_committed_together_or_not_at_all() {
    let service = service().await;
    let mut tx = service.begin().await;
    let committed = tx.id();
    place_order(&mut tx).await.unwrap();
    assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
    let mut tx = service.begin().await;
    let dropped = tx.id();
    place_order(&mut tx).await.unwrap();
    drop(tx);
    service.producer.flush().await;
    assert_eq!(service.orders().await, 1);
    assert_eq!(service.said_about(committed), PRODUCER_COMMIT);
    assert_eq!(service.said_about(dropped), PRODUCER_ROLLBACK);
    let stands = service.store.read(committed).await;
    assert_eq!(stands, Ok(Some(Marker::Committed)));
    assert_eq!(service.store.read(dropped).await, Ok(None));
}

#[tokio::test]
async fn story_9_an_error_that_was_swallowed_aborts_the_transaction_and_the_message() {
    let service = service().await;
    let mut tx = service.begin().await;
    let id = tx.id();
    place_order(&mut tx).await.unwrap();
    let failed = sqlx::raw_sql("SELECT 1 / 0").execute(&mut *tx).await;
    assert!(failed.is_err());
    // Postgres would answer this COMMIT without an error, and roll back.
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, CommitError::Database(_)), "{error}");
    assert_eq!(service.said_about(id), PRODUCER_ROLLBACK);
    assert_eq!(service.orders().await, 0);
    assert_eq!(
        service.begin().await.commit().await.unwrap(),
        Settled::Decided
    );
}

#[tokio::test]
async fn a_constraint_that_waited_for_the_commit_refuses_it_and_the_message() {
    let service = service().await;
    let mut tx = service.begin().await;
    let id = tx.id();
    place_order(&mut tx).await.unwrap();
    place_order(&mut tx).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, CommitError::Refused(_)), "{error}");
    assert_eq!(service.said_about(id), []);
    assert_eq!(service.check(id).await, Resolution::RollBack);
    assert_eq!(service.orders().await, 0);
}
