//! The three things that are measured, each as one operation of a closed loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use coordinator::client::endpoint::{
    Endpoint as _, HalfError, HalfReceipt, HalfRequest, Outcome, Resolve,
};
use coordinator::embedded::Embedded;
use coordinator::engine::{Coordinator, half, publish::Final};
use coordinator::transaction::{
    Actor, Decision, Incarnation, MarkerIdentity, Resolution, TransactionId,
};
use mq_core::broker::clients::{Announcement, Connection, Link, Notice};
use mq_core::broker::{Broker, Incoming};
use mq_core::clock::Clock;
use mq_core::log::{Append, Entry, Flush, Full, Placed, Submission};
use mq_core::message::Message;
use mq_core::names::{GroupName, QueueId};
use mq_core::random::{Random, SeededRandom};
use tokio::sync::oneshot;

use crate::failure::Failure;

/// The topic that everything is sent to.
const TOPIC: &str = "bench";
/// The producer group.
const GROUP: &str = "bench-producer";
/// Pause after the coordinator said that it is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// A producer that is connected for as long as this lives, and what it sends.
#[derive(Debug)]
pub(super) struct Sender {
    broker: Broker,
    coordinator: Coordinator,
    message: Message,
    group: GroupName,
    source: Arc<str>,
    incarnation: Incarnation,
    marker: MarkerIdentity,
    half_queue: QueueId,
    clock: Arc<dyn Clock>,
    /// Light: drawing an id must not be part of what is measured.
    random: SeededRandom,
    /// Numbers of decisions on the log-only path.
    decisions: AtomicU64,
    /// Whether the log has refused a final on the log-only path.
    lost: AtomicBool,
    _connection: Connection,
}

/// A producer that leaves every check-back unanswered.
#[derive(Debug)]
struct Silent;

impl Link for Silent {
    fn push(&self, _: Notice) -> bool {
        true
    }
}

impl Sender {
    /// A connected producer of messages with a body of `size` bytes.
    pub(super) fn new(open: &Embedded, size: usize) -> Result<Arc<Self>, Failure> {
        let broker = open.broker().clone();
        let message = Message::builder(TOPIC)
            .tag("placed")
            .key("10248")
            .body(vec![b'x'; size])
            .build()
            .map_err(|error| Failure::Environment(format!("--size {size}: {error}")))?;
        let group = GroupName::new(GROUP).expect("the name is a constant that keeps the rules");
        let random = broker.random();
        let (incarnation, marker) = (random.next_u128(), random.next_u128());
        let seeded = SeededRandom::new(random.next_u64());
        let connection = broker
            .clients()
            .connect(GROUP, incarnation, GROUP, Arc::new(Silent));
        connection.announce(Announcement {
            producer_groups: vec![group.clone()],
            consumer_groups: Vec::new(),
            answers_for: vec![marker],
        });
        Ok(Arc::new(Self {
            coordinator: open.coordinator().clone(),
            message,
            group,
            source: GROUP.into(),
            incarnation: Incarnation(incarnation),
            marker: MarkerIdentity(marker),
            half_queue: half::half_queue(),
            clock: broker.clock().clone(),
            random: seeded,
            decisions: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            broker,
            _connection: connection,
        }))
    }

    /// A plain message, acknowledged.
    pub(super) async fn plain(self: Arc<Self>) -> Result<(), String> {
        let incoming = Incoming::new(&self.message, None, self.clock.wall_ms());
        self.broker
            .send(incoming)
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    /// A half message, then its COMMIT: what a producer does, without a local transaction between them.
    pub(super) async fn transaction(self: Arc<Self>) -> Result<(), String> {
        let receipt = self.half().await?;
        let resolve = Resolve {
            id: receipt.id,
            group: self.group.clone(),
            position: receipt.position,
            queue_offset: receipt.queue_offset,
            resolution: Resolution::Commit,
            actor: Actor::Producer,
            evidence: String::new(),
            source: self.source.clone(),
            broker: None,
        };
        match self.coordinator.resolve(resolve).await {
            Ok(Outcome::DecidedNow) => Ok(()),
            Ok(other) => Err(format!("a COMMIT was answered with {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A half message that stays open.
    pub(super) async fn half(&self) -> Result<HalfReceipt, String> {
        loop {
            match self.coordinator.half(self.request()).await {
                Ok(receipt) => return Ok(receipt),
                Err(HalfError::Busy(_)) => tokio::time::sleep(BUSY_PAUSE).await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn request(&self) -> HalfRequest {
        HalfRequest {
            id: TransactionId::new(self.clock.wall_ms(), self.random.next_u128()),
            group: self.group.clone(),
            message: self.message.clone(),
            queue: None,
            sender: self.incarnation,
            marker: Some(self.marker),
            immunity: None,
        }
    }

    /// The same records without SQL: the half message is appended and durable, its final made of the bytes kept in memory,
    /// as for a COMMIT that comes soon, and handed to the log's writer. That is where the real path acknowledges, so here
    /// too nobody waits for the final's fsync. Decision numbers are counted, not decided.
    pub(super) async fn log_only(self: Arc<Self>) -> Result<(), String> {
        let request = self.request();
        let target = self
            .broker
            .admit(self.message.topic(), None)
            .await
            .map_err(|error| error.to_string())?;
        let kept = half::encode(
            &request,
            target.queue,
            self.clock.wall_ms(),
            self.broker.host(),
        );
        let entry = Entry::Message {
            queue: self.half_queue.clone(),
            tag_code: 0,
            record: kept.clone(),
        };
        let (told, placed) = oneshot::channel();
        self.append(
            Append {
                mark: Some(half::mark(request.id)),
                entry,
            },
            Box::new(move |result| {
                // The loop is over: nobody waits.
                let _ = told.send(result.map(|placed| placed.first().copied()));
            }),
        )
        .await;
        let placed: Placed = match placed.await {
            Ok(Ok(Some(placed))) => placed,
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(None)) | Err(_) => return Err("the log has not answered".into()),
        };
        let view = kept.view().map_err(|error| error.to_string())?;
        let Final {
            queue,
            tag_code,
            record,
        } = Final::of(&view, kept.body().clone(), placed.position, target);
        let number = self.decisions.fetch_add(1, Ordering::Relaxed) + 1;
        let sender = self.clone();
        self.append(
            Append {
                mark: Some(half::decision_mark(request.id, Decision::Commit, number)),
                entry: Entry::Message {
                    queue,
                    tag_code,
                    record,
                },
            },
            Box::new(move |result| {
                if result.is_err() {
                    sender.lost.store(true, Ordering::Relaxed);
                }
            }),
        )
        .await;
        if self.lost.load(Ordering::Relaxed) {
            return Err("the log has refused a final".into());
        }
        Ok(())
    }

    /// Hands a record to the log's writer; waits while there is no room.
    async fn append(&self, append: Append, then: mq_core::log::Then) {
        let mut submission = Submission {
            entries: vec![append],
            flush: Flush::Sync,
            then,
        };
        while let Err(Full(back)) = self.broker.log().append(submission) {
            submission = back;
            self.broker.log().ready().await;
        }
    }
}
