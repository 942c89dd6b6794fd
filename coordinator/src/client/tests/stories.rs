//! Stories of a local transaction in which nothing but the database differs, each told on SQLite and on Postgres.
//!
//! The numbers are those of `docs/interleavings.md`.

use std::sync::Arc;

use sqlx::Acquire;
use tokio::sync::Notify;

use super::double::message;
use super::{PRODUCER_COMMIT, PRODUCER_ROLLBACK};
use crate::client::endpoint::HalfError;
use crate::client::half::Settled;
use crate::client::local::CommitError;
use crate::client::producer::{BeginError, LostCommit};
use crate::marker::Marker;
use crate::transaction::Resolution;

/// Tells each story twice; `service` and `place_order` have the same shape for either database.
macro_rules! on_both_databases {
    ($(async fn $story:ident() $told:block)+) => {
        mod on_sqlite {
            use super::super::{commits_with_markers_fail, place_order, service};
            use super::*;
            $(#[tokio::test] async fn $story() $told)+
        }
        mod on_postgres {
            use super::super::on_postgres::{commits_with_markers_fail, place_order, service};
            use super::*;
            $(#[tokio::test] async fn $story() $told)+
        }
    };
}

on_both_databases! {
    async fn story_7_a_commit_whose_reply_is_lost_says_nothing_and_the_marker_decides() {
        let service = service().await;
        let mut tx = service.begin().await;
        let id = tx.id();
        place_order(&mut tx).await.unwrap();
        service.producer.lose_commits(LostCommit::Reply);
        let settled = tx.commit().await.unwrap();
        assert!(matches!(settled, Settled::Deferred(_)), "{settled:?}");
        assert_eq!(service.said_about(id), [], "neither COMMIT nor ROLLBACK");
        assert_eq!(service.check(id).await, Resolution::Commit);
        assert_eq!(service.orders().await, 1);
    }

    async fn story_7_a_commit_that_never_arrives_says_nothing_and_the_marker_decides() {
        let service = service().await;
        let mut tx = service.begin().await;
        let id = tx.id();
        place_order(&mut tx).await.unwrap();
        service.producer.lose_commits(LostCommit::Request);
        let settled = tx.commit().await.unwrap();
        assert!(matches!(settled, Settled::Deferred(_)), "{settled:?}");
        assert_eq!(service.said_about(id), [], "neither COMMIT nor ROLLBACK");
        // As long as the database has not noticed, what it holds is locked.
        let mut answer = service.check(id).await;
        while answer == Resolution::InFlight {
            answer = service.check(id).await;
        }
        assert_eq!(answer, Resolution::RollBack);
        assert_eq!(service.store.read(id).await, Ok(Some(Marker::Tombstone)));
        assert_eq!(service.orders().await, 0);
    }

    async fn story_8_every_attempt_is_a_new_half_message() {
        let service = service().await;
        let first = service.begin().await;
        let failed = first.id();
        assert_eq!(first.roll_back().await, Settled::Decided);
        let second = service.begin().await;
        let id = second.id();
        assert_eq!(second.commit().await.unwrap(), Settled::Decided);
        assert_ne!(failed, id);
        assert_eq!(service.said_about(failed), PRODUCER_ROLLBACK);
        assert_eq!(service.said_about(id), PRODUCER_COMMIT);
    }

    async fn story_10_a_fenced_local_transaction_ends_at_its_first_write() {
        let service = service().await;
        let hold = Arc::new(Notify::new());
        *service.coordinator.hold_halves.lock().unwrap() = Some(hold.clone());
        let begin = service.producer.begin(&service.pool, message());
        let fence = async {
            while service.coordinator.halves().is_empty() {
                tokio::task::yield_now().await;
            }
            // Another instance of the group answers a check-back before this one has begun.
            let id = service.coordinator.halves()[0].id;
            let fenced = service.store.fence(id).await;
            hold.notify_one();
            (id, fenced)
        };
        let (begun, (id, fenced)) = tokio::join!(begin, fence);
        assert_eq!(fenced, Ok(Marker::Tombstone));
        assert!(matches!(begun, Err(BeginError::Fenced(fenced)) if fenced == id));
        service.producer.flush().await;
        assert_eq!(service.said_about(id), [], "the check-back has settled it");
    }

    async fn story_11_a_savepoint_left_open_is_rolled_back_as_a_whole() {
        let service = service().await;
        let mut tx = service.begin().await;
        let id = tx.id();
        place_order(&mut tx).await.unwrap();
        std::mem::forget((*tx).begin().await.unwrap());
        let error = tx.commit().await.unwrap_err();
        assert!(matches!(error, CommitError::OpenSavepoint), "{error}");
        assert_eq!(service.said_about(id), PRODUCER_ROLLBACK);
        assert_eq!(service.orders().await, 0);
    }

    async fn story_11_a_nested_transaction_that_is_dropped_undoes_only_itself() {
        let service = service().await;
        let mut tx = service.begin().await;
        place_order(&mut tx).await.unwrap();
        let mut nested = (*tx).begin().await.unwrap();
        sqlx::query("DELETE FROM orders")
            .execute(&mut *nested)
            .await
            .unwrap();
        drop(nested);
        assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
        assert_eq!(service.orders().await, 1);
    }

    async fn story_12_a_tombstone_whose_commit_fails_is_no_answer() {
        let service = service().await;
        service.coordinator.lose_next_half_answer();
        let begun = service.producer.begin(&service.pool, message()).await;
        assert!(matches!(begun, Err(BeginError::Half(_))), "{begun:?}");
        let orphan = service.coordinator.halves()[0].id;
        // The statement that plants it succeeds, and then the database refuses to commit.
        commits_with_markers_fail(&service.pool, true).await;
        for _ in 0..2 {
            assert_eq!(service.check(orphan).await, Resolution::Unknown);
            assert_eq!(service.store.read(orphan).await, Ok(None));
        }
        commits_with_markers_fail(&service.pool, false).await;
        assert_eq!(service.check(orphan).await, Resolution::RollBack);
        let planted = service.store.read(orphan).await;
        assert_eq!(planted, Ok(Some(Marker::Tombstone)));
    }

    async fn story_16_an_orphan_of_a_lost_half_answer_is_fenced() {
        let service = service().await;
        service.coordinator.lose_next_half_answer();
        let error = service
            .producer
            .begin(&service.pool, message())
            .await
            .unwrap_err();
        assert!(
            matches!(error, BeginError::Half(HalfError::Unknown(_))),
            "{error}"
        );
        let retried = service.begin().await;
        let orphan = service.coordinator.halves()[0].id;
        assert_ne!(orphan, retried.id());
        assert_eq!(retried.commit().await.unwrap(), Settled::Decided);
        assert_eq!(service.check(orphan).await, Resolution::RollBack);
        assert_eq!(
            service.store.read(orphan).await,
            Ok(Some(Marker::Tombstone))
        );
    }

    async fn story_22_a_running_local_transaction_is_in_flight_and_not_fenced() {
        let service = service().await;
        let hold = Arc::new(Notify::new());
        *service.coordinator.hold_halves.lock().unwrap() = Some(hold.clone());
        let begin = service.producer.begin(&service.pool, message());
        let asked_meanwhile = async {
            while service.coordinator.halves().is_empty() {
                tokio::task::yield_now().await;
            }
            // The broker has restarted and asks before the local transaction has reached its first statement.
            let answer = service.check(service.coordinator.halves()[0].id).await;
            hold.notify_one();
            answer
        };
        let (begun, answer) = tokio::join!(begin, asked_meanwhile);
        assert_eq!(answer, Resolution::InFlight);
        let tx = begun.unwrap();
        let id = tx.id();
        assert_eq!(service.check(id).await, Resolution::InFlight);
        assert_eq!(tx.commit().await.unwrap(), Settled::Decided);
        assert_eq!(service.check(id).await, Resolution::Commit);
    }
}
