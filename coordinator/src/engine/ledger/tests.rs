//! The ledger against a naive reading of the protocol, for random orders of everything that can happen.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use mq_core::clock::ServerTime;
use mq_core::log::{LogId, Position, QueueOffset};
use mq_core::names::{GroupName, TopicName};
use proptest::prelude::*;

use super::*;
use crate::audit::books::Books;
use crate::audit::{Event, Step};
use crate::store::Change;
use crate::store::shape::check_time;
use crate::transaction::{State, TransactionId};

fn half(number: u64) -> Half {
    Half {
        id: TransactionId(u128::from(number)),
        position: Position(number * 100),
        queue_offset: QueueOffset(number),
        group: GroupName::new("g").unwrap(),
        topic: TopicName::new("t").unwrap(),
        body_len: 1,
        prepared_at: ServerTime(number),
        sender: None,
        marker: None,
    }
}

fn says(number: u64, what: What) -> Request {
    Request {
        half: half(number),
        what,
        actor: Actor::Producer,
        source: "test".into(),
        evidence: String::new(),
    }
}

/// So many contradictions, and repeats, are recorded.
const RECORDED: u32 = 2;

/// SQL as a map, and what a reader of the protocol would expect.
struct World {
    ledger: Ledger,
    rows: BTreeMap<Position, Row>,
    events: Vec<Event>,
    decided: HashMap<u64, (Decision, u64)>,
    clock: u64,
}

impl World {
    fn new() -> Self {
        Self {
            ledger: Ledger::new(Owner::of(LogId(1)), RECORDED),
            rows: BTreeMap::new(),
            events: Vec::new(),
            decided: HashMap::new(),
            clock: 1000,
        }
    }

    fn batch(&mut self, requests: &[Request], hold: Duration) {
        self.clock += 1;
        let at = ServerTime(self.clock);
        let now = Now {
            at,
            wall_ms: 0,
            batch: 0,
        };
        let rows = requests
            .iter()
            .filter_map(|r| self.rows.get(&r.half.position));
        let rows = rows.map(|row| (row.half.position, row.clone())).collect();
        let before = *self.ledger.owner();
        let plan = self
            .ledger
            .plan(now, requests, rows, hold, |_, asked| asked);
        assert!(
            plan.batch.watermark >= before.watermark,
            "the watermark went back"
        );
        for row in &plan.batch.new {
            let mut row = row.clone();
            row.check_at = row.check_at.map(check_time);
            assert!(
                self.rows.insert(row.half.position, row).is_none(),
                "a second row"
            );
        }
        for (position, change) in &plan.batch.changes {
            let row = self.rows.get_mut(position).expect("a change needs a row");
            match change {
                Change::Decide { state, decided } => {
                    assert!(!row.state.is_decided(), "a decision was changed");
                    (row.state, row.decided, row.check_at) = (*state, Some(*decided), None);
                }
                Change::Check { checks, check_at } => {
                    (row.checks, row.check_at) = (*checks, Some(check_time(*check_at)))
                }
                Change::Park { checks } => {
                    assert_eq!(row.state, State::Prepared);
                    (row.state, row.checks, row.check_at) = (State::Parked, *checks, None);
                }
                Change::Count {
                    repeats,
                    contradictions,
                } => {
                    row.repeats += repeats;
                    row.contradictions += contradictions;
                }
                Change::Unpublished(reason) => row.unpublished.clone_from(reason),
                Change::Move(to) => {
                    assert!(row.moved_to < Some(*to), "it moves forward");
                    row.moved_to = Some(*to);
                }
            }
        }
        for (request, answer) in requests.iter().zip(&plan.answers) {
            let What::Decide(decision) = request.what else {
                continue;
            };
            let number = request.half.position.0 / 100;
            let first = self.decided.get(&number).copied();
            match answer {
                Answer::DecidedNow(at) => {
                    assert_eq!(first, None, "decided twice");
                    self.decided.insert(number, (decision, *at));
                }
                Answer::AlreadyTheSame => assert_eq!(first.map(|f| f.0), Some(decision)),
                Answer::AlreadyOtherwise => assert_ne!(first.map(|f| f.0), Some(decision)),
                Answer::Forgotten | Answer::Noted => panic!("{answer:?}"),
            }
        }
        self.events.extend(plan.batch.events.iter().cloned());
        self.ledger.committed(&plan);
        self.check(at);
    }

    /// Whether the history tells what the rows say.
    fn is_told(&self) -> bool {
        let mut told = Books::new(7, RECORDED, Forgotten::default());
        let mut stated = told.twin();
        self.events.iter().for_each(|event| told.tell(event));
        self.rows.values().for_each(|row| stated.state(row));
        told.compare(stated).is_none()
    }

    fn check(&self, at: ServerTime) {
        for (event, number) in self.events.iter().zip(1..) {
            assert_eq!(event.number, number);
        }
        let mut numbers: Vec<u64> = self.decided.values().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        assert_eq!(
            numbers,
            (1..=numbers.len() as u64).collect::<Vec<_>>(),
            "decision numbers have gaps"
        );
        for (number, (decision, nth)) in &self.decided {
            let row = &self.rows[&Position(number * 100)];
            assert_eq!(row.state, decision.state());
            assert_eq!(row.decided.map(|d| d.number), Some(*nth));
            assert!(row.decided.unwrap().at <= at);
            let told = self
                .events
                .iter()
                .filter(|e| e.transaction.0 == u128::from(*number));
            let told = told
                .filter(|e| matches!(e.to, Step::Committed | Step::RolledBack))
                .count();
            assert_eq!(told, 1, "a decision stands once in the history");
        }
        for position in self.ledger.held.keys() {
            assert!(
                *position >= self.ledger.owner.watermark,
                "the watermark passed a row that is held back"
            );
            assert!(!self.rows.contains_key(position));
        }
    }
}

#[derive(Debug, Clone)]
enum Happens {
    Stored,
    Decide(u64, bool),
    Unknown(u64),
    AskAgain(u64),
    Batch { expire: bool },
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => Just(Happens::Stored),
        4 => (0..12_u64, any::<bool>()).prop_map(|(n, commit)| Happens::Decide(n, commit)),
        1 => (0..12_u64).prop_map(Happens::Unknown),
        1 => (0..12_u64).prop_map(Happens::AskAgain),
        2 => any::<bool>().prop_map(|expire| Happens::Batch { expire }),
    ]
}

proptest! {
    #[test]
    fn one_decision_each_in_order_without_gaps_whatever_the_order(story in proptest::collection::vec(happens(), 1..80)) {
        let mut world = World::new();
        let (mut stored, mut waiting) = (0, Vec::new());
        for one in story {
            match one {
                Happens::Stored => {
                    stored += 1;
                    world.ledger.take_in(Durable::Half { half: half(stored), first_check: ServerTime(9) });
                }
                Happens::Decide(number, commit) if stored > 0 => {
                    let decision = if commit { Decision::Commit } else { Decision::RollBack };
                    waiting.push(says(number % stored + 1, What::Decide(decision)));
                }
                Happens::Unknown(number) if stored > 0 => {
                    let (first_wait, longest_wait) = (Duration::from_secs(1), Duration::from_secs(4));
                    waiting.push(says(number % stored + 1, What::Unknown { first_wait, longest_wait, budget: 2 }));
                }
                Happens::AskAgain(number) if stored > 0 => {
                    let check_at = ServerTime(u64::MAX - number);
                    waiting.push(says(number % stored + 1, What::AskAgain { check_at }));
                }
                Happens::Batch { expire } => {
                    let hold = if expire { Duration::ZERO } else { Duration::MAX };
                    world.batch(&std::mem::take(&mut waiting), hold);
                }
                Happens::Decide(..) | Happens::Unknown(_) | Happens::AskAgain(_) => {}
            }
        }
        world.batch(&waiting, Duration::ZERO);
        prop_assert_eq!(world.ledger.held(), 0);
        prop_assert_eq!(world.rows.len() as u64, stored);
        prop_assert!(world.is_told(), "{:#?} {:#?}", world.rows, world.events);
        prop_assert_eq!(world.ledger.owner().watermark, Position(stored * 100));
    }
}

/// Interleaving 29: parking and COMMIT meet in one batch.
#[test]
fn parking_loses_to_a_decision_in_the_same_batch() {
    let mut world = World::new();
    world.ledger.take_in(Durable::Half {
        half: half(1),
        first_check: ServerTime(9),
    });
    world.batch(&[], Duration::ZERO);
    let wait = Duration::from_secs(1);
    let park = says(
        1,
        What::Unknown {
            first_wait: wait,
            longest_wait: wait,
            budget: 1,
        },
    );
    world.batch(
        &[park, says(1, What::Decide(Decision::Commit))],
        Duration::MAX,
    );
    assert_eq!(world.rows[&Position(100)].state, State::Committed);
    assert!(world.events.iter().all(|event| event.to != Step::Parked));
}

/// A decision that came before the feed told of its half message: the row is made by the decision, once.
#[test]
fn a_decision_may_come_before_the_feed_tells_of_its_half_message() {
    let mut world = World::new();
    world.batch(&[says(1, What::Decide(Decision::RollBack))], Duration::MAX);
    assert_eq!(
        world.ledger.owner().watermark,
        Position(0),
        "a decision moved the watermark"
    );
    let slot = world.ledger.take_in(Durable::Half {
        half: half(1),
        first_check: ServerTime(9),
    });
    assert_eq!(slot, Slot::Free);
    assert_eq!(world.ledger.held(), 0);
    world.batch(&[], Duration::ZERO);
    assert_eq!(world.ledger.owner().watermark, Position(100));
}

#[test]
fn contradictions_are_recorded_up_to_a_bound_and_counted_behind_it() {
    let mut world = World::new();
    world.ledger.take_in(Durable::Half {
        half: half(1),
        first_check: ServerTime(9),
    });
    world.batch(&[says(1, What::Decide(Decision::Commit))], Duration::MAX);
    for recorded in [1, 2, 2, 2, 2] {
        world.batch(&[says(1, What::Decide(Decision::RollBack))], Duration::MAX);
        let refused = world
            .events
            .iter()
            .filter(|event| event.to == Step::Refused);
        assert_eq!(refused.count(), recorded);
    }
    assert_eq!(world.rows[&Position(100)].contradictions, 5);
}

/// A decision that the log could not take leaves a gap. Until its row says so in SQL, `published` stands before the gap, and a
/// recovery that does not meet the records behind it would write them once more.
#[test]
fn the_watermark_waits_for_the_row_of_a_half_message_that_was_carried_forward() {
    let mut world = World::new();
    let (half, first_check) = (half(1), ServerTime(7));
    world.ledger.take_in(Durable::Half {
        half: half.clone(),
        first_check,
    });
    world.batch(&[], Duration::ZERO);
    let to = Position(900);
    world.ledger.take_in(Durable::Moved { half, to });
    world.ledger.take_in(Durable::Known(Position(1_000)));
    world.batch(&[], Duration::ZERO);
    assert_eq!(world.ledger.owner().watermark, to, "no row says so");
    world.batch(&[says(1, What::Move { to })], Duration::ZERO);
    assert_eq!(world.rows[&Position(100)].moved_to, Some(to));
    assert!(world.ledger.moved(to));
    world.batch(&[], Duration::ZERO);
    assert_eq!(world.ledger.owner().watermark, Position(1_000));
}

#[test]
fn the_watermark_waits_for_the_gap_in_what_is_published() {
    let mut world = World::new();
    let at = |position, number| Durable::Decision {
        position: Position(position),
        number,
    };
    let watermark = |world: &World| world.ledger.watermark_without(&[]);
    for (position, number) in [(10, 1), (30, 3), (40, 4)] {
        world.ledger.take_in(at(position, number));
    }
    assert_eq!(watermark(&world), Position(30), "2 is missing");
    world.ledger.publish(2);
    assert_eq!(watermark(&world), Position(40));
    let republished = Durable::Republished {
        half: half(2),
        position: Position(50),
        number: 2,
    };
    world.ledger.take_in(republished);
    world.ledger.take_in(at(60, 5));
    assert_eq!(watermark(&world), Position(50), "its row denies it still");
    world.ledger.admitted(2);
    assert_eq!(watermark(&world), Position(60));
}

#[test]
fn published_is_contiguous() {
    let mut world = World::new();
    for (position, number) in [(1, 2), (2, 3), (3, 1)] {
        assert!(world.ledger.published == 0);
        world.ledger.take_in(Durable::Decision {
            position: Position(position),
            number,
        });
    }
    assert_eq!(world.ledger.published, 3);
}
