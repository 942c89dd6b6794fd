//! One decision ever: what is overtaken, taken over, lost or refused on the way from a word to its final.

use super::*;

pub(super) async fn story_1_a_commit_for_a_row_that_was_decided_and_pruned_is_refused(
    stage: Stage,
) {
    let mut rig = Rig::on(stage).await;
    let receipt = rig.half().await;
    rig.resolve(&receipt, Resolution::RollBack).await;
    let next = rig.half().await;
    rig.resolve(&next, Resolution::Commit).await;
    rig.until("SQL knows what is published", async |rig| {
        let owner = rig.owner().await;
        owner.published == owner.last_decision && owner.watermark > next.position
    })
    .await;
    rig.store.prune(receipt.position).await;
    for _ in 0..2 {
        let outcome = rig.resolve(&receipt, Resolution::Commit).await;
        let refused = matches!(outcome, Outcome::NoSuchHalfMessage { .. });
        assert!(refused, "{outcome:?}");
        assert_eq!(rig.published(), [next.id]);
        rig = rig.killed().await;
    }
}

/// Finals are durable and consumed, SQL does not know yet, and the watermark moves on with other rows.
pub(super) async fn story_2_a_final_that_sql_does_not_know_of_is_not_published_twice(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let first = rig.half().await;
    rig.store.passes(1);
    rig.resolve(&first, Resolution::Commit).await;
    rig.until("the final is durable", async |rig| {
        rig.published() == [first.id]
    })
    .await;
    let owner = rig.owner().await;
    assert_eq!(owner.published, 0, "SQL hears of it with the next batch");
    let second = rig.half().await;
    let mut rig = rig.killed().await;
    assert_eq!(rig.published(), [first.id]);
    assert_eq!(rig.coordinator.found().published, 0);

    // Now a batch with a row of another one comes between.
    rig.store.passes(1);
    rig.log.hold();
    rig.resolve(&second, Resolution::Commit).await;
    rig.log.release();
    let third = rig.half().await;
    rig.store.passes(1);
    rig.coordinator.write_held().await.unwrap();
    let mut rig = rig.killed().await;
    assert_eq!(rig.published(), [first.id, second.id]);
    assert_eq!(rig.state(&third).await, State::Prepared);
    let last = rig.half().await;
    rig.resolve(&last, Resolution::Commit).await;
    let rig = rig.killed().await.killed().await;
    assert_eq!(rig.published(), [first.id, second.id, last.id]);
}

/// The decision of the second half message is in SQL while the row of the first is held back.
pub(super) async fn story_3_a_decision_that_overtakes_another_half_message_does_not_move_the_watermark_past_it(
    stage: Stage,
) {
    let mut rig = Rig::on(stage).await;
    let (first, second) = (rig.half().await, rig.half().await);
    rig.store.passes(1);
    assert_eq!(
        rig.resolve(&second, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    let row = rig.store.reader().transaction(first.id).await;
    assert_eq!(row, Ok(None), "the row is held back");
    let rig = rig.killed().await;
    assert_eq!(rig.state(&first).await, State::Prepared);
    assert_eq!(rig.published(), [second.id]);
}

/// It stands still before its commit, another one takes over, and then it commits.
pub(super) async fn story_5_whoever_is_taken_over_stops(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let receipt = rig.half().await;
    rig.store.passes(0);
    let late = say(&rig, says(&receipt, Resolution::Commit)).await;
    rig.store.is_waited_for().await;
    let before = rig.owner().await;
    let (_other, owner) = rig.store.take_over(rig.log.id()).await.unwrap();
    assert_eq!(owner.epoch, before.epoch + 1);
    rig.store.goes_on();
    assert!(late.await.unwrap().is_err());
    let health = rig.coordinator.status().health();
    assert!(matches!(health, Health::Failed(_)), "{health:?}");
    assert_eq!(rig.published(), []);
    assert_eq!(rig.owner().await, owner, "it has written something");
}

pub(super) async fn story_6_an_unknown_commit_is_found_out_and_happens_once(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let mut decided = Vec::new();
    for fault in [
        Fault::UnknownButDone,
        Fault::UnknownNotDone,
        Fault::Unavailable,
    ] {
        let receipt = rig.half().await;
        rig.store.fail_next(fault);
        let outcome = rig.resolve(&receipt, Resolution::Commit).await;
        assert_eq!(outcome, Outcome::DecidedNow, "{fault:?}");
        decided.push(receipt.id);
        assert_eq!(rig.published(), decided, "{fault:?}");
        let events = rig.store.reader().events(receipt.id).await.unwrap();
        assert_eq!(events.len(), 1, "{fault:?}");
    }
    is_untouched(&rig.store).await;
}

/// A duplicate is not answered from memory; its answer waits for the commit that proves it.
pub(super) async fn story_29_every_answer_waits_for_the_commit_that_proves_it(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let receipt = rig.half().await;
    let other = busy(&mut rig).await;
    let first = say(&rig, says(&receipt, Resolution::Commit)).await;
    let second = say(&rig, says(&receipt, Resolution::Commit)).await;
    rig.store.passes(1);
    assert_eq!(other.await.unwrap(), Ok(Outcome::DecidedNow));
    rig.store.is_waited_for().await;
    // A minute passes, and everybody does what there is to do.
    rig.clock.advance(Duration::from_secs(60));
    let _somebody = rig.connect(8, &[]);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(
        !first.is_finished() && !second.is_finished(),
        "answered before the commit"
    );
    assert_eq!(rig.published(), []);
    rig.store.goes_on();
    assert_eq!(first.await.unwrap(), Ok(Outcome::DecidedNow));
    assert_eq!(second.await.unwrap(), Ok(Outcome::AlreadyTheSame));
    assert_eq!(rig.published(), [receipt.id]);
}

/// The batch of both is refused for the first: what the second is told rests on a batch of its own.
pub(super) async fn story_29_a_duplicate_of_what_the_database_refuses_is_not_told_that_it_is_so_already(
    stage: Stage,
) {
    let mut rig = Rig::on(stage).await;
    rig.store.refuse_poison().await;
    for second in [Resolution::Commit, Resolution::RollBack] {
        let receipt = rig.half().await;
        let other = busy(&mut rig).await;
        let poisoned = Resolve {
            evidence: POISON.into(),
            ..says(&receipt, Resolution::Commit)
        };
        let first = say(&rig, poisoned).await;
        let duplicate = say(&rig, says(&receipt, second)).await;
        let published = rig.published().len();
        rig.store.goes_on();
        assert_eq!(other.await.unwrap(), Ok(Outcome::DecidedNow));
        let error = first.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("refused"), "{error}");
        assert_eq!(duplicate.await.unwrap(), Ok(Outcome::DecidedNow));
        let commits = usize::from(second == Resolution::Commit);
        assert_eq!(rig.published().len(), published + commits);
        let events = rig.store.reader().events(receipt.id).await.unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(rig.store.refused().first(), Some(&2), "both in one batch");
    }
    is_untouched(&rig.store).await;
}

pub(super) async fn story_29_parking_loses_to_a_decision_in_the_same_batch(stage: Stage) {
    let mut rig = rig_with(stage, |settings| settings.check_back.budget = 1).await;
    let receipt = rig.half().await;
    rig.coordinator.write_held().await.unwrap();
    rig.clock.advance(Duration::from_secs(10));
    let (_producer, asked) = rig.connect(8, &[]);
    rig.until("it is asked about", async |_| asked.count() > 0)
        .await;
    let first = busy(&mut rig).await;
    let parks = Resolve {
        actor: Actor::CheckBack,
        ..says(&receipt, Resolution::Unknown)
    };
    let parks = say(&rig, parks).await;
    let commits = say(&rig, says(&receipt, Resolution::Commit)).await;
    rig.store.goes_on();
    assert_eq!(first.await.unwrap(), Ok(Outcome::DecidedNow));
    assert_eq!(commits.await.unwrap(), Ok(Outcome::DecidedNow));
    assert_eq!(parks.await.unwrap(), Ok(Outcome::Noted));
    assert_eq!(rig.state(&receipt).await, State::Committed);
    assert_eq!(rig.published(), [receipt.id]);
    let events = rig.store.reader().events(receipt.id).await.unwrap();
    let steps: Vec<_> = events.iter().map(|event| event.to).collect();
    assert!(!steps.contains(&Step::Parked), "{steps:?}");
    assert_eq!(rig.store.refused(), [0; 0]);
}

/// What a producer sends after its COMMIT was acknowledged stands behind the final.
pub(super) async fn story_30_the_final_is_ahead_of_whatever_its_producer_sends_next(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let receipt = rig.half().await;
    rig.log.hold();
    rig.resolve(&receipt, Resolution::Commit).await;
    let queue = QueueId::new(TopicName::new("orders").unwrap(), 0);
    let mut record = Vec::new();
    mq_core::wire::record::NewRecord {
        topic: "orders",
        queue: 0,
        flag: 0,
        sys_flag: 0,
        born_ms: 0,
        born_host: mq_core::wire::record::EMBEDDED_HOST,
        store_host: mq_core::wire::record::EMBEDDED_HOST,
        reconsume_times: 0,
        prepared_position: 0,
        body: b"plain",
        properties: b"",
    }
    .encode(&mut record);
    let mark = mq_core::log::Mark {
        owner: half::OWNER,
        kind: 99,
        key: 99,
        number: 0,
    };
    let entry = Append {
        mark: Some(mark),
        entry: Entry::Message {
            queue,
            tag_code: 0,
            record: record.into(),
        },
    };
    let submission = Submission {
        entries: vec![entry],
        flush: Flush::Sync,
        then: Box::new(|_| ()),
    };
    rig.log.append(submission).unwrap();
    rig.log.release();
    rig.until("both are there", async |rig| rig.published().len() == 2)
        .await;
    assert_eq!(rig.published(), [receipt.id, TransactionId(99)]);
}

pub(super) async fn story_30_finals_of_one_batch_stand_in_decision_order(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let mut receipts = Vec::new();
    for _ in 0..10 {
        receipts.push(rig.half().await);
    }
    let first = busy(&mut rig).await;
    let mut saying = Vec::new();
    for index in [3, 1, 4, 0, 5, 9, 2, 6, 8, 7] {
        saying.push(say(&rig, says(&receipts[index], Resolution::Commit)).await);
    }
    rig.store.goes_on();
    assert_eq!(first.await.unwrap(), Ok(Outcome::DecidedNow));
    for saying in saying {
        assert_eq!(saying.await.unwrap(), Ok(Outcome::DecidedNow));
    }
    rig.until("all are there", async |rig| rig.published().len() == 10)
        .await;
    let rows = rig.store.reader().decided_after(1, 100).await.unwrap();
    let decided: Vec<_> = rows.iter().map(|row| row.half.id).collect();
    assert_eq!(rig.published(), decided);
}

pub(super) async fn story_30_finals_that_were_lost_are_published_by_the_next_start_in_decision_order(
    stage: Stage,
) {
    let mut rig = Rig::on(stage).await;
    let mut receipts = Vec::new();
    for _ in 0..5 {
        receipts.push(rig.half().await);
    }
    // The finals stay in the log's queue and die with the process.
    rig.log.hold();
    for index in [3, 1, 4] {
        assert_eq!(
            rig.resolve(&receipts[index], Resolution::Commit).await,
            Outcome::DecidedNow
        );
    }
    rig.resolve(&receipts[0], Resolution::RollBack).await;
    rig.store.loses_its_writer();
    let lost = rig.log.crash();
    assert!(lost > 0, "nothing was in the log's queue");
    let rig = rig.killed().await;
    assert_eq!(rig.coordinator.found().published, 4);
    let in_order = [receipts[3].id, receipts[1].id, receipts[4].id];
    rig.until("all are there", async |rig| rig.published().len() == 3)
        .await;
    assert_eq!(rig.published(), in_order);
    let rig = rig.killed().await;
    assert_eq!(rig.published(), in_order);
}

/// A batch decides more than a segment of the log can take at once; so does what a start finds unpublished.
pub(super) async fn finals_that_no_single_append_has_room_for_are_published_in_several(
    stage: Stage,
) {
    const MANY: usize = 20;
    let mut rig = Rig::on(stage).await;
    // Room for three of them.
    rig.log.limit_appends(1_000);
    let mut ids = Vec::new();
    for dies in [false, true] {
        let mut receipts = Vec::new();
        for _ in 0..MANY {
            receipts.push(rig.half().await);
        }
        let first = busy(&mut rig).await;
        let mut saying = Vec::new();
        for receipt in &receipts {
            saying.push(say(&rig, says(receipt, Resolution::Commit)).await);
            ids.push(receipt.id);
        }
        if dies {
            rig.log.hold();
        }
        rig.store.goes_on();
        for saying in saying.into_iter().chain([first]) {
            assert_eq!(saying.await.unwrap(), Ok(Outcome::DecidedNow));
        }
        if dies {
            rig.store.loses_its_writer();
            assert!(rig.log.crash() > 0, "nothing was in the log's queue");
            rig = rig.killed().await;
            assert_eq!(rig.coordinator.found().published, MANY + 1);
        }
        rig.until("all are there", async |rig| {
            rig.published().len() == ids.len()
        })
        .await;
        assert_eq!(rig.published(), ids);
    }
    let denied = Filter {
        unpublished: true,
        limit: 10,
        ..Filter::default()
    };
    let denied = rig.store.reader().list(&denied).await.unwrap();
    assert_eq!(denied, [], "nobody was told that there is no room");
}

pub(super) async fn a_crash_between_decisions_loses_and_doubles_nothing(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let (committed, rolled_back, open) = (rig.half().await, rig.half().await, rig.half().await);
    rig.resolve(&committed, Resolution::Commit).await;
    rig.resolve(&rolled_back, Resolution::RollBack).await;
    let mut rig = rig.killed().await;
    assert_eq!(rig.published(), [committed.id]);
    assert_eq!(rig.state(&open).await, State::Prepared);
    let again = rig.resolve(&committed, Resolution::Commit).await;
    assert_eq!(again, Outcome::AlreadyTheSame);
    rig.resolve(&open, Resolution::Commit).await;
    assert_eq!(rig.published(), [committed.id, open.id]);
    let next = rig.half().await;
    rig.resolve(&next, Resolution::Commit).await;
    assert_eq!(rig.published(), [committed.id, open.id, next.id]);
}

/// All rows and all of the history.
pub(super) async fn everything(rig: &Rig) -> (Vec<Row>, Vec<Event>) {
    let all = Filter {
        limit: 1000,
        ..Filter::default()
    };
    let reader = rig.store.reader();
    let rows = reader.list(&all).await.unwrap();
    (rows, reader.history(1, 1000).await.unwrap())
}

/// Recovery twice equals recovery once.
pub(super) async fn a_start_that_is_repeated_changes_nothing_more(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    // Its row is held back, and the watermark with it.
    let open = rig.half().await;
    let (committed, rolled_back, refused) = (rig.half().await, rig.half().await, rig.half().await);
    rig.resolve(&rolled_back, Resolution::RollBack).await;
    rig.log.fail_next(AppendError::Full("no space left".into()));
    rig.resolve(&refused, Resolution::Commit).await;
    rig.until("SQL knows that it is refused", async |rig| {
        row(rig, &refused).await.unpublished.is_some()
    })
    .await;
    rig.resolve(&committed, Resolution::Commit).await;
    rig = rig.killed().await;
    let once = everything(&rig).await;
    for _ in 0..2 {
        rig = rig.killed().await;
        assert_eq!(everything(&rig).await, once);
    }
    assert_eq!(rig.published(), [committed.id]);
    assert_eq!(rig.state(&open).await, State::Prepared);
}
