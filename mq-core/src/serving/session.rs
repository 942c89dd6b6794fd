//! What one connection has told about itself.

use std::sync::Arc;

use crate::extension::Caller;
use crate::remoting::peer::Peer;

/// The state of one connection to the broker.
#[derive(Debug)]
pub struct Session {
    peer: Arc<Peer>,
    caller: Arc<Caller>,
}

impl Session {
    pub(super) fn new(peer: &Arc<Peer>) -> Self {
        let address = peer.address();
        let caller = Caller {
            client_id: "".into(),
            incarnation: None,
            native: false,
            address,
            source: address.to_string().into(),
        };
        Self {
            peer: Arc::clone(peer),
            caller: Arc::new(caller),
        }
    }

    /// The peer.
    #[must_use]
    pub const fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Who it is, as far as it has told. A heartbeat replaces it.
    #[must_use]
    pub const fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }
}
