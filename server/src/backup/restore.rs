//! `halfmoon restore`: makes a data folder from a backup, in which database and log fit together.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use coordinator::embedded::{DATABASE_FILE, LOG_FOLDER, Repair};
use coordinator::transaction::Decision;
use serde::Serialize;

use super::{WHOLE, copy, make_empty, unusable};
use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::Output;
use crate::repair;

/// Where the log is until it is copied: a folder without a log does not open.
const UNFINISHED: &str = "log.restoring";

/// Make a data folder from a backup
///
/// Decisions of which only the log of the backup knows are written into the database. With a Postgres database, restore that
/// first, to a time before the backup of the log: the two are compared here.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The folder of the backup
    #[arg(value_name = "DIR")]
    from: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

const EXAMPLES: &str = "\
Examples:
  halfmoon restore /backups/monday --data /var/lib/halfmoon
  pg_restore -d $URL monday.dump && halfmoon restore /backups/monday --data /var/lib/halfmoon --database $URL

The data folder must be empty or missing. Exit status: 0 the server can be started, 2 the backup does not fit.";

/// What was restored.
#[derive(Debug, Serialize)]
struct View {
    /// Bytes of the log.
    bytes: u64,
    /// Decisions that were written into the database from the log.
    decisions: usize,
}

/// Does what the arguments say.
///
/// # Errors
/// [`Failure`].
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { from, json, folder } = arguments;
    let mut output = Output::new(json);
    let database = folder.named_database()?;
    if !matches!(from.join(WHOLE).try_exists(), Ok(true)) {
        return Err(Failure::Environment(format!(
            "{} is not a whole backup: it has no {WHOLE}; give another",
            from.display()
        )));
    }
    let file = from.join(DATABASE_FILE);
    if database.is_none() && !file.exists() {
        return Err(Failure::Environment(
            "the backup has no database; restore yours and name it with --database".into(),
        ));
    }
    make_empty(&folder.data)?;
    let (source, data) = (from.join(LOG_FOLDER), folder.data.clone());
    let with_database = database.is_none();
    let copying = tokio::task::spawn_blocking(move || {
        if with_database {
            let to = data.join(DATABASE_FILE);
            fs::copy(&file, &to)?;
            copy::sync(&to)?;
        }
        let mut held = copy::Held::default();
        let copied = copy::segments(&source, &data.join(UNFINISHED), &mut held)?;
        fs::rename(data.join(UNFINISHED), data.join(LOG_FOLDER))?;
        copy::sync(&data)?;
        Ok(copied)
    });
    let copied = copying.await.map_err(std::io::Error::from);
    let copied = copied.and_then(|copied| copied);
    let copied = copied.map_err(|error| unusable(&folder.data, &error))?;
    let opened = Repair::open(&folder.data, database).await;
    let fitting = opened.map_err(|error| folder.refused(&error))?;
    let lacking = fitting.lacking();
    let decisions = lacking.count(Decision::Commit) + lacking.count(Decision::RollBack);
    repair::write(fitting, &folder).await?;
    let view = View {
        bytes: copied.bytes,
        decisions,
    };
    if output.is_json() {
        output.value(&view)?;
    } else {
        let data = folder.data.display();
        output.line(&format!(
            "{data}: {} bytes of the log; {decisions} decisions were written into the database from it; \
             the server can be started",
            view.bytes
        ))?;
    }
    output.finish()
}
