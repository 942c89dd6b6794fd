//! 324, 325: replies to requests that were sent as messages; each goes straight to the client that waits for it.

use super::fields::{self, Names};
use super::refusals::Answered;
use super::{BrokerService, sending};
use crate::broker::TopicConfig;
use crate::broker::clients::{Link, Notice};
use crate::names::TopicName;
use crate::remoting::service::{Answer, Ticket};
use crate::wire::codes::{request, response};
use crate::wire::command::Command;
use crate::wire::properties::{self, Properties};
use crate::wire::reserved;

/// Pushes a reply to the client it is for. It is not stored: nobody else waits for it.
pub(super) fn push(service: &BrokerService, command: &Command, ticket: &Ticket) -> Answered {
    let names = Names::of(command);
    let mut incoming = sending::incoming(command, ticket.peer().address())?;
    let to = Properties(&incoming.properties)
        .get(reserved::REPLY_TO_CLIENT)
        .ok_or(fields::FieldError::Missing(reserved::REPLY_TO_CLIENT))?
        .to_owned();
    let now = service.broker().clock().wall_ms();
    properties::push(
        &mut incoming.properties,
        reserved::PUSH_REPLY_TIME,
        &now.to_string(),
    );
    let group = command.fields.get(names.group).unwrap_or_default();
    let encoded = String::from_utf8_lossy(&incoming.properties).into_owned();
    let fields = vec![
        ("producerGroup", group.to_owned()),
        ("topic", incoming.topic.to_string()),
        ("defaultTopic", reserved::AUTO_CREATE_TOPIC.to_owned()),
        ("defaultTopicQueueNums", "1".to_owned()),
        ("queueId", incoming.queue.unwrap_or(0).to_string()),
        ("sysFlag", incoming.sys_flag.to_string()),
        ("bornTimestamp", incoming.born_ms.to_string()),
        ("flag", incoming.flag.to_string()),
        ("properties", encoded),
        ("reconsumeTimes", "0".to_owned()),
        ("unitMode", "false".to_owned()),
        ("bornHost", incoming.born_host.to_string()),
        ("storeHost", service.broker().host().to_string()),
        ("storeTimestamp", now.to_string()),
    ];
    let notice = Notice {
        code: request::PUSH_REPLY_MESSAGE_TO_CLIENT,
        fields,
        body: incoming.body,
    };
    let clients = service.roster.clients(&to);
    let pushed = clients
        .iter()
        .rev()
        .any(|told| told.peer.push(notice.clone()));
    if !pushed {
        return Err(Answer::refused(
            response::SYSTEM_ERROR,
            format!("client {to}, which waits for this reply, is not connected"),
        ));
    }
    Ok(Answer::done()
        .field("msgId", 0)
        .field("queueId", 0)
        .field("queueOffset", 0)
        .field("MSG_REGION", "DefaultRegion")
        .field("TRACE_ON", "true"))
}

/// A message that asks for a reply says where replies go: the name of the cluster, whose reply topic must exist.
pub(super) async fn invite(
    service: &BrokerService,
    properties: &mut Vec<u8>,
) -> Result<(), Answer> {
    let said = Properties(properties);
    if said.get(reserved::REPLY_TO_CLIENT).is_none() || said.get(reserved::CLUSTER).is_some() {
        return Ok(());
    }
    let cluster = &service.presence().cluster;
    let topic = TopicName::new(format!("{cluster}{}", reserved::REPLY_TOPIC_SUFFIX))?;
    service
        .broker()
        .ensure_topic(TopicConfig::new(topic, 1))
        .await?;
    properties::push(properties, reserved::CLUSTER, cluster);
    Ok(())
}
