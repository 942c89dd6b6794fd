//! `halfmoon audit`: the history of all transactions, for others to keep and to check.

mod export;
mod head;
mod verify;

use clap::{Args, Subcommand};
use head::Head;

use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::Output;

/// Verify the history of all transactions, or export it with its seals.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    folder: Folder,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look whether anybody has touched the history, its seals or the transactions
    ///
    /// Reads everything once and names each event, seal or transaction that is not as it was written: edited, removed,
    /// inserted or swapped. Exit status 1 if there is one. Works whether or not a process runs in the data folder.
    ///
    /// The log in the data folder, if it is there, is read as well: it has every half message and every decision, whatever
    /// was done to the database.
    ///
    /// Whoever can write the database and rewrites everything behind a change leaves a history that fits again. Keep what
    /// `audit head` prints elsewhere from time to time, and give it to --head later.
    Verify {
        /// A seal as `audit head` printed it at some time; several if repeated
        #[arg(long = "head", value_name = "SEAL:HASH")]
        heads: Vec<Head>,
        /// Compare the database with itself only; a log of many gigabytes takes its time
        #[arg(long)]
        without_log: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the number and the hash of the last seal, SEAL:HASH, to be kept where nobody can change it
    ///
    /// The hash is over the whole history so far. docs/audit.md tells how to sign and keep it.
    Head {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print events and seals, one JSON object a line, in the order they were recorded
    ///
    /// A seal follows the events it covers; its hash is over the hash of the seal before it and everything it covers. Reads
    /// page by page and works whether or not a process runs in the data folder.
    Export {
        /// First event to print
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        from: u64,
        /// Last event to print; the newest unless given
        #[arg(long, value_name = "N")]
        to: Option<u64>,
        /// Accepted like everywhere else; the export is always JSON
        #[arg(long)]
        json: bool,
    },
}

const EXAMPLES: &str = "\
Examples:
  halfmoon audit verify                                     nothing was touched, or what was
  halfmoon audit head >> /mnt/elsewhere/heads
  halfmoon audit verify --head 1204:9f86d081...             ... and the history still leads through that seal
  halfmoon audit export > history.ndjson
  halfmoon audit export --from 120001 >> history.ndjson     what came since
  halfmoon audit export | grep '\"step\":\"refused\"'         contradictions";

/// Does what the arguments say.
///
/// # Errors
/// [`Failure`].
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { command, folder } = arguments;
    let mut output;
    match command {
        Command::Verify {
            heads,
            without_log,
            json,
        } => {
            output = Output::new(json);
            let verified = verify::run(&folder, &heads, without_log, &mut output).await;
            output.finish()?;
            return verified;
        }
        Command::Head { json } => {
            output = Output::new(json);
            head::run(&folder, &mut output).await?;
        }
        Command::Export { from, to, json: _ } => {
            output = Output::new(true);
            export::run(&folder, from, to, &mut output).await?;
        }
    }
    output.finish()
}
