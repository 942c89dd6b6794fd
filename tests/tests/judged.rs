//! Runs of the coordinator, crashes included, that the independent checker judges.

use std::sync::Arc;

use coordinator::client::endpoint::{Endpoint, HalfReceipt, HalfRequest, Outcome, Resolve};
use coordinator::engine::Coordinator;
use coordinator::engine::settings::Settings;
use coordinator::store::sqlite::{Options, Sqlite};
use coordinator::transaction::{Actor, Incarnation, Resolution, TransactionId};
use mq_core::broker::{self, Broker};
use mq_core::clock::ManualClock;
use mq_core::log::memory::MemoryLog;
use mq_core::log::{Log, LogId};
use mq_core::message::Message;
use mq_core::names::GroupName;
use mq_core::random::{Random, SeededRandom};
use tempfile::TempDir;
use tests::checker::facts::{Answer, Mark, Record, World};
use tests::checker::{Phase, check, facts, log_files, tables};

/// One process after the other over the same log and database.
struct Run {
    folder: TempDir,
    clock: Arc<ManualClock>,
    log: Arc<MemoryLog>,
    random: SeededRandom,
    live: Option<(Broker, Coordinator)>,
    open: Vec<HalfReceipt>,
    settled: Vec<HalfReceipt>,
    answers: Vec<Answer>,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let mut run = Self {
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            log: Arc::new(MemoryLog::new(LogId(seed.into()), clock.clone())),
            clock,
            random: SeededRandom::new(seed),
            live: None,
            open: Vec::new(),
            settled: Vec::new(),
            answers: Vec::new(),
        };
        run.start().await;
        run
    }

    async fn start(&mut self) {
        let store = Sqlite::open(self.folder.path().join("halfmoon.db"), Options::default())
            .await
            .expect("the database can be opened");
        let coordinator = Coordinator::new(Arc::new(store), Settings::default());
        let parts = broker::Parts {
            log: self.log.clone(),
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(self.random.next_u64())),
            extensions: vec![Arc::new(coordinator.clone())],
        };
        let broker = Broker::open(broker::Settings::default(), parts)
            .await
            .expect("log and database fit together");
        self.live = Some((broker, coordinator));
    }

    fn coordinator(&self) -> &Coordinator {
        let (_, coordinator) = self.live.as_ref().expect("started");
        coordinator
    }

    async fn step(&mut self) {
        match self.random.next_u64() % 16 {
            0..6 => self.half().await,
            6..10 => self.resolve(Resolution::Commit).await,
            10..13 => self.resolve(Resolution::RollBack).await,
            13 => self.contradict().await,
            14 => self
                .coordinator()
                .write_held()
                .await
                .expect("the database works"),
            _ => self.crash().await,
        }
    }

    async fn half(&mut self) {
        let id = TransactionId::new(1_700_000_000_000, self.random.next_u128());
        let message = Message::builder("orders")
            .tag("placed")
            .body(id.to_string());
        let request = HalfRequest {
            id,
            group: GroupName::new("shop").expect("a good name"),
            message: message.build().expect("a good message"),
            queue: Some((self.random.next_u64() % 3) as u32),
            sender: Incarnation(7),
            marker: None,
            immunity: None,
        };
        let receipt = self
            .coordinator()
            .half(request)
            .await
            .expect("there is room");
        self.answers.push(Answer::Half(id.0));
        self.open.push(receipt);
    }

    async fn resolve(&mut self, resolution: Resolution) {
        if self.open.is_empty() {
            return;
        }
        let at = self.random.next_u64() as usize % self.open.len();
        let receipt = self.open.swap_remove(at);
        let outcome = self.say(&receipt, resolution).await;
        assert_eq!(outcome, Outcome::DecidedNow, "{receipt:?}");
        let committed = resolution == Resolution::Commit;
        self.answers.push(Answer::Decided(receipt.id.0, committed));
        self.settled.push(receipt);
    }

    /// Says something about a transaction that is decided: the decision stands.
    async fn contradict(&mut self) {
        let Some(receipt) = self.settled.last().cloned() else {
            return;
        };
        let outcome = self.say(&receipt, Resolution::Commit).await;
        assert!(
            matches!(
                outcome,
                Outcome::AlreadyTheSame | Outcome::AlreadyOtherwise(_)
            ),
            "{outcome:?}"
        );
    }

    async fn say(&self, receipt: &HalfReceipt, resolution: Resolution) -> Outcome {
        let request = Resolve {
            id: receipt.id,
            group: GroupName::new("shop").expect("a good name"),
            position: receipt.position,
            queue_offset: receipt.queue_offset,
            resolution,
            actor: Actor::Producer,
            evidence: String::new(),
            source: "test".into(),
            broker: None,
        };
        let outcome = self.coordinator().resolve(request).await;
        outcome.expect("log and database work")
    }

    /// The process is gone, with everything that its log had not made durable: in half of the cases finals.
    async fn crash(&mut self) {
        if self.random.next_u64().is_multiple_of(2) {
            self.log.hold();
            self.resolve(Resolution::Commit).await;
            self.resolve(Resolution::RollBack).await;
            self.resolve(Resolution::Commit).await;
        }
        self.live = None;
        self.log.crash();
        self.judge(Phase::Anytime).await;
        self.start().await;
    }

    async fn judge(&self, phase: Phase) {
        let mut world = World {
            answers: self.answers.clone(),
            ..World::default()
        };
        world.log.id = self.log.id().0;
        world.log.end = self.log.range().end.0;
        for stored in self.log.scan(self.log.range().start).expect("readable") {
            let stored = stored.expect("readable");
            let message = stored.is_message.then(|| log_files::message(&stored.bytes));
            world.log.records.push(Record {
                position: stored.position.0,
                at: stored.at.0,
                mark: stored.mark.map(|mark| Mark {
                    owner: mark.owner.0,
                    kind: mark.kind,
                    key: mark.key,
                    number: mark.number,
                }),
                message: message.transpose().expect("a stored message"),
                carried: None,
            });
        }
        let database = self.folder.path().join("halfmoon.db");
        world.sql = tables::transactions(&database).await.expect("readable");
        let report = check(&world, phase);
        assert!(report.is_clean(), "{phase:?} {report}");
        assert!(world.sql.owner.seq < 2 || world.log.records.len() > 1);
    }
}

#[tokio::test]
async fn random_histories_with_crashes_keep_every_promise() {
    for seed in 0..if std::env::var_os("HALFMOON_FULL").is_some() {
        60
    } else {
        8
    } {
        eprintln!("seed {seed}");
        let mut run = Run::new(seed).await;
        for _ in 0..60 {
            run.step().await;
        }
        run.crash().await;
        while !run.open.is_empty() {
            run.resolve(Resolution::RollBack).await;
        }
        run.crash().await;
        run.coordinator()
            .write_held()
            .await
            .expect("the database works");
        run.crash().await;
        run.judge(Phase::Healed).await;
        assert!(run.settled.len() > 10, "nothing happened");
    }
}

/// What the checker takes for granted about numbers in the database is what the product writes.
#[test]
fn the_checker_means_the_same_by_its_numbers() {
    use coordinator::audit::Step;
    use coordinator::engine::half;
    use coordinator::transaction::State;
    assert_eq!(
        State::ALL.map(State::number),
        [
            facts::PREPARED,
            facts::COMMITTED,
            facts::ROLLED_BACK,
            facts::PARKED
        ]
    );
    assert_eq!(
        [
            Step::Unknown,
            Step::Refused,
            Step::Unpublished,
            Step::Published
        ]
        .map(|step| step as u8),
        [
            facts::step::UNKNOWN,
            facts::step::REFUSED,
            facts::step::UNPUBLISHED,
            facts::step::PUBLISHED
        ]
    );
    assert_eq!(
        [half::HALF, half::FINAL, half::ROLLBACK_ECHO, half::MOVED],
        [facts::HALF, facts::FINAL, facts::ROLLBACK, facts::MOVED]
    );
    assert_eq!(half::OWNER.0, facts::COORDINATOR);
    assert_eq!(
        [Actor::Marker as u8, Actor::OperatorForced as u8],
        [facts::MARKER, facts::FORCED]
    );
}
