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

#[test]
fn a_history_that_leads_elsewhere_than_its_row_is_found() {
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "a step from where it does not stand",
                promise: Promise::HistoryTellsTheRow,
                says: "event 4 starts from Some(3), not Some(0)",
                spoil: |world| world.sql.events[3].from = Some(PARKED),
            },
            Bad {
                name: "a half message of another time",
                promise: Promise::HistoryTellsTheRow,
                says: "event 3 dates the half message 31",
                spoil: |world| world.sql.events[2].at = 31,
            },
            Bad {
                name: "stored twice",
                promise: Promise::HistoryTellsTheRow,
                says: "event 5 leads from Some(0) to 0",
                spoil: |world| {
                    let again = event(5, OPEN_ONE, Some(PREPARED), PREPARED, 1, 40);
                    world.sql.events.push(again);
                },
            },
            Bad {
                name: "parked after it was decided",
                promise: Promise::HistoryTellsTheRow,
                says: "event 5 leads from Some(1) to 3",
                spoil: |world| {
                    let parked = event(5, COMMITTED_ONE, Some(COMMITTED), PARKED, 1, 1100);
                    world.sql.events.push(parked);
                },
            },
            Bad {
                name: "decided twice",
                promise: Promise::HistoryTellsTheRow,
                says: "event 5 leads from Some(2) to 1",
                spoil: |world| {
                    let again = event(5, ROLLED_BACK_ONE, Some(ROLLED_BACK), COMMITTED, 1, 1100);
                    world.sql.events.push(again);
                },
            },
            Bad {
                name: "refused before it was decided",
                promise: Promise::HistoryTellsTheRow,
                says: "event 5 leads from Some(0) to 5",
                spoil: |world| {
                    let refused = event(5, OPEN_ONE, Some(PREPARED), step::REFUSED, 1, 40);
                    world.sql.events.push(refused);
                },
            },
            Bad {
                name: "another state in the end",
                promise: Promise::HistoryTellsTheRow,
                says: "the history ends in Some(0), the row says 3",
                spoil: |world| world.sql.rows[2].state = PARKED,
            },
            Bad {
                name: "no history",
                promise: Promise::HistoryTellsTheRow,
                says: "the history ends in None, the row says 0",
                spoil: |world| world.sql.events[2].id = NEW_ONE,
            },
            Bad {
                name: "no row",
                promise: Promise::HistoryTellsTheRow,
                says: "0000000000000000000000000000000D has 1 event(s) and no row",
                spoil: |world| world.sql.events[2].id = NEW_ONE,
            },
            Bad {
                name: "decided at another time",
                promise: Promise::HistoryTellsTheRow,
                says: "the history decides at Some(1001), the row at Some(5)",
                spoil: |world| world.sql.rows[0].decided_at = Some(5),
            },
            Bad {
                name: "more contradictions than are counted",
                promise: Promise::HistoryTellsTheRow,
                says: "1 contradictions are recorded, 0 counted",
                spoil: |world| {
                    let refused = event(5, COMMITTED_ONE, Some(COMMITTED), step::REFUSED, 1, 1100);
                    world.sql.events.push(refused);
                },
            },
        ],
    );
}

/// Gives all seals from `first` on the hashes that follow from what stands in them, and the owner row the last one.
fn rehash(world: &mut World, first: usize) {
    let sql = &mut world.sql;
    for at in first..sql.seals.len() {
        let previous = at
            .checked_sub(1)
            .map_or([0; 32], |before| sql.seals[before].hash);
        sql.seals[at].hash = hash_of(&previous, &sql.seals[at]);
    }
    let last = sql.seals.last().expect("there are some");
    (sql.owner.seq, sql.owner.head) = (last.seq, last.hash);
}

/// How many numbers of seals a repair skips at least, as documented.
const SKIPPED: u64 = 1 << 20;

#[test]
fn a_repair_may_skip_numbers_of_seals() {
    let mut world = good();
    world.sql.seals[1].seq = 1 + SKIPPED;
    rehash(&mut world, 1);
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn seals_that_do_not_follow_each_other_are_found() {
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "fewer numbers are skipped than a repair does",
                promise: Promise::SealsAreWhole,
                says: "seal 2 is missing, the next is 1048576",
                spoil: |world| {
                    world.sql.seals[1].seq = SKIPPED;
                    rehash(world, 1);
                },
            },
            Bad {
                name: "so many are skipped, and something stood between",
                promise: Promise::SealsAreWhole,
                says: "seal 2 is missing, the next is 1048577",
                spoil: |world| {
                    rehash(world, 1);
                    world.sql.seals[1].seq = 1 + SKIPPED;
                    world.sql.owner.seq = 1 + SKIPPED;
                },
            },
            Bad {
                name: "one was taken out",
                promise: Promise::SealsAreWhole,
                says: "seal 1 is missing, the next is 2",
                spoil: |world| drop(world.sql.seals.remove(0)),
            },
            Bad {
                name: "an event stands between two",
                promise: Promise::SealsAreWhole,
                says: "seal 2 starts with event 4, leaving a gap",
                spoil: |world| {
                    let seal = &mut world.sql.seals[1];
                    (seal.first_event, seal.count) = (4, 1);
                    seal.leaves.drain(..8);
                    rehash(world, 1);
                },
            },
            Bad {
                name: "two have the same event",
                promise: Promise::SealsAreWhole,
                says: "seal 2 starts with event 2, leaving a gap",
                spoil: |world| {
                    world.sql.seals[1].first_event = 2;
                    rehash(world, 1);
                },
            },
            Bad {
                name: "less is published than before",
                promise: Promise::SealsAreWhole,
                says: "seal 2 takes back what was published",
                spoil: |world| {
                    world.sql.seals[0].published = 3;
                    rehash(world, 0);
                },
            },
            Bad {
                name: "it covers an event that is not there",
                promise: Promise::SealsAreWhole,
                says: "seal 2 covers the events 3..6, not all are there",
                spoil: |world| {
                    let seal = &mut world.sql.seals[1];
                    seal.count = 3;
                    seal.leaves.extend([0; 8]);
                    rehash(world, 1);
                },
            },
            Bad {
                name: "it has fewer leaves than events",
                promise: Promise::SealsAreWhole,
                says: "seal 2 covers the events 3..5, not all are there",
                spoil: |world| {
                    world.sql.seals[1].leaves.truncate(8);
                    rehash(world, 1);
                },
            },
            Bad {
                name: "its hash is another",
                promise: Promise::SealsAreWhole,
                says: "the hash of seal 2 does not follow",
                spoil: |world| world.sql.seals[1].wall_ms += 1,
            },
        ],
    );
}

#[test]
fn an_owner_row_that_stands_elsewhere_than_the_last_seal_is_found() {
    let spoils: [fn(&mut Owner); 4] = [
        |owner| owner.seq += 1,
        |owner| owner.head = [1; 32],
        |owner| owner.published = 1,
        |owner| owner.next_event += 1,
    ];
    for spoil in spoils {
        breaks(Promise::SealsAreWhole, Phase::Anytime, |world| {
            spoil(&mut world.sql.owner);
        });
    }
    are_found(
        Phase::Anytime,
        &[
            Bad {
                name: "the last seal was taken away",
                promise: Promise::SealsAreWhole,
                says: "the last seal is 1, the owner row is elsewhere",
                spoil: |world| drop(world.sql.seals.pop()),
            },
            Bad {
                name: "an event was written behind the last seal",
                promise: Promise::SealsAreWhole,
                says: "the next event is 6, the owner row says 5",
                spoil: |world| {
                    let late = event(5, OPEN_ONE, Some(PREPARED), step::UNKNOWN, 1, 40);
                    world.sql.events.push(late);
                    world.sql.rows[2].checks = 1;
                },
            },
            Bad {
                name: "an event was taken out",
                promise: Promise::SealsAreWhole,
                says: "event 2 is missing, the next is 3",
                spoil: |world| drop(world.sql.events.remove(1)),
            },
            Bad {
                name: "the last event was taken away",
                promise: Promise::SealsAreWhole,
                says: "the next event is 4, the owner row says 5",
                spoil: |world| drop(world.sql.events.pop()),
            },
        ],
    );
}
