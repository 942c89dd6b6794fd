//! Connections that we open: many calls in flight on one of them, each answer finding its call by number.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::sync::{Semaphore, oneshot, watch};

use super::frames::Frames;
use super::limits::{self, Budget};
use super::peer::Peer;
use super::service::{Answer, Ticket};
use crate::wire::codes::response;
use crate::wire::command::{Command, FLAG_ONE_WAY};

/// What one connection of ours may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long connecting may take.
    pub connect_within: Duration,
    /// Most calls that wait for their answer at a time; further ones wait for their turn.
    pub in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(3),
            in_flight: 4_096,
        }
    }
}

/// Answers what the other side asks of us over a connection that we opened.
pub trait Requests: Send + Sync + 'static {
    /// Takes one request. Never blocks; the answer goes to the ticket, now or later. A ticket of a one-way request
    /// answers nobody.
    fn request(&self, command: Command, ticket: Ticket);
}

impl<F: Fn(Command, Ticket) + Send + Sync + 'static> Requests for F {
    fn request(&self, command: Command, ticket: Ticket) {
        self(command, ticket);
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The connection is gone; whether the request was carried out is not known. Open another one.
    #[error("the connection to {0} is gone; whether the request was carried out is not known")]
    Closed(SocketAddr),
    /// No answer came in time; whether the request was carried out is not known. The connection may still be good.
    #[error("{address} did not answer within {within:?}")]
    TimedOut {
        /// Who was asked.
        address: SocketAddr,
        /// How long we waited.
        within: Duration,
    },
}

/// An open connection, cheap to clone. Closed when the last clone is dropped; it never reconnects by itself.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    /// Tells the connection's task that nobody can call any more.
    _held: Arc<oneshot::Sender<()>>,
}

struct Shared {
    peer: Arc<Peer>,
    next: AtomicI32,
    waiting: Mutex<Waiting>,
    room: Semaphore,
    over: watch::Sender<bool>,
}

/// Calls without an answer yet; `None` when the connection is gone.
type Waiting = Option<HashMap<i32, oneshot::Sender<Command>>>;

impl Connection {
    /// Connects. Requests from the other side are answered as not supported.
    ///
    /// # Errors
    /// The operating system's, or [`std::io::ErrorKind::TimedOut`].
    pub async fn open(address: impl ToSocketAddrs, limits: Limits) -> std::io::Result<Self> {
        Self::open_with(address, limits, Arc::new(unsupported)).await
    }

    /// Connects. Requests from the other side go to `requests`.
    ///
    /// # Errors
    /// The operating system's, or [`std::io::ErrorKind::TimedOut`].
    pub async fn open_with(
        address: impl ToSocketAddrs,
        limits: Limits,
        requests: Arc<dyn Requests>,
    ) -> std::io::Result<Self> {
        let stream = tokio::time::timeout(limits.connect_within, TcpStream::connect(address))
            .await
            .map_err(|_| std::io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        let address = stream.peer_addr()?;
        let (reading, writing) = stream.into_split();
        let budget = Arc::new(Budget::new(limits::Limits::default()));
        let peer = Peer::new(address, writing, Arc::clone(&budget), None);
        let frames = Frames::new(reading, &peer, budget);
        let (held, dropped) = oneshot::channel();
        let shared = Arc::new(Shared {
            peer,
            next: AtomicI32::new(0),
            waiting: Mutex::new(Some(HashMap::new())),
            room: Semaphore::new(limits.in_flight),
            over: watch::Sender::new(false),
        });
        tokio::spawn(run(Arc::clone(&shared), frames, requests, dropped));
        Ok(Self {
            shared,
            _held: Arc::new(held),
        })
    }

    /// Who is on the other side.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.peer.address()
    }

    /// Asks and waits for the answer, whatever its code. The command's number is set here. Dropping the future forgets the
    /// answer; the request may be carried out all the same.
    ///
    /// # Errors
    /// [`CallError`]: there is no answer.
    pub async fn call(&self, command: Command, within: Duration) -> Result<Command, CallError> {
        tokio::time::timeout(within, self.answer(command))
            .await
            .map_err(|_| CallError::TimedOut {
                address: self.address(),
                within,
            })?
            .ok_or_else(|| self.gone())
    }

    /// The answer; `None` when the connection is gone.
    async fn answer(&self, mut command: Command) -> Option<Command> {
        let shared = &*self.shared;
        let _room = shared.room.acquire().await.ok()?;
        command.opaque = shared.next.fetch_add(1, Ordering::Relaxed);
        command.flag &= !FLAG_ONE_WAY;
        let (answered, answer) = oneshot::channel();
        let _asked = shared.ask(command.opaque, answered)?;
        if !shared.peer.send(&command) {
            return None;
        }
        answer.await.ok()
    }

    /// Sends a request that nobody answers. It is written soon; whether it arrives is not known.
    ///
    /// # Errors
    /// [`CallError::Closed`].
    pub fn one_way(&self, mut command: Command) -> Result<(), CallError> {
        command.opaque = self.shared.next.fetch_add(1, Ordering::Relaxed);
        command.flag |= FLAG_ONE_WAY;
        if self.shared.peer.send(&command) {
            Ok(())
        } else {
            Err(self.gone())
        }
    }

    /// Waits until the connection is gone.
    pub async fn closed(&self) {
        let mut over = self.shared.over.subscribe();
        // The sender is in `shared`, which we hold.
        let _ = over.wait_for(|over| *over).await;
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.shared.over.borrow()
    }

    /// Closes the connection once what was sent is written; calls without an answer end with [`CallError::Closed`].
    pub fn close(&self) {
        self.shared.peer.close();
    }

    fn gone(&self) -> CallError {
        CallError::Closed(self.address())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.address()).finish()
    }
}

impl Shared {
    /// Notes who waits for the answer `opaque`, until what is returned is dropped. `None` when the connection is gone.
    fn ask(&self, opaque: i32, answered: oneshot::Sender<Command>) -> Option<Asked<'_>> {
        self.waiting().as_mut()?.insert(opaque, answered);
        Some(Asked(self, opaque))
    }

    fn take(&self, command: Command, requests: &dyn Requests) {
        if command.is_response() {
            self.answered(command);
        } else {
            let ticket = Ticket::new(&self.peer, &command);
            requests.request(command, ticket);
        }
    }

    fn answered(&self, command: Command) {
        let waiting = (self.waiting().as_mut()).and_then(|calls| calls.remove(&command.opaque));
        match waiting {
            // Whoever has given up meanwhile needs no answer.
            Some(call) => drop(call.send(command)),
            None => tracing::debug!(opaque = command.opaque, "an answer came too late"),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A panic elsewhere leaves a whole map behind.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is noted as waiting.
struct Asked<'a>(&'a Shared, i32);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(calls) = self.0.waiting().as_mut() {
            calls.remove(&self.1);
        }
    }
}

async fn run(
    shared: Arc<Shared>,
    frames: Frames,
    requests: Arc<dyn Requests>,
    dropped: oneshot::Receiver<()>,
) {
    let closing = async {
        // It never sends; that it is dropped is the message.
        let _ = dropped.await;
        shared.peer.close();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = read(&shared, frames, &*requests) => {}
        () = shared.peer.writing() => {}
        () = closing => {}
    }
    shared.peer.gone();
    shared.room.close();
    *shared.waiting() = None;
    shared.over.send_replace(true);
}

async fn read(shared: &Shared, mut frames: Frames, requests: &dyn Requests) {
    loop {
        match frames.next().await {
            Ok(commands) => {
                for command in commands {
                    shared.take(command, requests);
                }
            }
            Err(error) => {
                tracing::debug!(address = %shared.peer.address(), %error, "a connection of ours ends");
                return;
            }
        }
    }
}

fn unsupported(command: Command, ticket: Ticket) {
    ticket.answer(Answer::refused(
        response::REQUEST_CODE_NOT_SUPPORTED,
        format!("request code {} is not supported here", command.code),
    ));
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use async_trait::async_trait;

    use super::*;
    use crate::remoting::listener::Listener;
    use crate::remoting::service::Service;

    const WITHIN: Duration = Duration::from_secs(20);

    /// Code 1 is answered at once, 2 never, 3 ends the connection, 4 asks back with 39, 5 is answered after the next
    /// request.
    #[derive(Debug, Default)]
    struct Moods(Mutex<Vec<Ticket>>);

    #[async_trait]
    impl Service for Moods {
        type Session = Arc<Peer>;

        fn connected(&self, peer: &Arc<Peer>) -> Self::Session {
            Arc::clone(peer)
        }

        async fn take(&self, session: &mut Self::Session, commands: Vec<(Command, Ticket)>) {
            for (command, ticket) in commands {
                match command.code {
                    1 => ticket.answer(Answer::with_body(command.body)),
                    2 => ticket.forget(),
                    3 => session.close(),
                    4 => drop(session.send(&Command::request(39, 7))),
                    _ => {
                        self.0.lock().unwrap().push(ticket);
                        continue;
                    }
                }
                for ticket in self.0.lock().unwrap().drain(..) {
                    ticket.answer(Answer::done());
                }
            }
        }
    }

    async fn server() -> (SocketAddr, watch::Sender<bool>) {
        let listener = Listener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = listener.address().unwrap();
        let stop = watch::Sender::new(false);
        tokio::spawn(listener.serve(Arc::<Moods>::default(), stop.subscribe()));
        (address, stop)
    }

    fn ask(code: i32) -> Command {
        Command {
            body: vec![code as u8; 3].into(),
            ..Command::request(code, 0)
        }
    }

    #[tokio::test]
    async fn answers_in_any_order_find_their_calls() {
        let (address, _stop) = server().await;
        let connection = Connection::open(address, Limits::default()).await.unwrap();
        let (late, soon) = tokio::join!(
            connection.call(ask(5), WITHIN),
            connection.call(ask(1), WITHIN)
        );
        assert_eq!(late.unwrap().code, 0);
        assert_eq!(soon.unwrap().body, ask(1).body);
        assert!(connection.shared.waiting().as_ref().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_call_without_an_answer_ends_in_time_and_leaves_nothing_behind() {
        let (address, _stop) = server().await;
        let limits = Limits {
            in_flight: 1,
            ..Limits::default()
        };
        let connection = Connection::open(address, limits).await.unwrap();
        let soon = Duration::from_millis(20);
        let error = connection.call(ask(2), soon).await.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        assert!(connection.shared.waiting().as_ref().unwrap().is_empty());
        let answer = connection.call(ask(1), WITHIN).await;
        assert!(answer.is_ok(), "its place is free again: {answer:?}");
    }

    #[tokio::test]
    async fn a_connection_that_ends_ends_its_calls() {
        let (address, _stop) = server().await;
        let connection = Connection::open(address, Limits::default()).await.unwrap();
        let (one, other) = tokio::join!(
            connection.call(ask(2), WITHIN),
            connection.call(ask(3), WITHIN)
        );
        assert_eq!(one, Err(CallError::Closed(address)));
        assert_eq!(other, Err(CallError::Closed(address)));
        connection.closed().await;
        assert!(connection.is_closed());
        assert!(connection.one_way(ask(1)).is_err());
        assert!(connection.call(ask(1), WITHIN).await.is_err());
    }

    #[tokio::test]
    async fn the_other_side_asks_over_our_connection() {
        let (address, _stop) = server().await;
        let (asked, mut seen) = tokio::sync::mpsc::channel(1);
        let requests = move |command: Command, ticket: Ticket| {
            ticket.answer(Answer::done());
            asked.try_send((command.code, command.opaque)).unwrap();
        };
        let connection = Connection::open_with(address, Limits::default(), Arc::new(requests))
            .await
            .unwrap();
        connection.one_way(ask(4)).unwrap();
        assert_eq!(seen.recv().await, Some((39, 7)));
        assert!(connection.call(ask(1), WITHIN).await.is_ok());
    }

    #[tokio::test]
    async fn dropping_the_last_clone_closes_the_connection() {
        let (address, _stop) = server().await;
        let connection = Connection::open(address, Limits::default()).await.unwrap();
        let mut over = connection.shared.over.subscribe();
        drop(connection.clone());
        assert!(connection.call(ask(1), WITHIN).await.is_ok());
        drop(connection);
        // The last handle of what is watched may be gone before the news is read: closed either way.
        let _ = over.wait_for(|over| *over).await;
    }
}
