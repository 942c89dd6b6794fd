//! The one ordered feed from the log to the SQL writer: what became durable, in log order.

use std::sync::Mutex;

use mq_core::clock::ServerTime;
use mq_core::log::Position;
use tokio::sync::Notify;

use crate::store::Half;

/// Something of ours that is durable in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durable {
    /// A half message.
    Half {
        /// What the store keeps of it.
        half: Half,
        /// When it asks to be checked first, if its row is written undecided.
        first_check: ServerTime,
    },
    /// The record of a decision that the log could not take before.
    Republished {
        /// The half message.
        half: Half,
        /// Where the record stands.
        position: Position,
        /// The decision's number.
        number: u64,
    },
    /// The log could not take the record of a decision.
    Unpublished {
        /// The half message.
        half: Half,
        /// The decision's number.
        number: u64,
        /// Why not.
        reason: String,
    },
    /// A half message was carried forward.
    Moved {
        /// The half message.
        half: Half,
        /// Where it stands now.
        to: Position,
    },
    /// A record whose effect is in SQL already; recovery finds such behind the watermark.
    Known(Position),
    /// The final or echo of a decision.
    Decision {
        /// Where it stands.
        position: Position,
        /// The decision's number.
        number: u64,
    },
}

/// The feed. Filled from the log's thread in log order, emptied by the SQL writer. It is bounded by the slots that are
/// reserved before a half message is appended, and by the decisions that are in flight.
#[derive(Debug, Default)]
pub struct Feed {
    waiting: Mutex<Vec<Durable>>,
    arrived: Notify,
}

impl Feed {
    /// Adds `news`, which became durable after everything that was added before.
    pub fn push(&self, news: impl IntoIterator<Item = Durable>) {
        let mut waiting = self
            .waiting
            .lock()
            .expect("nobody panics while holding the feed");
        let was_empty = waiting.is_empty();
        waiting.extend(news);
        let wake = was_empty && !waiting.is_empty();
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Moves everything that waits behind what is in `into`.
    pub fn take(&self, into: &mut Vec<Durable>) {
        into.append(
            &mut self
                .waiting
                .lock()
                .expect("nobody panics while holding the feed"),
        );
    }

    /// Waits until something was added since the feed was last found empty. Cancel safe.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
