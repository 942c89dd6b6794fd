//! The real coordinator, engine, log and client over a simulated disk, store, network and time, from one seed: what was promised
//! is compared with what stands after crashes, lost words and faults.
//!
//! | file | owns |
//! |---|---|
//! | `dice` | chance, from the seed alone |
//! | `calendar` | the clocks of a machine whose wall clock jumps |
//! | `attached` | a disk that can be taken from a machine |
//! | `witness` | the store, with every batch on record |
//! | `tables` | the services' database: markers and business rows, and the local transactions that write both |
//! | `marker_database` | the library's connection to it: slow, losing answers |
//! | `line` | the network between a client and the coordinator: it delays, loses and repeats |
//! | `connections` | who is connected, as the network knows it |
//! | `services` | processes that run local transactions, die and come back |
//! | `operate` | an operator |
//! | `late` | words about transactions that are forgotten |
//! | `server` | a running server |
//! | `life` | one life of the server, from its start to its crash |
//! | `recovered` | what a start must leave as it was |
//! | `restore` | databases and logs that were put back to what they were |
//! | `forgetting` | what may be missing in SQL since it was forgotten |
//! | `facts` | what was promised and seen, across all lives |
//! | `judge` | the invariants |
//!
//! What is judged, and where:
//!
//! | | invariant | judged |
//! |---|---|---|
//! | 1 | an acknowledged half message is durable and has its row | in the end: `judge` |
//! | 2 | the first durable decision never changes; where a database was lost, what the log has a record of, or what was acknowledged before the log's last sync | after each life and each loss: `judge/decisions` |
//! | 3 | what was told about a decision is what stands; a half message that was acknowledged is never said to be none | `judge/decisions`; at each word: `line` |
//! | 4 | what the log says is decided, SQL has said before; what can be read is committed there | whenever the log has written: `server`; at each look: `judge/visible` |
//! | 5 | one final for each, and one for each committed in the end | `judge/visible`, `judge/decisions`, `judge` |
//! | 6 | what stands before the watermark is reflected in SQL | at each look and after each life: `judge/reflected` |
//! | 7 | SQL knows no position behind the log's end | at each look and after each life: `judge/reflected` |
//! | 8 | SQL batches have no gap but those of repairs; who was replaced commits nothing more and stops | at each commit: `witness`; `life` |
//! | 9 | committed exactly if the business row stands, and that exactly if the marker does. A double of the library writes the marker, the service the row; that the library begins with it is shown where there is a database | markers and rows at each look, all three in the end: `judge` |
//! | 10 | an answer from a marker is what stands there, and a marker never changes; one that is deleted was that of a commit in SQL | at each answer: `line`; at each look: `judge`; at each deletion: `marker_database` |
//! | 11 | what was read at an offset stays there, without gaps; what is missing stood before the log's beginning | at each look: `judge/visible` |
//! | 12 | finals stand in the order of decisions, and decisions in the order of words and answers; what was sent behind an acknowledged COMMIT stands behind its final | in the end: `judge`, `judge/decisions` |
//! | 13 | what the log has deleted is in SQL, and held nothing that is needed; a half message is found by its first position | at each look and after each life: `judge/reflected`; at each word: `line` |
//! | 14 | nobody is asked too early, no check counts that was not answered; server time is no wall clock's | at each check-back and after each life: `judge/asked`; at each look: `server` |
//! | 15 | a start leaves what the one before it has left, but for epoch and fingerprint of the owner row: all rows, events, seals and records. Everything comes to its end. There are no consumers: effects are judged where the service is a process | after trouble, and in the end: `recovered`, `life`, `judge` |
//!
//! `tests/run simulation --seeds N` runs so many seeds; `HALFMOON_SEED=S tests/run simulation` runs one and prints it.

mod attached;
mod calendar;
mod connections;
mod dice;
mod facts;
mod forgetting;
mod judge;
mod late;
mod life;
mod line;
mod marker_database;
mod operate;
mod recovered;
mod restore;
mod server;
mod services;
mod tables;
mod witness;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use coordinator::store::TxReader as _;
use coordinator::store::model::Model as Store;
use coordinator::transaction::MarkerIdentity;
use mq_core::log::memory_disk::MemoryDisk;

use self::dice::Dice;
use self::facts::{Counts, Facts, Met};
use self::server::Keeps;
use self::tables::Tables;
use self::witness::Witness;

/// Seeds of a run unless told otherwise.
const SEEDS: u64 = 200;
/// Lives of the server that end in a crash, at least; one more heals.
const LIVES: u64 = 4;
/// Transactions of a run, at least.
const TRANSACTIONS: u64 = 100;
/// Seeds that run at a time.
const AT_A_TIME: u64 = 2;

/// What outlives the server.
struct World {
    dice: Arc<Dice>,
    disk: MemoryDisk,
    store: Store,
    /// The store as the server sees it.
    witness: Witness,
    /// The services' database.
    tables: Arc<Tables>,
    facts: Facts,
    /// How long messages and decided transactions are kept in this run.
    keeps: Keeps,
    kept: Mutex<Kept>,
}

/// Copies that somebody has kept.
#[derive(Default)]
struct Kept {
    /// Of the store, oldest first.
    backups: Vec<Store>,
    log: Option<MemoryDisk>,
    /// Of the store, when it was put back to something older.
    lost_end: Option<Store>,
}

impl World {
    fn new(seed: u64) -> Self {
        let (store, facts) = (Store::new(), Facts::default());
        let dice = Arc::new(Dice::new(seed));
        let keeps = Keeps::any(&dice);
        facts.book().keep_history = keeps.history;
        Self {
            keeps,
            dice,
            disk: MemoryDisk::new(),
            witness: Witness::new(&store, &facts),
            store,
            tables: Arc::new(Tables::new(MarkerIdentity(0xA11CE))),
            facts,
            kept: Mutex::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_a_backup(&self) {
        if !self.facts.book().put_back {
            self.kept().backups.push(self.store.copy());
        }
    }

    /// Any of the backups.
    fn a_backup(&self) -> Option<Store> {
        let kept = self.kept();
        let count = kept.backups.len() as u64;
        let which = self.dice.below(count.max(1)) as usize;
        kept.backups.get(which).cloned()
    }

    /// Backups of what never was, now that the store is what `earlier` is.
    async fn forget_backups_behind(&self, earlier: &Store) -> Result<()> {
        let end = earlier.owner().await?.map_or(0, |owner| owner.seq);
        let backups = std::mem::take(&mut self.kept().backups);
        for backup in backups {
            if backup.owner().await?.is_some_and(|owner| owner.seq <= end) {
                self.kept().backups.push(backup);
            }
        }
        Ok(())
    }

    fn keep_a_log(&self) {
        self.kept().log = Some(self.disk.copy());
    }

    fn a_log(&self) -> Option<MemoryDisk> {
        self.kept().log.as_ref().map(MemoryDisk::copy)
    }

    fn lose(&self, end: Store) {
        self.kept().lost_end = Some(end);
    }

    fn lost_end(&self) -> Option<Store> {
        self.kept().lost_end.clone()
    }
}

/// Runs one seed; returns a digest of all that stands in the end, and what the run met.
fn run(seed: u64) -> Result<(String, Counts)> {
    let world = World::new(seed);
    let (mut number, mut lived) = (0, 0);
    // Where lives were short, there are more of them.
    while lived < LIVES || world.facts.book().counts.of(Met::Transaction) < TRANSACTIONS {
        restore::between_lives(&world).with_context(|| format!("before life {number}"))?;
        let life = life::troubled(&world);
        lived += u64::from(life.with_context(|| format!("life {number}"))?);
        number += 1;
    }
    loop {
        let healed = life::healing(&world).context("the life that heals")?;
        if let Some(healed) = healed {
            return Ok(healed);
        }
        world.disk.restart();
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs the seeds from `next` up to `last`, until one fails.
fn run_all(next: &AtomicU64, last: u64) -> Result<Counts> {
    let mut all = Counts::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed > last {
            return Ok(all);
        }
        let again = || format!("seed {seed}; again: HALFMOON_SEED={seed} tests/run simulation");
        let ran = run(seed).and_then(|(_, counts)| counts.suffice().map(|()| counts));
        match ran {
            Ok(counts) => all.add_all(&counts),
            Err(why) => {
                next.store(last + 1, Ordering::Relaxed);
                return Err(why.context(again()));
            }
        }
    }
}

#[test]
fn no_promise_is_broken_whatever_the_seed() -> Result<()> {
    if let Some(seed) = number("HALFMOON_SEED") {
        let (digest, counts) = run(seed)?;
        println!("seed {seed}: {digest}\n{counts:#?}");
        return counts.suffice();
    }
    let (next, last) = (AtomicU64::new(1), number("HALFMOON_SEEDS").unwrap_or(SEEDS));
    let mut all = Counts::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..AT_A_TIME)
            .map(|_| scope.spawn(|| run_all(&next, last)))
            .collect();
        for thread in running {
            all.add_all(&thread.join().expect("what fails is returned")?);
        }
        anyhow::Ok(())
    })?;
    println!("{all:#?}");
    all.reached()
}

#[test]
fn a_seed_replays_byte_for_byte() -> Result<()> {
    for seed in [3, 7, 11] {
        let (first, second) = (run(seed)?, run(seed)?);
        ensure!(
            first == second,
            "seed {seed} ran differently the second time"
        );
    }
    Ok(())
}
