//! Clients that know their messages by keys: what they said, were told and received. The keys are 32 hexadecimal digits.

use std::collections::{HashMap, HashSet};

use super::facts::{
    Answer, COMMITTED, COORDINATOR, HALF, Message, ROLLED_BACK, Reader, Received, Row, World,
};
use super::{Phase, Promise, Report};

pub(super) fn check(world: &World, phase: Phase, report: &mut Report) {
    let says: HashMap<u128, bool> = world
        .answers
        .iter()
        .filter_map(|answer| match *answer {
            Answer::Says(key, commit) => Some((key, commit)),
            Answer::Half(_)
            | Answer::Decided(..)
            | Answer::Sent(_)
            | Answer::Written(..)
            | Answer::Seen(_)
            | Answer::HalfOfKey(_) => None,
        })
        .collect();
    halves(world, &says, phase, report);
    for reader in &world.readers {
        received(world, reader, &says, phase, report);
    }
}

/// The number that is a message's key.
fn key_of(message: &Message) -> Option<u128> {
    u128::from_str_radix(message.property("KEYS")?, 16).ok()
}

/// Every half message that was acknowledged is there, and is decided as its producers say.
fn halves(world: &World, says: &HashMap<u128, bool>, phase: Phase, report: &mut Report) {
    let rows: HashMap<u128, &Row> = world.sql.rows.iter().map(|row| (row.id, row)).collect();
    let mut stored = HashSet::new();
    for record in &world.log.records {
        let Some(mark) = record
            .mark
            .filter(|m| (m.owner, m.kind) == (COORDINATOR, HALF))
        else {
            continue;
        };
        let Some(key) = record.message.as_ref().and_then(key_of) else {
            continue;
        };
        stored.insert(key);
        let Some(commit) = says.get(&key).copied() else {
            continue;
        };
        let state = rows.get(&mark.key).map(|row| row.state);
        let decided = match state {
            Some(COMMITTED) => Some(true),
            Some(ROLLED_BACK) => Some(false),
            _ => None,
        };
        if decided.map_or(phase == Phase::Healed, |decided| decided != commit) {
            let what = format!(
                "for {:032X} with key {key:032X} its producers say {}, its state is {state:?}",
                mark.key,
                if commit { "COMMIT" } else { "ROLLBACK" }
            );
            report.add(Promise::ProducersDecide, what);
        }
    }
    for answer in &world.answers {
        if let Answer::HalfOfKey(key) = answer
            && !stored.contains(key)
            && !world.log.trimmed
        {
            let what = format!("key {key:032X} was acknowledged and is not in the log");
            report.add(Promise::AckedHalfIsKept, what);
        }
    }
}

/// Every delivery is that of a message in the log; once healed every message has been delivered.
fn received(
    world: &World,
    reader: &Reader,
    says: &HashMap<u128, bool>,
    phase: Phase,
    report: &mut Report,
) {
    let records = world.log.records.iter();
    let messages = records.filter_map(|record| record.message.as_ref());
    let published: HashSet<Received> = messages
        .filter(|message| message.topic == reader.topic)
        .filter_map(|message| {
            Some(Received {
                queue: message.queue,
                offset: message.queue_offset,
                key: key_of(message)?,
            })
        })
        .collect();
    let group = &reader.group;
    let mut distinct = HashSet::new();
    for received in &reader.received {
        if !distinct.insert(*received) {
            continue;
        }
        if !published.contains(received) && !world.log.trimmed {
            let what = format!("{group} got {received:X?}, which is not in the log");
            report.add(Promise::ReceivedIsPublished, what);
        }
        if says.get(&received.key) == Some(&false) {
            let what = format!("{group} got {received:X?}, which its producers roll back");
            report.add(Promise::ReceivedIsPublished, what);
        }
    }
    if phase == Phase::Healed {
        for missing in published.difference(&distinct) {
            let what = format!("{group} never got {missing:X?}");
            report.add(Promise::EverythingIsSettled, what);
        }
    }
}
