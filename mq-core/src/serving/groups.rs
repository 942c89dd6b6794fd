//! 200, 201, 203, 204, 207, 300, 352: consumer and producer groups as an operator sees and sets them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::refusals::Answered;
use super::roster::Told;
use super::{BrokerService, fields};
use crate::broker::{Broker, GroupConfig, GroupError};
use crate::names::{GroupName, TopicName};
use crate::remoting::service::Answer;
use crate::wire::codes::response;
use crate::wire::command::Command;
use crate::wire::json_header;

/// 200: creates a group's settings, or sets them anew; durable when it returns.
pub(super) async fn put(broker: Broker, command: Command) -> Answered {
    let body = fields::body(&command)?;
    let retries = body.get("retryMaxTimes").and_then(Value::as_i64);
    let config = GroupConfig {
        name: GroupName::new(fields::member(&body, "groupName")?)?,
        consume: body.get("consumeEnable") != Some(&Value::Bool(false)),
        retries: retries.map_or(broker.settings().retries, |retries| {
            u32::try_from(retries).unwrap_or(0)
        }),
    };
    broker.put_group(config).await?;
    Ok(Answer::done())
}

/// 207: deletes a group; one that does not exist is as good as deleted.
pub(super) async fn delete(broker: Broker, command: Command) -> Answered {
    let group: GroupName = fields::parsed(&command.fields, "groupName")?;
    match broker.delete_group(&group).await {
        Ok(()) | Err(GroupError::Missing(_)) => Ok(Answer::done()),
        Err(error) => Err(error.into()),
    }
}

fn config(broker: &Broker, group: GroupName) -> GroupConfig {
    broker.group(&group).unwrap_or_else(|| GroupConfig {
        name: group,
        consume: true,
        retries: broker.settings().retries,
    })
}

fn as_json(config: &GroupConfig) -> Value {
    json!({
        "attributes": {},
        "brokerId": 0,
        "consumeBroadcastEnable": true,
        "consumeEnable": config.consume,
        "consumeFromMinEnable": true,
        "consumeMessageOrderly": false,
        "consumeTimeoutMinute": 15,
        "groupName": config.name,
        "groupSysFlag": 0,
        "notifyConsumerIdsChangedEnable": true,
        "retryMaxTimes": config.retries,
        "retryQueueNums": 1,
        "whichBrokerWhenConsumeSlowly": 1,
    })
}

/// 201: all groups.
pub(super) fn all(service: &BrokerService) -> Answered {
    let broker = service.broker();
    let table: Map<String, Value> = broker
        .groups()
        .into_iter()
        .map(|group| (group.to_string(), as_json(&config(broker, group))))
        .collect();
    let body = json!({
        "dataVersion": {"counter": table.len(), "stateVersion": 0, "timestamp": 0},
        "forbiddenTable": {},
        "subscriptionGroupTable": table,
    });
    Ok(Answer::with_body(body.to_string()))
}

/// 352: how one group is set.
pub(super) fn one(service: &BrokerService, command: &Command) -> Answered {
    let group: GroupName = fields::parsed(&command.fields, "group")?;
    let config = config(service.broker(), group);
    Ok(Answer::with_body(as_json(&config).to_string()))
}

fn connections(told: &[Arc<Told>]) -> Value {
    told.iter()
        .map(|told| {
            json!({
                "clientAddr": told.peer.address().to_string(),
                "clientId": &*told.client_id,
                "language": json_header::name(told.language),
                "version": told.version,
            })
        })
        .collect()
}

/// 203: the connected consumers of a group.
pub(super) fn consumers(service: &BrokerService, command: &Command) -> Answered {
    let group = fields::text(&command.fields, "consumerGroup")?;
    let members = service.roster.consumers(group);
    let newest = members
        .last()
        .and_then(|told| told.said.consumers.iter().find(|said| said.group == group));
    let Some(said) = newest else {
        return Err(Answer::refused(
            response::CONSUMER_NOT_ONLINE,
            format!("no consumer of group {group} is connected"),
        ));
    };
    let subscriptions: Map<String, Value> = said
        .subscriptions
        .iter()
        .map(|data| (data.topic.clone(), data.to_json()))
        .collect();
    let body = json!({
        "connectionSet": connections(&members),
        "consumeFromWhere": said.from.name(),
        "consumeType": said.consume_type.name(),
        "messageModel": said.model.name(),
        "subscriptionTable": subscriptions,
    });
    Ok(Answer::with_body(body.to_string()))
}

/// 204: the connected producers of a group.
pub(super) fn producers(service: &BrokerService, command: &Command) -> Answered {
    let group = fields::text(&command.fields, "producerGroup")?;
    let producers = service.roster.producers(group);
    if producers.is_empty() {
        return Err(Answer::refused(
            response::SYSTEM_ERROR,
            format!("no producer of group {group} is connected"),
        ));
    }
    let body = json!({ "connectionSet": connections(&producers) });
    Ok(Answer::with_body(body.to_string()))
}

/// 300: the groups that consume a topic, connected or not.
pub(super) fn of_topic(service: &BrokerService, command: &Command) -> Answered {
    let topic: TopicName = fields::parsed(&command.fields, "topic")?;
    let groups: BTreeSet<GroupName> = service.broker().groups_of(&topic).into_iter().collect();
    Ok(Answer::with_body(
        json!({ "groupList": groups }).to_string(),
    ))
}
