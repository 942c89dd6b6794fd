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

mod asking;
mod database;
mod decision;
mod forward;

use asking::*;
use database::*;
use decision::*;
use forward::*;

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

/// The row of a half message.
async fn row(rig: &Rig, receipt: &HalfReceipt) -> Row {
    let row = rig.store.reader().transaction(receipt.id).await.unwrap();
    row.expect("it has a row")
}
