//! A running server: log, broker and coordinator on one machine, and the services that are connected to it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use coordinator::engine::settings::Settings;
use coordinator::engine::status::Health;
use coordinator::engine::{Coordinator, half};
use coordinator::store::TxStore;
use coordinator::transaction::TransactionId;
use mq_core::broker::{self, Broker};
use mq_core::clock::{Clock as _, ServerTime};
use mq_core::extension::Extension as _;
use mq_core::log::file::{Driver, FileLog};
use mq_core::log::memory_disk::MemoryDisk;
use mq_core::log::{self, Log, Position, ReadError, Stored};
use mq_core::names::{QueueId, TopicName};
use mq_core::wire::record::RecordView;
use tokio::sync::Notify;

use super::World;
use super::attached::Attached;
use super::calendar::Calendar;
use super::connections::Connections;
use super::dice::Dice;
use super::facts::{Facts, Kind};
use super::life::NEVER;
use super::line::Line;
use super::marker_database::MarkerDatabase;
use super::services::{QUEUES, Service, TOPIC};

/// Wait before the first check-back of a producer with markers.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest age that the log is told to keep messages for.
const MOST_AGE: Duration = Duration::from_secs(6);
/// How many answers UNKNOWN park a transaction.
pub(super) const BUDGET: u32 = 3;

/// The machine that a server runs on. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) clock: Arc<Calendar>,
    /// The power is cut at the step of the log that brings this to zero.
    steps_left: Arc<AtomicU64>,
    pub(super) power_cut: Arc<Notify>,
    keeps: Keeps,
    /// Nothing of it fails.
    good: bool,
}

/// How long messages and decided transactions are told to be kept.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Keeps {
    age: Option<Duration>,
    bytes: Option<u64>,
    /// How long decided transactions are kept in SQL.
    pub(super) history: Option<Duration>,
}

impl Keeps {
    /// Short, small, both, or for ever.
    pub(super) fn any(dice: &Dice) -> Self {
        let kind = dice.below(4);
        // Nothing is forgotten whose half message the log keeps.
        let forgets = kind > 0 && dice.percent(70);
        Self {
            history: forgets.then(|| dice.time(MOST_AGE)),
            age: (kind & 1 > 0).then(|| Duration::from_millis(300) + dice.time(MOST_AGE)),
            bytes: (kind & 2 > 0).then(|| (64 << 10) + dice.below(128 << 10)),
        }
    }
}

impl Machine {
    /// A machine that has just been switched on. Call it inside the runtime.
    pub(super) fn new(world: &World, steps_left: u64) -> Self {
        let dice = &world.dice;
        Self {
            keeps: Keeps {
                history: world.keeps.history.filter(|_| dice.percent(75)),
                ..world.keeps
            },
            clock: Arc::new(Calendar::new(dice)),
            steps_left: Arc::new(AtomicU64::new(steps_left)),
            power_cut: Arc::default(),
            good: false,
        }
    }

    /// One on which nothing fails.
    pub(super) fn good(world: &World) -> Self {
        Self {
            good: true,
            ..Self::new(world, NEVER)
        }
    }

    /// The same, and nothing is deleted or forgotten while time passes.
    pub(super) fn quiet(world: &World) -> Self {
        Self {
            keeps: Keeps::default(),
            ..Self::good(world)
        }
    }

    /// Whether the power was cut.
    pub(super) fn has_no_power(&self) -> bool {
        let left = self.steps_left.load(Ordering::Relaxed);
        left == 0 || left > NEVER
    }

    /// Opens the log on `disk`.
    pub(super) fn open_log(
        &self,
        dice: &Dice,
        disk: &MemoryDisk,
        attached: &Attached,
    ) -> Result<(FileLog, Driver)> {
        let (disk, crash) = (disk.clone(), dice.below(u64::MAX));
        let (left, tell) = (self.steps_left.clone(), self.power_cut.clone());
        let with = log::open::Settings {
            segment_bytes: 32 << 10,
            batch_bytes: 16 << 10,
            index_bytes: 2_000,
            checkpoint_bytes: 100 << 10,
            owners: vec![half::OWNER],
            keep_for: self.keeps.age,
            keep_bytes: self.keeps.bytes,
            steps: Some(Arc::new(move |_| {
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    disk.cut_power(crash);
                    tell.notify_one();
                }
            })),
            ..log::open::Settings::default()
        };
        let disk = Arc::new(attached.clone());
        Ok(FileLog::open_stepped(disk, with, self.clock.clone(), dice)?)
    }
}

/// A running server.
pub(super) struct Server {
    pub(super) log: Arc<FileLog>,
    pub(super) coordinator: Coordinator,
    pub(super) disk: Attached,
    broker: Broker,
    machine: Machine,
    connections: Connections,
    /// Server time and the machine's own when it started.
    begun: (ServerTime, Duration),
    /// How far each queue was looked at.
    read_to: Mutex<[u64; QUEUES as usize]>,
}

/// What a consumer can read.
#[derive(Debug)]
pub(super) struct Readable {
    pub(super) offset: u64,
    /// What the record says it is.
    pub(super) what: Kind,
    pub(super) checksum: u32,
}

impl Server {
    /// Starts over the run's own disk and store.
    pub(super) async fn start(world: &World, machine: &Machine) -> Result<Self> {
        let before = world.facts.book().server_time;
        let store = Arc::new(world.witness.clone());
        let started = Self::start_over(world, machine, &world.disk, store).await?;
        let mut book = world.facts.book();
        book.went_back = book.went_back.max(before.since(started.begun.0));
        drop(book);
        Ok(started)
    }

    /// Starts over a disk and a store.
    pub(super) async fn start_over(
        world: &World,
        machine: &Machine,
        disk: &MemoryDisk,
        store: Arc<dyn TxStore>,
    ) -> Result<Self> {
        let mut settings = Settings::default();
        // The alarm goes by the calendar of the machine that runs the test.
        settings.check_back.cron = "0 0 0 29 2 *".into();
        settings.check_back.budget = BUDGET;
        settings.check_back.first_wait = FIRST_WAIT;
        settings.check_back.longest_wait = Duration::from_millis(400);
        settings.keep_history = machine.keeps.history;
        let coordinator = Coordinator::new(store, settings);
        ensure!(
            coordinator.claims().owner == half::OWNER,
            "the log is opened for another owner"
        );
        let attached = Attached::new(disk);
        let (log, driver) = machine.open_log(&world.dice, disk, &attached)?;
        let log = Arc::new(log);
        world.facts.book().begins = log.deleted();
        let driving = Driving {
            log: log.clone(),
            dice: world.dice.clone(),
            facts: world.facts.clone(),
            noted: [0; QUEUES as usize],
            proved: log.range().end,
        };
        tokio::spawn(driving.drive(driver));
        let parts = broker::Parts {
            log: log.clone(),
            clock: machine.clock.clone(),
            random: world.dice.clone(),
            extensions: vec![Arc::new(coordinator.clone())],
        };
        let begun = (log.now(), machine.clock.monotonic());
        let broker = Broker::open(broker::Settings::default(), parts).await?;
        Ok(Self {
            log,
            coordinator,
            disk: attached,
            broker,
            machine: machine.clone(),
            connections: Connections::new(machine.clock.clone()),
            begun,
            read_to: Mutex::default(),
        })
    }

    /// A client's way to it.
    pub(super) fn line(&self, world: &World) -> Line {
        Line {
            coordinator: self.coordinator.clone(),
            log: self.log.clone(),
            store: world.store.clone(),
            connections: self.connections.clone(),
            tables: world.tables.clone(),
            dice: world.dice.clone(),
            facts: world.facts.clone(),
            good: self.machine.good,
        }
    }

    /// The services that are connected to it.
    pub(super) fn services(&self, world: &World) -> Vec<Service> {
        let good = self.machine.good;
        let service = |markers| Service {
            line: self.line(world),
            broker: self.broker.clone(),
            clock: self.machine.clock.clone(),
            markers,
        };
        let markers = || {
            Some(Arc::new(MarkerDatabase {
                tables: world.tables.clone(),
                decided: world.store.reader(),
                dice: world.dice.clone(),
                facts: world.facts.clone(),
                good,
            }))
        };
        vec![service(markers()), service(markers()), service(None)]
    }

    /// Returns once it says that it cannot go on, and why.
    pub(super) async fn failed(&self) -> Arc<str> {
        let mut status = self.coordinator.status().watch();
        let failed = status.wait_for(|health| matches!(health, Health::Failed(_)));
        match failed.await.as_deref() {
            Ok(Health::Failed(why)) => why.clone(),
            Ok(_) | Err(_) => std::future::pending().await,
        }
    }

    /// What consumers can read now from an offset on.
    pub(super) fn readable(&self, queue: u32, from: u64) -> Result<Vec<Readable>> {
        let topic = TopicName::new(TOPIC)?;
        let queue = QueueId::new(topic, queue);
        let from = from.max(self.log.queue_range(&queue).start.0);
        let mut all: Vec<Readable> = Vec::new();
        loop {
            let next = log::QueueOffset(from + all.len() as u64);
            let entries = self.log.entries(&queue, next, 1000)?;
            if entries.is_empty() {
                return Ok(all);
            }
            for entry in entries {
                let stored = self.log.read(entry.position)?;
                all.push(Readable {
                    offset: entry.offset.0,
                    what: kind(&stored)?,
                    checksum: crc32fast::hash(&stored.bytes),
                });
            }
        }
    }

    /// The first kept and the next offset of a queue.
    pub(super) fn offsets(&self, queue: u32) -> Result<Range<u64>> {
        let queue = QueueId::new(TopicName::new(TOPIC)?, queue);
        let range = self.log.queue_range(&queue);
        Ok(range.start.0..range.end.0)
    }

    /// How far a queue was looked at.
    pub(super) fn read_to(&self, queue: u32) -> u64 {
        let read_to = self.read_to.lock().unwrap_or_else(PoisonError::into_inner);
        read_to.get(queue as usize).copied().unwrap_or(0)
    }

    /// Takes note how far a queue was looked at.
    pub(super) fn set_read_to(&self, queue: u32, end: u64) {
        let mut read_to = self.read_to.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = read_to.get_mut(queue as usize) {
            *place = end;
        }
    }

    /// Server time grows with the machine's own and goes on where it was, whatever the wall clock says.
    pub(super) fn time_passes(&self, world: &World) -> Result<()> {
        let (began, machine_began) = self.begun;
        let passed = self.machine.clock.monotonic() - machine_began;
        let now = self.log.now();
        ensure!(
            now == began.after(passed),
            "server time was {began:?} {passed:?} ago and is {now:?}"
        );
        let mut book = world.facts.book();
        book.server_time = book.server_time.max(now);
        Ok(())
    }

    /// Where server time begins in this life: behind everything in the log, and not behind what it was.
    pub(super) fn time_goes_on(&self, world: &World) -> Result<()> {
        let before = world.facts.book().server_time;
        let (began, _) = self.begun;
        let mut last = ServerTime::default();
        for stored in self.log.scan(Position(0))? {
            let stored = stored?;
            if stored.at < last {
                bail!("server time goes back in the log at {}", stored.position);
            }
            last = stored.at;
        }
        ensure!(
            began <= before.max(ServerTime(0)),
            "server time begins at {began:?}; when the server ended it was {before:?} at most"
        );
        Ok(())
    }
}

/// What a message of the topic is: a final is marked as one, a plain message has the transaction in its body.
fn kind(stored: &Stored) -> Result<Kind> {
    if let Some(mark) = stored.mark {
        return Ok(Kind::Final(TransactionId(mark.key)));
    }
    let body = RecordView::parse(&stored.bytes)?.body;
    let id = body
        .try_into()
        .context("a message of the topic is nobody's")?;
    Ok(Kind::Plain(TransactionId(u128::from_be_bytes(id))))
}

/// What drives a log.
struct Driving {
    log: Arc<FileLog>,
    dice: Arc<Dice>,
    facts: Facts,
    /// How far each queue was noted.
    noted: [u64; QUEUES as usize],
    /// How far each final and echo was seen to stand for a decision.
    proved: Position,
}

impl Driving {
    /// What has just become durable in the log as final or echo, SQL has said before.
    fn prove(&mut self) -> Result<()> {
        for stored in self.log.scan(self.proved)? {
            let stored = stored?;
            self.proved = stored.next;
            let ours = stored.mark.filter(|mark| mark.owner == half::OWNER);
            if !ours.is_some_and(|mark| half::is_decision(&mark)) {
                continue;
            }
            let told = half::recorded(&stored)?;
            let stood = self.facts.book().decided.get(&told.id).copied();
            let says = stood.map(|stood| (stood.state, stood.number));
            ensure!(
                says == Some((told.decision.state(), told.number)),
                "the log has {} at {} as {:?}, decision {}; SQL has said {says:?}",
                told.id,
                stored.position,
                told.decision,
                told.number
            );
        }
        Ok(())
    }

    /// Takes note of what can be read, before anything is deleted.
    fn note(&mut self) -> Result<()> {
        for (queue, noted) in (0..QUEUES).zip(&mut self.noted) {
            let id = QueueId::new(TopicName::new(TOPIC)?, queue);
            let range = self.log.queue_range(&id);
            let from = log::QueueOffset((*noted).max(range.start.0));
            for entry in self.log.entries(&id, from, usize::MAX)? {
                let what = kind(&self.log.read(entry.position)?)?;
                let place = (queue, entry.offset.0);
                let mut book = self.facts.book();
                book.stands(place, what)?;
                book.stands_at(place, entry.position)?;
            }
            *noted = range.end.0;
        }
        Ok(())
    }

    /// What was found broken ends the run; a disk that cannot be read now is no promise.
    fn hear(&self, found: Result<()>) {
        if let Err(error) = found
            && error.downcast_ref::<ReadError>().is_none()
        {
            self.facts.broken(format!("{error:#}"));
        }
    }

    /// Does what the log's threads would do, when chance has it.
    async fn drive(mut self, mut driver: Driver) {
        loop {
            tokio::time::sleep(self.dice.time(Duration::from_millis(4))).await;
            let (begun, known) = {
                let mut book = self.facts.book();
                (book.now(), book.known_batch)
            };
            let end = self.log.range().end;
            driver.turn();
            if self.log.failure().borrow().is_none() {
                let grew = self.log.range().end > end;
                self.facts.book().turned(begun, known, grew);
                let proved = self.prove();
                self.hear(proved);
            }
            match self.dice.below(20) {
                0 | 1 => driver.sync(),
                2..=5 => {
                    let noted = self.note();
                    self.hear(noted);
                    driver.upkeep();
                    let begins = self.log.deleted();
                    let mut book = self.facts.book();
                    // One whose disk was taken away may still be here.
                    book.begins = book.begins.max(begins);
                }
                _ => {}
            }
            let mut book = self.facts.book();
            book.server_time = book.server_time.max(self.log.now());
        }
    }
}
