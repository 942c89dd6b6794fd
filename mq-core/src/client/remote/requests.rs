//! What a client asks of brokers and nameservers as commands, and what their answers mean: pure.

use std::sync::Arc;

use serde_json::Value;

use crate::client::{ClientError, MessageQueue};
use crate::exchange::{Incoming, Pull, PullOutcome, Pulled, Receipt, SendBack};
use crate::filter::Filter;
use crate::membership::{Announcement, ConsumeFrom, Membership};
use crate::names::{GroupName, QueueId, TopicName};
use crate::places::{Position, QueueOffset};
use crate::wire::codes::{request, response};
use crate::wire::command::{Command, Language};
use crate::wire::heartbeat::{self, ConsumeType, FromWhere, MessageModel, SubscriptionData};
use crate::wire::properties::Properties;
use crate::wire::sending::SendRequest;
use crate::wire::{batch, ids, record, reserved};

/// Most messages that one pull asks for; servers have their own bound.
const PULL_MOST: usize = 1024;

/// A request to be made. Servers of 4.x know no Rust, but every server knows others.
pub(super) fn asked(code: i32, fields: &[(&str, &str)]) -> Command {
    Command {
        fields: fields.iter().copied().collect(),
        language: Language::OTHER,
        ..Command::request(code, 0)
    }
}

/// What a refusal means for the caller; it names who refused.
pub(super) fn refused(answer: &Command, who: &str) -> ClientError {
    let first = answer.remark.lines().next().unwrap_or_default();
    let why = format!("{who} refuses with code {}: {first}", answer.code);
    match answer.code {
        response::SYSTEM_BUSY
        | response::SERVICE_NOT_AVAILABLE
        | response::SUBSCRIPTION_NOT_EXIST
        | response::SUBSCRIPTION_NOT_LATEST => ClientError::Unavailable(why),
        response::TOPIC_NOT_EXIST | response::QUERY_NOT_FOUND => ClientError::Missing(why),
        _ => ClientError::Refused(why),
    }
}

/// A number among the fields of an answer.
pub(super) fn number(answer: &Command, name: &str, who: &str) -> Result<u64, ClientError> {
    let value = answer.fields.get(name);
    // Java's brokers answer with a negative offset where a queue is empty.
    let number = value.and_then(|text| text.parse::<i64>().ok());
    number
        .map(|number| u64::try_from(number).unwrap_or(0))
        .ok_or_else(|| ClientError::Unknown(format!("the answer of {who} has no number {name}")))
}

/// 34: everything that this process says about itself.
pub(super) fn heartbeat(
    client_id: &str,
    incarnation: u128,
    version: i64,
    said: &[Announcement],
) -> Command {
    let mut all = heartbeat::Heartbeat {
        client_id: client_id.to_owned(),
        native: Some(heartbeat::Native {
            incarnation,
            answers_for: said
                .iter()
                .flat_map(|said| &said.answers_for)
                .copied()
                .collect(),
        }),
        ..heartbeat::Heartbeat::default()
    };
    for said in said {
        let producers = said.producer_groups.iter().map(ToString::to_string);
        all.producer_groups.extend(producers);
        let consumers = said.consumer_groups.iter();
        all.consumers
            .extend(consumers.map(|group| consumer(group, version)));
    }
    Command {
        body: all.to_json().to_string().into(),
        ..asked(request::HEART_BEAT, &[])
    }
}

fn consumer(membership: &Membership, version: i64) -> heartbeat::Consumer {
    let retry = TopicName::retry_of(&membership.group);
    let subscription = |topic: &TopicName, filter: &Filter| SubscriptionData {
        topic: topic.to_string(),
        expression: filter.to_string(),
        kind: kind(filter).to_owned(),
        version,
    };
    let wanted = membership.subscriptions.iter();
    heartbeat::Consumer {
        group: membership.group.to_string(),
        consume_type: ConsumeType::Passively,
        model: if membership.broadcasting {
            MessageModel::Broadcasting
        } else {
            MessageModel::Clustering
        },
        from: match membership.from {
            ConsumeFrom::First => FromWhere::First,
            ConsumeFrom::Last | ConsumeFrom::LastUnlessYoung => FromWhere::Last,
            ConsumeFrom::Timestamp(_) | ConsumeFrom::Client => FromWhere::Timestamp,
        },
        subscriptions: wanted
            .map(|wanted| subscription(&wanted.topic, &wanted.filter))
            .chain([subscription(&retry, &Filter::ALL)])
            .collect(),
    }
}

const fn kind(filter: &Filter) -> &'static str {
    if filter.asks_properties() {
        heartbeat::TYPE_SQL92
    } else {
        heartbeat::TYPE_TAG
    }
}

/// 35: this process leaves a group.
pub(super) fn leave(client_id: &str, role: &str, group: &GroupName) -> Command {
    let fields = [("clientID", client_id), (role, group.as_str())];
    asked(request::UNREGISTER_CLIENT, &fields)
}

/// 310 or, for several messages, 320. All are for one topic.
pub(super) fn send(group: &str, queue: &MessageQueue, messages: &[Incoming]) -> Option<Command> {
    let first = messages.first()?;
    let mut body = first.body.clone();
    let mut properties: &[u8] = &first.properties;
    if messages.len() > 1 {
        let mut packed = Vec::new();
        for message in messages {
            batch::push(
                &mut packed,
                message.flag,
                &message.body,
                &message.properties,
            );
        }
        (body, properties) = (packed.into(), b"WAIT\x01true\x02");
    }
    let request = SendRequest {
        group,
        topic: queue.topic.as_str(),
        default_queues: super::DEFAULT_QUEUES,
        queue: queue.number,
        sys_flag: first.sys_flag,
        born_ms: first.born_ms,
        flag: first.flag,
        properties,
        reconsume_times: first.reconsume_times,
        batch: messages.len() > 1,
        body,
    };
    Some(Command {
        language: Language::OTHER,
        ..request.command()
    })
}

/// The receipts in the answer to [`send`].
pub(super) fn receipts(
    answer: &Command,
    queue: &MessageQueue,
    messages: &[Incoming],
    now_ms: u64,
) -> Result<Vec<Receipt>, ClientError> {
    let who = format!("broker {}", queue.broker);
    let offset = number(answer, "queueOffset", &who)?;
    let stored_in = number(answer, "queueId", &who)?;
    let queue = QueueId::new(
        queue.topic.clone(),
        u32::try_from(stored_in).unwrap_or(queue.number),
    );
    let ids = answer.fields.get("msgId").unwrap_or_default();
    let mut ids = ids.split(',');
    let receipt = |(at, message): (u64, &Incoming)| {
        let message_id = ids.next().unwrap_or_default().to_owned();
        let place = ids::parse_offset_id(&message_id);
        let unique_key = Properties(&message.properties).get(reserved::UNIQ_KEY);
        Receipt {
            unique_key: unique_key.map(str::to_owned),
            queue: queue.clone(),
            queue_offset: QueueOffset(offset + at),
            position: Position(place.map_or(0, |(_, position)| position)),
            store_ms: now_ms,
            message_id,
        }
    };
    Ok((0..).zip(messages).map(receipt).collect())
}

/// 11: messages of one queue.
pub(super) fn pull(pull: &Pull) -> Command {
    const HOLD: i32 = 2;
    const SUBSCRIPTION: i32 = 4;
    let hold = if pull.wait.is_zero() { 0 } else { HOLD };
    let mut command = asked(
        request::PULL_MESSAGE,
        &[
            ("consumerGroup", pull.group.as_str()),
            ("topic", pull.queue.topic.as_str()),
            ("queueId", &pull.queue.queue.to_string()),
            ("queueOffset", &pull.offset.to_string()),
            ("maxMsgNums", &pull.most.min(PULL_MOST).to_string()),
            ("sysFlag", &(hold | SUBSCRIPTION).to_string()),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", &pull.wait.as_millis().to_string()),
            ("subscription", &pull.filter.to_string()),
            ("subVersion", "0"),
            ("expressionType", kind(&pull.filter)),
        ],
    );
    if let Ok(most) = i32::try_from(pull.most_bytes) {
        command.fields.push("maxMsgBytes", &most.to_string());
    }
    command
}

/// What the answer to [`pull`] brings.
pub(super) fn pulled(answer: &Command, who: &str) -> Result<Pulled, ClientError> {
    let outcome = match answer.code {
        response::SUCCESS => PullOutcome::Found,
        response::PULL_NOT_FOUND => PullOutcome::NoNew,
        response::PULL_RETRY_IMMEDIATELY => PullOutcome::NoMatch,
        response::PULL_OFFSET_MOVED => PullOutcome::Moved,
        _ => return Err(refused(answer, who)),
    };
    Ok(Pulled {
        outcome,
        records: match outcome {
            PullOutcome::Found => record::split(answer.body.clone()).collect(),
            PullOutcome::NoNew | PullOutcome::NoMatch | PullOutcome::Moved => Vec::new(),
        },
        next: number(answer, "nextBeginOffset", who)?,
        min: number(answer, "minOffset", who)?,
        max: number(answer, "maxOffset", who)?,
    })
}

/// A request about one queue.
pub(super) fn about(code: i32, queue: &MessageQueue, more: &[(&str, &str)]) -> Command {
    let number = queue.number.to_string();
    let mut command = asked(code, more);
    command.fields.push("topic", queue.topic.as_str());
    command.fields.push("queueId", &number);
    command
}

/// 36: a message is to come again.
pub(super) fn send_back(request: &SendBack, topic: &TopicName) -> Command {
    let mut command = asked(
        request::CONSUMER_SEND_MSG_BACK,
        &[
            ("group", request.group.as_str()),
            ("offset", &request.position.0.to_string()),
            ("delayLevel", &request.delay_level.to_string()),
            ("originTopic", topic.as_str()),
            ("unitMode", "false"),
        ],
    );
    if let Some(retries) = request.retries {
        command
            .fields
            .push("maxReconsumeTimes", &retries.to_string());
    }
    command
}

/// The members in the answer to 38, sorted. That there are none is said as a refusal.
pub(super) fn members(answer: &Command) -> Vec<Arc<str>> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let list = body.get("consumerIdList").and_then(Value::as_array);
    let ids = list.into_iter().flatten().filter_map(Value::as_str);
    let mut ids: Vec<Arc<str>> = ids.map(Into::into).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
