//! Acknowledgements on their way from the log's thread to those who wait: one wake-up for a whole batch of the log.
//!
//! Waking a task from a foreign thread costs about forty times what it costs inside the runtime, so the log's thread wakes one
//! task, and that task tells everybody else.

use std::sync::{Mutex, PoisonError};

use mq_core::log::{AppendError, Placed};
use tokio::sync::{Notify, oneshot};

/// What became of an append of one record.
pub(super) type Ack = Result<Placed, AppendError>;

/// Acknowledgements that nobody was told of yet. Bounded by the appends that are under way.
#[derive(Debug, Default)]
pub(super) struct Acks {
    waiting: Mutex<Vec<(oneshot::Sender<Ack>, Ack)>>,
    arrived: Notify,
}

impl Acks {
    /// Has `who` told `ack`, soon.
    pub(super) fn push(&self, who: oneshot::Sender<Ack>, ack: Ack) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((who, ack));
        let first = waiting.len() == 1;
        drop(waiting);
        if first {
            self.arrived.notify_one();
        }
    }

    /// Tells everybody, for ever. Whoever is not told when this is dropped learns that the log is gone.
    pub(super) async fn run(&self) {
        let mut told = Vec::new();
        loop {
            self.arrived.notified().await;
            std::mem::swap(
                &mut told,
                &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner),
            );
            for (who, ack) in told.drain(..) {
                // The caller is gone: a check-back settles its half message.
                let _ = who.send(ack);
            }
        }
    }
}
