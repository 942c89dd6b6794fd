//! What a nameserver answers to each request code.

use std::time::Duration;

use serde::Serialize;

use super::registry::{ConnectionId, Registrant, Registry, RegistryError};
use crate::remoting::service::Answer;
use crate::serving::fields::{self, FieldError};
use crate::wire::codes::{request, response};
use crate::wire::command::{Command, Fields};
use crate::wire::registration::{self, DataVersion};
use crate::wire::route::{KvTable, TopicList};

/// The answer to one request that came over `connection` at `now`.
pub(super) fn answer(
    registry: &mut Registry,
    command: &Command,
    connection: ConnectionId,
    now: Duration,
) -> Answer {
    let fields = &command.fields;
    let answered = match command.code {
        request::GET_ROUTEINFO_BY_TOPIC => route(registry, fields),
        request::REGISTER_BROKER => register(registry, command, connection, now),
        request::UNREGISTER_BROKER => unregister(registry, fields),
        request::QUERY_DATA_VERSION => data_version(registry, command, now),
        request::BROKER_HEARTBEAT => heartbeat(registry, fields, now),
        request::GET_BROKER_CLUSTER_INFO => Ok(json(&registry.cluster_info())),
        request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => Ok(topics(registry.topics(None))),
        request::GET_TOPICS_BY_CLUSTER => {
            fields::text(fields, "cluster").map(|cluster| topics(registry.topics(Some(cluster))))
        }
        request::GET_SYSTEM_TOPIC_LIST_FROM_NS => Ok(system_topics(registry)),
        request::DELETE_TOPIC_IN_NAMESRV => fields::text(fields, "topic").map(|topic| {
            registry.delete_topic(topic);
            Answer::done()
        }),
        request::WIPE_WRITE_PERM_OF_BROKER => permit(registry, fields, false),
        request::ADD_WRITE_PERM_OF_BROKER => permit(registry, fields, true),
        request::PUT_KV_CONFIG
        | request::GET_KV_CONFIG
        | request::DELETE_KV_CONFIG
        | request::GET_KVLIST_BY_NAMESPACE => setting(registry, command),
        request::GET_NAMESRV_CONFIG => Ok(Answer::with_body("")),
        request::UPDATE_NAMESRV_CONFIG => Ok(Answer::refused(
            response::NO_PERMISSION,
            "settings come from the command line and the environment; change them there and start again",
        )),
        code => Ok(Answer::refused(
            response::REQUEST_CODE_NOT_SUPPORTED,
            format!("a nameserver does not support request code {code}"),
        )),
    };
    answered.unwrap_or_else(Answer::from)
}

fn route(registry: &Registry, fields: &Fields) -> Result<Answer, FieldError> {
    let topic = fields::text(fields, "topic")?;
    Ok(registry.route(topic).map_or_else(
        || {
            let name: String = topic.chars().take(80).collect();
            Answer::refused(
                response::TOPIC_NOT_EXIST,
                format!("no broker has topic {name}; create it, or start a broker that does"),
            )
        },
        |route| json(&route),
    ))
}

fn registrant(fields: &Fields) -> Result<Registrant, FieldError> {
    Ok(Registrant {
        cluster: fields::text(fields, "clusterName")?.to_owned(),
        name: fields::text(fields, "brokerName")?.to_owned(),
        id: fields::optional(fields, "brokerId")?.unwrap_or(0),
        address: fields::text(fields, "brokerAddr")?.to_owned(),
    })
}

fn register(
    registry: &mut Registry,
    command: &Command,
    connection: ConnectionId,
    now: Duration,
) -> Result<Answer, FieldError> {
    let fields = &command.fields;
    let registrant = registrant(fields)?;
    let compressed = fields::flag(fields, "compressed");
    let claimed = fields::optional(fields, "bodyCrc32")?.unwrap_or(0);
    let body = match registration::decode(&command.body, compressed, claimed) {
        Ok(body) => body,
        Err(error) => {
            tracing::warn!(broker = %registrant.name, %error, "a registration is refused");
            return Ok(Answer::refused(response::SYSTEM_ERROR, error.to_string()));
        }
    };
    let topics = &body.topic_config_serialize_wrapper;
    Ok(
        match registry.register(registrant, topics, connection, now) {
            Err(error) => refused(&error),
            Ok(main) => {
                let order = registry.settings(super::registry::ORDER_NAMESPACE);
                let answer = json(&KvTable {
                    table: order.cloned().unwrap_or_default(),
                });
                match main {
                    Some(address) => answer
                        .field("haServerAddr", &address)
                        .field("masterAddr", &address),
                    None => answer,
                }
            }
        },
    )
}

fn unregister(registry: &mut Registry, fields: &Fields) -> Result<Answer, FieldError> {
    registry.unregister(&registrant(fields)?);
    Ok(Answer::done())
}

fn data_version(
    registry: &mut Registry,
    command: &Command,
    now: Duration,
) -> Result<Answer, FieldError> {
    let asked: DataVersion = serde_json::from_slice(&command.body).unwrap_or_default();
    let address = fields::text(&command.fields, "brokerAddr")?;
    let known = registry.heard(address, now);
    let answer = known.as_ref().map_or_else(Answer::done, json);
    Ok(answer.field("changed", known != Some(asked)))
}

fn heartbeat(
    registry: &mut Registry,
    fields: &Fields,
    now: Duration,
) -> Result<Answer, FieldError> {
    // A broker that is not known registers with its next turn.
    registry.heard(fields::text(fields, "brokerAddr")?, now);
    Ok(Answer::done())
}

fn topics(names: Vec<String>) -> Answer {
    json(&TopicList {
        topic_list: names,
        broker_addr: None,
    })
}

/// Names of clusters and brokers are topics of their own, and a broker knows the rest.
fn system_topics(registry: &Registry) -> Answer {
    let info = registry.cluster_info();
    let addresses =
        (info.broker_addr_table.values()).flat_map(|broker| broker.broker_addrs.values());
    json(&TopicList {
        broker_addr: addresses.into_iter().next().cloned(),
        topic_list: (info.cluster_addr_table.into_iter())
            .flat_map(|(cluster, brokers)| std::iter::once(cluster).chain(brokers))
            .collect(),
    })
}

fn permit(registry: &mut Registry, fields: &Fields, allowed: bool) -> Result<Answer, FieldError> {
    let count = registry.permit_writing(fields::text(fields, "brokerName")?, allowed);
    let name = if allowed {
        "addTopicCount"
    } else {
        "wipeTopicCount"
    };
    Ok(Answer::done().field(name, count))
}

fn setting(registry: &mut Registry, command: &Command) -> Result<Answer, FieldError> {
    let fields = &command.fields;
    let namespace = fields::text(fields, "namespace")?;
    let missing = || Answer::refused(response::QUERY_NOT_FOUND, "there is no such setting");
    if command.code == request::GET_KVLIST_BY_NAMESPACE {
        let table = registry.settings(namespace).cloned();
        return Ok(table.map_or_else(missing, |table| json(&KvTable { table })));
    }
    let key = fields::text(fields, "key")?;
    Ok(match command.code {
        request::GET_KV_CONFIG => (registry.setting(namespace, key))
            .map_or_else(missing, |value| Answer::done().field("value", value)),
        request::PUT_KV_CONFIG => {
            let set = registry.set(namespace, key, fields::text(fields, "value")?);
            set.map_or_else(|error| refused(&error), |()| Answer::done())
        }
        _ => {
            registry.unset(namespace, key);
            Answer::done()
        }
    })
}

fn refused(error: &RegistryError) -> Answer {
    Answer::refused(response::SYSTEM_ERROR, error.to_string())
}

fn json(body: &impl Serialize) -> Answer {
    // Maps with text or numbers as keys always become JSON.
    Answer::with_body(serde_json::to_vec(body).unwrap_or_default())
}
