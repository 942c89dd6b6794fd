//! 34, 35, 38, 46: who is there, in which groups, and what it wants to read.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use super::refusals::Answered;
use super::roster::{FilterRefused, Subscribed, Subscriptions, Told};
use super::session::{Registered, Release, Session};
use super::{BrokerService, fields};
use crate::broker::clients::{Announcement, ConsumeFrom, Membership, Subscription};
use crate::extension::Caller;
use crate::filter::Filter;
use crate::names::{GroupName, NameError, TopicName};
use crate::remoting::service::Answer;
use crate::wire::codes::response;
use crate::wire::command::Command;
use crate::wire::heartbeat::{
    Consumer, FromWhere, Heartbeat, MessageModel, SubscriptionData, TYPE_SQL92, TYPE_TAG,
};
use crate::wire::reserved;

/// 34: notes who the client is. It is a member of its groups, and their starting offsets are durable, when this returns.
pub(super) async fn heartbeat(
    service: &BrokerService,
    session: &mut Session,
    command: &Command,
) -> Answered {
    let said = Heartbeat::parse(&command.body)
        .map_err(|error| Answer::refused(response::SYSTEM_ERROR, error.to_string()))?;
    let incarnation = said
        .native
        .as_ref()
        .map_or_else(|| life_of(&said.client_id), |native| native.incarnation);
    let subscriptions = subscriptions(service, &said)?;
    let announcement = announcement(&said, &subscriptions)?;
    let told = Told {
        client_id: said.client_id.as_str().into(),
        peer: Arc::clone(session.peer()),
        language: command.language,
        version: command.version,
        said,
        subscriptions,
    };
    let client_id = Arc::clone(&told.client_id);
    match session.client(&client_id) {
        Some(client) if client.incarnation == incarnation => {
            if client.entry.told().said != told.said {
                client.entry.tell(told);
            }
        }
        _ => register(service, session, told, incarnation)?,
    }
    if let Some(client) = session.client(&client_id) {
        service
            .broker()
            .announce(&client.connection, announcement)
            .await?;
    }
    Ok(Answer::done().field(reserved::OURS, 1))
}

fn register(
    service: &BrokerService,
    session: &mut Session,
    told: Told,
    incarnation: u128,
) -> Result<(), Answer> {
    let (client_id, address) = (Arc::clone(&told.client_id), session.peer().address());
    let native = told.said.native.is_some();
    let source: Arc<str> = format!("{client_id} at {address}").into();
    let link = Arc::clone(session.peer());
    let connection = service.broker().clients().connect(
        Arc::clone(&client_id),
        incarnation,
        Arc::clone(&source),
        link,
    );
    let client = Registered {
        entry: service.roster.enter(told),
        release: Release {
            client_id: Arc::clone(&client_id),
            roster: Arc::clone(&service.roster),
            locks: Arc::clone(&service.locks),
        },
        incarnation,
        connection,
    };
    if !session.register(client) {
        return Err(Answer::refused(
            response::SYSTEM_ERROR,
            "too many clients share this connection; open another one",
        ));
    }
    session.set_caller(Caller {
        client_id,
        incarnation: Some(incarnation),
        native,
        address,
        source,
    });
    Ok(())
}

fn announcement(
    said: &Heartbeat,
    subscriptions: &Subscriptions,
) -> Result<Announcement, NameError> {
    let producer_groups = said.producer_groups.iter().map(GroupName::new);
    let consumer_groups = said.consumers.iter().map(|consumer| {
        let group = GroupName::new(&consumer.group)?;
        let topics = subscriptions.get(&group).into_iter().flatten();
        let mut subscriptions: Vec<Subscription> = topics
            .map(|(topic, subscribed)| Subscription {
                topic: topic.clone(),
                filter: subscribed.filter.clone().unwrap_or(Filter::ALL),
            })
            .collect();
        // The same again must look the same.
        subscriptions.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
        Ok(Membership {
            group,
            subscriptions,
            from: start(consumer.from),
            broadcasting: consumer.model == MessageModel::Broadcasting,
        })
    });
    let native = said.native.as_ref();
    Ok(Announcement {
        producer_groups: producer_groups.collect::<Result<_, _>>()?,
        consumer_groups: consumer_groups.collect::<Result<_, NameError>>()?,
        answers_for: native.map_or_else(Vec::new, |native| native.answers_for.clone()),
    })
}

const fn start(from: FromWhere) -> ConsumeFrom {
    match from {
        FromWhere::First | FromWhere::Min => ConsumeFrom::First,
        FromWhere::Last | FromWhere::LastOrMin | FromWhere::Max => ConsumeFrom::LastUnlessYoung,
        // The time itself is not in the heartbeat.
        FromWhere::Timestamp => ConsumeFrom::Client,
    }
}

fn subscriptions(service: &BrokerService, said: &Heartbeat) -> Result<Subscriptions, NameError> {
    let mut all = Subscriptions::new();
    for Consumer {
        group,
        subscriptions,
        ..
    } in &said.consumers
    {
        let mut topics = HashMap::new();
        for data in subscriptions {
            let subscribed = Subscribed {
                version: data.version,
                filter: filter(service, &data.kind, &data.expression),
            };
            topics.insert(TopicName::new(&data.topic)?, subscribed);
        }
        all.insert(GroupName::new(group)?, topics);
    }
    Ok(all)
}

/// Reads an expression of a certain kind.
pub(super) fn filter(
    service: &BrokerService,
    kind: &str,
    expression: &str,
) -> Result<Filter, FilterRefused> {
    let unreadable =
        |why: &dyn ToString| FilterRefused(response::SUBSCRIPTION_PARSE_FAILED, why.to_string());
    match kind {
        "" | TYPE_TAG => Filter::parse(expression).map_err(|error| unreadable(&error)),
        TYPE_SQL92 if service.broker().settings().property_filter => {
            Filter::by_properties(expression).map_err(|error| unreadable(&error))
        }
        TYPE_SQL92 => Err(FilterRefused(
            response::SYSTEM_ERROR,
            "the broker does not support filtering by SQL92; set enablePropertyFilter".into(),
        )),
        other => Err(unreadable(&format!(
            "expression type {other:?} is not known; use TAG or SQL92"
        ))),
    }
}

impl From<FilterRefused> for Answer {
    fn from(FilterRefused(code, why): FilterRefused) -> Self {
        Self::refused(code, why)
    }
}

/// 35: a client leaves a group, or altogether.
pub(super) async fn unregister(
    service: &BrokerService,
    session: &mut Session,
    command: &Command,
) -> Answered {
    let id = fields::text(&command.fields, "clientID")?;
    let Some(client) = session.client(id) else {
        return Ok(Answer::done());
    };
    let told = client.entry.told();
    let mut said = told.said.clone();
    if let Some(group) = command.fields.get("producerGroup") {
        said.producer_groups.retain(|known| known != group);
    }
    if let Some(group) = command.fields.get("consumerGroup") {
        said.consumers.retain(|known| known.group != group);
    }
    if said.producer_groups.is_empty() && said.consumers.is_empty() {
        session.unregister(id);
        return Ok(Answer::done());
    }
    let subscriptions = subscriptions(service, &said)?;
    let announcement = announcement(&said, &subscriptions)?;
    let told = Told {
        client_id: Arc::clone(&told.client_id),
        peer: Arc::clone(&told.peer),
        language: told.language,
        version: told.version,
        said,
        subscriptions,
    };
    client.entry.tell(told);
    service
        .broker()
        .announce(&client.connection, announcement)
        .await?;
    Ok(Answer::done())
}

/// 38: the members of a consumer group.
pub(super) fn members(service: &BrokerService, command: &Command) -> Answered {
    let group: GroupName = fields::parsed(&command.fields, "consumerGroup")?;
    let members = service.broker().members(&group);
    if members.is_empty() {
        return Err(Answer::refused(
            response::SYSTEM_ERROR,
            format!("no consumer of group {group} is connected"),
        ));
    }
    let ids: Vec<&str> = members.iter().map(|id| &**id).collect();
    Ok(Answer::with_body(
        json!({ "consumerIdList": ids }).to_string(),
    ))
}

/// 46: whether a subscription can be understood.
pub(super) fn check_subscription(service: &BrokerService, command: &Command) -> Answered {
    let body = fields::body(command)?;
    let data = body.get("subscriptionData").and_then(|v| v.as_object());
    let data = data.and_then(SubscriptionData::read);
    if let Some(data) = data {
        filter(service, &data.kind, &data.expression)?;
    }
    Ok(Answer::done())
}

/// The process life of a client that names none: the same for the same client id, so that a connection that is made
/// again is no new life (FNV-1a, 128 bits).
fn life_of(client_id: &str) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let add = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(PRIME);
    client_id.bytes().fold(BASIS, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_one_life() {
        assert_eq!(life_of("10.0.0.1@1"), life_of("10.0.0.1@1"));
        assert_ne!(life_of("10.0.0.1@1"), life_of("10.0.0.1@2"));
        assert_eq!(life_of("a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
