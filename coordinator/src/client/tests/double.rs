//! A coordinator that only writes down what it is asked, and fails when told to: for tests of the service's side.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use mq_core::broker::{self, Broker};
use mq_core::clock::{ManualClock, ServerTime};
use mq_core::log::memory::MemoryLog;
use mq_core::log::{LogId, Position, QueueOffset};
use mq_core::message::Message;
use mq_core::names::GroupName;
use mq_core::random::SystemRandom;
use mq_core::wire::record::{EMBEDDED_HOST, NewRecord};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use tokio::sync::{Notify, watch};

use crate::client::check_back::{Asked, CheckBackQueue, HalfRecord};
use crate::client::endpoint::{
    Endpoint, HalfError, HalfReceipt, HalfRequest, Outcome, Resolve, ResolveError, Verdict,
};
use crate::client::producer::{Builder, Connection, Producer};
use crate::transaction::{Actor, MarkerIdentity, Resolution, State, TransactionId};

/// Opens a fresh or existing file for a service.
pub(crate) async fn pool(folder: &tempfile::TempDir, name: &str) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join(name))
        .journal_mode(SqliteJournalMode::Wal)
        .create_if_missing(true);
    SqlitePoolOptions::new()
        .max_connections(4)
        .connect_with(options)
        .await
        .unwrap()
}

/// A coordinator that records.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    state: Mutex<Recorded>,
    said: watch::Sender<usize>,
    /// While set, half messages wait for it after they were recorded.
    pub(crate) hold_halves: Mutex<Option<Arc<Notify>>>,
}

#[derive(Debug, Default)]
struct Recorded {
    halves: Vec<HalfRequest>,
    resolved: Vec<Resolve>,
    decided: HashMap<TransactionId, (State, Actor)>,
    half_answer_lost: bool,
    unreachable: bool,
    contradictions: usize,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Connects a producer to this coordinator.
    pub(crate) async fn connect(self: &Arc<Self>, builder: Builder) -> (Producer, CheckBackQueue) {
        let mut asks = None;
        let clock = Arc::new(ManualClock::new(1));
        let parts = broker::Parts {
            log: Arc::new(MemoryLog::new(LogId(1), clock.clone())),
            clock,
            random: Arc::new(SystemRandom),
            extensions: Vec::new(),
        };
        let broker = Broker::open(broker::Settings::default(), parts)
            .await
            .unwrap();
        let producer = builder
            .over(|_, queue| {
                asks = Some(queue);
                let endpoint: Arc<dyn Endpoint> = self.clone();
                async move {
                    Ok(Connection {
                        endpoint,
                        plain: mq_core::client::Producer::attach(&broker),
                        guard: Box::new(()),
                    })
                }
            })
            .await
            .unwrap();
        (producer, asks.unwrap())
    }

    pub(crate) fn lose_next_half_answer(&self) {
        self.state().half_answer_lost = true;
    }

    pub(crate) fn set_unreachable(&self, unreachable: bool) {
        self.state().unreachable = unreachable;
    }

    pub(crate) fn halves(&self) -> Vec<HalfRequest> {
        self.state().halves.clone()
    }

    /// Everything said so far about `id`.
    pub(crate) fn said_about(&self, id: TransactionId) -> Vec<(Resolution, Actor)> {
        let state = self.state();
        let about = state.resolved.iter().filter(|said| said.id == id);
        about.map(|said| (said.resolution, said.actor)).collect()
    }

    pub(crate) fn decision_of(&self, id: TransactionId) -> Option<State> {
        self.state().decided.get(&id).map(|(state, _)| *state)
    }

    /// Has these decided already.
    pub(crate) fn decide<'a>(&self, ids: impl IntoIterator<Item = &'a TransactionId>, to: State) {
        let decided = ids.into_iter().map(|id| (*id, (to, Actor::Producer)));
        self.state().decided.extend(decided);
    }

    pub(crate) fn contradictions(&self) -> usize {
        self.state().contradictions
    }

    /// The question a check-back of `id` asks.
    pub(crate) fn question(&self, id: TransactionId) -> Asked {
        let state = self.state();
        let at = state.halves.iter().position(|half| half.id == id).unwrap();
        asked(id, at as u64, state.halves[at].marker)
    }

    /// Asks about `id` and waits for what is said.
    pub(crate) async fn check(&self, asks: &CheckBackQueue, id: TransactionId) -> Resolve {
        let before = self.said_about(id).len();
        let mut said = self.said.subscribe();
        asks.ask(self.question(id)).unwrap();
        said.wait_for(|_| self.said_about(id).len() > before)
            .await
            .unwrap();
        let state = self.state();
        let last = state.resolved.iter().rfind(|said| said.id == id);
        last.unwrap().clone()
    }

    fn state(&self) -> MutexGuard<'_, Recorded> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A check-back about a half message with one small order in it.
pub(crate) fn asked(id: TransactionId, at: u64, marker: Option<MarkerIdentity>) -> Asked {
    let mut record = Vec::new();
    NewRecord {
        topic: "RMQ_SYS_TRANS_HALF_TOPIC",
        queue: 0,
        flag: 0,
        sys_flag: 4,
        born_ms: 0,
        born_host: EMBEDDED_HOST,
        store_host: EMBEDDED_HOST,
        reconsume_times: 0,
        prepared_position: 0,
        body: b"order 10248",
        properties: b"REAL_TOPIC\x01orders\x02TAGS\x01placed\x02KEYS\x0110248 VINET\x02",
    }
    .encode(&mut record);
    Asked {
        id,
        group: GroupName::new("order-service").unwrap(),
        position: Position(at),
        queue_offset: QueueOffset(at),
        marker,
        message: HalfRecord::new(record.into()).unwrap(),
        broker: None,
    }
}

pub(crate) fn message() -> Message {
    Message::builder("orders")
        .tag("placed")
        .body("order 10248")
        .build()
        .unwrap()
}

#[async_trait]
impl Endpoint for Recorder {
    async fn half(&self, request: HalfRequest) -> Result<HalfReceipt, HalfError> {
        let receipt = {
            let mut state = self.state();
            let at = state.halves.len() as u64;
            let receipt = HalfReceipt {
                id: request.id,
                position: Position(at),
                queue_offset: QueueOffset(at),
                queue: request.queue.unwrap_or(0),
                broker: None,
            };
            state.halves.push(request);
            if std::mem::take(&mut state.half_answer_lost) {
                return Err(HalfError::Unknown("the answer was lost".into()));
            }
            receipt
        };
        let hold = self.hold_halves.lock().unwrap().clone();
        if let Some(hold) = hold {
            hold.notified().await;
        }
        Ok(receipt)
    }

    async fn resolve(&self, request: Resolve) -> Result<Outcome, ResolveError> {
        let mut state = self.state();
        if state.unreachable {
            return Err(ResolveError("the server is gone".into()));
        }
        let to = match request.resolution {
            Resolution::Commit => Some(State::Committed),
            Resolution::RollBack => Some(State::RolledBack),
            Resolution::Unknown | Resolution::InFlight => None,
        };
        let (id, actor) = (request.id, request.actor);
        state.resolved.push(request);
        let outcome = match (to, state.decided.get(&id)) {
            (None, _) => Outcome::Noted,
            (Some(to), None) => {
                state.decided.insert(id, (to, actor));
                Outcome::DecidedNow
            }
            (Some(to), Some((stands, _))) if to == *stands => Outcome::AlreadyTheSame,
            (Some(_), Some((stands, by))) => {
                let verdict = Verdict {
                    state: *stands,
                    actor: *by,
                    at: ServerTime(0),
                    evidence: String::new(),
                };
                state.contradictions += 1;
                Outcome::AlreadyOtherwise(verdict)
            }
        };
        drop(state);
        self.said.send_modify(|count| *count += 1);
        Ok(outcome)
    }

    async fn committed(&self, ids: &[TransactionId]) -> Vec<TransactionId> {
        let committed = |id: &TransactionId| self.decision_of(*id) == Some(State::Committed);
        ids.iter().copied().filter(committed).collect()
    }
}
