//! Which processes are connected to a server, as the network knows it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mq_core::clock::Clock;

/// The connections of one server.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    clock: Arc<dyn Clock>,
    begun: Duration,
    table: Arc<Mutex<BTreeMap<u128, Known>>>,
}

/// A process that is or was connected.
#[derive(Debug, Clone, Copy)]
struct Known {
    open: u32,
    opened: Duration,
    closed: Duration,
}

/// One open connection.
#[derive(Debug)]
pub(super) struct Opened {
    connections: Connections,
    incarnation: u128,
}

impl Connections {
    /// Nobody, since now.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            begun: clock.monotonic(),
            clock,
            table: Arc::default(),
        }
    }

    /// A process connects.
    pub(super) fn open(&self, incarnation: u128) -> Opened {
        let now = self.clock.monotonic();
        let mut table = self.table();
        let known = table.entry(incarnation).or_insert(Known {
            open: 0,
            opened: now,
            closed: now,
        });
        known.open += 1;
        known.opened = now;
        Opened {
            connections: self.clone(),
            incarnation,
        }
    }

    /// How long a process has had no connection; `None` while it has one.
    pub(super) fn gone_for(&self, incarnation: u128) -> Option<Duration> {
        match self.table().get(&incarnation) {
            None => Some(self.since(self.begun)),
            Some(known) if known.open == 0 => Some(self.since(known.closed)),
            Some(_) => None,
        }
    }

    /// How long ago a process has opened its newest connection.
    pub(super) fn connected_for(&self, incarnation: u128) -> Duration {
        let opened = self.table().get(&incarnation).map(|known| known.opened);
        self.since(opened.unwrap_or(self.begun))
    }

    fn since(&self, then: Duration) -> Duration {
        self.clock.monotonic().saturating_sub(then)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u128, Known>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let now = self.connections.clock.monotonic();
        if let Some(known) = self.connections.table().get_mut(&self.incarnation) {
            known.open -= 1;
            known.closed = now;
        }
    }
}
