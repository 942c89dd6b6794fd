//! Stories in which SQL has a part, each told over the store in memory, over SQLite and over Postgres.
//!
//! The numbers are those of `docs/interleavings.md`.

use mq_core::broker::{TopicConfig, TopicError};
use mq_core::client::Producer;
use mq_core::clock::ManualClock;
use mq_core::log::{ReadError, Stored};
use mq_core::wire::record::RecordView;
use tokio::task::JoinHandle;

use super::operate::OperateError;
use super::repairs::is_untouched;
use super::stage::{POISON, Stage};
use super::*;
use crate::audit::Event;

/// Tells each story three times.
macro_rules! on_every_database {
    ($($story:ident),+ $(,)?) => {
        mod in_memory {
            $(
                #[tokio::test(start_paused = true)]
                async fn $story() {
                    super::$story(super::Stage::in_memory()).await;
                }
            )+
        }
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $story() {
                    super::$story(super::Stage::on_sqlite().await).await;
                }
            )+
        }
        mod on_postgres {
            $(
                #[tokio::test]
                async fn $story() {
                    super::$story(super::Stage::on_postgres().await).await;
                }
            )+
        }
    };
}

on_every_database!(
    story_1_a_commit_for_a_row_that_was_decided_and_pruned_is_refused,
    story_2_a_final_that_sql_does_not_know_of_is_not_published_twice,
    story_3_a_decision_that_overtakes_another_half_message_does_not_move_the_watermark_past_it,
    story_5_whoever_is_taken_over_stops,
    story_6_an_unknown_commit_is_found_out_and_happens_once,
    story_17_a_half_message_is_carried_forward_and_decided_by_its_first_identity,
    story_18_a_copy_that_no_row_knows_of_is_found_by_the_next_start,
    story_18_a_row_that_is_written_after_its_copy_names_it,
    story_19_a_topic_with_open_half_messages_can_neither_be_deleted_nor_shrunk,
    story_19_a_final_that_the_full_disk_refused_is_published_later,
    story_26_a_wall_clock_that_jumps_changes_nothing,
    story_27_a_lock_that_somebody_holds_delays_decisions_and_loses_nothing,
    story_28_a_batch_with_poison_in_it_costs_only_its_culprit,
    story_28_a_half_message_with_the_id_of_another_is_given_up_and_everybody_else_goes_on,
    story_29_every_answer_waits_for_the_commit_that_proves_it,
    story_29_a_duplicate_of_what_the_database_refuses_is_not_told_that_it_is_so_already,
    story_29_parking_loses_to_a_decision_in_the_same_batch,
    story_30_the_final_is_ahead_of_whatever_its_producer_sends_next,
    story_30_finals_of_one_batch_stand_in_decision_order,
    story_30_finals_that_were_lost_are_published_by_the_next_start_in_decision_order,
    story_31_an_operators_rollback_goes_through_the_marker,
    story_32_new_half_messages_are_busy_when_sql_stands_still_and_nothing_else_is,
    finals_that_no_single_append_has_room_for_are_published_in_several,
    a_crash_between_decisions_loses_and_doubles_nothing,
    a_start_that_is_repeated_changes_nothing_more,
);

type Rig = rig::Rig<Stage>;

/// What a producer says.
fn says(receipt: &HalfReceipt, resolution: Resolution) -> Resolve {
    rig::Rig::says(receipt, resolution)
}

/// Says it beside the test, which goes on once it is with the writer.
async fn say(rig: &Rig, said: Resolve) -> JoinHandle<Result<Outcome, ResolveError>> {
    let coordinator = rig.coordinator.clone();
    let saying = tokio::spawn(async move { coordinator.resolve(said).await });
    tokio::task::yield_now().await;
    saying
}

/// The database stands still with a decision of somebody else: whatever is said now is in one batch, the next.
async fn busy(rig: &mut Rig) -> JoinHandle<Result<Outcome, ResolveError>> {
    let other = rig.half().await;
    rig.store.passes(0);
    let saying = say(rig, says(&other, Resolution::RollBack)).await;
    rig.store.is_waited_for().await;
    saying
}

/// Under settings that differ from the usual ones.
async fn rig_with(stage: Stage, change: impl FnOnce(&mut Settings)) -> Rig {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let log = Arc::new(MemoryLog::new(LogId(1), clock.clone()));
    let mut settings = Settings::default();
    change(&mut settings);
    let rig = Rig::over_with(clock, log, stage, settings).await;
    rig.unwrap()
}

async fn story_1_a_commit_for_a_row_that_was_decided_and_pruned_is_refused(stage: Stage) {
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
async fn story_2_a_final_that_sql_does_not_know_of_is_not_published_twice(stage: Stage) {
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
async fn story_3_a_decision_that_overtakes_another_half_message_does_not_move_the_watermark_past_it(
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
async fn story_5_whoever_is_taken_over_stops(stage: Stage) {
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

async fn story_6_an_unknown_commit_is_found_out_and_happens_once(stage: Stage) {
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

/// The row of a half message.
async fn row(rig: &Rig, receipt: &HalfReceipt) -> Row {
    let row = rig.store.reader().transaction(receipt.id).await.unwrap();
    row.expect("it has a row")
}

/// The log deletes what stands there now and nobody needs, `gone` among it.
async fn trimmed(rig: &Rig, gone: Position) {
    rig.log.want(rig.log.range().end);
    rig.until("it is deleted", async |rig| {
        rig.log.read(gone) == Err(ReadError::Gone(gone))
    })
    .await;
}

/// Finals in the log.
fn finals(rig: &Rig) -> Vec<Stored> {
    let all = rig.log.scan(Position(0)).unwrap().map(Result::unwrap);
    all.filter(|stored| {
        let mark = stored.mark.map(|mark| (mark.owner, mark.kind));
        mark == Some((half::OWNER, half::FINAL))
    })
    .collect()
}

async fn story_17_a_half_message_is_carried_forward_and_decided_by_its_first_identity(
    stage: Stage,
) {
    let mut rig = Rig::on(stage).await;
    for resolution in [Resolution::Commit, Resolution::RollBack] {
        let (receipt, done) = (rig.half().await, rig.half().await);
        rig.resolve(&done, Resolution::RollBack).await;
        rig.coordinator.write_held().await.unwrap();
        for _ in 0..3 {
            // Each time the copy of the time before, too.
            let before = row(&rig, &receipt).await.stored_at();
            // Something of ours behind it, so that the watermark gets so far.
            let other = rig.half().await;
            rig.resolve(&other, Resolution::RollBack).await;
            trimmed(&rig, before).await;
            let at = row(&rig, &receipt).await.moved_to.expect("it was carried");
            assert!(at >= rig.log.range().start);
            rig = rig.crash().await.unwrap();
        }
        assert_eq!(row(&rig, &done).await.moved_to, None, "nobody needs it");
        let wrong = Resolve {
            queue_offset: done.queue_offset,
            ..says(&receipt, resolution)
        };
        let refused = rig.coordinator.resolve(wrong).await.unwrap();
        assert!(
            matches!(refused, Outcome::NoSuchHalfMessage { .. }),
            "{refused:?}"
        );
        assert_eq!(rig.resolve(&receipt, resolution).await, Outcome::DecidedNow);
        let finals = finals(&rig);
        assert_eq!(
            finals.len(),
            usize::from(resolution == Resolution::Commit),
            "that of the commit is deleted before the rollback is said"
        );
        for stored in finals {
            let view = RecordView::parse(&stored.bytes).unwrap();
            assert_eq!(view.body, b"hello");
            assert_eq!(view.prepared_position, receipt.position.0);
        }
    }
}

async fn story_18_a_copy_that_no_row_knows_of_is_found_by_the_next_start(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let mut published = Vec::new();
    for resolution in [None, Some(Resolution::Commit), Some(Resolution::RollBack)] {
        let receipt = rig.half().await;
        rig.coordinator.write_held().await.unwrap();
        let before = row(&rig, &receipt).await;
        let stored = half::kept(&*rig.log, &before).unwrap();
        // The process dies before anybody hears of the copy; the decision lands all the same.
        rig.log
            .append(Submission {
                entries: vec![half::moved(&before.half, &stored.bytes)],
                flush: Flush::Sync,
                then: Box::new(|_| ()),
            })
            .unwrap();
        if let Some(resolution) = resolution {
            assert_eq!(rig.resolve(&receipt, resolution).await, Outcome::DecidedNow);
        }
        let decided = row(&rig, &receipt).await;
        for _ in 0..2 {
            rig = rig.killed().await;
            let after = row(&rig, &receipt).await;
            let copy = rig.log.read(after.stored_at()).unwrap();
            assert_eq!(copy.mark.map(|mark| mark.kind), Some(half::MOVED));
            assert_eq!(
                (after.half.position, after.state, after.decided),
                (receipt.position, decided.state, decided.decided)
            );
        }
        if resolution.is_none() {
            assert_eq!(
                rig.resolve(&receipt, Resolution::Commit).await,
                Outcome::DecidedNow
            );
        }
        if resolution != Some(Resolution::RollBack) {
            published.push(receipt.id);
        }
        assert_eq!(rig.published(), published);
    }
}

/// As it is with a database that was put back: it has neither the row nor the news of the copy.
async fn story_18_a_row_that_is_written_after_its_copy_names_it(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let receipt = rig.half().await;
    let stored = rig.log.read(receipt.position).unwrap();
    let half = half::read(&stored).unwrap().half;
    rig.log
        .append(Submission {
            entries: vec![half::moved(&half, &stored.bytes)],
            flush: Flush::Sync,
            then: Box::new(|_| ()),
        })
        .unwrap();
    rig = rig.killed().await;
    let row = row(&rig, &receipt).await;
    assert_eq!(
        (row.half.position, row.state),
        (receipt.position, State::Prepared)
    );
    assert!(row.moved_to.is_some_and(|to| to > receipt.position));
    let events = rig.store.reader().events(receipt.id).await.unwrap();
    assert_eq!(events.len(), 1, "the history tells that it was stored");
    assert_eq!(
        rig.resolve(&receipt, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    assert_eq!(rig.published(), [receipt.id]);
}

/// The topic is deleted or shrunk between the half message and its final.
async fn story_19_a_topic_with_open_half_messages_can_neither_be_deleted_nor_shrunk(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let topic = TopicName::new("orders").unwrap();
    let receipt = rig.half().await;
    let queues = rig.broker.topic(&topic).unwrap().write_queues;
    for _ in 0..2 {
        let held = Err(TopicError::Held(topic.clone()));
        assert_eq!(rig.broker.delete_topic(&topic).await, held);
        let with = |queues| {
            rig.broker
                .put_topic(TopicConfig::new(topic.clone(), queues))
        };
        assert_eq!(with(queues - 1).await, held);
        with(queues).await.unwrap();
        assert_eq!(rig.broker.topic(&topic).unwrap().write_queues, queues);
        // A start knows of it as well.
        rig = rig.killed().await;
    }
    rig.resolve(&receipt, Resolution::Commit).await;
    assert_eq!(rig.published(), [receipt.id]);
    let smaller = TopicConfig::new(topic.clone(), queues - 1);
    rig.until("it can lose a queue", async |rig| {
        rig.broker.put_topic(smaller.clone()).await.is_ok()
    })
    .await;
    rig.broker.delete_topic(&topic).await.unwrap();
}

async fn story_19_a_final_that_the_full_disk_refused_is_published_later(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let (first, second) = (rig.half().await, rig.half().await);
    rig.log.fail_next(AppendError::Full("no space left".into()));
    for receipt in [&first, &second] {
        let outcome = rig.resolve(receipt, Resolution::Commit).await;
        assert_eq!(outcome, Outcome::DecidedNow);
    }
    let says = async |rig: &Rig, reason: &str| {
        let why = row(rig, &first).await.unpublished;
        why.is_some_and(|why| why.contains(reason))
    };
    rig.until("SQL knows why", async |rig| {
        says(rig, "no space left").await
    })
    .await;
    assert_eq!(
        rig.published(),
        [second.id],
        "one that cannot be published blocks nobody else"
    );
    // Whoever comes wakes the sweep, which tries again, as often as it takes.
    rig.log
        .fail_next(AppendError::Full("not one byte left".into()));
    rig.clock.advance(Duration::from_secs(10));
    let _somebody = rig.connect(8, &[]);
    rig.until("it was tried again", async |rig| {
        says(rig, "not one byte left").await
    })
    .await;
    rig.clock.advance(Duration::from_secs(10));
    let _another = rig.connect(9, &[]);
    rig.until("it is published after all", async |rig| {
        let filter = Filter {
            unpublished: true,
            limit: 10,
            ..Filter::default()
        };
        rig.store.reader().list(&filter).await.unwrap().is_empty()
    })
    .await;
    assert_eq!(rig.published(), [second.id, first.id]);
    let rig = rig.killed().await;
    assert_eq!(rig.published().len(), 2);
}

async fn story_26_a_wall_clock_that_jumps_changes_nothing(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let receipt = rig.half().await;
    rig.coordinator.write_held().await.unwrap();
    let before = rig.store.reader().transaction(receipt.id).await.unwrap();
    rig.clock.set_wall_ms(rig.clock.wall_ms() + 4 * 86_400_000);
    let mut rig = rig.killed().await;
    // Another one, whose time has come, is asked about, and this one is not.
    let other = HalfRequest {
        immunity: Some(Duration::ZERO),
        ..rig.request()
    };
    let other = rig.coordinator.half(other).await.unwrap();
    rig.coordinator.write_held().await.unwrap();
    rig.clock.advance(Duration::from_secs(1));
    let (_producer, asked) = rig.connect(8, &[]);
    rig.until("the sweep has looked", async |_| asked.count() > 0)
        .await;
    assert_eq!(asked.take(), [other.position]);
    let row = rig.store.reader().transaction(receipt.id).await.unwrap();
    assert_eq!(row, before);
}

/// Another process is frozen and holds what every batch needs.
async fn story_27_a_lock_that_somebody_holds_delays_decisions_and_loses_nothing(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let (first, second) = (rig.half().await, rig.half().await);
    let held = rig.store.is_held().await;
    let commits = say(&rig, says(&first, Resolution::Commit)).await;
    rig.until("the database cannot be written", async |rig| {
        matches!(rig.coordinator.status().health(), Health::Waiting(_))
    })
    .await;
    let rolls_back = say(&rig, says(&second, Resolution::RollBack)).await;
    assert!(!commits.is_finished() && !rolls_back.is_finished());
    assert_eq!(rig.published(), []);
    held.let_go().await;
    assert_eq!(commits.await.unwrap(), Ok(Outcome::DecidedNow));
    assert_eq!(rolls_back.await.unwrap(), Ok(Outcome::DecidedNow));
    assert_eq!(rig.coordinator.status().health(), Health::Running);
    for receipt in [&first, &second] {
        let events = rig.store.reader().events(receipt.id).await.unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
    }
    assert_eq!(rig.published(), [first.id]);
    is_untouched(&rig.store).await;
}

/// Something in a batch is refused by the database itself.
async fn story_28_a_batch_with_poison_in_it_costs_only_its_culprit(stage: Stage) {
    const MANY: usize = 20;
    const CULPRIT: usize = 13;
    let mut rig = Rig::on(stage).await;
    rig.store.refuse_poison().await;
    let mut receipts = Vec::new();
    for _ in 0..MANY {
        receipts.push(rig.half().await);
    }
    let first = busy(&mut rig).await;
    let mut saying = Vec::new();
    for (number, receipt) in receipts.iter().enumerate() {
        let mut said = says(receipt, Resolution::Commit);
        if number == CULPRIT {
            said.evidence = POISON.into();
        }
        saying.push(say(&rig, said).await);
    }
    rig.store.goes_on();
    assert_eq!(first.await.unwrap(), Ok(Outcome::DecidedNow));
    for (number, saying) in saying.into_iter().enumerate() {
        let outcome = saying.await.unwrap();
        if number == CULPRIT {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains("refused"), "{error}");
        } else {
            assert_eq!(outcome, Ok(Outcome::DecidedNow), "{number}");
        }
    }
    let refused = rig.store.refused();
    assert_eq!(refused.first(), Some(&MANY), "all were in one batch");
    assert_eq!(refused.last(), Some(&1), "the culprit is alone at last");

    let culprit = receipts.remove(CULPRIT);
    assert_eq!(rig.state(&culprit).await, State::Prepared);
    assert_eq!(rig.published().len(), MANY - 1);
    rig.until("the watermark passes it", async |rig| {
        let owner = rig.owner().await;
        owner.watermark > culprit.position && owner.published == owner.last_decision
    })
    .await;
    is_untouched(&rig.store).await;
    let rig = rig.killed().await;
    assert_eq!(rig.coordinator.found().stored, 0);
    assert_eq!(
        rig.resolve(&culprit, Resolution::Commit).await,
        Outcome::DecidedNow,
        "it can still be decided"
    );
    assert_eq!(rig.published().len(), MANY);
}

/// A client that gives one id twice harms itself alone.
async fn story_28_a_half_message_with_the_id_of_another_is_given_up_and_everybody_else_goes_on(
    stage: Stage,
) {
    let mut rig = Rig::on(stage).await;
    let first = rig.half().await;
    rig.next_id -= 1;
    let twin = rig.half().await;
    let third = rig.half().await;
    assert_eq!(first.id, twin.id);
    assert_eq!(
        rig.resolve(&first, Resolution::Commit).await,
        Outcome::DecidedNow
    );
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
    let mut rig = rig.killed().await;
    rig.next_id += 1;
    let last = rig.half().await;
    for receipt in [&last, &third] {
        let outcome = rig.resolve(receipt, Resolution::Commit).await;
        assert_eq!(outcome, Outcome::DecidedNow);
    }
}

/// A duplicate is not answered from memory; its answer waits for the commit that proves it.
async fn story_29_every_answer_waits_for_the_commit_that_proves_it(stage: Stage) {
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
async fn story_29_a_duplicate_of_what_the_database_refuses_is_not_told_that_it_is_so_already(
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

async fn story_29_parking_loses_to_a_decision_in_the_same_batch(stage: Stage) {
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
async fn story_30_the_final_is_ahead_of_whatever_its_producer_sends_next(stage: Stage) {
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

async fn story_30_finals_of_one_batch_stand_in_decision_order(stage: Stage) {
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

async fn story_30_finals_that_were_lost_are_published_by_the_next_start_in_decision_order(
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

/// An operator rolls back a transaction whose local one is still open.
async fn story_31_an_operators_rollback_goes_through_the_marker(stage: Stage) {
    const MARKER: u128 = 5;
    let mut rig = Rig::on(stage).await;
    rig.marker = Some(MARKER);
    let receipt = rig.half().await;
    let rolls_back = rig
        .coordinator
        .decide_for(receipt.id, Decision::RollBack, "ann", false);
    let refused = rolls_back.await;
    assert!(
        matches!(refused, Err(OperateError::NobodyCanAnswer(..))),
        "{refused:?}"
    );
    let (_sender, asked) = rig.connect(7, &[MARKER]);
    let operator = {
        let (coordinator, id) = (rig.coordinator.clone(), receipt.id);
        let rolls_back = async move {
            coordinator
                .decide_for(id, Decision::RollBack, "ann", false)
                .await
        };
        tokio::spawn(rolls_back)
    };
    rig.until("the sender is asked", async |_| asked.count() > 0)
        .await;
    assert_eq!(asked.take(), [receipt.position]);
    assert!(!operator.is_finished());
    // The local transaction committed meanwhile: its marker says so.
    let marker = Resolve {
        actor: Actor::Marker,
        ..says(&receipt, Resolution::Commit)
    };
    let outcome = rig.coordinator.resolve(marker).await;
    assert_eq!(outcome, Ok(Outcome::DecidedNow));
    let outcome = operator.await.unwrap();
    assert!(
        matches!(outcome, Ok(Outcome::AlreadyOtherwise(_))),
        "{outcome:?}"
    );
    assert_eq!(rig.published(), [receipt.id]);
}

async fn story_32_new_half_messages_are_busy_when_sql_stands_still_and_nothing_else_is(
    stage: Stage,
) {
    const LIMIT: usize = 64;
    let mut rig = rig_with(stage, |settings| settings.waiting_halves = LIMIT).await;
    let receipt = rig.half().await;
    rig.coordinator.write_held().await.unwrap();
    rig.store.passes(0);
    let mut stored = Vec::new();
    for _ in 0..LIMIT + 10 {
        let request = rig.request();
        match rig.coordinator.half(request).await {
            Ok(receipt) => stored.push(receipt),
            Err(HalfError::Busy(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(stored.len(), LIMIT);
    // A minute under load.
    rig.clock.advance(Duration::from_secs(60));
    rig.store.is_waited_for().await;
    let decision = say(&rig, says(&receipt, Resolution::Commit)).await;
    let plain = Producer::attach(&rig.broker);
    let message = Message::builder("news").body("plain").build().unwrap();
    plain.send(message).await.unwrap();
    let request = rig.request();
    let refused = rig.coordinator.half(request).await;
    assert!(matches!(refused, Err(HalfError::Busy(_))), "{refused:?}");
    // One batch was on its way already, the decision is in the next.
    rig.store.passes(2);
    assert_eq!(decision.await.unwrap(), Ok(Outcome::DecidedNow));
    assert_eq!(rig.published(), [receipt.id]);
    rig.store.goes_on();
    for receipt in &stored {
        assert_eq!(rig.state(receipt).await, State::Prepared);
    }
    rig.half().await;
    let all = Filter {
        limit: 1000,
        ..Filter::default()
    };
    rig.coordinator.write_held().await.unwrap();
    let rows = rig.store.reader().list(&all).await.unwrap();
    assert_eq!(rows.len(), LIMIT + 2, "whoever was busy has left nothing");
}

/// A batch decides more than a segment of the log can take at once; so does what a start finds unpublished.
async fn finals_that_no_single_append_has_room_for_are_published_in_several(stage: Stage) {
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

async fn a_crash_between_decisions_loses_and_doubles_nothing(stage: Stage) {
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
async fn everything(rig: &Rig) -> (Vec<Row>, Vec<Event>) {
    let all = Filter {
        limit: 1000,
        ..Filter::default()
    };
    let reader = rig.store.reader();
    let rows = reader.list(&all).await.unwrap();
    (rows, reader.history(1, 1000).await.unwrap())
}

/// Recovery twice equals recovery once.
async fn a_start_that_is_repeated_changes_nothing_more(stage: Stage) {
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
