//! Check-back over the network: what a service has committed and could not say is decided soon, and decided right.
//!
//! Real processes, a real server and SIGKILL. `HALFMOON_KILLS` is how often each story is told; times are printed.

mod decided;
mod shop;

use std::time::Duration;

use decided::Times;
use shop::{AT_ONCE, Shop};
use tests::line::Line;

/// Far more than it takes on a machine that is ten times slower.
const BOUND: Duration = Duration::from_secs(30);
/// How long a line takes everything and forwards nothing before it is cut: what is said meanwhile is lost.
const DUMB: Duration = Duration::from_millis(60);
/// Between two cuts.
const WHOLE: Duration = Duration::from_millis(700);

fn kills() -> u64 {
    let given = std::env::var("HALFMOON_KILLS").ok();
    match given.and_then(|given| given.parse().ok()) {
        Some(kills) => kills,
        None if std::env::var_os("HALFMOON_FULL").is_some() => 100,
        None => 10,
    }
}

/// Where an instance kills itself: between its SQL commit and the resolution.
fn between(kill: u64) -> String {
    format!("local.committed:{}", 2 + kill * 7 % 11)
}

/// A new database in Postgres.
async fn in_postgres() -> Option<String> {
    let database = private_postgres::database().await;
    Some(private_postgres::url_of(&database))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_killed_beside_another() {
    killed_beside_another("an instance is killed beside another", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_an_instance_that_is_killed_beside_another() {
    let what = "on Postgres, an instance is killed beside another";
    killed_beside_another(what, in_postgres().await).await;
}

async fn killed_beside_another(what: &str, postgres: Option<String>) {
    let mut shop = Shop::open("", postgres).await;
    let other = shop.instance(AT_ONCE, "");
    let mut times = Times::default();
    for kill in 0..kills() {
        let killed = shop.instance(AT_ONCE, &between(kill));
        let left = shop.killed(killed);
        shop.decided(left, &mut times).await;
    }
    shop.leave(other);
    shop.judge().await;
    times.conclude(what, BOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_instance_that_is_killed_and_started_again() {
    killed_and_started_again("a single instance is killed and started again", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_single_instance_that_is_killed_and_started_again() {
    let what = "on Postgres, a single instance is killed and started again";
    killed_and_started_again(what, in_postgres().await).await;
}

async fn killed_and_started_again(what: &str, postgres: Option<String>) {
    let mut shop = Shop::open("", postgres).await;
    let mut times = Times::default();
    for kill in 0..kills() {
        let killed = shop.instance(AT_ONCE, &between(kill));
        let left = shop.killed(killed);
        let again = shop.instance(AT_ONCE, "");
        shop.decided(left, &mut times).await;
        shop.leave(again);
    }
    shop.judge().await;
    times.conclude(what, BOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_connection_is_cut() {
    cut_off("the connection is cut and the process lives", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_process_whose_connection_is_cut() {
    let what = "on Postgres, the connection is cut and the process lives";
    cut_off(what, in_postgres().await).await;
}

async fn cut_off(what: &str, postgres: Option<String>) {
    // Clients are told another address than the one where the broker listens: there the line begins.
    let mut shop = Shop::open("brokerIP1=127.0.0.2\n", postgres).await;
    let broker = shop.broker();
    let begin = std::net::SocketAddr::from(([127, 0, 0, 2], broker.port()));
    let line = Line::lay(begin, broker).await.expect("the port is free");
    let other = shop.instance(AT_ONCE, "");
    line.spare();
    let cut_off = shop.instance(AT_ONCE, "");
    let mut times = Times::default();
    for _ in 0..kills() {
        tokio::time::sleep(WHOLE).await;
        line.cut_after(DUMB).await;
        let left = shop.cut_off(&cut_off);
        shop.decided(left, &mut times).await;
    }
    shop.leave(cut_off);
    shop.leave(other);
    shop.judge().await;
    times.conclude(what, BOUND);
}
