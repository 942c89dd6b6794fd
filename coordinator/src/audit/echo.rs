//! Whether the transactions' rows are what the log tells. Pure.
//!
//! The log has every half message and, behind it, a record of its decision: the final of a commit, the echo of a rollback.
//! Whoever edits the database, be it with history and seals and all, has not changed the log. Log and rows are walked
//! together, in the order of positions, so that only what is open at a place is held in memory.

use std::collections::HashMap;

use mq_core::log::Position;

use super::books::Mismatch;
use crate::store::{Half, Row};
use crate::transaction::{Decision, State, TransactionId};

/// A decision as a record of the log tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The transaction.
    pub id: TransactionId,
    /// Position of its half message.
    pub half: Position,
    /// What was decided.
    pub decision: Decision,
    /// Number of the decision.
    pub number: u64,
    /// Where the record stands.
    pub position: Position,
}

/// The walk, as far as it has come.
#[derive(Debug, Default)]
pub struct Echo {
    /// What rows say of their decisions, until the record comes by. By position of the half message.
    awaited: HashMap<Position, Awaited>,
    /// The highest number of a decision that came by.
    newest: u64,
}

#[derive(Debug)]
struct Awaited {
    id: TransactionId,
    state: State,
    number: u64,
    unpublished: bool,
}

impl Echo {
    /// Compares a half message in the log with the row at its position. Of rows that say a decision, the record is awaited.
    pub fn half(&mut self, told: &Half, row: &Row) -> Option<Mismatch> {
        if let Some(decided) = row.decided {
            let awaited = Awaited {
                id: row.half.id,
                state: row.state,
                number: decided.number,
                unpublished: row.unpublished.is_some(),
            };
            self.awaited.insert(told.position, awaited);
        }
        if *told == row.half {
            return None;
        }
        differs(told, &row.half).map(|what| Mismatch {
            transaction: told.id,
            what,
        })
    }

    /// Takes the record of a decision; `false` if no row that came by says a decision of this half message (any more).
    ///
    /// # Errors
    /// [`Mismatch`] when the row says another decision.
    pub fn decision(&mut self, recorded: &Recorded) -> Result<bool, Mismatch> {
        self.newest = self.newest.max(recorded.number);
        let Some(awaited) = self.awaited.remove(&recorded.half) else {
            return Ok(false);
        };
        let stated = (awaited.id, awaited.state, awaited.number);
        if stated == (recorded.id, recorded.decision.state(), recorded.number) {
            return Ok(true);
        }
        let what = format!(
            "its row says {} as decision {}, the log has {} as decision {}",
            awaited.state.word(),
            awaited.number,
            recorded.decision.state().word(),
            recorded.number
        );
        Err(Mismatch {
            transaction: recorded.id,
            what,
        })
    }

    /// Decisions of rows that the log should have recorded by now, and has not. Records stand in the order of their numbers,
    /// but for those that could not be published when they were due: the caller looks for such.
    #[must_use]
    pub fn unrecorded(self) -> Vec<Mismatch> {
        let due = |awaited: &Awaited| awaited.number < self.newest && !awaited.unpublished;
        let mut found: Vec<Mismatch> = self
            .awaited
            .values()
            .filter(|awaited| due(awaited))
            .map(|awaited| Mismatch {
                transaction: awaited.id,
                what: format!(
                    "its row says {} as decision {}, of which the log has no record",
                    awaited.state.word(),
                    awaited.number
                ),
            })
            .collect();
        found.sort_unstable_by_key(|mismatch| mismatch.transaction);
        found
    }
}

/// What of a row's half message is not as the log tells it.
pub(crate) fn differs(told: &Half, stated: &Half) -> Option<String> {
    let number = |what: &str, stated: u64, told: u64| {
        (stated != told).then(|| format!("its row says {what} {stated}, the log says {told}"))
    };
    let text = |what: &str, stated: &str, told: &str| {
        (stated != told).then(|| format!("its row says {what} {stated}, the log says {told}"))
    };
    let bytes = |what: &str, stated: Option<u128>, told: Option<u128>| {
        let show = |bytes: Option<u128>| bytes.map_or("none".into(), |b| format!("{b:032x}"));
        text(what, &show(stated), &show(told))
    };
    text("id", &stated.id.to_string(), &told.id.to_string())
        .or_else(|| number("prepared at", stated.prepared_at.0, told.prepared_at.0))
        .or_else(|| number("queue offset", stated.queue_offset.0, told.queue_offset.0))
        .or_else(|| number("length", stated.body_len.into(), told.body_len.into()))
        .or_else(|| text("group", stated.group.as_str(), told.group.as_str()))
        .or_else(|| text("topic", stated.topic.as_str(), told.topic.as_str()))
        .or_else(|| {
            bytes(
                "sender",
                stated.sender.map(|s| s.0),
                told.sender.map(|s| s.0),
            )
        })
        .or_else(|| {
            bytes(
                "marker",
                stated.marker.map(|m| m.0),
                told.marker.map(|m| m.0),
            )
        })
}

#[cfg(test)]
mod tests {
    use mq_core::clock::ServerTime;
    use mq_core::log::QueueOffset;
    use mq_core::names::{GroupName, TopicName};

    use super::*;
    use crate::store::Decided;

    fn row(number: u64, state: State) -> Row {
        Row {
            half: Half {
                id: TransactionId(number.into()),
                position: Position(number * 100),
                queue_offset: QueueOffset(number),
                group: GroupName::new("g").unwrap(),
                topic: TopicName::new("t").unwrap(),
                body_len: 1,
                prepared_at: ServerTime(number),
                sender: None,
                marker: None,
            },
            state,
            decided: Some(Decided {
                at: ServerTime(number),
                number,
            }),
            check_at: None,
            checks: 0,
            repeats: 0,
            contradictions: 0,
            unpublished: None,
            moved_to: None,
        }
    }

    fn recorded(number: u64, decision: Decision) -> Recorded {
        Recorded {
            id: TransactionId(number.into()),
            half: Position(number * 100),
            decision,
            number,
            position: Position(number * 1_000),
        }
    }

    /// Transactions 1 to 4 by their rows: 3 could not be published.
    fn walked() -> Echo {
        let mut echo = Echo::default();
        for number in 1..=4 {
            let mut row = row(number, State::Committed);
            row.unpublished = (number == 3).then(|| "full".into());
            assert_eq!(echo.half(&row.half.clone(), &row), None);
        }
        echo
    }

    #[test]
    fn a_decision_that_the_log_should_have_by_now_is_named() {
        let mut echo = walked();
        assert_eq!(echo.decision(&recorded(1, Decision::Commit)), Ok(true));
        // What comes after the last record may be on its way.
        assert_eq!(echo.decision(&recorded(4, Decision::Commit)), Ok(true));
        let found = echo.unrecorded();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].transaction, TransactionId(2));
        let mut echo = walked();
        assert_eq!(echo.decision(&recorded(1, Decision::Commit)), Ok(true));
        assert_eq!(echo.unrecorded(), []);
    }

    #[test]
    fn a_decision_that_the_log_has_otherwise_is_named_and_one_without_a_row_is_told() {
        let mut echo = walked();
        let error = echo.decision(&recorded(2, Decision::RollBack)).unwrap_err();
        let said = "its row says committed as decision 2, the log has rolled_back as decision 2";
        assert_eq!(error.what, said);
        assert_eq!(echo.decision(&recorded(1, Decision::Commit)), Ok(true));
        assert_eq!(echo.decision(&recorded(1, Decision::Commit)), Ok(false));
        assert_eq!(echo.decision(&recorded(9, Decision::Commit)), Ok(false));
    }
}
