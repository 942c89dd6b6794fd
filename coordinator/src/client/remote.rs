//! A producer whose coordinator is a server: half messages, resolutions and check-backs over RocketMQ's protocol.

use std::sync::Arc;

use async_trait::async_trait;
use mq_core::client::remote::{self, ANSWER_WITHIN, Network, Place, Questions, Remote};
use mq_core::client::{self, ClientError, MessageQueue};
use mq_core::clock::{Clock, SystemClock};
use mq_core::membership::{Announcement, Notice};
use mq_core::wire::codes::response;

use super::check_back::{Asked, CheckBackQueue};
use super::endpoint::{
    Endpoint, HalfError, HalfReceipt, HalfRequest, Outcome, Resolve, ResolveError,
};
use super::producer::{Builder, ConnectError, Connection, Producer};
use super::requests;
use crate::transaction::TransactionId;

impl Builder {
    /// Connects to the brokers behind `nameservers`: `HOST:PORT`, several separated by `;`; empty text takes the environment
    /// variable `NAMESRV_ADDR`. Every broker that the nameservers know can ask this producer from then on.
    ///
    /// Stock RocketMQ brokers work too. They do not say what became of a resolution, so with them every commit is
    /// [`super::half::Settled::Deferred`] although it was sent, and markers are not deleted. They also ask any member of the
    /// group about any transaction of it: there, producers of other languages need a group of their own.
    ///
    /// # Errors
    /// [`ConnectError`] when the group's name or an address breaks a rule, or nobody can be reached.
    pub async fn connect(self, nameservers: &str) -> Result<Producer, ConnectError> {
        let refused = |error: ClientError| {
            let why = error.to_string();
            if error.is_retryable() {
                ConnectError::Unreachable(why)
            } else {
                ConnectError::Refused(why)
            }
        };
        self.over(async move |said, queue| {
            let place = Place::Producer(said.group.clone());
            let connected = remote::network(nameservers, None, Some(place)).await;
            let (network, taken) = connected.map_err(refused)?;
            let announcement = Announcement {
                producer_groups: vec![said.group.clone()],
                consumer_groups: Vec::new(),
                answers_for: said.markers.iter().map(|marker| marker.0).collect(),
            };
            let joined = network.join(announcement, Arc::new(Afar { queue })).await;
            let plain = Remote::new(Arc::clone(&network), said.group.as_str(), None);
            Ok(Connection {
                endpoint: Arc::new(Servers {
                    network,
                    clock: Arc::new(SystemClock::new()),
                }),
                plain: client::Producer::over(Arc::new(plain)),
                guard: Box::new((joined.map_err(refused)?, taken)),
            })
        })
        .await
    }
}

/// The way from brokers to a producer.
#[derive(Debug)]
struct Afar {
    queue: CheckBackQueue,
}

impl Questions for Afar {
    fn ask(&self, broker: &str, notice: Notice) {
        match Asked::from_notice(&notice) {
            Ok(asked) => {
                let asked = Asked {
                    broker: Some(broker.into()),
                    ..asked
                };
                if let Err(why) = self.queue.ask(asked) {
                    tracing::debug!(?why, "a check-back is left unanswered; it comes again");
                }
            }
            Err(error) => {
                tracing::warn!(code = notice.code, %error, "a check-back is left unanswered");
            }
        }
    }
}

/// Brokers, each with its coordinator.
#[derive(Debug)]
struct Servers {
    network: Arc<Network>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Endpoint for Servers {
    async fn half(&self, request: HalfRequest) -> Result<HalfReceipt, HalfError> {
        let properties = requests::half_properties(&request);
        let born_ms = self.clock.wall_ms();
        let command = |queue: &MessageQueue| requests::half(&request, &properties, queue, born_ms);
        let topic = request.message.topic();
        let sent = self
            .network
            .send(topic, request.queue, ANSWER_WITHIN, command);
        let (queue, answer) = sent.await.map_err(not_stored)?;
        if answer.code != response::SUCCESS {
            return Err(HalfError::Unknown(format!(
                "broker {} answers with code {}, so it may not be durable",
                queue.broker, answer.code
            )));
        }
        requests::receipt(request.id, &answer, &queue)
    }

    async fn resolve(&self, request: Resolve) -> Result<Outcome, ResolveError> {
        let Some(broker) = &request.broker else {
            return Err(ResolveError(
                "the half message's broker is not known".into(),
            ));
        };
        let command = requests::resolution(&request, broker);
        if !self.network.is_ours(broker) {
            let told = self.network.tell(broker, command).await;
            return Err(ResolveError(match told {
                Ok(()) => format!("it was sent to broker {broker}, which never answers"),
                Err(error) => error.to_string(),
            }));
        }
        let answer = self.network.call(broker, command, ANSWER_WITHIN).await;
        let answer = answer.map_err(|error| ResolveError(error.to_string()))?;
        requests::outcome(&answer, &request)
    }

    async fn committed(&self, ids: &[TransactionId]) -> Vec<TransactionId> {
        let mut committed = Vec::new();
        for broker in self.network.ours() {
            let asked = requests::committed_among(ids);
            match self.network.call(&broker, asked, ANSWER_WITHIN).await {
                Ok(answer) => committed.extend(requests::committed(ids, &answer)),
                Err(error) => {
                    tracing::debug!(%broker, %error, "which transactions are committed is not known now");
                }
            }
        }
        committed
    }
}

fn not_stored(error: ClientError) -> HalfError {
    match error {
        ClientError::Unavailable(why) => HalfError::Busy(why),
        ClientError::Unknown(why) => HalfError::Unknown(why),
        ClientError::Refused(why) | ClientError::Missing(why) => HalfError::Refused(why),
        closed @ (ClientError::Closed | _) => HalfError::Refused(closed.to_string()),
    }
}
