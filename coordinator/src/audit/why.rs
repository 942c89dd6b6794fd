//! Answers "why was (or wasn't) this message published?" from a transaction's row and history. Pure.

use std::fmt;
use std::fmt::Write as _;

use mq_core::clock::ServerTime;
use serde::Serialize;

use super::{Event, Step};
use crate::store::Row;
use crate::transaction::{Actor, State};

/// The seven steps of one transaction, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The transaction, 32 hex digits.
    pub transaction: String,
    /// The answer in one sentence.
    pub outcome: String,
    /// Steps 1 to 7.
    pub steps: Vec<ExplainedStep>,
}

/// One of the seven steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedStep {
    /// 1 to 7.
    pub number: u8,
    /// What the step is.
    pub name: &'static str,
    /// What is known of it, oldest first; never empty.
    pub lines: Vec<String>,
}

const NAMES: [&str; 7] = [
    "half message sent",
    "half message stored",
    "local transaction",
    "resolution sent",
    "missing resolution noticed",
    "check-back",
    "settled",
];

/// Explains the transaction of `row` by its `events`, all of them and oldest first.
///
/// `published` is the owner row's; `recorded` gives the wall clock (ms since 1970) of the batch that wrote an event, which
/// its seal knows.
#[must_use]
pub fn explain(
    row: &Row,
    events: &[Event],
    published: u64,
    recorded: impl Fn(u64) -> Option<u64>,
) -> Explanation {
    let mut lines: [Vec<String>; 7] = Default::default();
    let [sent, stored, local, resolution, noticed, asked, settled] = &mut lines;
    let half = &row.half;
    sent.push(format!(
        "by {} for topic {}, {} bytes",
        half.group, half.topic, half.body_len
    ));
    local.push(match half.marker {
        Some(marker) => format!("in the database whose marker table is {:032x}", marker.0),
        None => "without a marker: the producer itself answers check-backs".to_owned(),
    });
    for event in events {
        let line = |what: &str, at: ServerTime| describe(event, what, at, row, &recorded);
        let stands_for_two =
            event.from.is_none() && event.then_at.is_some() && event.to.is_decision();
        let decided_at = event.then_at.filter(|_| stands_for_two);
        let decided_at = decided_at.unwrap_or(event.at);
        if event.to == Step::Prepared || stands_for_two {
            let place = format!(
                "at position {}, half queue offset {}",
                half.position, half.queue_offset
            );
            stored.push(line(&place, event.at));
        }
        match event.to {
            // Of no transaction.
            Step::Prepared | Step::Forgotten => {}
            Step::Committed | Step::RolledBack => {
                let said = if event.to == Step::Committed {
                    "COMMIT"
                } else {
                    "ROLLBACK"
                };
                let said = line(
                    &format!("{said} from the {}", event.actor.word()),
                    decided_at,
                );
                match event.actor {
                    Actor::Producer => resolution.push(said),
                    Actor::CheckBack | Actor::Marker => asked.push(said),
                    Actor::Operator | Actor::OperatorForced | Actor::Recovery => settled.push(said),
                }
            }
            Step::Unknown => asked.push(line("answered UNKNOWN", decided_at)),
            Step::Parked => asked.push(line("parked: waits for a decision", decided_at)),
            Step::AskedAgain => {
                noticed.push(line("an operator asked for another check-back", decided_at))
            }
            Step::Repeated => settled.push(line(
                &format!("the {} said the same again", event.actor.word()),
                decided_at,
            )),
            Step::Refused => settled.push(line(
                &format!("refused what the {} said", event.actor.word()),
                decided_at,
            )),
            Step::Unpublished => {
                settled.push(line("the final message could not be published", decided_at))
            }
            Step::Published => settled.push(line(
                "the final message was published after all",
                decided_at,
            )),
        }
    }
    let decided = row.state.is_decided();
    if stored.is_empty() {
        stored.push("its event is no longer kept".to_owned());
    }
    if resolution.is_empty() {
        resolution.push(
            if decided {
                "none arrived from the producer in time"
            } else {
                "none has arrived"
            }
            .to_owned(),
        );
    }
    if asked.is_empty() {
        asked.push(
            if decided {
                "not needed"
            } else {
                "no answer so far"
            }
            .to_owned(),
        );
    }
    if noticed.is_empty() {
        noticed.push(notice(row, events));
    }
    let outcome = outcome(row, published);
    settled.push(outcome.clone());
    let numbered = NAMES.into_iter().zip(1..).zip(lines);
    let steps = numbered
        .map(|((name, number), lines)| ExplainedStep {
            number,
            name,
            lines,
        })
        .collect();
    Explanation {
        transaction: half.id.to_string(),
        outcome,
        steps,
    }
}

/// Whether, and until when, the coordinator had to notice that nobody had decided.
fn notice(row: &Row, events: &[Event]) -> String {
    let by_check = |event: &&Event| matches!(event.actor, Actor::CheckBack | Actor::Marker);
    let checked = row.checks > 0 || events.iter().any(|event| by_check(&event));
    match (row.state, row.check_at) {
        _ if checked => "nobody had decided, so the producer group was asked".to_owned(),
        (State::Prepared, Some(at)) => {
            format!(
                "the producer group is asked {} after the half message, at the latest",
                span(at, row)
            )
        }
        (State::Prepared | State::Parked | State::Committed | State::RolledBack, _) => {
            "not needed".to_owned()
        }
    }
}

fn outcome(row: &Row, published: u64) -> String {
    let mut outcome = match (row.state, row.decided) {
        (State::Prepared, _) => {
            "open: nobody has decided, no consumer sees the message yet".to_owned()
        }
        (State::Parked, _) => {
            "parked: the check budget is used up, it waits for a person or its producer".to_owned()
        }
        (State::RolledBack, _) => "rolled back: no consumer ever sees the message".to_owned(),
        (State::Committed, decided) => match (&row.unpublished, decided) {
            (Some(reason), _) => format!("committed, but not published: {reason}"),
            (None, Some(decided)) if decided.number <= published => {
                "committed and published".to_owned()
            }
            (None, _) => "committed, about to be published".to_owned(),
        },
    };
    for (count, what) in [
        (row.repeats, "repeated"),
        (row.contradictions, "contradicted"),
    ] {
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(
                outcome,
                "; {what} {count} {}",
                if count == 1 { "time" } else { "times" }
            );
        }
    }
    outcome
}

/// One event as a line: when, what, who, proof.
fn describe(
    event: &Event,
    what: &str,
    at: ServerTime,
    row: &Row,
    recorded: impl Fn(u64) -> Option<u64>,
) -> String {
    let mut line = String::new();
    if let Some(ms) = recorded(event.number) {
        line.push_str(&date(ms));
        line.push(' ');
    }
    // Writing to a String cannot fail.
    let _ = write!(line, "(+{}) {what}", span(at, row));
    for (label, text) in [
        ("from", &*event.source),
        ("proof:", event.evidence.as_str()),
    ] {
        if !text.is_empty() {
            let _ = write!(line, ", {label} {text}");
        }
    }
    line
}

/// How long after the half message `at` is.
fn span(at: ServerTime, row: &Row) -> String {
    let us = at.0.saturating_sub(row.half.prepared_at.0);
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// A wall clock as `2026-11-22 10:15:00.123Z` (the proleptic Gregorian calendar).
#[must_use]
pub fn date(ms: u64) -> String {
    const DAYS_TO_1970: u64 = 719_468; // from 0000-03-01, so that leap days end their years
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let (days, ms) = (ms / 86_400_000 + DAYS_TO_1970, ms % 86_400_000);
    let day = days % DAYS_OF_400_YEARS;
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // from March
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = days / DAYS_OF_400_YEARS * 400 + year + next;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}Z",
        ms % 1_000
    )
}

impl fmt::Display for Explanation {
    /// One paragraph: the answer, then the steps, one line for each thing known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.transaction, self.outcome)?;
        for step in &self.steps {
            for (line, first) in step
                .lines
                .iter()
                .zip(std::iter::once(true).chain(std::iter::repeat(false)))
            {
                let name = if first {
                    format!("{} {}", step.number, step.name)
                } else {
                    String::new()
                };
                writeln!(f, "  {name:<29} {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Decided;
    use crate::store::conformance::draft::{WALL_MS, id, prepared};

    fn event(number: u64, from: Option<Step>, to: Step, actor: Actor, at: u64) -> Event {
        let (source, evidence) = ("10.0.0.7:40312 order-service@1".into(), String::new());
        Event {
            number,
            transaction: id(7),
            from,
            to,
            actor,
            at: ServerTime(at),
            then_at: None,
            fingerprint: None,
            source,
            evidence,
        }
    }

    fn settled(state: State) -> Row {
        let decided = Some(Decided {
            at: ServerTime(19_500),
            number: 3,
        });
        Row {
            state,
            decided,
            check_at: None,
            ..prepared(7, "order-service")
        }
    }

    #[test]
    fn a_commit_that_met_its_half_message_in_one_batch_is_two_steps() {
        let mut both = event(1, None, Step::Committed, Actor::Producer, 7_000);
        both.then_at = Some(ServerTime(19_500));
        let why = explain(&settled(State::Committed), &[both], 3, |_| Some(WALL_MS));
        assert_eq!(why.outcome, "committed and published");
        let text = why.to_string();
        assert!(
            text.contains(
                "2 half message stored         2023-11-14 22:13:20.000Z (+0 us) at position 7000"
            ),
            "{text}"
        );
        let said = "4 resolution sent             2023-11-14 22:13:20.000Z (+12.5 ms) COMMIT from the producer, \
                    from 10.0.0.7:40312 order-service@1";
        assert!(text.contains(said), "{text}");
        assert!(
            text.contains("6 check-back                  not needed"),
            "{text}"
        );
        assert_eq!(why.steps.len(), 7);
    }

    #[test]
    fn a_tombstone_is_told_with_its_proof() {
        let stored = event(1, None, Step::Prepared, Actor::Producer, 7_000);
        let unknown = event(2, Some(Step::Prepared), Step::Unknown, Actor::Marker, 9_000);
        let mut answer = event(
            3,
            Some(Step::Prepared),
            Step::RolledBack,
            Actor::Marker,
            19_500,
        );
        answer.evidence = "tombstone planted".into();
        let row = Row {
            checks: 1,
            ..settled(State::RolledBack)
        };
        let text = explain(&row, &[stored, unknown, answer], 0, |_| None).to_string();
        assert!(
            text.contains("rolled back: no consumer ever sees the message"),
            "{text}"
        );
        assert!(
            text.contains("none arrived from the producer in time"),
            "{text}"
        );
        assert!(
            text.contains("nobody had decided, so the producer group was asked"),
            "{text}"
        );
        assert!(
            text.contains("(+12.5 ms) ROLLBACK from the marker"),
            "{text}"
        );
        assert!(text.contains("proof: tombstone planted"), "{text}");
    }

    #[test]
    fn what_stands_between_decision_and_publishing_is_told() {
        let mut row = settled(State::Committed);
        let of = |row: &Row, published| explain(row, &[], published, |_| None).outcome;
        assert_eq!(of(&row, 2), "committed, about to be published");
        row.contradictions = 2;
        assert_eq!(of(&row, 3), "committed and published; contradicted 2 times");
        row.unpublished = Some("topic orders is gone".into());
        assert_eq!(
            of(&row, 3),
            "committed, but not published: topic orders is gone; contradicted 2 times"
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (ms, expected) in [
            (0, "1970-01-01 00:00:00.000Z"),
            (951_782_400_000, "2000-02-29 00:00:00.000Z"),
            (951_868_799_999, "2000-02-29 23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01 00:00:00.000Z"),
            (1_767_225_599_000, "2025-12-31 23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000Z"),
        ] {
            assert_eq!(date(ms), expected);
        }
    }
}
