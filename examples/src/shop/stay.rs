//! Where a shop stays: in a folder and perhaps a Postgres database that are kept, or in temporary ones that go after success.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use coordinator::store::postgres::server::{create_database, drop_database};
use mq_core::clock::{Clock as _, SystemClock};
use tempfile::TempDir;

/// Where a shop stays.
#[derive(Debug)]
pub struct Stay {
    folder: PathBuf,
    postgres: Option<String>,
    temporary: Option<Temporary>,
}

#[derive(Debug)]
struct Temporary {
    folder: TempDir,
    /// The URL of the server, and the name of the database there.
    database: Option<(String, String)>,
}

impl Stay {
    /// In `folder`, with every table in the Postgres database if there is one. Without a folder in a new temporary one, and
    /// in a new database of the same server.
    ///
    /// # Errors
    /// Says what cannot be made.
    pub async fn of(folder: Option<&Path>, postgres: Option<&str>) -> Result<Self> {
        if let Some(folder) = folder {
            return Ok(Self {
                folder: folder.to_path_buf(),
                postgres: postgres.map(str::to_owned),
                temporary: None,
            });
        }
        let folder = tempfile::Builder::new().prefix("halfmoon-shop-").tempdir();
        let folder = folder.context("no temporary folder can be made")?;
        let (mut url, mut database) = (None, None);
        if let Some(server) = postgres {
            let (process, now) = (std::process::id(), SystemClock::new().wall_ms());
            let name = format!("halfmoon_shop_{process}_{now}");
            url = Some(create_database(server, &name).await?);
            database = Some((server.to_owned(), name));
        }
        Ok(Self {
            folder: folder.path().to_path_buf(),
            postgres: url,
            temporary: Some(Temporary { folder, database }),
        })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The URL of the Postgres database, if there is one.
    #[must_use]
    pub fn postgres(&self) -> Option<&str> {
        self.postgres.as_deref()
    }

    /// Ends the stay: what is temporary is removed if all went well, and otherwise kept and named on standard error.
    ///
    /// # Errors
    /// The temporary database cannot be dropped.
    pub async fn end(self, well: bool) -> Result<()> {
        let Some(Temporary { folder, database }) = self.temporary else {
            return Ok(());
        };
        if !well {
            let folder = folder.keep();
            let also = database.map(|(_, name)| format!(" and in the database {name}"));
            let also = also.unwrap_or_default();
            eprintln!("everything is kept in {}{also}", folder.display());
        } else if let Some((server, name)) = database {
            drop_database(&server, &name).await?;
        }
        Ok(())
    }
}
