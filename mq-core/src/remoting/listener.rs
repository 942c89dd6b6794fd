//! Accepting connections, and the frame loop of each.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::peer::Peer;
use super::service::{Service, Ticket};
use crate::wire::frame;

/// A bound port. Nobody is answered before [`Listener::serve`].
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The operating system's, such as an address in use.
    pub async fn bind(address: SocketAddrV4) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until `stop` says true; then closes all connections and returns.
    pub async fn serve<S: Service>(self, service: Arc<S>, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(_) = connections.join_next() => {}
                accepted = self.0.accept() => match accepted {
                    Ok((stream, address)) => {
                        connections.spawn(connection(stream, address, Arc::clone(&service)));
                    }
                    Err(error) => tracing::warn!(%error, "a connection could not be accepted"),
                },
            }
        }
        connections.shutdown().await;
    }
}

async fn connection<S: Service>(stream: TcpStream, address: SocketAddr, service: Arc<S>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, %error, "small writes may be delayed");
    }
    let (reading, writing) = stream.into_split();
    let peer = Arc::new(Peer::new(address));
    let session = service.connected(&peer);
    tokio::select! {
        () = read(reading, &peer, session, &*service) => {}
        () = write(writing, &peer) => {}
    }
    peer.close();
}

async fn read<S: Service>(
    mut socket: OwnedReadHalf,
    peer: &Arc<Peer>,
    mut session: S::Session,
    service: &S,
) {
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    loop {
        match socket.read_buf(&mut buffer).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(address = %peer.address(), %error, "a connection broke");
                return;
            }
        }
        let mut commands = Vec::new();
        loop {
            match frame::take(&mut buffer) {
                Ok(Some(command)) if command.is_response() => {}
                Ok(Some(command)) => {
                    let ticket = Ticket::new(peer, &command);
                    commands.push((command, ticket));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(address = %peer.address(), %error, "a connection is closed");
                    return;
                }
            }
        }
        if !commands.is_empty() {
            service.take(&mut session, commands).await;
        }
    }
}

async fn write(mut socket: OwnedWriteHalf, peer: &Peer) {
    while let Some(bytes) = peer.queued().await {
        if socket.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
