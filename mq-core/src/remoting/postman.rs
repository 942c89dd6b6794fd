//! One task that writes to all peers which were answered from elsewhere: one wake-up for everything that gathered.
//!
//! Answers often come from the log's thread, many at a time. Waking a task from a foreign thread costs about forty times
//! what it costs inside the runtime, so there is one task to be woken instead of one for each connection.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::peer::Peer;

/// Peers that are to be written to. Each stands here at most once.
#[derive(Debug, Default)]
pub(super) struct Postman {
    waiting: Mutex<Vec<Arc<Peer>>>,
    arrived: Notify,
}

impl Postman {
    /// Has everything that is queued for `peer` written soon. Never blocks; from any thread.
    pub(super) fn post(&self, peer: Arc<Peer>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(peer);
        let first = waiting.len() == 1;
        drop(waiting);
        if first {
            self.arrived.notify_one();
        }
    }

    /// Writes, for ever.
    pub(super) async fn run(&self) {
        let mut round = Vec::new();
        loop {
            self.arrived.notified().await;
            std::mem::swap(
                &mut round,
                &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner),
            );
            for peer in round.drain(..) {
                peer.flush();
            }
        }
    }
}
