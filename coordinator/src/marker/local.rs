//! An open transaction on a connection of the service's pool, and how it ends for certain.

use std::ops::{Deref, DerefMut};

use sqlx::SqlSafeStr;
use sqlx::pool::PoolConnection;
use sqlx_core::transaction::TransactionManager;

use super::database::{DatabaseError, LocalDatabase, Pool};

/// A begun transaction on a connection of the service's pool. Dropped, it takes its connection with it.
pub(crate) struct Open<DB: LocalDatabase> {
    connection: PoolConnection<DB>,
    ended: bool,
}

impl<DB: LocalDatabase> Open<DB> {
    /// Begins on a connection of `pool`.
    pub(crate) async fn begin(pool: &Pool<DB>) -> Result<Self, DatabaseError> {
        let mut open = Self {
            connection: pool.acquire().await?,
            ended: false,
        };
        let begun = DB::TransactionManager::begin(&mut open, Some(DB::BEGIN.into_sql_str())).await;
        // An error of BEGIN leaves the connection as it was, a dropped future does not.
        open.ended = begun.is_err();
        begun.map(|()| open)
    }

    /// 1 in the transaction itself, more inside savepoints of sqlx.
    pub(crate) fn depth(&self) -> usize {
        DB::TransactionManager::get_transaction_depth(self)
    }

    /// Commits. After an error the connection is closed, so that the transaction ends in any case.
    pub(crate) async fn commit(mut self) -> Result<(), DatabaseError> {
        DB::TransactionManager::commit(&mut self).await?;
        self.ended = true;
        Ok(())
    }

    /// Rolls back, savepoints included. After an error the connection is closed, which does the same.
    pub(crate) async fn roll_back(mut self) {
        while self.depth() > 0 {
            if let Err(error) = DB::TransactionManager::rollback(&mut self).await {
                tracing::debug!(%error, "a local transaction ends with its connection");
                return;
            }
        }
        self.ended = true;
    }
}

impl<DB: LocalDatabase> Deref for Open<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        &self.connection
    }
}

impl<DB: LocalDatabase> DerefMut for Open<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }
}

impl<DB: LocalDatabase> Drop for Open<DB> {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}
