//! `halfmoon repair`: gives a database that is older than the log the decisions of which the log has records.

use clap::Args;
use coordinator::embedded::Repair;
use coordinator::engine::repair::Lacking;
use coordinator::transaction::Decision;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::Output;

/// Write the decisions that the database lacks from their records in the log
///
/// For a database that was restored from a backup, or failed over to a replica that misses the last commits, beside a log
/// that is newer: the server refuses to start. Everything that was delivered, and every rollback that the log has heard of,
/// is decided again as it was. What else the database has forgotten is open, and its producers are asked.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Write it; without this it is only said
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

const EXAMPLES: &str = "\
Examples:
  halfmoon repair --data /var/lib/halfmoon --dry-run
  halfmoon repair --data /var/lib/halfmoon --database postgres://halfmoon@10.0.0.5/halfmoon --yes

No process may run in the data folder. Exit status: 0 nothing is lacking (any more), 1 --yes is missing, 2 no repair helps.";

/// What is lacking, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    commits: usize,
    rollbacks: usize,
    /// The last batch of the database that the log has seen.
    log_has_seen: u64,
    /// The last batch that the database has.
    database_has: u64,
    /// Whether nothing is lacking any more.
    whole: bool,
}

impl View {
    fn new(lacking: &Lacking, written: bool) -> Self {
        Self {
            commits: lacking.count(Decision::Commit),
            rollbacks: lacking.count(Decision::RollBack),
            log_has_seen: lacking.batches.0,
            database_has: lacking.batches.1,
            whole: written || lacking.nothing(),
        }
    }

    fn line(&self) -> String {
        let Self {
            commits, rollbacks, ..
        } = self;
        format!(
            "the log has seen batch {} of the database, which has {}; it lacks {commits} commits and {rollbacks} rollbacks",
            self.log_has_seen, self.database_has
        )
    }
}

/// Does what the arguments say.
///
/// # Errors
/// [`Failure`].
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        dry_run,
        yes,
        json,
        folder,
    } = arguments;
    let mut output = Output::new(json);
    folder.has_log()?;
    let database = folder.named_database()?;
    let opened = Repair::open(&folder.data, database).await;
    let repair = opened.map_err(|error| folder.refused(&error))?;
    let lacking = repair.lacking().clone();
    if !yes {
        let closed = repair.close().await;
        closed.map_err(|error| folder.refused(&error))?;
        print(&View::new(&lacking, false), &mut output)?;
        output.finish()?;
        return if dry_run || lacking.nothing() {
            Ok(())
        } else {
            let line = "nothing was written; run this again with --yes to write what is lacking";
            Err(Failure::Negative(line.into()))
        };
    }
    write(repair, &folder).await?;
    print(&View::new(&lacking, true), &mut output)?;
    output.finish()
}

/// Writes what is lacking and shows how far it is.
pub(crate) async fn write(repair: Repair, folder: &Folder) -> Result<(), Failure> {
    let lacking = repair.lacking();
    let all = lacking.count(Decision::Commit) + lacking.count(Decision::RollBack);
    let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} decisions, {eta} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(all as u64).with_style(style);
    let written = repair.run(|done| bar.set_position(done as u64)).await;
    bar.finish_and_clear();
    written.map_err(|error| folder.refused(&error))
}

fn print(view: &View, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.value(view);
    }
    if view.commits + view.rollbacks == 0 && view.log_has_seen <= view.database_has {
        return output.line("database and log fit together; nothing is lacking");
    }
    output.line(&view.line())?;
    if view.whole {
        output.line("written; the server can be started")?;
    }
    Ok(())
}
