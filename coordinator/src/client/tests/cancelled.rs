//! Local transactions that are cancelled at any await point, while another instance answers check-backs about them: order
//! and decision agree every time.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use mq_core::message::Message;
use mq_core::random::{Random, SeededRandom};
use sqlx::SqlitePool;

use super::double::{self, Recorder};
use crate::client::Producer;
use crate::client::check_back::CheckBackQueue;
use crate::marker::databases::Markers;
use crate::transaction::{Resolution, State, TransactionId};

const TRANSACTIONS: u64 = 120;

#[derive(Debug, Clone, Copy)]
enum Ending {
    Commit,
    RollBack,
    Drop,
}

async fn place(producer: Producer, pool: SqlitePool, number: i64, ending: Ending) {
    let message = Message::builder("orders").key(number.to_string()).build();
    let Ok(mut tx) = producer.begin(&pool, message.unwrap()).await else {
        return;
    };
    let insert = sqlx::query("INSERT INTO orders (number) VALUES (?1)").bind(number);
    insert.execute(&mut *tx).await.unwrap();
    // However it is settled: the check at the end compares what stands.
    let _ = match ending {
        Ending::Commit => tx.commit().await.ok(),
        Ending::RollBack => Some(tx.roll_back().await),
        Ending::Drop => None,
    };
}

/// Polls `work` so many times, then drops it.
async fn poll_at_most(work: impl Future<Output = ()>, times: u64) {
    let mut work = pin!(work);
    let mut left = times;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        work.as_mut().poll(context)
    })
    .await;
}

async fn instance(coordinator: &Arc<Recorder>, pool: &SqlitePool) -> (Producer, CheckBackQueue) {
    let markers = Markers::new().add(pool.clone()).await.unwrap();
    let builder = Producer::builder("order-service").markers(markers);
    coordinator.connect(builder).await
}

async fn run(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let pool = double::pool(&folder, "orders.db").await;
    let table = sqlx::raw_sql("CREATE TABLE orders (number INTEGER PRIMARY KEY)");
    table.execute(&pool).await.unwrap();
    let coordinator = Recorder::new();
    let (producer, own) = instance(&coordinator, &pool).await;
    let (_other, others) = instance(&coordinator, &pool).await;

    let random = SeededRandom::new(seed);
    let mut running = tokio::task::JoinSet::new();
    for number in 0..TRANSACTIONS {
        let ending = match random.next_u64() % 5 {
            0..3 => Ending::Commit,
            3 => Ending::RollBack,
            _ => Ending::Drop,
        };
        let work = place(producer.clone(), pool.clone(), number as i64, ending);
        let times = match random.next_u64() % 3 {
            0 => u64::MAX,
            _ => random.next_u64() % 16,
        };
        running.spawn(poll_at_most(work, times));
        let halves = coordinator.halves();
        if let Some(last) = halves
            .last()
            .filter(|_| random.next_u64().is_multiple_of(4))
        {
            // Full or not: a check-back may be lost.
            let _ = others.ask(coordinator.question(last.id));
        }
        if random.next_u64().is_multiple_of(3) {
            running.join_next().await;
        }
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    producer.flush().await;
    check(&coordinator, &own, &pool).await;
}

/// What was decided about each transaction, after check-backs have settled the rest, is what stands in the database.
async fn check(coordinator: &Recorder, own: &CheckBackQueue, pool: &SqlitePool) {
    let mut numbers: HashMap<TransactionId, i64> = HashMap::new();
    for half in coordinator.halves() {
        let number = half.message.properties().get("KEYS").unwrap();
        numbers.insert(half.id, number.parse().unwrap());
        loop {
            let answer = coordinator.check(own, half.id).await.resolution;
            if !matches!(answer, Resolution::InFlight) {
                assert_ne!(answer, Resolution::Unknown);
                break;
            }
        }
    }
    for (id, number) in numbers {
        let stands: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM orders WHERE number = ?1)")
                .bind(number)
                .fetch_one(pool)
                .await
                .unwrap();
        let committed = coordinator.decision_of(id) == Some(State::Committed);
        assert_eq!(committed, stands, "transaction {id}, order {number}");
    }
    assert_eq!(coordinator.contradictions(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_cancelled_order_and_decision_agree() {
    for seed in 1..=4 {
        run(seed).await;
    }
}
