//! Accepting connections, the frame loop of each, and stopping.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::frames::{Ended, Frames};
use super::limits::{Budget, Limits};
use super::peer::Peer;
use super::postman::Postman;
use super::service::{Service, Ticket};
use crate::wire::command::Command;

/// How long accepting rests after it failed, as it does when no more files can be opened.
const REST: Duration = Duration::from_millis(100);
/// How long, at most, a stop waits for a peer to read its last answers, and then to close the connection.
const FAREWELL: Duration = Duration::from_secs(1);

/// A bound port. Nobody is answered before [`Listener::serve`].
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    budget: Arc<Budget>,
}

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The operating system's, such as an address in use.
    pub async fn bind(address: SocketAddrV4) -> io::Result<Self> {
        Ok(Self {
            socket: TcpListener::bind(address).await?,
            budget: Arc::new(Budget::new(Limits::default())),
        })
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self {
            budget: Arc::new(Budget::new(limits)),
            ..self
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Answers until `stop` says true. Then nothing is accepted or read any more; whatever was read is answered, for which
    /// sessions live on for at most [`Limits::stop_within`]. All connections are closed when this returns.
    pub async fn serve<S: Service>(self, service: Arc<S>, mut stop: watch::Receiver<bool>) {
        let house = House {
            service,
            budget: Arc::clone(&self.budget),
            postman: Arc::default(),
            stop: stop.clone(),
        };
        let most = self.budget.limits.connections;
        let mut connections = JoinSet::new();
        let mut full = false;
        let accepting = async {
            loop {
                tokio::select! {
                    Some(_) = connections.join_next() => {}
                    accepted = self.socket.accept() => match accepted {
                        Ok((stream, address)) if connections.len() < most => {
                            full = false;
                            connections.spawn(connection(stream, address, house.clone()));
                        }
                        Ok((_, address)) => {
                            if !std::mem::replace(&mut full, true) {
                                tracing::warn!(%address, most, "there are too many connections; new ones are closed");
                            }
                        }
                        Err(error) => {
                            tracing::warn!(%error, "a connection could not be accepted");
                            tokio::time::sleep(REST).await;
                        }
                    },
                }
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = house.postman.run() => {}
            () = accepting => {}
        }
        drop(self.socket);
        tokio::select! {
            () = house.postman.run() => {}
            () = async { while connections.join_next().await.is_some() {} } => {}
        }
    }
}

/// What all connections of a listener share.
#[derive(Debug)]
struct House<S> {
    service: Arc<S>,
    budget: Arc<Budget>,
    postman: Arc<Postman>,
    stop: watch::Receiver<bool>,
}

impl<S> Clone for House<S> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            budget: Arc::clone(&self.budget),
            postman: Arc::clone(&self.postman),
            stop: self.stop.clone(),
        }
    }
}

/// Lets go of the socket however the connection's task ends.
struct Open(Arc<Peer>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.gone();
    }
}

async fn connection<S: Service>(stream: TcpStream, address: SocketAddr, house: House<S>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, %error, "small writes may be delayed");
    }
    let House {
        service,
        budget,
        postman,
        stop,
    } = house;
    let (reading, writing) = stream.into_split();
    let peer = Peer::new(address, writing, Arc::clone(&budget), Some(postman));
    let open = Open(Arc::clone(&peer));
    let mut frames = Frames::new(reading, &peer, Arc::clone(&budget));
    let mut session = service.connected(&peer);
    let stopped = tokio::select! {
        ended = read(&mut frames, &peer, &mut session, &*service, &stop) => {
            if let Some(ended) = &ended {
                tell(address, ended);
            }
            ended.is_none()
        }
        () = peer.writing() => false,
        () = silence(&peer, budget.limits.idle) => {
            tracing::debug!(%address, "a silent connection is closed");
            false
        }
    };
    if stopped {
        let owed = async {
            tokio::select! {
                () = peer.nothing_owed() => {}
                () = peer.writing() => {}
            }
        };
        let within = budget.limits.stop_within;
        if tokio::time::timeout(within, owed).await.is_err() {
            tracing::debug!(%address, "a connection is closed with answers under way");
        }
    }
    drop(session);
    if stopped {
        peer.close();
        // Whoever does not read, or does not close, is not waited for.
        let _ = tokio::time::timeout(FAREWELL, peer.writing()).await;
        drop(open);
        let _ = tokio::time::timeout(FAREWELL, frames.discard()).await;
    }
}

fn tell(address: SocketAddr, ended: &Ended) {
    match ended {
        Ended::Closed | Ended::Broken(_) => {
            tracing::debug!(%address, reason = %ended, "a connection ends");
        }
        Ended::Frame(_) | Ended::Slow(_) => {
            tracing::warn!(%address, reason = %ended, "a connection is closed");
        }
    }
}

/// Reads and hands over, until the connection ends, or `stop` says true and what was read is handed over: then `None`.
async fn read<S: Service>(
    frames: &mut Frames,
    peer: &Arc<Peer>,
    session: &mut S::Session,
    service: &S,
    stop: &watch::Receiver<bool>,
) -> Option<Ended> {
    let mut stopped = pin!(stopped(stop.clone()));
    loop {
        let commands = tokio::select! {
            biased;
            () = &mut stopped => return None,
            commands = frames.next() => match commands {
                Ok(commands) => commands,
                Err(ended) => return Some(ended),
            },
        };
        let commands: Vec<(Command, Ticket)> = commands
            .into_iter()
            .filter_map(|command| {
                if command.is_response() {
                    peer.answered(command);
                    return None;
                }
                let ticket = Ticket::new(peer, &command);
                Some((command, ticket))
            })
            .collect();
        if commands.is_empty() {
            continue;
        }
        peer.cork();
        let mut taking = service.take(session, commands);
        // What is answered at once is written at once, in one piece; whoever has to wait holds up no answers.
        let taken = poll_fn(|context| Poll::Ready(taking.as_mut().poll(context).is_ready())).await;
        peer.uncork();
        if !taken {
            let too_late = async {
                self::stopped(stop.clone()).await;
                tokio::time::sleep(peer.limits().stop_within).await;
            };
            tokio::select! {
                () = taking => {}
                () = too_late => return None,
            }
        }
        tokio::select! {
            () = peer.has_read() => {}
            () = &mut stopped => return None,
        }
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // Whoever cannot say it any more is gone, and has said it by that.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits until nothing was heard for `idle`, at most a quarter longer.
async fn silence(peer: &Peer, idle: Duration) {
    let mut silent = 0;
    while silent < 4 {
        tokio::time::sleep(idle / 4).await;
        silent = if peer.was_heard() { 0 } else { silent + 1 };
    }
}

#[cfg(test)]
mod tests;
