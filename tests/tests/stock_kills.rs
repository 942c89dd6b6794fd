//! A server that is killed with SIGKILL at every step and at random moments, under load from a stock Java client that stays.
//!
//! `HALFMOON_STOCK_KILLS` is how many random moments there are, on both databases together: 300, and 3000 in the longer runs.
//! One takes 0.6 s on SQLite and 1.1 s on Postgres, where the client is an older one that is back later. The two run side by side.

mod load;

use std::time::Duration;

use load::{Load, On};
use mq_core::random::{Random, SeededRandom};
use tests::checker::Phase;

use crate::crash::full;

/// Steps that only a process with our own client reaches.
const OF_CLIENTS: [&str; 3] = ["local.", "check_back.read", "check_back.fenced"];
/// Steps that only a server reaches whose log is trimmed.
const OF_TRIMMING: [&str; 3] = ["trim.", "carry.", "forget."];
/// How long the server runs at most before a random kill, in milliseconds.
const LATEST_MS: u64 = 500;
/// One of so many kills does not wait until the client has stored something again: it may still be connecting.
const EARLY: u64 = 4;
/// Between two looks at what is left, in kills: each looks at everything since the beginning.
const LOOK_EVERY: u64 = 5;
/// Kills over one folder, before everything is settled and another one begins.
const IN_A_ROW: u64 = 100;

/// How many random kills a test makes; there are two.
fn kills() -> u64 {
    let given = std::env::var("HALFMOON_STOCK_KILLS").ok();
    let all: u64 = match given.and_then(|given| given.parse().ok()) {
        Some(kills) => kills,
        None if full() => 3000,
        None => 300,
    };
    all.div_ceil(2)
}

async fn killed_at_every_step(on: On) {
    let all = coordinator::steps::ALL.iter().map(|(name, _)| *name);
    let is_of = |these: &[&str], step: &str| these.iter().any(|of| step.starts_with(of));
    let ours = all.filter(|step| !is_of(&OF_CLIENTS, step));
    let (trimming, others): (Vec<_>, Vec<_>) = ours.partition(|step| is_of(&OF_TRIMMING, step));
    killed_at(others, Load::start(on).await).await;
    killed_at(trimming, Load::start_trimmed(on).await).await;
}

async fn killed_at(steps: Vec<&'static str>, mut load: Load) {
    for step in steps {
        load.is_served();
        load.kill();
        load.again_until(step);
        load.judge(Phase::Anytime, step).await;
        load.again();
    }
    load.settle().await;
}

async fn killed_at_random_moments(on: On) {
    let random = SeededRandom::new(kills());
    let mut left = kills();
    while left > 0 {
        let in_a_row = left.min(IN_A_ROW);
        left -= in_a_row;
        let mut load = Load::start(on).await;
        for kill in 1..=in_a_row {
            let moment = Duration::from_millis(random.next_u64() % LATEST_MS);
            if kill % EARLY != 0 {
                load.is_back();
            }
            load.runs_for(moment);
            load.kill();
            if kill % LOOK_EVERY == 0 {
                let after = format!("kill {kill}, {left} left");
                load.judge(Phase::Anytime, &after).await;
            }
            load.again();
        }
        load.settle().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_its_own() {
    killed_at_every_step(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_killed_at_every_step_of_its_own() {
    killed_at_every_step(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_moments_drawn_by_lot() {
    killed_at_random_moments(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_killed_at_moments_drawn_by_lot() {
    killed_at_random_moments(On::Postgres).await;
}
