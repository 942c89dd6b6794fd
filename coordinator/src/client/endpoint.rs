//! Where a producer's half messages and resolutions go: the coordinator in this process, or a server over a socket.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use mq_core::client::BrokerName;
use mq_core::clock::ServerTime;
use mq_core::message::Message;
use mq_core::names::GroupName;
use mq_core::places::{Position, QueueOffset};

use crate::transaction::{Actor, Incarnation, MarkerIdentity, Resolution, State, TransactionId};

/// A half message to store.
#[derive(Debug, Clone)]
pub struct HalfRequest {
    /// New for each attempt: an attempt whose answer was lost is an orphan, never repeated.
    pub id: TransactionId,
    /// The producer group.
    pub group: GroupName,
    /// The message; delayed messages are refused.
    pub message: Message,
    /// The queue; `None` lets the broker choose.
    pub queue: Option<u32>,
    /// This process life of the sender.
    pub sender: Incarnation,
    /// Identity of the database that will hold the marker; `None` for producers that answer check-backs themselves.
    pub marker: Option<MarkerIdentity>,
    /// Age before the first check-back, instead of the server's setting.
    pub immunity: Option<Duration>,
}

/// Proof that a half message is durable, and its identity for everything that follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HalfReceipt {
    /// The transaction.
    pub id: TransactionId,
    /// Position of the half message in the log.
    pub position: Position,
    /// Its number in the half queue.
    pub queue_offset: QueueOffset,
    /// The queue the message is for.
    pub queue: u32,
    /// The broker that stores it; `None` where there is only one.
    pub broker: Option<BrokerName>,
}

/// Why a half message is not known to be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HalfError {
    /// The message, topic or queue breaks a rule. Nothing was stored.
    #[error("{0}")]
    Refused(String),
    /// The server is behind, or cannot be reached; nothing was stored. Try again later with a new id.
    #[error("the half message is not stored, try again later: {0}")]
    Busy(String),
    /// Nothing is known: the half message may be stored and will then be settled by a check-back.
    #[error("the half message may or may not be stored: {0}")]
    Unknown(String),
}

/// What a producer, a check-back or an operator says about a transaction.
#[derive(Debug, Clone)]
pub struct Resolve {
    /// The transaction.
    pub id: TransactionId,
    /// The producer group.
    pub group: GroupName,
    /// Position of the half message.
    pub position: Position,
    /// Its number in the half queue.
    pub queue_offset: QueueOffset,
    /// What is said.
    pub resolution: Resolution,
    /// Who says it.
    pub actor: Actor,
    /// What proves it: marker value, reason. At most 512 bytes, often empty.
    pub evidence: String,
    /// Who said it, for the history: connection and client.
    pub source: std::sync::Arc<str>,
    /// The broker that stores the half message; `None` where there is only one.
    pub broker: Option<BrokerName>,
}

/// What became of a resolution. Everything said here is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This request decided the transaction.
    DecidedNow,
    /// It was decided the same way before: success.
    AlreadyTheSame,
    /// It was decided the other way before: refused, recorded and counted.
    AlreadyOtherwise(Verdict),
    /// No half message stands there, or it belongs to another group or transaction, or was decided and forgotten.
    NoSuchHalfMessage {
        /// What does not fit.
        why: String,
    },
    /// UNKNOWN or *in flight* was noted; nothing is decided.
    Noted,
}

/// The decision that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// [`State::Committed`] or [`State::RolledBack`].
    pub state: State,
    /// Who decided.
    pub actor: Actor,
    /// When.
    pub at: ServerTime,
    /// What proved it.
    pub evidence: String,
}

/// A resolution whose fate is unknown: the server is gone, stopping or behind. A check-back will settle it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the resolution may or may not have arrived: {0}")]
pub struct ResolveError(pub String);

/// A coordinator, near or far. Dropping a future of it does not undo the request.
#[async_trait]
pub trait Endpoint: fmt::Debug + Send + Sync + 'static {
    /// Stores a half message; returns once it is durable.
    ///
    /// # Errors
    /// [`HalfError`].
    async fn half(&self, request: HalfRequest) -> Result<HalfReceipt, HalfError>;

    /// Says how a local transaction ended; returns once the outcome is durable.
    ///
    /// # Errors
    /// [`ResolveError`]: the outcome is unknown.
    async fn resolve(&self, request: Resolve) -> Result<Outcome, ResolveError>;

    /// Those of `ids` whose COMMIT is known to be durable. Whatever cannot be found out now is left out. At most
    /// [`mq_core::wire::reserved::MOST_COMMITTED_ASKED`] ids.
    async fn committed(&self, ids: &[TransactionId]) -> Vec<TransactionId>;
}
