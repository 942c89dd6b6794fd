//! When a transaction is first asked about: as its sender said, or sooner if that sender is gone.

use std::sync::Arc;
use std::time::Duration;

use mq_core::broker::clients::Clients;
use mq_core::clock::ServerTime;
use mq_core::log::Log;

use crate::store::Half;

/// Says when a transaction whose row is written undecided is due.
#[derive(Debug, Clone)]
pub struct CheckAt {
    /// Who is connected.
    pub clients: Clients,
    /// Server time.
    pub log: Arc<dyn Log>,
    /// How long a sender must be gone.
    pub grace: Duration,
}

impl CheckAt {
    /// The time `asked` for; sooner if the sender is gone already, now if it has connected again since it sent this. Liveness
    /// is a level: nobody's leaving can be missed.
    #[must_use]
    pub fn of(&self, half: &Half, asked: ServerTime) -> ServerTime {
        let (Some(sender), Some(_)) = (half.sender, half.marker) else {
            return asked;
        };
        if let Some(connected_for) = self.clients.connected_for(sender.0) {
            let now = self.log.now();
            let is_back = now.since(half.prepared_at) > connected_for;
            return if is_back { asked.min(now) } else { asked };
        }
        let gone = self.clients.last_seen(sender.0).unwrap_or_default();
        asked.min(self.log.now().after(self.grace.saturating_sub(gone)))
    }
}
