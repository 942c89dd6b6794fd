//! The inbox: which messages a consumer has applied, kept in the same SQL transaction as what they caused.
//!
//! Messages come at least once. The inbox row makes their effect happen once, in the database that holds it and for as
//! long as the row is kept: prune it no earlier than a message can come again.
//!
//! Two ways: [`Inbox::begin`] runs a transaction for one delivery; [`Inbox::enter`] joins a transaction that is open
//! already, for example one of [`crate::client::producer::Producer::begin`], so that the message received, its effect and
//! the message sent in answer stand or fall together.

pub mod conformance;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use mq_core::client::{Delivery, Received};
use mq_core::clock::{Clock, SystemClock};
use mq_core::names::{GroupName, NameError};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use crate::marker::database::{DatabaseError, LocalDatabase, Pool};
use crate::marker::local::Open;

/// Longest message key that is kept as it is; longer ones are kept as their hash.
const KEY_MAX_BYTES: usize = 128;

/// Something a consumer received, and by what it is known however often it comes.
pub trait Delivered {
    /// The message's `UNIQ_KEY`; without one the id of its first copy, or its own message id.
    fn message_key(&self) -> &str;
}

impl Delivered for Received {
    fn message_key(&self) -> &str {
        self.message_id()
    }
}

impl Delivered for Delivery {
    fn message_key(&self) -> &str {
        self.message_id()
    }
}

/// A key as the table keeps it.
fn kept(key: &str) -> Cow<'_, str> {
    if key.len() <= KEY_MAX_BYTES {
        return Cow::Borrowed(key);
    }
    let digest = Sha256::digest(key.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    Cow::Owned(format!("sha256:{hex}"))
}

/// Why a delivery could not be entered or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// The database failed; nothing was applied. Let the delivery come again.
    #[error("the inbox's database failed: {0}")]
    Database(#[from] DatabaseError),
    /// The transaction no longer stands as it began: aborted by the database, ended by SQL of the service's own, or with a
    /// savepoint left open. It is rolled back.
    #[error(
        "the transaction was rolled back before its commit: its inbox row is gone or a savepoint is open"
    )]
    RolledBackBefore,
}

/// The inbox of one consumer group in one database. Cheap to clone.
pub struct Inbox<DB: LocalDatabase> {
    pool: Pool<DB>,
    group: GroupName,
    clock: Arc<dyn Clock>,
}

/// What [`Inbox::begin`] found.
#[derive(Debug)]
pub enum Entry<DB: LocalDatabase> {
    /// Not applied yet: apply it in this transaction, commit, then acknowledge.
    First(Transaction<DB>),
    /// Applied before: acknowledge and go on.
    Duplicate,
}

impl<DB: LocalDatabase> Inbox<DB> {
    /// The inbox of consumer group `group` in the database of `pool`. The table must be there, see
    /// [`Inbox::ensure_table`].
    ///
    /// # Errors
    /// [`NameError`] when the group's name breaks a rule.
    pub fn new(pool: Pool<DB>, group: impl AsRef<str>) -> Result<Self, NameError> {
        Self::with_clock(pool, group, Arc::new(SystemClock::new()))
    }

    /// [`Inbox::new`] with rows dated by `clock`.
    ///
    /// # Errors
    /// [`NameError`] when the group's name breaks a rule.
    pub fn with_clock(
        pool: Pool<DB>,
        group: impl AsRef<str>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NameError> {
        Ok(Self {
            pool,
            group: GroupName::new(group)?,
            clock,
        })
    }

    /// Creates the inbox table if it is missing; changes nothing otherwise. The same as running the file for this
    /// database in `sql/inbox/` by hand.
    ///
    /// # Errors
    /// [`InboxError::Database`].
    pub async fn ensure_table(&self) -> Result<(), InboxError> {
        Ok(DB::ensure_inbox(&self.pool).await?)
    }

    /// Begins a transaction for `delivery`, its inbox row written first. Waits while another consumer applies the same
    /// message, as long as the pool allows.
    ///
    /// # Errors
    /// [`InboxError::Database`]; nothing was applied.
    pub async fn begin(
        &self,
        delivery: &(impl Delivered + ?Sized),
    ) -> Result<Entry<DB>, InboxError> {
        let key = kept(delivery.message_key()).into_owned();
        let mut transaction = Transaction {
            open: Some(Open::begin(&self.pool).await?),
            group: self.group.clone(),
            key,
        };
        let key = transaction.key.clone();
        if self.enter_key(&mut transaction, &key).await? {
            Ok(Entry::First(transaction))
        } else {
            transaction.roll_back().await;
            Ok(Entry::Duplicate)
        }
    }

    /// Writes the inbox row of `delivery` in a transaction that is open already; false when it was applied before: roll
    /// back and acknowledge.
    ///
    /// # Errors
    /// [`InboxError::Database`]; roll back.
    pub async fn enter(
        &self,
        connection: &mut DB::Connection,
        delivery: &(impl Delivered + ?Sized),
    ) -> Result<bool, InboxError> {
        self.enter_key(connection, &kept(delivery.message_key()))
            .await
    }

    async fn enter_key(
        &self,
        connection: &mut DB::Connection,
        key: &str,
    ) -> Result<bool, InboxError> {
        let now = self.clock.wall_ms();
        Ok(DB::enter_inbox(connection, self.group.as_str(), key, now).await?)
    }

    /// Deletes the rows of this group that are older than `age` by the wall clock; returns how many stood. A message that
    /// comes again after that is applied again.
    ///
    /// # Errors
    /// [`InboxError::Database`]; none or all are deleted.
    pub async fn prune(&self, age: Duration) -> Result<u64, InboxError> {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let before = self.clock.wall_ms().saturating_sub(age);
        Ok(DB::prune_inbox(&self.pool, self.group.as_str(), before).await?)
    }

    /// Deletes the row of one message of this group, so that it is applied again when it comes again; false when there
    /// was none.
    ///
    /// # Errors
    /// [`InboxError::Database`].
    pub async fn forget(&self, message_key: &str) -> Result<bool, InboxError> {
        Ok(DB::forget_inbox(&self.pool, self.group.as_str(), &kept(message_key)).await?)
    }
}

impl<DB: LocalDatabase> Clone for Inbox<DB> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            group: self.group.clone(),
            clock: Arc::clone(&self.clock),
        }
    }
}

impl<DB: LocalDatabase> fmt::Debug for Inbox<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

/// A local transaction with the inbox row of one delivery in it: use it like a connection. Dropping it rolls back.
#[must_use = "dropping the transaction rolls it back"]
pub struct Transaction<DB: LocalDatabase> {
    // There until the transaction ends.
    open: Option<Open<DB>>,
    group: GroupName,
    key: String,
}

impl<DB: LocalDatabase> Transaction<DB> {
    /// Commits row and effect. After `Ok` acknowledge the delivery. If the future is dropped, the commit may or may not
    /// take effect: let the delivery come again.
    ///
    /// # Errors
    /// [`InboxError`]; after [`InboxError::Database`] it may or may not be committed: let the delivery come again.
    pub async fn commit(mut self) -> Result<(), InboxError> {
        let Some(mut open) = self.open.take() else {
            return Err(InboxError::RolledBackBefore);
        };
        // As with a marker: a transaction that was aborted unnoticed must not be taken for committed.
        let stands = DB::is_in_inbox(&mut open, self.group.as_str(), &self.key).await?;
        if !stands || open.depth() != 1 {
            open.roll_back().await;
            return Err(InboxError::RolledBackBefore);
        }
        Ok(open.commit().await?)
    }

    /// Rolls back; the delivery can be applied when it comes again.
    pub async fn roll_back(mut self) {
        if let Some(open) = self.open.take() {
            open.roll_back().await;
        }
    }
}

impl<DB: LocalDatabase> Deref for Transaction<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        self.open.as_ref().expect(OPEN)
    }
}

impl<DB: LocalDatabase> DerefMut for Transaction<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.open.as_mut().expect(OPEN)
    }
}

const OPEN: &str = "a transaction is handed out begun and consumed when it ends";

impl<DB: LocalDatabase> Drop for Transaction<DB> {
    fn drop(&mut self) {
        // Outside a runtime the connection is closed instead, which does the same.
        if let (Some(open), Ok(runtime)) = (self.open.take(), Handle::try_current()) {
            runtime.spawn(open.roll_back());
        }
    }
}

impl<DB: LocalDatabase> fmt::Debug for Transaction<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("group", &self.group)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
