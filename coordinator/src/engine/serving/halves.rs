//! 10, 310, 320 with the flag of a half message: checked, admitted, and appended together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mq_core::broker::{AdmitError, Incoming, SendError};
use mq_core::extension::{Call, Caller};
use mq_core::log::portions::portions;
use mq_core::log::{AppendError, Full, Placed};
use mq_core::names::{GroupName, QueueId};
use mq_core::remoting::service::{Answer, Ticket};
use mq_core::serving::fields::{self, Names};
use mq_core::serving::sending;
use mq_core::wire::codes::{request, response};
use mq_core::wire::command::Command;
use mq_core::wire::properties::{self, Properties};
use mq_core::wire::{ids, reserved};

use super::super::admission::{Admitted, NotAdmitted};
use super::super::half::{ADDED, NewHalf};
use super::super::{Coordinator, Running};
use super::{busy, sender};
use crate::transaction::{Incarnation, MarkerIdentity, TransactionId};

/// Longest age before the first check-back that a message may ask for: a year.
const LONGEST_IMMUNITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A half message as its request tells it.
#[derive(Debug)]
struct Sent {
    incoming: Incoming,
    group: GroupName,
    unique: Option<String>,
    id: TransactionId,
    sender: Option<Incarnation>,
    marker: Option<MarkerIdentity>,
    immunity: Option<Duration>,
}

/// Who waits for the place of a half message.
#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    unique: Option<String>,
    queue: u32,
}

/// Stores the half messages of `calls`, in one append if it has room for them; those whose topic must be created first follow
/// by themselves.
pub(super) fn store(
    coordinator: &Coordinator,
    running: &Arc<Running>,
    caller: &Caller,
    calls: Vec<Call>,
) {
    if calls.is_empty() {
        return;
    }
    let mut admitted = Vec::with_capacity(calls.len());
    let mut homeless = Vec::new();
    for (command, ticket) in calls {
        let sent = match read(running, caller, &command) {
            Ok(sent) => sent,
            Err(refusal) => {
                ticket.answer(refusal);
                continue;
            }
        };
        let hold = coordinator.shared.holds.begin(&sent.incoming.topic);
        let topic = &sent.incoming.topic;
        match running.broker.admit_existing(topic, sent.incoming.queue) {
            Ok(queue) => match coordinator.admit(running, &sent.half(), sent.id, queue, hold) {
                Ok(one) => admitted.push((Waiting::new(ticket, sent, &one), one)),
                Err(error) => ticket.answer(not_admitted(&error)),
            },
            Err(AdmitError::NoSuchTopic(_))
                if running.broker.topic_for_sending(topic).is_some() =>
            {
                homeless.push((sent, ticket));
            }
            Err(error) => ticket.answer(sending::refused(&error.into())),
        }
    }
    let most = running.broker.log().append_max_bytes();
    for together in portions(admitted, most, |(_, one)| one.stored_len()) {
        append(coordinator, running, together);
    }
    if !homeless.is_empty() {
        create_and_store(coordinator, running, homeless);
    }
}

/// Stores half messages whose topics do not exist yet, one after the other.
fn create_and_store(coordinator: &Coordinator, running: &Running, homeless: Vec<(Sent, Ticket)>) {
    let Ok(permit) = coordinator.shared.aside.clone().try_acquire_owned() else {
        for (_, ticket) in homeless {
            ticket.answer(busy("too many messages wait for topics to be created"));
        }
        return;
    };
    let (coordinator, broker) = (coordinator.clone(), running.broker.clone());
    tokio::spawn(async move {
        for (sent, ticket) in homeless {
            let topic = &sent.incoming.topic;
            let hold = coordinator.shared.holds.begin(topic);
            let queue: QueueId = match broker.admit(topic, sent.incoming.queue).await {
                Ok(queue) => queue,
                Err(error) => {
                    ticket.answer(sending::refused(&error.into()));
                    continue;
                }
            };
            // Looked up again: a coordinator that stops meanwhile does not wait for this task.
            let Some(running) = coordinator.started() else {
                ticket.answer(super::unavailable("the coordinator is stopped".into()));
                continue;
            };
            match coordinator.admit(&running, &sent.half(), sent.id, queue, hold) {
                Ok(one) => {
                    let waiting = Waiting::new(ticket, sent, &one);
                    append(&coordinator, &running, vec![(waiting, one)]);
                }
                Err(error) => ticket.answer(not_admitted(&error)),
            }
        }
        drop(permit);
    });
}

fn append(coordinator: &Coordinator, running: &Running, admitted: Vec<(Waiting, Admitted)>) {
    let (waiting, admitted): (Vec<_>, Vec<_>) = admitted.into_iter().unzip();
    let host = running.broker.host();
    let tell = move |result: Result<&[Placed], AppendError>| match result {
        Ok(places) => {
            for (one, placed) in waiting.into_iter().zip(places) {
                let answer = Answer::done()
                    .field("msgId", ids::offset_id(host, placed.position.0))
                    .field("queueId", one.queue)
                    .field("queueOffset", placed.queue_offset)
                    .field("MSG_REGION", "DefaultRegion")
                    .field("TRACE_ON", "true");
                one.ticket.answer(match &one.unique {
                    Some(unique) => answer.field(reserved::SENT_UNIQUE_KEY, unique),
                    None => answer,
                });
            }
        }
        Err(error) => {
            let refusal = sending::refused(&SendError::Log(error));
            for one in waiting {
                one.ticket.answer(refusal.clone());
            }
        }
    };
    // The tickets of an append that the log has no room for say by themselves that the server is busy.
    if let Err(Full(_)) = coordinator.append(running, admitted, tell) {
        tracing::debug!("the log is behind; half messages are refused");
    }
}

fn read(running: &Running, caller: &Caller, command: &Command) -> Result<Sent, Answer> {
    let illegal = |why: String| Answer::refused(response::MESSAGE_ILLEGAL, why);
    let names = Names::of(command);
    if command.code == request::SEND_BATCH_MESSAGE || fields::flag(&command.fields, names.batch) {
        return Err(illegal(
            "a batch cannot be one half message; send its messages one by one".into(),
        ));
    }
    let mut incoming = sending::incoming(command, caller.address)?;
    if incoming.sys_flag & reserved::FLAG_TRANSACTION_MASK != reserved::FLAG_PREPARED {
        return Err(illegal(format!(
            "flag bits {:#x} are the server's to set; a half message has {:#x}",
            incoming.sys_flag & reserved::FLAG_TRANSACTION_MASK,
            reserved::FLAG_PREPARED
        )));
    }
    // The record keeps its body for as long as it is young: it must not keep what else came in the same read.
    incoming.body = Bytes::copy_from_slice(&incoming.body);
    let hosts = reserved::FLAG_BORN_HOST_V6 | reserved::FLAG_STORE_HOST_V6;
    incoming.sys_flag &= !(reserved::FLAG_TRANSACTION_MASK | hosts);
    let own = Own::read(&incoming.properties, illegal)?;
    let group = match own.group {
        Some(group) => group,
        None => fields::text(&command.fields, names.group)?,
    };
    let group = GroupName::new(group).map_err(|error| illegal(error.to_string()))?;
    let broker = &running.broker;
    let id = own
        .unique
        .filter(|_| caller.native)
        .and_then(TransactionId::of_version_7)
        .unwrap_or_else(|| {
            TransactionId::new(broker.clock().wall_ms(), broker.random().next_u128())
        });
    let incarnation = caller.incarnation.or_else(|| {
        let unique = own.unique?;
        let members = broker.clients().producers(&group);
        let sender = members
            .iter()
            .find(|member| sender::made(&member.id, unique))?;
        Some(sender.incarnation)
    });
    let (marker, immunity) = (own.marker, own.immunity);
    let unique = own.unique.map(str::to_owned);
    incoming.properties = properties::retain(Properties(&incoming.properties), |name| {
        !ADDED.contains(&name) && name != reserved::CHECK_TIMES
    });
    Ok(Sent {
        incoming,
        group,
        unique,
        id,
        sender: incarnation.map(Incarnation),
        marker,
        immunity,
    })
}

/// What the properties of a message say about it as a half message.
#[derive(Debug, Default)]
struct Own<'a> {
    group: Option<&'a str>,
    unique: Option<&'a str>,
    marker: Option<MarkerIdentity>,
    immunity: Option<Duration>,
}

impl<'a> Own<'a> {
    fn read(encoded: &'a [u8], illegal: impl Fn(String) -> Answer) -> Result<Self, Answer> {
        let mut own = Self::default();
        for (name, value) in Properties(encoded).iter() {
            match name {
                reserved::PRODUCER_GROUP => own.group = Some(value),
                reserved::UNIQ_KEY if !value.is_empty() => own.unique = Some(value),
                reserved::MARKER => {
                    let marker = ids::parse_hex128(value).map(MarkerIdentity);
                    own.marker = Some(marker.ok_or_else(|| {
                        illegal(format!("property {name} is not 32 hex digits: {value:?}"))
                    })?);
                }
                reserved::CHECK_IMMUNITY_SECONDS => {
                    let seconds: u64 = value.trim().parse().map_err(|_| {
                        illegal(format!(
                            "property {name} is not a number of seconds: {value:?}"
                        ))
                    })?;
                    own.immunity = Some(Duration::from_secs(seconds).min(LONGEST_IMMUNITY));
                }
                reserved::DELAY if value.trim() != "0" => {
                    return Err(illegal(
                        "a half message cannot be delayed; leave out the delay level".into(),
                    ));
                }
                name if reserved::TIMED.contains(&name) => {
                    return Err(illegal(format!(
                        "a half message cannot be delayed; leave out property {name}"
                    )));
                }
                _ => {}
            }
        }
        Ok(own)
    }
}

impl Sent {
    fn half(&self) -> NewHalf<'_> {
        NewHalf {
            unique: self.unique.as_deref(),
            group: &self.group,
            topic: &self.incoming.topic,
            flag: self.incoming.flag,
            sys_flag: self.incoming.sys_flag,
            born_ms: self.incoming.born_ms,
            born_host: self.incoming.born_host,
            properties: &self.incoming.properties,
            body: &self.incoming.body,
            sender: self.sender,
            marker: self.marker,
            immunity: self.immunity,
        }
    }
}

impl Waiting {
    fn new(ticket: Ticket, sent: Sent, admitted: &Admitted) -> Self {
        Self {
            ticket,
            unique: sent.unique,
            queue: admitted.queue,
        }
    }
}

fn not_admitted(error: &NotAdmitted) -> Answer {
    match error {
        NotAdmitted::Behind => busy(format!("{error}; try again")),
        NotAdmitted::BodyTooLong(_) | NotAdmitted::PropertiesTooLong(_) => {
            Answer::refused(response::MESSAGE_ILLEGAL, error.to_string())
        }
    }
}
