//! A half message that was stored: its receipt, and the one word that is said about it.

use std::sync::Arc;

use mq_core::message::Message;

use super::endpoint::{HalfReceipt, Outcome, Resolve, ResolveError, Verdict};
use super::live;
use super::producer::Shared;
use crate::transaction::{Actor, MarkerIdentity, Resolution, TransactionId};

/// A message to send as a half message. A plain [`Message`] becomes one with the defaults.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub(super) message: Message,
    pub(super) queue: Option<u32>,
    pub(super) immunity: Option<std::time::Duration>,
}

impl Outgoing {
    /// `message`, to a queue the broker chooses.
    #[must_use]
    pub const fn new(message: Message) -> Self {
        Self {
            message,
            queue: None,
            immunity: None,
        }
    }

    /// To this queue of its topic.
    #[must_use]
    pub const fn queue(mut self, queue: u32) -> Self {
        self.queue = Some(queue);
        self
    }

    /// With this age before the first check-back, instead of the server's setting.
    #[must_use]
    pub const fn immunity(mut self, age: std::time::Duration) -> Self {
        self.immunity = Some(age);
        self
    }
}

impl From<Message> for Outgoing {
    fn from(message: Message) -> Self {
        Self::new(message)
    }
}

/// How a transaction stands after its producer has said its word. Never an error: the local transaction has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a contradicted transaction needs a person's attention"]
#[non_exhaustive]
pub enum Settled {
    /// Decided the way the local transaction ended, durably.
    Decided,
    /// Not decided yet, or not known here; a check-back decides it. Says why.
    Deferred(String),
    /// Somebody had decided otherwise before.
    Contradicted(Verdict),
    /// The coordinator has no such open half message: it decided and forgot it long ago, or lost its data. Says why.
    NotFound(String),
}

impl From<Result<Outcome, ResolveError>> for Settled {
    fn from(answer: Result<Outcome, ResolveError>) -> Self {
        match answer {
            Ok(Outcome::DecidedNow | Outcome::AlreadyTheSame) => Self::Decided,
            Ok(Outcome::AlreadyOtherwise(verdict)) => Self::Contradicted(verdict),
            Ok(Outcome::NoSuchHalfMessage { why }) => Self::NotFound(why),
            Ok(Outcome::Noted) => {
                Self::Deferred("the coordinator noted it and decides later".into())
            }
            Err(error) => Self::Deferred(error.to_string()),
        }
    }
}

/// An open half message: what its producer needs to settle it, and its place among the live ones until then.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) shared: Arc<Shared>,
    pub(super) receipt: HalfReceipt,
    pub(super) marker: Option<MarkerIdentity>,
    pub(super) _live: live::Guard,
}

impl Pending {
    /// Says how the local transaction ended.
    pub(super) async fn settle(self, resolution: Resolution, evidence: &str) -> Settled {
        let request = Resolve {
            id: self.receipt.id,
            group: self.shared.group.clone(),
            position: self.receipt.position,
            queue_offset: self.receipt.queue_offset,
            resolution,
            actor: Actor::Producer,
            evidence: evidence.to_owned(),
            source: Arc::clone(&self.shared.source),
            broker: self.receipt.broker.clone(),
        };
        let settled = self.shared.endpoint.resolve(request).await.into();
        let committed = resolution == Resolution::Commit && settled == Settled::Decided;
        if let (true, Some(identity)) = (committed, self.marker) {
            self.shared.pruning.confirmed(identity, self.receipt.id);
        }
        settled
    }
}

/// A stored half message whose local transaction the service runs by itself, without sqlx.
///
/// Commit your local transaction, then call [`HalfMessage::commit`]. If the outcome of that commit is unknown, drop this
/// instead: a check-back finds out.
#[derive(Debug)]
#[must_use = "dropped without a word, the half message waits for a check-back"]
pub struct HalfMessage {
    pub(super) pending: Pending,
}

impl HalfMessage {
    /// The transaction's id: the key of its marker.
    #[must_use]
    pub const fn id(&self) -> TransactionId {
        self.pending.receipt.id
    }

    /// Proof that the half message is durable.
    #[must_use]
    pub const fn receipt(&self) -> &HalfReceipt {
        &self.pending.receipt
    }

    /// Says that the local transaction has committed. Call it only after its COMMIT has returned without error.
    pub async fn commit(self) -> Settled {
        self.pending.settle(Resolution::Commit, "").await
    }

    /// Says that the local transaction is rolled back and can never commit. Never call it after a COMMIT that failed or
    /// whose reply was lost.
    pub async fn roll_back(self) -> Settled {
        self.pending.settle(Resolution::RollBack, "").await
    }
}
