//! `halfmoon audit`: the history of all transactions, for others to keep and to check.

mod export;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::Output;

/// Export the history of all transactions with its seals.
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
  halfmoon audit export > history.ndjson
  halfmoon audit export --from 120001 >> history.ndjson     what came since
  halfmoon audit export | grep '\"step\":\"refused\"'         contradictions";

/// Does what the arguments say.
///
/// # Errors
/// [`Failure`].
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { command, folder } = arguments;
    let mut output = Output::new(true);
    match command {
        Command::Export { from, to, json: _ } => {
            export::run(&folder, from, to, &mut output).await?;
        }
    }
    output.finish()
}
