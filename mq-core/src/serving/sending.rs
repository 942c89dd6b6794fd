//! 10, 310, 320: messages.

use std::net::{SocketAddr, SocketAddrV4};

use super::BrokerService;
use super::fields::{self, FieldError, Names};
use crate::broker::{AdmitError, Incoming, Receipt, SendError};
use crate::names::TopicName;
use crate::remoting::service::{Answer, Ticket};
use crate::wire::codes::response;
use crate::wire::command::Command;
use crate::wire::record::EMBEDDED_HOST;
use crate::wire::reserved;

/// Stores the message of a send request and answers.
pub(super) fn send(service: &BrokerService, command: &Command, ticket: Ticket) {
    let incoming = match incoming(command, ticket.peer().address()) {
        Ok(incoming) => incoming,
        Err(error) => return ticket.answer(error.into()),
    };
    let broker = service.broker().clone();
    tokio::spawn(async move {
        let answer = match broker.send(incoming).await {
            Ok(receipt) => stored(&receipt),
            Err(error) => refused(&error),
        };
        ticket.answer(answer);
    });
}

/// The message of a send request that came `from` there.
///
/// # Errors
/// [`FieldError`] names the field that is missing or wrong.
pub fn incoming(command: &Command, from: SocketAddr) -> Result<Incoming, FieldError> {
    let names = Names::of(command);
    let fields = &command.fields;
    let topic = fields::text(fields, names.topic)?;
    let queue: i32 = fields::parsed(fields, names.queue)?;
    Ok(Incoming {
        topic: TopicName::new(topic)
            .map_err(|error| fields::wrong(names.topic, topic, error.to_string()))?,
        queue: u32::try_from(queue).ok(),
        flag: fields::optional(fields, names.flag)?.unwrap_or(0),
        sys_flag: fields::optional(fields, names.sys_flag)?.unwrap_or(0),
        born_ms: fields::optional(fields, names.born)?.unwrap_or(0),
        born_host: match from {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(address) => address
                .ip()
                .to_ipv4_mapped()
                .map_or(EMBEDDED_HOST, |ip| SocketAddrV4::new(ip, address.port())),
        },
        reconsume_times: fields::optional(fields, names.reconsume_times)?.unwrap_or(0),
        properties: fields
            .get(names.properties)
            .unwrap_or_default()
            .as_bytes()
            .to_vec(),
        body: command.body.clone(),
    })
}

fn stored(receipt: &Receipt) -> Answer {
    let answer = Answer::done()
        .field("msgId", &receipt.message_id)
        .field("queueId", receipt.queue.queue)
        .field("queueOffset", receipt.queue_offset)
        .field("MSG_REGION", "DefaultRegion")
        .field("TRACE_ON", "true");
    match &receipt.unique_key {
        Some(key) => answer.field(reserved::SENT_UNIQUE_KEY, key),
        None => answer,
    }
}

/// What is answered to a send request whose message is not stored.
#[must_use]
pub fn refused(error: &SendError) -> Answer {
    let code = match error {
        SendError::BodyTooLong(_) | SendError::PropertiesTooLong(_) => response::MESSAGE_ILLEGAL,
        SendError::Admit(AdmitError::NoSuchQueue { .. }) => response::SYSTEM_ERROR,
        SendError::Admit(AdmitError::System(_) | AdmitError::NotWritable(_)) => {
            response::NO_PERMISSION
        }
        SendError::Admit(AdmitError::NoSuchTopic(_) | AdmitError::NotCreated(_)) => {
            response::TOPIC_NOT_EXIST
        }
        SendError::Flags(_) => response::NO_PERMISSION,
        SendError::Log(_) => response::SERVICE_NOT_AVAILABLE,
    };
    Answer::refused(code, error.to_string())
}
