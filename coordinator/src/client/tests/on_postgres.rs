//! Local transactions on Postgres, against a coordinator that records: what differs from SQLite.

use std::sync::Arc;

use sqlx::PgPool;

use super::double::{Recorder, message};
use crate::client::half::Settled;
use crate::client::local::{CommitError, Transaction};
use crate::client::producer::{BeginError, Producer};
use crate::marker::databases::Markers;
use crate::marker::{Marker, MarkerStore};
use crate::transaction::{Actor, Resolution};

struct Service {
    pool: PgPool,
    store: Arc<dyn MarkerStore>,
    coordinator: Arc<Recorder>,
    producer: Producer,
    asks: crate::client::check_back::CheckBackQueue,
}

async fn service() -> Service {
    let pool = private_postgres::pool().await;
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
    async fn begin(&self) -> Transaction<sqlx::Postgres> {
        self.producer.begin(&self.pool, message()).await.unwrap()
    }

    async fn orders(&self) -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM orders");
        count.fetch_one(&self.pool).await.unwrap()
    }
}

async fn place_order(tx: &mut Transaction<sqlx::Postgres>) {
    sqlx::query("INSERT INTO orders VALUES (10248)")
        .execute(&mut **tx)
        .await
        .unwrap();
}

const COMMIT: [(Resolution, Actor); 1] = [(Resolution::Commit, Actor::Producer)];
const ROLLBACK: [(Resolution, Actor); 1] = [(Resolution::RollBack, Actor::Producer)];

#[tokio::test]
async fn order_and_message_are_committed_together_or_not_at_all() {
    let service = service().await;
    let mut tx = service.begin().await;
    let committed = tx.id();
    place_order(&mut tx).await;
    assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
    let mut tx = service.begin().await;
    let dropped = tx.id();
    place_order(&mut tx).await;
    drop(tx);
    service.producer.flush().await;
    assert_eq!(service.orders().await, 1);
    assert_eq!(service.coordinator.said_about(committed), COMMIT);
    assert_eq!(service.coordinator.said_about(dropped), ROLLBACK);
    let stands = service.store.read(committed).await;
    assert_eq!(stands, Ok(Some(Marker::Committed)));
    assert_eq!(service.store.read(dropped).await, Ok(None));
}

#[tokio::test]
async fn story_9_an_error_that_was_swallowed_aborts_the_transaction_and_the_message() {
    let service = service().await;
    let mut tx = service.begin().await;
    let id = tx.id();
    place_order(&mut tx).await;
    let failed = sqlx::raw_sql("SELECT 1 / 0").execute(&mut *tx).await;
    assert!(failed.is_err());
    // Postgres would answer this COMMIT without an error, and roll back.
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, CommitError::Database(_)), "{error}");
    assert_eq!(service.coordinator.said_about(id), ROLLBACK);
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
    place_order(&mut tx).await;
    place_order(&mut tx).await;
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, CommitError::Refused(_)), "{error}");
    assert_eq!(service.coordinator.said_about(id), []);
    let answer = service.coordinator.check(&service.asks, id).await;
    assert_eq!(answer.resolution, Resolution::RollBack);
    assert_eq!(service.orders().await, 0);
}

#[tokio::test]
async fn story_7_a_commit_whose_reply_is_lost_says_nothing_and_the_marker_decides() {
    let service = service().await;
    let mut tx = service.begin().await;
    let id = tx.id();
    place_order(&mut tx).await;
    service.producer.lose_commit_replies();
    let settled = tx.commit().await.unwrap();
    assert!(matches!(settled, Settled::Deferred(_)), "{settled:?}");
    assert_eq!(service.coordinator.said_about(id), []);
    let answer = service.coordinator.check(&service.asks, id).await;
    assert_eq!(answer.resolution, Resolution::Commit);
}

#[tokio::test]
async fn story_10_a_fenced_local_transaction_ends_at_its_first_write() {
    let service = service().await;
    let hold = Arc::new(tokio::sync::Notify::new());
    *service.coordinator.hold_halves.lock().unwrap() = Some(hold.clone());
    let begin = service.producer.begin(&service.pool, message());
    let fence = async {
        while service.coordinator.halves().is_empty() {
            tokio::task::yield_now().await;
        }
        let id = service.coordinator.halves()[0].id;
        let fenced = service.store.fence(id).await;
        hold.notify_one();
        (id, fenced)
    };
    let (begun, (id, fenced)) = tokio::join!(begin, fence);
    assert_eq!(fenced, Ok(Marker::Tombstone));
    assert!(matches!(begun, Err(BeginError::Fenced(fenced)) if fenced == id));
}
