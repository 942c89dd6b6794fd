//! A local transaction that a half message hangs on: begun by us, filled by the service, ended by us.
//!
//! COMMIT and ROLLBACK run in tasks of their own, so that a caller who stops waiting does not leave them half done.

use std::fmt;
use std::ops::{Deref, DerefMut};

use tokio::sync::oneshot;

use super::half::{Pending, Settled};
use crate::marker::Marker;
use crate::marker::database::{DatabaseError, LocalDatabase};
use crate::marker::local::Open;
use crate::steps;
use crate::transaction::{Resolution, TransactionId};

/// Why a local transaction was not committed. It is rolled back, and its message never appears.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The marker is no longer in the transaction, so the database has aborted it, or the service has rolled it back with
    /// SQL of its own.
    #[error("the local transaction was rolled back before its commit: its marker is gone")]
    RolledBackBefore,
    /// A savepoint of sqlx was begun and neither committed nor rolled back.
    #[error(
        "the local transaction has an open savepoint; end nested transactions before the commit"
    )]
    OpenSavepoint,
    /// The database refused the COMMIT, for example for a deferred constraint.
    #[error("the database refused the commit: {0}")]
    Refused(#[source] DatabaseError),
    /// The database could not be asked whether the transaction still stands.
    #[error("the local transaction failed before its commit: {0}")]
    Database(#[source] DatabaseError),
}

/// A local transaction whose half message is stored and whose marker is written: use it like a connection.
///
/// Dropping it rolls back, and the message never appears.
#[must_use = "dropping a local transaction rolls it back"]
pub struct Transaction<DB: LocalDatabase> {
    // Both are there until the transaction ends; `open` comes later than `half`.
    open: Option<Open<DB>>,
    half: Option<Pending>,
    id: TransactionId,
}

impl<DB: LocalDatabase> Transaction<DB> {
    /// A stored half message whose local transaction is yet to begin.
    pub(super) const fn unbegun(half: Pending) -> Self {
        Self {
            open: None,
            id: half.receipt.id,
            half: Some(half),
        }
    }

    /// Attaches the begun local transaction.
    pub(super) fn begun(&mut self, open: Open<DB>) -> &mut DB::Connection {
        self.open.insert(open)
    }

    /// Ends it without a word to the coordinator: somebody else has settled it.
    pub(super) async fn abandon(mut self) {
        let (open, half) = self.take();
        if let Some(open) = open {
            open.roll_back().await;
        }
        drop(half);
    }

    /// The transaction's id, also its message's `UNIQ_KEY`.
    #[must_use]
    pub const fn id(&self) -> TransactionId {
        self.id
    }

    /// Commits the local transaction and says so to the coordinator.
    ///
    /// After `Ok` the local transaction is committed, except that after [`Settled::Deferred`] whose reason is a lost
    /// reply of COMMIT it may or may not be; message and database agree either way. If the future is dropped, the commit
    /// goes on.
    ///
    /// # Errors
    /// [`CommitError`]: it is rolled back, and the message never appears.
    pub async fn commit(mut self) -> Result<Settled, CommitError> {
        let (Some(open), Some(half)) = self.take() else {
            return Err(CommitError::RolledBackBefore);
        };
        let shared = half.shared.clone();
        let (tell, told) = oneshot::channel();
        shared.background.spawn(async move {
            // Nobody may be waiting any more.
            let _ = tell.send(commit_then_say(open, half).await);
        });
        told.await.unwrap_or_else(|_| {
            Ok(Settled::Deferred(
                "the process is stopping; a check-back finds out".into(),
            ))
        })
    }

    /// Rolls back the local transaction, then says so to the coordinator. If the future is dropped, both go on.
    pub async fn roll_back(mut self) -> Settled {
        let (tell, told) = oneshot::channel();
        self.roll_back_in_background("rolled back by the service", move |settled| {
            let _ = tell.send(settled);
        });
        told.await.unwrap_or_else(|_| {
            Settled::Deferred("the process is stopping; a check-back finds out".into())
        })
    }

    fn roll_back_in_background(
        &mut self,
        evidence: &'static str,
        then: impl FnOnce(Settled) + Send + 'static,
    ) {
        let (open, half) = self.take();
        let Some(half) = half else { return };
        let shared = half.shared.clone();
        shared.background.spawn(async move {
            if let Some(open) = open {
                open.roll_back().await;
            }
            then(half.settle(Resolution::RollBack, evidence).await);
        });
    }

    fn take(&mut self) -> (Option<Open<DB>>, Option<Pending>) {
        (self.open.take(), self.half.take())
    }
}

/// Checks that the transaction still stands, commits it, and tells the coordinator. COMMIT is issued at most once, and
/// once it is, ROLLBACK is never said.
async fn commit_then_say<DB: LocalDatabase>(
    mut open: Open<DB>,
    half: Pending,
) -> Result<Settled, CommitError> {
    if let Err(error) = still_stands(&mut open, half.receipt.id).await {
        open.roll_back().await;
        // Only what the coordinator says matters to no one here: the local transaction is gone for good.
        let _ = half.settle(Resolution::RollBack, &error.to_string()).await;
        return Err(error);
    }
    steps::reach("local.before_commit");
    match half.shared.commit(open).await {
        Ok(()) => {}
        Err(error) if DB::commit_was_refused(&error) => return Err(CommitError::Refused(error)),
        Err(error) => {
            return Ok(Settled::Deferred(format!(
                "whether the local transaction is committed is unknown, its marker decides: {error}"
            )));
        }
    }
    steps::reach("local.committed");
    let settled = half.settle(Resolution::Commit, "").await;
    steps::reach("local.resolved");
    Ok(settled)
}

/// Re-reads the marker inside the transaction: an aborted transaction, or one that SQL of the service's own has ended,
/// cannot be taken for committed then.
async fn still_stands<DB: LocalDatabase>(
    open: &mut Open<DB>,
    id: TransactionId,
) -> Result<(), CommitError> {
    let marker = DB::read_marker(open, id)
        .await
        .map_err(CommitError::Database)?;
    match marker {
        Some(Marker::Committed) => {}
        Some(Marker::Tombstone) | None => return Err(CommitError::RolledBackBefore),
    }
    // After the read: the rollback of a dropped nested transaction is queued in front of it.
    if open.depth() == 1 {
        Ok(())
    } else {
        Err(CommitError::OpenSavepoint)
    }
}

impl<DB: LocalDatabase> Deref for Transaction<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        self.open.as_ref().expect(BEGUN)
    }
}

impl<DB: LocalDatabase> DerefMut for Transaction<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.open.as_mut().expect(BEGUN)
    }
}

/// Users get a transaction only after `begun`, and lose it to what takes the connection out.
const BEGUN: &str = "a transaction is handed out begun and consumed when it ends";

impl<DB: LocalDatabase> Drop for Transaction<DB> {
    fn drop(&mut self) {
        self.roll_back_in_background("dropped without a commit", |_| {});
    }
}

impl<DB: LocalDatabase> fmt::Debug for Transaction<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
