//! One life of the server: it starts, works, meets trouble, and crashes; the last one heals.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use coordinator::engine::Coordinator;
use coordinator::engine::settings::Settings;
use coordinator::engine::status::Health;
use coordinator::store::model::Fault;
use coordinator::store::{Filter, TxStore as _};
use coordinator::transaction::{State, TransactionId};
use mq_core::broker::{self, Broker};
use mq_core::clock::{Clock, TimerClock};
use mq_core::extension::Extension as _;
use mq_core::log::file::{Driver, FileLog};
use mq_core::log::{self, Log};
use mq_core::names::{QueueId, TopicName};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::World;
use super::facts::{Counts, Met};
use super::judge;
use super::line::Line;
use super::services::{Service, TOPIC};

/// Simulated time until everything is healed.
const HEALED_WITHIN: Duration = Duration::from_secs(900);
/// The calendar when the first life begins, ms since 1970; lives are a day apart.
const FIRST_DAY: u64 = 1_700_000_000_000;
const DAY: u64 = 86_400_000;

/// A life that ends in a crash; false if it ended before it could begin, since power, disk or database failed at once.
pub(super) fn troubled(world: &World, number: u64) -> Result<bool> {
    let dice = &world.dice;
    let power_cut = dice.percent(60);
    // The power is cut in the middle of something the log does.
    let steps_left = if power_cut {
        20 + dice.below(300)
    } else {
        u64::MAX / 2
    };
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let faulty = power_cut || world.store.is_faulty();
        let server = Server::start(world, number, steps_left, false).await;
        let server = match server {
            Ok(server) => server,
            // What keeps it from starting for good is found by the life that heals.
            Err(error) if faulty || was_planned(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        for service in server.services(world, false) {
            tokio::spawn(service.work());
        }
        let mut status = server.coordinator.status().watch();
        let failed = status.wait_for(|health| matches!(health, Health::Failed(_)));
        tokio::select! {
            biased;
            _ = failed => Ok(true),
            () = server.power_cut.notified() => Ok(true),
            seen = judge::watch(&server, world) => seen.map(|()| true),
            () = trouble(world) => Ok(true),
        }
    });
    // Everything that ran is gone at this very moment.
    drop(runtime);
    let lived = ended?;
    if power_cut {
        world.disk.cut_power(dice.below(u64::MAX));
    }
    if lived {
        let met = if power_cut { Met::PowerCut } else { Met::Kill };
        world.facts.book().counts.add(met);
    }
    world.disk.restart();
    world.disk.set_capacity(None);
    world.store.stall(false);
    if dice.percent(70) {
        world.store.heal();
    }
    block_on(judge::history(world))?;
    Ok(lived)
}

/// A life without trouble, in which everything must come to its end. Returns a digest of it; `None` if the disk had a fault left
/// that kept it from starting.
pub(super) fn healing(world: &World, number: u64) -> Result<Option<(String, Counts)>> {
    world.store.heal();
    let runtime = runtime()?;
    runtime.block_on(async {
        let server = match Server::start(world, number, u64::MAX / 2, true).await {
            Err(error) if was_planned(&error) => return Ok(None),
            server => server?,
        };
        let mut producers = Vec::new();
        for service in server.services(world, true) {
            producers.push(service.connect().await?);
        }
        let healed = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                server
                    .coordinator
                    .write_held()
                    .await
                    .map_err(|why| anyhow!(why))?;
                let reader = world.store.reader();
                let prepared = Filter {
                    state: Some(State::Prepared),
                    limit: 1,
                    ..Filter::default()
                };
                let owner = reader.owner().await?.context("the store has no owner")?;
                let done = owner.published == owner.last_decision;
                let denied = Filter {
                    unpublished: true,
                    limit: 1,
                    ..Filter::default()
                };
                let open = reader.list(&prepared).await?.len() + reader.list(&denied).await?.len();
                if done && open == 0 {
                    return anyhow::Ok(());
                }
            }
        };
        match tokio::time::timeout(HEALED_WITHIN, healed).await {
            Ok(healed) => healed?,
            Err(_) => {
                let open = world.store.reader().open_groups().await?;
                bail!("not healed within {HEALED_WITHIN:?}: {open:?}");
            }
        }
        drop(producers);
        judge::end(&server, world).await.map(Some)
    })
}

/// Whether a fault of the disk that was planned in an earlier life has come only now.
fn was_planned(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("a planned failure")
}

fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_time().start_paused(true).build()?)
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime()?.block_on(work)
}

/// Faults of disk and database, until it is time to die.
async fn trouble(world: &World) {
    let dice = &world.dice;
    for _ in 0..4 + dice.below(12) {
        tokio::time::sleep(dice.time(Duration::from_millis(1500))).await;
        let count = |what| world.facts.book().counts.add(what);
        match dice.below(12) {
            0 | 1 => {
                count(Met::UnknownCommit);
                let fault = if dice.percent(50) {
                    Fault::UnknownButDone
                } else {
                    Fault::UnknownNotDone
                };
                world.store.fail_next(fault);
            }
            2 | 3 => {
                count(Met::UnavailableStore);
                world.store.fail_next(Fault::Unavailable);
            }
            4 | 5 => {
                count(Met::StalledStore);
                world.store.stall(true);
                tokio::time::sleep(dice.time(Duration::from_millis(800))).await;
                world.store.stall(false);
            }
            6 => {
                count(Met::FailedSync);
                world.disk.fail_sync(1 + dice.below(10), ErrorKind::Other);
            }
            7 => {
                count(Met::FullDisk);
                world.disk.set_capacity(Some(0));
                tokio::time::sleep(dice.time(Duration::from_millis(800))).await;
                world.disk.set_capacity(None);
            }
            _ => {}
        }
    }
}

/// A running server.
pub(super) struct Server {
    pub(super) log: Arc<FileLog>,
    pub(super) broker: Broker,
    pub(super) coordinator: Coordinator,
    clock: Arc<dyn Clock>,
    good: bool,
    power_cut: Arc<Notify>,
}

impl Server {
    async fn start(world: &World, number: u64, steps_left: u64, good: bool) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(TimerClock::new(FIRST_DAY + number * DAY));
        let mut settings = Settings::default();
        // The alarm goes by the calendar of the machine, which is not simulated.
        settings.check_back.cron = "0 0 0 29 2 *".into();
        settings.check_back.budget = 3;
        settings.check_back.first_wait = Duration::from_millis(100);
        settings.check_back.longest_wait = Duration::from_millis(400);
        let coordinator = Coordinator::new(Arc::new(world.store.clone()), settings);
        let (disk, crash) = (world.disk.clone(), world.dice.below(u64::MAX));
        let left = AtomicU64::new(steps_left);
        let power_cut = Arc::new(Notify::new());
        let tell = power_cut.clone();
        let with = log::open::Settings {
            segment_bytes: 64 << 10,
            batch_bytes: 16 << 10,
            index_bytes: 2_000,
            checkpoint_bytes: 100 << 10,
            owners: vec![coordinator.claims().owner],
            steps: Some(Arc::new(move |_| {
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    disk.cut_power(crash);
                    tell.notify_one();
                }
            })),
            ..log::open::Settings::default()
        };
        let disk = Arc::new(world.disk.clone());
        let (log, driver) = FileLog::open_stepped(disk, with, clock.clone(), &*world.dice)?;
        tokio::spawn(drive(driver, world.dice.clone()));
        let log = Arc::new(log);
        let parts = broker::Parts {
            log: log.clone(),
            clock: clock.clone(),
            random: world.dice.clone(),
            extensions: vec![Arc::new(coordinator.clone())],
        };
        let broker = Broker::open(broker::Settings::default(), parts).await?;
        Ok(Self {
            log,
            broker,
            coordinator,
            clock,
            good,
            power_cut,
        })
    }

    fn services(&self, world: &World, good: bool) -> Vec<Service> {
        let service = |markers| Service {
            line: Line {
                coordinator: self.coordinator.clone(),
                dice: world.dice.clone(),
                facts: world.facts.clone(),
                good: good && self.good,
            },
            broker: self.broker.clone(),
            clock: self.clock.clone(),
            markers,
        };
        let markers = || Some(world.markers.clone());
        vec![service(markers()), service(markers()), service(None)]
    }

    /// All that consumers can read now: queue, offset, and what the record says it is the final of.
    pub(super) fn readable(&self, queue: u32) -> Result<Vec<(u64, TransactionId)>> {
        let topic = TopicName::new(TOPIC)?;
        let queue = QueueId::new(topic, queue);
        let mut all = Vec::new();
        loop {
            let from = log::QueueOffset(all.len() as u64);
            let entries = self.log.entries(&queue, from, 1000)?;
            if entries.is_empty() {
                return Ok(all);
            }
            for entry in entries {
                let stored = self.log.read(entry.position)?;
                let mark = stored
                    .mark
                    .context("a message of the topic without a mark")?;
                all.push((entry.offset.0, TransactionId(mark.key)));
            }
        }
    }
}

/// Does what the log's threads would do, when chance has it.
async fn drive(mut driver: Driver, dice: Arc<super::Dice>) {
    loop {
        tokio::time::sleep(dice.time(Duration::from_millis(4))).await;
        driver.turn();
        match dice.below(20) {
            0 | 1 => driver.sync(),
            2..=5 => drop(driver.upkeep()),
            _ => {}
        }
    }
}
