//! Histories made by hand: a good one, and for every promise one that breaks it.

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

#[test]
fn a_half_message_before_the_watermark_without_row_is_found() {
    breaks(Promise::HalfHasRow, Phase::Anytime, |world| {
        world.sql.rows.pop();
    });
}

#[test]
fn a_row_may_be_missing_behind_the_watermark_until_healed() {
    let mut world = good();
    world.sql.owner.watermark = 300;
    world.sql.rows.pop();
    world.sql.events.remove(2);
    for (event, number) in world.sql.events.iter_mut().zip(1..) {
        event.number = number;
    }
    seal(&mut world);
    assert!(check(&world, Phase::Anytime).is_clean());
    assert!(
        check(&world, Phase::Healed)
            .broken()
            .contains(&Promise::HalfHasRow)
    );
}

#[test]
fn a_row_that_tells_another_story_than_its_record_is_found() {
    breaks_only(Promise::HalfHasRow, |world| {
        world.sql.rows[0].group = "other".to_owned()
    });
}

#[test]
fn a_row_that_is_not_what_its_fingerprint_in_the_history_was_made_of_is_found() {
    let told = |fingerprint: u64| {
        let mut world = good();
        world.sql.events[2].fingerprint = Some(fingerprint);
        seal(&mut world);
        check(&world, Phase::Anytime)
    };
    let made_of_the_row = fingerprint_of(&good().sql.rows[2]);
    assert!(told(made_of_the_row).is_clean());
    let broken = told(made_of_the_row ^ 1).broken();
    assert_eq!(broken, [Promise::HistoryTellsTheRow]);
}

#[test]
fn a_second_final_is_found() {
    breaks(Promise::OneFinal, Phase::Anytime, |world| {
        let mut again = world.log.records[3].clone();
        again.position = 600;
        let message = again.message.as_mut().unwrap();
        (message.position, message.queue_offset) = (600, 1);
        world.log.records.push(again);
    });
}

#[test]
fn a_lost_final_is_found() {
    breaks_only(Promise::OneFinal, |world| {
        world.log.records.remove(3);
    });
}

#[test]
fn a_final_of_a_rolled_back_or_open_or_unknown_transaction_is_found() {
    for id in [ROLLED_BACK_ONE, OPEN_ONE, 0xD] {
        breaks(Promise::DecisionBeforeRecord, Phase::Anytime, |world| {
            let mut copy = message("orders", 1, 600, id);
            copy.sys_flag = 0x8;
            world
                .log
                .records
                .push(record(600, 60, FINAL, id, 2, Some(copy)));
        });
    }
}

#[test]
fn a_final_under_another_number_is_found() {
    breaks(Promise::DecisionBeforeRecord, Phase::Anytime, |world| {
        world.log.records[3].mark.as_mut().unwrap().number = 2;
    });
}

#[test]
fn a_final_that_is_not_its_half_message_is_found() {
    let spoils: [fn(&mut Message); 5] = [
        |copy| copy.body_hash = 1,
        |copy| copy.topic = "payments".to_owned(),
        |copy| copy.prepared_position = 200,
        |copy| copy.sys_flag = 0x4,
        |copy| drop(copy.properties.remove(0)),
    ];
    for spoil in spoils {
        breaks_only(Promise::FinalIsTheHalf, |world| {
            spoil(world.log.records[3].message.as_mut().unwrap());
        });
    }
}

#[test]
fn finals_out_of_the_order_of_their_decisions_are_found() {
    breaks_only(Promise::DecisionOrder, |world| {
        // The second transaction is committed as well, its final comes first in the queue.
        world.sql.rows[1].state = COMMITTED;
        world.sql.events[3].to = COMMITTED;
        world.databases[0].markers.insert(ROLLED_BACK_ONE, true);
        world.databases[0]
            .business
            .as_mut()
            .unwrap()
            .insert(ROLLED_BACK_ONE);
        world.answers.pop();
        let mut copy = message("orders", 0, 350, ROLLED_BACK_ONE);
        (copy.sys_flag, copy.prepared_position) = (0x8, 200);
        world.log.records[4] = record(350, 35, FINAL, ROLLED_BACK_ONE, 2, Some(copy));
        world.log.records.swap(3, 4);
        world.log.records[4].message.as_mut().unwrap().queue_offset = 1;
        seal(world);
    });
}

#[test]
fn two_rows_of_one_transaction_are_found() {
    breaks(Promise::OneDecision, Phase::Anytime, |world| {
        world.sql.rows[2].id = COMMITTED_ONE
    });
}

#[test]
fn a_decision_without_number_is_found() {
    breaks(Promise::OneDecision, Phase::Anytime, |world| {
        world.sql.rows[0].decision = None
    });
}

#[test]
fn a_decision_number_given_twice_or_never_is_found() {
    breaks(Promise::DecisionsAreNumbered, Phase::Anytime, |world| {
        world.sql.rows[1].decision = Some(1);
    });
    breaks_only(Promise::DecisionsAreNumbered, |world| {
        world.sql.owner.last_decision = 3
    });
}

#[test]
fn a_log_older_than_sql_is_found() {
    breaks(Promise::SqlWithinTheLog, Phase::Anytime, |world| {
        world.log.end = 300
    });
    breaks_only(Promise::SqlWithinTheLog, |world| {
        world.log.records.remove(2);
        world.log.records[0].message.as_mut().unwrap().queue = 1;
        world.log.records[0].message.as_mut().unwrap().queue_offset = 0;
        world.log.records[1].message.as_mut().unwrap().queue_offset = 0;
        world.sql.rows[1].queue_offset = 0;
        world.answers.clear();
    });
}

#[test]
fn sql_older_than_the_log_is_found() {
    breaks_only(Promise::SqlWithinTheLog, |world| world.log.stamped = 3);
    breaks_only(Promise::SqlWithinTheLog, |world| world.sql.owner.log = 8);
}

#[test]
fn an_empty_database_beside_a_log_that_was_used_is_found() {
    breaks(Promise::SqlWithinTheLog, Phase::Anytime, |world| {
        world.sql = Sql::default();
    });
}

#[test]
fn a_gap_in_a_queue_is_found() {
    breaks(Promise::LogIsSound, Phase::Anytime, |world| {
        world.log.records[2].message.as_mut().unwrap().queue_offset = 3;
    });
}

#[test]
fn a_damaged_body_is_found() {
    breaks_only(Promise::LogIsSound, |world| {
        world.log.records[2].message.as_mut().unwrap().body_intact = false;
    });
}

#[test]
fn records_out_of_order_are_found() {
    breaks_only(Promise::LogIsSound, |world| world.log.records.swap(3, 4));
}

#[test]
fn an_edited_event_is_found_and_named() {
    let mut world = good();
    world.sql.events[1].evidence = "edited".to_owned();
    let report = check(&world, Phase::Anytime);
    assert_eq!(report.broken(), [Promise::SealsAreWhole]);
    assert!(
        report.to_string().contains("event 2 was changed"),
        "{report}"
    );
}

#[test]
fn a_removed_event_or_seal_is_found() {
    breaks(Promise::SealsAreWhole, Phase::Anytime, |world| {
        world.sql.events.remove(1);
    });
    breaks(Promise::SealsAreWhole, Phase::Anytime, |world| {
        world.sql.events.pop();
    });
    breaks_only(Promise::SealsAreWhole, |world| {
        world.sql.seals.remove(0);
    });
    breaks_only(Promise::SealsAreWhole, |world| {
        world.sql.seals.pop();
    });
}

#[test]
fn a_recomputed_seal_without_its_successors_is_found() {
    breaks_only(Promise::SealsAreWhole, |world| {
        let seal = &mut world.sql.seals[0];
        seal.wall_ms += 1;
        seal.hash = hash_of(&[0; 32], seal);
    });
}

#[test]
fn a_row_that_its_history_does_not_lead_to_is_found() {
    breaks(Promise::HistoryTellsTheRow, Phase::Anytime, |world| {
        world.sql.rows[1].state = COMMITTED
    });
    breaks_only(Promise::HistoryTellsTheRow, |world| {
        world.sql.rows[1].decided_at = Some(5)
    });
    breaks_only(Promise::HistoryTellsTheRow, |world| {
        world.sql.events.push(event(
            5,
            COMMITTED_ONE,
            Some(COMMITTED),
            ROLLED_BACK,
            1,
            1100,
        ));
        seal(world);
    });
    breaks_only(Promise::HistoryTellsTheRow, |world| {
        world
            .sql
            .events
            .push(event(5, 0xE, None, PREPARED, 1, 1100));
        seal(world);
    });
}

#[test]
fn a_check_that_was_counted_without_an_answer_is_found() {
    breaks_only(Promise::ChecksAreAnswered, |world| {
        world.sql.rows[2].checks = 1
    });
}

#[test]
fn a_recorded_contradiction_that_was_not_counted_is_found() {
    breaks_only(Promise::HistoryTellsTheRow, |world| {
        world.sql.events.push(event(
            5,
            COMMITTED_ONE,
            Some(COMMITTED),
            step::REFUSED,
            1,
            1100,
        ));
        seal(world);
    });
}

#[test]
fn an_answer_that_the_row_denies_is_found() {
    breaks_only(Promise::AckedDecisionStands, |world| {
        world.answers.push(Answer::Decided(OPEN_ONE, false));
    });
}

/// A plain message, and what its sender and a reader were told.
fn with_a_plain_message(world: &mut World) {
    let mut plain = message("news", 0, 600, 0xE);
    plain.properties = vec![("KEYS".to_owned(), format!("{:032X}", 0xE))];
    world.log.records.push(Record {
        position: 600,
        message: Some(plain),
        ..Record::default()
    });
    let told = [
        Answer::Sent(0xE),
        Answer::Written(0xE, 600),
        Answer::Seen(0xE),
        // Lost with everything behind it.
        Answer::Written(0xF, 700),
    ];
    world.answers.extend(told);
}

#[test]
fn a_plain_message_that_is_there_passes() {
    let mut world = good();
    with_a_plain_message(&mut world);
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_plain_message_that_is_gone_or_elsewhere_is_found() {
    for answer in [
        Answer::Sent(0xF),
        Answer::Seen(0xF),
        Answer::Written(0xF, 650),
        Answer::Written(0xE, 610),
        // A transaction's message is no plain one.
        Answer::Sent(COMMITTED_ONE),
    ] {
        breaks_only(Promise::AckedMessageIsKept, |world| {
            with_a_plain_message(world);
            world.answers.push(answer);
        });
    }
}

/// The keys of the two transactions that are decided, what their producers say, and what a reader got.
fn with_keys(world: &mut World) {
    for (record, key) in [(0, 1), (1, 2), (3, 1)] {
        let message = world.log.records[record].message.as_mut().unwrap();
        let key = format!("{key:032X}");
        message.properties.push(("KEYS".to_owned(), key));
    }
    let told = [Answer::HalfOfKey(1), Answer::HalfOfKey(2)];
    world.answers.extend(told);
    world.answers.push(Answer::Says(1, true));
    world.answers.push(Answer::Says(2, false));
    let got = Received {
        queue: 0,
        offset: 0,
        key: 1,
    };
    world.readers = vec![Reader {
        group: "readers".to_owned(),
        topic: "orders".to_owned(),
        received: vec![got, got],
    }];
}

#[test]
fn a_delivery_may_come_twice() {
    let mut world = good();
    with_keys(&mut world);
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_decision_that_no_producer_has_made_is_found() {
    for (key, commit) in [(1, false), (2, true)] {
        breaks(Promise::ProducersDecide, Phase::Anytime, |world| {
            with_keys(world);
            world.answers.push(Answer::Says(key, commit));
        });
    }
}

#[test]
fn a_transaction_that_nobody_decides_is_no_healed_world() {
    breaks(Promise::ProducersDecide, Phase::Healed, |world| {
        with_keys(world);
        let open = world.log.records[2].message.as_mut().unwrap();
        open.properties.push(("KEYS".to_owned(), "3".to_owned()));
        world.answers.push(Answer::Says(3, true));
        world.sql.rows[2].state = PARKED;
    });
}

#[test]
fn an_acknowledged_key_that_is_gone_is_found() {
    breaks_only(Promise::AckedHalfIsKept, |world| {
        with_keys(world);
        world.answers.push(Answer::HalfOfKey(4));
    });
}

#[test]
fn a_delivery_from_a_place_where_another_or_no_message_stands_is_found() {
    let spoils: [fn(&mut Received); 3] = [
        |received| received.key = 2,
        |received| received.offset = 1,
        |received| received.queue = 1,
    ];
    for spoil in spoils {
        breaks(Promise::ReceivedIsPublished, Phase::Anytime, |world| {
            with_keys(world);
            spoil(&mut world.readers[0].received[0]);
        });
    }
}

#[test]
fn a_delivery_of_what_is_rolled_back_is_found() {
    breaks_only(Promise::ReceivedIsPublished, |world| {
        with_keys(world);
        let mut plain = message("orders", 1, 600, 0xE);
        plain.properties = vec![("KEYS".to_owned(), format!("{:032X}", 2))];
        world.log.records.push(Record {
            position: 600,
            message: Some(plain),
            ..Record::default()
        });
        world.readers[0].received.push(Received {
            queue: 0,
            offset: 1,
            key: 2,
        });
    });
}

#[test]
fn a_message_that_never_came_is_found_once_healed() {
    let mut world = good();
    with_keys(&mut world);
    world.readers[0].received.clear();
    assert!(check(&world, Phase::Anytime).is_clean());
    let report = check(&world, Phase::Healed);
    let never = |violation: &super::Violation| violation.witness.contains("never got");
    assert!(report.violations.iter().any(never), "{report}");
}

#[test]
fn an_acknowledged_half_message_that_is_gone_is_found() {
    breaks_only(Promise::AckedHalfIsKept, |world| {
        world.answers.push(Answer::Half(0xF))
    });
}

#[test]
fn a_marker_or_business_row_that_says_otherwise_is_found() {
    breaks_only(Promise::MarkerAgrees, |world| {
        world.databases[0].markers.remove(&COMMITTED_ONE);
    });
    breaks_only(Promise::MarkerAgrees, |world| {
        world.databases[0].business.as_mut().unwrap().clear();
    });
    breaks_only(Promise::MarkerAgrees, |world| {
        world.databases[0]
            .business
            .as_mut()
            .unwrap()
            .insert(ROLLED_BACK_ONE);
    });
    breaks_only(Promise::MarkerAgrees, |world| {
        world.databases[0]
            .business
            .as_mut()
            .unwrap()
            .insert(OPEN_ONE);
    });
}

#[test]
fn a_forced_decision_may_contradict_its_marker() {
    let mut world = good();
    world.sql.events[0].actor = FORCED;
    world.databases[0].markers.insert(COMMITTED_ONE, false);
    world.databases[0].business.as_mut().unwrap().clear();
    seal(&mut world);
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_rollback_by_check_back_without_tombstone_is_found() {
    breaks_only(Promise::TombstoneStands, |world| {
        world.databases[0].markers.remove(&ROLLED_BACK_ONE);
    });
}

#[test]
fn an_effect_that_happened_twice_or_without_a_commit_is_found() {
    breaks_only(Promise::EffectOnce, |world| {
        world.effects[0].applied.insert(COMMITTED_ONE, 2);
    });
    breaks_only(Promise::EffectOnce, |world| {
        world.effects[0].applied.insert(OPEN_ONE, 1);
    });
}

#[test]
fn a_missing_effect_is_found_once_healed() {
    let mut world = good();
    world.effects[0].applied.clear();
    assert!(check(&world, Phase::Anytime).is_clean());
    let report = check(&world, Phase::Healed);
    assert!(
        report.to_string().contains("warehouse has not applied"),
        "{report}"
    );
}

/// A log that no longer has the half messages, but for a copy of the open one.
fn trim(world: &mut World) {
    (world.log.start, world.log.trimmed) = (350, true);
    world.log.records.retain(|record| record.position >= 350);
    let mut copy = record(600, 60, MOVED, OPEN_ONE, 300, None);
    copy.carried = Some(message("HALF", 2, 300, OPEN_ONE));
    world.log.records.push(copy);
}

#[test]
fn a_log_that_begins_later_is_fine_with_a_copy_of_what_is_open() {
    let mut world = good();
    trim(&mut world);
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn an_open_half_message_that_was_deleted_without_a_copy_is_found() {
    breaks_only(Promise::AckedHalfIsKept, |world| {
        trim(world);
        world.log.records.pop();
    });
}

#[test]
fn a_copy_of_another_half_message_than_the_row_tells_is_found() {
    let spoils: [fn(&mut Message); 4] = [
        |copy| copy.position = 200,
        |copy| copy.queue_offset = 1,
        |copy| copy.body_len = 6,
        |copy| copy.body_intact = false,
    ];
    for spoil in spoils {
        breaks_only(Promise::HalfHasRow, |world| {
            trim(world);
            let last = world.log.records.last_mut().expect("the copy");
            spoil(last.carried.as_mut().expect("it carries one"));
        });
    }
}

/// What the log no longer has of a commit, SQL no longer has either; the history says that this may be missing.
fn forget(world: &mut World) {
    trim(world);
    let number = world.sql.owner.next_event;
    let tell = Event {
        evidence: "events before 2, decisions up to 1".to_owned(),
        ..event(number, 0, Some(step::FORGOTTEN), step::FORGOTTEN, 5, 2000)
    };
    world.sql.events.push(tell);
    seal(world);
    world.sql.events.remove(0);
    world.sql.rows.remove(0);
}

#[test]
fn what_the_history_says_is_forgotten_may_be_missing() {
    let mut world = good();
    forget(&mut world);
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
    // A half message whose row is not written yet is no part of it.
    let half = message("HALF", 3, 650, NEW_ONE);
    let half = record(650, 65, HALF, NEW_ONE, 0, Some(half));
    world.log.records.push(half);
    world.answers.push(Answer::Half(NEW_ONE));
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
    world.answers.push(Answer::Decided(NEW_ONE, true));
    let report = check(&world, Phase::Anytime);
    assert_eq!(report.broken(), [Promise::AckedDecisionStands]);
}

#[test]
fn what_is_missing_beyond_what_is_forgotten_is_found() {
    breaks(Promise::SealsAreWhole, Phase::Anytime, |world| {
        forget(world);
        world.sql.events.remove(0);
    });
    breaks(Promise::DecisionsAreNumbered, Phase::Anytime, |world| {
        forget(world);
        world.sql.rows.remove(0);
    });
    breaks(Promise::AckedHalfIsKept, Phase::Anytime, |world| {
        forget(world);
        world.sql.rows.retain(|row| row.id != OPEN_ONE);
    });
    // Its half message is still there.
    breaks(Promise::HalfHasRow, Phase::Anytime, |world| {
        let records = world.log.records.clone();
        forget(world);
        world.log.records = records;
    });
}
