//! An independent judge: reads what a run left behind and says which promises were broken, with a witness for each.
//!
//! Nothing here comes from the product: the files and tables are decoded from their documented layout, so that a mistake
//! made there is not made here as well. [`World`] is what was found; [`check`] is pure.
//!
//! | module | owns |
//! |---|---|
//! | [`facts`] | what was found, as plain values |
//! | [`agreement`] | log and SQL: rows, decisions, finals, their order |
//! | [`history`] | events and seals |
//! | `forgotten` | what may be missing since it was decided long ago |
//! | [`users`] | markers, business rows, effects, and what callers were told |
//! | [`keys`] | clients that know their messages by keys: what they said, were told and received |
//! | [`log_files`] | the log's files, decoded |
//! | [`tables`] | the coordinator's and the users' tables, read |
//! | [`source`] | a SQLite file or a Postgres schema, and its rows as plain values |
//! | [`folder`] | both of a data folder, in whatever state a kill has left it |

pub mod agreement;
pub mod facts;
pub mod folder;
mod forgotten;
pub mod history;
pub mod keys;
pub mod log_files;
pub mod source;
pub mod tables;
pub mod users;

use std::fmt;

pub use facts::World;

/// When the world was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// At any moment, also right after a crash and before recovery.
    Anytime,
    /// After everything was started again, every producer was reachable, and nothing moved any more.
    Healed,
}

/// A promise of the system that can be seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Promise {
    /// Records stand in order, queues have no gaps, bodies match their checksums.
    LogIsSound,
    /// Every half message before the watermark has the row that its record tells.
    HalfHasRow,
    /// Every half message that was acknowledged is in the log.
    AckedHalfIsKept,
    /// Every plain message that was acknowledged or received is in the log; one that was acknowledged before it was durable
    /// may be missing only with everything behind it.
    AckedMessageIsKept,
    /// A transaction has one row and at most one decision, in rows, history and log together, at each look the same.
    OneDecision,
    /// Every answer about a decision equals the row.
    AckedDecisionStands,
    /// A final, or the echo of a rollback, stands only for a decision that is in SQL, under its number.
    DecisionBeforeRecord,
    /// At most one final for a transaction; every decision up to the published number has its record.
    OneFinal,
    /// A final carries everything its half message did, in the queue it was meant for.
    FinalIsTheHalf,
    /// The finals of one queue stand in the order of their decisions.
    DecisionOrder,
    /// Nothing in SQL refers to a place behind the durable end of the log, or to another log.
    SqlWithinTheLog,
    /// Decision numbers have no gaps and end where the owner row says.
    DecisionsAreNumbered,
    /// Seals are numbered without gaps, cover every event, and their hashes are right.
    SealsAreWhole,
    /// The history of a transaction leads to its row.
    HistoryTellsTheRow,
    /// A committed transaction has its marker and its business row; any other has neither.
    MarkerAgrees,
    /// A rollback that a check-back found left a tombstone.
    TombstoneStands,
    /// A check counts only when it was answered.
    ChecksAreAnswered,
    /// No transaction is decided otherwise than its producers say.
    ProducersDecide,
    /// What a consumer received stands in the log where it was received from, and no producer says ROLLBACK to it.
    ReceivedIsPublished,
    /// An effect happened at most once, and for committed transactions only.
    EffectOnce,
    /// After healing nothing is undecided, unpublished or without its effect.
    EverythingIsSettled,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// The smallest thing that shows it.
    pub witness: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.witness)
    }
}

/// What [`check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every broken promise, in the order of [`Promise`].
    pub violations: Vec<Violation>,
}

impl Report {
    /// Whether every promise holds.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// The promises that are broken, each once.
    #[must_use]
    pub fn broken(&self) -> Vec<Promise> {
        let mut broken: Vec<Promise> = self.violations.iter().map(|v| v.promise).collect();
        broken.dedup();
        broken
    }

    fn add(&mut self, promise: Promise, witness: impl Into<String>) {
        self.violations.push(Violation {
            promise,
            witness: witness.into(),
        });
    }
}

impl fmt::Display for Report {
    /// At most five witnesses for each promise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("every promise holds");
        }
        for promise in self.broken() {
            let all: Vec<_> = self
                .violations
                .iter()
                .filter(|v| v.promise == promise)
                .collect();
            writeln!(f, "{promise:?}: {} time(s)", all.len())?;
            for violation in all.iter().take(5) {
                writeln!(f, "    {}", violation.witness)?;
            }
        }
        Ok(())
    }
}

/// Judges `world`.
#[must_use]
pub fn check(world: &World, phase: Phase) -> Report {
    let mut report = Report::default();
    if world.sql.owned {
        agreement::check(world, phase, &mut report);
        history::check(world, &mut report);
    } else {
        agreement::unowned(world, &mut report);
    }
    users::check(world, phase, &mut report);
    keys::check(world, phase, &mut report);
    report.violations.sort_by_key(|violation| violation.promise);
    report
}

#[cfg(test)]
mod tests;
