//! Databases that are older than the log, and what a repair makes of them.

use mq_core::clock::{Clock, ManualClock};
use mq_core::log::AppendError;
use mq_core::random::{Random, SeededRandom};

use super::rig::Rig;
use super::*;
use crate::engine::recovery::StartError;
use crate::engine::repair::{self, Lacking};
use crate::store::TxStore;
use crate::transaction::Decision;
use crate::verify::{Subject, verify};

/// What the store lacks of the log.
async fn lacking(log: &Arc<MemoryLog>, store: &impl TxStore) -> Result<Lacking, StartError> {
    repair::survey(&**log, &*store.reader()).await
}

/// Repairs a store.
pub(super) async fn repaired<S: TxStore + Clone>(rig: &Parts<S>) -> Lacking {
    let found = lacking(&rig.log, &rig.store).await.unwrap();
    let log: Arc<dyn Log> = rig.log.clone();
    let clock: Arc<dyn Clock> = rig.clock.clone();
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(5));
    let store: Arc<dyn TxStore> = Arc::new(rig.store.clone());
    let parts = repair::Parts {
        log: &log,
        store: &store,
        clock: &clock,
        random: &random,
    };
    repair::repair(&parts, &found, |_| ()).await.unwrap();
    found
}

/// What stays when a process ends.
pub(super) struct Parts<S> {
    pub(super) clock: Arc<ManualClock>,
    pub(super) log: Arc<MemoryLog>,
    pub(super) store: S,
}

impl<S: TxStore + Clone> Parts<S> {
    /// The process dies.
    pub(super) fn of(rig: Rig<S>) -> Self {
        let Rig {
            clock, log, store, ..
        } = rig;
        Self { clock, log, store }
    }

    /// A process over another store.
    pub(super) async fn start<T: TxStore + Clone>(&self, store: T) -> Result<Rig<T>, String> {
        Rig::over(self.clock.clone(), self.log.clone(), store).await
    }
}

/// Nobody has touched the history.
pub(super) async fn is_untouched(store: &impl TxStore) {
    let random = SeededRandom::new(9);
    let subject = Subject {
        reader: &store.reader(),
        log: None,
        recorded_contradictions: 3,
    };
    let report = verify(&subject, &random, &Arc::default()).await;
    let report = report.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[tokio::test(start_paused = true)]
async fn story_4_a_repair_decides_again_what_was_decided() {
    let mut rig = Rig::new().await;
    let (known, rolled_back, committed) = (rig.half().await, rig.half().await, rig.half().await);
    rig.resolve(&known, Resolution::RollBack).await;
    let yesterday = rig.store.copy();
    rig.resolve(&rolled_back, Resolution::RollBack).await;
    rig.resolve(&committed, Resolution::Commit).await;
    let (newer, open) = (rig.half().await, rig.half().await);
    rig.resolve(&newer, Resolution::Commit).await;
    let published = rig.published();
    let mut parts = Parts::of(rig);
    let newest = std::mem::replace(&mut parts.store, yesterday.clone());

    let error = parts.start(yesterday.clone()).await.err().unwrap();
    assert!(
        error.contains("older than the log") && error.contains("halfmoon repair"),
        "{error}"
    );
    let found = repaired(&parts).await;
    assert_eq!(
        (
            found.count(Decision::Commit),
            found.count(Decision::RollBack)
        ),
        (2, 1)
    );
    assert!(lacking(&parts.log, &yesterday).await.unwrap().nothing());
    is_untouched(&yesterday).await;

    let error = parts.start(newest).await.err().unwrap();
    assert!(
        error.contains("older than the log"),
        "two histories: {error}"
    );
    let mut rig = parts.start(yesterday).await.unwrap();
    rig.next_id = 100;
    assert_eq!(rig.published(), published, "nothing twice");
    for (receipt, state) in [
        (&known, State::RolledBack),
        (&rolled_back, State::RolledBack),
        (&committed, State::Committed),
        (&newer, State::Committed),
        (&open, State::Prepared),
    ] {
        assert_eq!(rig.state(receipt).await, state);
    }
    let late = rig.resolve(&rolled_back, Resolution::Commit).await;
    assert!(matches!(late, Outcome::AlreadyOtherwise(_)), "{late:?}");
    rig.resolve(&open, Resolution::Commit).await;
    assert_eq!(rig.published().len(), published.len() + 1);
    is_untouched(&rig.store).await;
}

#[tokio::test(start_paused = true)]
async fn story_4_an_empty_database_is_filled_from_the_log_again() {
    let mut rig = Rig::new().await;
    let (committed, rolled_back) = (rig.half().await, rig.half().await);
    rig.resolve(&committed, Resolution::Commit).await;
    rig.resolve(&rolled_back, Resolution::RollBack).await;
    let mut parts = Parts::of(rig);
    parts.store = Model::new();
    let found = repaired(&parts).await;
    assert_eq!(
        (
            found.count(Decision::Commit),
            found.count(Decision::RollBack)
        ),
        (1, 1)
    );
    let rig = parts.start(parts.store.clone()).await.unwrap();
    assert_eq!(rig.state(&committed).await, State::Committed);
    assert_eq!(rig.state(&rolled_back).await, State::RolledBack);
    assert_eq!(rig.published(), [committed.id]);
    is_untouched(&rig.store).await;
}

/// The number of a decision whose record the full disk refused is skipped, and its transaction is open again.
#[tokio::test(start_paused = true)]
async fn story_4_a_decision_that_the_log_never_had_is_open_and_stops_nobody() {
    let mut rig = Rig::new().await;
    let (unpublished, committed) = (rig.half().await, rig.half().await);
    rig.coordinator.write_held().await.unwrap();
    let yesterday = rig.store.copy();
    let full = AppendError::Full("no space left".into());
    rig.log.fail_next(full);
    rig.resolve(&unpublished, Resolution::Commit).await;
    rig.resolve(&committed, Resolution::Commit).await;
    let mut parts = Parts::of(rig);
    parts.store = yesterday;
    let found = repaired(&parts).await;
    assert_eq!(found.count(Decision::Commit), 1);
    is_untouched(&parts.store).await;
    let rig = parts.start(parts.store.clone()).await.unwrap();
    assert_eq!(rig.state(&unpublished).await, State::Prepared);
    rig.resolve(&unpublished, Resolution::Commit).await;
    assert_eq!(rig.published(), [committed.id, unpublished.id]);
    rig.pass(Duration::from_secs(3)).await;
    let owner = rig.store.reader().owner().await.unwrap().unwrap();
    assert_eq!(
        owner.published, owner.last_decision,
        "the gap holds nobody up"
    );
}

#[tokio::test(start_paused = true)]
async fn todays_database_beside_yesterdays_log_is_refused_and_not_repaired() {
    let mut rig = Rig::new().await;
    let receipt = rig.half().await;
    rig.resolve(&receipt, Resolution::Commit).await;
    let mut parts = Parts::of(rig);
    parts.log = Arc::new(MemoryLog::new(LogId(1), parts.clock.clone()));
    let error = parts.start(parts.store.clone()).await.err().unwrap();
    assert!(
        error.contains("the log is older than the database"),
        "{error}"
    );
    let error = lacking(&parts.log, &parts.store)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("restore the log"), "{error}");
    parts.log = Arc::new(MemoryLog::new(LogId(2), parts.clock.clone()));
    let error = lacking(&parts.log, &parts.store)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("belongs to log"), "{error}");
}
