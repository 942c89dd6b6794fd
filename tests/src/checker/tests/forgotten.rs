//! What may be missing since it was forgotten, and what may not.

use super::*;

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
