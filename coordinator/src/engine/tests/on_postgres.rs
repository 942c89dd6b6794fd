//! Stories of the engine in which SQL has a part, told over Postgres.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};

use super::repairs::{Parts, is_untouched, repaired};
use super::rig::Rig;
use super::*;
use crate::store::postgres::{Options, Postgres};

async fn rig() -> (PgConnectOptions, Rig<Postgres>) {
    let database = private_postgres::database().await;
    let url = private_postgres::url_of(&database);
    let store = Postgres::open(&url, Options::default()).await.unwrap();
    (database, Rig::on(store).await)
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
