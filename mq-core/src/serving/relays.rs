//! 307, 309: what an operator asks of one consumer goes to it, and its answer comes back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::fields::{self, FieldError};
use super::refusals::Answered;
use super::roster::Told;
use super::{BrokerService, lookup};
use crate::log::Position;
use crate::remoting::service::Answer;
use crate::wire::codes::response;
use crate::wire::command::{Command, Language};
use crate::wire::ids;

/// How long a consumer may take.
const WITHIN: Duration = Duration::from_secs(10);

/// A request on its way to a consumer.
#[derive(Debug)]
pub(super) struct Relay {
    to: Arc<Told>,
    request: Command,
}

/// 307: how a consumer is doing.
pub(super) fn ask(service: &BrokerService, command: Command) -> Result<Relay, Answer> {
    to_consumer(service, command, Bytes::new())
}

/// 309: has a consumer take one message now.
pub(super) fn consume(service: &BrokerService, command: Command) -> Result<Relay, Answer> {
    let id = fields::text(&command.fields, "msgId")?;
    let (_, position) = ids::parse_offset_id(id)
        .ok_or_else(|| Answer::from(fields::wrong("msgId", id, "it is no offset id")))?;
    let message = lookup::shown(service, Position(position))?;
    to_consumer(service, command, message.into())
}

fn to_consumer(service: &BrokerService, command: Command, body: Bytes) -> Result<Relay, Answer> {
    let group = fields::text(&command.fields, "consumerGroup")?;
    let id = command
        .fields
        .get("clientId")
        .ok_or(FieldError::Missing("clientId"))?;
    let mut members = service.roster.consumers(group).into_iter();
    let Some(to) = members.find(|told| &*told.client_id == id) else {
        return Err(Answer::refused(
            response::SYSTEM_ERROR,
            format!("consumer {id} of group {group} is not connected"),
        ));
    };
    let request = Command {
        fields: command.fields,
        body,
        language: Language::JAVA,
        ..Command::request(command.code, 0)
    };
    Ok(Relay { to, request })
}

/// Sends it, and returns the consumer's answer.
pub(super) async fn pass_on(relay: Relay) -> Answered {
    let Relay { to, request } = relay;
    let Some(answer) = to.peer.call(request, WITHIN).await else {
        return Err(Answer::refused(
            response::CONSUME_MSG_TIMEOUT,
            format!("consumer {} did not answer", to.client_id),
        ));
    };
    Ok(Answer {
        code: answer.code,
        remark: answer.remark.into(),
        fields: answer.fields,
        body: answer.body,
    })
}
