//! Whether the transactions' rows are what the history tells. Pure.
//!
//! Comparing ten million rows with ten million events one by one would hold them all in memory. Instead both sides are
//! added up: every fact that the history tells is hashed and added to one of many sums, every fact that a row states is
//! taken off it again. Where a sum is not zero in the end, a second look at the few transactions behind it names the row.
//! The hash is keyed with a secret of the moment, so that nobody can edit rows in such a way that the sums still agree.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};

use super::{Event, Numbering, Step, fingerprint};
use crate::store::{Forgotten, Row};
use crate::transaction::{State, TransactionId};

/// What is found where the row of a half message is not what its fingerprint in the history was made of.
const OTHER_HALF: &str = "its row says another position, queue offset, group, topic, length, sender or marker than when it was written";
/// How many sums there are: enough that few transactions share one.
const SUMS: usize = 1 << 16;

/// A fact about a transaction that both the history and its row know.
enum Fact<'a> {
    Prepared { at: u64, half: u64 },
    Decided { state: u8, at: u64, number: u64 },
    Parked,
    Unknown,
    Refused,
    Repeated,
    Due { at: u64 },
    Unpublished(&'a str),
}

impl Fact<'_> {
    /// Its kind and numbers, and its text.
    const fn parts(&self) -> ([u64; 3], &str) {
        match self {
            Self::Prepared { at, half } => ([0, *at, *half], ""),
            Self::Decided { state, at, number } => ([1 | (*state as u64) << 8, *at, *number], ""),
            Self::Parked => ([2, 0, 0], ""),
            Self::Unknown => ([3, 0, 0], ""),
            Self::Refused => ([4, 0, 0], ""),
            Self::Repeated => ([6, 0, 0], ""),
            Self::Due { at } => ([7, *at, 0], ""),
            Self::Unpublished(reason) => ([5, reason.len() as u64, 0], reason),
        }
    }
}

/// Both sides, added up.
#[derive(Debug)]
pub struct Books {
    key: u128,
    sums: Vec<u64>,
    numbering: Numbering,
    /// When the transactions that are open are asked about next.
    due: HashMap<TransactionId, u64>,
    /// Transactions whose final could not be published at some time: rarely any.
    unpublished: HashMap<TransactionId, String>,
    recorded_contradictions: u32,
}

impl Books {
    /// Empty books. `key` is random and secret. Of the contradictions of one transaction the history tells only the first `recorded_contradictions`
    /// (the coordinator's setting).
    #[must_use]
    pub fn new(key: u128, recorded_contradictions: u32, forgotten: Forgotten) -> Self {
        Self {
            key,
            sums: vec![0; SUMS],
            numbering: Numbering::new(forgotten),
            due: HashMap::new(),
            unpublished: HashMap::new(),
            recorded_contradictions,
        }
    }

    /// Empty books that can be put together with these.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self {
            numbering: self.numbering,
            ..Self::new(self.key, self.recorded_contradictions, Forgotten::default())
        }
    }

    /// Adds what an event tells. Events come in order, from the first on.
    pub fn tell(&mut self, event: &Event) {
        let number = self.numbering.of(event);
        let id = event.transaction;
        if event.from.is_none() {
            let (at, half) = (event.at.0, event.fingerprint.unwrap_or(0));
            self.add(id, &Fact::Prepared { at, half }, 1);
        }
        if event.to.schedules() {
            self.due.extend(event.then_at.map(|at| (id, at.0)));
        } else if event.from.is_some_and(Step::schedules) {
            self.due.remove(&id);
        }
        match event.to {
            Step::Committed | Step::RolledBack => {
                let at = event.then_at.unwrap_or(event.at).0;
                let (state, number) = (event.to as u8, number.unwrap_or(0));
                self.add(id, &Fact::Decided { state, at, number }, 1);
                if event.from == Some(Step::Parked) {
                    self.add(id, &Fact::Parked, -1);
                }
            }
            Step::Parked => self.add(id, &Fact::Parked, 1),
            Step::Unknown => self.add(id, &Fact::Unknown, 1),
            Step::Refused => self.add(id, &Fact::Refused, 1),
            Step::Repeated => self.add(id, &Fact::Repeated, 1),
            Step::Unpublished => {
                self.unpublished.insert(id, event.evidence.clone());
            }
            Step::Published => {
                self.unpublished.remove(&id);
            }
            Step::Prepared | Step::AskedAgain | Step::Forgotten => {}
        }
    }

    /// Takes off what a row states. Rows come in any order, each once.
    pub fn state(&mut self, row: &Row) {
        let id = row.half.id;
        let (at, half) = (row.half.prepared_at.0, fingerprint::of_half(&row.half));
        self.add(id, &Fact::Prepared { at, half }, -1);
        if let Some(decided) = row.decided {
            let number = self.numbering.comparable(decided.number);
            let (state, at) = (row.state.number(), decided.at.0);
            self.add(id, &Fact::Decided { state, at, number }, -1);
        } else if matches!(row.state, State::Committed | State::RolledBack) {
            // No history tells of a decision without a number.
            let (state, at, number) = (row.state.number(), 0, 0);
            self.add(id, &Fact::Decided { state, at, number }, -1);
        }
        if row.state == State::Parked {
            self.add(id, &Fact::Parked, -1);
        }
        self.add(id, &Fact::Unknown, -i64::from(row.checks));
        let told = row.contradictions.min(self.recorded_contradictions);
        self.add(id, &Fact::Refused, -i64::from(told));
        let told = row.repeats.min(self.recorded_contradictions);
        self.add(id, &Fact::Repeated, -i64::from(told));
        if let Some(at) = row.check_at {
            self.add(id, &Fact::Due { at: at.0 }, -1);
        }
        if let Some(reason) = &row.unpublished {
            self.add(id, &Fact::Unpublished(reason), -1);
        }
    }

    /// Puts the sums of a twin to these; gives the transactions to look at one by one, or `None` when all rows are what the
    /// history tells.
    #[must_use]
    pub fn compare(mut self, twin: Self) -> Option<Suspects> {
        for (sum, other) in self.sums.iter_mut().zip(twin.sums) {
            *sum = sum.wrapping_add(other);
        }
        for (id, at) in std::mem::take(&mut self.due) {
            self.add(id, &Fact::Due { at }, 1);
        }
        for (id, reason) in std::mem::take(&mut self.unpublished) {
            self.add(id, &Fact::Unpublished(&reason), 1);
        }
        self.sums.iter().any(|sum| *sum != 0).then_some(Suspects {
            key: self.key,
            sums: self.sums,
            numbering: self.numbering.anew(),
            told: HashMap::new(),
            recorded_contradictions: self.recorded_contradictions,
        })
    }

    fn add(&mut self, id: TransactionId, fact: &Fact<'_>, times: i64) {
        if times == 0 {
            return;
        }
        let hash = hash(self.key, id, fact);
        if let Some(sum) = self.sums.get_mut(place(self.key, id)) {
            *sum = sum.wrapping_add(hash.wrapping_mul(times as u64));
        }
    }
}

fn place(key: u128, id: TransactionId) -> usize {
    let mut hasher = DefaultHasher::new();
    hasher.write(words([key, id.0]).as_flattened());
    hasher.finish() as usize % SUMS
}

/// Handed over in one piece: the hasher takes less time for the bytes than for each call.
fn hash(key: u128, id: TransactionId, fact: &Fact<'_>) -> u64 {
    let ([kind, at, number], text) = fact.parts();
    let numbers = (u128::from(kind) << 64 | u128::from(at), u128::from(number));
    let mut hasher = DefaultHasher::new();
    hasher.write(words([key, id.0, numbers.0, numbers.1]).as_flattened());
    if !text.is_empty() {
        hasher.write(text.as_bytes());
    }
    hasher.finish()
}

fn words<const N: usize>(words: [u128; N]) -> [[u8; 16]; N] {
    words.map(u128::to_ne_bytes)
}

/// The second look: only at transactions behind a sum that did not agree.
#[derive(Debug)]
pub struct Suspects {
    key: u128,
    sums: Vec<u64>,
    numbering: Numbering,
    told: HashMap<TransactionId, Told>,
    recorded_contradictions: u32,
}

/// What the history tells of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Told {
    prepared_at: Option<u64>,
    /// The fingerprint of the half message, if the history has it.
    half: Option<u64>,
    /// The number of the last event.
    last: u64,
    /// State number, time and number of the decision.
    decided: Option<(u8, u64, u64)>,
    parked: bool,
    unknown: u32,
    refused: u32,
    repeated: u32,
    due: Option<u64>,
    unpublished: Option<String>,
}

/// A row that is not what the history tells.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("transaction {transaction}: {what}")]
pub struct Mismatch {
    /// The transaction.
    pub transaction: TransactionId,
    /// What does not agree.
    pub what: String,
}

impl Mismatch {
    /// Whether it leaves open which of several columns it is.
    #[must_use]
    pub fn is_vague(&self) -> bool {
        self.what == OTHER_HALF
    }
}

impl Suspects {
    /// Whether the transaction must be looked at.
    #[must_use]
    pub fn includes(&self, id: TransactionId) -> bool {
        self.sums
            .get(place(self.key, id))
            .is_some_and(|sum| *sum != 0)
    }

    /// Notes what an event tells. All events come again, in order, from the first on.
    pub fn tell(&mut self, event: &Event) {
        let number = self.numbering.of(event).unwrap_or(0);
        if !self.includes(event.transaction) {
            return;
        }
        let told = self.told.entry(event.transaction).or_default();
        told.tell(event, number);
    }

    /// Compares a row, if it must be looked at. All rows come again, in any order, each once.
    pub fn state(&mut self, row: &Row) -> Option<Mismatch> {
        let id = row.half.id;
        if !self.includes(id) {
            return None;
        }
        let what = match self.told.remove(&id) {
            None => "its row was added; the history tells nothing of it".to_owned(),
            Some(told) => {
                let recorded = self.recorded_contradictions;
                let mut stated = row.clone();
                if let Some(decided) = &mut stated.decided {
                    decided.number = self.numbering.comparable(decided.number);
                }
                told.differs(&stated, (recorded, recorded))?
            }
        };
        Some(Mismatch {
            transaction: id,
            what,
        })
    }

    /// Whether a row is what its own events tell, the numbers of decisions aside.
    #[must_use]
    pub fn agrees(events: &[Event], row: &Row) -> bool {
        let mut told = Told::default();
        for event in events {
            told.tell(event, row.decided.map_or(0, |decided| decided.number));
        }
        // Further ones are only counted.
        let recorded = (told.refused, told.repeated);
        told.differs(row, recorded).is_none()
    }

    /// Transactions that the history tells of and that had no row, although they are not forgotten.
    #[must_use]
    pub fn missing(self) -> Vec<Mismatch> {
        let mut missing: Vec<Mismatch> = self
            .told
            .into_iter()
            .filter(|(_, told)| !self.numbering.may_miss(told.last))
            .map(|(transaction, _)| Mismatch {
                transaction,
                what: "its row is missing".into(),
            })
            .collect();
        missing.sort_unstable_by_key(|mismatch| mismatch.transaction);
        missing
    }
}

impl Told {
    fn tell(&mut self, event: &Event, decision: u64) {
        self.last = event.number;
        if event.from.is_none() {
            self.prepared_at = Some(event.at.0);
            self.half = event.fingerprint;
        }
        if event.to.schedules() {
            self.due = event.then_at.map(|at| at.0).or(self.due);
        } else if event.from.is_some_and(Step::schedules) {
            self.due = None;
        }
        match event.to {
            Step::Committed | Step::RolledBack => {
                let at = event.then_at.unwrap_or(event.at).0;
                self.decided = Some((event.to as u8, at, decision));
                self.parked = false;
            }
            Step::Parked => self.parked = true,
            Step::Unknown => self.unknown += 1,
            Step::Refused => self.refused += 1,
            Step::Repeated => self.repeated += 1,
            Step::Unpublished => self.unpublished = Some(event.evidence.clone()),
            Step::Published => self.unpublished = None,
            Step::Prepared | Step::AskedAgain | Step::Forgotten => {}
        }
    }

    /// What of the row is not as told; so many contradictions and repeats are `recorded`, further ones only counted.
    fn differs(&self, row: &Row, recorded: (u32, u32)) -> Option<String> {
        let stated = row
            .decided
            .map(|decided| (row.state.number(), decided.at.0, decided.number));
        let expected = match (self.decided, self.parked) {
            (Some((state, ..)), _) => state,
            (None, true) => State::Parked.number(),
            (None, false) => State::Prepared.number(),
        };
        let word = |number: u8| State::from_number(i64::from(number)).map_or("?", State::word);
        if row.state.number() != expected {
            return Some(format!(
                "its row says {}, the history says {}",
                row.state.word(),
                word(expected)
            ));
        }
        if stated != self.decided {
            let show = |decided: Option<(u8, u64, u64)>| {
                decided.map_or("none".to_owned(), |(_, at, number)| {
                    format!("number {number} at {at} us")
                })
            };
            return Some(format!(
                "its row has decision {}, the history has {}",
                show(stated),
                show(self.decided)
            ));
        }
        let number = |what: &str, row: String, told: String| {
            (row != told).then(|| format!("its row says {what} {row}, the history says {told}"))
        };
        number(
            "prepared at",
            row.half.prepared_at.0.to_string(),
            self.prepared_at
                .map_or("nothing".into(), |at| at.to_string()),
        )
        .or_else(|| {
            let half = fingerprint::of_half(&row.half);
            let another = self.half.is_some_and(|told| told != half);
            another.then(|| OTHER_HALF.to_owned())
        })
        .or_else(|| number("checks", row.checks.to_string(), self.unknown.to_string()))
        .or_else(|| {
            let stated = row.contradictions.min(recorded.0);
            number(
                "contradictions",
                stated.to_string(),
                self.refused.to_string(),
            )
        })
        .or_else(|| {
            let stated = row.repeats.min(recorded.1);
            number("repeats", stated.to_string(), self.repeated.to_string())
        })
        .or_else(|| {
            let show = |at: Option<u64>| at.map_or("never".into(), |at| format!("at {at} us"));
            let stated = row.check_at.map(|at| at.0);
            number("next check-back", show(stated), show(self.due))
        })
        .or_else(|| {
            let show = |reason: &Option<String>| reason.clone().unwrap_or_else(|| "none".into());
            number(
                "unpublished for",
                show(&row.unpublished),
                show(&self.unpublished),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Decided, Half};
    use crate::transaction::{Actor, MarkerIdentity};
    use mq_core::clock::ServerTime;
    use mq_core::log::Position;
    use mq_core::names::{GroupName, TopicName};

    const RECORDED: u32 = 2;

    fn event(id: u128, from: Option<Step>, to: Step, at: u64, then_at: Option<u64>) -> Event {
        Event {
            number: 0,
            transaction: TransactionId(id),
            from,
            to,
            actor: Actor::Producer,
            at: ServerTime(at),
            then_at: then_at.map(ServerTime),
            source: "here".into(),
            fingerprint: from.is_none().then(|| fingerprint::of_half(&half(id, 0))),
            evidence: if to == Step::Unpublished {
                "full".into()
            } else {
                String::new()
            },
        }
    }

    fn half(id: u128, prepared_at: u64) -> Half {
        Half {
            id: TransactionId(id),
            position: Position(id as u64 * 100),
            queue_offset: mq_core::log::QueueOffset(id as u64),
            group: GroupName::new("g").unwrap(),
            topic: TopicName::new("t").unwrap(),
            body_len: 1,
            prepared_at: ServerTime(prepared_at),
            sender: None,
            marker: None,
        }
    }

    fn row(id: u128, prepared_at: u64, state: State, decided: Option<(u64, u64)>) -> Row {
        Row {
            half: half(id, prepared_at),
            state,
            decided: decided.map(|(at, number)| Decided {
                at: ServerTime(at),
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

    /// One transaction of each kind.
    fn history() -> (Vec<Event>, Vec<Row>) {
        use Step::{
            AskedAgain, Committed, Parked, Prepared, Published, Refused, RolledBack, Unknown,
            Unpublished,
        };
        let events = vec![
            event(1, None, Committed, 10, Some(12)),
            event(2, None, Prepared, 11, None),
            event(3, None, Prepared, 12, None),
            event(3, Some(Prepared), Unknown, 20, None),
            event(3, Some(Prepared), Unknown, 30, None),
            event(3, Some(Prepared), Parked, 30, None),
            event(4, None, Prepared, 13, None),
            event(4, Some(Prepared), Unknown, 31, None),
            event(4, Some(Prepared), Parked, 31, None),
            event(4, Some(Parked), RolledBack, 40, None),
            event(2, Some(Prepared), AskedAgain, 41, None),
            event(1, Some(Committed), Refused, 50, None),
            event(1, Some(Committed), Refused, 51, None),
            event(5, None, Committed, 60, Some(61)),
            event(5, Some(Committed), Unpublished, 62, None),
            event(6, None, Committed, 63, Some(64)),
            event(6, Some(Committed), Unpublished, 65, None),
            event(6, Some(Committed), Published, 66, None),
        ];
        let mut rows = vec![
            row(1, 10, State::Committed, Some((12, 1))),
            row(2, 11, State::Prepared, None),
            row(3, 12, State::Parked, None),
            row(4, 13, State::RolledBack, Some((40, 2))),
            row(5, 60, State::Committed, Some((61, 3))),
            row(6, 63, State::Committed, Some((64, 4))),
        ];
        // The third is counted and no longer told.
        rows[0].contradictions = 3;
        rows[2].checks = 2;
        rows[3].checks = 1;
        rows[4].unpublished = Some("full".into());
        (events, rows)
    }

    fn mismatches(events: &[Event], rows: &[Row]) -> Vec<String> {
        let mut told = Books::new(7, RECORDED, Forgotten::default());
        let mut stated = told.twin();
        events.iter().for_each(|event| told.tell(event));
        rows.iter().for_each(|row| stated.state(row));
        let Some(mut suspects) = told.compare(stated) else {
            return Vec::new();
        };
        events.iter().for_each(|event| suspects.tell(event));
        let mut found: Vec<Mismatch> = rows.iter().filter_map(|row| suspects.state(row)).collect();
        found.extend(suspects.missing());
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rows_that_are_what_the_history_tells_agree() {
        let (events, rows) = history();
        assert_eq!(mismatches(&events, &rows), Vec::<String>::new());
    }

    #[test]
    fn a_history_that_knew_no_fingerprints_agrees_with_any_half_message() {
        let (mut events, mut rows) = history();
        for event in &mut events {
            event.fingerprint = None;
        }
        rows[1].half.body_len = 7;
        assert_eq!(mismatches(&events, &rows), Vec::<String>::new());
    }

    #[test]
    fn whatever_a_row_states_otherwise_is_named() {
        let (events, rows) = history();
        type Touch = fn(&mut Vec<Row>);
        let touches: [(&str, &str, Touch); 15] = [
            ("1:", "says rolled_back", |r| r[0].state = State::RolledBack),
            ("2:", "says parked", |r| r[1].state = State::Parked),
            ("3:", "says prepared", |r| r[2].state = State::Prepared),
            ("1:", "number 1 at 13", |r| {
                r[0].decided.as_mut().unwrap().at = ServerTime(13);
            }),
            ("4:", "number 9 at 40", |r| {
                r[3].decided.as_mut().unwrap().number = 9;
            }),
            ("2:", "prepared at 7", |r| {
                r[1].half.prepared_at = ServerTime(7)
            }),
            ("2:", "another position", |r| r[1].half.body_len = 7),
            ("4:", "sender or marker", |r| {
                r[3].half.marker = Some(MarkerIdentity(1));
            }),
            ("3:", "checks 1", |r| r[2].checks = 1),
            ("1:", "contradictions 0", |r| r[0].contradictions = 0),
            ("4:", "repeats 1", |r| r[3].repeats = 1),
            ("2:", "next check-back at 7 us", |r| {
                r[1].check_at = Some(ServerTime(7));
            }),
            ("5:", "unpublished for none", |r| r[4].unpublished = None),
            ("6:", "its row is missing", |r| drop(r.pop())),
            ("7:", "its row was added", |r| {
                r.push(row(7, 1, State::Prepared, None));
            }),
        ];
        for (who, what, touch) in touches {
            let mut rows = rows.clone();
            touch(&mut rows);
            let found = mismatches(&events, &rows);
            assert_eq!(found.len(), 1, "{what}: {found:?}");
            assert!(
                found[0].contains(who) && found[0].contains(what),
                "{found:?}"
            );
        }
    }

    #[test]
    fn two_rows_that_exchange_their_decisions_are_both_named() {
        let (events, mut rows) = history();
        let first = rows[0].decided;
        rows[0].decided = rows[4].decided;
        rows[4].decided = first;
        assert_eq!(mismatches(&events, &rows).len(), 2);
    }
}
