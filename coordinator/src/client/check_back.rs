//! Being asked what became of a half message, and answering: from the marker, or from the service's own [`CheckBack`].

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mq_core::client::BrokerName;
use mq_core::membership::Notice;
use mq_core::names::GroupName;
use mq_core::places::{Position, QueueOffset};
use mq_core::wire::ids;
use mq_core::wire::record::{RecordError, RecordView};
use mq_core::wire::reserved;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::endpoint::{Endpoint, Outcome, Resolve};
use super::live::Live;
use super::pruning::Pruning;
use crate::marker::MarkerStore;
use crate::marker::answer::{self, Answer};
use crate::marker::databases::Markers;
use crate::transaction::{Actor, MarkerIdentity, Resolution, TransactionId};

/// Check-backs that wait for the answering task. More are not asked; they do not count and come again.
pub const QUEUE: usize = 1024;
/// Check-backs of one database, or of the service's own [`CheckBack`], that wait or are answered at a time.
const LANE: usize = 256;
/// Of these, how many are answered at a time. More would only wait for the same write lock.
const AT_A_TIME: usize = 4;
/// How long the service's own [`CheckBack`] may take before nothing is said.
const PATIENCE: Duration = Duration::from_secs(30);

/// One check-back. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The transaction.
    pub id: TransactionId,
    /// The producer group that is asked.
    pub group: GroupName,
    /// Position of the half message.
    pub position: Position,
    /// Its number in the half queue.
    pub queue_offset: QueueOffset,
    /// Identity of the database that holds the marker, if there is one.
    pub marker: Option<MarkerIdentity>,
    /// The half message.
    pub message: HalfRecord,
    /// The broker that asks; `None` where there is only one.
    pub broker: Option<BrokerName>,
}

/// A check-back that makes no sense; it is left unanswered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the check-back cannot be understood: {0}")]
pub struct NotACheckBack(pub &'static str);

impl Asked {
    /// Reads request 39 as a coordinator sends it (RocketMQ `CheckTransactionStateRequestHeader`).
    ///
    /// # Errors
    /// [`NotACheckBack`] says what is missing.
    pub fn from_notice(notice: &Notice) -> Result<Self, NotACheckBack> {
        if notice.code != reserved::CHECK_TRANSACTION_STATE {
            return Err(NotACheckBack("its code is another request's"));
        }
        let message = HalfRecord::new(notice.body.clone())
            .map_err(|_| NotACheckBack("its body is not a record"))?;
        let field = |name| {
            let mut fields = notice.fields.iter();
            fields
                .find(|(field, _)| *field == name)
                .map(|(_, value)| value.as_str())
        };
        let number = |name| field(name).and_then(|value| value.parse().ok());
        let group = message.property(reserved::PRODUCER_GROUP);
        Ok(Self {
            id: field("transactionId")
                .and_then(|id| id.parse().ok())
                .ok_or(NotACheckBack("its transaction id is missing or not ours"))?,
            group: group
                .and_then(|group| GroupName::new(group).ok())
                .ok_or(NotACheckBack("its producer group is missing"))?,
            position: number("commitLogOffset")
                .map(Position)
                .ok_or(NotACheckBack("its position is missing"))?,
            queue_offset: number("tranStateTableOffset")
                .map(QueueOffset)
                .ok_or(NotACheckBack("its queue offset is missing"))?,
            marker: message
                .property(reserved::MARKER)
                .and_then(ids::parse_hex128)
                .map(MarkerIdentity),
            message,
            broker: None,
        })
    }
}

/// A stored half message, as its producer made it. Cheap to clone.
#[derive(Clone)]
pub struct HalfRecord(Bytes);

impl HalfRecord {
    /// Takes a V1 record.
    ///
    /// # Errors
    /// [`RecordError`] when it is none.
    pub fn new(record: Bytes) -> Result<Self, RecordError> {
        RecordView::parse(&record)?;
        Ok(Self(record))
    }

    fn view(&self) -> RecordView<'_> {
        RecordView::parse(&self.0).expect("parsed when it was made, and never changed")
    }

    /// The topic the message is for.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.property(reserved::REAL_TOPIC)
            .unwrap_or_else(|| self.view().topic)
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.property(reserved::TAGS)
    }

    /// The words it can be looked up by.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.property(reserved::KEYS)
            .unwrap_or_default()
            .split_whitespace()
    }

    /// The value of a property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.view().properties.get(name)
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.view().body
    }
}

impl fmt::Debug for HalfRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HalfRecord")
            .field("topic", &self.topic())
            .field("bytes", &self.0.len())
            .finish()
    }
}

/// How a service without markers finds out what became of a half message. Any `async` function of [`Asked`] is one.
#[async_trait]
pub trait CheckBack: Send + Sync + 'static {
    /// Says what became of the local transaction. [`Resolution::RollBack`] only if it can never commit any more: "not
    /// there yet" is [`Resolution::Unknown`]. Called again and again, from several tasks; given 30 seconds.
    async fn check(&self, asked: Asked) -> Resolution;
}

#[async_trait]
impl<F, Fut> CheckBack for F
where
    F: Fn(Asked) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Resolution> + Send + 'static,
{
    async fn check(&self, asked: Asked) -> Resolution {
        self(asked).await
    }
}

/// Where the connection puts the check-backs of one producer. Bounded; never blocks.
#[derive(Debug, Clone)]
pub struct CheckBackQueue(pub(super) mpsc::Sender<Asked>);

/// The producer cannot be asked now; the check-back does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAsked {
    /// Too many wait already; ask later.
    Full,
    /// The producer is gone.
    Gone,
}

impl CheckBackQueue {
    /// Asks. The answer comes through [`Endpoint::resolve`], or never.
    ///
    /// # Errors
    /// [`NotAsked`] says why not.
    pub fn ask(&self, asked: Asked) -> Result<(), NotAsked> {
        self.0.try_send(asked).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotAsked::Full,
            mpsc::error::TrySendError::Closed(_) => NotAsked::Gone,
        })
    }

    /// Waits until the producer is gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// Everything an answer needs; does not keep the producer's connection open.
pub(super) struct Answerer {
    pub(super) endpoint: Arc<dyn Endpoint>,
    pub(super) markers: Markers,
    pub(super) check_back: Option<Arc<dyn CheckBack>>,
    pub(super) live: Arc<Live>,
    pub(super) pruning: Arc<Pruning>,
    pub(super) source: Arc<str>,
}

impl Answerer {
    /// Answers until the queue is closed or the task is aborted; what is in progress then is not said.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Asked>) {
        let answerer = Arc::new(self);
        let lanes = Lanes::new(&answerer.markers);
        let mut answers = JoinSet::new();
        while let Some(asked) = queue.recv().await {
            while answers.try_join_next().is_some() {}
            let lane = lanes.of(asked.marker);
            let Ok(place) = Arc::clone(&lane.room).try_acquire_owned() else {
                tracing::debug!(transaction = %asked.id, "a check-back is left unanswered: too many wait");
                continue;
            };
            let turn = Arc::clone(&lane.turn);
            answers.spawn(Arc::clone(&answerer).answer(asked, turn, place));
        }
        while answers.join_next().await.is_some() {}
    }

    async fn answer(
        self: Arc<Self>,
        asked: Asked,
        turn: Arc<Semaphore>,
        _place: OwnedSemaphorePermit,
    ) {
        let Ok(turn) = turn.acquire_owned().await else {
            return;
        };
        let Some((answer, actor)) = self.find_out(&asked).await else {
            return;
        };
        drop(turn);
        let resolution = answer.resolution;
        let request = Resolve {
            id: asked.id,
            group: asked.group,
            position: asked.position,
            queue_offset: asked.queue_offset,
            resolution,
            actor,
            evidence: answer.evidence,
            source: Arc::clone(&self.source),
            broker: asked.broker,
        };
        match self.endpoint.resolve(request).await {
            Ok(Outcome::DecidedNow | Outcome::AlreadyTheSame) => {
                if let (Resolution::Commit, Some(identity)) = (resolution, asked.marker) {
                    self.pruning.confirmed(identity, asked.id);
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(transaction = %asked.id, %error, "the answer to a check-back may be lost; it comes again");
            }
        }
    }

    async fn find_out(&self, asked: &Asked) -> Option<(Answer, Actor)> {
        let live = || self.live.contains(asked.id);
        match (asked.marker, &self.check_back) {
            (Some(identity), _) => {
                let answer = match self.markers.get(identity) {
                    Some(store) => {
                        answer::answer(&**store as &dyn MarkerStore, asked.id, live).await
                    }
                    None => Answer::new(
                        Resolution::Unknown,
                        format!("marker database {:032X} is not this process's", identity.0),
                    ),
                };
                Some((answer, Actor::Marker))
            }
            (None, _) if live() => Some((
                Answer::new(
                    Resolution::InFlight,
                    "the half message is held in this process",
                ),
                Actor::CheckBack,
            )),
            (None, Some(check_back)) => {
                let said = tokio::time::timeout(PATIENCE, check_back.check(asked.clone())).await;
                Some((Answer::new(said.ok()?, "check-back"), Actor::CheckBack))
            }
            // Of another member of the group, one with a listener of its own: an answer would count, silence does not.
            (None, None) => {
                tracing::debug!(transaction = %asked.id, "a check-back is left unanswered: there is neither marker nor check-back for it");
                None
            }
        }
    }
}

/// One lane for each database and one for everything else, so that a database that hangs holds up no other.
struct Lanes {
    of_markers: HashMap<MarkerIdentity, Lane>,
    other: Lane,
}

struct Lane {
    room: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

impl Lane {
    fn new() -> Self {
        Self {
            room: Arc::new(Semaphore::new(LANE)),
            turn: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }
}

impl Lanes {
    fn new(markers: &Markers) -> Self {
        Self {
            of_markers: markers
                .identities()
                .into_iter()
                .map(|identity| (identity, Lane::new()))
                .collect(),
            other: Lane::new(),
        }
    }

    fn of(&self, marker: Option<MarkerIdentity>) -> &Lane {
        marker
            .and_then(|identity| self.of_markers.get(&identity))
            .unwrap_or(&self.other)
    }
}
