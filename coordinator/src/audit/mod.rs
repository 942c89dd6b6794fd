//! The history of every transaction, and the seals that show whether anyone has touched it.

pub mod books;
pub mod chain;
pub mod echo;
pub mod fingerprint;
pub mod seal;
pub mod why;

use std::sync::Arc;

use mq_core::clock::ServerTime;
use mq_core::log::Position;

use crate::store::Forgotten;
use crate::transaction::{Actor, TransactionId};

/// What a row of the history says happened. The numbers are those in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Step {
    /// The half message was stored.
    Prepared = 0,
    /// Decided: commit.
    Committed = 1,
    /// Decided: rollback.
    RolledBack = 2,
    /// The check budget was used up.
    Parked = 3,
    /// A check-back was answered with UNKNOWN.
    Unknown = 4,
    /// Somebody said the opposite of the decision; nothing changed.
    Refused = 5,
    /// The final message could not be published.
    Unpublished = 6,
    /// The final message was published after all.
    Published = 7,
    /// An operator asked for another check-back.
    AskedAgain = 8,
    /// Somebody said the same as the decision; nothing changed.
    Repeated = 9,
    /// Transactions that were decided long ago, and their history, may be removed from here on. Of no transaction.
    Forgotten = 10,
}

impl Step {
    /// The step with this number in the database.
    #[must_use]
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Prepared),
            1 => Some(Self::Committed),
            2 => Some(Self::RolledBack),
            3 => Some(Self::Parked),
            4 => Some(Self::Unknown),
            5 => Some(Self::Refused),
            6 => Some(Self::Unpublished),
            7 => Some(Self::Published),
            8 => Some(Self::AskedAgain),
            9 => Some(Self::Repeated),
            10 => Some(Self::Forgotten),
            _ => None,
        }
    }

    /// Whether it decides a transaction.
    #[must_use]
    pub const fn is_decision(self) -> bool {
        matches!(self, Self::Committed | Self::RolledBack)
    }

    /// Whether it leaves a transaction open, to be asked about later.
    #[must_use]
    pub const fn schedules(self) -> bool {
        matches!(self, Self::Prepared | Self::Unknown | Self::AskedAgain)
    }

    /// The word used in tables, queries and `--json`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Committed => "committed",
            Self::RolledBack => "rolled_back",
            Self::Parked => "parked",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::Unpublished => "unpublished",
            Self::Published => "published",
            Self::AskedAgain => "asked_again",
            Self::Repeated => "repeated",
            Self::Forgotten => "forgotten",
        }
    }
}

/// One row of the history.
///
/// Two steps that meet in one batch share a row: `from` is [`None`], `to` the decision, `at` the time of the half message
/// and `then_at` the time of the decision. Of a step that leaves a transaction open `then_at` is the time when it is asked
/// about next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Number of the row, from 1, without gaps.
    pub number: u64,
    /// The transaction.
    pub transaction: TransactionId,
    /// Where it stood before; `None` for a transaction without a row.
    pub from: Option<Step>,
    /// What happened.
    pub to: Step,
    /// Who caused it.
    pub actor: Actor,
    /// When the first step of this row happened.
    pub at: ServerTime,
    /// When the last step happened, if the row holds two; when the next check-back is due, if the transaction stays open.
    pub then_at: Option<ServerTime>,
    /// Connection and client the news came from; repeats, so stores keep it once.
    pub source: Arc<str>,
    /// Of the first event of a transaction: [`fingerprint::of_half`] of its half message. `None` of any other, and where a program
    /// wrote it that knew none.
    pub fingerprint: Option<u64>,
    /// Everything else that proves it: marker value, request, reason. At most 512 bytes, often empty.
    pub evidence: String,
}

/// How the evidence of a decision begins that a repair has written again: its number follows.
const DECISION: &str = "decision ";

impl Event {
    /// The number of the decision that this event tells of, `last` being the number of the one before; `None` if it tells of
    /// none. Decisions are numbered without gaps, but where a repair says another number.
    #[must_use]
    pub fn decision_after(&self, last: u64) -> Option<u64> {
        if !self.to.is_decision() {
            return None;
        }
        let recovered = Some(self).filter(|event| event.actor == Actor::Recovery);
        let said = recovered.and_then(|event| event.evidence.strip_prefix(DECISION));
        let said = said.and_then(|said| said.split(' ').next()?.parse().ok());
        Some(said.unwrap_or_else(|| last.saturating_add(1)))
    }
}

/// Numbers decisions while events are read in their order, some of which may be forgotten.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Numbering {
    forgotten: Forgotten,
    last: u64,
}

impl Numbering {
    /// Nothing was read yet.
    pub(crate) const fn new(forgotten: Forgotten) -> Self {
        Self { forgotten, last: 0 }
    }

    /// The same before anything was read.
    pub(crate) const fn anew(self) -> Self {
        Self::new(self.forgotten)
    }

    /// Whether `event` is one of those that may be missing.
    pub(crate) const fn may_miss(&self, event: u64) -> bool {
        self.forgotten.event > 1 && event < self.forgotten.event
    }

    /// The number of the decision that the next event tells of; 0 where others before it may be missing, so that nobody can
    /// count. `None` if it tells of none.
    pub(crate) fn of(&mut self, event: &Event) -> Option<u64> {
        if self.may_miss(event.number) {
            return event.to.is_decision().then_some(0);
        }
        let number = event.decision_after(self.last())?;
        self.last = number;
        Some(number)
    }

    /// The number of the last decision.
    pub(crate) fn last(&self) -> u64 {
        self.last.max(self.forgotten.decisions)
    }

    /// The number that a row states, as far as events can tell it: 0 if they cannot.
    pub(crate) const fn comparable(&self, stated: u64) -> u64 {
        if stated > self.forgotten.decisions {
            stated
        } else {
            0
        }
    }
}

/// How the evidence of an event begins that says how far history is forgotten.
const FORGOTTEN: &str = "events before ";

impl Event {
    /// How far history may be removed, if this event tells that.
    #[must_use]
    pub fn forgets(&self) -> Option<Forgotten> {
        if self.to != Step::Forgotten {
            return None;
        }
        let (event, rest) = self.evidence.strip_prefix(FORGOTTEN)?.split_once(',')?;
        let decisions = rest.rsplit(' ').next()?;
        Some(Forgotten {
            event: event.parse().ok()?,
            decisions: decisions.parse().ok()?,
        })
    }
}

/// The evidence of an event that says how far history is forgotten.
#[must_use]
pub(crate) fn forgotten(told: &Forgotten) -> String {
    let Forgotten { event, decisions } = told;
    format!("{FORGOTTEN}{event}, decisions up to {decisions}")
}

/// The evidence of decision `number` that a repair found at position `record` of the log.
#[must_use]
pub(crate) fn repaired(number: u64, record: Position) -> String {
    format!("{DECISION}{number} of the log, at position {record}")
}
