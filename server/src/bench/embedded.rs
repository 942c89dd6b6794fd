//! `halfmoon bench embedded`: everything in one process, on SQLite or Postgres, beside the log alone.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use coordinator::embedded::{Embedded, Settings};
use coordinator::store::database::Database;
use coordinator::store::postgres::server;
use indicatif::{ProgressBar, ProgressStyle};
use mq_core::broker;
use mq_core::clock::{Clock, SystemClock};

use super::load::{Load, Measured, closed_loop};
use super::paths::Sender;
use super::report::{Report, Run, hundredths, median, tenths};
use super::restart::{self, Left};
use super::workplace::Workplace;
use super::{failed, probe};
use crate::failure::Failure;

/// How long the disk is probed in each round.
pub(super) const PROBE: Duration = Duration::from_secs(2);
/// Load before anything is counted.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measure everything in one process, on SQLite or Postgres, beside the log alone
///
/// Closed loops: so many producers, each of which sends a half message, waits until it is durable, sends its COMMIT, waits
/// until that is decided, and begins again. log-only writes the same records without SQL: half messages and their finals,
/// acknowledged where a real COMMIT is. Figures are medians over the rounds; ratios are taken within a round. CPU is this
/// process's, the load included and Postgres left out. Then a process is killed
/// in the middle of its work, its folder opened again, and its history verified.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Folder to measure in, missing or empty; otherwise a new one in the current directory. Removed afterwards
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Measured seconds of each loop
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Rounds, of which the medians are printed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Bytes of each body
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    size: usize,
    /// Only these loops; all unless given
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Loop>,
    /// Transactions at a time, of the loops that run at several
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1024, 64])]
    in_flight: Vec<usize>,
    /// Decide in Postgres instead: any database of a server, in which a new one is made for each loop and dropped again
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Decided transactions that a killed process leaves, always on SQLite; 0 leaves the kill out
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    transactions: u64,
    /// Open transactions that it leaves
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    open: u64,
}

const EXAMPLES: &str = "\
Examples:
  halfmoon bench embedded                                       some three minutes, 4 GB of disk
  halfmoon bench embedded --json > figures.json
  halfmoon bench embedded --postgres postgres://bench@10.0.0.5/postgres --transactions 0
  halfmoon bench embedded --only log-only,transactions --in-flight 256 --transactions 0
  halfmoon bench embedded --only log-only --seconds 1 --size 100 --transactions 10000000   a history of ten million events";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
enum Loop {
    /// Half message and final into the log, no SQL
    LogOnly,
    /// Half message, decision in SQL, final
    Transactions,
    /// Plain messages, acknowledged when durable
    SendSync,
    /// Plain messages, acknowledged when written
    SendAsync,
}

impl Loop {
    /// The figures to fill in.
    const fn run(self, in_flight: usize, size_bytes: usize, on_postgres: bool) -> Run {
        let (name, store, flush) = match self {
            Self::LogOnly => ("log-only", "none", "sync"),
            Self::Transactions if on_postgres => ("half+commit", "postgres", "sync"),
            Self::Transactions => ("half+commit", "sqlite", "sync"),
            Self::SendSync => ("plain send", "none", "sync"),
            Self::SendAsync => ("plain send", "none", "async"),
        };
        Run {
            name: std::borrow::Cow::Borrowed(name),
            store,
            flush,
            in_flight,
            size_bytes,
            per_second: 0.0,
            p50_us: 0.0,
            p99_us: 0.0,
            cpu_us_each: 0.0,
            ratio_to_log: None,
        }
    }
}

/// Loops with as much in flight, in the order they run: those whose ratio is taken stand side by side.
fn plan(only: &[Loop], in_flight: &[usize]) -> Vec<(Loop, usize)> {
    let wanted = |kind: Loop| only.is_empty() || only.contains(&kind);
    let mut plan = Vec::new();
    for in_flight in in_flight {
        plan.push((Loop::LogOnly, *in_flight));
        plan.push((Loop::Transactions, *in_flight));
    }
    let most = in_flight.iter().copied().max().unwrap_or(1024);
    plan.push((Loop::SendSync, most));
    plan.push((Loop::SendAsync, most));
    plan.retain(|(kind, in_flight)| wanted(*kind) && *in_flight > 0);
    plan
}

/// Measures what the arguments ask for.
pub(super) async fn run(arguments: Arguments) -> Result<Report, Failure> {
    let workplace = Workplace::new(arguments.data.clone())?;
    tokio::select! {
        report = measure(&arguments, &workplace) => report,
        _ = tokio::signal::ctrl_c() => Err(Failure::Environment("stopped; nothing is printed".into())),
    }
}

async fn measure(arguments: &Arguments, workplace: &Workplace) -> Result<Report, Failure> {
    let plan = plan(&arguments.only, &arguments.in_flight);
    let steps = (plan.len() as u64 + 1) * u64::from(arguments.rounds) + 2;
    let progress = Progress::new(steps);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut probes = Vec::new();
    let mut measured: HashMap<(Loop, usize), Vec<Measured>> = HashMap::new();
    for round in 1..=arguments.rounds {
        progress.next(&format!("round {round}: the disk"));
        probes.push(probe_disk(workplace, &clock).await?);
        for (kind, in_flight) in &plan {
            progress.next(&format!(
                "round {round}: {}, {in_flight} in flight",
                kind.run(0, 0, false).name
            ));
            let figures = one_loop(*kind, *in_flight, arguments, workplace, &clock).await?;
            measured
                .entry((*kind, *in_flight))
                .or_default()
                .push(figures);
        }
    }
    let mut report = Report {
        probe_fsync_per_second: tenths(median(probes)),
        ..Report::default()
    };
    for (kind, in_flight) in &plan {
        let mut run = kind.run(*in_flight, arguments.size, arguments.postgres.is_some());
        let rounds = rounds(&measured, *kind, *in_flight);
        run.set(rounds);
        if matches!(kind, Loop::LogOnly | Loop::Transactions) {
            run.ratio_to_log = ratio(rounds, self::rounds(&measured, Loop::LogOnly, *in_flight));
        }
        report.runs.push(run);
    }
    progress.next("a process that does nothing");
    report.checks.extend(restart::idle(workplace).await?);
    progress.next("a process that is killed");
    if arguments.transactions > 0 {
        let left = Left {
            transactions: arguments.transactions,
            open: arguments.open,
            size: arguments.size,
        };
        report
            .checks
            .extend(restart::after_kill(workplace, left).await?);
    }
    Ok(report)
}

fn rounds(
    measured: &HashMap<(Loop, usize), Vec<Measured>>,
    kind: Loop,
    in_flight: usize,
) -> &[Measured] {
    measured.get(&(kind, in_flight)).map_or(&[], Vec::as_slice)
}

/// The median of the ratios within each round; `None` if one of them was not measured.
fn ratio(rounds: &[Measured], log_only: &[Measured]) -> Option<f64> {
    if log_only.len() != rounds.len() {
        return None;
    }
    let pairs = rounds.iter().zip(log_only);
    Some(hundredths(median(
        pairs
            .map(|(run, log)| run.per_second / log.per_second)
            .collect(),
    )))
}

async fn probe_disk(workplace: &Workplace, clock: &Arc<dyn Clock>) -> Result<f64, Failure> {
    let (place, clock) = (workplace.place("probe"), clock.clone());
    tokio::task::spawn_blocking(move || probe::fsyncs_per_second(place.path(), &*clock, PROBE))
        .await
        .map_err(failed)?
        .map_err(failed)
}

/// One closed loop in a fresh folder.
async fn one_loop(
    kind: Loop,
    in_flight: usize,
    arguments: &Arguments,
    workplace: &Workplace,
    clock: &Arc<dyn Clock>,
) -> Result<Measured, Failure> {
    let place = workplace.place("loop");
    let database = format!("halfmoon_bench_{}", std::process::id());
    let url = match &arguments.postgres {
        Some(url) if kind == Loop::Transactions => {
            Some(server::create_database(url, &database).await?)
        }
        Some(_) | None => None,
    };
    let settings = Settings {
        database: url.clone().map(Database::Postgres),
        broker: broker::Settings {
            flush_async: kind == Loop::SendAsync,
            ..broker::Settings::default()
        },
        ..Settings::default()
    };
    let open = Embedded::open(place.path(), settings)
        .await
        .map_err(failed)?;
    let sender = Sender::new(&open, arguments.size)?;
    let load = Load {
        in_flight,
        warm_up: WARM_UP,
        measured: Duration::from_secs(arguments.seconds),
    };
    let clock = clock.clone();
    let measured = match kind {
        Loop::LogOnly => closed_loop(load, clock, move || sender.clone().log_only()).await,
        Loop::Transactions => closed_loop(load, clock, move || sender.clone().transaction()).await,
        Loop::SendSync | Loop::SendAsync => {
            closed_loop(load, clock, move || sender.clone().plain()).await
        }
    };
    open.close().await.map_err(failed)?;
    if let (Some(_), Some(url)) = (url, &arguments.postgres) {
        server::drop_database(url, &database).await?;
    }
    measured.map_err(failed)
}

/// What is being measured, on stderr, if that is a terminal.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(steps: u64) -> Self {
        let style = ProgressStyle::with_template("[{pos}/{len}] {msg}")
            .expect("the template is a constant that is well-formed");
        Self(ProgressBar::new(steps).with_style(style))
    }

    pub(super) fn next(&self, what: &str) {
        self.0.inc(1);
        self.0.set_message(what.to_owned());
        self.0.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_that_are_compared_run_side_by_side() {
        let all = plan(&[], &[1024, 64]);
        assert_eq!(all.len(), 6);
        assert_eq!(
            all[..2],
            [(Loop::LogOnly, 1024), (Loop::Transactions, 1024)]
        );
        assert_eq!(plan(&[Loop::SendSync], &[8]), [(Loop::SendSync, 8)]);
    }
}
