//! What one connection has told about itself, and the work that is done for it.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::locks::Locks;
use super::roster::{Entry, Roster, Subscribed};
use crate::broker::clients::Connection;
use crate::extension::Caller;
use crate::names::{GroupName, TopicName};
use crate::remoting::peer::Peer;

/// Most clients that share one connection; real ones have one each.
const CLIENTS_MAX: usize = 64;
/// Most pulls of one connection that are held; a consumer holds one for each of its queues.
const HELD_MAX: usize = 4_096;
/// Most requests of one connection that are worked on aside; the next one waits, and with it the connection.
const ASIDE_MAX: usize = 64;

/// The state of one connection to the broker. Dropping it ends the work for it, and its clients leave their groups.
#[derive(Debug)]
pub struct Session {
    peer: Arc<Peer>,
    caller: Arc<Caller>,
    clients: Vec<Registered>,
    held: JoinSet<()>,
    aside: JoinSet<()>,
}

/// One client of the connection. Its parts are dropped in this order.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) entry: Entry,
    pub(super) release: Release,
    pub(super) incarnation: u128,
    pub(super) connection: Connection,
}

/// Gives back the locks of a client that is connected no more.
#[derive(Debug)]
pub(super) struct Release {
    pub(super) client_id: Arc<str>,
    pub(super) roster: Arc<Roster>,
    pub(super) locks: Arc<Locks>,
}

impl Drop for Release {
    fn drop(&mut self) {
        if self.roster.clients(&self.client_id).is_empty() {
            self.locks.release_all(&self.client_id);
        }
    }
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
            clients: Vec::new(),
            held: JoinSet::new(),
            aside: JoinSet::new(),
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

    pub(super) fn set_caller(&mut self, caller: Caller) {
        self.caller = Arc::new(caller);
    }

    /// A client of this connection.
    pub(super) fn client(&mut self, id: &str) -> Option<&mut Registered> {
        let is = |client: &&mut Registered| &*client.release.client_id == id;
        self.clients.iter_mut().find(is)
    }

    /// Adds a client, in the place of one with the same id; false when there is no room.
    pub(super) fn register(&mut self, client: Registered) -> bool {
        self.unregister(&client.release.client_id);
        let room = self.clients.len() < CLIENTS_MAX;
        if room {
            self.clients.push(client);
        }
        room
    }

    /// Removes a client.
    pub(super) fn unregister(&mut self, id: &str) {
        self.clients
            .retain(|client| &*client.release.client_id != id);
    }

    /// What a client of this connection has subscribed to.
    pub(super) fn subscribed(&self, group: &GroupName, topic: &TopicName) -> Option<Subscribed> {
        let mut told = self.clients.iter().map(|client| client.entry.told());
        told.find_map(|told| told.subscriptions.get(group)?.get(topic).cloned())
    }

    /// Whether another pull may be held.
    pub(super) fn may_hold(&mut self) -> bool {
        while self.held.try_join_next().is_some() {}
        self.held.len() < HELD_MAX
    }

    /// Holds a pull until its future ends, or the connection.
    pub(super) fn hold(&mut self, pull: impl Future<Output = ()> + Send + 'static) {
        self.held.spawn(pull);
    }

    /// Works on a request aside, so that the next ones need not wait for it; its end, and that of the connection, end it.
    pub(super) async fn aside(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        while self.aside.try_join_next().is_some() {}
        if self.aside.len() >= ASIDE_MAX {
            self.aside.join_next().await;
        }
        self.aside.spawn(work);
    }
}
