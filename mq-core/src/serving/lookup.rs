//! 12, 33: single messages, by a word they carry or by their position.

use super::refusals::Answered;
use super::{BrokerService, fields};
use crate::log::{Position, ReadError};
use crate::names::TopicName;
use crate::remoting::service::Answer;
use crate::wire::codes::response;
use crate::wire::command::Command;
use crate::wire::record::{RecordView, set_store_host};
use crate::wire::reserved;

/// Most messages of one answer (RocketMQ `defaultQueryMaxNum`).
const MOST: usize = 64;
/// An answer takes no more messages once it has this many bytes.
const MOST_BYTES: usize = 4 << 20;
/// How many messages with a key are looked at for those of the time asked for.
const LOOK: usize = 1024;

/// 33: the message at a position.
pub(super) fn by_position(service: &BrokerService, command: &Command) -> Answered {
    let position = Position(fields::parsed(&command.fields, "offset")?);
    Ok(Answer::with_body(shown(service, position)?))
}

/// The record at a position, as clients see it.
pub(super) fn shown(service: &BrokerService, position: Position) -> Result<Vec<u8>, Answer> {
    let none = || {
        Answer::refused(
            response::SYSTEM_ERROR,
            format!("there is no message at position {position}"),
        )
    };
    let stored = match service.broker().log().read(position) {
        Err(ReadError::NotARecord(_) | ReadError::Gone(_)) => return Err(none()),
        stored => stored?,
    };
    let visible = stored.is_message
        && RecordView::parse(&stored.bytes).is_ok_and(|view| is_shown(service, view.topic));
    if !visible {
        return Err(none());
    }
    let mut body = stored.bytes.to_vec();
    set_store_host(&mut body, service.broker().host());
    Ok(body)
}

fn is_shown(service: &BrokerService, topic: &str) -> bool {
    TopicName::new(topic).is_ok_and(|topic| !service.broker().is_hidden(&topic))
}

/// 12: messages of a topic that carry a key; newest first. A search for a client's own id looks at all times.
pub(super) fn by_key(service: &BrokerService, command: &Command) -> Answered {
    let (broker, fields) = (service.broker(), &command.fields);
    let topic: TopicName = fields::parsed(fields, "topic")?;
    let key = fields::text(fields, "key")?;
    let most: i32 = fields::parsed(fields, "maxNum")?;
    let most = usize::try_from(most).unwrap_or(0).clamp(1, MOST);
    let unique = fields::flag(fields, "_UNIQUE_KEY_QUERY");
    let begin: i64 = fields::parsed(fields, "beginTimestamp")?;
    let end: i64 = fields::parsed(fields, "endTimestamp")?;
    let times = u64::try_from(begin).unwrap_or(0)..=u64::try_from(end).unwrap_or(0);
    let (mut body, mut newest, mut count) = (Vec::new(), (0, 0), 0);
    if is_shown(service, topic.as_str()) {
        for position in broker.log().find_key(topic.as_str(), key, LOOK)? {
            let stored = match broker.log().read(position) {
                Err(ReadError::Gone(_)) => break,
                stored => stored?,
            };
            let Ok(view) = RecordView::parse(&stored.bytes) else {
                continue;
            };
            let wanted = if unique {
                view.properties.get(reserved::UNIQ_KEY) == Some(key)
            } else {
                times.contains(&view.store_ms)
            };
            if !wanted || (count > 0 && body.len() + stored.bytes.len() > MOST_BYTES) {
                continue;
            }
            newest = newest.max((view.store_ms, position.0));
            let start = body.len();
            body.extend_from_slice(&stored.bytes);
            set_store_host(body.get_mut(start..).unwrap_or_default(), broker.host());
            count += 1;
            if count == most {
                break;
            }
        }
    }
    if body.is_empty() {
        return Err(Answer::refused(
            response::QUERY_NOT_FOUND,
            format!("no message of topic {topic} has the key {key:?} in this time"),
        ));
    }
    Ok(Answer::with_body(body)
        .field("indexLastUpdateTimestamp", newest.0)
        .field("indexLastUpdatePhyoffset", newest.1))
}
