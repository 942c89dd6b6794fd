//! SQLite: one writer connection with full durability, a few read-only connections beside it.

mod copy;
mod encode;
mod names;
mod open;
mod pages;
mod reader;
mod rows;
mod statements;
mod uniform;
mod writer;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mq_core::log::LogId;
use sqlx::ConnectOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::model::Fault;
use super::{Owner, StoreError, TxReader, TxStore, TxWriter};
pub(super) use copy::copy;
use writer::Writer;

/// How a database is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How long a statement waits for a lock that another process holds. 5 s: longer than any of our own transactions.
    pub busy_timeout: Duration,
    /// Connections for reading. 2: a long list and the sweep do not wait for each other.
    pub readers: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(5),
            readers: 2,
        }
    }
}

/// A database file. Clones share it.
#[derive(Debug, Clone)]
pub struct Sqlite {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    options: Options,
    readers: SqlitePool,
    faults: Mutex<VecDeque<Fault>>,
}

impl Sqlite {
    /// Opens the database at `path`; creates it (mode 0600) if there is no file, and brings older tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] naming the file, and nothing in it changed, when it is not a database of ours, newer than this
    /// program, read-only, or the SQLite linked into this program is older than 3.51.3.
    /// [`StoreError::Unavailable`] when it cannot be opened now.
    pub async fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let path = open::prepare(path.as_ref(), options).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(options.readers.max(1))
            .test_before_acquire(false)
            .connect_lazy_with(connect_options(&path, options).read_only(true));
        Ok(Self {
            shared: Arc::new(Shared {
                path,
                options,
                readers,
                faults: Mutex::default(),
            }),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Makes the next commit fail; several faults are used up one by one. For tests and drills.
    pub fn fail_next(&self, fault: Fault) {
        self.faults().push_back(fault);
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, VecDeque<Fault>> {
        self.shared
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fault(&self) -> Option<Fault> {
        self.faults().pop_front()
    }
}

#[async_trait]
impl TxStore for Sqlite {
    async fn take_over(&self, log: LogId) -> Result<(Box<dyn TxWriter>, Owner), StoreError> {
        let (writer, owner) = Writer::take_over(self.clone(), log).await?;
        Ok((Box::new(writer), owner))
    }

    fn reader(&self) -> Arc<dyn TxReader> {
        Arc::new(reader::Reader::new(
            self.shared.readers.clone(),
            &self.shared.path,
            self.shared.options,
        ))
    }

    async fn close(&self) {
        self.shared.readers.close().await;
    }
}

/// Reads the database at `path` without becoming its writer, whether or not another process has it open. Creates and changes
/// nothing.
///
/// # Errors
/// [`StoreError::Foreign`] naming the file when there is none, it is not a database of ours, or its tables are of another
/// version. [`StoreError::Unavailable`] when it cannot be opened now.
pub async fn open_reader(
    path: impl AsRef<Path>,
    options: Options,
) -> Result<Arc<dyn TxReader>, StoreError> {
    let path = open::inspect(path.as_ref(), options).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(options.readers.max(1))
        .test_before_acquire(false)
        .connect_lazy_with(connect_options(&path, options).read_only(true));
    Ok(Arc::new(reader::Reader::new(readers, &path, options)))
}

/// How every connection to the file at `path` is made. Nothing is created, statements are not logged.
fn connect_options(path: &Path, options: Options) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(options.busy_timeout)
        .foreign_keys(true)
        .pragma("recursive_triggers", "ON") // so that REPLACE fires the triggers that keep history
        .pragma("trusted_schema", "OFF")
        // Rows cross over from a thread of their own; a page of them shall not wake both sides again and again.
        .row_buffer_size(1024)
        .thread_name(|number| format!("sqlite-{number}"))
        .disable_statement_logging()
}

/// How the writer connects: as [`connect_options`], and a commit that returned is on disk.
fn writer_options(path: &Path, options: Options) -> SqliteConnectOptions {
    connect_options(path, options)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "1000")
        // What a long reader made the WAL grow to is given back: 64 MiB.
        .pragma("journal_size_limit", "67108864")
}

/// The error of reading or connecting, by what it means.
fn read_error(error: &sqlx::Error) -> StoreError {
    match primary_code(error) {
        Some(CORRUPT | NOT_A_DATABASE) => StoreError::Damaged(text(error)),
        _ => StoreError::Unavailable(text(error)),
    }
}

const READ_ONLY: u32 = 8;
const CORRUPT: u32 = 11;
const CONSTRAINT: u32 = 19;
const NOT_A_DATABASE: u32 = 26;

/// SQLite's primary result code, if SQLite said no.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<u32>().ok().map(|extended| extended & 0xff)
}

fn text(error: &sqlx::Error) -> String {
    error
        .as_database_error()
        .map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

#[cfg(test)]
mod tests;
