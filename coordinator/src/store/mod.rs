//! The SQL side of every transaction: rows, history, seals and the one owner, as promises.
//!
//! A store is written by one [`TxWriter`] at a time and read by anyone through [`TxReader`]. All writing is in
//! [`Batch`]es that are whole or absent. The engine computes what a batch says; a store only keeps it.
//!
//! Promises of every store, checked by [`conformance`]:
//!
//! - A batch is committed with all its rows, events and its seal, or not at all, and is durable once `commit` returned.
//! - A writer whose epoch or sequence number is not the store's writes nothing ([`CommitError::TakenOver`]).
//! - A decided row keeps its decision, whatever a batch says ([`CommitError::Refused`]).
//! - Events and seals can be added, never changed, by this connection or any other of the application's. Seals are never
//!   removed; events and decided rows only as far as they are [`Forgotten`].
//! - Numbers are kept exactly up to 2^63 - 1; a larger one is [`CommitError::Refused`], except that a check time beyond is
//!   kept as that largest time, which means *never*.
//! - Seals, events and decisions are numbered without gaps, except that a batch of a repair skips at least [`SKIPPED`]
//!   numbers of seals and may skip numbers of decisions. Watermark and `published` never go back: a batch that does not
//!   follow the owner row is [`CommitError::Refused`].

pub mod conformance;
pub mod database;
pub mod model;
mod names;
#[cfg(feature = "postgres")]
pub mod postgres;
pub(crate) mod shape;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use mq_core::clock::ServerTime;
use mq_core::log::{LogId, Position, QueueOffset};
use mq_core::names::{GroupName, TopicName};
use tokio::sync::mpsc;

use crate::audit::Event;
use crate::audit::seal::{Hash, Seal};
use crate::transaction::{Incarnation, MarkerIdentity, State, TransactionId};

/// The command that writes the decisions a database lacks from their records in the log; errors that it mends name it.
pub const REPAIR: &str = "halfmoon repair";

/// How many numbers of seals a batch of a repair skips at least: more than there can have been batches of which the log has
/// not heard when they were lost.
pub const SKIPPED: u64 = 1 << 20;

/// What a stored half message is, apart from what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Half {
    /// The transaction.
    pub id: TransactionId,
    /// Where the half message was first stored: its identity on the wire, for ever.
    pub position: Position,
    /// Its number in the half queue.
    pub queue_offset: QueueOffset,
    /// The producer group.
    pub group: GroupName,
    /// The topic the message is for.
    pub topic: TopicName,
    /// Length of the body in bytes.
    pub body_len: u32,
    /// Server time at which it became durable.
    pub prepared_at: ServerTime,
    /// Process incarnation of the sender, if it told one.
    pub sender: Option<Incarnation>,
    /// Identity of the database that holds the marker, if there is one.
    pub marker: Option<MarkerIdentity>,
}

/// When and as how many-th a transaction was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// Server time of the decision.
    pub at: ServerTime,
    /// Number of the decision, from 1, without gaps, over all transactions.
    pub number: u64,
}

/// One transaction as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The half message.
    pub half: Half,
    /// Where the transaction stands.
    pub state: State,
    /// The decision, when there is one.
    pub decided: Option<Decided>,
    /// When the next check-back is due; `None` once decided or parked.
    pub check_at: Option<ServerTime>,
    /// How many check-backs were answered with UNKNOWN.
    pub checks: u32,
    /// How often the decision was repeated by someone.
    pub repeats: u32,
    /// How often someone said the opposite of the decision.
    pub contradictions: u32,
    /// Why the final message could not be published, if that is so.
    pub unpublished: Option<String>,
    /// Where the newest copy of the half message stands in the log, if it was carried forward from its first place.
    pub moved_to: Option<Position>,
}

impl Row {
    /// Where the log has the half message.
    #[must_use]
    pub fn stored_at(&self) -> Position {
        self.moved_to.unwrap_or(self.half.position)
    }
}

/// A change to a row that is already in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Decide it. Only a row that is prepared or parked takes this.
    Decide {
        /// [`State::Committed`] or [`State::RolledBack`].
        state: State,
        /// When and as how many-th.
        decided: Decided,
    },
    /// A check-back was answered, or shall be made at another time. Only a prepared row takes this.
    Check {
        /// The new count.
        checks: u32,
        /// When to ask next.
        check_at: ServerTime,
    },
    /// The budget is used up. Only a prepared row takes this.
    Park {
        /// The new count.
        checks: u32,
    },
    /// Someone repeated the decision, or contradicted it.
    Count {
        /// Added to the repeats.
        repeats: u32,
        /// Added to the contradictions.
        contradictions: u32,
    },
    /// The final message could not be published (`Some`), or was after all (`None`).
    Unpublished(Option<String>),
    /// The half message was carried forward to this position, behind where it stood.
    Move(Position),
}

/// The one row that says who may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The log this store belongs to.
    pub log: LogId,
    /// Raised by each writer that takes over.
    pub epoch: u64,
    /// Number of the writer's connection; 0 in a store whose writer needs no other way to know that an older one is gone.
    pub link: u64,
    /// Number of the last batch.
    pub seq: u64,
    /// Random id of the last batch.
    pub batch: u128,
    /// Every durable record of ours before this position is reflected in the store.
    pub watermark: Position,
    /// The last decision number whose record (the final message, or the echo of a rollback) is durable in the log.
    pub published: u64,
    /// The highest decision number given.
    pub last_decision: u64,
    /// The number the next event gets.
    pub next_event: u64,
    /// Hash of the last seal, zeros before the first.
    pub head: Hash,
    /// [`fingerprint::of_owner`](crate::audit::fingerprint::of_owner) of all of the above, so that an edit by hand shows.
    pub fingerprint: u64,
}

/// Everything one SQL transaction writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Random id, by which an unknown outcome is found out.
    pub id: u128,
    /// The watermark after it.
    pub watermark: Position,
    /// Transactions without a row so far, decided already or not. Ordered by position, each position once.
    pub new: Vec<Row>,
    /// Changes to rows that exist, and [`Change::Move`] also to new ones; at most one for a row, except that a [`Change::Count`], [`Change::Unpublished`] and
    /// [`Change::Move`] may each stand beside another.
    pub changes: Vec<(Position, Change)>,
    /// The history, numbered from [`Owner::next_event`] on.
    pub events: Vec<Event>,
    /// The seal over `events`; its `seq` is the owner's plus one, and it says `published`.
    pub seal: Seal,
}

/// How far history may be removed. It only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Events before this one, of transactions whose rows are removed.
    pub event: u64,
    /// Decisions up to this one; events before [`Self::event`] tell of all of them and of no other.
    pub decisions: u64,
}

impl Default for Forgotten {
    /// Nothing.
    fn default() -> Self {
        Self {
            event: 1,
            decisions: 0,
        }
    }
}

/// Why a batch is not known to be in the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Another process has taken the store over. Nothing was written, and nothing ever will be: stop.
    #[error("another process has taken over the database")]
    TakenOver,
    /// The database lacks what this writer has committed: it was put back, or replaced by a replica that misses the last
    /// commits. Nothing was written, and nothing ever will be: stop.
    #[error(
        "the database is older than what was committed to it: {0}; bring the newer database back, or run `{REPAIR}`, and start again"
    )]
    Older(String),
    /// The outcome is unknown: call [`TxWriter::find_out`] before anything else.
    #[error("the outcome of a commit is unknown: {0}")]
    Unknown(String),
    /// The database refuses something in this batch; nothing was written. Smaller batches may pass.
    #[error("the database refuses the batch: {0}")]
    Refused(String),
    /// The database cannot write now (full, locked, gone); nothing was written. Try the same batch again.
    #[error("the database cannot write: {0}")]
    Unavailable(String),
}

/// Why a store cannot be opened or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database is somebody else's, newer than this program, of a refused version, or belongs to another log.
    #[error("{0}")]
    Foreign(String),
    /// The database cannot be reached, read or written; trying again may help.
    #[error("the database cannot be used: {0}")]
    Unavailable(String),
    /// What is stored contradicts itself.
    #[error("the database is damaged: {0}")]
    Damaged(String),
}

impl StoreError {
    /// The same; if it is about something stored, it says first that this is in `place`.
    fn of(self, place: impl fmt::Display) -> Self {
        match self {
            Self::Damaged(why) => Self::Damaged(format!("{place}: {why}")),
            Self::Foreign(_) | Self::Unavailable(_) => self,
        }
    }
}

/// What became of a batch whose commit had an unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is in the store.
    Done,
    /// It is not, and never will be: commit it again.
    Redo,
}

/// Which transactions a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those of this producer group.
    pub group: Option<GroupName>,
    /// Only those for this topic.
    pub topic: Option<TopicName>,
    /// Only those that could not be published.
    pub unpublished: bool,
    /// Only those whose half message stands behind this position: the last of the page before.
    pub after: Option<Position>,
    /// At most so many.
    pub limit: u32,
}

/// What is open in one producer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenGroup {
    /// The group.
    pub group: GroupName,
    /// Its prepared transactions.
    pub prepared: u64,
    /// Its parked transactions.
    pub parked: u64,
    /// Server time of the oldest of them.
    pub oldest: ServerTime,
}

/// A store of transactions.
#[async_trait]
pub trait TxStore: fmt::Debug + Send + Sync + 'static {
    /// Becomes the one writer: checks that the store belongs to `log` (an empty store is paired with it), raises the
    /// epoch and returns the owner row as it now is. Older writers write nothing from here on.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] when the store belongs to another log. Nothing was changed.
    async fn take_over(&self, log: LogId) -> Result<(Box<dyn TxWriter>, Owner), StoreError>;

    /// A reader over connections of its own. Reading never blocks the writer.
    fn reader(&self) -> Arc<dyn TxReader>;

    /// Closes the connections for reading. Readers may fail from here on; a writer goes on.
    async fn close(&self) {}
}

/// The one writer of a store. Dropping a future of it may still take effect: let none be dropped.
#[async_trait]
pub trait TxWriter: fmt::Debug + Send {
    /// Commits `batch` if this writer still owns the store.
    ///
    /// # Errors
    /// [`CommitError`]; after `Unknown` only [`TxWriter::find_out`] may be called.
    async fn commit(&mut self, batch: &Batch) -> Result<(), CommitError>;

    /// After an unknown outcome: connects again and looks what became of the batch with id `batch`.
    ///
    /// # Errors
    /// [`CommitError::TakenOver`], [`CommitError::Older`], or [`CommitError::Unavailable`]: ask again.
    async fn find_out(&mut self, batch: u128) -> Result<Fate, CommitError>;

    /// Removes rows of transactions up to `far`, at most `limit`, with all their events; returns how many rows and events that
    /// were, 0 once there are no more. A row stays as long as the log keeps its half message, which is from position
    /// `kept` on, as long as its final could not be published, and as long as its history goes on behind `far`.
    ///
    /// # Errors
    /// [`CommitError`]; with any of them nothing is wrong, and the same may be asked again.
    async fn forget(
        &mut self,
        far: Forgotten,
        kept: Position,
        limit: u32,
    ) -> Result<u64, CommitError>;

    /// The rows of these half messages as the writer's own connection sees them, in any order; missing ones are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Damaged`]; [`StoreError::Foreign`] when the database is no longer this
    /// writer's, or lacks what it has committed.
    async fn rows(&mut self, positions: &[Position]) -> Result<Vec<Row>, StoreError>;

    /// Lets go of the store. Returns once nothing of this writer is open any more; writing again opens it anew.
    async fn close(&mut self) {}
}

/// Reading, from anywhere, at any time.
#[async_trait]
pub trait TxReader: fmt::Debug + Send + Sync {
    /// The owner row; `None` while the store belongs to no log yet.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn owner(&self) -> Result<Option<Owner>, StoreError>;

    /// The row of a transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn transaction(&self, id: TransactionId) -> Result<Option<Row>, StoreError>;

    /// Those of `ids` whose transactions are committed, in any order.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn committed(&self, ids: &[TransactionId]) -> Result<Vec<TransactionId>, StoreError>;

    /// Rows by [`Filter`], in order of position.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn list(&self, filter: &Filter) -> Result<Vec<Row>, StoreError>;

    /// Prepared rows of `group` whose `check_at` is not after `now`, in order of (`check_at`, position), behind `after`, at
    /// most `limit`. Its cost grows with the rows returned, never with rows of other groups.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn due(
        &self,
        group: &GroupName,
        now: ServerTime,
        after: Option<(ServerTime, Position)>,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError>;

    /// How many transactions are open, by topic: prepared, parked, or committed and not to be published yet.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn open_topics(&self) -> Result<Vec<(TopicName, u64)>, StoreError>;

    /// How many transactions are open, by group: the state is prepared or parked, oldest first within a group.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn open_groups(&self) -> Result<Vec<OpenGroup>, StoreError>;

    /// Prepared rows of these senders, at most `limit`, behind `after`, in order of position.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn open_of(
        &self,
        senders: &[Incarnation],
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError>;

    /// Rows whose half message is still needed and stands in the log before `before`: prepared, parked, or decided without a
    /// durable record of that in the log, since a database that is put back may know less; in order of position, behind
    /// `after`, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn needed(
        &self,
        before: Position,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError>;

    /// Decided rows with a decision number above `after`, in order of decision, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn decided_after(&self, after: u64, limit: u32) -> Result<Vec<Row>, StoreError>;

    /// How far history is forgotten.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn forgotten(&self) -> Result<Forgotten, StoreError>;

    /// The history of a transaction, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn events(&self, id: TransactionId) -> Result<Vec<Event>, StoreError>;

    /// All events from number `from` on, at most `limit`; from 0, also any that stand below the first by somebody's hand.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn history(&self, from: u64, limit: u32) -> Result<Vec<Event>, StoreError>;

    /// Seals from `from` on, at most `limit`; from 0, also any that stand below the first by somebody's hand.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn seals(&self, from: u64, limit: u32) -> Result<Vec<Seal>, StoreError>;

    /// The events from number `from` up to, not including, `behind`: for whoever reads millions of them.
    fn every_event(&self, from: u64, behind: u64) -> Pages<Event>;

    /// All rows in order of position, as [`TxReader::every_event`]. What no batch can have written is [`StoreError::Damaged`],
    /// also where it troubles nobody else.
    fn every_row(&self) -> Pages<Row>;
}

/// Pages that are read ahead by a task of their own, until the last one, an error, or nobody wants more. They are not of one
/// moment: what is written meanwhile may stand in later ones.
pub type Pages<T> = mpsc::Receiver<Result<Vec<T>, StoreError>>;

/// How many pages are read ahead: all that one statement reads, so that the next one runs while they are looked at.
const AHEAD: usize = STATEMENT as usize / PAGE;
/// Rows of a page: as many as fit into memory that is used again and again.
const PAGE: usize = 256;
/// Rows that one statement reads, so that it does not hold the database's clean-up back for long.
const STATEMENT: u32 = 8_192;

#[cfg(test)]
mod tests;
