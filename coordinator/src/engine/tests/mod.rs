//! Stories of the engine, told over a log and a store in memory.

mod damage;
mod on_postgres;
mod repairs;
mod retention;
pub(crate) mod rig;
mod stage;
mod stories;

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
use crate::transaction::State;

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
