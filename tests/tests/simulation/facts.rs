//! What was promised and seen, across all lives of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;
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

/// What a run met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) transactions: u64,
    pub(super) committed: u64,
    pub(super) rolled_back: u64,
    pub(super) parked: u64,
    pub(super) power_cuts: u64,
    pub(super) kills: u64,
    pub(super) failed_syncs: u64,
    pub(super) full_disks: u64,
    pub(super) unknown_commits: u64,
    pub(super) unavailable_commits: u64,
    pub(super) stalls: u64,
    pub(super) lost_words: u64,
    pub(super) repeated_words: u64,
    pub(super) asked: u64,
    pub(super) fenced: u64,
    pub(super) contradictions: u64,
    pub(super) dead_processes: u64,
    pub(super) published_late: u64,
}

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
                book.counts.contradictions += 1;
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
    fn each(&self) -> [(&'static str, u64); 18] {
        [
            ("transactions", self.transactions),
            ("commits", self.committed),
            ("rollbacks", self.rolled_back),
            ("parked transactions", self.parked),
            ("power cuts", self.power_cuts),
            ("kills", self.kills),
            ("failed fsyncs", self.failed_syncs),
            ("full disks", self.full_disks),
            ("commits of unknown outcome", self.unknown_commits),
            ("unavailable databases", self.unavailable_commits),
            ("stalled databases", self.stalls),
            ("lost words", self.lost_words),
            ("repeated words", self.repeated_words),
            ("check-backs", self.asked),
            ("fenced transactions", self.fenced),
            ("contradictions", self.contradictions),
            ("dead processes", self.dead_processes),
            ("finals that had to wait", self.published_late),
        ]
    }

    /// A run in which nothing happened proves nothing.
    pub(super) fn suffice(&self) -> Result<()> {
        let crashes = self.power_cuts + self.kills;
        ensure!(
            self.transactions >= 100,
            "only {} transactions",
            self.transactions
        );
        ensure!(crashes >= 3, "only {crashes} crashes");
        ensure!(
            self.committed > 0 && self.rolled_back > 0,
            "only one kind of decision"
        );
        Ok(())
    }

    /// All seeds together must have met every kind of trouble.
    pub(super) fn reached(&self) -> Result<()> {
        for (what, times) in self.each() {
            ensure!(times > 0, "no {what}");
        }
        Ok(())
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let sum = |a: &mut u64, b: u64| *a += b;
        sum(&mut self.transactions, other.transactions);
        sum(&mut self.committed, other.committed);
        sum(&mut self.rolled_back, other.rolled_back);
        sum(&mut self.parked, other.parked);
        sum(&mut self.power_cuts, other.power_cuts);
        sum(&mut self.kills, other.kills);
        sum(&mut self.failed_syncs, other.failed_syncs);
        sum(&mut self.full_disks, other.full_disks);
        sum(&mut self.unknown_commits, other.unknown_commits);
        sum(&mut self.unavailable_commits, other.unavailable_commits);
        sum(&mut self.stalls, other.stalls);
        sum(&mut self.lost_words, other.lost_words);
        sum(&mut self.repeated_words, other.repeated_words);
        sum(&mut self.asked, other.asked);
        sum(&mut self.fenced, other.fenced);
        sum(&mut self.contradictions, other.contradictions);
        sum(&mut self.dead_processes, other.dead_processes);
        sum(&mut self.published_late, other.published_late);
    }
}
