//! Producers beside a real coordinator: nothing is recorded here, everything is decided.

use std::sync::Arc;
use std::time::Duration;

use mq_core::broker::{self, Broker};
use mq_core::client::Consumer;
use mq_core::clock::{Clock, SystemClock};
use mq_core::log::memory::MemoryLog;
use mq_core::log::{Log, LogId, QueueOffset};
use mq_core::names::{QueueId, TopicName};
use mq_core::random::SystemRandom;
use mq_core::wire::record::RecordView;
use sqlx::SqlitePool;

use super::double::{self, message};
use crate::client::Producer;
use crate::client::half::Settled;
use crate::engine::Coordinator;
use crate::engine::settings::Settings;
use crate::inbox::{Entry, Inbox};
use crate::marker::databases::Markers;
use crate::store::TxReader;
use crate::store::model::Model;
use crate::transaction::{Actor, State, TransactionId};

struct World {
    folder: tempfile::TempDir,
    pool: SqlitePool,
    log: Arc<MemoryLog>,
    broker: Broker,
    coordinator: Coordinator,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let pool = double::pool(&folder, "orders.db").await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let log = Arc::new(MemoryLog::new(LogId(1), clock.clone()));
    let mut settings = Settings::default();
    settings.check_back.grace = Duration::from_millis(20);
    let coordinator = Coordinator::new(Arc::new(Model::new()), settings);
    let parts = broker::Parts {
        log: log.clone(),
        clock,
        random: Arc::new(SystemRandom),
        extensions: vec![Arc::new(coordinator.clone())],
    };
    let broker = Broker::open(broker::Settings::default(), parts)
        .await
        .unwrap();
    World {
        folder,
        pool,
        log,
        broker,
        coordinator,
    }
}

impl World {
    async fn producer(&self) -> Producer {
        let markers = Markers::new().add(self.pool.clone()).await.unwrap();
        let builder = Producer::builder("order-service").markers(markers);
        builder.attach(&self.coordinator).await.unwrap()
    }

    /// Waits until somebody has decided, and says what and who.
    async fn decided(&self, id: TransactionId) -> (State, Actor) {
        let reader = self.coordinator.reader();
        loop {
            let row = self.coordinator.find(id).await.unwrap();
            if let Some(row) = row.filter(|row| row.state.is_decided()) {
                return (row.state, last_actor(&*reader, id).await);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Ids of the messages in every queue of the topic, as consumers see them.
    fn published(&self) -> Vec<String> {
        let queues = (0..16).map(|queue| QueueId::new(TopicName::new("orders").unwrap(), queue));
        let entries = queues.flat_map(|queue| {
            let found = self.log.entries(&queue, QueueOffset(0), 100);
            found.unwrap_or_default()
        });
        let records = entries.map(|entry| self.log.read(entry.position).unwrap().bytes);
        let key = |record: bytes::Bytes| {
            let view = RecordView::parse(&record).unwrap();
            view.properties.get("UNIQ_KEY").unwrap().to_owned()
        };
        records.map(key).collect()
    }
}

async fn last_actor(reader: &dyn TxReader, id: TransactionId) -> Actor {
    reader.events(id).await.unwrap().last().unwrap().actor
}

#[tokio::test]
async fn a_committed_order_is_published_and_a_dropped_one_never_appears() {
    let world = world().await;
    let producer = world.producer().await;
    let dropped = producer.begin(&world.pool, message()).await.unwrap();
    let never = dropped.id();
    drop(dropped);
    let tx = producer.begin(&world.pool, message()).await.unwrap();
    let id = tx.id();
    assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
    assert_eq!(world.decided(never).await.0, State::RolledBack);
    assert_eq!(world.published(), [id.to_string()]);
    world.broker.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn an_order_is_placed_and_taken_from_stock_once() {
    let world = world().await;
    let producer = world.producer().await;
    let tx = producer.begin(&world.pool, message()).await.unwrap();
    assert_eq!(tx.commit().await.unwrap(), Settled::Decided);

    let stock = double::pool(&world.folder, "stock.db").await;
    let inbox = Inbox::new(stock.clone(), "warehouse").unwrap();
    inbox.ensure_table().await.unwrap();
    sqlx::raw_sql("CREATE TABLE taken (number INTEGER)")
        .execute(&stock)
        .await
        .unwrap();
    let builder = Consumer::builder("warehouse").subscribe("orders", "placed || cancelled");
    let mut consumer = builder.attach(&world.broker).await.unwrap();
    let delivery = consumer.next().await.unwrap().unwrap();
    // Its acknowledgement is lost, so it comes twice.
    for first in [true, false] {
        match inbox.begin(&delivery).await.unwrap() {
            Entry::First(mut tx) => {
                assert!(first);
                let take = sqlx::query("INSERT INTO taken VALUES (10248)");
                take.execute(&mut *tx).await.unwrap();
                tx.commit().await.unwrap();
            }
            Entry::Duplicate => assert!(!first),
        }
    }
    delivery.ack();
    let taken: i64 = sqlx::query_scalar("SELECT count(*) FROM taken")
        .fetch_one(&stock)
        .await
        .unwrap();
    assert_eq!(taken, 1);
    producer.send(message()).await.unwrap();
    consumer.next().await.unwrap().unwrap().ack();
    consumer.close().await.unwrap();
    world.broker.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn another_instance_answers_for_a_producer_that_is_gone() {
    let world = world().await;
    let gone = world.producer().await;
    let mut tx = gone.begin(&world.pool, message()).await.unwrap();
    let committed = tx.id();
    // COMMIT reaches the database, and the process is gone before it can say so.
    sqlx::raw_sql("COMMIT").execute(&mut *tx).await.unwrap();
    let orphan = gone
        .half_in(world.identity().await, message())
        .await
        .unwrap();
    let never_begun = orphan.id();
    drop(orphan);
    std::mem::forget(tx);
    gone.close().await;

    let _other = world.producer().await;
    let by_marker = |state| (state, Actor::Marker);
    assert_eq!(world.decided(committed).await, by_marker(State::Committed));
    assert_eq!(
        world.decided(never_begun).await,
        by_marker(State::RolledBack)
    );
    assert_eq!(world.published(), [committed.to_string()]);
    world.broker.close(Duration::from_secs(5)).await.unwrap();
}

impl World {
    async fn identity(&self) -> crate::transaction::MarkerIdentity {
        let markers = Markers::new().add(self.pool.clone()).await.unwrap();
        markers.identities()[0]
    }
}
