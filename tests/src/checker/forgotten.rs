//! What the history says may be missing, since it was decided long ago: read from its sealed events, not from a table.

use std::collections::{HashMap, HashSet};

use super::facts::{Answer, COMMITTED, COORDINATOR, Event, HALF, ROLLED_BACK, World, step};

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

/// What is known of a transaction that is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone {
    /// Whether it was committed.
    pub(super) committed: bool,
    /// Who decided, if an earlier look has seen it.
    pub(super) actor: Option<u8>,
}

impl Gone {
    /// The state it was left in.
    pub(super) fn state(self) -> u8 {
        if self.committed {
            COMMITTED
        } else {
            ROLLED_BACK
        }
    }
}

/// The transactions that have neither row nor half message and may be forgotten: each was found decided, by an earlier look or
/// in a final or echo that the log still has, under a number up to which decisions are forgotten.
///
/// Some were decided and forgotten between two looks, and their records deleted. Of those only callers tell, who were told of
/// the decision, and tombstones: where one stands under a half message that was acknowledged, a check-back has asked, and has
/// had it rolled back. They count if there are no more of them than numbers that nobody is known to have had.
pub(super) fn transactions(world: &World) -> HashMap<u128, Gone> {
    let told = told(world).decisions;
    let rows = &world.sql.rows;
    let marks = world.log.records.iter().filter_map(|record| record.mark);
    let halves = marks.filter(|mark| (mark.owner, mark.kind) == (COORDINATOR, HALF));
    let kept: HashSet<u128> = rows
        .iter()
        .map(|row| row.id)
        .chain(halves.map(|mark| mark.key))
        .collect();
    let decisions = world.decisions();
    let found = decisions
        .iter()
        .filter(|(id, decided)| !kept.contains(id) && decided.number <= told);
    let numbers: HashSet<u64> = found
        .clone()
        .map(|(_, decided)| decided.number)
        .chain(rows.iter().filter_map(|row| row.decision))
        .collect();
    let mut gone: HashMap<u128, Gone> = found
        .map(|(id, decided)| {
            let gone = Gone {
                committed: decided.committed,
                actor: decided.actor,
            };
            (*id, gone)
        })
        .collect();
    let is_unknown = |id: &u128| !kept.contains(id) && !decisions.contains_key(id);
    let answers = world.answers.iter().filter_map(|answer| match *answer {
        Answer::Decided(id, committed) => Some((id, committed)),
        Answer::Half(id) => has_tombstone(world, id).then_some((id, false)),
        Answer::Sent(_)
        | Answer::Seen(_)
        | Answer::Written(..)
        | Answer::HalfOfKey(_)
        | Answer::Says(..) => None,
    });
    let mut answered = HashMap::new();
    for (id, committed) in answers.filter(|(id, _)| is_unknown(id)) {
        let actor = None;
        answered.entry(id).or_insert(Gone { committed, actor });
    }
    let nobodys = (1..=told).filter(|number| !numbers.contains(number));
    if answered.len() <= nobodys.count() {
        gone.extend(answered);
    }
    gone
}

fn has_tombstone(world: &World, id: u128) -> bool {
    let mut markers = world.databases.iter().map(|database| &database.markers);
    markers.any(|markers| markers.get(&id) == Some(&false))
}
