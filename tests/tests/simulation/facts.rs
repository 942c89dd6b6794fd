//! What was promised and seen, across all lives of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use coordinator::client::endpoint::Outcome;
use coordinator::transaction::{Decision, State, TransactionId};

/// Shared by all tasks of a run; they run one at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts(Arc<Mutex<Book>>);

/// The facts themselves.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Half messages whose storage the coordinator has acknowledged.
    pub(super) stored: BTreeSet<TransactionId>,
    /// What the coordinator has said stands decided.
    pub(super) told: BTreeMap<TransactionId, Vec<Decision>>,
    /// Local transactions that committed, in the database of the markers.
    pub(super) business: BTreeSet<TransactionId>,
    /// Transactions that have a marker database.
    pub(super) marked: BTreeSet<TransactionId>,
    /// What SQL said at the end of earlier lives: state and number of each decision.
    pub(super) decided: BTreeMap<TransactionId, (State, u64)>,
    /// What consumers could read at a place of the queue.
    pub(super) read: BTreeMap<(u32, u64), TransactionId>,
    pub(super) counts: Counts,
}

/// What a run may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Met {
    Transaction,
    Commit,
    RollBack,
    Parked,
    PowerCut,
    Kill,
    FailedSync,
    FullDisk,
    UnknownCommit,
    UnavailableStore,
    StalledStore,
    LostWord,
    RepeatedWord,
    CheckBack,
    Fenced,
    Contradiction,
    DeadProcess,
    PublishedLate,
}

impl Met {
    const ALL: [Self; 18] = [
        Self::Transaction,
        Self::Commit,
        Self::RollBack,
        Self::Parked,
        Self::PowerCut,
        Self::Kill,
        Self::FailedSync,
        Self::FullDisk,
        Self::UnknownCommit,
        Self::UnavailableStore,
        Self::StalledStore,
        Self::LostWord,
        Self::RepeatedWord,
        Self::CheckBack,
        Self::Fenced,
        Self::Contradiction,
        Self::DeadProcess,
        Self::PublishedLate,
    ];
}

/// How often a run met what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts(BTreeMap<Met, u64>);

impl Facts {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the coordinator answered to COMMIT or ROLLBACK.
    pub(super) fn answered(&self, id: TransactionId, said: Decision, outcome: &Outcome) {
        let mut book = self.book();
        let stands = match outcome {
            Outcome::DecidedNow | Outcome::AlreadyTheSame => said,
            Outcome::AlreadyOtherwise(verdict) => {
                book.counts.add(Met::Contradiction);
                match verdict.state {
                    State::Committed => Decision::Commit,
                    State::Prepared | State::RolledBack | State::Parked => Decision::RollBack,
                }
            }
            Outcome::NoSuchHalfMessage { .. } | Outcome::Noted => return,
        };
        book.told.entry(id).or_default().push(stands);
    }
}

impl Counts {
    pub(super) fn add(&mut self, what: Met) {
        self.add_many(what, 1);
    }

    pub(super) fn add_many(&mut self, what: Met, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    pub(super) fn add_all(&mut self, others: &Self) {
        for (what, times) in &others.0 {
            self.add_many(*what, *times);
        }
    }

    pub(super) fn of(&self, what: Met) -> u64 {
        self.0.get(&what).copied().unwrap_or(0)
    }

    /// A run in which nothing happened proves nothing.
    pub(super) fn suffice(&self) -> Result<()> {
        let transactions = self.of(Met::Transaction);
        let crashes = self.of(Met::PowerCut) + self.of(Met::Kill);
        ensure!(
            transactions >= super::TRANSACTIONS,
            "only {transactions} transactions"
        );
        ensure!(crashes >= 3, "only {crashes} crashes");
        ensure!(
            self.of(Met::Commit) > 0 && self.of(Met::RollBack) > 0,
            "only one kind of decision"
        );
        Ok(())
    }

    /// All seeds together must have met every kind of trouble.
    pub(super) fn reached(&self) -> Result<()> {
        for what in Met::ALL {
            ensure!(self.of(what) > 0, "no {what:?} in all runs");
        }
        Ok(())
    }
}
