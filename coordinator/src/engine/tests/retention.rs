//! Half messages that are open for longer than the log keeps messages.

use mq_core::clock::ManualClock;
use mq_core::log::{AppendError, ReadError};
use mq_core::random::SeededRandom;

use super::super::settings::Settings;
use super::rig::Rig;
use super::*;
use crate::audit::Event;
use crate::store::Forgotten;
use crate::verify;

/// Lets the log delete everything that stands there now, and time pass until it has what nobody needs.
async fn delete_what_is_old(rig: &Rig) {
    let end = rig.log.range().end;
    rig.log.want(end);
    rig.pass(Duration::from_secs(4)).await;
}

async fn row(rig: &Rig, receipt: &HalfReceipt) -> Row {
    let row = rig.store.transaction(receipt.id).await.unwrap();
    row.expect("it has a row")
}

fn is_gone(rig: &Rig, position: Position) -> bool {
    rig.log.read(position) == Err(ReadError::Gone(position))
}

#[tokio::test(start_paused = true)]
async fn story_17_a_producer_is_asked_about_the_first_identity_of_what_was_carried() {
    let mut rig = Rig::new().await;
    let receipt = rig.half().await;
    delete_what_is_old(&rig).await;
    assert!(is_gone(&rig, receipt.position));
    let (_connection, asked) = rig.connect(8, &[]);
    rig.pass(Duration::from_secs(10)).await;
    let positions = asked.take();
    assert!(!positions.is_empty());
    assert!(
        positions
            .iter()
            .all(|position| *position == receipt.position)
    );
    // Carried again while it is being asked about.
    delete_what_is_old(&rig).await;
    rig.pass(Duration::from_secs(10)).await;
    assert!(asked.take().contains(&receipt.position));
}

#[tokio::test(start_paused = true)]
async fn story_1_what_is_said_of_a_decided_half_message_whose_bytes_are_deleted_is_answered_from_its_row()
 {
    let mut rig = Rig::new().await;
    let (committed, rolled_back) = (rig.half().await, rig.half().await);
    rig.resolve(&committed, Resolution::Commit).await;
    rig.resolve(&rolled_back, Resolution::RollBack).await;
    delete_what_is_old(&rig).await;
    assert!(is_gone(&rig, committed.position) && is_gone(&rig, rolled_back.position));
    let says = [Resolution::Commit, Resolution::RollBack];
    for (receipt, stands) in [
        (&committed, State::Committed),
        (&rolled_back, State::RolledBack),
    ] {
        for (resolution, same) in says.map(|says| {
            (
                says,
                (says == Resolution::Commit) == (stands == State::Committed),
            )
        }) {
            match rig.resolve(receipt, resolution).await {
                Outcome::AlreadyTheSame => assert!(same),
                Outcome::AlreadyOtherwise(verdict) => {
                    assert!(!same);
                    assert_eq!(verdict.state, stands);
                }
                other @ (Outcome::DecidedNow
                | Outcome::NoSuchHalfMessage { .. }
                | Outcome::Noted) => panic!("{other:?}"),
            }
        }
        rig.store.prune(receipt.position);
        for resolution in says {
            let outcome = rig.resolve(receipt, resolution).await;
            assert!(
                matches!(outcome, Outcome::NoSuchHalfMessage { .. }),
                "{outcome:?}"
            );
        }
    }
    assert_eq!(
        rig.published(),
        [] as [TransactionId; 0],
        "its message was deleted, too"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_that_sql_does_not_reflect() {
    let mut rig = Rig::new().await;
    let old = rig.half().await;
    rig.coordinator.write_held().await.unwrap();
    rig.store.stall(true);
    let new = rig.half().await;
    delete_what_is_old(&rig).await;
    assert!(!is_gone(&rig, old.position) && !is_gone(&rig, new.position));
    rig.store.stall(false);
    delete_what_is_old(&rig).await;
    for receipt in [&old, &new] {
        assert!(is_gone(&rig, receipt.position));
        assert_eq!(
            rig.resolve(receipt, Resolution::Commit).await,
            Outcome::DecidedNow
        );
    }
    assert_eq!(rig.published(), [old.id, new.id]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_before_its_row_says_where_the_copy_is() {
    let mut rig = Rig::new().await;
    let (receipt, later) = (rig.half().await, rig.half().await);
    rig.resolve(&later, Resolution::RollBack).await;
    rig.pass(Duration::from_secs(1)).await;
    let reflected = rig.store.owner().await.unwrap().unwrap().watermark;
    assert!(reflected > receipt.position);
    rig.store.stall(true);
    let before = rig.log.range().end;
    delete_what_is_old(&rig).await;
    assert!(rig.log.range().end > before, "the copy is in the log");
    assert!(!is_gone(&rig, receipt.position));
    rig.store.stall(false);
    rig.pass(Duration::from_secs(4)).await;
    assert!(is_gone(&rig, receipt.position));
    assert_eq!(
        rig.resolve(&receipt, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    assert_eq!(rig.published(), [receipt.id]);
}

#[tokio::test(start_paused = true)]
async fn a_final_that_the_full_disk_refused_is_published_from_the_copy_of_its_half_message() {
    let mut rig = Rig::new().await;
    let receipt = rig.half().await;
    rig.coordinator.write_held().await.unwrap();
    rig.log.fail_next(AppendError::Full("no room".into()));
    assert_eq!(
        rig.resolve(&receipt, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    rig.coordinator.write_held().await.unwrap();
    assert!(row(&rig, &receipt).await.unpublished.is_some());
    delete_what_is_old(&rig).await;
    assert!(is_gone(&rig, receipt.position));
    rig.pass(Duration::from_secs(10)).await;
    assert_eq!(rig.published(), [receipt.id]);
    assert_eq!(row(&rig, &receipt).await.unpublished, None);
}

#[tokio::test(start_paused = true)]
async fn a_database_from_before_what_is_deleted_is_refused() {
    let mut rig = Rig::new().await;
    let first = rig.half().await;
    rig.resolve(&first, Resolution::Commit).await;
    rig.pass(Duration::from_secs(1)).await;
    let backup = rig.store.copy();
    for _ in 0..20 {
        let receipt = rig.half().await;
        rig.resolve(&receipt, Resolution::Commit).await;
    }
    delete_what_is_old(&rig).await;
    let (clock, log) = (rig.clock.clone(), rig.log.clone());
    drop(rig);
    let survey = repair::survey(&*log, &backup).await;
    assert!(survey.unwrap_err().to_string().contains("is deleted"));
    let refused = Rig::over(clock, log, backup).await.map(|_| ()).unwrap_err();
    assert!(refused.contains("older than the log"), "{refused}");
}

/// A rig that forgets decisions after a minute.
async fn forgetful() -> Rig {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let log = Arc::new(MemoryLog::new(LogId(1), clock.clone()));
    let settings = Settings {
        keep_history: Some(Duration::from_secs(60)),
        ..Settings::default()
    };
    Rig::over_with(clock, log, Model::new(), settings)
        .await
        .unwrap()
}

async fn has_row(rig: &Rig, receipt: &HalfReceipt) -> bool {
    rig.store.transaction(receipt.id).await.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_long_ago_is_forgotten_once_the_log_has_deleted_it() {
    let mut rig = forgetful().await;
    let (committed, rolled_back, open) = (rig.half().await, rig.half().await, rig.half().await);
    rig.resolve(&committed, Resolution::Commit).await;
    rig.resolve(&rolled_back, Resolution::RollBack).await;
    rig.pass(Duration::from_secs(70)).await;
    assert!(
        has_row(&rig, &committed).await,
        "its half message is in the log"
    );
    delete_what_is_old(&rig).await;
    rig.pass(Duration::from_secs(3)).await;
    assert!(!has_row(&rig, &committed).await && !has_row(&rig, &rolled_back).await);
    assert!(has_row(&rig, &open).await);
    let history = rig.store.history(1, 100).await.unwrap();
    let of = |receipt: &HalfReceipt| {
        let theirs = history
            .iter()
            .filter(|event| event.transaction == receipt.id);
        theirs.count()
    };
    assert_eq!([of(&committed), of(&rolled_back), of(&open)], [0, 0, 1]);
    let told = history.iter().rev().find_map(Event::forgets);
    assert_eq!(told, Some(rig.store.forgotten().await.unwrap()));
    assert_eq!(findings(&rig.store).await, [""; 0]);
    // A producer that has slept all the while: below the watermark a missing row means decided.
    for resolution in [Resolution::Commit, Resolution::RollBack] {
        for receipt in [&committed, &rolled_back] {
            let outcome = rig.resolve(receipt, resolution).await;
            assert!(
                matches!(outcome, Outcome::NoSuchHalfMessage { .. }),
                "{outcome:?}"
            );
        }
    }
    assert_eq!(
        rig.resolve(&open, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    let rig = rig.crash().await.unwrap();
    assert!(!has_row(&rig, &committed).await && !has_row(&rig, &rolled_back).await);
    assert_eq!(rig.published(), [open.id]);
    rig.coordinator.write_held().await.unwrap();
    assert_eq!(findings(&rig.store).await, [""; 0]);
    // Somebody forgets more than the history says.
    let (store, far) = (rig.store.copy(), rig.store.owner().await.unwrap().unwrap());
    let (mut writer, _) = store.take_over(LogId(1)).await.unwrap();
    let far = Forgotten {
        event: far.next_event,
        decisions: far.last_decision,
    };
    let forgotten = writer.forget(far, Position(u64::MAX), 100).await.unwrap();
    assert!(forgotten > 0);
    let found = findings(&store).await;
    assert!(
        found
            .iter()
            .any(|line| line.contains("the table forgotten was changed")),
        "{found:?}"
    );
}

/// What `verify` says of a history.
async fn findings(store: &Model) -> Vec<String> {
    let reader = store.reader();
    let subject = verify::Subject {
        reader: &reader,
        log: None,
        recorded_contradictions: 8,
    };
    let report = verify::verify(&subject, &SeededRandom::new(5), &Arc::default()).await;
    let findings = report.unwrap().findings;
    findings.iter().map(ToString::to_string).collect()
}
