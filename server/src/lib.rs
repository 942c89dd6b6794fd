//! The one binary `halfmoon`: its command line and what stands behind it.
//!
//! | module | owns |
//! |---|---|
//! | [`failure`] | how a command ends when it cannot do what it was asked, and its exit status |
//! | [`folder`] | the data folder: which files it has, and how commands open them |
//! | [`output`] | what commands print: JSON, tables on a terminal, plain columns elsewhere |
//! | [`settings`] | which settings there are, and which of several values counts |
//! | [`serve`] | `halfmoon server`, `nameserver`, `broker`: the processes that stay |
//! | [`remote`] | `halfmoon topic`, `group`, `message`: over the wire |
//! | [`transactions`] | `halfmoon tx`: transactions and their history |
//! | [`repair`] | `halfmoon repair`: writes decisions that the database lacks from the log |
//! | [`backup`] | `halfmoon backup` and `restore`: a data folder copied while it is in use, and put back |
//! | [`audit`] | `halfmoon audit`: the whole history for others to keep |
//! | [`mod@bench`] | `halfmoon bench`: what this machine can do |

pub mod audit;
pub mod backup;
pub mod bench;
mod date;
pub mod failure;
pub mod folder;
pub mod output;
pub mod remote;
pub mod repair;
mod seals;
pub mod serve;
pub mod settings;
pub mod transactions;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use failure::Failure;

/// The environment variable that says what is logged to stderr, such as `info` or `coordinator=debug`.
pub const LOG_VARIABLE: &str = "HALFMOON_LOG";

/// Transactional messaging: a message and a database transaction agree, whatever crashes in between.
#[derive(Debug, Parser)]
#[command(name = "halfmoon", version, after_help = EXAMPLES)]
struct Halfmoon {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Server(serve::ServerArguments),
    Nameserver(serve::NameserverArguments),
    Broker(serve::BrokerArguments),
    Topic(remote::topic::Arguments),
    Group(remote::group::Arguments),
    Message(remote::message::Arguments),
    Tx(transactions::Arguments),
    Audit(audit::Arguments),
    Repair(repair::Arguments),
    Backup(backup::Arguments),
    Restore(backup::restore::Arguments),
    Bench(bench::Arguments),
}

const EXAMPLES: &str = "\
Examples:
  halfmoon server                                nameserver, broker and coordinator in one process
  halfmoon message send --topic orders --body hello   against any RocketMQ at NAMESRV_ADDR
  halfmoon tx list --state prepared              what is still open
  halfmoon tx why 0192F3C55E7A7B3C8D9E0F1A2B3C4D5E   why a message was published, or was not
  halfmoon audit export > history.ndjson         the whole history with its seals
  halfmoon backup /backups/monday                a copy of the data folder while it is in use

Exit status: 0 done, 1 not found or refused, 2 wrong usage or environment.
HALFMOON_LOG=info shows on stderr what happens inside.";

/// Runs the program with these arguments, the program's name first; returns its exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = match Halfmoon::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Nowhere to print to: the exit status still says it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match start(parsed.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(line) = failure.line() {
                eprintln!("halfmoon: {line}");
            }
            ExitCode::from(failure.exit_status())
        }
    }
}

/// One fewer than the machine has cores, since the log and the database work in threads of their own.
fn worker_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.saturating_sub(1).max(1)
}

fn start(command: Command) -> Result<(), Failure> {
    let filter = EnvFilter::builder();
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(wanted) => filter.parse(&wanted).map_err(|error| {
            Failure::Environment(format!(
                "{LOG_VARIABLE}={wanted} is not understood: {error}; write a level such as info, or MODULE=LEVEL"
            ))
        })?,
        Err(_) => EnvFilter::new("warn"),
    };
    // A caller of this library may log in its own way already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::colours(&std::io::stderr()))
        .try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .enable_all()
        .build()
        .map_err(|error| Failure::Environment(format!("threads cannot be started: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Server(arguments) => serve::server(arguments).await,
            Command::Nameserver(arguments) => serve::nameserver(arguments).await,
            Command::Broker(arguments) => serve::broker(arguments).await,
            Command::Topic(arguments) => remote::topic::run(arguments).await,
            Command::Group(arguments) => remote::group::run(arguments).await,
            Command::Message(arguments) => remote::message::run(arguments).await,
            Command::Tx(arguments) => transactions::run(arguments).await,
            Command::Audit(arguments) => audit::run(arguments).await,
            Command::Repair(arguments) => repair::run(arguments).await,
            Command::Backup(arguments) => backup::run(arguments).await,
            Command::Restore(arguments) => backup::restore::run(arguments).await,
            Command::Bench(arguments) => bench::run(arguments).await,
        }
    })
}
