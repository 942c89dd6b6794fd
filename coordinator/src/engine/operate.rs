//! What an operator may do about an open transaction: have it asked about again, or decide it.
//!
//! A transaction with a marker is decided by its marker, also for an operator: whoever can read the marker's database is asked
//! now, and plants a tombstone if the local transaction is not there. Only force overrides that, and says so in the history.

use std::time::Duration;

use super::ledger::{Request, What};
use super::{Coordinator, Running, command};
use crate::client::endpoint::{Endpoint as _, Outcome, Resolve};
use crate::store::{Row, StoreError};
use crate::transaction::{Actor, Decision, Resolution, State, TransactionId};

/// Why an operator's wish is not fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperateError {
    /// There is no such transaction.
    #[error("there is no transaction {0}")]
    NoSuchTransaction(TransactionId),
    /// It is decided; asking changes nothing.
    #[error("transaction {0} is {1} already")]
    Decided(TransactionId, &'static str),
    /// Nobody who is connected can answer for it: read its marker, or ask the service's own listener.
    #[error(
        "no connected producer of group {1} can answer for transaction {0}, from its marker or by a listener; \
         start an instance of the service, or force the decision"
    )]
    NobodyCanAnswer(TransactionId, String),
    /// The marker's answer did not come in time; it decides when it comes.
    #[error(
        "transaction {0}: no answer from group {1} yet; it stays open and will be decided by its marker"
    )]
    NoAnswerYet(TransactionId, String),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The coordinator cannot work.
    #[error("{0}")]
    Unavailable(String),
}

/// How long an operator waits for a marker's answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Coordinator {
    /// Has the group of an open transaction asked now, for `operator`. A parked one stays parked until an answer decides it.
    ///
    /// # Errors
    /// [`OperateError`].
    pub async fn ask_again(&self, id: TransactionId, operator: &str) -> Result<(), OperateError> {
        let row = self
            .find(id)
            .await?
            .ok_or(OperateError::NoSuchTransaction(id))?;
        if row.state.is_decided() {
            return Err(OperateError::Decided(id, row.state.word()));
        }
        let running = self.running().map_err(OperateError::Unavailable)?;
        if !can_answer(&running, &row) {
            return Err(OperateError::NobodyCanAnswer(
                id,
                row.half.group.to_string(),
            ));
        }
        let now = running.broker.log().now();
        let request = Request {
            half: row.half.clone(),
            what: What::AskAgain { check_at: now },
            actor: Actor::Operator,
            source: operator.into(),
            evidence: String::new(),
        };
        self.say(&running, command::say(request, None))
            .await
            .map_err(OperateError::Unavailable)?;
        running.attempts.demand(row, now);
        running.wake.notify_one();
        Ok(())
    }

    /// Decides an open transaction for `operator`. One with a marker is asked about instead and decided by the answer, which
    /// may be the other way: [`Outcome::AlreadyOtherwise`] says so. With `force` the marker is ignored.
    ///
    /// # Errors
    /// [`OperateError`].
    pub async fn decide_for(
        &self,
        id: TransactionId,
        decision: Decision,
        operator: &str,
        force: bool,
    ) -> Result<Outcome, OperateError> {
        let row = self
            .find(id)
            .await?
            .ok_or(OperateError::NoSuchTransaction(id))?;
        if row.half.marker.is_some() && !force && !row.state.is_decided() {
            self.ask_again(id, operator).await?;
            self.wait_for_decision(&row).await?;
        }
        let resolution = match decision {
            Decision::Commit => Resolution::Commit,
            Decision::RollBack => Resolution::RollBack,
        };
        let request = Resolve {
            id,
            group: row.half.group,
            position: row.half.position,
            queue_offset: row.half.queue_offset,
            resolution,
            actor: if force {
                Actor::OperatorForced
            } else {
                Actor::Operator
            },
            evidence: String::new(),
            source: operator.into(),
            broker: None,
        };
        self.resolve(request)
            .await
            .map_err(|error| OperateError::Unavailable(error.to_string()))
    }

    async fn wait_for_decision(&self, row: &Row) -> Result<(), OperateError> {
        let decided = async {
            loop {
                let now = self.reader().transaction(row.half.id).await?;
                if now.is_none_or(|row| row.state.is_decided()) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, decided).await {
            Ok(result) => result,
            Err(_) => Err(OperateError::NoAnswerYet(
                row.half.id,
                row.half.group.to_string(),
            )),
        }
    }
}

fn can_answer(running: &Running, row: &Row) -> bool {
    debug_assert!(matches!(row.state, State::Prepared | State::Parked));
    let members = running.broker.clients().producers(&row.half.group);
    members.iter().any(|client| {
        row.half
            .marker
            .is_none_or(|marker| client.answers_for.contains(&marker.0))
    })
}
