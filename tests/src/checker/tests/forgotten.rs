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

/// The same when the log has no record of the decision any more.
fn forget_without_record(world: &mut World) {
    forget(world);
    let is_final = |record: &Record| record.mark.is_some_and(|mark| mark.kind == FINAL);
    world.log.records.retain(|record| !is_final(record));
}

const EARLIER: Decided = Decided {
    number: 1,
    committed: true,
    actor: Some(1),
};

#[test]
fn what_an_earlier_look_has_seen_decided_may_be_forgotten_without_a_record() {
    let mut world = good();
    forget_without_record(&mut world);
    world.answers = vec![Answer::Half(COMMITTED_ONE)];
    world.decided.insert(COMMITTED_ONE, EARLIER);
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn what_was_answered_may_be_forgotten_between_two_looks() {
    let mut world = good();
    forget_without_record(&mut world);
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn what_a_check_back_has_fenced_may_be_forgotten_between_two_looks() {
    let mut world = good();
    forget_without_record(&mut world);
    world.answers = vec![Answer::Half(COMMITTED_ONE)];
    (world.effects, world.databases[0].business) = (Vec::new(), None);
    let broken = check(&world, Phase::Anytime).broken();
    assert_eq!(broken, [Promise::AckedHalfIsKept], "only its marker stands");
    world.databases[0].markers.insert(COMMITTED_ONE, false);
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
    world.databases[0].markers.insert(NEW_ONE, false);
    world.answers.push(Answer::Half(NEW_ONE));
    let broken = check(&world, Phase::Anytime).broken();
    assert_eq!(broken, [Promise::AckedHalfIsKept], "one number, for two");
}

#[test]
fn what_was_never_decided_is_not_forgotten() {
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "a half message that nobody has seen decided, beside a number that is nobody's",
                promise: Promise::AckedHalfIsKept,
                says: "0000000000000000000000000000000A was acknowledged",
                spoil: |world| {
                    forget_without_record(world);
                    world.answers = vec![Answer::Half(COMMITTED_ONE)];
                },
            },
            Bad {
                name: "one more, whose number would be that of another",
                promise: Promise::AckedHalfIsKept,
                says: "0000000000000000000000000000000D was acknowledged",
                spoil: |world| {
                    forget(world);
                    world.answers.push(Answer::Half(NEW_ONE));
                },
            },
            Bad {
                name: "more answers than numbers",
                promise: Promise::AckedDecisionStands,
                says: "the answer was 1, its state is None",
                spoil: |world| {
                    forget_without_record(world);
                    world.answers.push(Answer::Decided(NEW_ONE, true));
                },
            },
            Bad {
                name: "an answer for whom no number is left",
                promise: Promise::AckedDecisionStands,
                says: "for 0000000000000000000000000000000D the answer was 1, its state is None",
                spoil: |world| {
                    forget_without_record(world);
                    world.decided.insert(COMMITTED_ONE, EARLIER);
                    world.answers.push(Answer::Decided(NEW_ONE, true));
                },
            },
            Bad {
                name: "an effect of what nobody has seen decided",
                promise: Promise::EffectOnce,
                says: "applied 0000000000000000000000000000000A 1 time(s), its state is None",
                spoil: |world| {
                    forget_without_record(world);
                    world.answers.clear();
                },
            },
        ],
    );
    are_found(
        Phase::Healed,
        &[Bad {
            name: "a business row of what nobody has seen decided",
            promise: Promise::MarkerAgrees,
            says: "0000000000000000000000000000000A has a business row and the coordinator does not",
            spoil: |world| {
                forget_without_record(world);
                world.answers.clear();
            },
        }],
    );
}

#[test]
fn what_is_forgotten_still_counts_as_it_was_decided() {
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "an answer that its final contradicts",
                promise: Promise::AckedDecisionStands,
                says: "the answer was 2, its state is Some(1)",
                spoil: |world| {
                    forget(world);
                    world.answers.push(Answer::Decided(COMMITTED_ONE, false));
                },
            },
            Bad {
                name: "two answers that contradict each other",
                promise: Promise::AckedDecisionStands,
                says: "the answer was 2, its state is Some(1)",
                spoil: |world| {
                    forget_without_record(world);
                    world.answers.push(Answer::Decided(COMMITTED_ONE, false));
                },
            },
            Bad {
                name: "an effect of what was rolled back",
                promise: Promise::EffectOnce,
                says: "1 time(s), its state is Some(2)",
                spoil: |world| {
                    forget_without_record(world);
                    let rolled_back = Decided {
                        committed: false,
                        ..EARLIER
                    };
                    world.decided.insert(COMMITTED_ONE, rolled_back);
                },
            },
            Bad {
                name: "a business row of what was rolled back",
                promise: Promise::MarkerAgrees,
                says: "has a business row, was rolled back and is forgotten",
                spoil: |world| {
                    forget_without_record(world);
                    let rolled_back = Decided {
                        committed: false,
                        ..EARLIER
                    };
                    world.decided.insert(COMMITTED_ONE, rolled_back);
                },
            },
        ],
    );
}
