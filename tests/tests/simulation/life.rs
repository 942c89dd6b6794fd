//! One life of the server: it starts, works, meets trouble, and crashes; the last one heals.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use coordinator::store::model::Fault;
use coordinator::store::{Filter, TxReader as _, TxStore as _};
use coordinator::transaction::State;
use tokio::runtime::Runtime;

use super::World;
use super::attached::Attached;
use super::facts::{Counts, Met};
use super::judge;
use super::late;
use super::operate;
use super::recovered::{Left, QUIET};
use super::restore;
use super::server::{Machine, Server};
use super::witness::Frozen;

/// Simulated time until everything is healed.
const HEALED_WITHIN: Duration = Duration::from_secs(900);
/// Simulated time until a server stops that has lost its store to another, or its store the last commits.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// Steps of the log after which the power is never cut.
pub(super) const NEVER: u64 = u64::MAX / 2;

/// What happens to the server's store in a life, beside smaller trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing.
    Kept,
    /// A second coordinator opens it, on another machine that got the disk.
    TakenOver,
    /// It fails over to a replica that misses the last commits.
    FailsOver,
}

/// A life that ends in a crash; false if it ended before it could begin, since power, disk or database failed at once, or the
/// database was older than the log.
pub(super) fn troubled(world: &World) -> Result<bool> {
    let dice = &world.dice;
    let power_cut = dice.percent(60);
    // The power is cut in the middle of something the log does.
    let steps_left = if power_cut {
        20 + dice.below(300)
    } else {
        NEVER
    };
    let fate = match dice.below(100) {
        0..20 => Fate::TakenOver,
        20..35 => Fate::FailsOver,
        _ => Fate::Kept,
    };
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let machine = Machine::new(world, steps_left);
        let faulty = power_cut || world.store.is_faulty();
        let server = match begin(world, &machine).await {
            Ok(Some(server)) => server,
            Ok(None) => return Ok(false),
            // What keeps it from starting for good is found by the life that heals.
            Err(error) if faulty || was_planned(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        live(world, &machine, server, fate).await.map(|()| true)
    });
    // Everything that ran is gone at this very moment.
    drop(runtime);
    let lived = ended?;
    if power_cut {
        world.disk.cut_power(dice.below(u64::MAX));
    }
    if lived {
        let met = if power_cut { Met::PowerCut } else { Met::Kill };
        world.facts.met(met);
    }
    world.disk.restart();
    world.disk.set_capacity(None);
    world.store.stall(false);
    world.witness.freeze(Frozen::Nobody);
    if dice.percent(70) {
        world.store.heal();
    }
    block_on(judge::after_a_life(world))?;
    Ok(lived)
}

/// Starts a server, unless it refuses a database that was put back: that one is repaired.
async fn begin(world: &World, machine: &Machine) -> Result<Option<Server>> {
    world.facts.book().begin_life();
    let before = world.store.owner().await?;
    match Server::start(world, machine).await {
        Ok(server) => {
            server.time_goes_on(world)?;
            if world.facts.book().put_back {
                judge::decisions::after_a_loss(&server, world, before).await?;
            }
            Ok(Some(server))
        }
        Err(error) if restore::is_older(&error) => {
            restore::refused(world, &error, before).await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The server works and meets trouble, until something ends it.
async fn live(world: &World, machine: &Machine, server: Server, fate: Fate) -> Result<()> {
    for service in server.services(world) {
        tokio::spawn(service.work());
    }
    let mut trouble = pin!(trouble(world, machine, &server, fate));
    let until = if fate == Fate::TakenOver {
        world.dice.time(Duration::from_secs(4))
    } else {
        Duration::MAX
    };
    tokio::select! {
        biased;
        _ = server.failed() => return Ok(()),
        () = machine.power_cut.notified() => return Ok(()),
        seen = judge::watch(&server, world) => return seen,
        ended = &mut trouble => return ended,
        () = tokio::time::sleep(until) => {}
    }
    let second = tokio::select! {
        biased;
        () = machine.power_cut.notified() => return Ok(()),
        ended = &mut trouble => return ended,
        second = take_over(world, machine, &server) => second?,
    };
    let Some(second) = second else {
        return Ok(());
    };
    for service in second.services(world) {
        tokio::spawn(service.work());
    }
    let stops = async {
        let stopped = tokio::time::timeout(STOPS_WITHIN, server.failed()).await;
        match stopped {
            Ok(_) => std::future::pending().await,
            Err(_) => anyhow!("a coordinator whose store was taken over has not stopped"),
        }
    };
    tokio::select! {
        biased;
        _ = second.failed() => Ok(()),
        () = machine.power_cut.notified() => Ok(()),
        seen = judge::watch(&second, world) => seen,
        ended = &mut trouble => ended,
        late = stops => Err(late),
    }
}

/// Gives the disk to another machine, where a second coordinator opens the store; the first one runs on, or hangs in the middle
/// of a commit. `None` if the second one does not start.
async fn take_over(world: &World, machine: &Machine, first: &Server) -> Result<Option<Server>> {
    let (dice, number) = (&world.dice, world.facts.book().owners);
    let frozen = match dice.below(3) {
        0 => Frozen::Nobody,
        1 => Frozen::Before(number),
        _ => Frozen::After(number),
    };
    world.witness.freeze(frozen);
    tokio::time::sleep(dice.time(Duration::from_millis(200))).await;
    first.disk.detach();
    let faulty = world.store.is_faulty();
    world.facts.book().begin_life();
    let second = match Server::start(world, machine).await {
        Ok(second) => second,
        Err(error) if faulty || was_planned(&error) || machine.has_no_power() => {
            return Ok(None);
        }
        Err(error) => return Err(error.context("the second coordinator")),
    };
    world.facts.met(Met::TakeOver);
    let witness = world.witness.clone();
    let wait = dice.time(Duration::from_secs(1));
    tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        witness.freeze(Frozen::Nobody);
    });
    Ok(Some(second))
}

/// The last lives: what a start makes of what trouble has left, a second one leaves as it is; then everything comes to its end;
/// then a start has nothing more to do. Returns a digest of what stands; `None` if the disk had a fault left that ended one of
/// them, or the database was older than the log.
pub(super) fn healing(world: &World) -> Result<Option<(String, Counts)>> {
    world.store.heal();
    let (Some(once), Some(twice)) = (recovered(world)?, recovered(world)?) else {
        return Ok(None);
    };
    once.stays(&twice).context("the second start in a row")?;
    let Some(healed) = healed(world)? else {
        return Ok(None);
    };
    world.disk.restart();
    let end = block_on(Left::now(world))?;
    let Some(again) = recovered(world)? else {
        return Ok(None);
    };
    end.stays(&again).context("a start when all is done")?;
    Ok(Some(healed))
}

/// A life without clients, until there is nothing left to publish; what it leaves.
fn recovered(world: &World) -> Result<Option<Left>> {
    let runtime = runtime()?;
    let lived = runtime.block_on(async {
        let machine = Machine::quiet(world);
        let Some(server) = begin(world, &machine).await? else {
            return Ok(false);
        };
        let quiet = async {
            loop {
                tokio::time::sleep(QUIET).await;
                if is_published(world, &server).await? {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::select! {
            biased;
            why = server.failed() => bail!("{why}"),
            quiet = tokio::time::timeout(HEALED_WITHIN, quiet) => {
                quiet.context("not everything is published")??;
            }
        }
        anyhow::Ok(true)
    });
    // It is killed.
    drop(runtime);
    world.disk.restart();
    match lived {
        Err(error) if was_planned(&error) => Ok(None),
        Err(error) => Err(error),
        Ok(false) => Ok(None),
        Ok(true) => block_on(Left::now(world)).map(Some),
    }
}

/// Whether every decision has its record, and every half message in the log its row.
async fn is_published(world: &World, server: &Server) -> Result<bool> {
    world.facts.book().check()?;
    let held = server.coordinator.write_held().await;
    held.map_err(|why| anyhow!(why))?;
    let reader = world.store.reader();
    let denied = Filter {
        unpublished: true,
        limit: 1,
        ..Filter::default()
    };
    let denied = reader.list(&denied).await?.len();
    // Last: a decision that comes in between is not yet counted as published.
    let owner = reader.owner().await?.context("the store has no owner")?;
    Ok(denied == 0 && owner.published == owner.last_decision)
}

/// A life without trouble, in which everything must come to its end.
fn healed(world: &World) -> Result<Option<(String, Counts)>> {
    let runtime = runtime()?;
    let lived = runtime.block_on(async {
        let machine = Machine::good(world);
        let Some(server) = begin(world, &machine).await? else {
            return Ok(None);
        };
        let mut producers = Vec::new();
        for service in server.services(world) {
            producers.push(service.connect().await?);
        }
        let healed = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let prepared = Filter {
                    state: Some(State::Prepared),
                    limit: 1,
                    ..Filter::default()
                };
                let open = world.store.reader().list(&prepared).await?.len()
                    + operate::ask_about_parked(world, &server.coordinator).await?;
                if is_published(world, &server).await? && open == 0 {
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
        late::commit(world, &server.line(world)).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        judge::end(&server, world).await.map(Some)
    });
    match lived {
        // Once: the next one heals.
        Err(error) if was_planned(&error) => Ok(None),
        lived => lived,
    }
}

/// Whether a fault of the disk that was planned earlier has come only now.
fn was_planned(error: &anyhow::Error) -> bool {
    let said = format!("{error:#}");
    said.contains("a planned failure") || said.contains("the disk is full")
}

pub(super) fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_time().start_paused(true).build()?)
}

pub(super) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime()?.block_on(work)
}

/// Faults of disk, database and clock, until it is time to die.
async fn trouble(world: &World, machine: &Machine, server: &Server, fate: Fate) -> Result<()> {
    let dice = &world.dice;
    let events = 4 + dice.below(12);
    let fails_over = dice.below(events);
    for event in 0..events {
        tokio::time::sleep(dice.time(Duration::from_millis(1500))).await;
        if fate == Fate::FailsOver && event == fails_over {
            fail_over(world).await?;
        }
        let count = |what| world.facts.met(what);
        match dice.below(16) {
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
            7 if dice.percent(50) => fill_the_disk(world).await,
            7 => keep_from_checkpoints(world, &server.disk).await,
            8 | 9 => {
                count(Met::WallJump);
                machine.clock.jump(dice);
            }
            10 | 11 => world.keep_a_backup(),
            12 | 13 => operate::somehow(world, &server.coordinator).await?,
            14 | 15 => late::somehow(world, server.line(world)).await?,
            _ => {}
        }
    }
    Ok(())
}

/// The disk is full for a while.
async fn fill_the_disk(world: &World) {
    world.facts.met(Met::FullDisk);
    world.facts.book().full += 1;
    world.disk.set_capacity(Some(0));
    tokio::time::sleep(world.dice.time(Duration::from_millis(800))).await;
    world.disk.set_capacity(None);
    let facts = world.facts.clone();
    // A log that has found the disk full takes it for full for a second.
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let mut book = facts.book();
        book.full = book.full.saturating_sub(1);
    });
}

/// There is no room for a checkpoint for a while: what the log deletes comes back if it crashes.
async fn keep_from_checkpoints(world: &World, disk: &Attached) {
    world.facts.met(Met::NoCheckpoint);
    disk.tighten(true);
    tokio::time::sleep(world.dice.time(Duration::from_secs(8))).await;
    disk.tighten(false);
}

/// The store fails over to a replica that misses the commits of the last while: the server must stop.
async fn fail_over(world: &World) -> Result<()> {
    let replica = world.store.copy();
    tokio::time::sleep(world.dice.time(Duration::from_millis(500))).await;
    let seq = async |store: &coordinator::store::model::Model| {
        anyhow::Ok(store.owner().await?.map_or(0, |owner| owner.seq))
    };
    if seq(&replica).await? == seq(&world.store).await? {
        return Ok(());
    }
    restore::put_back(world, &replica).await?;
    tokio::time::sleep(STOPS_WITHIN).await;
    ensure!(
        !world.facts.book().put_back,
        "a coordinator whose store has lost its last commits has not stopped"
    );
    Ok(())
}
