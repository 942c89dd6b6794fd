//! Brokers behind nameservers as a transport: RocketMQ's protocol, ours or stock ones at the other end.
//!
//! | file | owns |
//! |---|---|
//! | `network` | what this process shares: brokers, routes, heartbeats, who is connected |
//! | `link` | the connection to one broker, opened again when it is lost |
//! | `nameservers` | asking one nameserver after the other |
//! | `questions` | what brokers ask, handed to the clients it is for |
//! | `requests` | what is asked, as commands: pure |
//! | `route` | where a topic is, and whose turn it is: pure |
//! | `back_off` | when to try again: pure |
//! | `addresses` | addresses as users write them: pure |

mod addresses;
mod back_off;
mod link;
mod nameservers;
mod network;
mod questions;
mod requests;
mod route;
#[cfg(feature = "engine")]
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::{self, Handle};

pub use self::network::{Joined, Network, Place, Taken};
pub use self::questions::Questions;
use super::{Attachment, ClientError, MessageQueue, Transport};
use crate::clock::Clock;
use crate::exchange::{Incoming, Pull, Pulled, Receipt, SendBack};
use crate::membership::{Announcement, ConsumeFrom, Link};
use crate::names::{GroupName, TopicName};
use crate::random::Random;
use crate::wire::codes::{request, response};

/// How long an answer may take, beside what a request itself may wait.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How many queues a topic gets that sending creates, as RocketMQ's clients ask for.
const DEFAULT_QUEUES: u32 = 4;

/// How long offsets wait until they are committed, as RocketMQ's clients do.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);

/// How often a message is consumed again, as RocketMQ's clients tell brokers.
const STOCK_RETRIES: u32 = 16;

/// The variable that names nameservers where no address is given.
const VARIABLE: &str = "NAMESRV_ADDR";

/// All networks of this process that are in use.
static NETWORKS: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

struct Shared {
    addresses: Arc<[String]>,
    client_id: Option<String>,
    runtime: runtime::Id,
    network: Weak<Network>,
}

/// This process's way to the brokers behind `nameservers`: `HOST:PORT`, several separated by `;`. Empty text takes the
/// environment variable `NAMESRV_ADDR`. Everybody who names the same shares one connection to each broker; who wants a place
/// that is taken already gets connections of their own.
///
/// # Errors
/// [`ClientError::Refused`] for what is no address; [`ClientError::Unavailable`] when no nameserver answers.
pub async fn network(
    nameservers: &str,
    client_id: Option<&str>,
    place: Option<Place>,
) -> Result<(Arc<Network>, Option<Taken>), ClientError> {
    let given = match nameservers.trim() {
        "" => std::env::var(VARIABLE).unwrap_or_default(),
        given => given.to_owned(),
    };
    let addresses: Arc<[String]> = addresses::parse(&given)?.into();
    let (network, taken) = shared(&addresses, client_id, place.as_ref());
    network.find_brokers().await?;
    Ok((network, taken))
}

fn shared(
    addresses: &Arc<[String]>,
    client_id: Option<&str>,
    place: Option<&Place>,
) -> (Arc<Network>, Option<Taken>) {
    let runtime = Handle::current().id();
    let mut networks = NETWORKS.lock().unwrap_or_else(PoisonError::into_inner);
    networks.retain(|shared| shared.network.strong_count() > 0);
    let same = networks.iter().filter(|shared| {
        shared.addresses == *addresses
            && shared.client_id.as_deref() == client_id
            && shared.runtime == runtime
    });
    for shared in same {
        let Some(network) = shared.network.upgrade() else {
            continue;
        };
        match place.map(|place| network.take(place)) {
            None => return (network, None),
            Some(Some(taken)) => return (network, Some(taken)),
            Some(None) => {}
        }
    }
    let network = Network::new(Arc::clone(addresses), client_id);
    networks.push(Shared {
        addresses: Arc::clone(addresses),
        client_id: client_id.map(str::to_owned),
        runtime,
        network: Arc::downgrade(&network),
    });
    let taken = place.and_then(|place| network.take(place));
    (network, taken)
}

/// Brokers behind nameservers.
#[derive(Debug)]
pub struct Remote {
    network: Arc<Network>,
    /// The producer group that sent messages carry.
    group: String,
    answer_within: Duration,
    _taken: Option<Taken>,
}

impl Remote {
    /// Over `network`; sent messages carry this producer group.
    #[must_use]
    pub fn new(network: Arc<Network>, group: impl Into<String>, taken: Option<Taken>) -> Self {
        Self {
            network,
            group: group.into(),
            answer_within: ANSWER_WITHIN,
            _taken: taken,
        }
    }

    /// How long an answer may take; [`ANSWER_WITHIN`] unless set.
    #[must_use]
    pub const fn answer_within(mut self, within: Duration) -> Self {
        self.answer_within = within;
        self
    }

    async fn ask(
        &self,
        queue: &MessageQueue,
        code: i32,
        more: &[(&str, &str)],
    ) -> Result<crate::wire::command::Command, ClientError> {
        let command = requests::about(code, queue, more);
        let answer = self
            .network
            .call(&queue.broker, command, self.answer_within)
            .await?;
        match answer.code {
            response::SUCCESS => Ok(answer),
            _ => Err(requests::refused(&answer, &broker(queue))),
        }
    }

    async fn ask_number(
        &self,
        queue: &MessageQueue,
        code: i32,
        more: &[(&str, &str)],
    ) -> Result<u64, ClientError> {
        let answer = self.ask(queue, code, more).await?;
        requests::number(&answer, "offset", &broker(queue))
    }
}

fn broker(queue: &MessageQueue) -> String {
    format!("broker {}", queue.broker)
}

#[async_trait]
impl Transport for Remote {
    async fn attach(
        &self,
        _client_id: Option<Arc<str>>,
        link: Arc<dyn Link>,
    ) -> Result<Box<dyn Attachment>, ClientError> {
        let questions = Arc::new(questions::Anyone(link));
        let joined = self.network.enter(Announcement::default(), questions);
        Ok(Box::new(RemoteAttachment {
            client_id: Arc::clone(self.network.client_id()),
            joined,
        }))
    }

    async fn queues(&self, topic: &TopicName) -> Result<Option<Vec<MessageQueue>>, ClientError> {
        let route = self.network.route(topic).await?;
        Ok(route.map(|route| route.readable.clone()))
    }

    async fn queues_for_sending(&self, topic: &TopicName) -> Result<Option<u32>, ClientError> {
        let route = self.network.route_for_sending(topic).await?;
        let count = |queues: usize| u32::try_from(queues).unwrap_or(u32::MAX);
        Ok(route.map(|route| count(route.writable.len())))
    }

    async fn send(&self, messages: Vec<Incoming>) -> Result<Vec<Receipt>, ClientError> {
        let Some(first) = messages.first() else {
            return Ok(Vec::new());
        };
        let together =
            |other: &Incoming| (&other.topic, other.queue) == (&first.topic, first.queue);
        if !messages.iter().all(together) {
            return Err(ClientError::Refused(
                "messages that are sent together must be for one topic and queue".into(),
            ));
        }
        let command = |queue: &MessageQueue| {
            requests::send(&self.group, queue, &messages)
                .expect("there is a first message, looked at above")
        };
        let (queue, answer) = self
            .network
            .send(&first.topic, first.queue, self.answer_within, command)
            .await?;
        let now = self.clock().wall_ms();
        requests::receipts(&answer, &queue, &messages, now)
    }

    async fn pull(&self, broker: &str, pull: Pull) -> Result<Pulled, ClientError> {
        let within = self.answer_within + pull.wait;
        let command = requests::pull(&pull);
        let answer = self.network.call(broker, command, within).await?;
        let pulled = requests::pulled(&answer, &format!("broker {broker}"));
        if pulled.is_err() {
            self.network.doubt(&pull.queue.topic);
        }
        pulled
    }

    async fn queue_range(&self, queue: &MessageQueue) -> Result<Range<u64>, ClientError> {
        let start = self.ask_number(queue, request::GET_MIN_OFFSET, &[]).await?;
        let end = self.ask_number(queue, request::GET_MAX_OFFSET, &[]).await?;
        Ok(start..end.max(start))
    }

    async fn first_offset(
        &self,
        queue: &MessageQueue,
        from: ConsumeFrom,
    ) -> Result<u64, ClientError> {
        match from {
            ConsumeFrom::First => Ok(self.queue_range(queue).await?.start),
            ConsumeFrom::Last | ConsumeFrom::LastUnlessYoung | ConsumeFrom::Client => {
                Ok(self.queue_range(queue).await?.end)
            }
            ConsumeFrom::Timestamp(wall_ms) => self.offset_at(queue, wall_ms).await,
        }
    }

    fn commit_within(&self) -> Duration {
        COMMIT_WITHIN
    }

    async fn offset_at(&self, queue: &MessageQueue, wall_ms: u64) -> Result<u64, ClientError> {
        let time = wall_ms.to_string();
        let code = request::SEARCH_OFFSET_BY_TIMESTAMP;
        self.ask_number(queue, code, &[("timestamp", &time)]).await
    }

    async fn offset(
        &self,
        group: &GroupName,
        queue: &MessageQueue,
    ) -> Result<Option<u64>, ClientError> {
        let code = request::QUERY_CONSUMER_OFFSET;
        let group = [("consumerGroup", group.as_str())];
        match self.ask_number(queue, code, &group).await {
            Ok(offset) => Ok(Some(offset)),
            Err(ClientError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn commit_offset(
        &self,
        group: &GroupName,
        queue: &MessageQueue,
        offset: u64,
    ) -> Result<(), ClientError> {
        let code = request::UPDATE_CONSUMER_OFFSET;
        let offset = offset.to_string();
        let more = [("consumerGroup", group.as_str()), ("commitOffset", &offset)];
        self.ask(queue, code, &more).await.map(drop)
    }

    async fn members(
        &self,
        group: &GroupName,
        topic: &TopicName,
    ) -> Result<Vec<Arc<str>>, ClientError> {
        let Some(route) = self.network.route(topic).await? else {
            return Ok(Vec::new());
        };
        let fields = [("consumerGroup", group.as_str())];
        let mut failed = ClientError::Unavailable(format!("no broker has topic {topic}"));
        for broker in route.brokers.keys() {
            let command = requests::asked(request::GET_CONSUMER_LIST_BY_GROUP, &fields);
            match self.network.call(broker, command, self.answer_within).await {
                Ok(answer) if answer.code == response::SUCCESS => {
                    return Ok(requests::members(&answer));
                }
                Ok(answer) => failed = requests::refused(&answer, &format!("broker {broker}")),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn send_back(&self, queue: &MessageQueue, request: SendBack) -> Result<(), ClientError> {
        let mut request = request;
        if !self.network.is_ours(&queue.broker) {
            // Old brokers cannot do without; it is what RocketMQ's clients say.
            request.retries.get_or_insert(STOCK_RETRIES);
        }
        let command = requests::send_back(&request, &queue.topic);
        let answer = self
            .network
            .call(&queue.broker, command, self.answer_within)
            .await?;
        match answer.code {
            response::SUCCESS => Ok(()),
            _ => Err(requests::refused(&answer, &broker(queue))),
        }
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        self.network.clock()
    }

    fn random(&self) -> &Arc<dyn Random> {
        self.network.random()
    }
}

/// A consumer's part in the network.
#[derive(Debug)]
struct RemoteAttachment {
    client_id: Arc<str>,
    joined: Joined,
}

#[async_trait]
impl Attachment for RemoteAttachment {
    fn client_id(&self) -> &Arc<str> {
        &self.client_id
    }

    async fn announce(&self, announcement: Announcement) -> Result<(), ClientError> {
        self.joined.say(announcement).await
    }
}
