//! What the connections of one listener may cost, together and each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Limits of a listener. The defaults suit a server that is given 96 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at a time; further ones are closed at once.
    pub connections: usize,
    /// A connection over which nothing came for so long is closed (RocketMQ `serverChannelMaxIdleTimeSeconds`).
    pub idle: Duration,
    /// While more bytes than this wait for a peer that does not read, nothing more is read from it.
    pub pause_bytes: usize,
    /// A peer for which more bytes than this wait loses its connection.
    pub outbox_bytes: usize,
    /// Bytes that may wait for all peers together. Beyond half of it no more is read from peers that do not read; beyond all
    /// of it they lose their connections.
    pub all_outboxes_bytes: usize,
    /// Bytes of large frames, 64 KiB and more, that may be read at a time; further large frames wait for their turn. At
    /// least one is always read.
    pub large_frames_bytes: usize,
    /// How long a large frame may take from its first byte to its last.
    pub large_frame_within: Duration,
    /// How long a stop waits for answers under way; peers get at most a second more to read them.
    pub stop_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            idle: Duration::from_secs(120),
            pause_bytes: 1024 * 1024,
            outbox_bytes: 16 * 1024 * 1024,
            all_outboxes_bytes: 48 * 1024 * 1024,
            large_frames_bytes: 32 * 1024 * 1024,
            large_frame_within: Duration::from_secs(60),
            stop_within: Duration::from_secs(5),
        }
    }
}

/// Frames of this size and more are counted against [`Limits::large_frames_bytes`].
pub(super) const LARGE_FRAME_BYTES: usize = 64 * 1024;

/// The unit in which large frames are counted.
const UNIT: usize = 1024;

/// What connections with the same limits have used of them.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) limits: Limits,
    queued: AtomicUsize,
    large: Semaphore,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        let units = (limits.large_frames_bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            limits,
            queued: AtomicUsize::new(0),
            large: Semaphore::new(units),
        }
    }

    /// Bytes that wait for all peers.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.queued.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The turn of a large frame. `None` when it does not come in time.
    pub(super) async fn large_frame(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let most = (self.limits.large_frames_bytes / UNIT).max(1);
        let units = u32::try_from((bytes / UNIT).clamp(1, most)).unwrap_or(u32::MAX);
        let turn = self.large.acquire_many(units);
        let turn = tokio::time::timeout(self.limits.large_frame_within, turn).await;
        // The semaphore is never closed.
        turn.ok()?.ok()
    }
}
