//! One connection of a marker store's own: opened when it is first needed, thrown away after any error.

use tokio::sync::{Mutex, MutexGuard};

use super::MarkerError;

/// The connection, when nobody uses it and it is known to be good. One user at a time.
#[derive(Debug)]
pub(super) struct Slot<C>(Mutex<Option<C>>);

/// The connection while somebody uses it. Dropped, it is thrown away.
pub(super) struct Lease<'a, C> {
    slot: MutexGuard<'a, Option<C>>,
    pub(super) connection: C,
}

impl<C> Default for Slot<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C> Slot<C> {
    /// Takes the connection, which `connect` makes if there is none.
    pub(super) async fn take(
        &self,
        connect: impl AsyncFnOnce() -> Result<C, MarkerError>,
    ) -> Result<Lease<'_, C>, MarkerError> {
        let mut slot = self.0.lock().await;
        let connection = match slot.take() {
            Some(connection) => connection,
            None => connect().await?,
        };
        Ok(Lease { slot, connection })
    }
}

impl<C> Lease<'_, C> {
    /// Keeps the connection for the next user.
    pub(super) fn put_back(mut self) {
        *self.slot = Some(self.connection);
    }
}
