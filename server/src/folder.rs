//! The data folder: which files it has, and how commands open them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use coordinator::embedded::{DATABASE_FILE, Embedded, LOG_FOLDER, OpenError, Settings};
use coordinator::store::TxReader;
use coordinator::store::sqlite;

use mq_core::log::open::OpenError as LogOpenError;

use crate::failure::Failure;

/// Where the transactions are.
#[derive(Debug, Clone, Args)]
pub struct Folder {
    /// The data folder: the log in DIR/log, the database in DIR/halfmoon.db.
    #[arg(
        long,
        value_name = "DIR",
        env = "HALFMOON_DATA",
        default_value = "./halfmoon-data",
        global = true
    )]
    pub data: PathBuf,

    /// The database, if it is not inside the data folder: sqlite:PATH.
    #[arg(long, value_name = "URL", env = "HALFMOON_DATABASE", global = true)]
    pub database: Option<String>,
}

impl Folder {
    /// Opens the database for reading, whether or not a process works in the folder. Nothing is created or changed.
    ///
    /// # Errors
    /// [`Failure::Environment`] naming the folder or file, and what to do.
    pub async fn reader(&self) -> Result<Arc<dyn TxReader>, Failure> {
        let path = self.existing_database()?;
        Ok(sqlite::open_reader(&path, sqlite::Options::default()).await?)
    }

    /// Opens the data folder to change something in it, alone. Nothing is created.
    ///
    /// # Errors
    /// [`Failure::Environment`]: it is not a data folder, a process works in it, or it cannot be opened.
    pub async fn open(&self) -> Result<Embedded, Failure> {
        let folder = self.data.display();
        let database = self.existing_database()?;
        if !matches!(database.try_exists(), Ok(true)) {
            return Err(Failure::Environment(format!(
                "{} does not exist; name the database with --database sqlite:PATH",
                database.display()
            )));
        }
        if !matches!(self.data.join(LOG_FOLDER).try_exists(), Ok(true)) {
            return Err(Failure::Environment(format!(
                "{folder} is not a data folder: it has no {LOG_FOLDER}; name another with --data or HALFMOON_DATA"
            )));
        }
        let settings = Settings {
            database: Some(database),
            ..Settings::default()
        };
        let opened = Embedded::open(&self.data, settings).await;
        opened.map_err(|error| {
            if matches!(error, OpenError::Log(LogOpenError::Locked { .. })) {
                return Failure::Environment(format!(
                    "{folder} is in use by a running process; stop it, run this again, and start it"
                ));
            }
            Failure::Environment(error.to_string())
        })
    }

    /// The database's file; one that is named is not looked at.
    pub(crate) fn existing_database(&self) -> Result<PathBuf, Failure> {
        if let Some(url) = &self.database {
            return sqlite_path(url);
        }
        let folder = self.data.display();
        let path = self.data.join(DATABASE_FILE);
        match look(&self.data) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::Environment(format!(
                    "{folder} does not exist; name the data folder with --data or HALFMOON_DATA"
                )));
            }
            Err(error) => {
                return Err(Failure::Environment(format!(
                    "{folder} cannot be read: {error}; check the path and its permissions"
                )));
            }
        }
        match path.try_exists() {
            Ok(true) => Ok(path),
            Ok(false) => Err(Failure::Environment(format!(
                "{folder} is not a data folder: it has no {DATABASE_FILE}; name another with --data or HALFMOON_DATA"
            ))),
            Err(error) => Err(Failure::Environment(format!(
                "{} cannot be read: {error}; check the permissions",
                path.display()
            ))),
        }
    }
}

/// Whether `folder` is a folder that can be read.
fn look(folder: &Path) -> io::Result<()> {
    std::fs::read_dir(folder).map(|_| ())
}

fn sqlite_path(url: &str) -> Result<PathBuf, Failure> {
    match url.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() => {
            Ok(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))
        }
        _ => Err(Failure::Environment(format!(
            "--database {url} is not understood; write sqlite:PATH"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_by_its_path() {
        assert_eq!(
            sqlite_path("sqlite:a/b.db").unwrap(),
            PathBuf::from("a/b.db")
        );
        assert_eq!(
            sqlite_path("sqlite:///a/b.db").unwrap(),
            PathBuf::from("/a/b.db")
        );
        for wrong in ["a/b.db", "sqlite:", "mysql://x"] {
            let failure = sqlite_path(wrong).unwrap_err();
            assert!(
                failure.line().unwrap().contains("sqlite:PATH"),
                "{failure:?}"
            );
        }
    }
}
