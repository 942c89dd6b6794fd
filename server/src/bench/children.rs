//! The processes that a measurement starts: one that fills a folder until it is killed, one that only opens a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Args, Subcommand};
use coordinator::embedded::{Embedded, Settings};
use mq_core::clock::{Clock as _, SystemClock};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::failed;
use super::paths::Sender;
use crate::failure::Failure;
use crate::output::Output;

/// Tasks of the child that fills a folder.
const IN_FLIGHT: u64 = 1024;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Decide so many transactions, leave so many open, say so, and go on deciding until killed
    Fill {
        #[arg(long)]
        data: PathBuf,
        #[arg(long)]
        transactions: u64,
        #[arg(long)]
        open: u64,
        #[arg(long)]
        size: usize,
    },
    /// Open a folder, say how that went, and close it
    Open {
        #[arg(long)]
        data: PathBuf,
    },
}

/// What a process says that has opened a folder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Opened {
    /// How long opening took.
    pub(super) seconds: f64,
    /// Resident memory then, in KiB.
    pub(super) resident_kib: u64,
    /// Threads then.
    pub(super) threads: u64,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Fill {
            data,
            transactions,
            open,
            size,
        } => fill(&data, transactions, open, size).await,
        Command::Open { data } => open(&data).await,
    }
}

async fn fill(data: &Path, transactions: u64, open: u64, size: usize) -> Result<(), Failure> {
    let embedded = Embedded::open(data, Settings::default())
        .await
        .map_err(failed)?;
    let sender = Sender::new(&embedded, size)?;
    // Open ones last: a start finds them behind everything that was decided.
    share(IN_FLIGHT, transactions, {
        let sender = sender.clone();
        move || sender.clone().transaction()
    })
    .await?;
    share(IN_FLIGHT, open, {
        let sender = sender.clone();
        move || {
            let sender = sender.clone();
            async move { sender.half().await.map(|_| ()) }
        }
    })
    .await?;
    let mut output = Output::new(true);
    output.value(&"filled")?;
    output.finish()?;
    // Whoever started this kills it in the middle of its work. It ends by itself soon after its starter is gone.
    let ever = async { share(IN_FLIGHT, u64::MAX, move || sender.clone().transaction()).await };
    let orphaned = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    tokio::select! {
        ended = ever => ended,
        _ = orphaned => Ok(()),
    }
}

/// Does `count` operations, at most `in_flight` at a time.
async fn share<Operation, Done>(
    in_flight: u64,
    count: u64,
    operation: Operation,
) -> Result<(), Failure>
where
    Operation: Fn() -> Done + Clone + Send + 'static,
    Done: Future<Output = Result<(), String>> + Send + 'static,
{
    let left = Arc::new(AtomicU64::new(count));
    let mut slots = JoinSet::new();
    for _ in 0..in_flight {
        let (left, operation) = (left.clone(), operation.clone());
        slots.spawn(async move {
            let take = |left: u64| left.checked_sub(1);
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
            {
                operation().await?;
            }
            Ok::<(), String>(())
        });
    }
    while let Some(ended) = slots.join_next().await {
        ended.map_err(failed)?.map_err(failed)?;
    }
    Ok(())
}

async fn open(data: &Path) -> Result<(), Failure> {
    let clock = SystemClock::new();
    let began = clock.monotonic();
    let embedded = Embedded::open(data, Settings::default())
        .await
        .map_err(failed)?;
    let seconds = clock.monotonic().saturating_sub(began).as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut output = Output::new(true);
    output.value(&Opened {
        seconds,
        resident_kib: field(&status, "VmRSS:"),
        threads: field(&status, "Threads:"),
    })?;
    output.finish()?;
    embedded.close().await.map_err(failed)
}

/// A number in `/proc/self/status`; 0 where there is no such file.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_names() {
        let status = "Name:\thalfmoon\nVmRSS:\t   9216 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), 9216);
        assert_eq!(field(status, "Threads:"), 7);
        assert_eq!(field(status, "VmSwap:"), 0);
    }

    #[tokio::test]
    async fn exactly_so_many_operations_are_done() {
        let done = Arc::new(AtomicU64::new(0));
        let counted = done.clone();
        share(7, 100, move || {
            let counted = counted.clone();
            async move {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        })
        .await
        .unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 100);
    }
}
