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

/// What the services' database says of a transaction.
fn stands(world: &mut World, id: u128, marker: bool, business: bool) {
    let database = &mut world.databases[0];
    database.markers.insert(id, marker);
    let rows = database.business.as_mut().expect("the test can tell");
    rows.remove(&id);
    if business {
        rows.insert(id);
    }
}

#[test]
fn an_answer_or_a_local_transaction_that_the_row_denies_is_found() {
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "the opposite was told",
                promise: Promise::AckedDecisionStands,
                says: "the answer was 2, its state is Some(1)",
                spoil: |world| world.answers.push(Answer::Decided(COMMITTED_ONE, false)),
            },
            Bad {
                name: "a decision was told that nobody knows",
                promise: Promise::AckedDecisionStands,
                says: "the answer was 1, its state is None",
                spoil: |world| world.answers.push(Answer::Decided(NEW_ONE, true)),
            },
            Bad {
                name: "committed, with a tombstone",
                promise: Promise::MarkerAgrees,
                says: "state 1, marker Some(false)",
                spoil: |world| stands(world, COMMITTED_ONE, false, false),
            },
            Bad {
                name: "rolled back, with a marker",
                promise: Promise::MarkerAgrees,
                says: "state 2, marker Some(true)",
                spoil: |world| stands(world, ROLLED_BACK_ONE, true, false),
            },
            Bad {
                name: "committed, without a business row",
                promise: Promise::MarkerAgrees,
                says: "state 1, business row Some(false)",
                spoil: |world| stands(world, COMMITTED_ONE, true, false),
            },
            Bad {
                name: "open, with a business row beside a tombstone",
                promise: Promise::MarkerAgrees,
                says: "it has a business row and the marker is Some(false)",
                spoil: |world| stands(world, OPEN_ONE, false, true),
            },
            Bad {
                name: "rolled back by a check-back that read a marker",
                promise: Promise::TombstoneStands,
                says: "was rolled back by a check-back; its marker is Some(true)",
                spoil: |world| stands(world, ROLLED_BACK_ONE, true, false),
            },
        ],
    );
}

#[test]
fn a_local_transaction_that_was_never_settled_is_found_once_healed() {
    are_found(
        Phase::Healed,
        &[
            Bad {
                name: "a business row that the coordinator has never heard of",
                promise: Promise::MarkerAgrees,
                says: "has a business row and the coordinator does not know it",
                spoil: |world| stands(world, NEW_ONE, true, true),
            },
            Bad {
                name: "parked, and its marker could have been read",
                promise: Promise::MarkerAgrees,
                says: "state 3, marker Some(true)",
                spoil: |world| {
                    world.sql.rows[2].state = PARKED;
                    stands(world, OPEN_ONE, true, true);
                },
            },
            Bad {
                name: "parked, and its tombstone could have been read",
                promise: Promise::MarkerAgrees,
                says: "state 3, marker Some(false)",
                spoil: |world| {
                    world.sql.rows[2].state = PARKED;
                    stands(world, OPEN_ONE, false, false);
                },
            },
        ],
    );
}

#[test]
fn only_a_database_whose_markers_may_be_deleted_may_lack_that_of_a_commit() {
    let mut world = good();
    world.databases[0].markers.clear();
    world.databases[0].pruned = true;
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
    world.databases[0].pruned = false;
    let broken = check(&world, Phase::Anytime).broken();
    assert_eq!(broken, [Promise::MarkerAgrees, Promise::TombstoneStands]);
}

#[test]
fn an_effect_of_what_is_not_committed_is_found() {
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "rolled back",
                promise: Promise::EffectOnce,
                says: "1 time(s), its state is Some(2)",
                spoil: |world| {
                    world.effects[0].applied.insert(ROLLED_BACK_ONE, 1);
                },
            },
            Bad {
                name: "unknown",
                promise: Promise::EffectOnce,
                says: "1 time(s), its state is None",
                spoil: |world| {
                    world.effects[0].applied.insert(NEW_ONE, 1);
                },
            },
            Bad {
                name: "committed, and applied again",
                promise: Promise::EffectOnce,
                says: "2 time(s), its state is Some(1)",
                spoil: |world| {
                    world.effects[0].applied.insert(COMMITTED_ONE, 2);
                },
            },
        ],
    );
}
