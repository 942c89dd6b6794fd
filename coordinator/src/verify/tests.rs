//! Every kind of edit by hand in a real database is found, and the row is named.

use std::path::Path;

use mq_core::log::QueueOffset;
use mq_core::message::Message;
use mq_core::names::GroupName;
use mq_core::random::SystemRandom;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection as _, Executor as _};

use super::*;
use crate::client::endpoint::{Endpoint as _, HalfRequest, Resolve};
use crate::embedded::{DATABASE_FILE, Embedded, Settings};
use crate::store::sqlite;
use crate::transaction::{Actor, Incarnation, Resolution, TransactionId};

/// Half messages 1 to 8: 1 to 3 committed, 4 and 5 rolled back, 5 contradicted, the others open.
async fn history(data: &Path) {
    let open = Embedded::open(data, Settings::default()).await.unwrap();
    let coordinator = open.coordinator();
    let group = GroupName::new("order-service").unwrap();
    for number in 1..=8 {
        let request = HalfRequest {
            id: TransactionId(number),
            group: group.clone(),
            message: Message::builder("orders").body("hello").build().unwrap(),
            queue: Some(0),
            sender: Incarnation(7),
            marker: None,
            immunity: None,
        };
        let receipt = coordinator.half(request).await.unwrap();
        let said: &[Resolution] = match number {
            1..=3 => &[Resolution::Commit],
            4 => &[Resolution::RollBack],
            5 => &[Resolution::RollBack, Resolution::Commit],
            _ => &[],
        };
        for resolution in said {
            let resolve = Resolve {
                id: receipt.id,
                group: group.clone(),
                position: receipt.position,
                queue_offset: QueueOffset(receipt.queue_offset.0),
                resolution: *resolution,
                actor: Actor::Producer,
                evidence: "said so".into(),
                source: "test".into(),
                broker: None,
            };
            coordinator.resolve(resolve).await.unwrap();
        }
    }
    open.close().await.unwrap();
}

async fn found(database: &Path) -> Vec<String> {
    let reader = sqlite::open_reader(database, sqlite::Options::default())
        .await
        .unwrap();
    let report = verify(&reader, 8, &SystemRandom, &Progress::default())
        .await
        .unwrap();
    assert_eq!(report.more, 0);
    report.findings.iter().map(ToString::to_string).collect()
}

/// A connection to which nothing is forbidden: its owner has thrown the triggers away.
async fn intruder(database: &Path) -> SqliteConnection {
    let mut connection = SqliteConnectOptions::new()
        .filename(database)
        .connect()
        .await
        .unwrap();
    let triggers: Vec<(String,)> =
        sqlx::query_as("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    for (name,) in triggers {
        let statement = sqlx::AssertSqlSafe(format!("DROP TRIGGER {name}"));
        connection.execute(statement).await.unwrap();
    }
    connection
}

#[tokio::test]
async fn whatever_was_touched_by_hand_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    history(&data).await;
    let original = data.join(DATABASE_FILE);
    assert_eq!(found(&original).await, Vec::<String>::new());
    let mut whole = SqliteConnectOptions::new()
        .filename(&original)
        .connect()
        .await
        .unwrap();
    let original = folder.path().join("original.db");
    sqlx::query("VACUUM INTO ?")
        .bind(original.to_str().unwrap())
        .execute(&mut whole)
        .await
        .unwrap();

    let id = |number: u128| format!("x'{:032X}'", number);
    let whose = |number: u128| format!("{}", TransactionId(number));
    let edits: Vec<(String, String)> = vec![
        ("event 2 ".into(), "UPDATE audit SET to_step = 2 WHERE event = 2".into()),
        ("event 2 ".into(), "UPDATE audit SET evidence = 'other' WHERE event = 2".into()),
        ("event 2 ".into(), "UPDATE audit SET at = at + 1 WHERE event = 2".into()),
        ("event 1 ".into(), "UPDATE audit SET then_at = NULL WHERE event = 1".into()),
        ("event 3 ".into(), "UPDATE audit SET actor = 4 WHERE event = 3".into()),
        ("event 3 ".into(), format!("UPDATE audit SET tx = {} WHERE event = 3", id(99))),
        ("event 2 is missing".into(), "DELETE FROM audit WHERE event = 2".into()),
        (
            "was never sealed".into(),
            format!("INSERT INTO audit SELECT max(event) + 1, {}, NULL, 1, 1, 1, 2, source, '' FROM audit", id(99)),
        ),
        (
            "event 1 ".into(),
            "UPDATE audit SET event = CASE event WHEN 1 THEN -2 WHEN 2 THEN -1 END WHERE event IN (1, 2); \
             UPDATE audit SET event = -event WHERE event < 0"
                .into(),
        ),
        ("event 1 ".into(), "UPDATE name SET text = 'somebody else' WHERE text = 'test'".into()),
        ("seal 2 was changed".into(), "UPDATE seal SET wall_ms = wall_ms + 1 WHERE seq = 2".into()),
        ("seal 2 was changed".into(), "UPDATE seal SET published = published + 1 WHERE seq = 2".into()),
        ("seal 2 was changed".into(), "UPDATE seal SET hash = zeroblob(32) WHERE seq = 2".into()),
        ("seal 2 is missing".into(), "DELETE FROM seal WHERE seq = 2".into()),
        (
            "belongs to no batch".into(),
            "INSERT INTO seal SELECT max(seq) + 1, 99, 0, 0, 0, zeroblob(32), x'' FROM seal".into(),
        ),
        ("owner row".into(), "UPDATE owner SET published = 0".into()),
        ("owner row".into(), "UPDATE owner SET head = zeroblob(32)".into()),
        ("owner row".into(), "UPDATE owner SET last_decision = 3".into()),
        (whose(1), format!("UPDATE tx SET status = 2 WHERE id = {}", id(1))),
        (whose(2), format!("UPDATE tx SET decided_at = decided_at + 1 WHERE id = {}", id(2))),
        (whose(3), format!("UPDATE tx SET decision_no = 77 WHERE id = {}", id(3))),
        (whose(5), format!("UPDATE tx SET contradictions = 0 WHERE id = {}", id(5))),
        (whose(6), format!("UPDATE tx SET prepared_at = 1 WHERE id = {}", id(6))),
        (whose(6), format!("UPDATE tx SET checks = 4 WHERE id = {}", id(6))),
        (
            whose(7),
            format!("UPDATE tx SET status = 1, decided_at = 5, decision_no = 66, check_at = NULL WHERE id = {}", id(7)),
        ),
        (
            whose(4),
            format!("UPDATE tx SET status = 0, decided_at = NULL, decision_no = NULL, check_at = 1 WHERE id = {}", id(4)),
        ),
        (whose(8), format!("DELETE FROM tx WHERE id = {}", id(8))),
        (
            whose(99),
            format!(
                "INSERT INTO tx SELECT half_pos + 1, {}, 0, grp, topic, sender, marker, status, half_off, body_len, \
                 prepared_at, decided_at, 55, check_at, checks, repeats, contradictions FROM tx WHERE id = {}",
                id(99),
                id(1)
            ),
        ),
        (whose(1), format!("INSERT INTO unpublished SELECT half_pos, 'x' FROM tx WHERE id = {}", id(1))),
    ];
    for (named, edit) in edits {
        let copy = folder.path().join("copy.db");
        std::fs::copy(&original, &copy).unwrap();
        let mut connection = intruder(&copy).await;
        connection
            .execute(sqlx::AssertSqlSafe(edit.clone()))
            .await
            .unwrap_or_else(|error| panic!("{edit}: {error}"));
        connection.close().await.unwrap();
        let found = found(&copy).await;
        assert!(
            found.first().is_some_and(|first| first.contains(&named)),
            "{edit}: {found:?}"
        );
        for file in ["copy.db", "copy.db-wal", "copy.db-shm"] {
            let _ = std::fs::remove_file(folder.path().join(file));
        }
    }
}

#[tokio::test]
async fn a_history_that_grows_meanwhile_is_not_blamed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    history(&data).await;
    let open = Embedded::open(&data, Settings::default()).await.unwrap();
    let coordinator = open.coordinator().clone();
    let group = GroupName::new("order-service").unwrap();
    let load = async {
        for number in 100..1_100 {
            let request = HalfRequest {
                id: TransactionId(number),
                group: group.clone(),
                message: Message::builder("orders").body("x").build().unwrap(),
                queue: Some(0),
                sender: Incarnation(7),
                marker: None,
                immunity: None,
            };
            let receipt = coordinator.half(request).await.unwrap();
            let resolve = Resolve {
                id: receipt.id,
                group: group.clone(),
                position: receipt.position,
                queue_offset: receipt.queue_offset,
                resolution: Resolution::Commit,
                actor: Actor::Producer,
                evidence: String::new(),
                source: "test".into(),
                broker: None,
            };
            coordinator.resolve(resolve).await.unwrap();
        }
    };
    let reader = coordinator.reader();
    let look = async {
        for _ in 0..20 {
            let report = verify(&reader, 8, &SystemRandom, &Progress::default())
                .await
                .unwrap();
            assert_eq!(report.findings, vec![]);
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(load, look);
    open.close().await.unwrap();
}
