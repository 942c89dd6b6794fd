//! Transactions and steps as `--json` prints them, under the names of the database's views. Pure.

use coordinator::audit::Event;
use coordinator::store::Row;
use coordinator::transaction::State;
use serde::Serialize;

use crate::date;
use crate::output::Tone;

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TransactionView {
    pub(crate) id: String,
    pub(crate) producer_group: String,
    pub(crate) topic: String,
    pub(crate) state: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) position: u64,
    pub(crate) queue_offset: u64,
    pub(crate) body_len: u32,
    pub(crate) prepared_at: u64,
    pub(crate) decided_at: Option<u64>,
    pub(crate) open_us: Option<u64>,
    pub(crate) check_at: Option<u64>,
    pub(crate) checks: u32,
    pub(crate) decision_no: Option<u64>,
    pub(crate) repeats: u32,
    pub(crate) contradictions: u32,
    pub(crate) unpublished_reason: Option<String>,
    pub(crate) sender: Option<String>,
    pub(crate) marker: Option<String>,
}

impl TransactionView {
    /// The row as it looks when finals up to decision number `published` are durable.
    pub(crate) fn new(row: &Row, published: u64) -> Self {
        let half = &row.half;
        let decided_at = row.decided.map(|decided| decided.at);
        let open = decided_at.map(|at| at.since(half.prepared_at).as_micros());
        Self {
            id: half.id.to_string(),
            producer_group: half.group.to_string(),
            topic: half.topic.to_string(),
            state: row.state.word(),
            outcome: outcome(row, published),
            position: half.position.0,
            queue_offset: half.queue_offset.0,
            body_len: half.body_len,
            prepared_at: half.prepared_at.0,
            decided_at: decided_at.map(|at| at.0),
            open_us: open.map(|us| u64::try_from(us).unwrap_or(u64::MAX)),
            check_at: row.check_at.map(|at| at.0),
            checks: row.checks,
            decision_no: row.decided.map(|decided| decided.number),
            repeats: row.repeats,
            contradictions: row.contradictions,
            unpublished_reason: row.unpublished.clone(),
            sender: half.sender.map(|sender| format!("{:032X}", sender.0)),
            marker: half.marker.map(|marker| format!("{:032X}", marker.0)),
        }
    }
}

/// The state, with what became of a commit.
fn outcome(row: &Row, published: u64) -> &'static str {
    match (row.state, row.decided) {
        (State::Committed, _) if row.unpublished.is_some() => "unpublished",
        (State::Committed, Some(decided)) if decided.number <= published => "published",
        (state, _) => state.word(),
    }
}

/// What an outcome means to whoever looks at it.
pub(crate) fn tone(outcome: &str) -> Tone {
    match outcome {
        "published" | "committed" => Tone::Good,
        "parked" => Tone::Warning,
        "unpublished" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// One step of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct StepView {
    pub(crate) event: u64,
    pub(crate) id: String,
    pub(crate) from_step: Option<&'static str>,
    pub(crate) step: &'static str,
    pub(crate) actor: &'static str,
    pub(crate) at: u64,
    pub(crate) then_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recorded_at: Option<String>,
    /// Of the half message's row, in hex: the seal covers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    pub(crate) source: String,
    pub(crate) evidence: String,
}

impl StepView {
    /// The event; `wall_ms` is the wall clock of the batch that recorded it, if that was looked up.
    pub(crate) fn new(event: &Event, wall_ms: Option<u64>) -> Self {
        Self {
            event: event.number,
            id: event.transaction.to_string(),
            from_step: event.from.map(|step| step.word()),
            step: event.to.word(),
            actor: event.actor.word(),
            at: event.at.0,
            then_at: event.then_at.map(|at| at.0),
            recorded_at: wall_ms.map(date::utc),
            fingerprint: event.fingerprint.map(|bits| format!("{bits:016x}")),
            source: event.source.to_string(),
            evidence: event.evidence.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coordinator::store::{Decided, Half};
    use coordinator::transaction::TransactionId;
    use mq_core::clock::ServerTime;
    use mq_core::log::{Position, QueueOffset};
    use mq_core::names::{GroupName, TopicName};

    fn committed(number: u64) -> Row {
        Row {
            half: Half {
                id: TransactionId(7),
                position: Position(64),
                queue_offset: QueueOffset(0),
                group: GroupName::new("g").unwrap(),
                topic: TopicName::new("t").unwrap(),
                body_len: 3,
                prepared_at: ServerTime(100),
                sender: None,
                marker: None,
            },
            state: State::Committed,
            decided: Some(Decided {
                at: ServerTime(350),
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

    #[test]
    fn a_commit_is_published_once_its_number_is() {
        assert_eq!(TransactionView::new(&committed(5), 4).outcome, "committed");
        assert_eq!(TransactionView::new(&committed(5), 5).outcome, "published");
        let stuck = Row {
            unpublished: Some("disk full".into()),
            ..committed(5)
        };
        assert_eq!(TransactionView::new(&stuck, 5).outcome, "unpublished");
        assert_eq!(TransactionView::new(&stuck, 5).open_us, Some(250));
    }
}
