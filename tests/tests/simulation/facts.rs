//! What was promised and seen, across all lives of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use coordinator::client::endpoint::{Outcome, Resolve};
use coordinator::marker::Marker;
use coordinator::store::Row;
use coordinator::transaction::{Decision, State, TransactionId};
use mq_core::clock::ServerTime;
use mq_core::log::Position;

/// A place in the order in which everything of a run happened.
pub(super) type Moment = u64;

/// A queue, and an offset in it.
pub(super) type Place = (u32, u64);

/// What a message in a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The final of a transaction.
    Final(TransactionId),
    /// The plain message that was sent behind the acknowledged COMMIT of one.
    Plain(TransactionId),
}

/// Shared by all tasks of a run; they run one at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts(Arc<Mutex<Book>>);

/// What the coordinator has said stands decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) decision: Decision,
    pub(super) at: Moment,
}

/// When the word came that decided, and when its answer left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spoken {
    pub(super) invoked: Moment,
    pub(super) acked: Moment,
}

/// What SQL has said of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stood {
    pub(super) state: State,
    pub(super) number: u64,
    /// Where the half message was stored first.
    pub(super) half: Position,
    pub(super) has_marker: bool,
}

impl Stood {
    /// What a row says; `None` while it is open.
    pub(super) fn of(row: &Row) -> Option<Self> {
        Some(Self {
            state: row.state,
            number: row.decided?.number,
            half: row.half.position,
            has_marker: row.half.marker.is_some(),
        })
    }
}

/// The facts themselves.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Half messages whose storage the coordinator has acknowledged, and where.
    pub(super) stored: BTreeMap<TransactionId, Position>,
    /// What the coordinator has said stands decided.
    pub(super) told: BTreeMap<TransactionId, Vec<Told>>,
    /// Decisions by the word that made them.
    pub(super) spoken: BTreeMap<TransactionId, Spoken>,
    /// What SQL has said of decisions so far, whether or not it still has their rows.
    pub(super) decided: BTreeMap<TransactionId, Stood>,
    /// How long SQL keeps decisions at least.
    pub(super) keep_history: Option<Duration>,
    /// The newest word about a transaction.
    pub(super) words: BTreeMap<TransactionId, Resolve>,
    /// Numbers that a repair has skipped, since the log has no record of such a decision.
    pub(super) skipped: BTreeSet<u64>,
    /// What consumers could read at a place of the queue: what it is, and a checksum of its bytes.
    pub(super) read: BTreeMap<Place, (Kind, u32)>,
    /// Where in the log the messages of the queues stand or stood, each noted before the log could delete it.
    pub(super) positions: BTreeMap<Place, Position>,
    /// Where the final of a transaction was read.
    pub(super) finals: BTreeMap<TransactionId, Place>,
    /// Where the plain message was read that was sent when the COMMIT of a transaction was acknowledged.
    pub(super) plain: BTreeMap<TransactionId, Place>,
    /// Where such a message stands as its sender was told.
    pub(super) sent: BTreeMap<TransactionId, Place>,
    /// Transactions whose final the log could not take in its time.
    pub(super) late: BTreeSet<TransactionId>,
    /// How often a check-back was sent, and how often UNKNOWN came as an answer to one.
    pub(super) asked: BTreeMap<TransactionId, u32>,
    pub(super) unknown: BTreeMap<TransactionId, u32>,
    /// Transactions that an operator wanted to be asked about.
    pub(super) demanded: BTreeSet<TransactionId>,
    /// What stood in the services' database when it was last looked at, and what the library has deleted there.
    pub(super) markers: BTreeMap<TransactionId, Marker>,
    pub(super) pruned: BTreeSet<TransactionId>,
    /// Those whose decision was lost with its database when their marker was deleted already: nobody knows any more.
    pub(super) unproved: BTreeSet<TransactionId>,
    /// Everything of ours in the log before it was compared with SQL.
    pub(super) compared: Position,
    /// Where the log began when it was last looked at.
    pub(super) log_begins: Position,
    /// Where the log of the running server begins, or that of the last one began, after a crash too.
    pub(super) begins: Position,
    /// The latest server time seen.
    pub(super) server_time: ServerTime,
    /// How far server time has gone back in a crash, at most: what the log had not written of it.
    pub(super) went_back: Duration,
    /// SQL was put back, and no server has started over it since.
    pub(super) put_back: bool,
    /// Somebody writes what a database lacks.
    pub(super) repairing: bool,
    /// How many have taken the store over.
    pub(super) owners: u64,
    /// Number of the last SQL batch.
    pub(super) batch: u64,
    /// Number of the last SQL batch that its writer knows is in, in this life of the server.
    pub(super) known_batch: u64,
    /// The highest number of an SQL batch that some durable batch of the log is sure to carry.
    pub(super) stamped: u64,
    /// What was handed to the log between two such moments is durable.
    durable: Vec<(Moment, Moment)>,
    turned: Moment,
    moment: Moment,
    /// How many reasons there are that the log's disk counts as full.
    pub(super) full: u32,
    /// The first promise that was found broken where nobody could return it.
    broken: Option<String>,
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
    /// The log could not write checkpoints for a while.
    NoCheckpoint,
    UnknownCommit,
    UnavailableStore,
    StalledStore,
    LostWord,
    RepeatedWord,
    LostConnection,
    CheckBack,
    CheckOfAnother,
    Fenced,
    MarkerFault,
    /// A check-back came while the local transaction was open.
    LockedMarker,
    /// The library has deleted a marker.
    MarkerPruned,
    Contradiction,
    DeadProcess,
    PublishedLate,
    /// An operator asked about a transaction, or decided it.
    Operator,
    /// The wall clock jumped by days.
    WallJump,
    /// A second coordinator has opened the store while the first one ran.
    TakeOver,
    /// A commit of the first one was refused then.
    RefusedOwner,
    /// SQL was put back between two lives.
    Restore,
    /// SQL was put back under a running coordinator, which has stopped for that reason.
    FailOver,
    /// A start over an older database was refused.
    RefusedStart,
    /// A database got from the log what it lacked.
    Repair,
    /// A repair did not come to its end, and another did.
    InterruptedRepair,
    /// A start over an older log was refused.
    OlderLog,
    /// The lost end of a database came back after a repair, and was refused.
    LostEnd,
    /// Segments of the log were deleted.
    Deleted,
    /// A half message was decided that stands where it was carried to.
    DecidedCarried,
    /// What a database lacked was deleted from the log, and the newer one had to be brought back.
    TooOld,
    /// A decision of which the log had no record was lost with its database, and was open again.
    OpenAgain,
    /// A decided transaction was forgotten.
    Forgotten,
    /// A decision that came for a forgotten transaction was refused.
    LateRefused,
    /// A plain message that was sent behind an acknowledged COMMIT stands behind its final.
    PlainBehind,
}

impl Met {
    const ALL: [Self; 42] = [
        Self::Transaction,
        Self::Commit,
        Self::RollBack,
        Self::Parked,
        Self::PowerCut,
        Self::Kill,
        Self::FailedSync,
        Self::FullDisk,
        Self::NoCheckpoint,
        Self::UnknownCommit,
        Self::UnavailableStore,
        Self::StalledStore,
        Self::LostWord,
        Self::RepeatedWord,
        Self::LostConnection,
        Self::CheckBack,
        Self::CheckOfAnother,
        Self::Fenced,
        Self::MarkerFault,
        Self::LockedMarker,
        Self::MarkerPruned,
        Self::Contradiction,
        Self::DeadProcess,
        Self::PublishedLate,
        Self::Operator,
        Self::WallJump,
        Self::TakeOver,
        Self::RefusedOwner,
        Self::Restore,
        Self::FailOver,
        Self::RefusedStart,
        Self::Repair,
        Self::InterruptedRepair,
        Self::OlderLog,
        Self::LostEnd,
        Self::Deleted,
        Self::DecidedCarried,
        Self::TooOld,
        Self::OpenAgain,
        Self::Forgotten,
        Self::LateRefused,
        Self::PlainBehind,
    ];
}

/// How often a run met what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts(BTreeMap<Met, u64>);

impl Facts {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn met(&self, what: Met) {
        self.book().counts.add(what);
    }

    /// A promise is broken: the run ends at the next look.
    pub(super) fn broken(&self, what: String) {
        self.book().broken.get_or_insert(what);
    }

    /// What the coordinator answered to COMMIT or ROLLBACK, which came at `invoked`.
    pub(super) fn answered(
        &self,
        id: TransactionId,
        said: Decision,
        invoked: Moment,
        outcome: &Outcome,
    ) {
        let mut book = self.book();
        let at = book.now();
        let decision = match outcome {
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
        if *outcome == Outcome::DecidedNow {
            book.spoken.insert(id, Spoken { invoked, acked: at });
        }
        book.told.entry(id).or_default().push(Told { decision, at });
    }
}

impl Book {
    /// Takes note of a message in a queue, which stands there once and for ever.
    pub(super) fn stands(&mut self, place: Place, what: Kind) -> Result<()> {
        let (places, id) = match what {
            Kind::Final(id) => (&mut self.finals, id),
            Kind::Plain(id) => (&mut self.plain, id),
        };
        let first = *places.entry(id).or_insert(place);
        ensure!(
            first == place,
            "{what:?} is published at {first:?} and {place:?}"
        );
        Ok(())
    }

    /// Takes note of where in the log a message of a queue stands, which never changes.
    pub(super) fn stands_at(&mut self, place: Place, position: Position) -> Result<()> {
        let first = *self.positions.entry(place).or_insert(position);
        ensure!(
            first == position,
            "the message at {place:?} stood at {first} and stands at {position}"
        );
        Ok(())
    }

    /// The messages of a queue before the offset `first` may be missing in a log that begins at `begins`: they stood before.
    pub(super) fn are_deleted(&self, queue: u32, first: u64, begins: Position) -> Result<()> {
        let Some(last) = first.checked_sub(1) else {
            return Ok(());
        };
        // Those before it stand before it.
        let stood = self.positions.get(&(queue, last)).copied();
        ensure!(
            stood.is_some_and(|stood| stood < begins),
            "queue {queue} begins at offset {first}; offset {last} stood at {stood:?}, and the log begins at {begins}"
        );
        Ok(())
    }

    /// Takes note of what SQL says of a decision, and says what it said before if that was something else.
    pub(super) fn stood(&mut self, id: TransactionId, stood: Stood) -> Option<Stood> {
        let first = *self.decided.entry(id).or_insert(stood);
        Some(first).filter(|first| *first != stood)
    }

    /// A new moment.
    pub(super) fn now(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    /// A new life of the server: what it has not handed to its log is not there.
    pub(super) fn begin_life(&mut self) {
        self.turned = self.now();
        (self.full, self.known_batch) = (0, 0);
    }

    /// The log has written and synced everything that it was handed before `begun`, while SQL's batch `known` was known to be
    /// in; `grew` if that was anything at all.
    pub(super) fn turned(&mut self, begun: Moment, known: u64, grew: bool) {
        let from = std::mem::replace(&mut self.turned, begun);
        if grew {
            self.stamped = self.stamped.max(known);
        }
        if self.full > 0 {
            return;
        }
        match self.durable.last_mut() {
            Some((_, to)) if *to == from => *to = begun,
            Some(_) | None => self.durable.push((from, begun)),
        }
    }

    /// Whether the record of a decision that was acknowledged at `at` is sure to be durable.
    pub(super) fn is_durable(&self, at: Moment) -> bool {
        let mut durable = self.durable.iter();
        durable.any(|(from, to)| (*from..*to).contains(&at))
    }

    /// Fails if a promise was found broken.
    pub(super) fn check(&self) -> Result<()> {
        match &self.broken {
            Some(what) => bail!("{what}"),
            None => Ok(()),
        }
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
