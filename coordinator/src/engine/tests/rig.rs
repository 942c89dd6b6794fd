//! A broker and a coordinator over a log and a store in memory, on clocks that tests move.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mq_core::broker::clients::{Announcement, Connection, Link, Notice};
use mq_core::broker::{self, Broker};
use mq_core::clock::ManualClock;
use mq_core::log::memory::MemoryLog;
use mq_core::log::{Log, LogId, Position};
use mq_core::message::Message;
use mq_core::names::{GroupName, QueueId, TopicName};
use mq_core::random::SeededRandom;

use crate::client::endpoint::{Endpoint, HalfReceipt, HalfRequest, Outcome, Resolve};
use crate::engine::Coordinator;
use crate::engine::settings::Settings;
use crate::store::TxStore;
use crate::store::model::Model;
use crate::transaction::{Actor, Incarnation, MarkerIdentity, Resolution, State, TransactionId};

/// A broker, a coordinator and what they stand on; all of it but log and store can be thrown away and started again.
pub(crate) struct Rig<S = Model> {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) store: S,
    pub(crate) broker: Broker,
    pub(crate) coordinator: Coordinator,
    pub(crate) next_id: u128,
    /// The marker database that half messages name.
    pub(crate) marker: Option<u128>,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::on(Model::new()).await
    }

    pub(crate) fn says(receipt: &HalfReceipt, resolution: Resolution) -> Resolve {
        Resolve {
            id: receipt.id,
            group: GroupName::new("order-service").unwrap(),
            position: receipt.position,
            queue_offset: receipt.queue_offset,
            resolution,
            actor: Actor::Producer,
            evidence: String::new(),
            source: "test".into(),
            broker: None,
        }
    }
}

impl<S: TxStore + Clone> Rig<S> {
    /// A new log over a new store.
    pub(crate) async fn on(store: S) -> Self {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let log = Arc::new(MemoryLog::new(LogId(1), clock.clone()));
        Self::over(clock, log, store).await.unwrap()
    }

    pub(crate) async fn over(
        clock: Arc<ManualClock>,
        log: Arc<MemoryLog>,
        store: S,
    ) -> Result<Self, String> {
        Self::over_with(clock, log, store, Settings::default()).await
    }

    /// The same under other settings, until it crashes.
    pub(crate) async fn over_with(
        clock: Arc<ManualClock>,
        log: Arc<MemoryLog>,
        store: S,
        settings: Settings,
    ) -> Result<Self, String> {
        let coordinator = Coordinator::new(Arc::new(store.clone()), settings);
        let parts = broker::Parts {
            log: log.clone(),
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(1)),
            extensions: vec![Arc::new(coordinator.clone())],
        };
        let broker = Broker::open(broker::Settings::default(), parts)
            .await
            .map_err(|e| e.to_string())?;
        Ok(Self {
            clock,
            log,
            store,
            broker,
            coordinator,
            next_id: 1,
            marker: None,
        })
    }

    /// The process dies and starts again over the same log and store.
    pub(crate) async fn crash(self) -> Result<Self, String> {
        let Self {
            clock,
            log,
            store,
            broker,
            coordinator,
            next_id,
            marker,
        } = self;
        drop((broker, coordinator));
        Self::over(clock, log, store).await.map(|rig| Self {
            next_id,
            marker,
            ..rig
        })
    }

    pub(crate) async fn half(&mut self) -> HalfReceipt {
        let request = self.request();
        self.coordinator.half(request).await.unwrap()
    }

    /// A half message that was not sent yet.
    pub(crate) fn request(&mut self) -> HalfRequest {
        self.next_id += 1;
        HalfRequest {
            id: TransactionId(self.next_id),
            group: GroupName::new("order-service").unwrap(),
            message: Message::builder("orders")
                .tag("placed")
                .body("hello")
                .build()
                .unwrap(),
            queue: Some(0),
            sender: Incarnation(7),
            marker: self.marker.map(MarkerIdentity),
            immunity: None,
        }
    }

    pub(crate) async fn resolve(&self, receipt: &HalfReceipt, resolution: Resolution) -> Outcome {
        self.coordinator
            .resolve(Rig::says(receipt, resolution))
            .await
            .unwrap()
    }

    /// The transactions whose finals consumers can see, as far as the log keeps them, in order.
    pub(crate) fn published(&self) -> Vec<TransactionId> {
        let queue = QueueId::new(TopicName::new("orders").unwrap(), 0);
        let entries = self
            .log
            .entries(&queue, self.log.queue_range(&queue).start, 1000)
            .unwrap_or_default();
        let read = |position| TransactionId(self.log.read(position).unwrap().mark.unwrap().key);
        entries
            .into_iter()
            .map(|entry| read(entry.position))
            .collect()
    }

    pub(crate) async fn state(&self, receipt: &HalfReceipt) -> State {
        self.coordinator.write_held().await.unwrap();
        self.store
            .reader()
            .transaction(receipt.id)
            .await
            .unwrap()
            .unwrap()
            .state
    }
}

/// A producer that notes what it is asked.
#[derive(Debug, Default)]
pub(crate) struct Asked(pub(crate) Mutex<Vec<Notice>>);

impl Link for Asked {
    fn push(&self, notice: Notice) -> bool {
        self.0.lock().unwrap().push(notice);
        true
    }
}

impl Asked {
    /// How many check-backs it got.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The positions it was asked about, and forgets them.
    pub(crate) fn take(&self) -> Vec<Position> {
        let notices = std::mem::take(&mut *self.0.lock().unwrap());
        let position = |notice: &Notice| {
            let field = notice
                .fields
                .iter()
                .find(|(name, _)| *name == "commitLogOffset")
                .unwrap();
            Position(field.1.parse().unwrap())
        };
        notices.iter().map(position).collect()
    }
}

impl<S: TxStore + Clone> Rig<S> {
    /// Connects a producer of the group.
    pub(crate) fn connect(&self, incarnation: u128, markers: &[u128]) -> (Connection, Arc<Asked>) {
        self.connect_as("client", incarnation, markers)
    }

    /// Connects a producer of the group under a client id.
    pub(crate) fn connect_as(
        &self,
        client_id: &str,
        incarnation: u128,
        markers: &[u128],
    ) -> (Connection, Arc<Asked>) {
        let asked = Arc::new(Asked::default());
        let connection =
            self.broker
                .clients()
                .connect(client_id, incarnation, "test client", asked.clone());
        connection.announce(Announcement {
            producer_groups: vec![GroupName::new("order-service").unwrap()],
            consumer_groups: vec![],
            answers_for: markers.to_vec(),
        });
        (connection, asked)
    }

    /// Lets time pass on every clock.
    pub(crate) async fn pass(&self, time: Duration) {
        let step = Duration::from_millis(10);
        let mut left = time;
        while left > Duration::ZERO {
            self.clock.advance(step);
            tokio::time::sleep(step).await;
            left = left.saturating_sub(step);
        }
    }
}
