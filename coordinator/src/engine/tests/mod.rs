//! Stories of the engine, told over a log and a store in memory.

mod on_postgres;
mod repairs;
mod retention;
pub(crate) mod rig;

use std::sync::Arc;
use std::time::Duration;

use mq_core::clock::Clock;
use mq_core::log::memory::MemoryLog;
use mq_core::log::{Append, Entry, Flush, Log, LogId, Position, QueueOffset, Submission};
use mq_core::message::Message;
use mq_core::names::GroupName;

use self::rig::Rig;
use super::*;
use crate::store::Filter;
use crate::store::model::{Fault, Model};
use crate::transaction::{Incarnation, State};

#[tokio::test(start_paused = true)]
async fn a_committed_half_message_is_published_once_and_a_rolled_back_one_never() {
    let mut rig = Rig::new().await;
    let (first, second) = (rig.half().await, rig.half().await);
    assert_eq!(rig.published(), []);
    assert_eq!(
        rig.resolve(&first, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    assert_eq!(
        rig.resolve(&second, Resolution::RollBack).await,
        Outcome::DecidedNow
    );
    assert_eq!(rig.published(), [first.id]);
    assert_eq!(
        (rig.state(&first).await, rig.state(&second).await),
        (State::Committed, State::RolledBack)
    );
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_repeated_with_success_and_contradicted_with_the_verdict() {
    let mut rig = Rig::new().await;
    let receipt = rig.half().await;
    assert_eq!(
        rig.resolve(&receipt, Resolution::RollBack).await,
        Outcome::DecidedNow
    );
    assert_eq!(
        rig.resolve(&receipt, Resolution::RollBack).await,
        Outcome::AlreadyTheSame
    );
    let Outcome::AlreadyOtherwise(verdict) = rig.resolve(&receipt, Resolution::Commit).await else {
        panic!("a rolled back transaction was committed")
    };
    assert_eq!(
        (verdict.state, verdict.actor),
        (State::RolledBack, Actor::Producer)
    );
    assert_eq!(rig.published(), []);
    let row = rig
        .store
        .reader()
        .transaction(receipt.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((row.repeats, row.contradictions), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn every_part_of_the_identity_is_compared() {
    let mut rig = Rig::new().await;
    let (receipt, other) = (rig.half().await, rig.half().await);
    let right = Rig::says(&receipt, Resolution::Commit);
    let wrong = [
        Resolve {
            id: other.id,
            ..right.clone()
        },
        Resolve {
            group: GroupName::new("stranger").unwrap(),
            ..right.clone()
        },
        Resolve {
            position: other.position,
            ..right.clone()
        },
        Resolve {
            queue_offset: other.queue_offset,
            ..right.clone()
        },
        Resolve {
            queue_offset: QueueOffset(99),
            ..right.clone()
        },
        Resolve {
            position: Position(receipt.position.0 + 60),
            ..right.clone()
        },
    ];
    for request in wrong {
        let outcome = rig.coordinator.resolve(request.clone()).await.unwrap();
        assert!(
            matches!(outcome, Outcome::NoSuchHalfMessage { .. }),
            "{request:?} {outcome:?}"
        );
    }
    assert_eq!(rig.published(), []);
    assert_eq!(
        rig.coordinator.resolve(right).await,
        Ok(Outcome::DecidedNow)
    );
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_row_is_written_loses_nothing() {
    let mut rig = Rig::new().await;
    let receipt = rig.half().await;
    let rig = rig.crash().await.unwrap();
    assert_eq!(
        rig.coordinator.found(),
        Found {
            stored: 1,
            published: 0
        }
    );
    assert_eq!(rig.state(&receipt).await, State::Prepared);
    assert_eq!(
        rig.resolve(&receipt, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    assert_eq!(rig.published(), [receipt.id]);
}

/// Interleaving 3: the decision of the second half message is in SQL while the row of the first is held back.
#[tokio::test(start_paused = true)]
async fn a_decision_that_overtakes_another_half_message_does_not_move_the_watermark_past_it() {
    let mut rig = Rig::new().await;
    let (first, second) = (rig.half().await, rig.half().await);
    assert_eq!(
        rig.resolve(&second, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    assert!(
        rig.store
            .reader()
            .transaction(first.id)
            .await
            .unwrap()
            .is_none(),
        "the row is held back"
    );
    let rig = rig.crash().await.unwrap();
    assert_eq!(rig.state(&first).await, State::Prepared);
    assert_eq!(rig.published(), [second.id]);
}

/// Interleaving 2: finals are durable and consumed, SQL does not know yet, and the watermark moves on with other rows.
#[tokio::test(start_paused = true)]
async fn a_final_that_sql_does_not_know_of_is_not_published_twice() {
    let mut rig = Rig::new().await;
    let first = rig.half().await;
    rig.resolve(&first, Resolution::Commit).await;
    assert_eq!(rig.published(), [first.id]);
    assert_eq!(
        rig.store.reader().owner().await.unwrap().unwrap().published,
        0,
        "SQL hears of it with the next batch"
    );
    let second = rig.half().await;
    let rig = rig.crash().await.unwrap();
    assert_eq!(rig.published(), [first.id]);
    assert_eq!(rig.coordinator.found().published, 0);
    rig.resolve(&second, Resolution::Commit).await;
    let rig = rig.crash().await.unwrap().crash().await.unwrap();
    assert_eq!(rig.published(), [first.id, second.id]);
}

#[tokio::test(start_paused = true)]
async fn decisions_whose_finals_were_lost_are_published_by_the_next_start_in_decision_order() {
    let mut rig = Rig::new().await;
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
    let lost = rig.log.crash();
    assert!(lost > 0, "nothing was in the log's queue");
    let rig = rig.crash().await.unwrap();
    assert_eq!(rig.coordinator.found().published, 4);
    assert_eq!(
        rig.published(),
        [receipts[3].id, receipts[1].id, receipts[4].id]
    );
    let rig = rig.crash().await.unwrap();
    assert_eq!(rig.published().len(), 3);
}

/// Interleaving 30: what a producer sends after its COMMIT was acknowledged stands behind the final.
#[tokio::test(start_paused = true)]
async fn the_final_is_ahead_of_whatever_its_producer_sends_next() {
    let mut rig = Rig::new().await;
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
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.published(), [receipt.id, TransactionId(99)]);
}

/// Interleaving 1: below the watermark a missing row means decided.
#[tokio::test(start_paused = true)]
async fn a_commit_for_a_row_that_was_decided_and_pruned_is_refused() {
    let mut rig = Rig::new().await;
    let receipt = rig.half().await;
    rig.resolve(&receipt, Resolution::RollBack).await;
    let next = rig.half().await;
    rig.resolve(&next, Resolution::Commit).await;
    rig.store.prune(receipt.position);
    let outcome = rig.resolve(&receipt, Resolution::Commit).await;
    assert!(
        matches!(outcome, Outcome::NoSuchHalfMessage { .. }),
        "{outcome:?}"
    );
    assert_eq!(rig.published(), [next.id]);
}

/// Interleaving 29: a duplicate is not answered from memory; its answer waits for the commit that proves it.
#[tokio::test(start_paused = true)]
async fn every_answer_waits_for_the_commit_that_proves_it() {
    let mut rig = Rig::new().await;
    let receipt = rig.half().await;
    rig.store.stall(true);
    let (first, second) = (
        Rig::says(&receipt, Resolution::Commit),
        Rig::says(&receipt, Resolution::Commit),
    );
    let coordinator = rig.coordinator.clone();
    let first = tokio::spawn({
        let coordinator = coordinator.clone();
        async move { coordinator.resolve(first).await }
    });
    let second = tokio::spawn(async move { coordinator.resolve(second).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        !first.is_finished() && !second.is_finished(),
        "answered before the commit"
    );
    rig.store.stall(false);
    assert_eq!(first.await.unwrap(), Ok(Outcome::DecidedNow));
    assert_eq!(second.await.unwrap(), Ok(Outcome::AlreadyTheSame));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_commit_is_found_out_and_happens_once() {
    for fault in [
        Fault::UnknownButDone,
        Fault::UnknownNotDone,
        Fault::Unavailable,
    ] {
        let mut rig = Rig::new().await;
        let receipt = rig.half().await;
        rig.store.fail_next(fault);
        assert_eq!(
            rig.resolve(&receipt, Resolution::Commit).await,
            Outcome::DecidedNow,
            "{fault:?}"
        );
        assert_eq!(rig.published(), [receipt.id], "{fault:?}");
        assert_eq!(
            rig.store.reader().events(receipt.id).await.unwrap().len(),
            1,
            "{fault:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_costs_only_its_culprit() {
    let mut rig = Rig::new().await;
    let (first, second) = (rig.half().await, rig.half().await);
    rig.store.fail_next(Fault::Refused);
    rig.store.fail_next(Fault::Refused);
    let coordinator = rig.coordinator.clone();
    let (a, b) = tokio::join!(
        coordinator.resolve(Rig::says(&first, Resolution::Commit)),
        coordinator.resolve(Rig::says(&second, Resolution::Commit)),
    );
    assert_eq!(
        [a.is_ok(), b.is_ok()].iter().filter(|ok| **ok).count(),
        1,
        "{a:?} {b:?}"
    );
    assert_eq!(rig.published().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_taken_over_stops() {
    let mut rig = Rig::new().await;
    let receipt = rig.half().await;
    let _other = rig.store.take_over(rig.log.id()).await.unwrap();
    assert!(
        rig.coordinator
            .resolve(Rig::says(&receipt, Resolution::Commit))
            .await
            .is_err()
    );
    assert!(matches!(
        rig.coordinator.status().health(),
        Health::Failed(_)
    ));
    assert_eq!(rig.published(), []);
}

#[tokio::test(start_paused = true)]
async fn a_database_older_than_the_log_is_refused() {
    let mut rig = Rig::new().await;
    let first = rig.half().await;
    rig.resolve(&first, Resolution::RollBack).await;
    let backup = rig.store.copy();
    let second = rig.half().await;
    rig.resolve(&second, Resolution::RollBack).await;
    let Rig {
        clock,
        log,
        store,
        broker,
        coordinator,
        ..
    } = rig;
    drop((broker, coordinator));
    let error = Rig::over(clock.clone(), log.clone(), backup)
        .await
        .err()
        .unwrap();
    assert!(error.contains("older than the log"), "{error}");
    let error = Rig::over(clock.clone(), log.clone(), Model::new())
        .await
        .err()
        .unwrap();
    assert!(error.contains("empty"), "{error}");
    let strange = Arc::new(MemoryLog::new(LogId(2), clock.clone()));
    let error = Rig::over(clock.clone(), strange, store.clone())
        .await
        .err()
        .unwrap();
    assert!(error.contains("belongs to log"), "{error}");
    assert!(Rig::over(clock, log, store).await.is_ok());
}

/// Interleaving 32, in small: behind the limit new half messages are busy, decisions go on.
#[tokio::test(start_paused = true)]
async fn new_half_messages_are_busy_when_sql_lags_and_decisions_are_not() {
    let mut rig = Rig::new().await;
    let receipt = rig.half().await;
    rig.store.stall(true);
    let limit = Settings::default().waiting_halves;
    let mut busy = 0;
    for _ in 0..limit + 10 {
        rig.next_id += 1;
        let request = HalfRequest {
            id: TransactionId(rig.next_id),
            group: GroupName::new("order-service").unwrap(),
            message: Message::builder("orders").build().unwrap(),
            queue: None,
            sender: Incarnation(7),
            marker: None,
            immunity: None,
        };
        match rig.coordinator.half(request).await {
            Ok(_) => {}
            Err(HalfError::Busy(_)) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(busy > 0);
    let coordinator = rig.coordinator.clone();
    let decision = tokio::spawn(async move {
        coordinator
            .resolve(Rig::says(&receipt, Resolution::Commit))
            .await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.store.stall(false);
    assert_eq!(decision.await.unwrap(), Ok(Outcome::DecidedNow));
}

#[tokio::test(start_paused = true)]
async fn a_row_is_held_back_for_50_ms_at_most() {
    let mut rig = Rig::new().await;
    let receipt = rig.half().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(
        rig.store
            .reader()
            .transaction(receipt.id)
            .await
            .unwrap()
            .is_none()
    );
    rig.clock.advance(Duration::from_millis(60));
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(
        rig.store
            .reader()
            .transaction(receipt.id)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn a_final_that_the_full_disk_refused_is_published_later() {
    let mut rig = Rig::new().await;
    let (first, second) = (rig.half().await, rig.half().await);
    rig.log.fail_next(AppendError::Full("no space left".into()));
    assert_eq!(
        rig.resolve(&first, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    assert_eq!(
        rig.resolve(&second, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    assert_eq!(
        rig.published(),
        [second.id],
        "one that cannot be published blocks nobody else"
    );
    let row = rig
        .store
        .reader()
        .transaction(first.id)
        .await
        .unwrap()
        .unwrap();
    assert!(
        row.unpublished
            .is_some_and(|why| why.contains("no space left"))
    );
    for _ in 0..10 {
        rig.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(rig.published(), [second.id, first.id]);
    let filter = Filter {
        unpublished: true,
        limit: 10,
        ..Filter::default()
    };
    assert_eq!(rig.store.reader().list(&filter).await.unwrap(), []);
    let rig = rig.crash().await.unwrap();
    assert_eq!(rig.published().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_changes_nothing() {
    let mut rig = Rig::new().await;
    let receipt = rig.half().await;
    rig.coordinator.write_held().await.unwrap();
    let before = rig.store.reader().transaction(receipt.id).await.unwrap();
    rig.clock.set_wall_ms(rig.clock.wall_ms() + 4 * 86_400_000);
    let rig = rig.crash().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        rig.store.reader().transaction(receipt.id).await.unwrap(),
        before
    );
}

/// Interleaving 19: the topic is deleted or shrunk between the half message and its final.
#[tokio::test(start_paused = true)]
async fn a_topic_with_open_half_messages_can_neither_be_deleted_nor_shrunk() {
    let mut rig = Rig::new().await;
    let topic = TopicName::new("orders").unwrap();
    let receipt = rig.half().await;
    assert!(rig.broker.delete_topic(&topic).await.is_err());
    let rig = rig.crash().await.unwrap();
    assert!(
        rig.broker.delete_topic(&topic).await.is_err(),
        "forgotten by a restart"
    );
    rig.resolve(&receipt, Resolution::Commit).await;
    assert_eq!(rig.published(), [receipt.id]);
    tokio::time::sleep(Duration::from_millis(1)).await;
    rig.broker.delete_topic(&topic).await.unwrap();
}

/// A client that gives one id twice harms itself alone.
#[tokio::test(start_paused = true)]
async fn a_half_message_with_the_id_of_another_is_given_up_and_everybody_else_goes_on() {
    let mut rig = Rig::new().await;
    let first = rig.half().await;
    rig.next_id -= 1;
    let twin = rig.half().await;
    let third = rig.half().await;
    assert_eq!(first.id, twin.id);
    assert_eq!(
        rig.resolve(&first, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    rig.pass(Duration::from_millis(200)).await;
    assert_eq!(rig.state(&third).await, State::Prepared);
    let outcome = rig.resolve(&twin, Resolution::Commit).await;
    assert!(
        matches!(outcome, Outcome::NoSuchHalfMessage { .. }),
        "{outcome:?}"
    );
    assert_eq!(rig.published(), [first.id]);
    // Never written before the process dies: a start finds it in the log.
    rig.next_id -= 1;
    rig.half().await;
    let mut rig = rig.crash().await.unwrap();
    rig.next_id += 1;
    let last = rig.half().await;
    assert_eq!(
        rig.resolve(&last, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    assert_eq!(
        rig.resolve(&third, Resolution::Commit).await,
        Outcome::DecidedNow
    );
}

/// Each call of an [`Endpoint`] is a future in a box: above this size, allocating and moving it costs a tenth of a transaction.
#[tokio::test]
async fn what_a_producer_awaits_is_small() {
    const MOST_BYTES: usize = 1024;
    let mut rig = Rig::new().await;
    let request = rig.request();
    let bytes = size_of_val(&*rig.coordinator.half(request));
    assert!(bytes <= MOST_BYTES, "half: {bytes}");
    let receipt = rig.half().await;
    let said = Rig::says(&receipt, Resolution::Commit);
    let resolve = rig.coordinator.resolve(said);
    let bytes = size_of_val(&*resolve);
    assert!(bytes <= MOST_BYTES, "resolve: {bytes}");
}
