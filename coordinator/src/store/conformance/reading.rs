//! Reading: what is found, in which order, page by page.

use mq_core::clock::ServerTime;
use mq_core::log::Position;
use mq_core::names::{GroupName, TopicName};

use super::Subject;
use super::draft::{Draft, id, position, prepared};
use crate::store::{Change, Filter, OpenGroup, Row};
use crate::transaction::{Decision, Incarnation, State};

/// The numbers of the suite's half messages in `rows`.
fn numbers(rows: &[Row]) -> Vec<u64> {
    rows.iter().map(|row| row.half.position.0 / 1000).collect()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).expect("tests use good names")
}

/// 1 and 2 committed, 3 rolled back, 4 to 9 prepared, 10 parked; 1 could not be published; even ones are of "bank", the
/// others of "shop"; 9 is for "invoices", the others for "orders".
async fn ten(subject: &Subject) -> Draft {
    let mut draft = Draft::take_over(&*subject.store).await;
    let name = |number: u64| {
        if number.is_multiple_of(2) {
            "bank"
        } else {
            "shop"
        }
    };
    for (number, decision) in [
        (1, Decision::Commit),
        (2, Decision::Commit),
        (3, Decision::RollBack),
    ] {
        draft.prepare_decided(number, name(number), decision);
    }
    for number in 4..=10 {
        draft.prepare(number, name(number));
    }
    for row in &mut draft.new {
        match row.half.position.0 / 1000 {
            1 => row.unpublished = Some("topic orders is gone".into()),
            9 => row.half.topic = TopicName::new("invoices").expect("the name is good"),
            10 => (row.state, row.check_at) = (State::Parked, None),
            _ => {}
        }
    }
    draft.commit().await.expect("a good batch");
    draft
}

pub(super) async fn lists_are_filtered_and_paged(subject: &Subject) {
    ten(subject).await;
    let reader = subject.reader();
    let all = Filter {
        limit: 100,
        ..Filter::default()
    };
    let open = Filter {
        state: Some(State::Prepared),
        ..all.clone()
    };
    let bank = Some(group("bank"));
    let invoices = TopicName::new("invoices").ok();
    let cases: [(Filter, &[u64]); 14] = [
        (all.clone(), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (
            Filter {
                limit: 3,
                ..all.clone()
            },
            &[1, 2, 3],
        ),
        (
            Filter {
                limit: 3,
                after: Some(position(3)),
                ..all.clone()
            },
            &[4, 5, 6],
        ),
        (
            Filter {
                after: Some(position(10)),
                ..all.clone()
            },
            &[],
        ),
        (
            Filter {
                limit: 0,
                ..all.clone()
            },
            &[],
        ),
        (
            Filter {
                state: Some(State::Committed),
                ..all.clone()
            },
            &[1, 2],
        ),
        (
            Filter {
                state: Some(State::RolledBack),
                ..all.clone()
            },
            &[3],
        ),
        (
            Filter {
                state: Some(State::Parked),
                ..all.clone()
            },
            &[10],
        ),
        (open.clone(), &[4, 5, 6, 7, 8, 9]),
        (
            Filter {
                after: Some(position(5)),
                limit: 2,
                group: bank.clone(),
                ..open.clone()
            },
            &[6, 8],
        ),
        (
            Filter {
                topic: invoices.clone(),
                ..open
            },
            &[9],
        ),
        (
            Filter {
                unpublished: true,
                ..all.clone()
            },
            &[1],
        ),
        (
            Filter {
                unpublished: true,
                group: bank.clone(),
                ..all.clone()
            },
            &[],
        ),
        (
            Filter {
                group: Some(group("nobody")),
                ..all.clone()
            },
            &[],
        ),
    ];
    for (filter, expected) in cases {
        let rows = reader.list(&filter).await.expect("readable");
        assert_eq!(numbers(&rows), expected, "{filter:?}");
    }
    let both = Filter {
        group: bank,
        topic: invoices,
        ..all
    };
    assert_eq!(reader.list(&both).await, Ok(Vec::new()));
}

pub(super) async fn due_rows_are_those_of_the_group_in_order_of_time(subject: &Subject) {
    let mut draft = ten(subject).await;
    // 4, 6 and 8 of bank are due at 1,004,000, 1,006,000 and 1,008,000; 8 is put before them, 6 beside 4.
    for (number, check_at) in [(8, 500), (6, 1_004_000)] {
        draft.changes.push((
            position(number),
            Change::Check {
                checks: 1,
                check_at: ServerTime(check_at),
            },
        ));
    }
    draft.commit().await.expect("a good batch");
    let reader = subject.reader();
    let bank = group("bank");
    let due = async |now, after, limit| {
        let rows = reader
            .due(&bank, ServerTime(now), after, limit)
            .await
            .expect("readable");
        numbers(&rows)
    };
    assert_eq!(due(u64::MAX, None, 10).await, [8, 4, 6]);
    assert_eq!(due(1_003_999, None, 10).await, [8]);
    assert_eq!(
        due(1_004_000, None, 2).await,
        [8, 4],
        "a time that is reached is due"
    );
    assert_eq!(
        due(u64::MAX, Some((ServerTime(1_004_000), position(4))), 10).await,
        [6],
        "ties go by position"
    );
    assert!(
        due(u64::MAX, Some((ServerTime(u64::MAX), position(4))), 10)
            .await
            .is_empty()
    );
    let nobody = reader
        .due(&group("nobody"), ServerTime(u64::MAX), None, 10)
        .await;
    assert_eq!(nobody, Ok(Vec::new()));
}

pub(super) async fn open_transactions_are_found_by_group_topic_and_sender(subject: &Subject) {
    ten(subject).await;
    let reader = subject.reader();
    let open = |name: &str, prepared, parked, oldest: u64| OpenGroup {
        group: group(name),
        prepared,
        parked,
        oldest: ServerTime(oldest * 1000),
    };
    assert_eq!(
        reader.open_groups().await,
        Ok(vec![open("bank", 3, 1, 4), open("shop", 3, 0, 5)])
    );
    let topics = reader.open_topics().await.expect("readable");
    let topics: Vec<_> = topics
        .iter()
        .map(|(topic, count)| (topic.as_str(), *count))
        .collect();
    assert_eq!(
        topics,
        [("invoices", 1), ("orders", 7)],
        "1 is not published and needs its topic"
    );

    // Sender (number % 3 + 1): 6 and 9 have the first, 4 and 7 the second, 5 and 8 the third.
    let [first, second, _] = [1, 2, 3].map(|sender: u128| Incarnation(sender << 100));
    let of = async |senders: &[Incarnation], after: Option<Position>, limit| {
        numbers(
            &reader
                .open_of(senders, after, limit)
                .await
                .expect("readable"),
        )
    };
    assert_eq!(of(&[first], None, 10).await, [6, 9]);
    assert_eq!(
        of(&[second, first, second], None, 10).await,
        [4, 6, 7, 9],
        "10 is parked"
    );
    assert_eq!(of(&[first, second], Some(position(4)), 2).await, [6, 7]);
    assert!(of(&[Incarnation(77)], None, 10).await.is_empty());
    assert!(of(&[], None, 10).await.is_empty());
}

pub(super) async fn committed_ids_are_told_from_all_others(subject: &Subject) {
    ten(subject).await;
    let asked: Vec<_> = [1, 2, 3, 4, 10, 99].map(id).to_vec();
    let reader = subject.reader();
    let mut committed = reader.committed(&asked).await.expect("readable");
    committed.sort_unstable();
    assert_eq!(
        committed,
        [1, 2].map(id),
        "the unpublished one is committed"
    );
    assert_eq!(reader.committed(&[]).await, Ok(Vec::new()));
}

pub(super) async fn decisions_history_and_seals_are_paged(subject: &Subject) {
    let mut draft = ten(subject).await;
    draft.decide(9, Decision::Commit, ServerTime(2_000_000));
    draft.decide(4, Decision::RollBack, ServerTime(2_000_001));
    draft.commit().await.expect("a good batch");
    let reader = subject.reader();
    let decided =
        async |after, limit| numbers(&reader.decided_after(after, limit).await.expect("readable"));
    assert_eq!(
        decided(0, 100).await,
        [1, 2, 3, 9, 4],
        "in order of decision"
    );
    assert_eq!(decided(2, 2).await, [3, 9]);
    assert!(decided(5, 2).await.is_empty());
    let events = async |from, limit| {
        let events = reader.history(from, limit).await.expect("readable");
        events.iter().map(|event| event.number).collect::<Vec<_>>()
    };
    assert_eq!(events(0, 3).await, [1, 2, 3]);
    assert_eq!(events(10, 100).await, [10, 11, 12]);
    assert!(events(13, 100).await.is_empty());
    let of_nine = reader.events(id(9)).await.expect("readable");
    assert_eq!(
        of_nine.iter().map(|event| event.number).collect::<Vec<_>>(),
        [9, 11],
        "oldest first"
    );
    assert_eq!(reader.events(id(99)).await, Ok(Vec::new()));
    let seals = reader.seals(2, 10).await.expect("readable");
    assert_eq!(seals.iter().map(|seal| seal.seq).collect::<Vec<_>>(), [2]);
    assert_eq!(reader.seals(1, 1).await.map(|seals| seals.len()), Ok(1));
    assert_eq!(reader.transaction(id(99)).await, Ok(None));
}

pub(super) async fn readers_see_whole_batches(subject: &Subject) {
    const EACH: u64 = 70;
    const BATCHES: u64 = 12;
    let mut draft = Draft::take_over(&*subject.store).await;
    let writing = async {
        for batch in 0..BATCHES {
            (0..EACH).for_each(|number| draft.prepare(batch * EACH + number, "g"));
            draft
                .commit()
                .await
                .expect("readers do not disturb the writer");
        }
    };
    let reading = async || {
        let reader = subject.store.reader();
        loop {
            let events = reader
                .history(1, 10_000)
                .await
                .expect("the writer does not disturb readers")
                .len() as u64;
            assert!(
                events.is_multiple_of(EACH),
                "{events} events: a batch was seen in part"
            );
            if events == EACH * BATCHES {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writing, reading(), reading());
    assert_eq!(
        subject.reader().transaction(id(0)).await,
        Ok(Some(prepared(0, "g")))
    );
}

pub(super) async fn half_messages_that_are_needed_are_found_by_where_they_stand(subject: &Subject) {
    let mut draft = Draft::take_over(&*subject.store).await;
    for number in [1, 2, 3] {
        draft.prepare(number, "g");
    }
    draft.prepare_decided(4, "g", Decision::Commit);
    draft.prepare_decided(5, "g", Decision::Commit);
    draft.prepare_decided(6, "g", Decision::RollBack);
    draft.prepare_decided(7, "g", Decision::Commit);
    draft.prepare_decided(8, "g", Decision::RollBack);
    // The records of 4, 5 and 6 are in the log, those of 7 and 8 are not, and that of 4 was refused.
    draft.published = 3;
    draft.commit().await.expect("a good batch");
    draft.changes.extend([
        (position(2), Change::Park { checks: 1 }),
        (position(4), Change::Unpublished(Some("no room".into()))),
        (position(3), Change::Move(position(20))),
    ]);
    draft.commit().await.expect("they take it");
    let reader = subject.reader();
    for (before, after, limit, expected) in [
        (100, None, 100, &[1, 2, 3, 4, 7, 8][..]),
        (20, None, 100, &[1, 2, 4, 7, 8]),
        (7, None, 100, &[1, 2, 4]),
        (100, Some(2), 2, &[3, 4]),
        (1, None, 100, &[]),
    ] {
        let rows = reader
            .needed(position(before), after.map(position), limit)
            .await
            .expect("readable");
        let found: Vec<Position> = rows.iter().map(|row| row.half.position).collect();
        let expected: Vec<Position> = expected.iter().map(|number| position(*number)).collect();
        assert_eq!(found, expected, "before {before}, behind {after:?}");
    }
}
