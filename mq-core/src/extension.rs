//! The one way to add a protocol on top of the broker: what an extension claims, and how requests reach it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::broker::Broker;
use crate::log::{BROKER, LOG, OwnerId};
use crate::names::TopicName;
use crate::remoting::service::{Answer, Ticket};
use crate::wire::codes::response;
use crate::wire::command::Command;
use crate::wire::system;

/// What belongs to one extension alone. Two extensions that claim the same end the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Marks and notes of this owner are the extension's; 1 to 254.
    pub owner: OwnerId,
    /// Requests with these codes go to [`Extension::call`].
    pub request_codes: Vec<i32>,
    /// Messages sent with any of these flag bits go to [`Extension::call`] instead of the log. Only bits of
    /// [`system::CLAIMABLE_FLAGS`] can be claimed.
    pub send_flags: i32,
    /// Topics only the extension writes and reads: absent from route, list, send, pull, automatic creation and deletion.
    pub hidden_topics: Vec<TopicName>,
}

/// The client behind a request, as far as it has told who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Client id, empty before the first heartbeat of the connection.
    pub client_id: Arc<str>,
    /// The process life behind the connection, if it has told.
    pub incarnation: Option<u128>,
    /// Whether it has announced itself as a client of ours: the ids it makes are unique then.
    pub native: bool,
    /// Where it connected from.
    pub address: SocketAddr,
    /// Who asks, for people: address and client id.
    pub source: Arc<str>,
}

/// A claimed request and the right to answer it.
pub type Call = (Command, Ticket);

/// The extension has no room: the requests that were not taken, in their order, untouched.
#[derive(Debug)]
pub struct Busy(pub Vec<Call>);

/// Why an extension cannot start; shown to the operator as one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// A protocol on top of the broker.
#[async_trait]
pub trait Extension: fmt::Debug + Send + Sync + 'static {
    /// What belongs to the extension. Asked once, before anything starts.
    fn claims(&self) -> Claims;

    /// Starts: after the log's and the broker's recovery, before any client can reach the broker. Records it finds behind
    /// its own position in the log are recovered here.
    ///
    /// # Errors
    /// [`StartError`] ends the start of the broker.
    async fn start(&self, broker: Broker) -> Result<(), StartError>;

    /// Takes claimed requests of one client, all that one wake-up of its connection found, in their order. Never blocks;
    /// the answers go to the tickets, now or later, from any thread.
    ///
    /// # Errors
    /// [`Busy`] with those for which there is no room: wait for [`Extension::ready`] and call again.
    fn call(&self, _caller: &Arc<Caller>, calls: Vec<Call>) -> Result<(), Busy> {
        for (command, ticket) in calls {
            ticket.answer(Answer::refused(
                response::REQUEST_CODE_NOT_SUPPORTED,
                format!("request code {} is not supported here", command.code),
            ));
        }
        Ok(())
    }

    /// Waits until [`Extension::call`] may have room again.
    async fn ready(&self) {}

    /// Whether `topic` may neither be deleted nor lose queues, because the extension will still publish to it. An
    /// extension raises its hold before it calls [`Broker::admit`], so that no deletion comes between the two.
    fn holds_topic(&self, _topic: &TopicName) -> bool {
        false
    }

    /// Stops: finishes what it has accepted, at most for `within`, then drops its handle of the broker.
    async fn stop(&self, within: Duration);
}

/// Claims that cannot stand together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Two extensions claim the same.
    #[error("extensions {first} and {second} both claim {what}")]
    Clash {
        /// Owner number of one.
        first: u8,
        /// Owner number of the other.
        second: u8,
        /// What both claim.
        what: String,
    },
    /// The claim is the broker's own.
    #[error("extension {owner} claims {what}, which belongs to the broker")]
    BrokersOwn {
        /// Owner number.
        owner: u8,
        /// What is claimed.
        what: String,
    },
}

/// The claims of all extensions, checked against each other.
#[derive(Debug, Default)]
pub(crate) struct Claimed {
    extensions: Vec<(Claims, Arc<dyn Extension>)>,
}

impl Claimed {
    pub(crate) fn new(extensions: Vec<Arc<dyn Extension>>) -> Result<Self, ClaimError> {
        let extensions: Vec<_> = extensions.into_iter().map(|e| (e.claims(), e)).collect();
        let claims: Vec<&Claims> = extensions.iter().map(|(claims, _)| claims).collect();
        check(&claims)?;
        Ok(Self { extensions })
    }

    pub(crate) fn extensions(&self) -> impl DoubleEndedIterator<Item = &Arc<dyn Extension>> {
        self.extensions.iter().map(|(_, extension)| extension)
    }

    pub(crate) fn by_code(&self, code: i32) -> Option<&Arc<dyn Extension>> {
        self.find(|claims| claims.request_codes.contains(&code))
    }

    pub(crate) fn by_flag(&self, sys_flag: i32) -> Option<&Arc<dyn Extension>> {
        self.find(|claims| claims.send_flags & sys_flag != 0)
    }

    pub(crate) fn hides(&self, topic: &TopicName) -> bool {
        self.find(|claims| claims.hidden_topics.contains(topic))
            .is_some()
    }

    pub(crate) fn holds(&self, topic: &TopicName) -> bool {
        self.extensions()
            .any(|extension| extension.holds_topic(topic))
    }

    fn find(&self, which: impl Fn(&Claims) -> bool) -> Option<&Arc<dyn Extension>> {
        self.extensions
            .iter()
            .find(|(claims, _)| which(claims))
            .map(|(_, extension)| extension)
    }
}

fn check(all: &[&Claims]) -> Result<(), ClaimError> {
    for (index, one) in all.iter().enumerate() {
        let own = |what: String| ClaimError::BrokersOwn {
            owner: one.owner.0,
            what,
        };
        if [BROKER, LOG].contains(&one.owner) {
            return Err(own(format!("owner {}", one.owner.0)));
        }
        if one.send_flags & !system::CLAIMABLE_FLAGS != 0 {
            return Err(own(format!(
                "send flags {:#x}",
                one.send_flags & !system::CLAIMABLE_FLAGS
            )));
        }
        if let Some(topic) = one
            .hidden_topics
            .iter()
            .find(|t| system::BROKER_TOPICS.contains(&t.as_str()))
        {
            return Err(own(format!("topic {topic}")));
        }
        for other in all.iter().skip(index + 1) {
            if let Some(what) = common(one, other) {
                return Err(ClaimError::Clash {
                    first: one.owner.0,
                    second: other.owner.0,
                    what,
                });
            }
        }
    }
    Ok(())
}

fn common(one: &Claims, other: &Claims) -> Option<String> {
    if one.owner == other.owner {
        return Some(format!("owner {}", one.owner.0));
    }
    if let Some(code) = one
        .request_codes
        .iter()
        .find(|code| other.request_codes.contains(code))
    {
        return Some(format!("request code {code}"));
    }
    if one.send_flags & other.send_flags != 0 {
        return Some(format!(
            "send flags {:#x}",
            one.send_flags & other.send_flags
        ));
    }
    one.hidden_topics
        .iter()
        .find(|t| other.hidden_topics.contains(t))
        .map(|topic| format!("topic {topic}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::reserved;

    fn claims(owner: u8) -> Claims {
        Claims {
            owner: OwnerId(owner),
            request_codes: vec![],
            send_flags: 0,
            hidden_topics: vec![],
        }
    }

    #[test]
    fn claims_that_clash_are_named() {
        let topic = TopicName::new("hidden").unwrap();
        let one = Claims {
            request_codes: vec![37],
            send_flags: 4,
            hidden_topics: vec![topic.clone()],
            ..claims(1)
        };
        assert_eq!(check(&[&one, &claims(2)]), Ok(()));
        for (other, named) in [
            (claims(1), "owner 1"),
            (
                Claims {
                    request_codes: vec![1, 37],
                    ..claims(2)
                },
                "request code 37",
            ),
            (
                Claims {
                    send_flags: 12,
                    ..claims(2)
                },
                "send flags 0x4",
            ),
            (
                Claims {
                    hidden_topics: vec![topic.clone()],
                    ..claims(2)
                },
                "topic hidden",
            ),
        ] {
            let error = check(&[&one, &other]).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn the_brokers_own_cannot_be_claimed() {
        let schedule = TopicName::new(system::BROKER_TOPICS[0]).unwrap();
        for claim in [
            claims(0),
            Claims {
                send_flags: reserved::FLAG_COMPRESSED,
                ..claims(1)
            },
            Claims {
                hidden_topics: vec![schedule],
                ..claims(1)
            },
        ] {
            assert!(
                matches!(check(&[&claim]), Err(ClaimError::BrokersOwn { .. })),
                "{claim:?}"
            );
        }
    }
}
