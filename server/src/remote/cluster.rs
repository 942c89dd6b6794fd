//! Connections to nameservers and brokers, and calls that must succeed.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use mq_core::remoting::client::{Connection, Limits};
use mq_core::wire::codes::{request, response};
use mq_core::wire::command::{Command, Language};
use mq_core::wire::json_keys;
use mq_core::wire::route::{ClusterInfo, TopicList, TopicRoute};
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// How long an answer may take, beside what a request itself may wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The brokers behind some nameservers.
pub(super) struct Cluster {
    nameservers: Vec<String>,
    nameserver: Connection,
    brokers: HashMap<String, Connection>,
}

/// A request to be made.
pub(super) fn request(code: i32, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Command {
    Command {
        fields: fields.iter().copied().collect(),
        body: body.into(),
        // Servers of 4.x know no Rust.
        language: Language::JAVA,
        ..Command::request(code, 0)
    }
}

async fn open(what: &str, address: &str) -> Result<Connection, Failure> {
    Connection::open(address, Limits::default())
        .await
        .map_err(|error| {
            Failure::Environment(format!(
                "{what} {address} cannot be reached: {error}; is it running, and is the address right?"
            ))
        })
}

impl Cluster {
    /// Connects to the first nameserver that can be reached.
    pub(super) async fn connect(nameservers: Vec<String>) -> Result<Self, Failure> {
        let mut failed = Failure::Environment("no nameserver is named".into());
        for address in &nameservers {
            match open("nameserver", address).await {
                Ok(nameserver) => {
                    return Ok(Self {
                        nameserver,
                        nameservers,
                        brokers: HashMap::new(),
                    });
                }
                Err(failure) => failed = failure,
            }
        }
        Err(failed)
    }

    /// Where a topic is; `None` when no broker has it.
    pub(super) async fn route(&self, topic: &str) -> Result<Option<TopicRoute>, Failure> {
        let asked = request(request::GET_ROUTEINFO_BY_TOPIC, &[("topic", topic)], "");
        let answer = call(&self.nameserver, asked, Duration::ZERO).await?;
        if answer.code == response::TOPIC_NOT_EXIST {
            return Ok(None);
        }
        read(&succeeded(answer)?).map(Some)
    }

    /// Where a topic is that must exist.
    pub(super) async fn existing(&self, topic: &str) -> Result<TopicRoute, Failure> {
        let route = self.route(topic).await?;
        route.ok_or_else(|| {
            Failure::Negative(format!(
                "topic {topic} does not exist; `halfmoon topic list` shows all, `halfmoon topic create {topic}` makes it"
            ))
        })
    }

    /// All topics.
    pub(super) async fn topics(&self) -> Result<Vec<String>, Failure> {
        let asked = request(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[], "");
        let answer = call(&self.nameserver, asked, Duration::ZERO).await?;
        let list: TopicList = read(&succeeded(answer)?)?;
        Ok(list.topic_list)
    }

    /// Names and addresses of the brokers that take messages; one only if it is named.
    pub(super) async fn brokers(
        &self,
        only: Option<&str>,
    ) -> Result<Vec<(String, String)>, Failure> {
        let asked = request(request::GET_BROKER_CLUSTER_INFO, &[], "");
        let answer = call(&self.nameserver, asked, Duration::ZERO).await?;
        let info: ClusterInfo = read(&succeeded(answer)?)?;
        let all = info.broker_addr_table.into_values();
        let brokers: Vec<_> = all
            .filter(|broker| only.is_none_or(|only| only == broker.broker_name))
            .filter_map(|broker| Some((broker.broker_name, broker.broker_addrs.get(&0)?.clone())))
            .collect();
        if brokers.is_empty() {
            return Err(Failure::Negative(match only {
                Some(name) => format!("no broker is named {name}"),
                None => "the nameserver knows no broker; start one".into(),
            }));
        }
        Ok(brokers)
    }

    /// Asks the broker at `address`, which may take `waiting` longer than usual; anything but success is a failure.
    pub(super) async fn ask(
        &mut self,
        address: &str,
        asked: Command,
        waiting: Duration,
    ) -> Result<Command, Failure> {
        succeeded(self.try_ask(address, asked, waiting).await?)
    }

    /// Asks the broker at `address`; whatever it answers is returned.
    pub(super) async fn try_ask(
        &mut self,
        address: &str,
        asked: Command,
        waiting: Duration,
    ) -> Result<Command, Failure> {
        if !self.brokers.contains_key(address) {
            let opened = open("broker", address).await?;
            self.brokers.insert(address.to_owned(), opened);
        }
        match self.brokers.get(address) {
            Some(broker) => call(broker, asked, waiting).await,
            None => Err(Failure::Environment(format!("broker {address} is gone"))),
        }
    }

    /// Asks every nameserver, since they do not talk to each other.
    pub(super) async fn tell_nameservers(&self, asked: &Command) -> Result<(), Failure> {
        for address in &self.nameservers {
            let nameserver = open("nameserver", address).await?;
            succeeded(call(&nameserver, asked.clone(), Duration::ZERO).await?)?;
        }
        Ok(())
    }
}

async fn call(to: &Connection, asked: Command, waiting: Duration) -> Result<Command, Failure> {
    let answer = to.call(asked, ANSWER_WITHIN + waiting).await;
    answer.map_err(|error| Failure::Environment(error.to_string()))
}

fn succeeded(answer: Command) -> Result<Command, Failure> {
    if answer.code == response::SUCCESS {
        return Ok(answer);
    }
    Err(Failure::Negative(format!(
        "refused with code {}: {}",
        answer.code,
        answer.remark.lines().next().unwrap_or_default()
    )))
}

/// The body of an answer.
pub(super) fn read<T: DeserializeOwned>(answer: &Command) -> Result<T, Failure> {
    serde_json::from_slice(&json_keys::quoted(&answer.body))
        .map_err(|error| Failure::Environment(format!("an answer is not understood: {error}")))
}

/// A number among the fields of an answer.
pub(super) fn number(answer: &Command, name: &str) -> Result<i64, Failure> {
    let value = answer.fields.get(name).and_then(|text| text.parse().ok());
    value.ok_or_else(|| Failure::Environment(format!("an answer has no number {name}")))
}
