//! Half messages and resolutions as commands, and what their answers mean: pure.

use std::collections::HashSet;

use mq_core::client::MessageQueue;
use mq_core::clock::ServerTime;
use mq_core::places::{Position, QueueOffset};
use mq_core::wire::codes::response;
use mq_core::wire::command::{Command, Language};
use mq_core::wire::sending::SendRequest;
use mq_core::wire::{ids, properties, reserved};

use super::endpoint::{
    HalfError, HalfReceipt, HalfRequest, Outcome, Resolve, ResolveError, Verdict,
};
use crate::transaction::{Actor, Resolution, State, TransactionId};

/// How many queues a topic gets that sending creates, as RocketMQ's clients ask for.
const DEFAULT_QUEUES: u32 = 4;

/// The properties of a half message on its way: the message's own, and what makes it one.
pub(super) fn half_properties(request: &HalfRequest) -> Vec<u8> {
    let mut all = request.message.properties().0.to_vec();
    let mut push = |name, value: &str| properties::push(&mut all, name, value);
    push(reserved::UNIQ_KEY, &request.id.to_string());
    push(reserved::TRAN_MSG, "true");
    push(reserved::PRODUCER_GROUP, request.group.as_str());
    if let Some(marker) = request.marker {
        push(reserved::MARKER, &ids::hex128(marker.0));
    }
    if let Some(immunity) = request.immunity {
        let seconds = immunity.as_millis().div_ceil(1000).to_string();
        push(reserved::CHECK_IMMUNITY_SECONDS, &seconds);
    }
    all
}

/// A half message, for this queue.
pub(super) fn half(
    request: &HalfRequest,
    properties: &[u8],
    queue: &MessageQueue,
    born_ms: u64,
) -> Command {
    let sent = SendRequest {
        group: request.group.as_str(),
        topic: queue.topic.as_str(),
        default_queues: DEFAULT_QUEUES,
        queue: queue.number,
        sys_flag: reserved::FLAG_PREPARED,
        born_ms,
        flag: request.message.flag(),
        properties,
        reconsume_times: 0,
        batch: false,
        body: request.message.body().clone(),
    };
    Command {
        language: Language::OTHER,
        ..sent.command()
    }
}

/// The receipt in the answer to [`half`].
pub(super) fn receipt(
    id: TransactionId,
    answer: &Command,
    queue: &MessageQueue,
) -> Result<HalfReceipt, HalfError> {
    let place = answer.fields.get("msgId").and_then(ids::parse_offset_id);
    let offset = answer.fields.get("queueOffset");
    match (place, offset.and_then(|offset| offset.parse().ok())) {
        (Some((_, position)), Some(offset)) => Ok(HalfReceipt {
            id,
            position: Position(position),
            queue_offset: QueueOffset(offset),
            queue: queue.number,
            broker: Some(queue.broker.clone()),
        }),
        _ => Err(HalfError::Unknown(format!(
            "the answer of broker {} names no place",
            queue.broker
        ))),
    }
}

/// Asks which of these transactions are committed.
pub(super) fn committed_among(asked: &[TransactionId]) -> Command {
    Command {
        language: Language::OTHER,
        body: ids::to_bytes(asked.iter().map(|id| id.0)).into(),
        ..Command::request(reserved::COMMITTED_AMONG, 0)
    }
}

/// Those of the ids that were asked about that the answer to [`committed_among`] names; none if it says anything else.
pub(super) fn committed(asked: &[TransactionId], answer: &Command) -> Vec<TransactionId> {
    if answer.code != response::SUCCESS {
        return Vec::new();
    }
    let committed = ids::from_bytes(&answer.body).unwrap_or_default();
    let asked: HashSet<u128> = asked.iter().map(|id| id.0).collect();
    let committed = committed.into_iter().filter(|id| asked.contains(id));
    committed.map(TransactionId).collect()
}

/// A resolution for the half message's broker.
pub(super) fn resolution(request: &Resolve, broker: &str) -> Command {
    let said = match request.resolution {
        Resolution::Commit => reserved::FLAG_COMMIT,
        Resolution::RollBack => reserved::FLAG_ROLLBACK,
        Resolution::Unknown | Resolution::InFlight => 0,
    };
    let asked = match request.actor {
        Actor::CheckBack | Actor::Marker => "true",
        Actor::Producer | Actor::Operator | Actor::Recovery | Actor::OperatorForced => "false",
    };
    let id = request.id.to_string();
    let mut command = Command {
        language: Language::OTHER,
        remark: request.evidence.clone(),
        ..Command::request(reserved::END_TRANSACTION, 0)
    };
    let fields = &mut command.fields;
    fields.push("producerGroup", request.group.as_str());
    fields.push("tranStateTableOffset", &request.queue_offset.0.to_string());
    fields.push("commitLogOffset", &request.position.0.to_string());
    fields.push("commitOrRollback", &said.to_string());
    fields.push("fromTransactionCheck", asked);
    fields.push("msgId", &id);
    fields.push("transactionId", &id);
    fields.push("bname", broker);
    if request.resolution == Resolution::InFlight {
        fields.push(reserved::IN_FLIGHT, "true");
    }
    command
}

/// What the answer to [`resolution`] says.
pub(super) fn outcome(answer: &Command, request: &Resolve) -> Result<Outcome, ResolveError> {
    let broker = request.broker.as_deref().unwrap_or("the server");
    let why = format!("broker {broker}: {}", answer.remark);
    match (answer.code, request.resolution) {
        (response::SUCCESS, Resolution::Commit | Resolution::RollBack) => Ok(Outcome::DecidedNow),
        (response::SUCCESS, Resolution::Unknown | Resolution::InFlight) => Ok(Outcome::Noted),
        (response::SYSTEM_ERROR, _) => Ok(match stands(answer) {
            Some(verdict) => Outcome::AlreadyOtherwise(verdict),
            None => Outcome::NoSuchHalfMessage { why },
        }),
        _ => Err(ResolveError(why)),
    }
}

/// The decision that stands, where the answer tells it.
fn stands(answer: &Command) -> Option<Verdict> {
    let [state, actor, at, evidence] = reserved::STANDS.map(|name| answer.fields.get(name));
    let states = [State::Committed, State::RolledBack];
    Some(Verdict {
        state: states
            .into_iter()
            .find(|known| Some(known.word()) == state)?,
        actor: ACTORS
            .into_iter()
            .find(|known| Some(known.word()) == actor)?,
        at: ServerTime(at?.parse().ok()?),
        evidence: evidence.unwrap_or_default().to_owned(),
    })
}

const ACTORS: [Actor; 6] = [
    Actor::Producer,
    Actor::CheckBack,
    Actor::Marker,
    Actor::Operator,
    Actor::Recovery,
    Actor::OperatorForced,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_confirms_nothing_that_was_not_asked() {
        let [one, two, three] = [1, 2, 3].map(TransactionId);
        let answer = |code, body: Vec<u8>| Command {
            body: body.into(),
            ..Command::request(code, 0)
        };
        let said = ids::to_bytes([two.0, three.0]);
        let asked = [one, two];
        let good = answer(response::SUCCESS, said.clone());
        assert_eq!(committed(&asked, &good), [two]);
        assert_eq!(
            committed(&asked, &answer(response::SUCCESS, vec![0; 17])),
            []
        );
        assert_eq!(committed(&asked, &answer(response::SYSTEM_BUSY, said)), []);
    }
}
