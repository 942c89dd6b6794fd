//! `halfmoon audit verify`: whether anybody has touched the history, its seals or the transactions' rows.

use std::sync::Arc;
use std::time::Duration;

use coordinator::engine::settings::Settings;
use coordinator::verify::{Finding, Progress, Report, Subject, anchored, verify};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mq_core::random::SystemRandom;
use serde::Serialize;

use super::head::Head;
use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::Output;

/// How often the progress is drawn.
const TICK: Duration = Duration::from_millis(200);
/// So many times it is not: whatever is done within two seconds shows none.
const PATIENCE: u32 = 10;

/// So much of the log takes about as long as an event of the history.
const EVENT_BYTES: u64 = 1 << 10;

/// The report as JSON.
#[derive(Debug, Serialize)]
struct View {
    untouched: bool,
    events: u64,
    seals: u64,
    transactions: u64,
    /// Position up to which the log was compared; `null` if it was not.
    log: Option<u64>,
    /// Hash of the last seal: keep it elsewhere, and compare it later with the `hash` of this seal in the export.
    head: Option<String>,
    /// Number of the last seal.
    seal: Option<u64>,
    findings: Vec<String>,
    more_findings: u64,
}

/// Verifies, prints, and fails with exit status 1 if something was touched.
pub(super) async fn run(
    folder: &Folder,
    heads: &[Head],
    without_log: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let reader = folder.reader().await?;
    let log = if without_log { None } else { folder.log()? };
    let subject = Subject {
        reader: &reader,
        log: log.as_ref(),
        recorded_contradictions: Settings::default().recorded_contradictions,
    };
    let progress = Arc::new(Progress::default());
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden()).with_style(
        ProgressStyle::with_template("{wide_bar} {percent} %, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut report = {
        let looking = verify(&subject, &SystemRandom, &progress);
        tokio::pin!(looking);
        let mut tick = tokio::time::interval(TICK);
        let mut ticks = 0;
        loop {
            tokio::select! {
                report = &mut looking => break report?,
                _ = tick.tick() => {
                    ticks += 1;
                    if ticks == PATIENCE {
                        bar.set_draw_target(ProgressDrawTarget::stderr());
                    }
                    let (events, all) = progress.events();
                    let (read, length) = progress.log_bytes();
                    bar.set_length(all + length / EVENT_BYTES);
                    bar.set_position(events + read / EVENT_BYTES);
                }
            }
        }
    };
    bar.finish_and_clear();
    for head in heads {
        let found = anchored(&*reader, head.seal, head.hash).await?;
        report.findings.extend(found.map(Finding::from));
    }
    print(&report, output)?;
    match report.findings.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Negative(refusal(&report, first))),
    }
}

fn print(report: &Report, output: &mut Output) -> Result<(), Failure> {
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    if output.is_json() {
        return output.value(&View {
            untouched: findings.is_empty(),
            events: report.events,
            seals: report.seals,
            transactions: report.transactions,
            log: report.log,
            head: report.owner.map(|owner| owner.head.to_string()),
            seal: report.owner.map(|owner| owner.seq),
            findings,
            more_findings: report.more,
        });
    }
    for finding in &findings {
        output.line(finding)?;
    }
    if report.more > 0 {
        output.line(&format!("and {} more", report.more))?;
    }
    let Report {
        events,
        seals,
        transactions,
        log,
        ..
    } = report;
    output.line(&format!(
        "{events} events under {seals} seals and {transactions} transactions were compared"
    ))?;
    output.line(&match log {
        Some(position) => format!("and the log with them, up to position {position}"),
        None => "the log was not compared: name the data folder that has it with --data".into(),
    })?;
    match (&report.owner, findings.is_empty()) {
        (Some(owner), true) => output.line(&format!(
            "nothing was touched; seal {} has the hash {}",
            owner.seq, owner.head
        )),
        (None, true) => output.line("nothing was ever recorded here"),
        (_, false) => Ok(()),
    }
}

fn refusal(report: &Report, first: &Finding) -> String {
    let others = report.findings.len() as u64 - 1 + report.more;
    if others == 0 {
        format!("the records were touched: {first}")
    } else {
        format!("the records were touched: {first}, and {others} more")
    }
}
