//! The way back to one connected peer: a bounded outbox with one writer at a time, written once per wake-up.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Notify, oneshot};

use super::limits::{Budget, Limits};
use super::outbox::Outbox;
use super::postman::Postman;
use crate::membership::{Link, Notice};
use crate::wire::command::{Command, FLAG_ONE_WAY, Fields, Language};

/// One connected peer. Sending never blocks: a peer that does not read loses its connection, and slows nobody else.
#[derive(Debug)]
pub struct Peer {
    this: Weak<Self>,
    address: SocketAddr,
    budget: Arc<Budget>,
    /// Writes what others than the connection itself have sent; without one the connection's own task does.
    postman: Option<Arc<Postman>>,
    state: Mutex<State>,
    /// Tells the connection's task that it is to write or to end.
    changed: Notify,
    /// Tells the connection's task that it may read again.
    drained: Notify,
    /// Tells the connection's task that no answer is owed any more.
    settled: Notify,
    owed: AtomicUsize,
    heard: AtomicBool,
    next_request: AtomicI32,
    /// Who waits for the peer's answer, by the request's number.
    calls: Mutex<HashMap<i32, oneshot::Sender<Command>>>,
}

/// Most requests of ours that wait for the answer of one peer.
const CALLS_MAX: usize = 64;

#[derive(Debug)]
struct State {
    outbox: Outbox,
    hand: Hand,
    /// `None` when the connection is gone.
    socket: Option<Arc<OwnedWriteHalf>>,
    /// Nothing more is taken.
    closing: bool,
}

/// Whose turn it is to write. One at a time, so that frames stay in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hand {
    /// Nothing is queued.
    Nobody,
    /// The reader, at the end of its wake-up.
    Reader,
    /// The postman, when it comes to this peer.
    Postman,
    /// The connection's task, when the socket takes more.
    Connection,
}

impl Peer {
    pub(super) fn new(
        address: SocketAddr,
        socket: OwnedWriteHalf,
        budget: Arc<Budget>,
        postman: Option<Arc<Postman>>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            address,
            budget,
            postman,
            state: Mutex::new(State {
                outbox: Outbox::default(),
                hand: Hand::Nobody,
                socket: Some(Arc::new(socket)),
                closing: false,
            }),
            changed: Notify::new(),
            drained: Notify::new(),
            settled: Notify::new(),
            owed: AtomicUsize::new(0),
            heard: AtomicBool::new(true),
            next_request: AtomicI32::new(0),
            calls: Mutex::default(),
        })
    }

    /// Where it connected from.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The limits of the listener.
    pub(super) fn limits(&self) -> &Limits {
        &self.budget.limits
    }

    /// Queues a command. False when the connection is gone or the peer has not read for too long: it is closed then.
    pub fn send(&self, command: &Command) -> bool {
        let mut state = self.state();
        if state.closing {
            return false;
        }
        let bytes = state.outbox.put(command);
        self.budget.add(bytes);
        let waiting = state.outbox.len();
        if self.is_too_much(waiting) {
            self.give_up(&mut state);
            drop(state);
            tracing::warn!(address = %self.address, waiting, "a peer that does not read loses its connection");
            return false;
        }
        if state.hand == Hand::Nobody {
            match self.postman.as_deref().zip(self.this.upgrade()) {
                Some((postman, this)) => {
                    state.hand = Hand::Postman;
                    drop(state);
                    postman.post(this);
                }
                None => {
                    state.hand = Hand::Connection;
                    drop(state);
                    self.changed.notify_one();
                }
            }
        }
        true
    }

    fn is_too_much(&self, waiting: usize) -> bool {
        let limits = &self.budget.limits;
        waiting > limits.outbox_bytes
            || (waiting > limits.pause_bytes.min(SMALL_BYTES)
                && self.budget.queued() > limits.all_outboxes_bytes)
    }

    /// Asks the peer, and waits for its answer. `None` when it has gone, does not answer within `within`, or owes too many
    /// answers. Dropping the future forgets the answer.
    pub async fn call(&self, mut request: Command, within: Duration) -> Option<Command> {
        request.opaque = self.next_request.fetch_add(1, Ordering::Relaxed);
        let number = request.opaque;
        let (answered, answer) = oneshot::channel();
        {
            let mut calls = self.calls();
            if calls.len() >= CALLS_MAX {
                return None;
            }
            calls.insert(number, answered);
        }
        let _forget = Forget { peer: self, number };
        if !self.send(&request) {
            return None;
        }
        tokio::time::timeout(within, answer).await.ok()?.ok()
    }

    /// Hands over the answer to a request of ours; one that nobody waits for is dropped.
    pub(super) fn answered(&self, answer: Command) {
        if let Some(waiting) = self.calls().remove(&answer.opaque) {
            // Whoever asked may have given up.
            let _ = waiting.send(answer);
        }
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<Command>>> {
        // Changed in steps that cannot panic half-way.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connection once what was queued is written.
    pub fn close(&self) {
        self.state().closing = true;
        self.changed.notify_one();
    }

    /// From now on answers are not written before [`Peer::uncork`].
    pub(super) fn cork(&self) {
        let mut state = self.state();
        if state.hand == Hand::Nobody {
            state.hand = Hand::Reader;
        }
    }

    /// Writes what was queued since [`Peer::cork`].
    pub(super) fn uncork(&self) {
        if self.state().hand == Hand::Reader {
            self.flush();
        }
    }

    /// Writes what is queued, as much as the socket takes. Only for the one whose turn it is.
    pub(super) fn flush(&self) {
        let mut state = self.state();
        loop {
            let Some(socket) = state.socket.clone() else {
                return self.give_up(&mut state);
            };
            if state.outbox.len() == 0 {
                state.hand = Hand::Nobody;
                if state.closing {
                    self.changed.notify_one();
                }
                return;
            }
            let mut batch = std::mem::take(&mut state.outbox);
            let blocked = state.hand == Hand::Connection;
            drop(state);
            let written = batch.write(|slices| socket.try_write_vectored(slices));
            state = self.state();
            match written {
                Ok(bytes) => {
                    self.budget.subtract(bytes);
                    if blocked {
                        self.heard.store(true, Ordering::Relaxed);
                    }
                    if batch.len() > 0 {
                        state.outbox.put_back(batch);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.outbox.put_back(batch);
                    if state.socket.is_some() {
                        state.hand = Hand::Connection;
                        self.changed.notify_one();
                        return;
                    }
                }
                Err(_) => {
                    self.budget.subtract(batch.len());
                    return self.give_up(&mut state);
                }
            }
        }
    }

    /// Forgets what is queued; the connection ends.
    fn give_up(&self, state: &mut State) {
        self.budget.subtract(state.outbox.len());
        state.outbox = Outbox::default();
        state.closing = true;
        state.socket = None;
        self.changed.notify_one();
    }

    /// Writes whatever the others could not, until the connection is to end.
    pub(super) async fn writing(&self) {
        loop {
            match self.turn() {
                Turn::Over => return,
                Turn::Write(socket) => {
                    self.flush();
                    if self.is_blocked() {
                        // An error shows at the next write.
                        let _ = socket.writable().await;
                    } else {
                        self.drained.notify_one();
                    }
                }
                Turn::Wait => self.changed.notified().await,
            }
        }
    }

    fn turn(&self) -> Turn {
        let state = self.state();
        match (&state.socket, state.hand) {
            (None, _) => Turn::Over,
            (Some(_), Hand::Nobody) if state.closing => Turn::Over,
            (Some(socket), Hand::Connection) => Turn::Write(Arc::clone(socket)),
            (Some(_), Hand::Nobody | Hand::Reader | Hand::Postman) => Turn::Wait,
        }
    }

    fn is_blocked(&self) -> bool {
        self.state().hand == Hand::Connection
    }

    /// Waits while the peer reads too slowly for what it asks.
    pub(super) async fn has_read(&self) {
        while self.is_congested() {
            self.drained.notified().await;
        }
    }

    fn is_congested(&self) -> bool {
        let state = self.state();
        let limits = &self.budget.limits;
        let most = if self.budget.queued() > limits.all_outboxes_bytes / 2 {
            limits.pause_bytes.min(SMALL_BYTES)
        } else {
            limits.pause_bytes
        };
        state.hand == Hand::Connection && state.outbox.len() > most
    }

    /// Notes that the peer is alive.
    pub(super) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether the peer was heard since this was asked last.
    pub(super) fn was_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    /// An answer is owed from now on.
    pub(super) fn owe(&self) {
        self.owed.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer is owed no more.
    pub(super) fn settle(&self) {
        if self.owed.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settled.notify_one();
        }
    }

    /// Waits until no answer is owed.
    pub(super) async fn nothing_owed(&self) {
        while self.owed.load(Ordering::Acquire) > 0 {
            self.settled.notified().await;
        }
    }

    /// The connection is gone: lets go of the socket and of everything queued.
    pub(super) fn gone(&self) {
        self.calls().clear();
        let mut state = self.state();
        self.give_up(&mut state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole frames behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a request that is answered or not waited for any more.
struct Forget<'a> {
    peer: &'a Peer,
    number: i32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.peer.calls().remove(&self.number);
    }
}

/// When memory is short, peers for which less than this waits are left alone.
const SMALL_BYTES: usize = 64 * 1024;

/// What the connection's task has to do for its outbox.
enum Turn {
    Over,
    Write(Arc<OwnedWriteHalf>),
    Wait,
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
