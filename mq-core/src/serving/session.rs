//! What one connection has told about itself.

use std::sync::Arc;

use crate::remoting::peer::Peer;

/// The state of one connection to the broker.
#[derive(Debug)]
pub struct Session {
    peer: Arc<Peer>,
}

impl Session {
    pub(super) fn new(peer: &Arc<Peer>) -> Self {
        Self {
            peer: Arc::clone(peer),
        }
    }

    /// The peer.
    #[must_use]
    pub const fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}
