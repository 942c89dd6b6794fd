//! Events and seals that do not prove what the rows say.

use super::*;

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
