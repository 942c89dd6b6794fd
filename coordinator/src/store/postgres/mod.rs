//! Postgres: one writer connection, a few connections for reading beside it, everything in the schema `halfmoon`.
//!
//! A batch is one statement that commits itself: no transaction stays open when this process stalls, and a writer that was
//! replaced changes nothing, since every part of the statement hangs on the owner row. Behind a pooler that gives whole
//! transactions only (`statement-cache-capacity=0` in the URL), it stands in a transaction of its own, and nothing outlives it
//! in the session.

mod encode;
mod names;
mod open;
mod pages;
mod reader;
mod rows;
pub mod server;
mod session;
mod statements;
mod text;
mod writer;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mq_core::log::LogId;

use super::model::Fault;
use super::{Owner, StoreError, TxReader, TxStore, TxWriter};
use session::Place;
use writer::Writer;

/// How a database is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How long a statement waits for a lock, that of the owner row above all. 5 s: far longer than any batch.
    pub lock_wait: Duration,
    /// How long a statement may run in the database, and how long a transaction of ours may stand idle. 20 s: a batch takes
    /// milliseconds, a long list a second.
    pub statement_time: Duration,
    /// How long this process waits for an answer or a connection before it takes the connection for lost. 30 s: longer than
    /// the database lets a statement run.
    pub answer_time: Duration,
    /// Connections for reading. 2: a long list and the sweep do not wait for each other.
    pub readers: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lock_wait: Duration::from_secs(5),
            statement_time: Duration::from_secs(20),
            answer_time: Duration::from_secs(30),
            readers: 2,
        }
    }
}

/// A database. Clones share it.
#[derive(Debug, Clone)]
pub struct Postgres {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    place: Place,
    readers: sqlx::PgPool,
    faults: Mutex<VecDeque<Fault>>,
}

impl Postgres {
    /// Opens the database that `url` (`postgres://USER@HOST/DATABASE`) names, which must exist; creates the schema `halfmoon`
    /// in it if it is not there, and brings older tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] naming the database, and nothing in it changed, when the URL is not understood, the schema is
    /// not ours or newer than this program, or the server is a standby, read-only, too old, or keeps no promises (fsync=off).
    /// [`StoreError::Unavailable`] when it cannot be reached now.
    pub async fn open(url: &str, options: Options) -> Result<Self, StoreError> {
        let place = Place::new(url, options)?;
        open::prepare(&place).await?;
        Ok(Self {
            shared: Arc::new(Shared {
                readers: place.readers(),
                place,
                faults: Mutex::default(),
            }),
        })
    }

    /// Makes the next commit fail; several faults are used up one by one. For tests and drills.
    pub fn fail_next(&self, fault: Fault) {
        let faults = &self.shared.faults;
        faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(fault);
    }

    fn next_fault(&self) -> Option<Fault> {
        let faults = &self.shared.faults;
        faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

#[async_trait]
impl TxStore for Postgres {
    async fn take_over(&self, log: LogId) -> Result<(Box<dyn TxWriter>, Owner), StoreError> {
        let (writer, owner) = Writer::take_over(self.clone(), log).await?;
        Ok((Box::new(writer), owner))
    }

    fn reader(&self) -> Arc<dyn TxReader> {
        Arc::new(reader::Reader::new(
            self.shared.readers.clone(),
            self.shared.place.clone(),
        ))
    }

    async fn close(&self) {
        self.shared.readers.close().await;
    }
}

/// Reads the database that `url` names without becoming its writer, whether or not another process has it open. Creates and
/// changes nothing; a standby will do.
///
/// # Errors
/// [`StoreError::Foreign`] naming the database when it has no tables of ours, or of another version.
/// [`StoreError::Unavailable`] when it cannot be reached now.
pub async fn open_reader(url: &str, options: Options) -> Result<Arc<dyn TxReader>, StoreError> {
    let place = Place::new(url, options)?;
    open::inspect(&place).await?;
    Ok(Arc::new(reader::Reader::new(place.readers(), place)))
}

#[cfg(test)]
mod tests;
