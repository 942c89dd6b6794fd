//! Databases and logs that were put back to what they were before: refused, and repaired where the log has what is lacking.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use coordinator::engine::repair;
use coordinator::store::model::{Fault, Model};
use coordinator::store::{Owner, TxReader as _, TxStore};
use mq_core::clock::Clock;
use mq_core::log::memory_disk::MemoryDisk;
use mq_core::log::reading::LogReader;
use mq_core::log::{Log, Position};
use mq_core::random::Random;

use super::World;
use super::attached::Attached;
use super::facts::Met;
use super::forgetting::Missing;
use super::judge;
use super::life::{NEVER, block_on};
use super::server::{Machine, Server};

/// Between two lives: what somebody does to database or log.
pub(super) fn between_lives(world: &World) -> Result<()> {
    if world.facts.book().put_back {
        return Ok(());
    }
    match world.dice.below(100) {
        0..18 => block_on(restore(world, world.a_backup())),
        18..20 => block_on(restore(world, Some(Model::new()))),
        20..42 => block_on(try_an_older_log(world)),
        42..64 => block_on(try_the_lost_end(world)),
        64..86 => {
            world.keep_a_log();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Puts the database back to `backup`.
async fn restore(world: &World, backup: Option<Model>) -> Result<()> {
    let (Some(backup), Some(now)) = (backup, world.store.owner().await?) else {
        return Ok(());
    };
    if backup
        .owner()
        .await?
        .is_some_and(|then| then.seq == now.seq)
    {
        return Ok(());
    }
    world.facts.met(Met::Restore);
    put_back(world, &backup).await
}

/// Puts the database back to `earlier`, whoever works with it.
pub(super) async fn put_back(world: &World, earlier: &Model) -> Result<()> {
    let rows = judge::rows(&*world.store.reader()).await?;
    let begins = world.facts.book().begins;
    let missing = Missing::now(world, begins).await?;
    judge::decisions::stand(world, &rows, &missing)?;
    world.lose(world.store.copy());
    world.store.put_back(earlier);
    world.forget_backups_behind(earlier).await?;
    let mut book = world.facts.book();
    (book.put_back, book.known_batch) = (true, 0);
    Ok(())
}

/// Whether a start was refused because the database is older than the log.
pub(super) fn is_older(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("the database is older than the log") || is_too_old(error)
}

/// Whether it is so old that the log does not keep any more what it lacks.
fn is_too_old(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("what stood between is deleted")
}

/// A start was refused for that reason: rightly, and without changing anything. The database is repaired.
pub(super) async fn refused(
    world: &World,
    error: &anyhow::Error,
    before: Option<Owner>,
) -> Result<()> {
    let said = format!("{error:#}");
    ensure!(
        world.facts.book().put_back,
        "a database that was not put back is refused: {said}"
    );
    let what_to_do = said.contains("`halfmoon repair`") || is_too_old(error);
    ensure!(
        what_to_do && !said.contains('\n'),
        "it is not said in one line what to do: {said}"
    );
    let unchanged = |owner: Option<Owner>| {
        owner.map(|owner| Owner {
            epoch: 0,
            fingerprint: 0,
            ..owner
        })
    };
    let now = world.store.owner().await?;
    ensure!(
        unchanged(now) == unchanged(before),
        "a refused start has changed {before:?} to {now:?}"
    );
    world.facts.met(Met::RefusedStart);
    world.facts.book().repairing = true;
    let dice = &world.dice;
    world.store.heal();
    if dice.percent(30) {
        let faults = [
            Fault::UnknownButDone,
            Fault::UnknownNotDone,
            Fault::Unavailable,
        ];
        let fault = faults.get(dice.below(3) as usize).copied();
        world.store.fail_next(fault.unwrap_or(Fault::Unavailable));
    }
    let steps = if dice.percent(30) {
        1 + dice.below(5)
    } else {
        NEVER
    };
    let first = repaired(world, &Machine::new(world, steps)).await;
    let interrupted = world.store.is_faulty() || steps < NEVER || first.is_err();
    world.disk.restart();
    world.store.heal();
    if let Err(error) = &first
        && is_too_old(error)
    {
        return bring_back(world, before).await;
    }
    if first.is_err() {
        ensure!(interrupted, "{first:?}");
        world.facts.met(Met::InterruptedRepair);
        let again = repaired(world, &Machine::good(world)).await;
        world.disk.restart();
        if again.as_ref().is_err_and(is_too_old) {
            return bring_back(world, before).await;
        }
        again.context("a repair after one that was interrupted")?;
    }
    world.facts.met(Met::Repair);
    world.facts.book().repairing = false;
    Ok(())
}

/// The log has deleted what the database lacks: only the newer database helps, and is brought back.
async fn bring_back(world: &World, before: Option<Owner>) -> Result<()> {
    let begins = LogReader::open(Arc::new(world.disk.clone()))?.start();
    let reflected = before.map_or(Position(0), |owner| owner.watermark);
    ensure!(
        reflected < begins,
        "a database that reflects everything before {reflected} is refused; the log begins at {begins}"
    );
    let newer = world.lost_end().context("nothing was put back")?;
    world.store.put_back(&newer);
    world.facts.met(Met::TooOld);
    let mut book = world.facts.book();
    (book.put_back, book.repairing) = (false, false);
    Ok(())
}

/// What `halfmoon repair` does.
async fn repaired(world: &World, machine: &Machine) -> Result<()> {
    let disk = Attached::new(&world.disk);
    let (log, driver) = machine.open_log(&world.dice, &world.disk, &disk)?;
    let log: Arc<dyn Log> = Arc::new(log);
    let lacking = repair::survey(&*log, &*world.store.reader()).await?;
    let store: Arc<dyn TxStore> = Arc::new(world.witness.clone());
    let clock: Arc<dyn Clock> = machine.clock.clone();
    let random: Arc<dyn Random> = world.dice.clone();
    let parts = repair::Parts {
        log: &log,
        store: &store,
        clock: &clock,
        random: &random,
    };
    repair::repair(&parts, &lacking, |_| ()).await?;
    let lacking = repair::survey(&*log, &*world.store.reader()).await?;
    ensure!(lacking.nothing(), "a repair has left {lacking:?}");
    driver.close().map_err(|error| anyhow!(error))
}

/// Puts the log back to what it was, beside the database of today, and tries to start.
async fn try_an_older_log(world: &World) -> Result<()> {
    let (Some(disk), Some(owner)) = (world.a_log(), world.store.owner().await?) else {
        return Ok(());
    };
    let mut end = Position(0);
    // Kept before there was anything in it, it would be another log.
    let Ok(log) = LogReader::open(Arc::new(disk.clone())) else {
        return Ok(());
    };
    for stored in log.scan(Position(0)) {
        end = stored?.next;
    }
    let rows = judge::rows(&*world.store.reader()).await?;
    let last = rows.values().map(|row| row.half.position).max();
    if owner.watermark <= end && last.is_none_or(|last| last < end) {
        return Ok(());
    }
    let store = world.store.copy();
    let said = refusal(world, &disk, &store).await?;
    ensure!(
        said.contains("the log is older than the database") && !said.contains('\n'),
        "a log that ends at {end} beside {owner:?}: {said}"
    );
    ensure!(
        store.owner().await? == Some(owner),
        "a refused start has changed the database"
    );
    world.facts.met(Met::OlderLog);
    Ok(())
}

/// Puts the end of a database that was lost, and replaced by a repair, beside the log again, and tries to start.
async fn try_the_lost_end(world: &World) -> Result<()> {
    let Some(lost) = world.lost_end() else {
        return Ok(());
    };
    let seq = lost.owner().await?.map_or(0, |owner| owner.seq);
    if seq >= world.facts.book().stamped {
        return Ok(());
    }
    let said = refusal(world, &world.disk.copy(), &lost.copy()).await?;
    ensure!(
        said.contains("the database is older than the log"),
        "the lost end of the database came back: {said}"
    );
    world.facts.met(Met::LostEnd);
    Ok(())
}

/// What a start over these two says.
async fn refusal(world: &World, disk: &MemoryDisk, store: &Model) -> Result<String> {
    let machine = Machine::good(world);
    let before = {
        let mut book = world.facts.book();
        book.begin_life();
        (book.stamped, book.server_time)
    };
    let store = Arc::new(store.clone());
    let started = Server::start_over(world, &machine, disk, store).await;
    (world.facts.book().stamped, world.facts.book().server_time) = before;
    match started {
        Ok(_) => Err(anyhow!(
            "a database and a log were served that do not fit together"
        )),
        Err(error) => Ok(format!("{error:#}")),
    }
}
