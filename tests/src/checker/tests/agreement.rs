//! Log and SQL that do not fit together.

use super::*;

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

#[test]
fn a_record_out_of_its_place_is_found() {
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "behind the end of the log",
                promise: Promise::LogIsSound,
                says: "the record at 500 is out of order",
                spoil: |world| world.log.end = 500,
            },
            Bad {
                name: "before the one before it",
                promise: Promise::LogIsSound,
                says: "the record at 400 is out of order",
                spoil: |world| world.log.records.swap(3, 4),
            },
            Bad {
                name: "the message says that it stands elsewhere",
                promise: Promise::LogIsSound,
                says: "the record at 300 (HALF/0) says it stands at 310",
                spoil: |world| {
                    let half = world.log.records[2].message.as_mut();
                    half.expect("it is one").position = 310;
                },
            },
        ],
    );
}

#[test]
fn a_database_that_knows_more_than_the_log_is_found() {
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "the watermark",
                promise: Promise::SqlWithinTheLog,
                says: "the watermark 701 is behind the log's end 700",
                spoil: |world| world.sql.owner.watermark = 701,
            },
            Bad {
                name: "a row",
                promise: Promise::SqlWithinTheLog,
                says: "stands at 700, behind the log's end 700",
                spoil: |world| world.sql.rows[2].position = 700,
            },
            Bad {
                name: "a row where another record stands",
                promise: Promise::SqlWithinTheLog,
                says: "no half message stands at 350",
                spoil: |world| world.sql.rows[2].position = 350,
            },
            Bad {
                name: "no owner beside a log that has seen a batch",
                promise: Promise::SqlWithinTheLog,
                says: "the log has 0 record(s) of the coordinator",
                spoil: |world| {
                    world.sql = Sql::default();
                    world.log.records.clear();
                },
            },
        ],
    );
}

#[test]
fn a_row_that_is_half_decided_is_found() {
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "decided without a time",
                promise: Promise::OneDecision,
                says: "is in state 1 with decision Some(1)",
                spoil: |world| world.sql.rows[0].decided_at = None,
            },
            Bad {
                name: "decided without a number",
                promise: Promise::OneDecision,
                says: "is in state 1 with decision None",
                spoil: |world| world.sql.rows[0].decision = None,
            },
            Bad {
                name: "open with a number",
                promise: Promise::OneDecision,
                says: "is in state 0 with decision Some(3)",
                spoil: |world| world.sql.rows[2].decision = Some(3),
            },
            Bad {
                name: "open with a time",
                promise: Promise::OneDecision,
                says: "is in state 0 with decision None",
                spoil: |world| world.sql.rows[2].decided_at = Some(1003),
            },
        ],
    );
}

#[test]
fn numbers_that_do_not_fit_the_owner_row_are_found() {
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "a decision behind the last one",
                promise: Promise::DecisionsAreNumbered,
                says: "decision 3, the last is 2",
                spoil: |world| world.sql.rows[1].decision = Some(3),
            },
            Bad {
                name: "a decision before the first one",
                promise: Promise::DecisionsAreNumbered,
                says: "decision 0, the last is 2",
                spoil: |world| world.sql.rows[1].decision = Some(0),
            },
            Bad {
                name: "one number for two",
                promise: Promise::DecisionsAreNumbered,
                says: "decision 1 belongs to 0000000000000000000000000000000A and 0000000000000000000000000000000B",
                spoil: |world| world.sql.rows[1].decision = Some(1),
            },
            Bad {
                name: "a number that is nobody's",
                promise: Promise::DecisionsAreNumbered,
                says: "decision 3 of 3 is nobody's",
                spoil: |world| world.sql.owner.last_decision = 3,
            },
            Bad {
                name: "more is published than was decided",
                promise: Promise::DecisionsAreNumbered,
                says: "published 3 of 2 decisions",
                spoil: |world| world.sql.owner.published = 3,
            },
        ],
    );
}

#[test]
fn a_half_message_that_is_none_or_another_is_found() {
    let spoils: [fn(&mut Row); 5] = [
        |row| row.id = NEW_ONE,
        |row| row.queue_offset = 3,
        |row| row.body_len = 6,
        |row| row.topic = "payments".to_owned(),
        |row| row.prepared_at = 31,
    ];
    for spoil in spoils {
        breaks(Promise::HalfHasRow, Phase::Anytime, |world| {
            spoil(&mut world.sql.rows[2]);
        });
    }
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "a note",
                promise: Promise::HalfHasRow,
                says: "the half message at 300 is no message",
                spoil: |world| world.log.records[2].message = None,
            },
            Bad {
                name: "a copy that is a note",
                promise: Promise::HalfHasRow,
                says: "at 600 is no message",
                spoil: |world| {
                    trim(world);
                    world.log.records.last_mut().expect("the copy").carried = None;
                },
            },
            Bad {
                name: "a copy of what stood elsewhere than its row says",
                promise: Promise::HalfHasRow,
                says: "at 600 tells (200, 2, 5), the row Some((300, 2, 5))",
                spoil: |world| {
                    trim(world);
                    let copy = world.log.records.last_mut().expect("the copy");
                    copy.mark.as_mut().expect("it has one").number = 200;
                    copy.carried.as_mut().expect("it carries one").position = 200;
                },
            },
        ],
    );
}

#[test]
fn an_echo_that_its_row_contradicts_is_found() {
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "under another number",
                promise: Promise::DecisionBeforeRecord,
                says: "at 500 has number 1, the row state 2 and number Some(2)",
                spoil: |world| {
                    let mark = world.log.records[4].mark.as_mut();
                    mark.expect("it has one").number = 1;
                },
            },
            Bad {
                name: "of what is committed",
                promise: Promise::DecisionBeforeRecord,
                says: "at 600 has number 1, the row state 1",
                spoil: |world| {
                    let echo = record(600, 60, ROLLBACK, COMMITTED_ONE, 1, None);
                    world.log.records.push(echo);
                },
            },
            Bad {
                name: "of what is open",
                promise: Promise::DecisionBeforeRecord,
                says: "at 600 has number 3, the row state 0 and number None",
                spoil: |world| {
                    let echo = record(600, 60, ROLLBACK, OPEN_ONE, 3, None);
                    world.log.records.push(echo);
                },
            },
            Bad {
                name: "of what has no row",
                promise: Promise::DecisionBeforeRecord,
                says: "the echo of 0000000000000000000000000000000D at 600 has no row",
                spoil: |world| {
                    let echo = record(600, 60, ROLLBACK, NEW_ONE, 3, None);
                    world.log.records.push(echo);
                },
            },
        ],
    );
}

#[test]
fn a_final_that_lost_something_of_its_half_message_is_found() {
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "it is a note",
                promise: Promise::FinalIsTheHalf,
                says: "it is no message",
                spoil: |world| world.log.records[3].message = None,
            },
            Bad {
                name: "it is shorter",
                promise: Promise::FinalIsTheHalf,
                says: "the body is another",
                spoil: |world| {
                    let copy = world.log.records[3].message.as_mut();
                    copy.expect("it is one").body_len = 4;
                },
            },
            Bad {
                name: "it stands in another queue",
                promise: Promise::FinalIsTheHalf,
                says: "it stands in orders/1",
                spoil: |world| {
                    let copy = world.log.records[3].message.as_mut();
                    copy.expect("it is one").queue = 1;
                },
            },
            Bad {
                name: "it is not what was carried forward",
                promise: Promise::FinalIsTheHalf,
                says: "the body is another",
                spoil: |world| {
                    trim(world);
                    let mut copy = record(650, 65, MOVED, COMMITTED_ONE, 100, None);
                    let mut carried = message("HALF", 0, 100, COMMITTED_ONE);
                    carried.body_hash = 1;
                    copy.carried = Some(carried);
                    world.log.records.push(copy);
                },
            },
        ],
    );
}

#[test]
fn a_decision_without_a_record_is_found() {
    are_found(
        Phase::Anytime,
        &[Bad {
            name: "a rollback that is published",
            promise: Promise::OneFinal,
            says: "decision 2 (0000000000000000000000000000000B) has no record",
            spoil: |world| drop(world.log.records.remove(4)),
        }],
    );
    are_found(
        Phase::Healed,
        &[Bad {
            name: "a rollback that is not published",
            promise: Promise::OneFinal,
            says: "decision 2 (0000000000000000000000000000000B) has no record",
            spoil: |world| {
                world.log.records.remove(4);
                world.sql.owner.published = 1;
            },
        }],
    );
}

#[test]
fn what_is_left_over_in_the_end_is_found_once_healed() {
    are_found(
        Phase::Healed,
        &[
            Bad {
                name: "an open transaction",
                promise: Promise::EverythingIsSettled,
                says: "0000000000000000000000000000000C is still open",
                spoil: |_| (),
            },
            Bad {
                name: "a final that the log did not take",
                promise: Promise::EverythingIsSettled,
                says: "0000000000000000000000000000000A is not published",
                spoil: |world| world.sql.rows[0].unpublished = Some("disk full".to_owned()),
            },
            Bad {
                name: "a decision that does not count as published",
                promise: Promise::EverythingIsSettled,
                says: "published 1 of 2 decisions",
                spoil: |world| world.sql.owner.published = 1,
            },
        ],
    );
}

#[test]
fn a_decision_that_an_earlier_look_has_seen_otherwise_is_found() {
    const FIRST: Decided = Decided {
        number: 1,
        committed: true,
        actor: Some(1),
    };
    let mut world = good();
    world.decided = [(COMMITTED_ONE, FIRST)].into();
    assert_eq!(world.decisions()[&COMMITTED_ONE], FIRST);
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "it was decided otherwise",
                promise: Promise::OneDecision,
                says: "its state and decision are Some((2, Some(2)))",
                spoil: |world| world.decided = [(ROLLED_BACK_ONE, FIRST)].into(),
            },
            Bad {
                name: "it had another number",
                promise: Promise::OneDecision,
                says: "its state and decision are Some((1, Some(1)))",
                spoil: |world| {
                    let second = Decided { number: 2, ..FIRST };
                    world.decided = [(COMMITTED_ONE, second)].into();
                },
            },
            Bad {
                name: "it is open again",
                promise: Promise::OneDecision,
                says: "its state and decision are Some((0, None))",
                spoil: |world| world.decided = [(OPEN_ONE, FIRST)].into(),
            },
            Bad {
                name: "its row is gone",
                promise: Promise::OneDecision,
                says: "its state and decision are None",
                spoil: |world| world.decided = [(NEW_ONE, FIRST)].into(),
            },
            Bad {
                name: "the whole database is gone",
                promise: Promise::OneDecision,
                says: "its state and decision are None",
                spoil: |world| {
                    world.decided = [(COMMITTED_ONE, FIRST)].into();
                    (world.log, world.sql) = (Log::default(), Sql::default());
                },
            },
        ],
    );
}
