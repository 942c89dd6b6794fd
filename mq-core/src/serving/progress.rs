//! 208, 222, 314, 317: how far groups have come, and setting them back or forward.

use bytes::Bytes;
use serde_json::{Value, json};

use super::refusals::Answered;
use super::topics::{queues, stored_before};
use super::{BrokerService, fields};
use crate::broker::Broker;
use crate::broker::clients::{Link, Notice};
use crate::names::{GroupName, QueueId, TopicName};
use crate::remoting::service::Answer;
use crate::wire::codes::{request, response};
use crate::wire::command::{Command, Language};
use crate::wire::queue_table;

/// How far a group has come in a queue.
struct Progress {
    queue: QueueId,
    end: u64,
    offset: u64,
    /// When the last message it has consumed was stored, ms since 1970.
    consumed_to_ms: u64,
}

fn progress(broker: &Broker, group: &GroupName, topic: &TopicName) -> Vec<Progress> {
    let row = |queue: QueueId| {
        let end = broker.queue_range(&queue).ok()?.end;
        let offset = broker.offset(group, &queue).ok()?.unwrap_or(0);
        let consumed_to_ms = stored_before(broker, &queue, offset);
        Some(Progress {
            queue,
            end,
            offset,
            consumed_to_ms,
        })
    };
    queues(broker, topic).into_iter().filter_map(row).collect()
}

fn stats(service: &BrokerService, rows: &[Progress]) -> String {
    let rows = rows.iter().map(|row| {
        let value = json!({
            "brokerOffset": row.end,
            "consumerOffset": row.offset,
            "lastTimestamp": row.consumed_to_ms,
            "pullOffset": row.offset,
        });
        (&row.queue, value)
    });
    let table = queue_table::table(&service.presence().name, rows);
    format!("{{\"consumeTps\":0.0,\"offsetTable\":{table}}}")
}

/// 208: how far a group has come, in one topic or in all of its.
pub(super) fn of_group(service: &BrokerService, command: &Command) -> Answered {
    let broker = service.broker();
    let group: GroupName = fields::parsed(&command.fields, "consumerGroup")?;
    let topics = match fields::optional::<TopicName>(&command.fields, "topic")? {
        Some(topic) => vec![topic],
        None => broker.topics_of(&group),
    };
    let rows: Vec<Progress> = topics
        .iter()
        .flat_map(|topic| progress(broker, &group, topic))
        .collect();
    Ok(Answer::with_body(stats(service, &rows)))
}

/// 317: how far all groups have come.
pub(super) fn of_all(service: &BrokerService) -> Answered {
    let broker = service.broker();
    let (mut behind, mut list) = (0, Vec::new());
    for group in broker.groups() {
        let mut of_group = Vec::new();
        for topic in broker.topics_of(&group) {
            let rows = progress(broker, &group, &topic);
            behind += rows
                .iter()
                .map(|row| row.end.saturating_sub(row.offset))
                .sum::<u64>();
            of_group.push(stats(service, &rows));
        }
        list.push(format!("{{{}:[{}]}}", json!(group), of_group.join(",")));
    }
    let address = json!(service.presence().advertised.to_string());
    Ok(Answer::with_body(format!(
        "{{\"brokerAddr\":{address},\"consumeStatsList\":[{}],\"totalDiff\":{behind}}}",
        list.join(",")
    )))
}

/// 222: has a group go on where its messages have a certain time; -1 is the end. Connected consumers are told.
pub(super) fn reset(service: &BrokerService, command: &Command) -> Answered {
    let broker = service.broker();
    let fields = &command.fields;
    let topic: TopicName = fields::parsed(fields, "topic")?;
    let group: GroupName = fields::parsed(fields, "group")?;
    let time: i64 = fields::parsed(fields, "timestamp")?;
    let forced = fields::flag(fields, "isForce");
    let only: Option<i32> = fields::optional(fields, "queueId")?;
    let only = only.and_then(|queue| u32::try_from(queue).ok());
    let exact: Option<i64> = fields::optional(fields, "offset")?;
    let exact = exact.and_then(|offset| u64::try_from(offset).ok());
    let mut moved = Vec::new();
    for queue in queues(broker, &topic) {
        if only.is_some_and(|only| only != queue.queue) {
            continue;
        }
        let offset = match (exact, u64::try_from(time)) {
            (Some(offset), _) if only.is_some() => offset,
            (_, Ok(time)) => broker.offset_at(&queue, time)?,
            (_, Err(_)) => broker.queue_range(&queue)?.end,
        };
        let now = broker.offset(&group, &queue)?;
        // Without force a group only goes back.
        let offset = match now {
            Some(now) if !forced => offset.min(now),
            _ => offset,
        };
        moved.push((queue, offset));
    }
    if moved.is_empty() {
        return Err(Answer::refused(
            response::SYSTEM_ERROR,
            format!("topic {topic} has no such queue"),
        ));
    }
    for (queue, offset) in &moved {
        broker.commit_offset(&group, queue, *offset)?;
    }
    let fields = [("topic", topic.to_string()), ("group", group.to_string())];
    let fields = fields.into_iter().chain([
        ("timestamp", time.to_string()),
        ("isForce", forced.to_string()),
    ]);
    tell(service, &group, fields.collect(), &moved);
    Ok(Answer::with_body(table(service, &moved)))
}

fn table(service: &BrokerService, moved: &[(QueueId, u64)]) -> String {
    let rows = moved
        .iter()
        .map(|(queue, offset)| (queue, Value::from(*offset)));
    let table = queue_table::table(&service.presence().name, rows);
    format!("{{\"offsetTable\":{table}}}")
}

/// Tells every connected consumer of the group (220); C++ clients want a list instead of a table.
fn tell(
    service: &BrokerService,
    group: &GroupName,
    fields: Vec<(&'static str, String)>,
    moved: &[(QueueId, u64)],
) {
    let broker = &service.presence().name;
    let list: Value = moved
        .iter()
        .map(|(queue, offset)| {
            json!({
                "brokerName": broker,
                "offset": offset,
                "queueId": queue.queue,
                "topic": queue.topic,
            })
        })
        .collect();
    let list: Bytes = json!({ "offsetTable": list }).to_string().into();
    let table: Bytes = table(service, moved).into();
    for told in service.roster.consumers(group.as_str()) {
        let body = if told.language == Language::CPP {
            list.clone()
        } else {
            table.clone()
        };
        // A consumer that misses it commits its own offsets again; the operator sees that.
        told.peer.push(Notice {
            code: request::RESET_CONSUMER_CLIENT_OFFSET,
            fields: fields.clone(),
            body,
        });
    }
}

/// 314: gives one group the offsets of another.
pub(super) fn copy(service: &BrokerService, command: &Command) -> Answered {
    let broker = service.broker();
    let from: GroupName = fields::parsed(&command.fields, "srcGroup")?;
    let to: GroupName = fields::parsed(&command.fields, "destGroup")?;
    if !broker.members(&to).is_empty() {
        return Err(Answer::refused(
            response::SYSTEM_ERROR,
            format!("group {to} has members, which would set their own offsets; stop them first"),
        ));
    }
    let topics = match fields::optional::<TopicName>(&command.fields, "topic")? {
        Some(topic) => vec![topic],
        None => broker.topics_of(&from),
    };
    for queue in topics.iter().flat_map(|topic| queues(broker, topic)) {
        if let Some(offset) = broker.offset(&from, &queue)? {
            broker.commit_offset(&to, &queue, offset)?;
        }
    }
    Ok(Answer::done())
}
