//! Markers, business rows, effects and answers that the coordinator does not agree with.

use super::*;

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
