//! The history of every transaction, and the seals that show whether anyone has touched it.

pub mod books;
pub mod chain;
pub mod seal;
pub mod why;

use std::sync::Arc;

use mq_core::clock::ServerTime;

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
            _ => None,
        }
    }

    /// Whether it decides a transaction.
    #[must_use]
    pub const fn is_decision(self) -> bool {
        matches!(self, Self::Committed | Self::RolledBack)
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
        }
    }
}

/// One row of the history.
///
/// Two steps that meet in one batch share a row: `from` is [`None`], `to` the decision, `at` the time of the half message
/// and `then_at` the time of the decision.
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
    /// When the last step happened, if the row holds two.
    pub then_at: Option<ServerTime>,
    /// Connection and client the news came from; repeats, so stores keep it once.
    pub source: Arc<str>,
    /// Everything else that proves it: marker value, request, reason. At most 512 bytes, often empty.
    pub evidence: String,
}
