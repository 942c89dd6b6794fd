//! What the history says may be missing, since it was decided long ago: read from its sealed events, not from a table.

use std::collections::HashSet;

use super::facts::{Answer, COORDINATOR, Event, HALF, World, step};

/// How far the history is forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Forgotten {
    /// Events before this one may be missing.
    pub(super) event: u64,
    /// Decisions up to this one may have no row.
    pub(super) decisions: u64,
}

/// How far the events say it is.
pub(super) fn told(world: &World) -> Forgotten {
    let tells = world.sql.events.iter().filter(|event| is_tell(event));
    let mut told = Forgotten::default();
    for event in tells {
        let mut numbers = event
            .evidence
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|digits| digits.parse().ok());
        let (Some(event), Some(decisions)) = (numbers.next(), numbers.next()) else {
            continue;
        };
        told.event = told.event.max(event);
        told.decisions = told.decisions.max(decisions);
    }
    told
}

/// Whether an event tells how far history is forgotten, of no transaction.
pub(super) fn is_tell(event: &Event) -> bool {
    (event.id, event.from, event.to) == (0, Some(step::FORGOTTEN), step::FORGOTTEN)
}

/// The transactions that callers, business rows and consumers know and that have neither row nor half message: all may be
/// forgotten, or none if there are more than numbers of decisions without a row.
pub(super) fn transactions(world: &World) -> HashSet<u128> {
    let told = told(world).decisions;
    let rows = &world.sql.rows;
    let numbers: HashSet<u64> = rows.iter().filter_map(|row| row.decision).collect();
    let missing = (1..=told)
        .filter(|number| !numbers.contains(number))
        .count();
    let marks = world.log.records.iter().filter_map(|record| record.mark);
    let halves = marks.filter(|mark| (mark.owner, mark.kind) == (COORDINATOR, HALF));
    let known: HashSet<u128> = rows
        .iter()
        .map(|row| row.id)
        .chain(halves.map(|mark| mark.key))
        .collect();
    let answers = world.answers.iter().filter_map(|answer| match *answer {
        Answer::Half(id) | Answer::Decided(id, _) => Some(id),
        Answer::Sent(_)
        | Answer::Seen(_)
        | Answer::Written(..)
        | Answer::HalfOfKey(_)
        | Answer::Says(..) => None,
    });
    let business = world
        .databases
        .iter()
        .flat_map(|database| database.business.iter().flatten().copied());
    let applied = world
        .effects
        .iter()
        .flat_map(|effects| effects.applied.keys().copied());
    let unknown: HashSet<u128> = answers
        .chain(business)
        .chain(applied)
        .filter(|id| !known.contains(id))
        .collect();
    if unknown.len() <= missing {
        unknown
    } else {
        HashSet::new()
    }
}
