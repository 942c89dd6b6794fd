//! Histories in real databases: untouched, growing, and (in `touching`) edited by hand.

use std::path::Path;

use mq_core::log::disk::ReadOnlyFolder;
use mq_core::log::{Flush, Position, QueueOffset, Submission};
use mq_core::message::Message;
use mq_core::names::GroupName;
use mq_core::random::SystemRandom;

mod moved;
mod touching;

use super::*;
use crate::client::endpoint::{Endpoint as _, HalfRequest, Resolve};
use crate::embedded::{DATABASE_FILE, Embedded, LOG_FOLDER, Settings};
use crate::engine::half;
use crate::store::database::Database;
use crate::transaction::{Actor, Incarnation, Resolution, TransactionId};

/// Half messages 1 to 8: 1 to 3 committed, 4 and 5 rolled back, 5 contradicted, the others open.
async fn history(data: &Path, database: &Database) {
    history_but(data, database, Resolution::RollBack).await;
}

/// The same with another decision of the fourth.
async fn history_but(data: &Path, database: &Database, fourth: Resolution) {
    let settings = Settings {
        database: Some(database.clone()),
        ..Settings::default()
    };
    history_with(data, settings, fourth).await;
}

/// The same with these settings.
async fn history_with(data: &Path, settings: Settings, fourth: Resolution) {
    let open = Embedded::open(data, settings).await.unwrap();
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
            4 => &[fourth],
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

/// The log of a data folder, whoever works in it.
fn log_of(data: &Path) -> Arc<LogReader> {
    let folder = ReadOnlyFolder::new(data.join(LOG_FOLDER));
    Arc::new(LogReader::open(Arc::new(folder)).unwrap())
}

#[tokio::test]
async fn a_history_that_grows_meanwhile_is_not_blamed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    history(&data, &Database::Sqlite(data.join(DATABASE_FILE))).await;
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
            let log = log_of(&data);
            let subject = Subject {
                reader: &reader,
                log: Some(&log),
                recorded_contradictions: 8,
            };
            let report = verify(&subject, &SystemRandom, &Arc::default())
                .await
                .unwrap();
            assert_eq!(report.findings, vec![]);
            assert!(report.log.is_some());
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(load, look);
    open.close().await.unwrap();
}
