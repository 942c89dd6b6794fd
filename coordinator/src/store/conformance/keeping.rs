//! What was committed is there, exactly as it was said.

use std::sync::Arc;

use mq_core::clock::ServerTime;
use mq_core::log::{Position, QueueOffset};
use mq_core::names::GroupName;

use super::Subject;
use super::draft::{Draft, id, prepared};
use crate::audit::Step;
use crate::store::{CommitError, Decided, Filter, Pages, Row, STATEMENT, shape::MOST};
use crate::transaction::{Decision, Incarnation, MarkerIdentity, State, TransactionId};

pub(super) async fn batches_of_every_size_are_kept_exactly(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    let mut first = 1;
    for size in [0, 1, 2, 63, 64, 65, 128, 300, 512, 2000] {
        for number in first..first + size {
            add_any(&mut draft, number);
        }
        let batch = draft.batch();
        draft.writer().commit(&batch).await.expect("a good batch");
        draft.committed(&batch);
        let reader = subject.reader();
        let after = Some(Position(first * 1000 - 1));
        let filter = Filter {
            after,
            limit: 10_000,
            ..Filter::default()
        };
        assert_eq!(
            reader.list(&filter).await,
            Ok(batch.new.clone()),
            "{size} rows"
        );
        let positions: Vec<Position> = batch.new.iter().map(|row| row.half.position).collect();
        let mut rows = draft
            .writer()
            .rows(&positions)
            .await
            .expect("the writer can read");
        rows.sort_by_key(|row| row.half.position);
        assert_eq!(rows, batch.new, "{size} rows, as the writer sees them");
        assert_eq!(
            reader.history(batch.seal.first_event, 10_000).await,
            Ok(batch.events),
            "{size} events"
        );
        assert_eq!(reader.seals(batch.seal.seq, 10).await, Ok(vec![batch.seal]));
        assert_eq!(subject.owner().await, draft.owner());
        first += size;
    }
}

pub(super) async fn everything_is_read_in_pages(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    let (mut rows, mut events) = (Vec::new(), Vec::new());
    let mut number = 0;
    // As many as one statement reads, and then some more.
    for size in [1, 4_000, u64::from(STATEMENT) - 4_001, 300] {
        for _ in 0..size {
            number += 1;
            add_any(&mut draft, number);
        }
        let batch = draft.batch();
        draft.writer().commit(&batch).await.expect("a good batch");
        draft.committed(&batch);
        rows.extend(batch.new);
        events.extend(batch.events);
        let reader = subject.reader();
        assert!(all_of(reader.every_row()).await == rows, "{number} rows");
        let read = all_of(reader.every_event(1, number + 1)).await;
        assert!(read == events, "{number} events");
    }
    let some = all_of(subject.reader().every_event(100, 8_300)).await;
    assert!(events.get(99..8_299) == Some(&*some), "from 100 to 8,299");
    assert_eq!(all_of(subject.reader().every_event(5, 5)).await, []);
}

async fn all_of<T>(mut pages: Pages<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(page) = pages.recv().await {
        all.extend(page.expect("readable"));
    }
    all
}

/// Half message `number` in one of seven conditions, with its event.
fn add_any(draft: &mut Draft, number: u64) {
    let group = if number.is_multiple_of(5) {
        "bank"
    } else {
        "shop"
    };
    match number % 7 {
        0 | 1 => draft.prepare_decided(number, group, Decision::Commit),
        2 => draft.prepare_decided(number, group, Decision::RollBack),
        3 => {
            draft.prepare_decided(number, group, Decision::Commit);
            let row = draft.new.last_mut().expect("just added");
            (row.unpublished, row.repeats, row.contradictions) =
                (Some("the disk is full".into()), 3, u32::MAX);
        }
        4 => {
            draft.prepare(number, group);
            let row = draft.new.last_mut().expect("just added");
            (row.state, row.check_at, row.checks) = (State::Parked, None, 15);
        }
        5 => {
            draft.prepare(number, group);
            let row = draft.new.last_mut().expect("just added");
            (row.half.sender, row.half.marker, row.checks) = (None, None, 2);
        }
        _ => draft.prepare(number, group),
    }
    let event = draft.events.last_mut().expect("just added");
    event.source = Arc::from(format!("10.0.0.{}:40312", number % 20));
    event.evidence = "x".repeat(usize::try_from(number % 70).unwrap_or_default());
}

pub(super) async fn the_largest_numbers_are_kept(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    let mut extreme = extreme();
    for number in 1..100 {
        draft.prepare(number, "g");
    }
    draft.new.push(extreme.clone());
    draft.event(
        extreme.half.id,
        Some(Step::Unknown),
        Step::AskedAgain,
        ServerTime(MOST),
    );
    draft.events.last_mut().expect("just added").then_at = Some(ServerTime(MOST));
    draft.watermark = Position(MOST);
    draft.wall_ms = MOST;
    let large = draft.batch();
    draft.writer().commit(&large).await.expect("a good batch");
    draft.committed(&large);
    extreme.check_at = Some(ServerTime(MOST));
    assert_eq!(
        subject.reader().transaction(extreme.half.id).await,
        Ok(Some(extreme)),
        "never is kept as the largest time"
    );
    assert_eq!(
        subject.reader().events(TransactionId(u128::MAX)).await,
        Ok(large.events.last().cloned().into_iter().collect())
    );
    assert_eq!(subject.reader().seals(1, 1).await, Ok(vec![large.seal]));

    let mut least = prepared(0, "g");
    (least.half.id, least.half.sender) = (TransactionId(0), Some(Incarnation(0)));
    (least.half.queue_offset, least.half.body_len, least.check_at) =
        (QueueOffset(0), 0, Some(ServerTime(0)));
    draft.wall_ms = MOST;
    draft.new.push(least.clone());
    draft.commit().await.expect("a good batch in one call");
    assert_eq!(
        subject.reader().transaction(TransactionId(0)).await,
        Ok(Some(least))
    );
    assert_eq!(subject.owner().await, draft.owner());
}

fn extreme() -> Row {
    let mut row = prepared(1, "g");
    let half = &mut row.half;
    (half.id, half.position, half.queue_offset) =
        (TransactionId(u128::MAX), Position(MOST), QueueOffset(MOST));
    (half.body_len, half.prepared_at) = (u32::MAX, ServerTime(MOST));
    (half.sender, half.marker) = (Some(Incarnation(u128::MAX)), Some(MarkerIdentity(0)));
    (row.check_at, row.checks, row.repeats) = (Some(ServerTime(u64::MAX)), u32::MAX, u32::MAX);
    row
}

pub(super) async fn larger_numbers_are_refused(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    for case in 0..5 {
        draft.prepare_decided(1, "g", Decision::Commit);
        let mut batch = draft.batch();
        let row = batch.new.first_mut().expect("one row");
        let beyond = MOST + 1;
        match case {
            0 => row.half.position = Position(beyond),
            1 => row.half.queue_offset = QueueOffset(beyond),
            2 => row.half.prepared_at = ServerTime(beyond),
            3 => {
                row.decided = Some(Decided {
                    at: ServerTime(beyond),
                    number: 1,
                })
            }
            _ => batch
                .events
                .iter_mut()
                .for_each(|event| event.at = ServerTime(beyond)),
        }
        let outcome = draft.writer().commit(&batch).await;
        assert!(
            matches!(outcome, Err(CommitError::Refused(_))),
            "case {case}: {outcome:?}"
        );
    }
}

pub(super) async fn any_text_is_kept(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    let texts = [
        "",
        "'; DROP TABLE tx; --",
        "\"quoted\" \\ \u{1}\n\t",
        "半消息 🌙",
        "a\0b",
        "[1,null]",
        "null",
        "12",
    ];
    // Once in one call, once not.
    for (round, many) in [(1, 1), (2, 100)] {
        for number in 0..many {
            draft.prepare(round * 1000 + number, "g");
        }
        for text in texts {
            draft.event(id(7_000 + round), None, Step::Refused, ServerTime(1));
            let event = draft.events.last_mut().expect("just added");
            (event.source, event.evidence) = (text.into(), text.into());
        }
        draft.commit().await.expect("a good batch");
        let events = subject
            .reader()
            .events(id(7_000 + round))
            .await
            .expect("readable");
        let found: Vec<_> = events
            .iter()
            .map(|event| (&*event.source, event.evidence.as_str()))
            .collect();
        assert_eq!(found, texts.map(|text| (text, text)), "{many} rows");
    }
}

pub(super) async fn names_of_a_batch_that_failed_can_be_used_again(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    draft.prepare(1, "first");
    draft.commit().await.expect("a good batch");
    draft.prepare(2, "second");
    draft.prepare(1, "third");
    assert!(
        matches!(draft.commit().await, Err(CommitError::Refused(_))),
        "row 1 is there"
    );
    (subject.fail_next)(crate::store::model::Fault::Unavailable);
    draft.prepare(2, "fourth");
    assert!(draft.commit().await.is_err());
    for (number, group) in [(2, "third"), (3, "fifth"), (4, "second"), (5, "first")] {
        draft.prepare(number, group);
    }
    draft.commit().await.expect("a good batch");
    let mut other = Draft::take_over(&*subject.store).await;
    other.prepare(6, "fifth");
    other.prepare(7, "sixth");
    other
        .commit()
        .await
        .expect("a good batch of the next writer");
    let filter = Filter {
        limit: 10,
        ..Filter::default()
    };
    let rows = subject.reader().list(&filter).await.expect("readable");
    let groups: Vec<&str> = rows.iter().map(|row| row.half.group.as_str()).collect();
    assert_eq!(
        groups,
        [
            "first", "third", "fifth", "second", "first", "fifth", "sixth"
        ]
    );
    let sixth = Filter {
        group: GroupName::new("sixth").ok(),
        limit: 10,
        ..Filter::default()
    };
    assert_eq!(
        subject.reader().list(&sixth).await.map(|rows| rows.len()),
        Ok(1)
    );
}
