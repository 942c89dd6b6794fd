//! `halfmoon bench`: measures this machine and prints what it measured, with the disk's own speed beside it.

mod children;
mod embedded;
mod load;
mod paths;
mod probe;
mod report;
mod restart;
mod server;
mod workplace;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::output::Output;

/// Measure this machine: transactions, plain messages, the log alone, and a start after a kill.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Embedded(embedded::Arguments),
    Server(server::Arguments),
    /// One process that a measurement needs to have killed or to look at from outside
    #[command(hide = true)]
    Child(children::Arguments),
}

/// Does what the arguments say.
///
/// # Errors
/// [`Failure`].
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Embedded(arguments) => {
            let mut output = Output::new(arguments.json);
            let report = embedded::run(arguments).await?;
            report.print(&mut output)?;
            output.finish()
        }
        Command::Server(arguments) => {
            let mut output = Output::new(arguments.json);
            let report = server::run(arguments).await?;
            report.print(&mut output)?;
            output.finish()
        }
        Command::Child(arguments) => children::run(arguments).await,
    }
}

/// A measurement that could not be made.
fn failed(what: impl std::fmt::Display) -> Failure {
    Failure::Environment(format!("the measurement stopped: {what}"))
}
