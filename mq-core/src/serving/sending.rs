//! 10, 310, 320: messages. Those of one wake-up go to the log as one append, whose end answers them all.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use super::fields::{self, FieldError, Names};
use super::{BrokerService, replies};
use crate::broker::{AdmitError, Incoming, SendError, TopicConfig};
use crate::log::{Append, AppendError, Placed};
use crate::names::{GroupName, QueueId, TopicName};
use crate::remoting::service::{Answer, Ticket};
use crate::wire::codes::response;
use crate::wire::command::Command;
use crate::wire::properties::{self, Properties};
use crate::wire::record::EMBEDDED_HOST;
use crate::wire::{batch, ids, reserved};

/// One append takes about this many bytes: far below a segment, and enough for a group to cost little.
const APPEND_BYTES: usize = 128 << 10;

/// The flag bits that a sender may set beside those that an extension claims: how the body is compressed, and RocketMQ's
/// unused one. The others tell readers about hosts and batches, which the broker stores in one way only.
const SENDERS_FLAGS: i32 = 0x703 | crate::wire::system::CLAIMABLE_FLAGS;

/// Messages on their way into one append.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    entries: Vec<Append>,
    /// Of their bodies.
    bytes: usize,
    /// Of their records in the log.
    stored_bytes: u64,
    delayed: bool,
    waiting: Vec<Waiting>,
}

/// Who waits for messages of the append.
#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    /// How many of the append's messages are this request's: one, or those of a batch.
    messages: usize,
    queue: u32,
    unique_key: Option<String>,
}

impl Outgoing {
    /// Adds the messages of a request, or answers why not. Waits for a topic that must be made first, and for room.
    pub(super) async fn push(&mut self, service: &BrokerService, command: Command, ticket: Ticket) {
        match drafts(service, &command, ticket.peer().address()).await {
            Err(answer) => ticket.answer(answer),
            Ok(Drafts {
                entries,
                delayed,
                queue,
                unique_key,
            }) => {
                let stored_bytes: u64 = entries.iter().map(Append::stored_len).sum();
                let most = service.broker().log().append_max_bytes();
                if self.stored_bytes + stored_bytes > most {
                    self.store(service).await;
                }
                self.stored_bytes += stored_bytes;
                self.waiting.push(Waiting {
                    ticket,
                    messages: entries.len(),
                    queue: queue.queue,
                    unique_key,
                });
                self.bytes += command.body.len();
                self.delayed |= delayed;
                self.entries.extend(entries);
            }
        }
        if self.bytes >= APPEND_BYTES {
            self.store(service).await;
        }
    }

    /// Hands everything to the log, waiting for room only.
    pub(super) async fn store(&mut self, service: &BrokerService) {
        let Self {
            entries,
            bytes,
            delayed,
            waiting,
            ..
        } = std::mem::take(self);
        if entries.is_empty() {
            return;
        }
        let host = service.broker().host();
        let figures = Arc::clone(&service.figures);
        let then = move |placed: Result<&[Placed], AppendError>| {
            if let Ok(placed) = placed {
                figures.stored(placed.len(), bytes);
            }
            answer(host, waiting, placed);
        };
        service.broker().store_then(entries, delayed, then).await;
    }
}

fn answer(host: SocketAddrV4, waiting: Vec<Waiting>, placed: Result<&[Placed], AppendError>) {
    let mut placed = match placed {
        Ok(placed) => placed,
        Err(error) => {
            for Waiting { ticket, .. } in waiting {
                ticket.answer(error.clone().into());
            }
            return;
        }
    };
    for waiting in waiting {
        let (mine, rest) = placed
            .split_at_checked(waiting.messages)
            .unwrap_or_default();
        placed = rest;
        if let Some(first) = mine.first() {
            let ids: Vec<String> = mine
                .iter()
                .map(|placed| ids::offset_id(host, placed.position.0))
                .collect();
            let answer = stored(&ids.join(","), &waiting, first);
            waiting.ticket.answer(answer);
        }
    }
}

fn stored(message_id: &str, waiting: &Waiting, first: &Placed) -> Answer {
    let answer = Answer::done()
        .field("msgId", message_id)
        .field("queueId", waiting.queue)
        .field("queueOffset", first.queue_offset)
        .field("MSG_REGION", "DefaultRegion")
        .field("TRACE_ON", "true");
    match &waiting.unique_key {
        Some(key) => answer.field(reserved::SENT_UNIQUE_KEY, key),
        None => answer,
    }
}

/// The messages of one request, as they are to be stored.
struct Drafts {
    entries: Vec<Append>,
    delayed: bool,
    queue: QueueId,
    unique_key: Option<String>,
}

async fn drafts(
    service: &BrokerService,
    command: &Command,
    from: SocketAddr,
) -> Result<Drafts, Answer> {
    let broker = service.broker();
    let names = Names::of(command);
    let mut incoming = incoming(command, from)?;
    incoming.check_flags()?;
    replies::invite(service, &mut incoming.properties).await?;
    let dead = is_consumed_too_often(service, command, &names, &incoming)?;
    if let Some(group) = dead {
        incoming.topic = TopicName::dead_letters_of(&group);
        incoming.queue = None;
        incoming.properties = properties::retain(Properties(&incoming.properties), |name| {
            name != reserved::DELAY
        });
    }
    let queue = admit(service, command, &names, &incoming).await?;
    let unique_key = Properties(&incoming.properties)
        .get(reserved::UNIQ_KEY)
        .map(str::to_owned);
    if !fields::flag(&command.fields, names.batch) {
        let draft = broker.draft(incoming, &queue)?;
        return Ok(Drafts {
            entries: vec![draft.entry],
            delayed: draft.delayed,
            queue,
            unique_key,
        });
    }
    let illegal = |why: String| Answer::refused(response::MESSAGE_ILLEGAL, why);
    let messages =
        batch::decode(incoming.body.clone()).map_err(|error| illegal(error.to_string()))?;
    if queue.topic.as_str().starts_with(reserved::RETRY_PREFIX) {
        return Err(illegal("a batch cannot be sent to a retry topic".into()));
    }
    let mut drafts = Drafts {
        entries: Vec::with_capacity(messages.len()),
        delayed: false,
        queue,
        unique_key,
    };
    for message in messages {
        let incoming = Incoming {
            flag: message.flag,
            properties: message.properties.to_vec(),
            body: message.body,
            ..incoming.clone()
        };
        let draft = broker.draft(incoming, &drafts.queue)?;
        drafts.delayed |= draft.delayed;
        drafts.entries.push(draft.entry);
    }
    Ok(drafts)
}

/// What is answered to a send request whose message is not stored.
#[must_use]
pub fn refused(error: &SendError) -> Answer {
    error.clone().into()
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
    let properties = fields.get(names.properties).unwrap_or_default();
    Ok(Incoming {
        topic: TopicName::new(topic)
            .map_err(|error| fields::wrong(names.topic, topic, error.to_string()))?,
        queue: u32::try_from(queue).ok(),
        flag: fields::optional(fields, names.flag)?.unwrap_or(0),
        sys_flag: fields::optional(fields, names.sys_flag)?.unwrap_or(0) & SENDERS_FLAGS,
        born_ms: fields::optional(fields, names.born)?.unwrap_or(0),
        born_host: match from {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(address) => address
                .ip()
                .to_ipv4_mapped()
                .map_or(EMBEDDED_HOST, |ip| SocketAddrV4::new(ip, address.port())),
        },
        reconsume_times: fields::optional(fields, names.reconsume_times)?.unwrap_or(0),
        properties: properties.as_bytes().to_vec(),
        body: command.body.clone(),
    })
}

/// A message for a retry topic that has used up its attempts: the group among whose dead letters it belongs.
fn is_consumed_too_often(
    service: &BrokerService,
    command: &Command,
    names: &Names,
    incoming: &Incoming,
) -> Result<Option<GroupName>, Answer> {
    let Some(group) = incoming.topic.as_str().strip_prefix(reserved::RETRY_PREFIX) else {
        return Ok(None);
    };
    let group = GroupName::new(group)?;
    let asked: Option<i32> = fields::optional(&command.fields, names.max_reconsume_times)?;
    let most = asked
        .and_then(|most| u32::try_from(most).ok())
        .unwrap_or_else(|| service.broker().retries_of(&group));
    Ok((incoming.reconsume_times >= most).then_some(group))
}

/// The queue for a message; makes the topic if this message may.
async fn admit(
    service: &BrokerService,
    command: &Command,
    names: &Names,
    incoming: &Incoming,
) -> Result<QueueId, Answer> {
    let (broker, topic) = (service.broker(), &incoming.topic);
    match broker.admit_existing(topic, incoming.queue) {
        Err(AdmitError::NoSuchTopic(_)) => {}
        admitted => return Ok(admitted?),
    }
    let name = topic.as_str();
    let of_a_group = [reserved::RETRY_PREFIX, reserved::DEAD_LETTER_PREFIX];
    if let Some(group) = of_a_group
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
    {
        GroupName::new(group)?;
        broker
            .ensure_topic(TopicConfig::new(topic.clone(), 1))
            .await?;
    } else {
        // Queues are inherited from a topic that says so, and there is one such topic.
        let parent = command.fields.get(names.default_topic);
        if !matches!(parent, None | Some("" | reserved::AUTO_CREATE_TOPIC)) {
            return Err(AdmitError::NoSuchTopic(topic.clone()).into());
        }
        let most = broker.settings().default_queues.max(1);
        let asked: Option<u32> = fields::optional(&command.fields, names.default_queues)?;
        let queues = asked.map_or(most, |asked| asked.clamp(1, most));
        broker.create_on_demand(topic, queues).await?;
    }
    Ok(broker.admit_existing(topic, incoming.queue)?)
}
