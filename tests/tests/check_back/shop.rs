//! A server, a database, and instances of one service that are killed or cut off.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coordinator::embedded::DATABASE_FILE;
use coordinator::store::TxReader;
use coordinator::store::database::{Database, Options};
use coordinator::transaction::{State, TransactionId};
use mq_core::clock::{Clock, SystemClock};
use tempfile::TempDir;
use tests::checker::facts::Answer;
use tests::checker::source::Source;
use tests::checker::{Phase, check, folder, tables};
use tests::instance::READY;
use tests::process::{Program, Running};
use tests::server::{Plan, Server};
use tests::service;

use super::decided::Times;

/// Local transactions of an instance at the same time.
pub(super) const AT_ONCE: u32 = 3;
/// How long anything that must happen may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(120);
/// Between two looks into the coordinator's database.
const LOOK: Duration = Duration::from_millis(5);

/// Everything that one story is about.
pub(super) struct Shop {
    server: Server,
    folder: TempDir,
    /// The URL of the database of server and instances, unless they are in SQLite.
    postgres: Option<String>,
    reader: Arc<dyn TxReader>,
    clock: SystemClock,
    answers: Vec<Answer>,
    /// Transactions that were open at an earlier cut.
    cut_before: HashSet<u128>,
}

/// What a service has committed, or was about to, and could not say.
pub(super) struct Left {
    since: Duration,
    ids: Vec<u128>,
}

impl Shop {
    /// A server with these settings and an empty database, in Postgres if there is the URL of one.
    pub(super) async fn open(settings: &'static str, postgres: Option<String>) -> Self {
        // Where it is found again once it was ended and started anew: a line that was laid to it stays.
        let plan = Plan::of(env!("CARGO_BIN_EXE_server")).in_one_place();
        let mut plan = plan.expect("there are free ports").settings(settings);
        if let Some(url) = &postgres {
            plan = plan.variable("HALFMOON_DATABASE", url);
        }
        let server = plan.start().expect("the server starts");
        let data = server.data().expect("it is ours");
        let store = match &postgres {
            None => Database::Sqlite(data.join(DATABASE_FILE)),
            Some(url) => Database::Postgres(url.clone()),
        };
        let reader = store.open_reader(Options::default()).await;
        Self {
            server,
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            postgres,
            reader: reader.expect("the server has made its database"),
            clock: SystemClock::new(),
            answers: Vec::new(),
            cut_before: HashSet::new(),
        }
    }

    /// Where the broker listens.
    pub(super) fn broker(&self) -> SocketAddr {
        self.server.broker().parse().expect("an address")
    }

    /// Starts an instance, which kills itself at `step` if there is one, and waits until it takes orders.
    pub(super) fn instance(&self, at_once: u32, step: &str) -> Running {
        let mut program = Program::new(env!("CARGO_BIN_EXE_instance"))
            .argument(self.server.nameserver())
            .argument(self.folder.path().join(service::DATABASE))
            .argument(at_once.to_string());
        if let Some(url) = &self.postgres {
            program = program.variable(service::POSTGRES, url);
        }
        if !step.is_empty() {
            program = program.argument(step);
        }
        let running = program.spawn().expect("it can be started");
        let is_ready = |said: &[String]| said.iter().any(|line| line == READY);
        assert!(running.hears(WITHIN, is_ready), "{}", running.told());
        running
    }

    /// Waits until an instance is killed; what it leaves open.
    pub(super) fn killed(&mut self, mut instance: Running) -> Left {
        let status = instance.ended(WITHIN).expect("its step is reached");
        let since = self.clock.monotonic();
        assert_eq!(status.code(), None, "{}", instance.told());
        self.left(&instance, since)
    }

    /// What an instance that lives could not say before its line was cut just now.
    pub(super) fn cut_off(&mut self, instance: &Running) -> Left {
        let since = self.clock.monotonic();
        let mut ids = open(&service::answers(&said(instance)));
        ids.retain(|id| self.cut_before.insert(*id));
        // Every local transaction that was open then ends, whether or not the server hears of it.
        let has_ended = |said: &[String]| ids.iter().all(|id| word_about(*id, said).is_some());
        assert!(instance.hears(WITHIN, has_ended), "{}", instance.told());
        assert!(!instance.has_ended(), "{}", instance.told());
        let said = said(instance);
        ids.retain(|id| word_about(*id, &said) == Some("deferred"));
        Left { since, ids }
    }

    /// Kills an instance; nobody looks how long it takes until what it leaves open is decided.
    pub(super) fn leave(&mut self, instance: Running) {
        assert!(!instance.has_ended(), "{}", instance.told());
        let _ = self.left(&instance, Duration::ZERO);
    }

    fn left(&mut self, instance: &Running, since: Duration) -> Left {
        let answers = service::answers(&said(instance));
        let ids = open(&answers);
        self.answers.extend(answers);
        Left { since, ids }
    }

    /// Waits until what was left open is decided; of what is committed in the service's database notes how long it took.
    ///
    /// That database is read after the decisions: a COMMIT that a killed process has sent may take effect after its death.
    pub(super) async fn decided(&self, left: Left, times: &mut Times) {
        let mut decided = Vec::new();
        for id in left.ids {
            let state = loop {
                let row = self.reader.transaction(TransactionId(id)).await;
                let state = row.expect("readable").map(|row| row.state);
                if let Some(state @ (State::Committed | State::RolledBack)) = state {
                    break state;
                }
                let taken = self.clock.monotonic().saturating_sub(left.since);
                assert!(taken < WITHIN, "{id:032X} is {state:?} after {taken:?}");
                tokio::time::sleep(LOOK).await;
            };
            let taken = self.clock.monotonic().saturating_sub(left.since);
            decided.push((id, state, taken));
        }
        let business = self.business().await;
        for (id, state, taken) in decided {
            let committed = business.contains(&id);
            assert_eq!(state == State::Committed, committed, "{id:032X}");
            let events = self.reader.events(TransactionId(id)).await;
            if let (true, Some(decision)) = (committed, events.expect("readable").last()) {
                times.add(taken, decision);
            }
        }
    }

    /// Lets everything be decided, ends the server, and has all of it compared.
    pub(super) async fn judge(mut self) {
        self.settle().await;
        self.end();
        // What the server held back is written at its end, and may be open.
        while !self.is_settled().await {
            self.server = self.server.again().expect("it starts again");
            self.settle().await;
            self.end();
        }
        let data = self.server.data().expect("it is ours");
        let world = match &self.postgres {
            None => folder::read(&data).await,
            Some(url) => folder::read_with_postgres(&data, url).await,
        };
        let mut world = world.expect("log and database are whole");
        world.answers = std::mem::take(&mut self.answers);
        let markers = tables::markers(self.database(), Some(service::BUSINESS)).await;
        world.databases.push(markers.expect("the tables are there"));
        let report = check(&world, Phase::Healed);
        assert!(report.is_clean(), "{report}");
    }

    /// Waits until nothing is open that the server has written.
    async fn settle(&self) {
        let _answers = self.instance(0, "");
        let start = self.clock.monotonic();
        while !self.is_settled().await {
            let taken = self.clock.monotonic().saturating_sub(start);
            assert!(taken < WITHIN, "something is open after {taken:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends the server, which keeps its folder.
    fn end(&mut self) {
        self.server.terminate().expect("it runs");
        let status = self.server.ended().expect("it ends");
        assert!(status.success(), "{}", self.server.told());
    }

    async fn is_settled(&self) -> bool {
        // In this order: a decision that comes in between is not yet counted as published.
        let topics = self.reader.open_topics().await.expect("readable");
        let owner = self.reader.owner().await.expect("readable");
        let published = owner.is_some_and(|owner| owner.published == owner.last_decision);
        published && topics.iter().all(|(_, open)| *open == 0)
    }

    /// The transactions whose business row is there.
    async fn business(&self) -> HashSet<u128> {
        let markers = tables::markers(self.database(), Some(service::BUSINESS)).await;
        markers.expect("readable").business.expect("asked for")
    }

    /// Where the instances have their tables.
    fn database(&self) -> Source {
        match &self.postgres {
            None => Source::from(&self.folder.path().join(service::DATABASE)),
            Some(url) => Source::schema(url, "public"),
        }
    }
}

fn said(instance: &Running) -> Vec<String> {
    instance.told().lines().map(str::to_owned).collect()
}

/// The transactions that have begun and are not known to be decided.
fn open(answers: &[Answer]) -> Vec<u128> {
    let mut begun = Vec::new();
    let mut decided = HashSet::new();
    for answer in answers {
        if let Answer::Half(id) = answer {
            begun.push(*id);
        } else if let Answer::Decided(id, _) = answer {
            decided.insert(*id);
        }
    }
    begun.retain(|id| !decided.contains(id));
    begun
}

/// What was said about the end of a transaction.
fn word_about(id: u128, said: &[String]) -> Option<&str> {
    let id = TransactionId(id).to_string();
    let words = said.iter().filter_map(|line| line.split_once(' '));
    let mut words = words.filter(|(word, other)| *word != "half" && *other == id);
    words.next().map(|(word, _)| word)
}
