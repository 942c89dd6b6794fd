//! Half messages that were carried forward, in a log that has lost its beginning.

use std::time::Duration;

use mq_core::broker::{self, Incoming};
use mq_core::log::Position;
use mq_core::log::open::Settings as LogSettings;
use mq_core::names::TopicName;

use super::touching::{Intruder, findings};
use super::*;
use crate::engine::Coordinator;
use crate::store::Half;

/// Between two looks at what is deleted.
const SOON: Duration = Duration::from_millis(20);

/// The smallest segments, and few of them.
fn small(database: &Database) -> Settings {
    Settings {
        log: LogSettings {
            segment_bytes: 16 << 10,
            keep_bytes: Some(64 << 10),
            ..LogSettings::default()
        },
        broker: broker::Settings {
            offsets_interval: SOON,
            ..broker::Settings::default()
        },
        database: Some(database.clone()),
        ..Settings::default()
    }
}

/// Half messages 1 to 8 as in [`history`], then so many plain messages that all eight are deleted where they stood first, and
/// then 6 is rolled back. Returns where the log begins.
async fn trimmed(data: &Path, database: &Database) -> Position {
    history_with(data, small(database), Resolution::RollBack).await;
    let open = Embedded::open(data, small(database)).await.unwrap();
    let (broker, coordinator) = (open.broker(), open.coordinator());
    let last = coordinator.reader().transaction(TransactionId(8)).await;
    let last = last.unwrap().unwrap().half.position;
    let plain = Message::builder("plain").body(vec![7; 3_000]).build();
    let plain = plain.unwrap();
    // The log deletes beside us.
    for number in 100..1_000 {
        if broker.log().range().start > last {
            break;
        }
        for _ in 0..10 {
            broker
                .send(Incoming::new(&plain, Some(0), 1))
                .await
                .unwrap();
        }
        // Nothing is deleted that the database does not reflect.
        decide(coordinator, number).await;
        tokio::time::sleep(SOON).await;
    }
    assert!(broker.log().range().start > last, "it is deleted");
    let row = coordinator.reader().transaction(TransactionId(6)).await;
    roll_back(coordinator, row.unwrap().unwrap().half).await;
    let start = broker.log().range().start;
    open.close().await.unwrap();
    start
}

/// A half message that is rolled back at once.
async fn decide(coordinator: &Coordinator, number: u128) {
    let request = HalfRequest {
        id: TransactionId(number),
        group: GroupName::new("order-service").unwrap(),
        message: Message::builder("orders").body("x").build().unwrap(),
        queue: Some(0),
        sender: Incarnation(7),
        marker: None,
        immunity: None,
    };
    let receipt = coordinator.half(request).await.unwrap();
    let half = Half {
        id: receipt.id,
        position: receipt.position,
        queue_offset: receipt.queue_offset,
        group: GroupName::new("order-service").unwrap(),
        topic: TopicName::new("orders").unwrap(),
        body_len: 1,
        prepared_at: Default::default(),
        sender: None,
        marker: None,
    };
    roll_back(coordinator, half).await;
}

async fn roll_back(coordinator: &Coordinator, half: Half) {
    let resolve = Resolve {
        id: half.id,
        group: half.group,
        position: half.position,
        queue_offset: half.queue_offset,
        resolution: Resolution::RollBack,
        actor: Actor::Producer,
        evidence: String::new(),
        source: "test".into(),
        broker: None,
    };
    coordinator.resolve(resolve).await.unwrap();
}

/// What is found once `intruder` has done each of these, one at a time, and the transaction that is named.
async fn touched(database: Database, data: &Path, mut intruder: Intruder, start: Position) {
    let log = log_of(data);
    intruder.keep().await;
    assert_eq!(findings(&database, Some(&log)).await, Vec::<String>::new());
    let (sixth, open) = (intruder.id(6), intruder.id(7));
    let place = format!("half_pos = (SELECT half_pos FROM tx WHERE id = {open})");
    let edits = [
        (
            format!("DELETE FROM moved WHERE {place}"),
            7,
            "its row says that it stands at",
        ),
        (
            format!("UPDATE moved SET position = position - 8 WHERE {place}"),
            7,
            "its row says that it stands at",
        ),
        (
            format!("UPDATE moved SET position = position + 8 WHERE {place}"),
            7,
            "where the log has no copy of it",
        ),
        (
            format!("UPDATE moved SET position = position + 1000000000 WHERE {place}"),
            7,
            "where the log has no copy of it",
        ),
        (
            format!("UPDATE moved SET position = 9223372036854775807 WHERE {place}"),
            7,
            "where the log has no copy of it",
        ),
        (
            format!("UPDATE moved SET position = {} WHERE {place}", start.0 - 8),
            7,
            "its row says that it stands at",
        ),
        (
            format!("UPDATE tx SET body_len = body_len + 1 WHERE id = {open}"),
            7,
            "its row says length 6, the log says 5",
        ),
        (
            format!("UPDATE tx SET half_off = half_off + 50 WHERE id = {sixth}"),
            6,
            "its row says queue offset",
        ),
        (
            format!(
                "UPDATE moved SET half_pos = half_pos + 1 WHERE {place}; \
                 UPDATE tx SET half_pos = half_pos + 1 WHERE id = {open}"
            ),
            7,
            "the log has a copy of the one at",
        ),
    ];
    for (edit, id, said) in edits {
        assert!(intruder.run(&edit).await > 0, "{edit}");
        let found = findings(&database, Some(&log)).await;
        let id = TransactionId(id).to_string();
        let names = |line: &String| line.contains(&id) && line.contains(said);
        assert!(found.iter().any(names), "{edit}: no {said:?} in {found:#?}");
        intruder.restore().await;
    }
}

#[tokio::test]
async fn where_a_half_message_was_carried_to_is_compared_with_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history.db");
    let database = Database::Sqlite(file.clone());
    let data = folder.path().join("data");
    let start = trimmed(&data, &database).await;
    let intruder = Intruder::sqlite(&file, &folder.path().join("kept.db")).await;
    touched(database, &data, intruder, start).await;
}

#[tokio::test]
async fn where_a_half_message_was_carried_to_is_compared_with_the_copy_on_postgres() {
    let folder = tempfile::tempdir().unwrap();
    let place = private_postgres::database().await;
    let database = Database::Postgres(private_postgres::url_of(&place));
    let data = folder.path().join("data");
    let start = trimmed(&data, &database).await;
    let intruder = Intruder::postgres(&place).await;
    touched(database, &data, intruder, start).await;
}

/// A log may have grown by whole segments since it was opened, before the owner row was read.
#[tokio::test]
async fn a_log_that_has_grown_since_it_was_opened_is_read_to_where_the_owner_row_says() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let database = Database::Sqlite(folder.path().join("history.db"));
    let roomy = || Settings {
        log: LogSettings {
            keep_bytes: None,
            ..small(&database).log
        },
        ..small(&database)
    };
    history_with(&data, roomy(), Resolution::RollBack).await;
    let log = log_of(&data);
    let open = Embedded::open(&data, roomy()).await.unwrap();
    let plain = Message::builder("plain").body(vec![7; 3_000]).build();
    let plain = plain.unwrap();
    for _ in 0..20 {
        let sent = open.broker().send(Incoming::new(&plain, Some(0), 1));
        sent.await.unwrap();
    }
    decide(open.coordinator(), 100).await;
    open.close().await.unwrap();
    assert_eq!(findings(&database, Some(&log)).await, Vec::<String>::new());
}

/// What a row names behind the end of what was read may have been written since.
#[tokio::test]
async fn a_copy_is_looked_for_where_the_row_says() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::Sqlite(folder.path().join("history.db"));
    let data = folder.path().join("data");
    trimmed(&data, &database).await;
    let reader = database.open_reader(Default::default()).await.unwrap();
    let row = |id| reader.transaction(TransactionId(id));
    let (open, other) = (
        row(7).await.unwrap().unwrap(),
        row(8).await.unwrap().unwrap(),
    );
    let (log, to) = (log_of(&data), open.moved_to.unwrap());
    let has = |half, to| rows::has_copy(&log, half, to).unwrap();
    assert!(has(&open.half, to));
    assert!(!has(&other.half, to), "that is a copy of another");
    for nowhere in [to.0 + 8, to.0 + 1_000_000_000, u64::MAX] {
        assert!(!has(&open.half, Position(nowhere)), "{nowhere}");
    }
    assert!(has(&open.half, Position(1)), "what stood there is deleted");
}

#[tokio::test]
async fn a_decision_that_was_turned_round_is_found_although_its_half_message_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let (file, data) = (place("history.db"), place("data"));
    let database = Database::Sqlite(file.clone());
    trimmed(&data, &database).await;
    let mut intruder = Intruder::sqlite(&file, &place("kept.db")).await;
    let sixth = intruder.id(6);
    // The history is silent about the other number; the log is not.
    let edit = format!("UPDATE tx SET decision_no = 77 WHERE id = {sixth}");
    assert_eq!(intruder.run(&edit).await, 1);
    let reader = database.open_reader(Default::default()).await.unwrap();
    let log = log_of(&data);
    let progress = Arc::default();
    let walked = rows::walk(
        &reader,
        Books::new(7, 8, Forgotten::default()),
        Some(&log),
        reader.owner().await.unwrap().unwrap().watermark,
        &progress,
    );
    let found: Vec<String> = walked
        .await
        .unwrap()
        .found
        .iter()
        .map(ToString::to_string)
        .collect();
    let named = "its row says rolled_back as decision 77, the log has rolled_back as decision";
    assert!(found.iter().any(|line| line.contains(named)), "{found:#?}");
}

/// A database that was put back and filled from the log again learns of a half message and of its copy at once: its row says
/// the first place, where the half message still stands.
#[tokio::test]
async fn a_copy_of_a_half_message_that_stands_where_its_row_says_is_not_blamed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let database = Database::Sqlite(data.join(DATABASE_FILE));
    history(&data, &database).await;
    let open = Embedded::open(&data, Settings::default()).await.unwrap();
    let (reader, log) = (open.coordinator().reader(), open.broker().log().clone());
    for id in [2, 5, 7] {
        let row = reader.transaction(TransactionId(id)).await.unwrap();
        let row = row.unwrap();
        let stored = half::kept(&*log, &row).unwrap();
        let (told, durable) = tokio::sync::oneshot::channel();
        log.append(Submission {
            entries: vec![half::moved(&row.half, &stored.bytes)],
            flush: Flush::Sync,
            then: Box::new(move |placed| told.send(placed.map(|_| ())).unwrap()),
        })
        .unwrap();
        durable.await.unwrap().unwrap();
    }
    drop(log);
    open.close().await.unwrap();
    let open = Embedded::open(&data, Settings::default()).await.unwrap();
    open.close().await.unwrap();
    let log = log_of(&data);
    assert_eq!(findings(&database, Some(&log)).await, Vec::<String>::new());
    let mut intruder =
        Intruder::sqlite(&data.join(DATABASE_FILE), &folder.path().join("kept.db")).await;
    assert_eq!(intruder.run("DELETE FROM moved").await, 3);
    assert_eq!(findings(&database, Some(&log)).await, Vec::<String>::new());
}
