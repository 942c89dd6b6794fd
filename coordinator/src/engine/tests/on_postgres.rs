//! Stories of the engine in which SQL has a part, told over Postgres.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};

use super::repairs::{Parts, is_untouched, repaired};
use super::rig::Rig;
use super::*;
use crate::store::model::Fault;
use crate::store::postgres::{Options, Postgres};

async fn rig() -> (PgConnectOptions, Rig<Postgres>) {
    let database = private_postgres::database().await;
    let url = private_postgres::url_of(&database);
    let store = Postgres::open(&url, Options::default()).await.unwrap();
    (database, Rig::on(store).await)
}

#[tokio::test]
async fn an_unknown_commit_is_found_out_and_happens_once() {
    let (_, mut rig) = rig().await;
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
}

#[tokio::test]
async fn story_5_whoever_is_taken_over_stops() {
    let (_, mut rig) = rig().await;
    let receipt = rig.half().await;
    let _other = rig.store.take_over(rig.log.id()).await.unwrap();
    let said = Rig::says(&receipt, Resolution::Commit);
    assert!(rig.coordinator.resolve(said).await.is_err());
    let health = rig.coordinator.status().health();
    assert!(matches!(health, Health::Failed(_)), "{health:?}");
    assert_eq!(rig.published(), []);
}

#[tokio::test]
async fn a_crash_between_decisions_loses_and_doubles_nothing() {
    let (_, mut rig) = rig().await;
    let (committed, rolled_back, open) = (rig.half().await, rig.half().await, rig.half().await);
    rig.resolve(&committed, Resolution::Commit).await;
    rig.resolve(&rolled_back, Resolution::RollBack).await;
    let mut rig = rig.crash().await.unwrap();
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

#[tokio::test]
async fn connections_that_the_database_ends_lose_nothing_and_double_nothing() {
    let (database, mut rig) = rig().await;
    let mut other = database.connect().await.unwrap();
    let end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let mut committed = Vec::new();
    for round in 0..24 {
        let receipt = rig.half().await;
        let resolution = if round % 3 == 0 {
            Resolution::RollBack
        } else {
            committed.push(receipt.id);
            Resolution::Commit
        };
        let (outcome, ()) = tokio::join!(rig.resolve(&receipt, resolution), async {
            if round % 4 == 0 {
                other.execute(end_all).await.unwrap();
            }
        });
        assert_eq!(outcome, Outcome::DecidedNow);
        let events = rig.store.reader().events(receipt.id).await.unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
    }
    assert_eq!(rig.published(), committed);
}

/// Keeps what a replica has that gets nothing any more.
const REPLICA: &str = "CREATE TABLE public.replica AS TABLE halfmoon.owner";
/// The replica takes over: whatever came later is lost, and so is every connection.
const FAIL_OVER: &str = "SET session_replication_role = replica;
    DELETE FROM halfmoon.owner;
    INSERT INTO halfmoon.owner SELECT * FROM public.replica;
    DELETE FROM halfmoon.tx WHERE half_pos > (SELECT watermark FROM public.replica);
    DELETE FROM halfmoon.seal WHERE seq > (SELECT seq FROM public.replica);
    DELETE FROM halfmoon.audit WHERE event >= (SELECT next_event FROM public.replica);
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()";

#[tokio::test]
async fn story_4_a_failover_that_lost_commits_stops_the_process_and_is_repaired() {
    let (database, mut rig) = rig().await;
    let known = rig.half().await;
    rig.resolve(&known, Resolution::Commit).await;
    let mut other = database.connect().await.unwrap();
    other.execute(REPLICA).await.unwrap();
    let (lost, open) = (rig.half().await, rig.half().await);
    rig.resolve(&lost, Resolution::RollBack).await;
    rig.coordinator.write_held().await.unwrap();
    other.execute(sqlx::raw_sql(FAIL_OVER)).await.unwrap();

    // Whatever is said now, also about what it once knew, is not answered from the older database.
    let said = Rig::says(&lost, Resolution::Commit);
    assert!(rig.coordinator.resolve(said).await.is_err());
    let health = rig.coordinator.status().health();
    let Health::Failed(why) = health else {
        panic!("{health:?}")
    };
    assert!(
        why.contains("older than what was committed") && why.contains("halfmoon repair"),
        "{why}"
    );
    assert_eq!(rig.published(), [known.id]);

    let parts = Parts::of(rig);
    let error = parts.start(parts.store.clone()).await.err().unwrap();
    assert!(error.contains("older than the log"), "{error}");
    repaired(&parts).await;
    let rig = parts.start(parts.store.clone()).await.unwrap();
    assert_eq!(rig.state(&lost).await, State::RolledBack);
    assert_eq!(rig.state(&open).await, State::Prepared);
    assert_eq!(rig.published(), [known.id]);
    is_untouched(&rig.store).await;
}
