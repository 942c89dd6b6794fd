//! An operator's word about a parked transaction whose local one is still open, beside a real coordinator.

use std::sync::Arc;
use std::time::Duration;

use mq_core::broker::{self, Broker};
use mq_core::clock::{Clock, SystemClock};
use mq_core::log::LogId;
use mq_core::log::memory::MemoryLog;
use mq_core::random::SystemRandom;
use sqlx::{Pool, Postgres, Sqlite};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::double::{self, message};
use crate::audit::Step;
use crate::client::Producer;
use crate::client::endpoint::Outcome;
use crate::client::local::Transaction;
use crate::client::producer::BeginError;
use crate::engine::Coordinator;
use crate::engine::operate::OperateError;
use crate::engine::settings::Settings;
use crate::marker::database::LocalDatabase;
use crate::marker::databases::Markers;
use crate::store::model::Model;
use crate::store::{Filter, Row};
use crate::transaction::{Actor, Decision, State, TransactionId};

/// How long anything that must happen may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// Takes the marker table away, so that a check-back is answered with UNKNOWN.
const AWAY: &str = "ALTER TABLE halfmoon_marker RENAME TO away";
const BACK: &str = "ALTER TABLE away RENAME TO halfmoon_marker";

/// A service in a database of its own, and a coordinator that parks a transaction after one UNKNOWN.
struct World<DB: LocalDatabase> {
    broker: Broker,
    coordinator: Coordinator,
    /// Of the instances that are well.
    pool: Pool<DB>,
    /// Of one with no connection to spare.
    narrow: Pool<DB>,
    _folder: Option<TempDir>,
}

impl<DB: LocalDatabase> World<DB> {
    async fn over(pool: Pool<DB>, narrow: Pool<DB>, folder: Option<TempDir>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let log = Arc::new(MemoryLog::new(LogId(1), clock.clone()));
        let mut settings = Settings::default();
        settings.check_back.grace = Duration::from_millis(20);
        settings.check_back.budget = 1;
        let coordinator = Coordinator::new(Arc::new(Model::new()), settings);
        let parts = broker::Parts {
            log,
            clock,
            random: Arc::new(SystemRandom),
            extensions: vec![Arc::new(coordinator.clone())],
        };
        let broker = Broker::open(broker::Settings::default(), parts).await;
        Self {
            broker: broker.unwrap(),
            coordinator,
            pool,
            narrow,
            _folder: folder,
        }
    }

    async fn producer(&self, pool: &Pool<DB>) -> Producer {
        let markers = Markers::new().add(pool.clone()).await.unwrap();
        let builder = Producer::builder("order-service").markers(markers);
        builder.attach(&self.coordinator).await.unwrap()
    }

    /// Waits for a row of which this holds.
    async fn row(&self, what: &str, is_so: impl Fn(&Row) -> bool) -> Row {
        let waits = async {
            loop {
                let all = Filter {
                    limit: 10,
                    ..Filter::default()
                };
                let rows = self.coordinator.reader().list(&all).await.unwrap();
                if let Some(row) = rows.into_iter().find(&is_so) {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(WITHIN, waits).await;
        in_time.unwrap_or_else(|_| panic!("it never happens: {what}"))
    }

    /// Who decided it.
    async fn decided_by(&self, id: TransactionId) -> Option<Actor> {
        let events = self.coordinator.reader().events(id).await.unwrap();
        let decides = |step| matches!(step, Step::Committed | Step::RolledBack);
        let decision = events.into_iter().find(|event| decides(event.to));
        decision.map(|event| event.actor)
    }

    async fn rolls_back(&self, id: TransactionId) -> Result<Outcome, OperateError> {
        let coordinator = &self.coordinator;
        coordinator
            .decide_for(id, Decision::RollBack, "ann", false)
            .await
    }
}

type Beginning<DB> = JoinHandle<Result<Transaction<DB>, BeginError>>;

/// The half message of an instance is stored. Before its local transaction has begun the instance loses its connection to
/// the server, and another one that cannot read the marker table has the transaction parked.
async fn parked<DB: LocalDatabase>(
    world: &World<DB>,
    first: Producer,
    other: &Producer,
) -> (TransactionId, Beginning<DB>) {
    let beginning = tokio::spawn({
        let (first, narrow) = (first.clone(), world.narrow.clone());
        async move { first.begin(&narrow, message()).await }
    });
    let row = world.row("it is stored", |_| true).await;
    let id = row.half.id;
    first.close().await;
    world
        .row("it is parked", |row| row.state == State::Parked)
        .await;
    assert!(!beginning.is_finished(), "it waits for a connection");
    assert_eq!(other.group().as_str(), "order-service");
    (id, beginning)
}

async fn fenced<DB: LocalDatabase>(begun: Beginning<DB>, id: TransactionId) {
    let begun = tokio::time::timeout(WITHIN, begun).await.unwrap().unwrap();
    let fenced = matches!(begun, Err(BeginError::Fenced(fenced)) if fenced == id);
    assert!(fenced, "{begun:?}");
}

/// Tells each story twice.
macro_rules! on_both_databases {
    ($(async fn $story:ident() $told:block)+) => {
        mod on_sqlite {
            use super::*;
            async fn world() -> World<Sqlite> {
                let folder = tempfile::tempdir().unwrap();
                let pool = double::pool(&folder, "orders.db").await;
                let options = (*pool.connect_options()).clone();
                let narrow = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
                let narrow = narrow.connect_with(options).await.unwrap();
                World::over(pool, narrow, Some(folder)).await
            }
            $(#[tokio::test] async fn $story() $told)+
        }
        mod on_postgres {
            use super::*;
            async fn world() -> World<Postgres> {
                let pool = private_postgres::pool().await;
                let options = (*pool.connect_options()).clone();
                let narrow = sqlx::postgres::PgPoolOptions::new().max_connections(1);
                let narrow = narrow.connect_with(options).await.unwrap();
                World::over(pool, narrow, None).await
            }
            $(#[tokio::test] async fn $story() $told)+
        }
    };
}

on_both_databases! {
    async fn story_31_an_operators_rollback_of_a_parked_transaction_fences_its_local_one() {
        let world = world().await;
        let (first, other) = (world.producer(&world.narrow).await, world.producer(&world.pool).await);
        let taken = world.narrow.acquire().await.unwrap();
        sqlx::raw_sql(AWAY).execute(&world.pool).await.unwrap();
        let (id, beginning) = parked(&world, first, &other).await;
        sqlx::raw_sql(BACK).execute(&world.pool).await.unwrap();
        assert_eq!(world.rolls_back(id).await, Ok(Outcome::AlreadyTheSame));
        let row = world.coordinator.find(id).await.unwrap().unwrap();
        assert_eq!(row.state, State::RolledBack);
        let by = world.decided_by(id).await;
        assert_eq!(by, Some(Actor::Marker), "not the operator");
        // Only now the local transaction gets its connection: it ends at its first write.
        drop(taken);
        fenced(beginning, id).await;
        let left = "SELECT CAST(max(value) AS integer) FROM halfmoon_marker";
        let left: i32 = sqlx::query_scalar(left).fetch_one(&world.pool).await.unwrap();
        assert_eq!(left, 0, "the tombstone and nothing else");
        other.close().await;
        world.broker.close(Duration::from_secs(5)).await.unwrap();
    }

    async fn story_31_an_operators_rollback_of_what_is_committed_is_refused() {
        let world = world().await;
        let (first, other) = (world.producer(&world.narrow).await, world.producer(&world.pool).await);
        let taken = world.narrow.acquire().await.unwrap();
        sqlx::raw_sql(AWAY).execute(&world.pool).await.unwrap();
        let (id, beginning) = parked(&world, first, &other).await;
        sqlx::raw_sql(BACK).execute(&world.pool).await.unwrap();
        drop(taken);
        let mut local = beginning.await.unwrap().unwrap();
        // COMMIT reaches the database, and the process cannot say so any more.
        sqlx::raw_sql("COMMIT").execute(&mut *local).await.unwrap();
        let outcome = world.rolls_back(id).await;
        let refused = matches!(&outcome, Ok(Outcome::AlreadyOtherwise(verdict))
            if verdict.state == State::Committed && verdict.actor == Actor::Marker);
        assert!(refused, "{outcome:?}");
        std::mem::forget(local);
        other.close().await;
        world.broker.close(Duration::from_secs(5)).await.unwrap();
    }
}
