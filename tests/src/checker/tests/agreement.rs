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
