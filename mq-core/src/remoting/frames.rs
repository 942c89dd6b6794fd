//! What one connection says: all whole frames of a wake-up at once, with a buffer only while there is something in it.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::SemaphorePermit;

use super::limits::{Budget, LARGE_FRAME_BYTES};
use super::peer::Peer;
use crate::wire::command::Command;
use crate::wire::frame::{self, FrameError};

/// Bounds of what is read at once; it follows what comes.
const READ_BYTES: std::ops::RangeInclusive<usize> = 2 * 1024..=64 * 1024;

/// Why no more frames come.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The peer has closed the connection.
    #[error("the peer closed it")]
    Closed,
    /// The connection broke.
    #[error(transparent)]
    Broken(#[from] io::Error),
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A large frame did not come to its end.
    #[error("a frame of {0} bytes took too long")]
    Slow(usize),
}

/// Reads frames.
#[derive(Debug)]
pub(super) struct Frames {
    socket: OwnedReadHalf,
    peer: Arc<Peer>,
    budget: Arc<Budget>,
    buffer: BytesMut,
    /// How much to read at once.
    size: usize,
    /// What ends the connection after the frames that came before it.
    bad: Option<FrameError>,
}

impl Frames {
    pub(super) fn new(socket: OwnedReadHalf, peer: &Arc<Peer>, budget: Arc<Budget>) -> Self {
        Self {
            socket,
            peer: Arc::clone(peer),
            budget,
            buffer: BytesMut::new(),
            size: *READ_BYTES.start(),
            bad: None,
        }
    }

    /// Waits for the next frames: at least one, and all that came with it. May be dropped while it waits.
    ///
    /// # Errors
    /// [`Ended`]: close the connection.
    pub(super) async fn next(&mut self) -> Result<Vec<Command>, Ended> {
        let mut commands = Vec::new();
        loop {
            self.take(&mut commands)?;
            if !commands.is_empty() {
                return Ok(commands);
            }
            match frame::wanted(&self.buffer) {
                Some(bytes) if bytes >= LARGE_FRAME_BYTES => self.finish(bytes).await?,
                _ => self.fill().await?,
            }
        }
    }

    /// Reads and forgets, until the peer closes the connection: a socket that is closed with something unread takes back
    /// the answers that are still on their way. May be dropped.
    pub(super) async fn discard(&mut self) {
        loop {
            self.buffer.clear();
            if self.fill().await.is_err() {
                return;
            }
        }
    }

    /// Takes what is whole. A bad frame is told of when the frames before it have been handed out.
    fn take(&mut self, commands: &mut Vec<Command>) -> Result<(), FrameError> {
        if let Some(error) = self.bad.take() {
            return Err(error);
        }
        loop {
            match frame::take(&mut self.buffer) {
                Ok(Some(command)) => commands.push(command),
                Ok(None) => return Ok(()),
                Err(error) if commands.is_empty() => return Err(error),
                Err(error) => {
                    self.bad = Some(error);
                    return Ok(());
                }
            }
        }
    }

    /// Reads once.
    async fn fill(&mut self) -> Result<(), Ended> {
        if self.buffer.is_empty() {
            // Whoever is silent has no buffer.
            self.buffer = BytesMut::new();
            self.socket.readable().await?;
        }
        self.buffer.reserve(self.size);
        let room = self.buffer.capacity() - self.buffer.len();
        let read = self.socket.read_buf(&mut self.buffer).await?;
        if read == 0 {
            return Err(Ended::Closed);
        }
        self.peer.hear();
        if read == room {
            self.size = (self.size * 2).min(*READ_BYTES.end());
        } else if read < self.size / 4 {
            self.size = (self.size / 2).max(*READ_BYTES.start());
        }
        Ok(())
    }

    /// Reads on until the `bytes` of a large frame are there: it waits for its turn and must not take for ever. What is
    /// reserved grows with what has come, not with what is claimed.
    async fn finish(&mut self, bytes: usize) -> Result<(), Ended> {
        let budget = Arc::clone(&self.budget);
        let turn: Option<SemaphorePermit<'_>> = budget.large_frame(bytes).await;
        let _turn = turn.ok_or(Ended::Slow(bytes))?;
        let reading = async {
            while self.buffer.len() < bytes {
                self.fill().await?;
            }
            Ok(())
        };
        tokio::time::timeout(budget.limits.large_frame_within, reading)
            .await
            .unwrap_or(Err(Ended::Slow(bytes)))
    }
}
