//! What can go wrong around a local transaction, told one story at a time, against a coordinator that records.

use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use self::double::{Recorder, message};
use super::check_back::{Asked, CheckBackQueue};
use super::half::Settled;
use super::local::{CommitError, Transaction};
use super::producer::{Producer, RunError};
use crate::inbox::{Delivered, Inbox};
use crate::marker::databases::Markers;
use crate::marker::{Marker, MarkerError, MarkerStore};
use crate::transaction::{Actor, Resolution, State, TransactionId};

mod attached;
mod cancelled;
mod conflicts;
mod cut;
pub(crate) mod double;
mod on_postgres;
mod operator;
mod served;
mod stories;

/// One service with one database, connected to a recording coordinator.
struct Service {
    folder: TempDir,
    pool: SqlitePool,
    store: Arc<dyn MarkerStore>,
    coordinator: Arc<Recorder>,
    producer: Producer,
    asks: CheckBackQueue,
}

async fn service() -> Service {
    let folder = tempfile::tempdir().unwrap();
    let pool = double::pool(&folder, "orders.db").await;
    service_over(folder, pool).await
}

/// A service in the empty database behind `pool`, a file in `folder`.
async fn service_over(folder: TempDir, pool: SqlitePool) -> Service {
    execute(
        &pool,
        "CREATE TABLE orders (number INTEGER PRIMARY KEY, customer TEXT NOT NULL)",
    )
    .await;
    let markers = Markers::new().add(pool.clone()).await.unwrap();
    let store = Arc::clone(markers.get(markers.identities()[0]).unwrap());
    let coordinator = Recorder::new();
    let builder = Producer::builder("order-service").markers(markers);
    let (producer, asks) = coordinator.connect(builder).await;
    Service {
        folder,
        pool,
        store,
        coordinator,
        producer,
        asks,
    }
}

impl Service {
    async fn begin(&self) -> Transaction<sqlx::Sqlite> {
        self.producer.begin(&self.pool, message()).await.unwrap()
    }

    async fn orders(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM orders")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn check(&self, id: TransactionId) -> Resolution {
        self.coordinator.check(&self.asks, id).await.resolution
    }

    fn said_about(&self, id: TransactionId) -> Vec<(Resolution, Actor)> {
        self.coordinator.said_about(id)
    }
}

async fn execute(pool: &SqlitePool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

/// From now on every COMMIT with a marker in it is refused, or no longer.
async fn commits_with_markers_fail(pool: &SqlitePool, fail: bool) {
    let sql = if fail {
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);
         CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER refused AFTER INSERT ON halfmoon_marker BEGIN INSERT INTO child VALUES (1); END"
    } else {
        "DROP TRIGGER refused"
    };
    execute(pool, sql).await;
}

async fn place_order(tx: &mut Transaction<sqlx::Sqlite>) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO orders (number, customer) VALUES (10248, 'VINET')")
        .execute(&mut **tx)
        .await?;
    Ok(())
}

const PRODUCER_COMMIT: [(Resolution, Actor); 1] = [(Resolution::Commit, Actor::Producer)];
const PRODUCER_ROLLBACK: [(Resolution, Actor); 1] = [(Resolution::RollBack, Actor::Producer)];

#[tokio::test]
async fn order_and_message_are_committed_together() {
    let service = service().await;
    let mut tx = service.begin().await;
    let id = tx.id();
    sqlx::query("INSERT INTO orders (number, customer) VALUES (10248, 'VINET')")
        .execute(&mut *tx)
        .await
        .unwrap();
    assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
    assert_eq!(service.said_about(id), PRODUCER_COMMIT);
    assert_eq!(service.orders().await, 1);
    assert_eq!(service.store.read(id).await, Ok(Some(Marker::Committed)));
    let half = &service.coordinator.halves()[0];
    assert_eq!((half.id, half.marker), (id, Some(service.store.identity())));
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_and_says_so() {
    let service = service().await;
    let mut tx = service.begin().await;
    let id = tx.id();
    place_order(&mut tx).await.unwrap();
    drop(tx);
    service.producer.flush().await;
    assert_eq!(service.said_about(id), PRODUCER_ROLLBACK);
    assert_eq!(service.orders().await, 0);
    assert_eq!(service.check(id).await, Resolution::RollBack);
}

#[tokio::test]
async fn the_connection_of_a_rolled_back_transaction_goes_back_to_its_pool() {
    let service = service().await;
    for _ in 0..10 {
        drop(service.begin().await);
        assert_eq!(service.begin().await.roll_back().await, Settled::Decided);
    }
    assert!(service.pool.size() <= 4);
    assert_eq!(
        service.begin().await.commit().await.unwrap(),
        Settled::Decided
    );
}

#[tokio::test]
async fn story_9_a_transaction_that_was_undone_unnoticed_is_not_committed() {
    let service = service().await;
    let mut tx = service.begin().await;
    let id = tx.id();
    sqlx::raw_sql("ROLLBACK").execute(&mut *tx).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, CommitError::RolledBackBefore), "{error}");
    assert_eq!(service.said_about(id), PRODUCER_ROLLBACK);
    assert_eq!(
        service.begin().await.commit().await.unwrap(),
        Settled::Decided
    );
}

#[tokio::test]
async fn story_25_a_lock_that_anybody_holds_is_in_flight() {
    let service = service().await;
    service.coordinator.lose_next_half_answer();
    let lost = service.producer.begin(&service.pool, message()).await;
    assert!(lost.is_err());
    let orphan = service.coordinator.halves()[0].id;
    let writer = service.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(service.check(orphan).await, Resolution::InFlight);
    writer.rollback().await.unwrap();
    assert_eq!(service.check(orphan).await, Resolution::RollBack);
}

#[tokio::test]
async fn story_33_the_half_is_stored_while_the_database_is_locked() {
    let service = service().await;
    let lock = service.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let begin = service.producer.begin(&service.pool, message());
    let stored = async {
        while service.coordinator.halves().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let unlock = async {
        let stored = tokio::time::timeout(Duration::from_secs(60), stored).await;
        lock.rollback().await.unwrap();
        stored
    };
    let (begun, stored) = tokio::join!(begin, unlock);
    assert!(stored.is_ok(), "the half message waits for the lock");
    assert_eq!(begun.unwrap().commit().await.unwrap(), Settled::Decided);
}

#[tokio::test]
async fn a_begin_that_is_cancelled_rolls_its_half_message_back() {
    let service = service().await;
    let lock = service.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let begin = service.producer.begin(&service.pool, message());
    let stored = async {
        while service.coordinator.halves().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        begun = begin => panic!("the database is locked: {begun:?}"),
        () = stored => {}
    }
    lock.rollback().await.unwrap();
    service.producer.flush().await;
    let id = service.coordinator.halves()[0].id;
    // Dropped before the half message's answer was seen, it is left to the check-back instead.
    assert!(matches!(
        service.said_about(id)[..],
        [] | [(Resolution::RollBack, Actor::Producer)]
    ));
    assert_eq!(service.check(id).await, Resolution::RollBack);
}

#[tokio::test]
async fn a_commit_goes_on_when_its_caller_stops_waiting() {
    let service = service().await;
    let mut tx = service.begin().await;
    let id = tx.id();
    place_order(&mut tx).await.unwrap();
    {
        let mut commit = std::pin::pin!(tx.commit());
        std::future::poll_fn(|context| {
            let _ = commit.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    service.producer.flush().await;
    assert_eq!(service.said_about(id), PRODUCER_COMMIT);
    assert_eq!(service.orders().await, 1);
}

#[tokio::test]
async fn a_refused_commit_is_an_error_and_the_check_back_settles_it() {
    let service = service().await;
    execute(
        &service.pool,
        "CREATE TABLE lines (number INTEGER REFERENCES orders (number) DEFERRABLE INITIALLY DEFERRED)",
    )
    .await;
    let mut tx = service.begin().await;
    let id = tx.id();
    sqlx::query("INSERT INTO lines VALUES (99)")
        .execute(&mut *tx)
        .await
        .unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, CommitError::Refused(_)), "{error}");
    assert_eq!(
        service.said_about(id),
        [],
        "COMMIT was issued, so nothing is said"
    );
    assert_eq!(service.check(id).await, Resolution::RollBack);
}

#[tokio::test]
async fn an_unreachable_coordinator_defers_and_the_marker_tells_later() {
    let service = service().await;
    let tx = service.begin().await;
    let id = tx.id();
    service.coordinator.set_unreachable(true);
    assert!(matches!(tx.commit().await.unwrap(), Settled::Deferred(_)));
    service.coordinator.set_unreachable(false);
    let said = service.coordinator.check(&service.asks, id).await;
    assert_eq!(
        (said.resolution, said.actor),
        (Resolution::Commit, Actor::Marker)
    );
    assert_eq!(said.evidence, "marker=committed");
}

#[tokio::test]
async fn a_commit_that_somebody_contradicted_says_who() {
    let service = service().await;
    let tx = service.begin().await;
    let half = service.coordinator.question(tx.id());
    let forced = super::endpoint::Resolve {
        id: half.id,
        group: half.group,
        position: half.position,
        queue_offset: half.queue_offset,
        resolution: Resolution::RollBack,
        actor: Actor::OperatorForced,
        evidence: "ticket 7".into(),
        source: "console".into(),
        broker: None,
    };
    super::endpoint::Endpoint::resolve(&*service.coordinator, forced)
        .await
        .unwrap();
    let Settled::Contradicted(verdict) = tx.commit().await.unwrap() else {
        panic!("the operator was first");
    };
    assert_eq!(
        (verdict.state, verdict.actor),
        (State::RolledBack, Actor::OperatorForced)
    );
}

#[tokio::test]
async fn a_pool_that_was_not_added_is_refused_before_anything_is_sent() {
    let service = service().await;
    let other = double::pool(&service.folder, "other.db").await;
    let error = service.producer.begin(&other, message()).await.unwrap_err();
    assert!(error.to_string().contains("Markers::add"), "{error}");
    // Its twin has the same identity and is another file all the same.
    execute(&service.pool, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let copy = service.folder.path().join("copy.db");
    std::fs::copy(service.folder.path().join("orders.db"), copy).unwrap();
    let copy = double::pool(&service.folder, "copy.db").await;
    let error = service.producer.begin(&copy, message()).await.unwrap_err();
    assert!(
        error.to_string().contains("copy.db is not among"),
        "{error}"
    );
    assert!(service.coordinator.halves().is_empty());
    // A second pool on the same file is the same database.
    let same = double::pool(&service.folder, "orders.db").await;
    let tx = service.producer.begin(&same, message()).await.unwrap();
    assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
}

#[tokio::test]
async fn markers_go_once_their_decision_is_confirmed_and_not_before() {
    let service = service().await;
    let markers = Markers::new().add(service.pool.clone()).await.unwrap();
    let builder = Producer::builder("order-service")
        .markers(markers)
        .keep_markers(Duration::ZERO);
    let (producer, asks) = service.coordinator.connect(builder).await;
    let tx = producer.begin(&service.pool, message()).await.unwrap();
    let confirmed = tx.id();
    assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
    let tx = producer.begin(&service.pool, message()).await.unwrap();
    let deferred = tx.id();
    service.coordinator.set_unreachable(true);
    assert!(matches!(tx.commit().await.unwrap(), Settled::Deferred(_)));
    service.coordinator.set_unreachable(false);

    // The producer's own task may have taken it up a moment before.
    while service.store.read(confirmed).await != Ok(None) {
        producer.prune_now().await;
        tokio::task::yield_now().await;
    }
    let stands = service.store.read(deferred).await;
    assert_eq!(stands, Ok(Some(Marker::Committed)));
    let said = service.coordinator.check(&asks, deferred).await;
    assert_eq!(said.resolution, Resolution::Commit);
    // The answer is confirmed right after it was recorded.
    while service.store.read(deferred).await != Ok(None) {
        producer.prune_now().await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_check_back_for_another_database_plants_nothing() {
    let service = service().await;
    let id = TransactionId::new(1, 1);
    let elsewhere = crate::transaction::MarkerIdentity(42);
    service
        .asks
        .ask(double::asked(id, 0, Some(elsewhere)))
        .unwrap();
    while service.said_about(id).is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        service.said_about(id),
        [(Resolution::Unknown, Actor::Marker)]
    );
    assert_eq!(service.store.read(id).await, Ok(None));
}

#[tokio::test]
async fn shards_answer_each_for_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let shards = [
        double::pool(&folder, "0.db").await,
        double::pool(&folder, "1.db").await,
    ];
    let markers = Markers::new().add(shards[0].clone()).await.unwrap();
    let markers = markers.add(shards[1].clone()).await.unwrap();
    let identities = markers.identities();
    let coordinator = Recorder::new();
    let builder = Producer::builder("order-service").markers(markers);
    let (producer, asks) = coordinator.connect(builder).await;
    for (shard, identity) in shards.iter().zip(&identities) {
        let tx = producer.begin(shard, message()).await.unwrap();
        let id = tx.id();
        assert_eq!(coordinator.halves().last().unwrap().marker, Some(*identity));
        assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
        assert_eq!(
            coordinator.check(&asks, id).await.resolution,
            Resolution::Commit
        );
    }
}

#[tokio::test]
async fn a_service_without_sql_answers_for_itself() {
    let coordinator = Recorder::new();
    let builder = Producer::builder("order-service").check_back(|asked: Asked| async move {
        assert_eq!(asked.message.topic(), "orders");
        assert_eq!(asked.message.tag(), Some("placed"));
        assert_eq!(asked.message.keys().collect::<Vec<_>>(), ["10248", "VINET"]);
        assert_eq!(asked.message.body(), b"order 10248");
        Resolution::Commit
    });
    let (producer, asks) = coordinator.connect(builder).await;
    let half = producer.half(message()).await.unwrap();
    let id = half.id();
    let said = coordinator.check(&asks, id).await;
    assert_eq!(
        said.resolution,
        Resolution::InFlight,
        "the handle is held here"
    );
    drop(half);
    let said = coordinator.check(&asks, id).await;
    assert_eq!(
        (said.resolution, said.actor),
        (Resolution::Commit, Actor::CheckBack)
    );

    let half = producer.half(message()).await.unwrap();
    assert_eq!(half.roll_back().await, Settled::Decided);
    let half = producer.half(message()).await.unwrap();
    assert_eq!(half.commit().await, Settled::Decided);
}

#[tokio::test]
async fn the_work_of_a_closure_is_committed_or_rolled_back() {
    let service = service().await;
    let (number, settled) = service
        .producer
        .run(&service.pool, message(), |tx| {
            Box::pin(async move {
                place_order(tx).await?;
                Ok::<_, sqlx::Error>(10248)
            })
        })
        .await
        .unwrap();
    assert_eq!((number, settled), (10248, Settled::Decided));
    let error = service
        .producer
        .run(&service.pool, message(), |tx| {
            Box::pin(place_order_twice(tx))
        })
        .await
        .unwrap_err();
    assert!(
        matches!(error, RunError::Work(sqlx::Error::Database(_))),
        "{error}"
    );
    assert_eq!(service.orders().await, 1);
    let failed = service.coordinator.halves()[1].id;
    assert_eq!(service.said_about(failed), PRODUCER_ROLLBACK);
}

async fn place_order_twice(tx: &mut Transaction<sqlx::Sqlite>) -> Result<(), sqlx::Error> {
    place_order(tx).await
}

struct Order(&'static str);

impl Delivered for Order {
    fn message_key(&self) -> &str {
        self.0
    }
}

#[tokio::test]
async fn a_message_received_and_the_message_sent_in_answer_stand_together() {
    let service = service().await;
    let inbox = Inbox::new(service.pool.clone(), "stock").unwrap();
    inbox.ensure_table().await.unwrap();
    for (rolls_back, first) in [(true, true), (false, true), (false, false)] {
        let mut tx = service.begin().await;
        assert_eq!(
            inbox.enter(&mut tx, &Order("order 10248")).await.unwrap(),
            first
        );
        if rolls_back || !first {
            assert_eq!(tx.roll_back().await, Settled::Decided);
        } else {
            assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
        }
    }
}

#[tokio::test]
async fn a_database_that_could_lose_commits_or_is_the_coordinators_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let add = |pool| Markers::new().add(pool);
    let refused = |added: Result<Markers, MarkerError>, word: &str| {
        let error = added.unwrap_err();
        assert!(matches!(error, MarkerError::Refused(_)), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    let careless = SqliteConnectOptions::new()
        .filename(folder.path().join("careless.db"))
        .create_if_missing(true)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Normal);
    refused(
        add(SqlitePool::connect_with(careless).await.unwrap()).await,
        "synchronous=1",
    );
    refused(
        add(SqlitePool::connect("sqlite::memory:").await.unwrap()).await,
        "in memory",
    );
    let coordinators = double::pool(&folder, "coordinator.db").await;
    execute(&coordinators, "PRAGMA application_id = 0x484D7478").await;
    refused(add(coordinators).await, "coordinator's own");
}

#[tokio::test]
async fn a_copied_database_is_refused_beside_its_original() {
    let service = service().await;
    execute(&service.pool, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let at = |name: &str| service.folder.path().join(name);
    std::fs::copy(at("orders.db"), at("copy.db")).unwrap();
    let copy = double::pool(&service.folder, "copy.db").await;
    let markers = Markers::new().add(service.pool.clone()).await.unwrap();
    let error = markers.clone().add(copy.clone()).await.unwrap_err();
    assert!(error.to_string().contains("copy of the other"), "{error}");
    let error = markers.clone().add(service.pool.clone()).await.unwrap_err();
    assert!(error.to_string().contains("add it once"), "{error}");
    // What the message says to do helps.
    execute(
        &copy,
        "UPDATE halfmoon_marker_table SET identity = randomblob(16)",
    )
    .await;
    assert_eq!(markers.add(copy).await.unwrap().identities().len(), 2);
}

/// Handlers of a web framework must be `Send` as a whole.
#[test]
fn everything_a_service_awaits_is_send() {
    fn assert_send<T: Send>(_: &T) {}
    async fn handler(producer: Producer, pool: SqlitePool, inbox: Inbox<sqlx::Sqlite>) {
        let mut tx = producer.begin(&pool, message()).await.unwrap();
        place_order(&mut tx).await.unwrap();
        inbox.enter(&mut tx, &Order("a")).await.unwrap();
        let _ = tx.commit().await.unwrap();
        let done = producer
            .run(&pool, message(), |tx| Box::pin(place_order_twice(tx)))
            .await;
        let _ = done.map_err(|_| ());
        let _ = inbox.begin(&Order("b")).await.unwrap();
        let _ = producer.half(message()).await.unwrap().commit().await;
    }
    let check = |producer, pool, inbox| assert_send(&handler(producer, pool, inbox));
    let _ = check;
}
