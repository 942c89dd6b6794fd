//! `halfmoon bench server`: our server over TCP, and any other RocketMQ beside it in the same rounds.

mod client;
mod requests;
mod subject;

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use coordinator::store::postgres::server::{create_database, drop_database};
use mq_core::clock::{Clock, SystemClock};
use tokio::task::JoinSet;

use self::client::{Shared, drive, read_backlog};
use self::requests::{QUEUES, Requests};
use self::subject::Subject;
use super::embedded::{PROBE, Progress};
use super::load::{DONE, MEASURING, Measured, WARMING, percentile};
use super::report::{Check, Report, Run, hundredths, median, tenths};
use super::workplace::Workplace;
use super::{failed, probe};
use crate::failure::Failure;

/// Load before anything is counted.
const WARM_UP: Duration = Duration::from_secs(2);

/// Measure a server of its own over TCP, and another one beside it
///
/// A server is started as a process with a fresh folder, and driven with RocketMQ's own requests from this process: so many
/// connections, so many operations in flight on each. half+commit sends a half message, waits until it is stored, sends its
/// COMMIT and waits for the answer; send sends plain messages; backlog reads messages that were sent before, 32 at a time
/// from 4 queues. Counted is what can be read: how far the ends of the queues moved. CPU is the server's, from /proc, and
/// Postgres is left out of it. With --against the same is done to another server in every round, and the ratios are printed. Figures are medians.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Folder to measure in, missing or empty; otherwise a new one in the current directory. Removed afterwards
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What --memory our server is given
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Decide in Postgres instead: any database of a server, in which a new one is made for ours and dropped again
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Another server's nameserver, to measure in the same rounds
    #[arg(long, value_name = "IP:PORT")]
    against: Option<SocketAddrV4>,
    /// The other server's processes, whose CPU and memory are counted
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "against")]
    against_pids: Vec<u32>,
    /// Measured seconds of each loop
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Rounds, of which the medians are printed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Bytes of each body
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    size: usize,
    /// Only these loops; all unless given
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Loop>,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: usize,
    /// Operations in flight on each connection
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [16, 1])]
    in_flight: Vec<usize>,
    /// Messages of the backlog
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    backlog: u64,
}

const EXAMPLES: &str = "\
Examples:
  halfmoon bench server                                         less than a minute
  halfmoon bench server --json --repeat 5 > figures.json
  halfmoon bench server --postgres postgres://bench@10.0.0.5/postgres --only half-commit
  halfmoon bench server --against 127.0.0.1:29876 --against-pids 4711,4712
  halfmoon bench server --only half-commit --connections 16 --in-flight 64";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
enum Loop {
    /// Half message, then its COMMIT
    HalfCommit,
    /// Plain messages
    Send,
    /// Messages that were sent before
    Backlog,
}

/// A loop with so much in flight on each connection, at ours or at the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Step {
    kind: Loop,
    in_flight: usize,
    other: bool,
}

/// Measures what the arguments ask for.
pub(super) async fn run(arguments: Arguments) -> Result<Report, Failure> {
    let workplace = Workplace::new(arguments.data.clone())?;
    tokio::select! {
        report = measure_in_database(&arguments, &workplace) => report,
        _ = tokio::signal::ctrl_c() => Err(Failure::Environment("stopped; nothing is printed".into())),
    }
}

/// Measures with a database of its own in Postgres, if one is asked for, and drops that also when the measurement failed.
async fn measure_in_database(
    arguments: &Arguments,
    workplace: &Workplace,
) -> Result<Report, Failure> {
    let Some(url) = &arguments.postgres else {
        return measure(arguments, workplace, None).await;
    };
    let name = format!("halfmoon_bench_{}", std::process::id());
    let database = create_database(url, &name).await?;
    let report = measure(arguments, workplace, Some(&database)).await;
    let dropped = drop_database(url, &name).await;
    let report = report?;
    dropped?;
    Ok(report)
}

fn plan(arguments: &Arguments) -> Vec<Step> {
    let wanted = |kind| arguments.only.is_empty() || arguments.only.contains(&kind);
    let mut plan = Vec::new();
    for kind in [Loop::HalfCommit, Loop::Send, Loop::Backlog] {
        let in_flight: &[usize] = match kind {
            Loop::Backlog => &[1],
            Loop::HalfCommit | Loop::Send => &arguments.in_flight,
        };
        for in_flight in in_flight.iter().copied().filter(|_| wanted(kind)) {
            for other in [false, true] {
                if !other || arguments.against.is_some() {
                    plan.push(Step {
                        kind,
                        in_flight,
                        other,
                    });
                }
            }
        }
    }
    plan
}

async fn measure(
    arguments: &Arguments,
    workplace: &Workplace,
    database: Option<&str>,
) -> Result<Report, Failure> {
    let plan = plan(arguments);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let progress = Progress::new((plan.len() as u64 + 1) * u64::from(arguments.repeat) + 1);
    let place = workplace.place("server");
    let memory = arguments.memory.as_deref();
    let ours = Subject::start(place.path(), memory, database, &*clock).await?;
    let other = match arguments.against {
        Some(nameserver) => Some(Subject::find(nameserver, &arguments.against_pids).await?),
        None => None,
    };
    let mut report = Report::default();
    report.check("start_fresh", ours.ready.as_secs_f64() * 1e3, "ms");
    report.check("resident_idle", ours.resident_mib(), "MiB");
    let mut probes = Vec::new();
    let mut measured: HashMap<Step, Vec<Measured>> = HashMap::new();
    for round in 1..=arguments.repeat {
        progress.next(&format!("round {round}: the disk"));
        probes.push(probe_disk(workplace, &clock).await?);
        for step in &plan {
            progress.next(&format!("round {round}: {}", name(arguments, *step)));
            let subject = match &other {
                Some(other) if step.other => other,
                _ => &ours,
            };
            let figures = one_step(arguments, *step, subject, &clock).await?;
            measured.entry(*step).or_default().push(figures);
        }
    }
    report.probe_fsync_per_second = tenths(median(probes));
    fill_in(&mut report, arguments, &plan, &measured);
    progress.next("a clean stop, and a start");
    report.check("resident_after_load", ours.resident_mib(), "MiB");
    if let Some(other) = &other {
        report.check("against_resident_after_load", other.resident_mib(), "MiB");
    }
    ours.stop().await?;
    let again = Subject::start(place.path(), memory, database, &*clock).await?;
    report.check(
        "start_after_clean_stop",
        again.ready.as_secs_f64() * 1e3,
        "ms",
    );
    again.stop().await?;
    let program = std::env::current_exe().and_then(std::fs::metadata);
    let bytes = program.map_err(failed)?.len();
    report.check("binary", bytes as f64 / (1 << 20) as f64, "MiB");
    Ok(report)
}

fn fill_in(
    report: &mut Report,
    arguments: &Arguments,
    plan: &[Step],
    measured: &HashMap<Step, Vec<Measured>>,
) {
    for step in plan {
        let rounds = measured.get(step).map_or(&[][..], Vec::as_slice);
        let store = match (step.other, step.kind) {
            (true, _) => "against",
            (false, Loop::HalfCommit) if arguments.postgres.is_some() => "postgres",
            (false, Loop::HalfCommit) => "sqlite",
            (false, Loop::Send | Loop::Backlog) => "none",
        };
        let mut run = Run {
            name: name(arguments, *step).into(),
            store,
            flush: if step.other { "as set" } else { "sync" },
            in_flight: match step.kind {
                Loop::Backlog => QUEUES as usize,
                Loop::HalfCommit | Loop::Send => step.in_flight * arguments.connections,
            },
            size_bytes: arguments.size,
            per_second: 0.0,
            p50_us: 0.0,
            p99_us: 0.0,
            cpu_us_each: 0.0,
            ratio_to_log: None,
        };
        run.set(rounds);
        report.runs.push(run);
        let ours = Step {
            other: false,
            ..*step
        };
        let (true, Some(ours)) = (step.other, measured.get(&ours)) else {
            continue;
        };
        let name = name(arguments, *step);
        let ratio = |of: fn(&Measured) -> f64| {
            let pairs = ours.iter().zip(rounds);
            median(pairs.map(|(ours, other)| of(ours) / of(other)).collect())
        };
        let speed = ratio(|measured| measured.per_second);
        let cpu = ratio(|measured| measured.cpu_each.as_secs_f64());
        report.check(format!("{name}: times as many"), speed, "ratio");
        report.check(format!("{name}: CPU for each"), cpu, "ratio");
    }
}

impl Report {
    fn check(
        &mut self,
        name: impl Into<std::borrow::Cow<'static, str>>,
        value: f64,
        unit: &'static str,
    ) {
        self.checks.push(Check {
            name: name.into(),
            value: hundredths(value),
            unit,
        });
    }
}

fn name(arguments: &Arguments, step: Step) -> String {
    let connections = arguments.connections;
    match step.kind {
        Loop::HalfCommit => format!("half+commit {connections}x{}", step.in_flight),
        Loop::Send => format!("send {connections}x{}", step.in_flight),
        Loop::Backlog => "backlog".to_owned(),
    }
}

async fn probe_disk(workplace: &Workplace, clock: &Arc<dyn Clock>) -> Result<f64, Failure> {
    let (place, clock) = (workplace.place("probe"), clock.clone());
    tokio::task::spawn_blocking(move || probe::fsyncs_per_second(place.path(), &*clock, PROBE))
        .await
        .map_err(failed)?
        .map_err(failed)
}

async fn one_step(
    arguments: &Arguments,
    step: Step,
    subject: &Subject,
    clock: &Arc<dyn Clock>,
) -> Result<Measured, Failure> {
    let wall_ms = clock.wall_ms();
    let shared = Arc::new(Shared {
        requests: Requests {
            // A topic of its own, so that nothing is counted that an earlier round has left.
            topic: format!("bench-{wall_ms}"),
            body: vec![b'x'; arguments.size].into(),
            wall_ms,
        },
        half: step.kind == Loop::HalfCommit,
        clock: clock.clone(),
        phase: AtomicU8::new(WARMING),
        number: AtomicU64::new(0),
        busy: AtomicU64::new(0),
        left: AtomicU64::new(u64::MAX),
    });
    make_topic(&shared, subject).await?;
    match step.kind {
        Loop::HalfCommit | Loop::Send => {
            closed_loop(arguments, step.in_flight, subject, &shared).await
        }
        Loop::Backlog => backlog(arguments, subject, &shared).await,
    }
}

/// Has the topic made, and waits until all of its queues answer.
async fn make_topic(shared: &Shared, subject: &Subject) -> Result<(), Failure> {
    for queue in 0..QUEUES {
        let unique = format!("{:032X}", shared.requests.wall_ms);
        let answer = subject
            .ask(shared.requests.send(0, queue, &unique, false))
            .await?;
        if answer.code != 0 {
            return Err(failed(format!(
                "{} does not take a message: {}",
                subject.broker, answer.remark
            )));
        }
    }
    Ok(())
}

/// What was counted at one moment.
struct Moment {
    time: Duration,
    cpu: Option<Duration>,
    ends: Vec<u64>,
}

async fn moment(shared: &Shared, subject: &Subject) -> Result<Moment, Failure> {
    let mut ends = Vec::new();
    for queue in 0..QUEUES {
        let answer = subject.ask(shared.requests.end(queue)).await?;
        let end = answer.fields.get("offset").and_then(|end| end.parse().ok());
        ends.push(end.ok_or_else(|| failed("a queue has no end"))?);
    }
    Ok(Moment {
        time: shared.clock.monotonic(),
        cpu: subject.cpu(),
        ends,
    })
}

/// The figures of what became readable between two moments.
fn between(before: &Moment, after: &Moment, mut latencies: Vec<u32>) -> Result<Measured, Failure> {
    latencies.sort_unstable();
    let moved = |(before, after): (&u64, &u64)| after.saturating_sub(*before);
    let count: u64 = before.ends.iter().zip(&after.ends).map(moved).sum();
    figures(before, after, count, &latencies)
}

fn figures(
    before: &Moment,
    after: &Moment,
    count: u64,
    latencies: &[u32],
) -> Result<Measured, Failure> {
    if count == 0 {
        return Err(failed("nothing was finished"));
    }
    let cpu = after.cpu.zip(before.cpu);
    let cpu = cpu.map(|(after, before)| after.saturating_sub(before));
    let passed = after.time.saturating_sub(before.time).as_secs_f64();
    Ok(Measured {
        per_second: count as f64 / passed,
        p50: percentile(latencies, 50),
        p99: percentile(latencies, 99),
        cpu_each: cpu.unwrap_or_default().div_f64(count as f64),
    })
}

async fn closed_loop(
    arguments: &Arguments,
    in_flight: usize,
    subject: &Subject,
    shared: &Arc<Shared>,
) -> Result<Measured, Failure> {
    let mut connections = JoinSet::new();
    for _ in 0..arguments.connections {
        connections.spawn(drive(subject.broker, in_flight, Arc::clone(shared)));
    }
    tokio::time::sleep(WARM_UP).await;
    let before = moment(shared, subject).await?;
    shared.phase.store(MEASURING, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    let after = moment(shared, subject).await?;
    shared.phase.store(DONE, Ordering::SeqCst);
    let mut latencies = Vec::new();
    while let Some(ended) = connections.join_next().await {
        latencies.extend(ended.map_err(failed)?.map_err(failed)?);
    }
    let busy = shared.busy.load(Ordering::Relaxed);
    if busy > 0 {
        tracing::warn!(
            busy,
            "requests were refused because the server was busy, and sent again"
        );
    }
    between(&before, &after, latencies)
}

async fn backlog(
    arguments: &Arguments,
    subject: &Subject,
    shared: &Arc<Shared>,
) -> Result<Measured, Failure> {
    let start = moment(shared, subject).await?;
    shared.left.store(arguments.backlog, Ordering::SeqCst);
    let mut connections = JoinSet::new();
    for _ in 0..arguments.connections {
        connections.spawn(drive(subject.broker, 16, Arc::clone(shared)));
    }
    while let Some(ended) = connections.join_next().await {
        ended.map_err(failed)?.map_err(failed)?;
    }
    let before = moment(shared, subject).await?;
    read_backlog(
        subject.broker,
        &shared.requests,
        &start.ends,
        arguments.backlog,
    )
    .await
    .map_err(failed)?;
    let after = moment(shared, subject).await?;
    figures(&before, &after, arguments.backlog, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn steps(line: &[&str]) -> Vec<Step> {
        let line = std::iter::once(&"bench").chain(line);
        plan(&Line::try_parse_from(line).unwrap().arguments)
    }

    #[test]
    fn the_other_server_is_measured_right_after_ours() {
        assert_eq!(steps(&[]).len(), 5);
        let both = steps(&["--against", "127.0.0.1:9876", "--only", "send"]);
        let others: Vec<_> = both.iter().map(|step| step.other).collect();
        assert_eq!(others, [false, true, false, true]);
    }

    #[test]
    fn what_became_readable_is_counted() {
        let moment = |seconds, cpu, ends: [u64; 2]| Moment {
            time: Duration::from_secs(seconds),
            cpu: Some(Duration::from_millis(cpu)),
            ends: ends.to_vec(),
        };
        let (before, after) = (moment(1, 0, [5, 5]), moment(3, 400, [105, 105]));
        let measured = between(&before, &after, vec![3, 1, 2]).unwrap();
        assert!((measured.per_second - 100.0).abs() < 1e-9);
        assert_eq!(measured.cpu_each, Duration::from_millis(2));
        assert_eq!(measured.p50, Duration::from_micros(2));
        assert!(between(&before, &before, vec![]).is_err());
    }
}
