//! Histories made by hand: a good one, and for every promise one that breaks it.

mod agreement;
mod forgotten;
mod history;
mod keys;
mod users;

use super::facts::*;
use super::history::{fingerprint_of, hash_of, leaf_of};
use super::{Phase, Promise, check};

const COMMITTED_ONE: u128 = 0xA;
const ROLLED_BACK_ONE: u128 = 0xB;
const OPEN_ONE: u128 = 0xC;
const NEW_ONE: u128 = 0xD;
const DATABASE: u128 = 0xDB;

fn message(topic: &str, offset: u64, position: u64, id: u128) -> Message {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Message {
        topic: topic.to_owned(),
        queue_offset: offset,
        position,
        body_len: 5,
        body_hash: id as u64,
        body_intact: true,
        properties: vec![
            pair("UNIQ_KEY", &format!("{id:032X}")),
            pair("PGROUP", "shop"),
            pair("REAL_TOPIC", "orders"),
            pair("REAL_QID", "0"),
        ],
        ..Message::default()
    }
}

fn record(
    position: u64,
    at: u64,
    kind: u8,
    key: u128,
    number: u64,
    message: Option<Message>,
) -> Record {
    let mark = Some(Mark {
        owner: COORDINATOR,
        kind,
        key,
        number,
    });
    Record {
        position,
        at,
        mark,
        message,
        carried: None,
    }
}

fn row(id: u128, position: u64, queue_offset: u64, state: u8, decision: Option<u64>) -> Row {
    Row {
        position,
        queue_offset,
        id,
        group: "shop".to_owned(),
        topic: "orders".to_owned(),
        body_len: 5,
        state,
        prepared_at: position / 10,
        decided_at: decision.map(|number| 1000 + number),
        decision,
        marker: Some(DATABASE),
        ..Row::default()
    }
}

fn event(number: u64, id: u128, from: Option<u8>, to: u8, actor: u8, at: u64) -> Event {
    Event {
        number,
        id,
        from,
        to,
        actor,
        at,
        source: "test".to_owned(),
        ..Event::default()
    }
}

/// Seals the events as if each two were a batch, and sets the owner row to the end.
fn seal(world: &mut World) {
    let sql = &mut world.sql;
    sql.seals.clear();
    let mut previous = Seal {
        first_event: 1,
        ..Seal::default()
    };
    for events in sql.events.chunks(2) {
        let mut seal = Seal {
            seq: previous.seq + 1,
            first_event: previous.first_event + previous.count,
            count: events.len() as u64,
            published: sql.owner.published,
            wall_ms: 1_700_000_000_000,
            leaves: events.iter().flat_map(leaf_of).collect(),
            ..Seal::default()
        };
        seal.hash = hash_of(&previous.hash, &seal);
        sql.seals.push(seal.clone());
        previous = seal;
    }
    sql.owner.seq = previous.seq;
    sql.owner.head = previous.hash;
    sql.owner.next_event = previous.first_event + previous.count;
}

/// One transaction is committed by its producer, one rolled back by a check-back, one is open.
fn good() -> World {
    let mut world = World::default();
    let committed = message("HALF", 0, 100, COMMITTED_ONE);
    let mut copy = message("orders", 0, 400, COMMITTED_ONE);
    copy.sys_flag = 0x8;
    copy.prepared_position = 100;
    world.log = Log {
        id: 7,
        start: 0,
        end: 700,
        stamped: 1,
        records: vec![
            record(100, 10, HALF, COMMITTED_ONE, 0, Some(committed)),
            record(
                200,
                20,
                HALF,
                ROLLED_BACK_ONE,
                0,
                Some(message("HALF", 1, 200, ROLLED_BACK_ONE)),
            ),
            record(
                300,
                30,
                HALF,
                OPEN_ONE,
                0,
                Some(message("HALF", 2, 300, OPEN_ONE)),
            ),
            record(400, 40, FINAL, COMMITTED_ONE, 1, Some(copy)),
            record(500, 50, ROLLBACK, ROLLED_BACK_ONE, 2, None),
        ],
        ..Log::default()
    };
    world.sql.owned = true;
    world.sql.owner = Owner {
        log: 7,
        watermark: 500,
        published: 2,
        last_decision: 2,
        ..Owner::default()
    };
    world.sql.rows = vec![
        row(COMMITTED_ONE, 100, 0, COMMITTED, Some(1)),
        row(ROLLED_BACK_ONE, 200, 1, ROLLED_BACK, Some(2)),
        row(OPEN_ONE, 300, 2, PREPARED, None),
    ];
    let both = Event {
        then_at: Some(1001),
        ..event(1, COMMITTED_ONE, None, COMMITTED, 1, 10)
    };
    world.sql.events = vec![
        both,
        event(2, ROLLED_BACK_ONE, None, PREPARED, 1, 20),
        event(3, OPEN_ONE, None, PREPARED, 1, 30),
        event(
            4,
            ROLLED_BACK_ONE,
            Some(PREPARED),
            ROLLED_BACK,
            MARKER,
            1002,
        ),
    ];
    seal(&mut world);
    world.databases = vec![UserDatabase {
        identity: DATABASE,
        markers: [(COMMITTED_ONE, true), (ROLLED_BACK_ONE, false)].into(),
        business: Some([COMMITTED_ONE].into()),
        pruned: false,
    }];
    world.answers = vec![
        Answer::Half(COMMITTED_ONE),
        Answer::Half(OPEN_ONE),
        Answer::Decided(COMMITTED_ONE, true),
        Answer::Decided(ROLLED_BACK_ONE, false),
    ];
    world.effects = vec![Effects {
        group: "warehouse".to_owned(),
        topic: "orders".to_owned(),
        applied: [(COMMITTED_ONE, 1)].into(),
    }];
    world
}

#[track_caller]
fn breaks(promise: Promise, phase: Phase, spoil: impl FnOnce(&mut World)) {
    let mut world = good();
    spoil(&mut world);
    let report = check(&world, phase);
    assert!(
        report.broken().contains(&promise),
        "{promise:?} was expected, not: {report}"
    );
}

/// As [`breaks`], and nothing else is broken.
#[track_caller]
fn breaks_only(promise: Promise, spoil: impl FnOnce(&mut World)) {
    let mut world = good();
    spoil(&mut world);
    let report = check(&world, Phase::Anytime);
    assert_eq!(report.broken(), [promise], "{report}");
}

/// A bad history: what is done to the good one, and what must be found in it.
struct Bad {
    name: &'static str,
    promise: Promise,
    /// Words of the witness: they say that it is the rule that is meant which has found it.
    says: &'static str,
    spoil: fn(&mut World),
}

/// Each of these is found by the rule that is meant.
#[track_caller]
fn are_found(phase: Phase, all: &[Bad]) {
    for bad in all {
        let mut world = good();
        (bad.spoil)(&mut world);
        let report = check(&world, phase);
        let mut found = report.violations.iter();
        assert!(
            found.any(|found| found.promise == bad.promise && found.witness.contains(bad.says)),
            "{}: {:?} with {:?} was expected, not: {report}",
            bad.name,
            bad.promise,
            bad.says
        );
    }
}

#[test]
fn a_good_history_passes() {
    let report = check(&good(), Phase::Anytime);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn an_open_transaction_is_no_healed_world() {
    breaks(Promise::EverythingIsSettled, Phase::Healed, |_| ());
}

#[test]
fn nothing_at_all_is_healed() {
    let mut world = World::default();
    assert!(check(&world, Phase::Healed).is_clean());
    world.sql.owned = true;
    world.sql.owner.next_event = 1;
    let report = check(&world, Phase::Healed);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_log_and_a_database_that_are_both_empty_have_lost_what_was_acknowledged() {
    for (answer, promise) in [
        (Answer::Half(1), Promise::AckedHalfIsKept),
        (Answer::Decided(1, true), Promise::AckedDecisionStands),
        (Answer::Sent(1), Promise::AckedMessageIsKept),
    ] {
        let mut world = World::default();
        world.answers.push(answer);
        let report = check(&world, Phase::Healed);
        assert_eq!(report.broken(), [promise], "{report}");
    }
}

/// A log that no longer has the half messages, but for a copy of the open one.
fn trim(world: &mut World) {
    (world.log.start, world.log.trimmed) = (350, true);
    world.log.records.retain(|record| record.position >= 350);
    let mut copy = record(600, 60, MOVED, OPEN_ONE, 300, None);
    copy.carried = Some(message("HALF", 2, 300, OPEN_ONE));
    world.log.records.push(copy);
}
