//! Events and seals: each history leads to its row, and the chain of hashes covers all of them.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::facts::{COMMITTED, Event, PARKED, PREPARED, ROLLED_BACK, Row, Seal, World, step};
use super::{Promise, Report, forgotten};

/// How many numbers of seals a repair skips at least.
const SKIPPED: u64 = 1 << 20;

pub(super) fn check(world: &World, report: &mut Report) {
    seals(world, report);
    let mut histories: HashMap<u128, Vec<&Event>> = HashMap::new();
    let events = world.sql.events.iter();
    for event in events.filter(|event| !forgotten::is_tell(event)) {
        histories.entry(event.id).or_default().push(event);
    }
    for row in &world.sql.rows {
        let events = histories.remove(&row.id).unwrap_or_default();
        if let Err(why) = leads_to(&events, row) {
            report.add(
                Promise::HistoryTellsTheRow,
                format!("{:032X}: {why}", row.id),
            );
        }
        let unknown = events
            .iter()
            .filter(|event| event.to == step::UNKNOWN)
            .count() as u64;
        if unknown != row.checks {
            let what = format!(
                "{:032X} counts {} checks, {unknown} were answered",
                row.id, row.checks
            );
            report.add(Promise::ChecksAreAnswered, what);
        }
    }
    for (id, events) in histories {
        let what = format!("{id:032X} has {} event(s) and no row", events.len());
        report.add(Promise::HistoryTellsTheRow, what);
    }
}

/// Follows the events of one transaction and compares where they lead with its row.
fn leads_to(events: &[&Event], row: &Row) -> Result<(), String> {
    let mut state = None;
    let mut decided_at = None;
    let mut refused = 0;
    for event in events {
        let number = event.number;
        if event.from != state {
            return Err(format!(
                "event {number} starts from {:?}, not {state:?}",
                event.from
            ));
        }
        let told = event.fingerprint;
        if event.from.is_none() && told.is_some_and(|told| told != fingerprint_of(row)) {
            return Err(format!(
                "event {number} tells of another half message than the row"
            ));
        }
        match event.to {
            PREPARED if state.is_none() => {
                if event.at != row.prepared_at {
                    return Err(format!(
                        "event {number} dates the half message {}",
                        event.at
                    ));
                }
                state = Some(PREPARED);
            }
            COMMITTED | ROLLED_BACK if matches!(state, None | Some(PREPARED | PARKED)) => {
                decided_at = Some(event.then_at.unwrap_or(event.at));
                state = Some(event.to);
            }
            PARKED if state == Some(PREPARED) => state = Some(PARKED),
            step::REFUSED if matches!(state, Some(COMMITTED | ROLLED_BACK)) => refused += 1,
            PREPARED..=PARKED | step::REFUSED => {
                return Err(format!(
                    "event {number} leads from {state:?} to {}",
                    event.to
                ));
            }
            _ => {}
        }
    }
    if state != Some(row.state) {
        return Err(format!(
            "the history ends in {state:?}, the row says {}",
            row.state
        ));
    }
    if decided_at != row.decided_at {
        return Err(format!(
            "the history decides at {decided_at:?}, the row at {:?}",
            row.decided_at
        ));
    }
    if refused > row.contradictions {
        let counted = row.contradictions;
        return Err(format!(
            "{refused} contradictions are recorded, {counted} counted"
        ));
    }
    Ok(())
}

fn seals(world: &World, report: &mut Report) {
    let (owner, events) = (&world.sql.owner, &world.sql.events);
    let mut wrong = |what: String| report.add(Promise::SealsAreWhole, what);
    let mut expected = 1;
    let may_be_missing = forgotten::told(world).event;
    for event in events {
        let is_gap = event.number > expected && event.number <= may_be_missing;
        if event.number != expected && !is_gap {
            wrong(format!(
                "event {expected} is missing, the next is {}",
                event.number
            ));
            return;
        }
        expected = event.number + 1;
    }
    let by_number: HashMap<u64, &Event> =
        events.iter().map(|event| (event.number, event)).collect();
    let mut previous = Seal {
        first_event: 1,
        ..Seal::default()
    };
    for seal in &world.sql.seals {
        let seq = seal.seq;
        // A repair skips numbers, and its hash says that nothing stood between.
        let skips = seq >= previous.seq + SKIPPED && hash_of(&previous.hash, seal) == seal.hash;
        if seq != previous.seq + 1 && !skips {
            wrong(format!(
                "seal {} is missing, the next is {seq}",
                previous.seq + 1
            ));
            return;
        }
        if seal.first_event != previous.first_event + previous.count {
            wrong(format!(
                "seal {seq} starts with event {}, leaving a gap",
                seal.first_event
            ));
        }
        if seal.published < previous.published {
            wrong(format!("seal {seq} takes back what was published"));
        }
        let sealed = seal.first_event..seal.first_event.saturating_add(seal.count);
        let is_missing =
            |number: &u64| *number >= may_be_missing && !by_number.contains_key(number);
        if sealed.clone().any(|number| is_missing(&number))
            || seal.leaves.len() as u64 != seal.count.saturating_mul(8)
        {
            wrong(format!(
                "seal {seq} covers the events {sealed:?}, not all are there"
            ));
        }
        for (number, leaf) in sealed.zip(seal.leaves.chunks(8)) {
            let event = by_number.get(&number);
            if event.is_some_and(|event| leaf_of(event) != leaf) {
                wrong(format!("event {number} was changed after seal {seq}"));
            }
        }
        if hash_of(&previous.hash, seal) != seal.hash {
            wrong(format!(
                "the hash of seal {seq} does not follow from the one before"
            ));
        }
        previous = seal.clone();
    }
    let end = (
        previous.seq,
        previous.hash,
        previous.published,
        previous.first_event + previous.count,
    );
    if end != (owner.seq, owner.head, owner.published, owner.next_event) {
        wrong(format!(
            "the last seal is {}, the owner row is elsewhere: {owner:?}",
            previous.seq
        ));
    }
    if expected != owner.next_event {
        wrong(format!(
            "the next event is {expected}, the owner row says {}",
            owner.next_event
        ));
    }
}

/// The hash of a seal, from the documented order of its parts: all integers are big-endian.
pub(super) fn hash_of(previous: &[u8; 32], seal: &Seal) -> [u8; 32] {
    let mut bytes = previous.to_vec();
    for number in [
        seal.seq,
        seal.first_event,
        seal.count,
        seal.published,
        seal.wall_ms,
    ] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(&seal.leaves);
    Sha256::digest(&bytes).into()
}

/// The fingerprint of a half message, from what its row says.
pub(super) fn fingerprint_of(row: &Row) -> u64 {
    let length = u32::try_from(row.body_len).unwrap_or(u32::MAX);
    let mut bytes = row.position.to_be_bytes().to_vec();
    bytes.extend_from_slice(&row.queue_offset.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    for identity in [row.sender, row.marker] {
        bytes.push(u8::from(identity.is_some()));
        bytes.extend_from_slice(&identity.unwrap_or(0).to_be_bytes());
    }
    bytes.extend_from_slice(row.group.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(row.topic.as_bytes());
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(hash) {
        *to = from;
    }
    u64::from_be_bytes(first) >> 1
}

/// The short hash of an event.
pub(super) fn leaf_of(event: &Event) -> [u8; 8] {
    let mut bytes = event.number.to_be_bytes().to_vec();
    bytes.extend_from_slice(&event.id.to_be_bytes());
    let to = event.to | event.fingerprint.map_or(0, |_| 0x80);
    bytes.extend_from_slice(&[event.from.unwrap_or(255), to, event.actor]);
    bytes.extend_from_slice(&event.at.to_be_bytes());
    bytes.extend_from_slice(&event.then_at.unwrap_or(u64::MAX).to_be_bytes());
    if let Some(fingerprint) = event.fingerprint {
        bytes.extend_from_slice(&fingerprint.to_be_bytes());
    }
    bytes.extend_from_slice(&(event.source.len() as u64).to_be_bytes());
    bytes.extend_from_slice(event.source.as_bytes());
    bytes.extend_from_slice(event.evidence.as_bytes());
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let mut leaf = [0; 8];
    for (to, from) in leaf.iter_mut().zip(hash) {
        *to = from;
    }
    leaf
}
