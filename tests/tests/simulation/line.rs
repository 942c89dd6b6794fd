//! The network between a client and the coordinator: it delays, loses and repeats.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coordinator::client::check_back::{Asked, CheckBackQueue};
use coordinator::client::endpoint::{
    Endpoint, HalfError, HalfReceipt, HalfRequest, Outcome, Resolve, ResolveError,
};
use coordinator::engine::Coordinator;
use coordinator::transaction::{Decision, Resolution, TransactionId};
use mq_core::membership::{Link, Notice};

use super::dice::Dice;
use super::facts::{Facts, Met};

/// The group of a service with a mistake: what it repeats may be the opposite.
pub(super) const MISTAKEN: &str = "billing";
/// Longest way of a word.
const WAY: Duration = Duration::from_millis(30);

/// A client's way to the coordinator.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) coordinator: Coordinator,
    pub(super) dice: Arc<Dice>,
    pub(super) facts: Facts,
    /// Nothing is lost or repeated.
    pub(super) good: bool,
}

impl Line {
    async fn way(&self) {
        tokio::time::sleep(self.dice.time(WAY)).await;
    }

    fn loses(&self) -> bool {
        let lost = !self.good && self.dice.percent(8);
        if lost {
            self.facts.book().counts.add(Met::LostWord);
        }
        lost
    }

    /// What the coordinator says, which counts even if nobody hears it.
    async fn say(&self, request: Resolve) -> Result<Outcome, ResolveError> {
        let (id, resolution) = (request.id, request.resolution);
        let outcome = self.coordinator.resolve(request).await?;
        let said = match resolution {
            Resolution::Commit => Some(Decision::Commit),
            Resolution::RollBack => Some(Decision::RollBack),
            Resolution::Unknown | Resolution::InFlight => None,
        };
        if let Some(said) = said {
            self.facts.answered(id, said, &outcome);
        }
        Ok(outcome)
    }
}

#[async_trait]
impl Endpoint for Line {
    async fn half(&self, request: HalfRequest) -> Result<HalfReceipt, HalfError> {
        let lost = || HalfError::Unknown("lost on the way".into());
        self.way().await;
        if self.loses() {
            return Err(lost());
        }
        let id = request.id;
        let marked = request.marker.is_some();
        let answer = self.coordinator.half(request).await;
        if answer.is_ok() {
            let mut book = self.facts.book();
            book.stored.insert(id);
            if marked {
                book.marked.insert(id);
            }
        }
        self.way().await;
        if self.loses() {
            return Err(lost());
        }
        answer
    }

    async fn resolve(&self, request: Resolve) -> Result<Outcome, ResolveError> {
        let lost = || ResolveError("lost on the way".into());
        self.way().await;
        if self.loses() {
            return Err(lost());
        }
        if !self.good && self.dice.percent(8) {
            self.facts.book().counts.add(Met::RepeatedWord);
            let (line, mut again) = (self.clone(), request.clone());
            if again.group.as_str() == MISTAKEN && self.dice.percent(50) {
                again.resolution = match again.resolution {
                    Resolution::Commit => Resolution::RollBack,
                    Resolution::RollBack => Resolution::Commit,
                    other @ (Resolution::Unknown | Resolution::InFlight) => other,
                };
            }
            tokio::spawn(async move {
                tokio::time::sleep(line.dice.time(WAY * 50)).await;
                // Whoever said it has heard an answer, or never will.
                let _ = line.say(again).await;
            });
        }
        let answer = self.say(request).await;
        self.way().await;
        if self.loses() {
            return Err(lost());
        }
        answer
    }

    async fn committed(&self, ids: &[TransactionId]) -> Vec<TransactionId> {
        self.way().await;
        self.coordinator.committed(ids).await
    }
}

/// The coordinator's way to a client.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) line: Line,
    pub(super) queue: CheckBackQueue,
}

impl Link for Back {
    fn push(&self, notice: Notice) -> bool {
        if self.line.loses() {
            return true;
        }
        let asked =
            Asked::from_notice(&notice).expect("the coordinator asks what can be understood");
        self.line.facts.book().counts.add(Met::CheckBack);
        let (line, queue) = (self.line.clone(), self.queue.clone());
        tokio::spawn(async move {
            line.way().await;
            // A client that is gone or behind hears nothing.
            let _ = queue.ask(asked);
        });
        true
    }
}
