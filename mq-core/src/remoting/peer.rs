//! The way back to one connected peer: a bounded outbox that is written once per wake-up.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::broker::clients::{Link, Notice};
use crate::wire::command::{Command, FLAG_ONE_WAY, Fields, Language};
use crate::wire::frame;

/// Most bytes that wait for a peer that does not read; more, and the connection is closed.
pub const OUTBOX_MAX_BYTES: usize = 32 * 1024 * 1024;

/// One connected peer. Sending never blocks: a peer that does not read loses its connection, and slows nobody else.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    outbox: Mutex<Outbox>,
    filled: Notify,
    next_request: AtomicI32,
}

#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    closed: bool,
}

impl Peer {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            outbox: Mutex::default(),
            filled: Notify::new(),
            next_request: AtomicI32::new(0),
        }
    }

    /// Where it connected from.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Queues a command. False when the connection is gone or the peer has not read for too long: it is closed then.
    pub fn send(&self, command: &Command) -> bool {
        let mut outbox = self.outbox();
        if outbox.closed {
            return false;
        }
        let first = outbox.bytes.is_empty();
        frame::put(&mut outbox.bytes, command);
        if outbox.bytes.len() > OUTBOX_MAX_BYTES {
            outbox.closed = true;
            outbox.bytes = Vec::new();
        }
        let sent = !outbox.closed;
        drop(outbox);
        if first || !sent {
            self.filled.notify_one();
        }
        sent
    }

    /// Closes the connection once what was queued is written.
    pub fn close(&self) {
        self.outbox().closed = true;
        self.filled.notify_one();
    }

    /// Everything that is queued, waiting until there is something. `None` when the connection is to be closed.
    pub(super) async fn queued(&self) -> Option<Vec<u8>> {
        loop {
            match self.take() {
                Some(bytes) if bytes.is_empty() => self.filled.notified().await,
                taken => return taken,
            }
        }
    }

    /// Everything that is queued, perhaps nothing yet; `None` when nothing is and nothing will be.
    fn take(&self) -> Option<Vec<u8>> {
        let mut outbox = self.outbox();
        let bytes = std::mem::take(&mut outbox.bytes);
        (!bytes.is_empty() || !outbox.closed).then_some(bytes)
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        // A panic elsewhere leaves whole frames behind.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link for Peer {
    fn push(&self, notice: Notice) -> bool {
        let mut fields = Fields::default();
        for (name, value) in &notice.fields {
            fields.push(name, value);
        }
        self.send(&Command {
            flag: FLAG_ONE_WAY,
            language: Language::JAVA,
            fields,
            body: notice.body,
            ..Command::request(
                notice.code,
                self.next_request.fetch_add(1, Ordering::Relaxed),
            )
        })
    }
}
