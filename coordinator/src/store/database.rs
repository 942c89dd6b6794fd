//! A database named in one text, `sqlite:PATH` or `postgres://...`, and the store in it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

#[cfg(feature = "postgres")]
use super::postgres;
#[cfg(feature = "sqlite")]
use super::sqlite;
use super::{StoreError, TxReader, TxStore};

/// Which database holds the coordinator's tables.
///
/// ```
/// # use coordinator::store::database::Database;
/// let file: Database = "sqlite:halfmoon.db".parse()?;
/// let server: Database = "postgres://halfmoon@10.0.0.5/halfmoon".parse()?;
/// # let _ = (file, server);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Database {
    /// A file of SQLite's.
    Sqlite(PathBuf),
    /// The URL of a Postgres database that exists.
    Postgres(String),
}

/// How either kind is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// SQLite.
    #[cfg(feature = "sqlite")]
    pub sqlite: sqlite::Options,
    /// Postgres.
    #[cfg(feature = "postgres")]
    pub postgres: postgres::Options,
}

impl Database {
    /// Opens it for writing; a file, or a schema in a Postgres database, is made if it is not there.
    ///
    /// # Errors
    /// [`StoreError`], naming the database and what to do.
    pub async fn open(&self, options: Options) -> Result<Arc<dyn TxStore>, StoreError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => Ok(Arc::new(sqlite::Sqlite::open(path, options.sqlite).await?)),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => Ok(Arc::new(
                postgres::Postgres::open(url, options.postgres).await?,
            )),
            #[cfg(not(all(feature = "sqlite", feature = "postgres")))]
            _ => Err(self.left_out(options)),
        }
    }

    /// Opens it for reading, whether or not a process writes to it; creates and changes nothing.
    ///
    /// # Errors
    /// [`StoreError`], naming the database and what to do.
    pub async fn open_reader(&self, options: Options) -> Result<Arc<dyn TxReader>, StoreError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => sqlite::open_reader(path, options.sqlite).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => postgres::open_reader(url, options.postgres).await,
            #[cfg(not(all(feature = "sqlite", feature = "postgres")))]
            _ => Err(self.left_out(options)),
        }
    }

    /// Writes a file of SQLite's, as it is now, into a new file `to`; false for another kind of database, which has tools of
    /// its own. Changes nothing in it and stops nobody; durable once the file is synced.
    ///
    /// # Errors
    /// [`StoreError`] naming the file; part of the copy may be there.
    pub async fn copy_file(&self, to: &Path, options: Options) -> Result<bool, StoreError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => {
                sqlite::copy(path, to, options.sqlite).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }

    #[cfg(not(all(feature = "sqlite", feature = "postgres")))]
    fn left_out(&self, _: Options) -> StoreError {
        StoreError::Foreign(format!(
            "{self}: this program was built without this kind of database"
        ))
    }
}

impl From<PathBuf> for Database {
    fn from(path: PathBuf) -> Self {
        Self::Sqlite(path)
    }
}

impl FromStr for Database {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(url.to_owned()));
        }
        match url.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => {
                let path = path.strip_prefix("//").unwrap_or(path);
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            _ => Err(format!(
                "{} names no database; write sqlite:PATH or postgres://USER@HOST/DATABASE",
                public(url)
            )),
        }
    }
}

/// Without user, password and parameters.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => f.write_str(&public(url)),
        }
    }
}

/// `url` without user, password and parameters.
fn public(url: &str) -> String {
    let (scheme, behind) = match url.split_once("://") {
        Some((scheme, behind)) => (format!("{scheme}://"), behind),
        None => (String::new(), url),
    };
    let place = behind.split('?').next().unwrap_or_default();
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    format!("{scheme}{place}")
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_by_its_url_and_shown_without_its_password() {
        for (url, shown) in [
            ("sqlite:a/b.db", "a/b.db"),
            ("sqlite:///a/b.db", "/a/b.db"),
            (
                "postgres://me:se@cret@db:5433/shop?sslmode=require",
                "postgres://db:5433/shop",
            ),
            ("postgresql://db/shop", "postgresql://db/shop"),
        ] {
            let database: Database = url.parse().unwrap();
            assert_eq!(database.to_string(), shown);
            assert_eq!(format!("{database:?}"), format!("Database({shown})"));
        }
        for wrong in ["a/b.db", "sqlite:", "mysql://me:secret@x", ""] {
            let error = Database::from_str(wrong).unwrap_err();
            assert!(
                error.contains("sqlite:PATH") && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
