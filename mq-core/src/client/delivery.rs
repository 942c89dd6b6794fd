//! A message in a consumer's hands, and what becomes of it.

use std::ops::Deref;
use std::sync::Arc;

use super::received::Received;
use super::settling::{Assigned, Verdict};

/// A message that must be settled: acknowledged, or else it comes again. Dropping it means *later*.
///
/// What is said about a message after its queue went to another member, or after the consumer was closed, has no effect:
/// the message is delivered again.
#[derive(Debug)]
#[must_use = "a delivery that is dropped is delivered again later"]
pub struct Delivery {
    received: Received,
    assigned: Option<Arc<Assigned>>,
}

impl Delivery {
    pub(super) const fn new(received: Received, assigned: Arc<Assigned>) -> Self {
        Self {
            received,
            assigned: Some(assigned),
        }
    }

    /// The message is done with. It is committed a moment later: a crash before that delivers it again.
    pub fn ack(mut self) {
        self.settle(Verdict::Done);
    }

    /// The message shall come again after a delay level (1 is 1 s, 18 is 2 h; 0 leaves it to the broker, which waits longer
    /// each time). It is a dead letter once it came too often.
    pub fn retry_later(mut self, level: u8) {
        self.settle(Verdict::Again(i32::from(level)));
    }

    /// The message goes to the group's dead letters now.
    pub fn dead_letter(mut self) {
        self.settle(Verdict::Again(-1));
    }

    fn settle(&mut self, verdict: Verdict) {
        if let Some(assigned) = self.assigned.take() {
            assigned.settle(
                self.received.queue_offset().0,
                self.received.position(),
                verdict,
            );
        }
    }
}

impl Deref for Delivery {
    type Target = Received;
    fn deref(&self) -> &Received {
        &self.received
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.settle(Verdict::Again(0));
    }
}
