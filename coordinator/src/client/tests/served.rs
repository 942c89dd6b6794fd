//! Producers whose coordinator is behind a socket: half messages, resolutions and check-backs over the network.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use mq_core::broker::{self, Broker};
use mq_core::client::Consumer;
use mq_core::clock::{Clock, SystemClock};
use mq_core::log::memory::MemoryLog;
use mq_core::log::{Log, LogId};
use mq_core::message::Message;
use mq_core::nameserver::{Nameserver, NameserverService};
use mq_core::random::SystemRandom;
use mq_core::remoting::client::{Connection, Limits};
use mq_core::remoting::listener::Listener;
use mq_core::serving::registration::Registration;
use mq_core::serving::{BrokerService, Presence};
use mq_core::wire::codes::request;
use mq_core::wire::command::Command;
use mq_core::wire::heartbeat::{Heartbeat, Native};
use sqlx::SqlitePool;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::double::{self, message};
use crate::client::Producer;
use crate::client::check_back::Asked;
use crate::client::endpoint::HalfRequest;
use crate::client::half::Settled;
use crate::client::requests;
use crate::engine::Coordinator;
use crate::engine::settings::Settings;
use crate::inbox::{Entry, Inbox};
use crate::marker::databases::Markers;
use crate::store::model::Model;
use crate::transaction::{
    Actor, Decision, Incarnation, MarkerIdentity, Resolution, State, TransactionId,
};

const SOON: Duration = Duration::from_secs(30);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A listener that can be closed while what is behind it goes on.
struct Served {
    address: SocketAddrV4,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Served {
    async fn broker(broker: &Broker, at: SocketAddrV4) -> (Self, Presence) {
        let listener = Listener::bind(at).await.unwrap();
        let SocketAddr::V4(address) = listener.address().unwrap() else {
            panic!("bound to IPv4")
        };
        let presence = Presence {
            cluster: "c".into(),
            name: "broker-a".into(),
            advertised: address,
        };
        let service = BrokerService::new(broker.clone(), presence.clone());
        let stop = watch::Sender::new(false);
        let task = tokio::spawn(listener.serve(service, stop.subscribe()));
        let served = Self {
            address,
            stop,
            task,
        };
        (served, presence)
    }

    /// Closes all connections; returns where it was.
    async fn close(self) -> SocketAddrV4 {
        self.stop.send_replace(true);
        self.task.await.unwrap();
        self.address
    }
}

struct World {
    folder: tempfile::TempDir,
    pool: SqlitePool,
    broker: Broker,
    coordinator: Coordinator,
    nameserver: String,
    served: Served,
    _registration: Registration,
    _stop: watch::Sender<bool>,
}

async fn world() -> World {
    world_with_grace(Duration::from_millis(20)).await
}

async fn world_with_grace(grace: Duration) -> World {
    let folder = tempfile::tempdir().unwrap();
    let pool = double::pool(&folder, "orders.db").await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new(LogId(1), clock.clone()));
    let mut settings = Settings::default();
    settings.check_back.grace = grace;
    settings.check_back.immunity = Duration::from_millis(20);
    let coordinator = Coordinator::new(Arc::new(Model::new()), settings);
    let parts = broker::Parts {
        log,
        clock: clock.clone(),
        random: Arc::new(SystemRandom),
        extensions: vec![Arc::new(coordinator.clone())],
    };
    let broker = Broker::open(broker::Settings::default(), parts)
        .await
        .unwrap();
    let free = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let listener = Listener::bind(free).await.unwrap();
    let nameserver = listener.address().unwrap().to_string();
    let stop = watch::Sender::new(false);
    let service = NameserverService::new(Nameserver::new(clock));
    tokio::spawn(listener.serve(service, stop.subscribe()));
    let (served, presence) = Served::broker(&broker, free).await;
    let addresses = [nameserver.clone()];
    let mut registration = Registration::start(&broker, &presence, &addresses);
    registration.tried().await;
    World {
        folder,
        pool,
        broker,
        coordinator,
        nameserver,
        served,
        _registration: registration,
        _stop: stop,
    }
}

impl World {
    async fn producer(&self) -> Producer {
        let markers = Markers::new().add(self.pool.clone()).await.unwrap();
        let builder = Producer::builder("order-service").markers(markers);
        builder.connect(&self.nameserver).await.unwrap()
    }

    async fn consumer(&self) -> Consumer {
        let builder = Consumer::builder("warehouse").subscribe("orders", "placed || cancelled");
        builder.connect(&self.nameserver).await.unwrap()
    }

    /// Waits until somebody has decided, and says what and who.
    async fn decided(&self, id: TransactionId) -> (State, Actor) {
        let decided = async {
            loop {
                let row = self.coordinator.find(id).await.unwrap();
                if let Some(row) = row.filter(|row| row.state.is_decided()) {
                    return row.state;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let state = tokio::time::timeout(SOON, decided).await.unwrap();
        let events = self.coordinator.reader().events(id).await.unwrap();
        (state, events.last().unwrap().actor)
    }

    async fn identity(&self) -> MarkerIdentity {
        let markers = Markers::new().add(self.pool.clone()).await.unwrap();
        markers.identities()[0]
    }
}

#[tokio::test]
async fn a_committed_order_reaches_its_consumer_with_its_trace_and_a_dropped_one_never() {
    let world = world().await;
    let (producer, mut consumer) = (world.producer().await, world.consumer().await);
    let dropped = producer.begin(&world.pool, message()).await.unwrap();
    let never = dropped.id();
    drop(dropped);
    let traced = Message::builder("orders").tag("placed").key("10248");
    let traced = traced.property("traceparent", TRACE).body("order 10248");
    let traced = traced.build().unwrap();
    let tx = producer.begin(&world.pool, traced).await.unwrap();
    let id = tx.id().to_string();
    assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
    assert_eq!(world.decided(never).await.0, State::RolledBack);

    let stock = double::pool(&world.folder, "stock.db").await;
    let inbox = Inbox::new(stock.clone(), "warehouse").unwrap();
    inbox.ensure_table().await.unwrap();
    for times in [0, 1] {
        let next = tokio::time::timeout(SOON, consumer.next()).await.unwrap();
        let delivery = next.unwrap().unwrap();
        assert_eq!(&delivery.body()[..], b"order 10248");
        assert_eq!(delivery.unique_key(), Some(&*id));
        assert_eq!(delivery.reconsume_times(), times);
        let properties = delivery.properties();
        assert_eq!(properties.get("traceparent"), Some(TRACE));
        assert_eq!(properties.get("HM_MARKER"), None);
        match inbox.begin(&delivery).await.unwrap() {
            Entry::First(tx) => {
                assert_eq!(times, 0);
                tx.commit().await.unwrap();
                delivery.retry_later(1);
            }
            Entry::Duplicate => {
                assert_eq!(times, 1, "the inbox knows it although it is another copy");
                delivery.ack();
            }
        }
    }
    consumer.close().await.unwrap();
    producer.close().await;
    assert_eq!(producer.group().as_str(), "order-service");
}

#[tokio::test]
async fn a_server_confirms_the_commits_that_it_has_and_no_others() {
    let world = world().await;
    let producer = world.producer().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let tx = producer.begin(&world.pool, message()).await.unwrap();
        ids.push(tx.id());
        assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
    }
    let rolled_back = producer.begin(&world.pool, message()).await.unwrap();
    let open = producer.begin(&world.pool, message()).await;
    let mut asked = vec![rolled_back.id(), TransactionId::new(1, 1)];
    assert_eq!(rolled_back.roll_back().await, Settled::Decided);
    asked.extend(open.as_ref().map(|open| open.id()).ok());
    asked.extend(&ids);
    let mut committed = producer.confirmed(&asked).await;
    committed.sort_unstable();
    assert_eq!(committed, ids);
    assert_eq!(producer.confirmed(&vec![ids[0]; 513]).await, []);
    world.served.close().await;
    assert_eq!(producer.confirmed(&asked).await, [], "nobody can say");
}

#[tokio::test]
async fn a_commit_that_somebody_contradicted_says_who_and_when() {
    let world = world().await;
    let producer = world.producer().await;
    let tx = producer.begin(&world.pool, message()).await.unwrap();
    world.coordinator.write_held().await.unwrap();
    let force = world
        .coordinator
        .decide_for(tx.id(), Decision::RollBack, "ticket 7", true);
    force.await.unwrap();
    let id = tx.id();
    let Settled::Contradicted(verdict) = tx.commit().await.unwrap() else {
        panic!("the operator was first");
    };
    assert_eq!(
        (verdict.state, verdict.actor),
        (State::RolledBack, Actor::OperatorForced)
    );
    let row = world.coordinator.find(id).await.unwrap().unwrap();
    assert_eq!(row.contradictions, 1);
}

#[tokio::test]
async fn a_connection_that_is_lost_defers_the_commit_and_the_marker_decides_it() {
    let mut world = world().await;
    let (producer, mut consumer) = (world.producer().await, world.consumer().await);
    let running = producer.begin(&world.pool, message()).await.unwrap();
    let still = running.id();
    let tx = producer
        .begin(&world.folder_pool("more.db").await, message())
        .await;
    assert!(tx.is_err(), "a database that was not added");
    let at = world.served.close().await;
    let error = producer.half(message()).await.unwrap_err();
    assert!(error.to_string().contains(&at.to_string()), "{error}");
    let Settled::Deferred(why) = running.commit().await.unwrap() else {
        panic!("nobody could be told");
    };
    assert!(why.contains(&at.to_string()), "{why}");
    let (served, _) = Served::broker(&world.broker, at).await;
    world.served = served;
    assert_eq!(
        world.decided(still).await,
        (State::Committed, Actor::Marker)
    );
    let next = tokio::time::timeout(SOON, consumer.next()).await.unwrap();
    let delivery = next.unwrap().unwrap();
    assert_eq!(delivery.unique_key(), Some(&*still.to_string()));
    delivery.ack();
}

#[tokio::test]
async fn a_connection_that_is_lost_and_back_rolls_back_nothing_that_lives() {
    let mut world = world_with_grace(Duration::from_secs(5)).await;
    let (producer, other) = (world.producer().await, world.producer().await);
    let half = producer.half_in(world.identity().await, message());
    let half = half.await.unwrap();
    let id = half.id();
    world.coordinator.write_held().await.unwrap();
    let at = world.served.close().await;
    let (served, _) = Served::broker(&world.broker, at).await;
    world.served = served;
    while world.broker.clients().producers(other.group()).len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.coordinator.ask_again(id, "test").await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Whoever else was asked would have planted a tombstone: its own process says that it still runs.
    assert_eq!(half.commit().await, Settled::Decided);
}

#[tokio::test]
async fn another_instance_answers_for_a_process_that_is_gone() {
    let world = world().await;
    let survivor = world.producer().await;
    let marker = world.identity().await;
    let gone = Connection::open(world.served.address, Limits::default())
        .await
        .unwrap();
    let heartbeat = Heartbeat {
        client_id: "gone@1".into(),
        producer_groups: vec!["order-service".into()],
        native: Some(Native {
            incarnation: 99,
            answers_for: vec![marker.0],
        }),
        ..Heartbeat::default()
    };
    let said = Command {
        body: heartbeat.to_json().to_string().into(),
        ..Command::request(request::HEART_BEAT, 0)
    };
    assert_eq!(gone.call(said, SOON).await.unwrap().code, 0);
    let id = TransactionId::new(1_700_000_000_000, 77);
    let half = HalfRequest {
        id,
        group: survivor.group().clone(),
        message: message(),
        queue: None,
        sender: Incarnation(99),
        marker: Some(marker),
        immunity: Some(Duration::from_secs(600)),
    };
    let queue = mq_core::client::MessageQueue {
        topic: half.message.topic().clone(),
        broker: "broker-a".into(),
        number: 0,
    };
    let properties = requests::half_properties(&half);
    let command = requests::half(&half, &properties, &queue, 1);
    let answer = gone.call(command, SOON).await.unwrap();
    let receipt = requests::receipt(id, &answer, &queue).unwrap();
    assert_eq!((receipt.id, receipt.queue), (id, 0));
    drop(gone);
    assert_eq!(world.decided(id).await, (State::RolledBack, Actor::Marker));
}

#[tokio::test]
async fn a_service_without_sql_is_asked_and_says_what_became_of_its_half_message() {
    let world = world().await;
    let check = |asked: Asked| async move {
        assert_eq!(asked.message.body(), b"order 10248");
        assert_eq!(asked.broker.as_deref(), Some("broker-a"));
        Resolution::Commit
    };
    let builder = Producer::builder("order-service").check_back(check);
    let producer = builder.connect(&world.nameserver).await.unwrap();
    let half = producer.half(message()).await.unwrap();
    let id = half.id();
    drop(half);
    assert_eq!(
        world.decided(id).await,
        (State::Committed, Actor::CheckBack)
    );
    let half = producer.half(message()).await.unwrap();
    assert_eq!(half.roll_back().await, Settled::Decided);
    producer.send(message()).await.unwrap();
}

impl World {
    async fn folder_pool(&self, name: &str) -> SqlitePool {
        double::pool(&self.folder, name).await
    }
}

#[tokio::test]
async fn a_producer_that_cannot_know_leaves_the_answer_to_another_member_of_its_group() {
    let world = world().await;
    let other = world.producer().await;
    let half = other.half(message()).await.unwrap();
    let id = half.id();
    drop(half);
    other.close().await;
    drop(other);
    let _cannot_know = world.producer().await;
    world.coordinator.write_held().await.unwrap();
    world.coordinator.ask_again(id, "test").await.unwrap();
    let knows = Producer::builder("order-service").check_back(|_| async { Resolution::Commit });
    let _knows = knows.connect(&world.nameserver).await.unwrap();
    assert_eq!(
        world.decided(id).await,
        (State::Committed, Actor::CheckBack)
    );
    let row = world.coordinator.find(id).await.unwrap().unwrap();
    assert_eq!(row.checks, 0, "silence does not count");
}
