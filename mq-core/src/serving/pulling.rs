//! 11, 361: messages of one queue; answered at once if there are any, and held if not.

use std::sync::Arc;
use std::time::Duration;

use super::figures::Figures;
use super::session::Session;
use super::{BrokerService, fields, membership};
use crate::broker::{Broker, Pull, PullOutcome, Pulled};
use crate::filter::Filter;
use crate::names::{GroupName, QueueId, TopicName};
use crate::remoting::service::{Answer, Ticket};
use crate::wire::codes::response;
use crate::wire::command::Command;
use crate::wire::record::set_store_host;

/// Bits of a pull's `sysFlag` (RocketMQ `PullSysFlag`).
mod bits {
    /// `commitOffset` is to be noted.
    pub(super) const COMMIT: i32 = 1;
    /// The pull may be held.
    pub(super) const HOLD: i32 = 2;
    /// The subscription is in the request.
    pub(super) const SUBSCRIPTION: i32 = 4;
}

/// Answers a pull, now or when it was held long enough.
pub(super) fn pull(
    service: &BrokerService,
    session: &mut Session,
    command: &Command,
    ticket: Ticket,
) {
    match look(service, session, command) {
        Ok(Look::Answer(answer)) | Err(answer) => ticket.answer(answer),
        Ok(Look::Hold(pull)) => {
            let broker = service.broker().clone();
            let figures = Arc::clone(&service.figures);
            session.hold(async move {
                let pulled = broker.pull(pull).await;
                let answer = |pulled| found(&broker, &figures, &pulled);
                ticket.answer(pulled.map_or_else(Answer::from, answer));
            });
        }
    }
}

/// What one look leads to.
enum Look {
    Answer(Answer),
    Hold(Pull),
}

fn look(service: &BrokerService, session: &mut Session, command: &Command) -> Result<Look, Answer> {
    let broker = service.broker();
    let fields = &command.fields;
    let flags: i32 = fields::optional(fields, "sysFlag")?.unwrap_or(0);
    let group: GroupName = fields::parsed(fields, "consumerGroup")?;
    let topic: TopicName = fields::parsed(fields, "topic")?;
    let filter = if flags & bits::SUBSCRIPTION == 0 {
        subscribed(service, session, command, &group, &topic)?
    } else {
        let kind = fields.get("expressionType").unwrap_or_default();
        let expression = fields.get("subscription").unwrap_or_default();
        membership::filter(service, kind, expression)?
    };
    let queue = QueueId::new(topic, fields::parsed(fields, "queueId")?);
    if flags & bits::COMMIT != 0 {
        commit(broker, &group, &queue, command)?;
    }
    let hold: u64 = match flags & bits::HOLD {
        0 => 0,
        _ => fields::optional(fields, "suspendTimeoutMillis")?.unwrap_or(0),
    };
    let mut pull = Pull {
        group,
        queue,
        offset: u64::try_from(fields::parsed::<i64>(fields, "queueOffset")?).unwrap_or(0),
        filter,
        most: positive(fields::parsed(fields, "maxMsgNums")?).unwrap_or(1),
        most_bytes: fields::optional(fields, "maxMsgBytes")?
            .and_then(positive)
            .unwrap_or(usize::MAX),
        wait: Duration::from_millis(hold),
    };
    let pulled = broker.pull_now(&pull)?;
    let nothing = matches!(pulled.outcome, PullOutcome::NoNew | PullOutcome::NoMatch);
    if nothing && pulled.next >= pulled.max && hold > 0 && session.may_hold() {
        pull.offset = pulled.next;
        return Ok(Look::Hold(pull));
    }
    Ok(Look::Answer(found(broker, &service.figures, &pulled)))
}

fn positive(number: i32) -> Option<usize> {
    usize::try_from(number).ok().filter(|number| *number > 0)
}

/// What the group has subscribed to: as this connection told, or any other member.
fn subscribed(
    service: &BrokerService,
    session: &Session,
    command: &Command,
    group: &GroupName,
    topic: &TopicName,
) -> Result<Filter, Answer> {
    let newest = || {
        let members = service.roster.consumers(group.as_str());
        let mut newest_first = members.iter().rev();
        newest_first.find_map(|told| told.subscriptions.get(group)?.get(topic).cloned())
    };
    let Some(subscribed) = session.subscribed(group, topic).or_else(newest) else {
        return Err(Answer::refused(
            response::SUBSCRIPTION_NOT_EXIST,
            format!("group {group} has not subscribed to topic {topic}; send a heartbeat first"),
        ));
    };
    let version: i64 = fields::optional(&command.fields, "subVersion")?.unwrap_or(0);
    if subscribed.version < version {
        return Err(Answer::refused(
            response::SUBSCRIPTION_NOT_LATEST,
            format!("the last heartbeat of group {group} is older than this subscription"),
        ));
    }
    Ok(subscribed.filter?)
}

fn commit(
    broker: &Broker,
    group: &GroupName,
    queue: &QueueId,
    command: &Command,
) -> Result<(), Answer> {
    let offset: i64 = fields::parsed(&command.fields, "commitOffset")?;
    // A negative offset is a client that has none yet.
    if let Ok(offset) = u64::try_from(offset) {
        broker.commit_offset(group, queue, offset)?;
    }
    Ok(())
}

fn found(broker: &Broker, figures: &Figures, pulled: &Pulled) -> Answer {
    figures.pulled(pulled.records.len());
    let bytes = pulled.records.iter().map(bytes::Bytes::len).sum();
    let mut body = Vec::with_capacity(bytes);
    for record in &pulled.records {
        let start = body.len();
        body.extend_from_slice(record);
        set_store_host(body.get_mut(start..).unwrap_or_default(), broker.host());
    }
    let (code, remark) = match pulled.outcome {
        PullOutcome::Found => (response::SUCCESS, ""),
        PullOutcome::NoNew => (response::PULL_NOT_FOUND, "nothing new"),
        PullOutcome::NoMatch => (response::PULL_RETRY_IMMEDIATELY, "nothing matches"),
        PullOutcome::Moved => (
            response::PULL_OFFSET_MOVED,
            "the offset is outside of the queue",
        ),
    };
    let answer = Answer {
        code,
        remark: remark.into(),
        body: body.into(),
        ..Answer::default()
    };
    answer
        .field("suggestWhichBrokerId", 0)
        .field("nextBeginOffset", pulled.next)
        .field("minOffset", pulled.min)
        .field("maxOffset", pulled.max)
}
