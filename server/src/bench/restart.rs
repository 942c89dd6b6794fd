//! What only another process shows: a start after a kill, the memory of a process that does nothing.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use coordinator::embedded::{DATABASE_FILE, Embedded, Settings};
use coordinator::engine::settings as engine;
use coordinator::verify::{Subject, verify};
use mq_core::clock::{Clock as _, SystemClock};
use mq_core::random::SystemRandom;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::children::Opened;
use super::failed;
use super::report::{Check, hundredths, tenths};
use super::workplace::Workplace;
use crate::failure::Failure;
use crate::folder::Folder;

/// How large the state is that a killed process leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    /// Decided transactions, at least.
    pub(super) transactions: u64,
    /// Open transactions.
    pub(super) open: u64,
    /// Bytes of each body.
    pub(super) size: usize,
}

/// Memory and start of a process that has opened a fresh folder and does nothing.
pub(super) async fn idle(workplace: &Workplace) -> Result<Vec<Check>, Failure> {
    let place = workplace.place("idle");
    let opened = open(place.path()).await?;
    Ok(vec![
        check("start_fresh", opened.seconds * 1e3, "ms"),
        check("resident_idle", opened.resident_kib as f64 / 1024.0, "MiB"),
        check("threads_idle", opened.threads as f64, "threads"),
    ])
}

/// A process that fills a folder is killed with SIGKILL in the middle of its work; then the folder is opened, closed, and
/// opened again.
pub(super) async fn after_kill(workplace: &Workplace, left: Left) -> Result<Vec<Check>, Failure> {
    let empty = workplace.place("empty");
    Embedded::open(empty.path(), Settings::default())
        .await
        .map_err(failed)?
        .close()
        .await
        .map_err(failed)?;
    let place = workplace.place("killed");
    fill_and_kill(place.path(), left).await?;
    let killed = open(place.path()).await?;
    let database = database_bytes(place.path())?.saturating_sub(database_bytes(empty.path())?);
    let clean = open(place.path()).await?;
    let (events, history) = verified(place.path(), false).await?;
    let (_, whole) = verified(place.path(), true).await?;
    let rows = (left.transactions + left.open) as f64;
    Ok(vec![
        check(
            "decided_before_kill",
            left.transactions as f64,
            "transactions",
        ),
        check("open_at_kill", left.open as f64, "transactions"),
        check("start_after_kill", killed.seconds * 1e3, "ms"),
        check(
            "resident_after_start",
            killed.resident_kib as f64 / 1024.0,
            "MiB",
        ),
        check("start_after_clean_stop", clean.seconds * 1e3, "ms"),
        check("sql_bytes_per_transaction", database as f64 / rows, "bytes"),
        check("audited", events as f64, "events"),
        check("audit_verify_without_log", history, "s"),
        check("audit_verify", whole, "s"),
    ])
}

/// Has everything in the folder verified; how many events that were, and the seconds it took.
async fn verified(data: &Path, with_log: bool) -> Result<(u64, f64), Failure> {
    let folder = Folder {
        data: data.into(),
        database: None,
    };
    let reader = folder.reader().await?;
    let log = if with_log { folder.log()? } else { None };
    let subject = Subject {
        reader: &reader,
        log: log.as_ref(),
        recorded_contradictions: engine::Settings::default().recorded_contradictions,
    };
    let clock = SystemClock::new();
    let began = clock.monotonic();
    let report = verify(&subject, &SystemRandom, &Arc::default()).await;
    let report = report.map_err(failed)?;
    match report.findings.first() {
        None => Ok((report.events, (clock.monotonic() - began).as_secs_f64())),
        Some(found) => Err(failed(found)),
    }
}

fn check(name: &'static str, value: f64, unit: &'static str) -> Check {
    let value = if value < 10.0 {
        hundredths(value)
    } else {
        tenths(value)
    };
    Check {
        name: name.into(),
        value,
        unit,
    }
}

async fn fill_and_kill(data: &Path, left: Left) -> Result<(), Failure> {
    let mut child = start("fill", data, |command| {
        command
            .arg("--transactions")
            .arg(left.transactions.to_string())
            .arg("--open")
            .arg(left.open.to_string())
            .arg("--size")
            .arg(left.size.to_string());
    })?;
    let said = line(&mut child).await?;
    // SIGKILL; the process is gone when this returns.
    child.kill().await.map_err(failed)?;
    if said.is_some() {
        Ok(())
    } else {
        Err(failed("the process to be killed has ended before"))
    }
}

/// Has another process open the folder and close it again.
async fn open(data: &Path) -> Result<Opened, Failure> {
    let mut child = start("open", data, |_| {})?;
    let said = line(&mut child).await?;
    let ended = child.wait().await.map_err(failed)?;
    let opened = said.and_then(|said| serde_json::from_str(&said).ok());
    opened
        .filter(|_| ended.success())
        .ok_or_else(|| failed(format!("{} could not be opened", data.display())))
}

fn start(what: &str, data: &Path, more: impl FnOnce(&mut Command)) -> Result<Child, Failure> {
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["bench", "child", what, "--data"]).arg(data);
    more(&mut command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)
}

/// The first line that the process says; `None` if it ends without.
async fn line(child: &mut Child) -> Result<Option<String>, Failure> {
    let Some(stdout) = child.stdout.take() else {
        return Ok(None);
    };
    BufReader::new(stdout)
        .lines()
        .next_line()
        .await
        .map_err(failed)
}

/// Bytes of the database and of what its write-ahead log still has.
fn database_bytes(data: &Path) -> Result<u64, Failure> {
    let mut bytes = std::fs::metadata(data.join(DATABASE_FILE))
        .map_err(failed)?
        .len();
    if let Ok(wal) = std::fs::metadata(data.join(format!("{DATABASE_FILE}-wal"))) {
        bytes += wal.len();
    }
    Ok(bytes)
}
