//! 17, 21, 202, 215, 351: topics as an operator sees and sets them.

use serde_json::{Map, Value, json};

use super::refusals::Answered;
use super::{BrokerService, fields};
use crate::broker::{Broker, Permission, TopicConfig, TopicError};
use crate::log::QueueOffset;
use crate::names::{QueueId, TopicName};
use crate::remoting::service::Answer;
use crate::wire::codes::response;
use crate::wire::command::Command;
use crate::wire::queue_table;
use crate::wire::record::RecordView;

/// 17: creates a topic, or sets it anew; durable when it returns.
pub(super) async fn put(broker: Broker, command: Command) -> Answered {
    let fields = &command.fields;
    let config = TopicConfig {
        name: fields::parsed(fields, "topic")?,
        read_queues: fields::parsed(fields, "readQueueNums")?,
        write_queues: fields::parsed(fields, "writeQueueNums")?,
        permission: Permission::from_bits(fields::parsed(fields, "perm")?),
    };
    broker.put_topic(config).await?;
    Ok(Answer::done())
}

/// 215: deletes a topic; one that does not exist is as good as deleted.
pub(super) async fn delete(broker: Broker, command: Command) -> Answered {
    let topic: TopicName = fields::parsed(&command.fields, "topic")?;
    match broker.delete_topic(&topic).await {
        Ok(()) | Err(TopicError::Missing(_)) => Ok(Answer::done()),
        Err(error) => Err(error.into()),
    }
}

/// 21: all topics.
pub(super) fn all(service: &BrokerService) -> Answered {
    let topics = service.broker().topics();
    let table: Map<String, Value> = topics
        .iter()
        .map(|config| (config.name.to_string(), as_json(config)))
        .collect();
    let body = json!({
        "dataVersion": {"counter": table.len(), "stateVersion": 0, "timestamp": 0},
        "topicConfigTable": table,
    });
    Ok(Answer::with_body(body.to_string()))
}

/// 351: how one topic is set.
pub(super) fn one(service: &BrokerService, command: &Command) -> Answered {
    let topic: TopicName = fields::parsed(&command.fields, "topic")?;
    let config = service.broker().topic(&topic).ok_or_else(|| none(&topic))?;
    Ok(Answer::with_body(as_json(&config).to_string()))
}

fn none(topic: &TopicName) -> Answer {
    Answer::refused(
        response::TOPIC_NOT_EXIST,
        format!("topic {topic} does not exist; create it first"),
    )
}

fn as_json(config: &TopicConfig) -> Value {
    json!({
        "attributes": {},
        "order": false,
        "perm": config.permission.bits(),
        "readQueueNums": config.read_queues,
        "topicFilterType": "SINGLE_TAG",
        "topicName": config.name,
        "topicSysFlag": 0,
        "writeQueueNums": config.write_queues,
    })
}

/// The queues of a topic that can be read; none of a topic that does not exist.
pub(super) fn queues(broker: &Broker, topic: &TopicName) -> Vec<QueueId> {
    let queues = broker.topic(topic).map_or(0, |config| config.read_queues);
    (0..queues)
        .map(|queue| QueueId::new(topic.clone(), queue))
        .collect()
}

/// When the message before `offset` was stored, ms since 1970; 0 if there is none.
pub(super) fn stored_before(broker: &Broker, queue: &QueueId, offset: u64) -> u64 {
    let stored = || {
        let position = broker
            .log()
            .find(queue, QueueOffset(offset.checked_sub(1)?));
        let stored = broker.log().read(position.ok()?).ok()?;
        Some(RecordView::parse(&stored.bytes).ok()?.store_ms)
    };
    stored().unwrap_or(0)
}

/// 202: the ends of a topic's queues.
pub(super) fn ends(service: &BrokerService, command: &Command) -> Answered {
    let broker = service.broker();
    let topic: TopicName = fields::parsed(&command.fields, "topic")?;
    let queues = queues(broker, &topic);
    if queues.is_empty() {
        return Err(none(&topic));
    }
    let rows = queues.iter().map(|queue| {
        let range = broker.queue_range(queue).unwrap_or_default();
        let row = json!({
            "lastUpdateTimestamp": stored_before(broker, queue, range.end),
            "maxOffset": range.end,
            "minOffset": range.start,
        });
        (queue, row)
    });
    let table = queue_table::table(&service.presence().name, rows);
    Ok(Answer::with_body(format!("{{\"offsetTable\":{table}}}")))
}
