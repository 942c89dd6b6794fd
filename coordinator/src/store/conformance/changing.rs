//! Changes to rows that exist: each as it says, and only on rows whose state takes it.

use mq_core::clock::ServerTime;
use mq_core::log::Position;

use super::Subject;
use super::draft::{Draft, id, position, prepared};
use crate::store::{Change, CommitError, Decided, Row};
use crate::transaction::{Decision, State};

pub(super) async fn a_decided_row_keeps_its_decision(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    draft.prepare_decided(1, "g", Decision::RollBack);
    draft.prepare(2, "g");
    draft.commit().await.expect("a good batch");
    draft.decide(2, Decision::Commit, ServerTime(5_000));
    draft.decide(1, Decision::Commit, ServerTime(5_000));
    let outcome = draft.commit().await;
    assert!(
        matches!(outcome, Err(CommitError::Refused(_))),
        "{outcome:?}"
    );
    let states = [1, 2].map(id);
    for (id, expected) in states.into_iter().zip([State::RolledBack, State::Prepared]) {
        let row = subject
            .reader()
            .transaction(id)
            .await
            .expect("readable")
            .expect("there");
        assert_eq!(row.state, expected);
    }
}

pub(super) async fn every_change_is_applied(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    // Once in a batch that travels in one call, once in one that does not.
    for (round, many) in [(0, 1), (1, 40)] {
        let rows: Vec<u64> = (0..many).map(|row| round * 100_000 + row * 10).collect();
        for first in &rows {
            (1..=6).for_each(|number| draft.prepare(first + number, "g"));
        }
        draft.commit().await.expect("prepared rows");
        let mut expected = Vec::new();
        for first in &rows {
            expected.extend(change_six(&mut draft, *first));
        }
        draft.commit().await.expect("changes that fit");
        for row in expected {
            let found = subject.reader().transaction(row.half.id).await;
            assert_eq!(found, Ok(Some(row)));
        }
        for first in &rows {
            draft
                .changes
                .push((position(first + 6), Change::Unpublished(None)));
        }
        draft.commit().await.expect("published after all");
        let row = subject
            .reader()
            .transaction(id(round * 100_000 + 6))
            .await
            .expect("readable")
            .expect("there");
        assert_eq!(row.unpublished, None);
    }
}

/// Changes the six rows behind `first` in six ways, and says how they are then.
fn change_six(draft: &mut Draft, first: u64) -> [Row; 6] {
    let mut rows = [1, 2, 3, 4, 5, 6].map(|number| prepared(first + number, "g"));
    let [commit, roll_back, check, park, count, unpublished] = &mut rows;
    let decided_at = ServerTime(7_000_000_000);
    for (row, decision) in [
        (commit, Decision::Commit),
        (roll_back, Decision::RollBack),
        (unpublished, Decision::Commit),
    ] {
        draft.decide(row.half.position.0 / 1000, decision, decided_at);
        let Some((_, Change::Decide { state, decided })) = draft.changes.last() else {
            unreachable!("just decided")
        };
        (row.state, row.decided, row.check_at) = (*state, Some(*decided), None);
    }
    let check_at = ServerTime(8_000_000_000);
    draft.changes.push((
        check.half.position,
        Change::Check {
            checks: 3,
            check_at,
        },
    ));
    (check.checks, check.check_at) = (3, Some(check_at));
    draft
        .changes
        .push((park.half.position, Change::Park { checks: 15 }));
    (park.state, park.checks, park.check_at) = (State::Parked, 15, None);
    draft.changes.push((
        count.half.position,
        Change::Count {
            repeats: 2,
            contradictions: 5,
        },
    ));
    (count.repeats, count.contradictions) = (2, 5);
    let to = Position(count.half.position.0 + 7);
    draft.changes.push((count.half.position, Change::Move(to)));
    count.moved_to = Some(to);
    let [.., last] = &mut rows;
    draft.changes.push((
        last.half.position,
        Change::Unpublished(Some("no \"room\"".into())),
    ));
    last.unpublished = Some("no \"room\"".into());
    rows
}

pub(super) async fn changes_that_do_not_fit_are_refused(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    draft.prepare(1, "g");
    draft.prepare(2, "g");
    draft.prepare_decided(3, "g", Decision::Commit);
    draft.prepare_decided(4, "g", Decision::RollBack);
    draft.commit().await.expect("a good batch");
    draft
        .changes
        .push((position(2), Change::Park { checks: 1 }));
    draft.commit().await.expect("2 is prepared");
    let (at, number) = (ServerTime(9_000_000), 3);
    let decide = |state| Change::Decide {
        state,
        decided: Decided { at, number },
    };
    let check = Change::Check {
        checks: 1,
        check_at: at,
    };
    let count = Change::Count {
        repeats: 1,
        contradictions: 0,
    };
    let reason = || Change::Unpublished(Some("why".into()));
    let park = Change::Park { checks: 1 };
    let cases = [
        (9, vec![decide(State::Committed)]),
        (1, vec![decide(State::Parked)]),
        (3, vec![decide(State::Committed)]),
        (3, vec![decide(State::RolledBack)]),
        (4, vec![decide(State::Committed)]),
        (2, vec![check.clone()]),
        (3, vec![check.clone()]),
        (9, vec![check.clone()]),
        (2, vec![park.clone()]),
        (4, vec![park.clone()]),
        (9, vec![count.clone()]),
        (1, vec![reason()]),
        (4, vec![reason()]),
        (3, vec![Change::Unpublished(None)]),
        (1, vec![count.clone(), count]),
        (1, vec![check, park]),
    ];
    let before = rows(subject).await;
    for (number, changes) in cases {
        let changes = changes
            .iter()
            .map(|change| (position(number), change.clone()));
        draft.changes.extend(changes.clone());
        let outcome = draft.commit().await;
        assert!(
            matches!(outcome, Err(CommitError::Refused(_))),
            "{:?}: {outcome:?}",
            changes.collect::<Vec<_>>()
        );
        assert_eq!(rows(subject).await, before, "nothing was written");
    }
    draft.decide(1, Decision::Commit, at);
    draft.decide(2, Decision::RollBack, at);
    draft
        .commit()
        .await
        .expect("a parked row can be decided, and the writer goes on");
}

async fn rows(subject: &Subject) -> Vec<Option<Row>> {
    let reader = subject.reader();
    let mut rows = Vec::new();
    for number in [1, 2, 3, 4, 9] {
        rows.push(reader.transaction(id(number)).await.expect("readable"));
    }
    rows
}

pub(super) async fn a_half_message_moves_forward_only(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    draft.prepare(1, "g");
    draft.prepare_decided(2, "g", Decision::Commit);
    draft.commit().await.expect("a good batch");
    let to = |number: u64| Position(position(number).0);
    for (row, place) in [(1, 5), (2, 6), (1, 7), (1, 7)] {
        draft.changes.push((position(row), Change::Move(to(place))));
        draft.commit().await.expect("it moves forward");
    }
    // One that gets its row with the same batch.
    draft.prepare(4, "g");
    draft.changes.push((position(4), Change::Move(to(8))));
    draft
        .commit()
        .await
        .expect("it was carried before it had a row");
    for (row, place) in [(1, 6), (1, 1), (2, 1), (3, 9)] {
        draft.changes.push((position(row), Change::Move(to(place))));
        let outcome = draft.commit().await;
        assert!(
            matches!(outcome, Err(CommitError::Refused(_))),
            "row {row} to {place}: {outcome:?}"
        );
    }
    for (row, place) in [(1, 7), (2, 6), (4, 8)] {
        let found = subject.reader().transaction(id(row)).await;
        let found = found.expect("readable").expect("there");
        assert_eq!(found.half.position, position(row), "its identity stays");
        assert_eq!(found.stored_at(), to(place));
    }
}
