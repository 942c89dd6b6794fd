//! A broker behind a socket: what it answers to each request code.
//!
//! | file | owns |
//! |---|---|
//! | `fields` | reading a request's named values, and what is said when one is missing or wrong |
//! | `session` | what one connection has told about itself |
//! | `extensions` | whatever an extension has claimed goes to it |
//! | `refusals` | which response code each reason to refuse has |
//! | `roster` | who is connected, and what each has said in its own words |
//! | `sending` | 10, 310, 320: messages |
//! | `pulling` | 11, 361: messages of one queue, held until there are some |
//! | `membership` | 34, 35, 38, 46: who is there, in which groups, and what it wants to read |
//! | `offsets` | 14, 15, 29, 30, 31, 32: how far a group has come, and the ends of queues |
//! | `retrying` | 36: messages to be consumed again later |
//! | `locks` | 41, 42: queues that are consumed in order |
//! | `lookup` | 12, 33: single messages |
//! | `topics` | 17, 21, 202, 215, 351: topics as an operator sees and sets them |
//! | `groups` | 200, 201, 203, 204, 207, 300, 352: groups as an operator sees and sets them |
//! | `progress` | 208, 222, 314, 317: how far groups have come, and setting them back or forward |
//! | `relays` | 307, 309: asked of one consumer, passed on to it |
//! | `replies` | 324, 325: replies, pushed to the client that waits |
//! | `figures` | 26, 28, 315: settings, and how the broker is doing |
//! | `registration` | 103, 104, to nameservers: where this broker is and what it has |
//!
//! What needs no waiting is answered where it stands. Messages to be stored are gathered: one wake-up, one append. Rare
//! requests that wait for the disk are worked on aside, so that nobody waits for them but who asked.

mod extensions;
pub mod fields;
mod figures;
mod groups;
mod locks;
mod lookup;
mod membership;
mod offsets;
mod progress;
mod pulling;
mod refusals;
pub mod registration;
mod relays;
mod replies;
mod retrying;
mod roster;
pub mod sending;
mod session;
mod topics;

use std::net::SocketAddrV4;
use std::sync::Arc;

use async_trait::async_trait;

use self::extensions::Claimed;
use self::figures::Figures;
use self::locks::Locks;
use self::refusals::Answered;
use self::roster::Roster;
use self::sending::Outgoing;
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
    roster: Arc<Roster>,
    locks: Arc<Locks>,
    figures: Arc<Figures>,
    /// Wall clock of the start, ms since 1970.
    started_ms: u64,
}

impl BrokerService {
    /// Answers for `broker`.
    #[must_use]
    pub fn new(broker: Broker, presence: Presence) -> Arc<Self> {
        broker.advertise(presence.advertised);
        let locks = Arc::new(Locks::new(Arc::clone(broker.clock())));
        Arc::new(Self {
            started_ms: broker.clock().wall_ms(),
            broker,
            presence,
            roster: Arc::default(),
            locks,
            figures: Arc::default(),
        })
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
        let mut outgoing = Outgoing::default();
        for (command, ticket) in commands {
            if let Some(extension) = extensions::claimant(self, &command) {
                claimed.push(extension, (command, ticket));
                continue;
            }
            match command.code {
                request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
                    outgoing.push(self, command, ticket).await;
                }
                request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => {
                    pulling::pull(self, session, &command, ticket);
                }
                request::CONSUMER_SEND_MSG_BACK => {
                    let answer = retrying::send_back(self.broker.clone(), command);
                    session.aside(given(answer, ticket)).await;
                }
                request::GET_CONSUMER_RUNNING_INFO => match relays::ask(self, command) {
                    Ok(relay) => session.aside(given(relays::pass_on(relay), ticket)).await,
                    Err(refusal) => ticket.answer(refusal),
                },
                request::CONSUME_MESSAGE_DIRECTLY => match relays::consume(self, command) {
                    Ok(relay) => session.aside(given(relays::pass_on(relay), ticket)).await,
                    Err(refusal) => ticket.answer(refusal),
                },
                request::SEND_REPLY_MESSAGE | request::SEND_REPLY_MESSAGE_V2 => {
                    let answer = replies::push(self, &command, &ticket);
                    ticket.answer(answer.unwrap_or_else(|refusal| refusal));
                }
                request::UPDATE_AND_CREATE_TOPIC => {
                    let answer = topics::put(self.broker.clone(), command);
                    session.aside(given(answer, ticket)).await;
                }
                request::DELETE_TOPIC_IN_BROKER => {
                    let answer = topics::delete(self.broker.clone(), command);
                    session.aside(given(answer, ticket)).await;
                }
                request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => {
                    let answer = groups::put(self.broker.clone(), command);
                    session.aside(given(answer, ticket)).await;
                }
                request::DELETE_SUBSCRIPTIONGROUP => {
                    let answer = groups::delete(self.broker.clone(), command);
                    session.aside(given(answer, ticket)).await;
                }
                _ => {
                    let answer = self.answer(session, &command).await;
                    ticket.answer(answer.unwrap_or_else(|refusal| refusal));
                }
            }
        }
        outgoing.store(self).await;
        claimed.hand_over(session.caller()).await;
    }
}

/// Gives an answer when there is one.
async fn given(answer: impl Future<Output = Answered>, ticket: Ticket) {
    ticket.answer(answer.await.unwrap_or_else(|refusal| refusal));
}

impl BrokerService {
    /// Answers a request of which the next one of the same connection may know.
    async fn answer(&self, session: &mut Session, command: &Command) -> Answered {
        match command.code {
            request::QUERY_MESSAGE => lookup::by_key(self, command),
            request::QUERY_CONSUMER_OFFSET => offsets::query(self, command),
            request::UPDATE_CONSUMER_OFFSET => offsets::update(self, command),
            request::GET_ALL_TOPIC_CONFIG => topics::all(self),
            request::GET_BROKER_CONFIG => figures::settings(self),
            request::GET_BROKER_RUNTIME_INFO => figures::runtime(self),
            request::SEARCH_OFFSET_BY_TIMESTAMP => offsets::at_time(self, command),
            request::GET_MAX_OFFSET => offsets::end(self, command),
            request::GET_MIN_OFFSET => offsets::start(self, command),
            request::GET_EARLIEST_MSG_STORETIME => offsets::oldest(self, command),
            request::VIEW_MESSAGE_BY_ID => lookup::by_position(self, command),
            request::HEART_BEAT => membership::heartbeat(self, session, command).await,
            request::UNREGISTER_CLIENT => membership::unregister(self, session, command).await,
            request::GET_CONSUMER_LIST_BY_GROUP => membership::members(self, command),
            request::LOCK_BATCH_MQ => locks::lock(self, command),
            request::UNLOCK_BATCH_MQ => locks::unlock(self, command),
            request::CHECK_CLIENT_CONFIG => membership::check_subscription(self, command),
            request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => groups::all(self),
            request::GET_TOPIC_STATS_INFO => topics::ends(self, command),
            request::GET_CONSUMER_CONNECTION_LIST => groups::consumers(self, command),
            request::GET_PRODUCER_CONNECTION_LIST => groups::producers(self, command),
            request::GET_CONSUME_STATS => progress::of_group(self, command),
            request::INVOKE_BROKER_TO_RESET_OFFSET => progress::reset(self, command),
            request::QUERY_TOPIC_CONSUME_BY_WHO => groups::of_topic(self, command),
            request::CLONE_GROUP_OFFSET => progress::copy(self, command),
            request::VIEW_BROKER_STATS_DATA => figures::counter(command),
            // Nothing is left over: queues go with their topic.
            request::CLEAN_UNUSED_TOPIC => Ok(Answer::done()),
            request::GET_BROKER_CONSUME_STATS => progress::of_all(self),
            request::GET_TOPIC_CONFIG => topics::one(self, command),
            request::GET_SUBSCRIPTIONGROUP_CONFIG => groups::one(self, command),
            code => Err(Answer::refused(
                response::REQUEST_CODE_NOT_SUPPORTED,
                format!("request code {code} is not supported"),
            )),
        }
    }
}

#[cfg(test)]
mod tests;
