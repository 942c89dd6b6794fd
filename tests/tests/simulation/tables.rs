//! The tables of the services' database: markers and business rows, which a local transaction writes one after the other.
//!
//! What is not committed is seen by nobody, is gone if its process dies, and locks its marker against whoever wants to plant
//! another.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coordinator::marker::model::Model;
use coordinator::transaction::{MarkerIdentity, TransactionId};

/// What the services' database has on its disk, and who writes to it.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) markers: Model,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    business: BTreeSet<TransactionId>,
    /// Local transactions with a marker that is not committed.
    open: BTreeSet<TransactionId>,
}

impl Tables {
    pub(super) fn new(identity: MarkerIdentity) -> Self {
        Self {
            markers: Model::new(identity),
            written: Mutex::default(),
        }
    }

    /// Begins a local transaction with its marker, as the library does; `None` if it is fenced.
    pub(super) fn begin(self: &Arc<Self>, id: TransactionId) -> Option<Local> {
        if self.markers.standing(id).is_some() {
            return None;
        }
        self.written().open.insert(id);
        Some(Local {
            tables: Arc::clone(self),
            id,
            has_business: false,
        })
    }

    /// Whether a local transaction that is not committed has a marker of this id.
    pub(super) fn is_locked(&self, id: TransactionId) -> bool {
        self.written().open.contains(&id)
    }

    /// Every business row that is committed.
    pub(super) fn business(&self) -> BTreeSet<TransactionId> {
        self.written().business.clone()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open local transaction. Dropped, it is rolled back.
#[derive(Debug)]
pub(super) struct Local {
    tables: Arc<Tables>,
    id: TransactionId,
    has_business: bool,
}

impl Local {
    /// The service writes its business row.
    pub(super) fn write_business(&mut self) {
        self.has_business = true;
    }

    /// COMMIT: what was written stands. False if another marker stands there by now, which its lock has kept out.
    pub(super) fn commit(self) -> bool {
        if self.has_business {
            self.tables.written().business.insert(self.id);
        }
        self.tables.markers.commit(self.id)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.tables.written().open.remove(&self.id);
    }
}
