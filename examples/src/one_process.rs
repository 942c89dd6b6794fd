//! The whole shop in one process: coordinator, broker, three services and their seven databases, in files or in Postgres.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use coordinator::client::Producer;
use coordinator::embedded::{DATABASE_FILE, Embedded, Settings};
use coordinator::engine::Coordinator;
use coordinator::marker::databases::Markers;
use coordinator::steps;
use coordinator::store::database::Database;
use mq_core::broker::Broker;
use mq_core::client::Builder;
use sqlx::{Postgres, Sqlite};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::process;
use crate::shop::catalog::{Catalog, ORDERS, Order};
use crate::shop::databases::{self, Databases, Layout};
use crate::shop::kinds::{Kind, postgres_url};
use crate::shop::orders::{self, Orders};
use crate::shop::payments::{self, Payments};
use crate::shop::reconcile::{Books, Check, Summary};
use crate::shop::serving::{Service, serve};
use crate::shop::seven_steps::{self, Story};
use crate::shop::stay::Stay;
use crate::shop::stock::{self, Stock};
use crate::shop::till::Till;
use crate::shop::{progress, report, rules};

/// Folder of the services' databases inside the data folder.
pub const SHOPS_FOLDER: &str = "shops";
/// Every service in a database of its own, two of them in several.
pub const LAYOUT: Layout = Layout {
    orders: 4,
    payments: 2,
    stock: 1,
    tills: true,
};
/// Orders that are being placed at a time.
const PLACED_AT_A_TIME: usize = 16;
/// Markers are kept until the books are made, and a while longer for whoever wants to look.
const MARKERS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A shop in one process: orders, stock and payments agree through transactional messages, whatever crashes in between.
#[derive(Debug, Clone, Parser)]
#[command(name = "one_process")]
pub struct Args {
    /// Folder for everything; kept, and running again goes on where a crash has left off. Without it a temporary folder
    /// is used and removed after success
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Keep every table in this Postgres database, the log stays in the folder. Without --data a new database is made on the
    /// same server, and dropped after success
    #[arg(long, value_name = "URL", value_parser = postgres_url)]
    pub postgres: Option<String>,
    /// Orders in total; the 830 of the data come again under ids from 100000 on
    #[arg(long, value_name = "N", default_value_t = ORDERS, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub orders: u64,
    /// Kill this process with SIGKILL at the N-th time it comes to this step; `list` shows all steps
    #[arg(long, value_name = "STEP[:N]")]
    pub crash_at: Option<String>,
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The data folder cannot be used; one line that says why.
    #[error("{0}")]
    Unusable(String),
    /// Something failed on the way.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The numbers.
    pub summary: Summary,
    /// What was checked.
    pub checks: Vec<Check>,
    /// One transaction, step by step.
    pub story: Story,
}

impl Outcome {
    /// Whether everything adds up.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        report::adds_up(&self.checks)
    }
}

/// The program: arguments from the command line, results to standard output, progress and errors to standard error.
///
/// Exit status 0 if everything adds up, 1 if not or if something failed, 2 for wrong arguments or an unusable data folder.
#[must_use]
pub fn main() -> ExitCode {
    process::diagnose();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            return fail(&refusal(&error), 2);
        }
        Err(help) => {
            say(&help.to_string());
            return ExitCode::SUCCESS;
        }
    };
    match &args.crash_at {
        Some(list) if list == "list" => {
            let lines = steps::ALL
                .iter()
                .map(|(step, what)| format!("{step:28} {what}\n"));
            say(&lines.collect::<String>());
            return ExitCode::SUCCESS;
        }
        Some(step) => {
            if let Err(error) = steps::arm(step) {
                return fail(&format!("error: --crash-at: {error}"), 2);
            }
        }
        None => {}
    }
    match process::runtime().map(|runtime| runtime.block_on(run(&args))) {
        Ok(Ok(outcome)) => print(&outcome),
        Ok(Err(RunError::Unusable(why))) => fail(&format!("error: {}", one_line(&why)), 2),
        Ok(Err(RunError::Failed(error))) => fail(&format!("error: {error:#}"), 1),
        Err(error) => fail(&format!("error: no threads can be started: {error}"), 1),
    }
}

fn say(text: &str) {
    // Whoever has closed the output does not want to read it.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn fail(line: &str, status: u8) -> ExitCode {
    eprintln!("{line}");
    ExitCode::from(status)
}

/// What is wrong with the arguments: the first line says it all, the rest is how to get help.
fn refusal(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs the shop until every order has ended, closes everything, and makes the books from the databases.
///
/// # Errors
/// [`RunError`]. A temporary folder is kept then, and named, and so is a temporary database.
pub async fn run(args: &Args) -> Result<Outcome, RunError> {
    let unusable = |error: anyhow::Error| RunError::Unusable(format!("{error:#}"));
    let stay = Stay::of(args.data.as_deref(), args.postgres.as_deref()).await;
    let stay = stay.map_err(unusable)?;
    let outcome = run_in(stay.folder(), stay.postgres(), args.orders).await;
    let well = outcome.as_ref().is_ok_and(Outcome::adds_up);
    stay.end(well).await.map_err(unusable)?;
    outcome
}

/// Runs it over the log in `folder` and the databases in the folder, or else in Postgres.
async fn run_in(folder: &Path, postgres: Option<&str>, count: u64) -> Result<Outcome, RunError> {
    match postgres {
        None => {
            let coordinator = folder.join(DATABASE_FILE).into();
            run_on::<Sqlite>(folder, &folder.join(SHOPS_FOLDER), coordinator, count).await
        }
        Some(url) => {
            let coordinator = Database::Postgres(url.to_owned());
            run_on::<Postgres>(folder, &url.to_owned(), coordinator, count).await
        }
    }
}

async fn run_on<DB: Kind>(
    folder: &Path,
    home: &DB::Home,
    coordinator: Database,
    count: u64,
) -> Result<Outcome, RunError> {
    let catalog = Catalog::northwind().map_err(anyhow::Error::from)?;
    let unusable = |error: &dyn std::fmt::Display| RunError::Unusable(error.to_string());
    let embedded = Embedded::open(folder, settings(coordinator.clone()))
        .await
        .map_err(|error| unusable(&error))?;
    let databases = match Databases::<DB>::open(home, LAYOUT).await {
        Ok(databases) => databases,
        Err(error) => {
            // What is wrong with the databases is more interesting than what closing says.
            let _ = embedded.close().await;
            return Err(unusable(&format!("{error:#}")));
        }
    };
    let traded = trade(&embedded, &databases, &catalog, count).await;
    databases.close().await;
    let closed = embedded.close().await;
    traded?;
    closed.map_err(|why| anyhow!("the coordinator could not be closed: {why}"))?;

    let mut books = Books::<DB>::open((home, LAYOUT), &coordinator, catalog.orders(count)).await?;
    let outcome = Outcome {
        summary: books.summary().await?,
        checks: books.check().await?,
        story: seven_steps::tell(&mut books, &coordinator).await?,
    };
    books.close().await?;
    Ok(outcome)
}

/// Defaults, with less memory: a shop has few messages under way.
fn settings(database: Database) -> Settings {
    let mut settings = Settings {
        database: Some(database),
        ..Settings::default()
    };
    settings.log.segment_bytes = 16 << 20;
    settings.log.batch_bytes = 1 << 20;
    settings.log.waiting_bytes = 4 << 20;
    settings.coordinator.waiting_halves = 1024;
    settings
}

/// Places the orders and serves until all is quiet.
async fn trade<DB: Kind>(
    embedded: &Embedded,
    databases: &Databases<DB>,
    catalog: &Catalog,
    count: u64,
) -> Result<()> {
    databases.stock_up(&catalog.products).await?;
    let (broker, coordinator) = (embedded.broker(), embedded.coordinator());
    let order_markers = databases::markers(&databases.orders).await?;
    let producer = attach(orders::GROUP, order_markers.clone(), coordinator).await?;
    let orders = Orders::new(&databases.orders, producer).await?;
    let markers = databases::markers(&databases.stock).await?;
    let producer = attach(stock::GROUP, markers, coordinator).await?;
    let stock = Stock::new(&databases.stock, producer.clone()).await?;
    let mut producers = vec![orders.producer().clone(), producer];
    let markers = databases::markers(&databases.payments).await?;
    let producer = attach(payments::GROUP, markers, coordinator).await?;
    let payments = Payments::new(&databases.payments, producer.clone()).await?;
    producers.push(producer);

    let stop = watch::Sender::new(false);
    let mut services = JoinSet::new();
    start(
        &mut services,
        orders.clone(),
        Orders::<DB>::consumer(),
        broker,
        &stop,
    )
    .await?;
    start(&mut services, stock, Stock::<DB>::consumer(), broker, &stop).await?;
    start(
        &mut services,
        payments,
        Payments::<DB>::consumer(),
        broker,
        &stop,
    )
    .await?;

    let work = async {
        let place = place_all(&orders, coordinator, &order_markers, catalog.orders(count));
        let quiet = progress::wait_until_quiet(databases, coordinator, count);
        tokio::try_join!(place, quiet).map(drop)
    };
    let worked = tokio::select! {
        worked = work => worked,
        Some(ended) = services.join_next() => Err(match ended? {
            Ok(()) => anyhow!("a service has ended early"),
            Err(error) => error.context("a service has failed"),
        }),
    };
    stop.send_replace(true);
    let mut first = worked;
    while let Some(ended) = services.join_next().await {
        first = first.and(ended?);
    }
    for producer in producers {
        producer.close().await;
    }
    first
}

async fn attach(group: &str, markers: Markers, coordinator: &Coordinator) -> Result<Producer> {
    let builder = Producer::builder(group).markers(markers);
    let attached = builder.keep_markers(MARKERS_KEPT).attach(coordinator).await;
    attached.with_context(|| format!("{group} cannot be connected"))
}

async fn start(
    services: &mut JoinSet<Result<()>>,
    service: impl Service,
    consumer: Builder,
    broker: &Broker,
    stop: &watch::Sender<bool>,
) -> Result<()> {
    let consumer = consumer.attach(broker).await?;
    services.spawn(serve(service, consumer, stop.subscribe()));
    Ok(())
}

/// Places what is not placed yet, some at a time.
async fn place_all<DB: Kind>(
    orders: &Orders<DB>,
    coordinator: &Coordinator,
    markers: &Markers,
    all: impl Iterator<Item = Order>,
) -> Result<()> {
    let mut under_way: JoinSet<Result<()>> = JoinSet::new();
    for order in all {
        if under_way.len() >= PLACED_AT_A_TIME
            && let Some(done) = under_way.join_next().await
        {
            done??;
        }
        let (orders, coordinator, markers) = (orders.clone(), coordinator.clone(), markers.clone());
        under_way.spawn(async move {
            if rules::is_begun_twice(order.id) {
                let till = Till::start(&coordinator, markers.clone()).await?;
                let begun = orders.begin_only(&order, till.producer()).await;
                till.die().await;
                begun?;
            }
            if !rules::loses_its_till(order.id) {
                orders.place(&order, orders.producer()).await?;
                return Ok(());
            }
            let till = Till::start(&coordinator, markers).await?;
            let placed = orders.place(&order, till.producer()).await;
            till.die().await;
            placed.map(drop)
        });
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}

/// Shows an outcome; exit status 0 only if everything adds up.
fn print(outcome: &Outcome) -> ExitCode {
    let mut out = format!(
        "One transaction, as the audit tells it: {}\n",
        outcome.story
    );
    out.push_str(&report::text(&outcome.summary, &outcome.checks));
    say(&out);
    if outcome.adds_up() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests;
