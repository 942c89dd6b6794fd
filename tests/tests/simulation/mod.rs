//! The real coordinator, engine, log and client over a simulated disk, store, network and time, from one seed: what was promised
//! is compared with what stands after crashes, lost words and faults.
//!
//! | file | owns |
//! |---|---|
//! | `dice` | chance, from the seed alone |
//! | `line` | the network between a client and the coordinator: it delays, loses and repeats |
//! | `services` | processes that run local transactions, die and come back |
//! | `life` | one life of the server, from its start to its crash |
//! | `facts` | what was promised and seen, across all lives |
//! | `judge` | the invariants |
//!
//! `tests/run simulation --seeds N` runs so many seeds; `HALFMOON_SEED=S tests/run simulation` runs one and prints it.

mod dice;
mod facts;
mod judge;
mod life;
mod line;
mod services;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use coordinator::marker::model::Model as Markers;
use coordinator::store::model::Model as Store;
use coordinator::transaction::MarkerIdentity;
use mq_core::log::memory_disk::MemoryDisk;

use self::dice::Dice;
use self::facts::{Counts, Facts, Met};

/// Seeds of a run unless told otherwise.
const SEEDS: u64 = 200;
/// Lives of the server that end in a crash, at least; one more heals.
const LIVES: u64 = 4;
/// Transactions of a run, at least.
const TRANSACTIONS: u64 = 100;

/// What outlives the server.
struct World {
    dice: Arc<Dice>,
    disk: MemoryDisk,
    store: Store,
    markers: Arc<Markers>,
    facts: Facts,
}

/// Runs one seed; returns a digest of all that stands in the end, and what the run met.
fn run(seed: u64) -> Result<(String, Counts)> {
    let world = World {
        dice: Arc::new(Dice::new(seed)),
        disk: MemoryDisk::new(),
        store: Store::new(),
        markers: Arc::new(Markers::new(MarkerIdentity(0xA11CE))),
        facts: Facts::default(),
    };
    let (mut number, mut lived) = (0, 0);
    // Where lives were short, there are more of them.
    while lived < LIVES || world.facts.book().counts.of(Met::Transaction) < TRANSACTIONS {
        let life = life::troubled(&world, number);
        lived += u64::from(life.with_context(|| format!("life {number}"))?);
        number += 1;
    }
    loop {
        let healed = life::healing(&world, number).context("the life that heals")?;
        if let Some(healed) = healed {
            return Ok(healed);
        }
        world.disk.restart();
        number += 1;
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_promise_is_broken_whatever_the_seed() {
    let only = number("HALFMOON_SEED");
    let seeds = match only {
        Some(seed) => seed..seed + 1,
        None => 1..number("HALFMOON_SEEDS").unwrap_or(SEEDS) + 1,
    };
    let mut all = Counts::default();
    for seed in seeds {
        match run(seed) {
            Ok((digest, counts)) => {
                if only.is_some() {
                    println!("seed {seed}: {digest}\n{counts:#?}");
                }
                if let Err(why) = counts.suffice() {
                    panic!("seed {seed}: {why}; see HALFMOON_SEED={seed} tests/run simulation");
                }
                all.add_all(&counts);
            }
            Err(why) => {
                panic!("seed {seed}: {why:?}\nagain: HALFMOON_SEED={seed} tests/run simulation")
            }
        }
    }
    println!("{all:#?}");
    if only.is_none() {
        all.reached().expect("every kind of trouble was met");
    }
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
