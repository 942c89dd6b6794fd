//! Everything by one command: starts server and services, feeds the orders, kills in the middle, starts again, reconciles.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use coordinator::embedded::DATABASE_FILE;
use coordinator::store::TxReader;
use coordinator::store::database::{Database, Options};
use mq_core::clock::{Clock, SystemClock};
use mq_core::random::{Random, SeededRandom};
use sqlx::{Postgres, Sqlite};
use tokio::task::JoinHandle;

use super::books::Outcome;
use super::fleet::Fleet;
use super::http::Customers;
use super::plans::SERVER_FOLDER;
use super::service::SHOPS_FOLDER;
use crate::shop::catalog::{Catalog, ORDERS};
use crate::shop::databases::{Databases, Layout};
use crate::shop::kinds::{Kind, postgres_url};
use crate::shop::progress::{Count, Shown};
use crate::shop::report;
use crate::shop::stay::Stay;

/// How often the databases are asked.
const LOOK: Duration = Duration::from_millis(50);
/// So many looks in a row must find everything ended: the server holds young rows back for a moment.
const QUIET_LOOKS: u32 = 5;
/// After so long without any change the run is given up.
const PATIENCE: Duration = Duration::from_secs(180);
/// A kill comes so long at most after the order that it waits for.
const JITTER: Duration = Duration::from_millis(100);

/// The process that is killed first: an instance of the order service.
const FIRST: u64 = 3;

/// How everything is run by one command.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Folder for everything; kept, and running again goes on where the last run has left off. Without it a temporary
    /// folder is used and removed after success
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Keep every table in this Postgres database, the log stays in the folder. Without --data a new database is made on the
    /// same server, and dropped after success
    #[arg(long, value_name = "URL", value_parser = postgres_url)]
    pub postgres: Option<String>,
    /// Orders in total; the 830 of the data come again under ids from 100000 on
    #[arg(long, value_name = "N", default_value_t = ORDERS, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub orders: u64,
    /// How often a process is killed with SIGKILL while orders are fed; every process has its turn
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub kills: u64,
    /// The same seed chooses the same processes in the same order
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
}

/// Runs everything and prints what came of it.
///
/// # Errors
/// Something failed on the way, or took too long. A temporary folder is kept then, and named.
pub async fn all(arguments: &Arguments, layout: Layout) -> Result<ExitCode> {
    let stay = Stay::of(arguments.data.as_deref(), arguments.postgres.as_deref()).await?;
    let outcome = tokio::select! {
        outcome = run(&stay, arguments, layout) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped by Ctrl-C, with every process that was started")),
    };
    let well = outcome
        .as_ref()
        .is_ok_and(|outcome| report::adds_up(&outcome.checks));
    stay.end(well).await?;
    print!("{}", outcome?.text());
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn run(stay: &Stay, arguments: &Arguments, layout: Layout) -> Result<Outcome> {
    match stay.postgres() {
        None => {
            let shops = stay.folder().join(SHOPS_FOLDER);
            let server = stay.folder().join(SERVER_FOLDER).join(DATABASE_FILE);
            run_on::<Sqlite>(stay, (&shops, layout), &server.into(), arguments).await
        }
        Some(url) => {
            let home = url.to_owned();
            let server = Database::Postgres(home.clone());
            run_on::<Postgres>(stay, (&home, layout), &server, arguments).await
        }
    }
}

async fn run_on<DB: Kind>(
    stay: &Stay,
    (home, layout): (&DB::Home, Layout),
    coordinator: &Database,
    arguments: &Arguments,
) -> Result<Outcome> {
    let catalog = Catalog::northwind()?;
    let databases = Databases::<DB>::open(home, layout).await?;
    databases.stock_up(&catalog.products).await?;

    let mut fleet = Fleet::start(stay.folder(), stay.postgres()).await?;
    let customers = Customers::new(fleet.instances());
    let served = Arc::clone(&customers.served);
    let orders: Vec<_> = catalog.orders(arguments.orders).collect();
    let feeding = tokio::spawn(customers.order_all(orders.into_iter()));
    let reader = coordinator.open_reader(Options::default()).await?;
    let mut watcher = Watcher {
        databases: &databases,
        reader: &*reader,
        served: &served,
        shown: Shown::new(arguments.orders),
    };
    let traded = watcher.until_quiet(&mut fleet, arguments, feeding).await;
    watcher.shown.finish();
    traded?;
    fleet.end().await?;
    databases.close().await;
    let asked = catalog.orders(arguments.orders);
    Outcome::read::<DB>((home, layout), coordinator, asked).await
}

/// What the run is watched with.
struct Watcher<'a, DB: Kind> {
    databases: &'a Databases<DB>,
    reader: &'a dyn TxReader,
    served: &'a AtomicU64,
    shown: Shown,
}

impl<DB: Kind> Watcher<'_, DB> {
    /// Kills when its time has come, until all orders have ended and nothing is open.
    async fn until_quiet(
        &mut self,
        fleet: &mut Fleet,
        arguments: &Arguments,
        mut feeding: JoinHandle<Result<()>>,
    ) -> Result<()> {
        let clock = SystemClock::new();
        let random = SeededRandom::new(arguments.seed);
        let (mut killed, mut quiet, mut is_fed) = (0, 0, false);
        let (mut last, mut since) = (None, clock.monotonic());
        while quiet < QUIET_LOOKS {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                fed = &mut feeding, if !is_fed => { fed??; is_fed = true; }
            }
            fleet.runs()?;
            let served = self.served.load(Ordering::Relaxed);
            if killed < arguments.kills && served >= due(killed, arguments) {
                self.kill(fleet, killed, &random).await?;
                killed += 1;
            }
            let count = Count::read(self.databases).await?;
            self.shown.update(&count);
            let open: u64 = self
                .reader
                .open_topics()
                .await?
                .iter()
                .map(|(_, open)| open)
                .sum();
            let ended = count.ended() >= arguments.orders
                && count.open == 0
                && count.released == count.not_paid;
            let is_quiet = is_fed && killed == arguments.kills && ended && open == 0;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            let now = (count, open, killed, quiet);
            if last != Some(now) {
                (last, since) = (Some(now), clock.monotonic());
            } else if clock.monotonic().saturating_sub(since) > PATIENCE {
                bail!(
                    "nothing has changed for {PATIENCE:?}: {served} of {} orders were given, {} have ended ({}), {} are open, \
                     {} wait for their stock to be released, {open} transactions are open",
                    arguments.orders,
                    count.ended(),
                    count.words(),
                    count.open,
                    count.not_paid.saturating_sub(count.released),
                );
            }
        }
        Ok(())
    }

    /// The first kills go round all processes, the others are drawn.
    async fn kill(&self, fleet: &mut Fleet, killed: u64, random: &SeededRandom) -> Result<()> {
        let processes = fleet.size() as u64;
        let drawn = random.next_u64();
        let number = if killed < processes {
            (killed + FIRST) % processes
        } else {
            drawn % processes
        };
        let jitter = u64::try_from(JITTER.as_micros()).unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_micros(random.next_u64() % jitter)).await;
        let number = usize::try_from(number)?;
        let name = fleet.kill(number).await?;
        self.shown
            .say(&format!("killed {name} and started it again"));
        Ok(())
    }
}

/// How many orders must have been served before the next kill: kills are spread evenly over the orders.
fn due(killed: u64, arguments: &Arguments) -> u64 {
    arguments.orders * (killed + 1) / (arguments.kills + 2)
}
