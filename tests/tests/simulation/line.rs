//! The network between a client and the coordinator: it delays, loses and repeats.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coordinator::client::check_back::{Asked, CheckBackQueue};
use coordinator::client::endpoint::{
    Endpoint, HalfError, HalfReceipt, HalfRequest, Outcome, Resolve, ResolveError,
};
use coordinator::engine::Coordinator;
use coordinator::marker::Marker;
use coordinator::store::TxReader as _;
use coordinator::store::model::Model as Store;
use coordinator::transaction::{Actor, Decision, Resolution, TransactionId};
use mq_core::log::Position;
use mq_core::log::file::FileLog;
use mq_core::membership::{Link, Notice};

use super::connections::Connections;
use super::dice::Dice;
use super::facts::{Facts, Met};
use super::judge::asked;
use super::tables::Tables;

/// The group of a service with a mistake: what it repeats may be the opposite.
pub(super) const MISTAKEN: &str = "billing";
/// Longest way of a word.
const WAY: Duration = Duration::from_millis(30);

/// A client's way to the coordinator.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) coordinator: Coordinator,
    pub(super) log: Arc<FileLog>,
    /// The coordinator's store, to compare its answers with.
    pub(super) store: Store,
    pub(super) connections: Connections,
    /// The services' database, to compare answers with.
    pub(super) tables: Arc<Tables>,
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

    /// A half message is found by its first position, wherever it stands now: one that was acknowledged even before it has a
    /// row, until it is forgotten.
    async fn is_found(&self, id: TransactionId, position: Position, outcome: &Outcome) {
        let row = self.store.transaction(id).await.ok().flatten();
        let row = row.filter(|row| row.half.position == position);
        let mut book = self.facts.book();
        let is_forgotten = row.is_none() && book.decided.contains_key(&id);
        match outcome {
            Outcome::NoSuchHalfMessage { why } if !book.put_back && !is_forgotten => {
                let acknowledged = book.stored.get(&id) == Some(&position);
                drop(book);
                if row.is_some() || acknowledged {
                    self.facts.broken(format!(
                        "{id} is not found at {position}, where it was acknowledged: {why}; its row is {row:?}"
                    ));
                }
            }
            Outcome::DecidedNow if row.is_some_and(|row| row.moved_to.is_some()) => {
                book.counts.add(Met::DecidedCarried);
            }
            Outcome::NoSuchHalfMessage { .. }
            | Outcome::DecidedNow
            | Outcome::AlreadyTheSame
            | Outcome::AlreadyOtherwise(_)
            | Outcome::Noted => {}
        }
    }

    /// What a marker is said to prove must stand in the services' database; a marker may be deleted on the answer's way.
    fn is_true(&self, request: &Resolve) {
        let expected = match request.resolution {
            Resolution::Commit => Marker::Committed,
            Resolution::RollBack => Marker::Tombstone,
            Resolution::Unknown | Resolution::InFlight => return,
        };
        let id = request.id;
        if request.actor != Actor::Marker {
            return;
        }
        let stands = self.tables.markers.standing(id);
        let is_pruned = expected == Marker::Committed && self.facts.book().pruned.contains(&id);
        if stands != Some(expected) && !is_pruned {
            let said = request.resolution;
            self.facts.broken(format!(
                "a check-back for {id} is answered with {said:?}, and its marker is {stands:?}"
            ));
        }
    }

    /// Whether a transaction is decided and has no row any more.
    async fn is_forgotten(&self, id: TransactionId) -> bool {
        let row = self.store.transaction(id).await;
        let book = self.facts.book();
        row.is_ok_and(|row| row.is_none()) && book.decided.contains_key(&id) && !book.put_back
    }

    /// What was said about a transaction that was `forgotten` is refused.
    fn is_refused(&self, id: TransactionId, forgotten: bool, outcome: &Outcome) {
        let mut book = self.facts.book();
        if !forgotten || book.put_back {
            return;
        }
        if matches!(outcome, Outcome::NoSuchHalfMessage { .. }) {
            book.counts.add(Met::LateRefused);
            return;
        }
        drop(book);
        self.facts.broken(format!(
            "{id} is forgotten, and a decision for it is answered with {outcome:?}"
        ));
    }

    /// What the coordinator says, which counts even if nobody hears it.
    pub(super) async fn say(&self, request: Resolve) -> Result<Outcome, ResolveError> {
        let (id, resolution) = (request.id, request.resolution);
        let invoked = self.facts.book().now();
        let answers = matches!(request.actor, Actor::CheckBack | Actor::Marker);
        if resolution == Resolution::Unknown && answers {
            *self.facts.book().unknown.entry(id).or_default() += 1;
        }
        let position = request.position;
        let forgotten = self.is_forgotten(id).await;
        let outcome = self.coordinator.resolve(request).await?;
        self.is_found(id, position, &outcome).await;
        let said = match resolution {
            Resolution::Commit => Some(Decision::Commit),
            Resolution::RollBack => Some(Decision::RollBack),
            Resolution::Unknown | Resolution::InFlight => None,
        };
        if let Some(said) = said {
            self.is_refused(id, forgotten, &outcome);
            self.facts.answered(id, said, invoked, &outcome);
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
        let answer = self.coordinator.half(request).await;
        if let Ok(receipt) = &answer {
            self.facts.book().stored.insert(id, receipt.position);
        }
        self.way().await;
        if self.loses() {
            return Err(lost());
        }
        answer
    }

    async fn resolve(&self, request: Resolve) -> Result<Outcome, ResolveError> {
        let lost = || ResolveError("lost on the way".into());
        self.is_true(&request);
        self.facts.book().words.insert(request.id, request.clone());
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
    /// The client's process.
    pub(super) incarnation: u128,
}

impl Link for Back {
    fn push(&self, notice: Notice) -> bool {
        let asked =
            Asked::from_notice(&notice).expect("the coordinator asks what can be understood");
        if let Err(why) = asked::may_be(&self.line, &asked, self.incarnation) {
            let id = asked.id;
            self.line
                .facts
                .broken(format!("check-back for {id}: {why}"));
        }
        if self.line.loses() {
            return true;
        }
        let (line, queue) = (self.line.clone(), self.queue.clone());
        tokio::spawn(async move {
            line.way().await;
            // A client that is gone or behind hears nothing.
            let _ = queue.ask(asked);
        });
        true
    }
}
