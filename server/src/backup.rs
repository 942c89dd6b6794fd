//! `halfmoon backup`: a copy of a data folder, whether or not a process works in it.
//!
//! The database first, the log after it: everything that the database refers to is in the copy of the log. Decisions that came
//! between the two are in the log alone, and `restore` writes them into the database.

mod copy;
pub mod restore;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use coordinator::embedded::{DATABASE_FILE, LOG_FOLDER};
use coordinator::store::database::Options;
use serde::Serialize;

use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::Output;

/// The file that is written last: a backup without it is not whole.
pub(crate) const WHOLE: &str = "backup.json";

/// Copy the data folder into a new folder, while it is in use or not
///
/// Copies the database if it is a file, and then the log. Of a Postgres database, make a dump just before, or archive its log
/// for point-in-time recovery: `restore` compares it with the log.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The folder of the backup; it must be empty or missing
    #[arg(value_name = "DIR")]
    into: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

const EXAMPLES: &str = "\
Examples:
  halfmoon backup /backups/monday --data /var/lib/halfmoon
  pg_dump -Fc -d $URL -f monday.dump && halfmoon backup /backups/monday --data /var/lib/halfmoon --database $URL
  halfmoon restore /backups/monday --data /var/lib/halfmoon";

/// What was copied.
#[derive(Debug, Serialize)]
struct View {
    /// Whether the database is in the backup.
    database: bool,
    segments: usize,
    bytes: u64,
}

/// Does what the arguments say.
///
/// # Errors
/// [`Failure`].
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { into, json, folder } = arguments;
    let mut output = Output::new(json);
    folder.has_log()?;
    let database = folder.existing_database()?;
    make_empty(&into)?;
    let log = folder.data.join(LOG_FOLDER);
    let held = copy::Held::open(&log);
    let mut held = held.map_err(|error| unusable(&log, &error))?;
    let file = into.join(DATABASE_FILE);
    let has_database = database.copy_file(&file, Options::default()).await?;
    if has_database {
        let synced = fs::File::open(&file).and_then(|file| file.sync_all());
        synced.map_err(|error| unusable(&file, &error))?;
    }
    let to = into.join(LOG_FOLDER);
    let copied = tokio::task::spawn_blocking(move || copy::segments(&log, &to, &mut held)).await;
    let copied = copied.map_err(io::Error::from).and_then(|copied| copied);
    let copied = copied.map_err(|error| {
        Failure::Environment(format!(
            "the log cannot be copied: {error}; empty {} and try again",
            into.display()
        ))
    })?;
    let view = View {
        database: has_database,
        segments: copied.segments,
        bytes: copied.bytes,
    };
    let text = serde_json::to_string(&view).map_err(io::Error::from)?;
    let whole = into.join(WHOLE);
    let written = fs::write(&whole, text + "\n").and_then(|()| copy::sync(&whole));
    let written = written.and_then(|()| copy::sync(&into));
    written.map_err(|error| unusable(&whole, &error))?;
    print(&view, &into, &mut output)?;
    output.finish()
}

fn print(view: &View, into: &Path, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.value(view);
    }
    let database = if view.database {
        "the database and "
    } else {
        ""
    };
    output.line(&format!(
        "{}: {database}{} bytes of the log",
        into.display(),
        view.bytes
    ))
}

/// Makes a folder, or takes one that is empty.
fn make_empty(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
    let mut entries = fs::read_dir(folder).map_err(|error| unusable(folder, &error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Failure::Environment(format!(
            "{} is not empty; give a new folder",
            folder.display()
        ))),
    }
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::Environment(format!(
        "{} cannot be used: {error}; check the path, its permissions and the room on its disk",
        path.display()
    ))
}
