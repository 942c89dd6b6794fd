//! Acknowledgements on their way from the log's thread to those who wait: one wake-up for a whole batch of the log.
//!
//! Waking a task from a foreign thread costs about forty times what it costs inside the runtime, so the log's thread wakes one
//! task, and that task tells everybody else.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Tells somebody what became of an append.
type Tell = Box<dyn FnOnce() + Send>;

/// Acknowledgements that nobody was told of yet. Bounded by the appends that are under way.
#[derive(Default)]
pub(super) struct Acks {
    waiting: Mutex<Vec<Tell>>,
    arrived: Notify,
}

impl Acks {
    /// Does `tell` soon, in a task; it must be short.
    pub(super) fn push(&self, tell: impl FnOnce() + Send + 'static) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(Box::new(tell));
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
            for tell in told.drain(..) {
                tell();
            }
        }
    }
}
