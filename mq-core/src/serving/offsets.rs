//! 14, 15, 29, 30, 31, 32: how far a group has come, and the ends of queues.

use super::refusals::Answered;
use super::{BrokerService, fields};
use crate::broker::PullError;
use crate::log::QueueOffset;
use crate::names::{GroupName, QueueId};
use crate::remoting::service::Answer;
use crate::wire::codes::response;
use crate::wire::command::Command;
use crate::wire::record::RecordView;

fn queue(command: &Command) -> Result<QueueId, Answer> {
    let topic = fields::parsed(&command.fields, "topic")?;
    Ok(QueueId::new(
        topic,
        fields::parsed(&command.fields, "queueId")?,
    ))
}

/// 14: how far a group has consumed a queue. Where it never has, the start of a young queue, as RocketMQ answers.
pub(super) fn query(service: &BrokerService, command: &Command) -> Answered {
    let broker = service.broker();
    let group: GroupName = fields::parsed(&command.fields, "consumerGroup")?;
    let queue = queue(command)?;
    let none = |why: String| Answer::refused(response::QUERY_NOT_FOUND, why);
    let offset = match broker.offset(&group, &queue) {
        Ok(Some(offset)) => offset,
        Ok(None)
            if broker.is_young(&queue)
                && command.fields.get("setZeroIfNotFound") != Some("false") =>
        {
            0
        }
        Ok(None) => {
            return Err(none(format!(
                "group {group} has no offset in queue {queue}"
            )));
        }
        Err(error @ (PullError::NoSuchTopic(_) | PullError::NoSuchQueue { .. })) => {
            return Err(none(error.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Answer::done().field("offset", offset))
}

/// 15: notes how far a group has consumed a queue.
pub(super) fn update(service: &BrokerService, command: &Command) -> Answered {
    let group: GroupName = fields::parsed(&command.fields, "consumerGroup")?;
    let offset: i64 = fields::parsed(&command.fields, "commitOffset")?;
    let offset = u64::try_from(offset).map_err(|_| {
        let why = "an offset is 0 or more";
        Answer::from(fields::wrong("commitOffset", &offset.to_string(), why))
    })?;
    service
        .broker()
        .commit_offset(&group, &queue(command)?, offset)?;
    Ok(Answer::done())
}

/// 29: the first offset stored at or after a time; with boundary `UPPER` the last one stored at or before it.
pub(super) fn at_time(service: &BrokerService, command: &Command) -> Answered {
    let (broker, queue) = (service.broker(), queue(command)?);
    let time: i64 = fields::parsed(&command.fields, "timestamp")?;
    let time = u64::try_from(time).unwrap_or(0);
    let offset = if command.fields.get("boundaryType") == Some("UPPER") {
        let first_after = broker.offset_at(&queue, time.saturating_add(1))?;
        let start = broker.queue_range(&queue)?.start;
        first_after.saturating_sub(1).max(start)
    } else {
        broker.offset_at(&queue, time)?
    };
    Ok(Answer::done().field("offset", offset))
}

/// 30: the next offset to be written.
pub(super) fn end(service: &BrokerService, command: &Command) -> Answered {
    let range = service.broker().queue_range(&queue(command)?)?;
    Ok(Answer::done().field("offset", range.end))
}

/// 31: the first offset kept.
pub(super) fn start(service: &BrokerService, command: &Command) -> Answered {
    let range = service.broker().queue_range(&queue(command)?)?;
    Ok(Answer::done().field("offset", range.start))
}

/// 32: when the oldest message kept was stored; -1 if there is none.
pub(super) fn oldest(service: &BrokerService, command: &Command) -> Answered {
    let (broker, queue) = (service.broker(), queue(command)?);
    let range = broker.queue_range(&queue)?;
    let answer = Answer::done();
    if range.is_empty() {
        return Ok(answer.field("timestamp", -1));
    }
    let log = broker.log();
    let stored = log.read(log.find(&queue, QueueOffset(range.start))?)?;
    let stored_ms = RecordView::parse(&stored.bytes).map_or(0, |view| view.store_ms);
    Ok(answer.field("timestamp", stored_ms))
}
