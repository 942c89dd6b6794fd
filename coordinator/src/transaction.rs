//! Words of the protocol: transaction ids, states, resolutions, decisions, and the one table of legal moves.

use std::fmt;
use std::str::FromStr;

use mq_core::wire::ids;

/// Identity of a transaction: a UUID v7 from our client or server. Written as 32 upper-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(pub u128);

impl TransactionId {
    /// The id that belongs to this wall clock time and these random bits (RFC 9562, version 7).
    #[must_use]
    pub fn new(wall_ms: u64, random: u128) -> Self {
        let random = random.to_be_bytes();
        let mut ten = [0; 10];
        ten.copy_from_slice(
            random
                .first_chunk::<10>()
                .expect("16 bytes have a first ten"),
        );
        Self(
            uuid::Builder::from_unix_timestamp_millis(wall_ms, &ten)
                .into_uuid()
                .as_u128(),
        )
    }

    /// The id that `text` is, if it is a UUID v7 as 32 hex digits.
    #[must_use]
    pub fn of_version_7(text: &str) -> Option<Self> {
        let id = ids::parse_hex128(text)?;
        (uuid::Uuid::from_u128(id).get_version_num() == 7).then_some(Self(id))
    }

    /// The 16 bytes as databases keep them.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id whose 16 bytes these are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032X}", self.0)
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a transaction id; expected 32 hex digits")]
pub struct NotAnId(pub String);

impl FromStr for TransactionId {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let plain: String = text.chars().filter(|c| *c != '-').collect();
        ids::parse_hex128(&plain)
            .map(Self)
            .ok_or_else(|| NotAnId(text.chars().take(40).collect()))
    }
}

/// One process life of a producer: random, new at each start, so that client ids that repeat cannot be confused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub u128);

/// Random identity of one marker table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MarkerIdentity(pub u128);

/// Where a transaction stands. The numbers are those in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// The half message is stored and nobody has decided.
    Prepared = 0,
    /// Decided: the message is published, or will be.
    Committed = 1,
    /// Decided: no consumer ever sees the message.
    RolledBack = 2,
    /// The check budget is used up; anyone may still decide.
    Parked = 3,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [
        Self::Prepared,
        Self::Committed,
        Self::RolledBack,
        Self::Parked,
    ];

    /// The state with this number in the database.
    #[must_use]
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Prepared),
            1 => Some(Self::Committed),
            2 => Some(Self::RolledBack),
            3 => Some(Self::Parked),
            _ => None,
        }
    }

    /// The number in the database.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether the state is final.
    #[must_use]
    pub const fn is_decided(self) -> bool {
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
        }
    }
}

/// What was decided, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The message becomes deliverable.
    Commit,
    /// The message never appears.
    RollBack,
}

impl Decision {
    /// The state a transaction has after this decision.
    #[must_use]
    pub const fn state(self) -> State {
        match self {
            Self::Commit => State::Committed,
            Self::RollBack => State::RolledBack,
        }
    }
}

/// What a producer says about its local transaction (RocketMQ `commitOrRollback`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The local transaction is committed.
    Commit,
    /// It is rolled back and can never commit.
    RollBack,
    /// The producer looked and cannot tell; counts as an answered check.
    Unknown,
    /// The local transaction is still running in the producer; does not count.
    InFlight,
}

/// Who caused a step. The numbers are those in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Actor {
    /// The producer, unasked.
    Producer = 1,
    /// The producer's own listener, asked by a check-back.
    CheckBack = 2,
    /// The marker in the producer's database, read for a check-back.
    Marker = 3,
    /// A person.
    Operator = 4,
    /// The coordinator itself, after a restart or by its settings.
    Recovery = 5,
    /// A person who overrode the marker.
    OperatorForced = 6,
}

impl Actor {
    /// The actor with this number in the database.
    #[must_use]
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Producer),
            2 => Some(Self::CheckBack),
            3 => Some(Self::Marker),
            4 => Some(Self::Operator),
            5 => Some(Self::Recovery),
            6 => Some(Self::OperatorForced),
            _ => None,
        }
    }

    /// The word used in tables, queries and `--json`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::CheckBack => "check-back",
            Self::Marker => "marker",
            Self::Operator => "operator",
            Self::Recovery => "recovery",
            Self::OperatorForced => "operator (forced)",
        }
    }
}

/// What can happen to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its half message became durable.
    Stored,
    /// Somebody said COMMIT.
    Commit,
    /// Somebody said ROLLBACK.
    RollBack,
    /// Its check budget is used up.
    BudgetUsed,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 4] = [Self::Stored, Self::Commit, Self::RollBack, Self::BudgetUsed];
}

/// What an event leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// A new state.
    To(State),
    /// Nothing changes and nothing is wrong: the same was said before, or the news is old.
    Stay,
    /// Nothing changes; the contradiction is refused, recorded and counted.
    Refuse,
}

/// The table of legal moves: the only place that says how a transaction changes. `None` is a transaction without a row.
///
/// A decision may come before its half message's row (`None`): it overtook the feed.
#[must_use]
pub const fn next(state: Option<State>, event: Event) -> Move {
    use Event::{BudgetUsed, Commit, RollBack, Stored};
    use State::{Committed, Parked, Prepared, RolledBack};
    match (state, event) {
        (None, Stored) => Move::To(Prepared),
        (Some(_), Stored) => Move::Stay,

        (None | Some(Prepared | Parked), Commit) => Move::To(Committed),
        (Some(Committed), Commit) => Move::Stay,
        (Some(RolledBack), Commit) => Move::Refuse,

        (None | Some(Prepared | Parked), RollBack) => Move::To(RolledBack),
        (Some(RolledBack), RollBack) => Move::Stay,
        (Some(Committed), RollBack) => Move::Refuse,

        (Some(Prepared), BudgetUsed) => Move::To(Parked),
        (None | Some(Committed | RolledBack | Parked), BudgetUsed) => Move::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_never_changes() {
        for state in [State::Committed, State::RolledBack] {
            for event in Event::ALL {
                assert!(
                    !matches!(next(Some(state), event), Move::To(_)),
                    "{state:?} {event:?}"
                );
            }
        }
    }

    #[test]
    fn a_parked_transaction_can_still_be_decided() {
        assert_eq!(
            next(Some(State::Parked), Event::Commit),
            Move::To(State::Committed)
        );
        assert_eq!(
            next(Some(State::Parked), Event::RollBack),
            Move::To(State::RolledBack)
        );
    }

    #[test]
    fn ids_are_read_back_in_either_spelling() {
        let id = TransactionId::new(1_700_000_000_000, 42);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(uuid::Uuid::from_u128(id.0).to_string().parse(), Ok(id));
        assert_eq!(uuid::Uuid::from_u128(id.0).get_version_num(), 7);
        assert!("zz".parse::<TransactionId>().is_err());
    }
}
