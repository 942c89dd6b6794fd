//! What brokers ask this process, handed to the clients it is for.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::network::Network;
use crate::membership::{Link, Notice};
use crate::names::GroupName;
use crate::remoting::client::Requests;
use crate::remoting::service::{Answer, Ticket};
use crate::wire::codes::response;
use crate::wire::command::Command;
use crate::wire::questions::{self, For};

/// When routes are looked at once more after a group has changed: a new topic takes a moment to reach the nameservers.
const ONCE_MORE: Duration = Duration::from_secs(1);

/// Takes what brokers ask one client.
pub trait Questions: fmt::Debug + Send + Sync + 'static {
    /// Takes a question of the broker with this name. Never blocks.
    fn ask(&self, broker: &str, notice: Notice);
}

/// A link that does not care which broker asks.
#[derive(Debug)]
pub(super) struct Anyone(pub(super) Arc<dyn Link>);

impl Questions for Anyone {
    fn ask(&self, _broker: &str, notice: Notice) {
        // It comes again if it matters.
        let _ = self.0.push(notice);
    }
}

/// Answers the requests of one broker.
pub(super) struct Answering {
    network: Weak<Network>,
    address: String,
}

impl Answering {
    pub(super) fn new(network: Weak<Network>, address: &str) -> Self {
        Self {
            network,
            address: address.to_owned(),
        }
    }
}

impl Requests for Answering {
    fn request(&self, command: Command, ticket: Ticket) {
        let Some(network) = self.network.upgrade() else {
            return ticket.forget();
        };
        let asked = match questions::addressee(&command) {
            For::Nobody => {
                return ticket.answer(Answer::refused(
                    response::REQUEST_CODE_NOT_SUPPORTED,
                    format!("this client does not answer request code {}", command.code),
                ));
            }
            For::Consumers(group) => {
                network.doubt_all();
                look_again_later(&network, &group);
                network.asked(|said| {
                    let mut groups = said.consumer_groups.iter();
                    groups.any(|member| member.group.as_str() == group)
                })
            }
            For::Producers(group) => network.asked(|said| {
                let mut groups = said.producer_groups.iter();
                groups.any(|known| known.as_str() == group)
            }),
        };
        let broker = network.name_of(&self.address);
        let broker = broker.as_deref().unwrap_or(&self.address);
        let notice = Notice {
            code: command.code,
            fields: questions::fields(&command),
            body: command.body.clone(),
        };
        for one in asked {
            one.ask(broker, notice.clone());
        }
        ticket.answer(Answer::done());
    }
}

/// Has the consumers of a group look at their queues again in a while.
fn look_again_later(network: &Arc<Network>, group: &str) {
    let Ok(group) = GroupName::new(group) else {
        return;
    };
    let network = Arc::downgrade(network);
    tokio::spawn(async move {
        tokio::time::sleep(ONCE_MORE).await;
        let Some(network) = network.upgrade() else {
            return;
        };
        network.doubt_all();
        let notice = Notice {
            code: crate::wire::reserved::NOTIFY_CONSUMER_IDS_CHANGED,
            fields: Vec::new(),
            body: bytes::Bytes::new(),
        };
        let members = network.asked(|said| {
            said.consumer_groups
                .iter()
                .any(|member| member.group == group)
        });
        for member in members {
            member.ask("", notice.clone());
        }
    });
}
