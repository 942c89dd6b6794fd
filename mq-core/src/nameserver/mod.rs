//! The nameserver: which brokers there are, and which of them has which topic.
//!
//! | file | owns |
//! |---|---|
//! | `registry` | what is known, as pure data |
//! | `requests` | what is answered to each request code |
//!
//! It keeps everything in memory: brokers register again within seconds after it has come back.

pub mod registry;
mod requests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use self::registry::{ConnectionId, Registry};
use crate::clock::Clock;
use crate::remoting::peer::Peer;
use crate::remoting::service::{Service, Ticket};
use crate::wire::command::Command;

/// How often it looks for brokers that have fallen silent.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Answers for one nameserver.
#[derive(Debug)]
pub struct Nameserver {
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
    connections: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    registry: Registry,
    next_look: Duration,
}

impl Nameserver {
    /// A nameserver that knows nobody yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            known: Mutex::default(),
            connections: AtomicU64::new(0),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic elsewhere leaves whole entries behind.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection. When it goes, the brokers that have registered over it are forgotten.
#[derive(Debug)]
pub struct Session {
    nameserver: Arc<Nameserver>,
    id: ConnectionId,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.nameserver.known().registry.disconnected(self.id);
    }
}

/// The nameserver behind a listener.
#[derive(Debug)]
pub struct NameserverService(Arc<Nameserver>);

impl NameserverService {
    /// Answers for `nameserver`.
    #[must_use]
    pub fn new(nameserver: Arc<Nameserver>) -> Arc<Self> {
        Arc::new(Self(nameserver))
    }
}

#[async_trait]
impl Service for NameserverService {
    type Session = Session;

    fn connected(&self, _peer: &Arc<Peer>) -> Session {
        let number = self.0.connections.fetch_add(1, Ordering::Relaxed);
        Session {
            nameserver: Arc::clone(&self.0),
            id: ConnectionId(number),
        }
    }

    async fn take(&self, session: &mut Session, commands: Vec<(Command, Ticket)>) {
        let now = self.0.clock.monotonic();
        let mut known = self.0.known();
        if now >= known.next_look {
            known.registry.forget_silent(now);
            known.next_look = now + LOOK_EVERY;
        }
        for (command, ticket) in commands {
            ticket.answer(requests::answer(
                &mut known.registry,
                &command,
                session.id,
                now,
            ));
        }
    }
}

#[cfg(test)]
mod tests;
