//! The data folder: which files it has, and how commands open them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use coordinator::embedded::{DATABASE_FILE, Embedded, LOG_FOLDER, OpenError, Settings};
use coordinator::store::TxReader;
use coordinator::store::database::{Database, Options};

use mq_core::log::disk::ReadOnlyFolder;
use mq_core::log::open::OpenError as LogOpenError;
use mq_core::log::reading::LogReader;

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

    /// The database, if it is not inside the data folder: sqlite:PATH or postgres://USER@HOST/DATABASE.
    #[arg(
        long,
        alias = "postgres",
        value_name = "URL",
        env = "HALFMOON_DATABASE",
        global = true
    )]
    pub database: Option<String>,
}

impl Folder {
    /// Opens the database for reading, whether or not a process works in the folder. Nothing is created or changed.
    ///
    /// # Errors
    /// [`Failure::Environment`] naming the folder or file, and what to do.
    pub async fn reader(&self) -> Result<Arc<dyn TxReader>, Failure> {
        let database = self.existing_database()?;
        Ok(database.open_reader(Options::default()).await?)
    }

    /// Opens the log for reading, whether or not a process works in the folder; `None` if the folder has none.
    ///
    /// # Errors
    /// [`Failure::Environment`]: what is there is not a whole log.
    pub fn log(&self) -> Result<Option<Arc<LogReader>>, Failure> {
        let path = self.data.join(LOG_FOLDER);
        if !path.is_dir() {
            return Ok(None);
        }
        let opened = LogReader::open(Arc::new(ReadOnlyFolder::new(&path)));
        let failed = |error| Failure::Environment(format!("{}: {error}", path.display()));
        opened.map(|log| Some(Arc::new(log))).map_err(failed)
    }

    /// Opens the data folder to change something in it, alone. Nothing is created.
    ///
    /// # Errors
    /// [`Failure::Environment`]: it is not a data folder, a process works in it, or it cannot be opened.
    pub async fn open(&self) -> Result<Embedded, Failure> {
        let database = self.existing_database()?;
        if database
            .file()
            .is_some_and(|file| !matches!(file.try_exists(), Ok(true)))
        {
            return Err(Failure::Environment(format!(
                "{database} does not exist; name the database with --database sqlite:PATH"
            )));
        }
        self.has_log()?;
        let settings = Settings {
            database: Some(database),
            ..Settings::default()
        };
        let opened = Embedded::open(&self.data, settings).await;
        opened.map_err(|error| self.refused(&error))
    }

    /// Makes sure that there is a log.
    ///
    /// # Errors
    /// [`Failure::Environment`] naming the folder.
    pub(crate) fn has_log(&self) -> Result<(), Failure> {
        if matches!(self.data.join(LOG_FOLDER).try_exists(), Ok(true)) {
            return Ok(());
        }
        Err(Failure::Environment(format!(
            "{} is not a data folder: it has no {LOG_FOLDER}; name another with --data or HALFMOON_DATA",
            self.data.display()
        )))
    }

    /// The line for a folder that does not open.
    pub(crate) fn refused(&self, error: &OpenError) -> Failure {
        if matches!(error, OpenError::Log(LogOpenError::Locked { .. })) {
            return Failure::Environment(format!(
                "{} is in use by a running process; stop it, run this again, and start it",
                self.data.display()
            ));
        }
        Failure::Environment(error.to_string())
    }

    /// The database; one that is named is not looked at.
    pub(crate) fn existing_database(&self) -> Result<Database, Failure> {
        if let Some(database) = self.named_database()? {
            return Ok(database);
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
            Ok(true) => Ok(path.into()),
            Ok(false) => Err(Failure::Environment(format!(
                "{folder} is not a data folder: it has no {DATABASE_FILE}; name another with --data or HALFMOON_DATA"
            ))),
            Err(error) => Err(Failure::Environment(format!(
                "{} cannot be read: {error}; check the permissions",
                path.display()
            ))),
        }
    }

    /// The database that `--database` names, if it does.
    ///
    /// # Errors
    /// [`Failure::Environment`] when it names none.
    pub fn named_database(&self) -> Result<Option<Database>, Failure> {
        let named = self.database.as_deref().map(str::parse);
        named
            .transpose()
            .map_err(|error| Failure::Environment(format!("--database {error}")))
    }
}

/// Whether `folder` is a folder that can be read.
fn look(folder: &Path) -> io::Result<()> {
    std::fs::read_dir(folder).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_by_its_url() {
        let named = |url: &str| {
            let folder = Folder {
                data: PathBuf::from("data"),
                database: Some(url.to_owned()),
            };
            folder.existing_database()
        };
        assert_eq!(
            named("sqlite:a/b.db").unwrap().file(),
            Some("a/b.db".as_ref())
        );
        assert_eq!(named("postgres://h/d").unwrap().file(), None);
        for wrong in ["a/b.db", "sqlite:", "mysql://x"] {
            let failure = named(wrong).unwrap_err();
            assert!(
                failure.line().unwrap().contains("sqlite:PATH"),
                "{failure:?}"
            );
        }
    }
}
