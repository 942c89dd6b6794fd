//! The nameserver: which brokers there are, and which of them has which topic.

use std::sync::Arc;

use async_trait::async_trait;

use crate::remoting::peer::Peer;
use crate::remoting::service::{Answer, Service, Ticket};
use crate::wire::codes::response;
use crate::wire::command::Command;

/// Answers for one nameserver.
#[derive(Debug, Default)]
pub struct Nameserver {}

impl Nameserver {
    /// A nameserver that knows nobody yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

#[async_trait]
impl Service for Nameserver {
    type Session = ();

    fn connected(&self, _peer: &Arc<Peer>) {}

    async fn take(&self, _session: &mut (), commands: Vec<(Command, Ticket)>) {
        for (command, ticket) in commands {
            ticket.answer(Answer::refused(
                response::REQUEST_CODE_NOT_SUPPORTED,
                format!("request code {} is not supported", command.code),
            ));
        }
    }
}
