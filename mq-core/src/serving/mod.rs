//! A broker behind a socket: what it answers to each request code.
//!
//! | file | owns |
//! |---|---|
//! | `fields` | reading a request's named values, and what is said when one is missing or wrong |
//! | `session` | what one connection has told about itself |
//! | `extensions` | whatever an extension has claimed goes to it |
//! | `sending` | 10, 310, 320: messages |

mod extensions;
pub mod fields;
pub mod sending;
mod session;

use std::net::SocketAddrV4;
use std::sync::Arc;

use async_trait::async_trait;

use self::extensions::Claimed;
use crate::broker::Broker;
use crate::remoting::peer::Peer;
use crate::remoting::service::{Answer, Service, Ticket};
use crate::wire::codes::{request, response};
use crate::wire::command::Command;

pub use session::Session;

/// How a broker presents itself to clients and nameservers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The cluster's name (`brokerClusterName`).
    pub cluster: String,
    /// The broker's name (`brokerName`).
    pub name: String,
    /// The address clients are told to connect to (`brokerIP1` and the port).
    pub advertised: SocketAddrV4,
}

/// Answers for one broker, on all of its ports.
#[derive(Debug)]
pub struct BrokerService {
    broker: Broker,
    presence: Presence,
}

impl BrokerService {
    /// Answers for `broker`.
    #[must_use]
    pub fn new(broker: Broker, presence: Presence) -> Arc<Self> {
        broker.advertise(presence.advertised);
        Arc::new(Self { broker, presence })
    }

    /// The broker.
    #[must_use]
    pub const fn broker(&self) -> &Broker {
        &self.broker
    }

    /// How it presents itself.
    #[must_use]
    pub const fn presence(&self) -> &Presence {
        &self.presence
    }
}

#[async_trait]
impl Service for BrokerService {
    type Session = Session;

    fn connected(&self, peer: &Arc<Peer>) -> Session {
        Session::new(peer)
    }

    async fn take(&self, session: &mut Session, commands: Vec<(Command, Ticket)>) {
        let mut claimed = Claimed::default();
        for (command, ticket) in commands {
            if let Some(extension) = extensions::claimant(self, &command) {
                claimed.push(extension, (command, ticket));
                continue;
            }
            match command.code {
                request::SEND_MESSAGE | request::SEND_MESSAGE_V2 => {
                    sending::send(self, &command, ticket);
                }
                code => ticket.answer(Answer::refused(
                    response::REQUEST_CODE_NOT_SUPPORTED,
                    format!("request code {code} is not supported"),
                )),
            }
        }
        claimed.hand_over(session.caller()).await;
    }
}

#[cfg(test)]
mod tests;
