//! Whether the history and its seals are what was written: every event against its leaf, every seal against the one before. Pure.

use super::seal::{self, Hash, LEAF_BYTES, Seal};
use super::{Event, Numbering};
use crate::store::{Forgotten, Owner, SKIPPED};
use crate::transaction::TransactionId;

/// Most seals, or events, that are named as missing at one place.
const MOST_MISSING: usize = 1_000;

/// Something in history, seals or owner row that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Break {
    /// The event is gone.
    #[error("event {0} is missing")]
    EventMissing(u64),
    /// The event was edited, or another stands in its place.
    #[error("event {event} of transaction {transaction} was changed")]
    EventChanged {
        /// Its number.
        event: u64,
        /// The transaction it names now.
        transaction: TransactionId,
    },
    /// No seal covers the event: it was added behind the writer's back.
    #[error("event {event} of transaction {transaction} was never sealed")]
    EventUnsealed {
        /// Its number.
        event: u64,
        /// The transaction it names.
        transaction: TransactionId,
    },
    /// The seal is gone.
    #[error("seal {0} is missing")]
    SealMissing(u64),
    /// The seal was edited.
    #[error("seal {0} was changed")]
    SealChanged(u64),
    /// Behind the last batch there is a seal.
    #[error("seal {0} belongs to no batch")]
    SealUnknown(u64),
    /// The owner row is gone, and what it owns is there.
    #[error("the owner row is missing")]
    OwnerMissing,
    /// The seal is not the one whose hash was kept elsewhere: it and what stands before it were written anew.
    #[error("seal {seal} was written anew: its hash is {found}, the one that was kept is {kept}")]
    Anchor {
        /// Its number.
        seal: u64,
        /// The hash that stands there now.
        found: Hash,
        /// The hash that was kept elsewhere.
        kept: Hash,
    },
    /// More counts as forgotten than the history says.
    #[error(
        "the table forgotten was changed: it says events before {found}, the history says events before {told}"
    )]
    Forgotten {
        /// What the table says.
        found: u64,
        /// What the history says.
        told: u64,
    },
    /// A column of the owner row that no seal repeats is not as it was written.
    #[error(
        "the owner row was changed: its fingerprint is not that of its epoch, link, seq, batch and watermark"
    )]
    OwnerChanged,
    /// The owner row does not say what the last seal says.
    #[error("the owner row was changed: its {field} is {found}, the last seal says {sealed}")]
    Owner {
        /// The column.
        field: &'static str,
        /// What the owner row says.
        found: String,
        /// What follows from the seals.
        sealed: String,
    },
}

/// The chain as far as it was looked at: seals from the first on, each with its events.
#[derive(Debug, Default)]
pub struct Chain {
    /// The hash the next seal stands on; `None` when the seal before is missing.
    head: Option<Hash>,
    seq: u64,
    next_event: u64,
    published: u64,
    numbering: Numbering,
    /// How far the history says that it is forgotten.
    forgets: Forgotten,
}

impl Chain {
    /// A chain nothing was added to, whose events may be missing as far as they are `forgotten`.
    #[must_use]
    pub fn new(forgotten: Forgotten) -> Self {
        Self {
            numbering: Numbering::new(forgotten),
            head: Some(Hash::default()),
            next_event: 1,
            ..Self::default()
        }
    }

    /// The number of the last decision that the events so far tell of.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.numbering.last()
    }

    /// How far the history says that it is forgotten.
    #[must_use]
    pub const fn forgets(&self) -> Forgotten {
        self.forgets
    }

    /// The number the next event must have.
    #[must_use]
    pub const fn next_event(&self) -> u64 {
        self.next_event
    }

    /// Which events belong to the next seal: what it says itself is believed unless the chain shows that it was edited.
    #[must_use]
    pub fn claim(&self, seal: &Seal) -> Claim {
        let follows = seal.seq == self.seq + 1;
        let is_whole = !follows || self.stands_on_head(seal, &seal.leaves);
        let (leaves, count) = (seal.leaves.len() / LEAF_BYTES, u64::from(seal.count));
        // Of an edited one, whichever is not off by much.
        let believed = is_whole || count.abs_diff(leaves as u64) <= 1;
        Claim {
            is_whole,
            first: if is_whole {
                seal.first_event
            } else {
                self.next_event
            },
            count: if believed { count } else { leaves as u64 },
        }
    }

    /// Whether the hash of `seal` is what follows from the one before and from `leaves`, as far as that can be known.
    fn stands_on_head(&self, seal: &Seal, leaves: &[u8]) -> bool {
        self.head
            .is_none_or(|head| seal::hash(head, seal, leaves) == seal.hash)
    }

    /// Looks at the next seal, which makes this `claim`, with the events whose leaves it has, in order. Adds what is wrong to
    /// `breaks`.
    pub fn add(
        &mut self,
        (seal, claim): (&Seal, Claim),
        events: &[Event],
        breaks: &mut Vec<Break>,
    ) {
        if seal.seq != self.seq + 1 && !self.repairs(seal) {
            let missing = self.seq.saturating_add(1)..seal.seq;
            breaks.extend(missing.take(MOST_MISSING).map(Break::SealMissing));
            self.head = None;
        }
        let missing = self.next_event..claim.first;
        breaks.extend(missing.take(MOST_MISSING).map(Break::EventMissing));
        let leaves = self.leaves((seal, claim), events, breaks);
        // The hash vouches for the events as they are: somebody edited the leaves.
        let other_leaves = leaves.is_some_and(|leaves| {
            leaves != seal.leaves && self.head.is_some() && self.stands_on_head(seal, &leaves)
        });
        if other_leaves {
            breaks.retain(|b| !about(b, claim));
        }
        let goes_back = claim.first < self.next_event || seal.published < self.published;
        if !claim.is_whole || other_leaves || goes_back {
            breaks.push(Break::SealChanged(seal.seq));
        }
        for event in events {
            self.numbering.of(event);
            self.forgets = event.forgets().unwrap_or(self.forgets);
        }
        self.head = Some(seal.hash);
        self.seq = seal.seq;
        self.next_event = self.next_event.max(claim.behind());
        self.published = seal.published;
    }

    /// Whether a repair wrote this seal: it skips many numbers, and its hash says that nothing stood in between.
    fn repairs(&self, seal: &Seal) -> bool {
        let skips = seal.seq >= self.seq.saturating_add(SKIPPED);
        let follows = |head| seal::hash(head, seal, &seal.leaves) == seal.hash;
        skips && self.head.is_some_and(follows)
    }

    /// The leaves of the events that are there; `None` if one is missing. Adds those that do not fit to `breaks`.
    fn leaves(
        &self,
        (seal, claim): (&Seal, Claim),
        events: &[Event],
        breaks: &mut Vec<Break>,
    ) -> Option<Vec<u8>> {
        let mut leaves = Vec::with_capacity(seal.leaves.len());
        let mut events = events.iter().peekable();
        let mut whole = true;
        for (number, sealed) in (claim.first..=u64::MAX).zip(seal.leaves.chunks(LEAF_BYTES)) {
            let Some(event) = events.next_if(|event| event.number == number) else {
                if self.numbering.may_miss(number) {
                    leaves.extend_from_slice(sealed);
                    continue;
                }
                breaks.push(Break::EventMissing(number));
                whole = false;
                continue;
            };
            let leaf = seal::leaf(event);
            if leaf != *sealed {
                breaks.push(Break::EventChanged {
                    event: number,
                    transaction: event.transaction,
                });
            }
            leaves.extend_from_slice(&leaf);
        }
        whole.then_some(leaves)
    }

    /// Compares the end of the chain with the owner row. `unsealed` are events behind the last seal.
    #[must_use]
    pub fn finish(self, owner: &Owner, unsealed: &[Event]) -> Vec<Break> {
        let missing = self.seq.saturating_add(1)..=owner.seq;
        let missing = missing.take(MOST_MISSING).map(Break::SealMissing);
        let mut breaks: Vec<Break> = missing.collect();
        breaks.extend(unsealed.iter().map(|event| Break::EventUnsealed {
            event: event.number,
            transaction: event.transaction,
        }));
        if !breaks.is_empty() {
            return breaks;
        }
        let mut compare = |field, found: String, sealed: String| {
            if found != sealed {
                breaks.push(Break::Owner {
                    field,
                    found,
                    sealed,
                });
            }
        };
        let number = |number: u64| number.to_string();
        compare("seq", number(owner.seq), number(self.seq));
        let head = self.head.unwrap_or_default();
        compare("head", owner.head.to_string(), head.to_string());
        compare("published", number(owner.published), number(self.published));
        compare(
            "next_event",
            number(owner.next_event),
            number(self.next_event),
        );
        compare(
            "last_decision",
            number(owner.last_decision),
            number(self.numbering.last()),
        );
        if breaks.is_empty() && owner.signed() != *owner {
            breaks.push(Break::OwnerChanged);
        }
        breaks
    }
}

/// Which events belong to a seal, as far as that is to be believed.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Nothing in the seal is known to be edited.
    is_whole: bool,
    /// The number of the first.
    first: u64,
    /// How many.
    count: u64,
}

impl Claim {
    /// The number behind the last.
    #[must_use]
    pub const fn behind(self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// Whether `event` is one of those whose leaves `seal` has: the others that it may claim need not be looked at.
    #[must_use]
    pub fn covers(self, seal: &Seal, event: &Event) -> bool {
        let leaves = seal.leaves.len().div_ceil(LEAF_BYTES) as u64;
        let place = event.number.checked_sub(self.first);
        place.is_some_and(|place| place < leaves)
    }
}

fn about(found: &Break, claim: Claim) -> bool {
    let events = claim.first..claim.behind();
    matches!(found, Break::EventChanged { event, .. } if events.contains(event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Step;
    use crate::audit::seal::seal;
    use crate::transaction::Actor;
    use mq_core::clock::ServerTime;

    fn event(number: u64) -> Event {
        Event {
            number,
            transaction: TransactionId(u128::from(number)),
            from: None,
            to: Step::Committed,
            actor: Actor::Producer,
            at: ServerTime(number * 10),
            then_at: Some(ServerTime(number * 10 + 1)),
            source: "here".into(),
            fingerprint: None,
            evidence: String::new(),
        }
    }

    /// Three batches of two events.
    fn history() -> (Vec<Seal>, Vec<Event>, Owner) {
        let events: Vec<Event> = (1..=6).map(event).collect();
        let mut seals: Vec<Seal> = Vec::new();
        for (seq, pair) in (1..).zip(events.chunks(2)) {
            let head = seals.last().map_or(Hash::default(), |seal| seal.hash);
            seals.push(seal(head, seq, seq * 2, 1_000 + seq, pair[0].number, pair));
        }
        let owner = Owner {
            log: mq_core::log::LogId(1),
            epoch: 1,
            link: 0,
            seq: 3,
            batch: 0,
            watermark: mq_core::log::Position(0),
            published: 6,
            last_decision: 6,
            next_event: 7,
            head: seals[2].hash,
            fingerprint: 0,
        }
        .signed();
        (seals, events, owner)
    }

    fn breaks(seals: &[Seal], events: &[Event], owner: &Owner) -> Vec<String> {
        let (mut chain, mut breaks) = (Chain::new(Forgotten::default()), Vec::new());
        for seal in seals {
            let claim = chain.claim(seal);
            let range = claim.first..claim.behind();
            let covered: Vec<Event> = events
                .iter()
                .filter(|e| range.contains(&e.number))
                .cloned()
                .collect();
            chain.add((seal, claim), &covered, &mut breaks);
        }
        let next = chain.next_event();
        let unsealed: Vec<Event> = events
            .iter()
            .filter(|e| e.number >= next)
            .cloned()
            .collect();
        breaks.extend(chain.finish(owner, &unsealed));
        breaks.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_untouched_history_has_no_break() {
        let (seals, events, owner) = history();
        assert_eq!(breaks(&seals, &events, &owner), Vec::<String>::new());
    }

    #[test]
    fn whatever_was_touched_is_named() {
        let (seals, events, owner) = history();
        type Touch = fn(&mut Vec<Seal>, &mut Vec<Event>, &mut Owner);
        let touches: [(&str, Touch); 19] = [
            ("event 3 of", |_, e, _| e[2].to = Step::RolledBack),
            ("event 3 of", |_, e, _| e[2].evidence.push('x')),
            ("event 3 of", |_, e, _| e[2].source = "there".into()),
            ("event 4 is missing", |_, e, _| drop(e.remove(3))),
            ("event 6 is missing", |_, e, _| drop(e.remove(5))),
            ("event 7 of", |_, e, _| e.push(event(7))),
            ("event 2 of", |_, e, _| {
                e.swap(1, 4);
                (e[1].number, e[4].number) = (2, 5);
            }),
            ("seal 2 was changed", |s, _, _| s[1].published = 3),
            ("seal 2 was changed", |s, _, _| s[1].wall_ms += 1),
            ("seal 2 was changed", |s, _, _| s[1].leaves[3] ^= 1),
            ("seal 2 was changed", |s, _, _| s[1].hash.0[0] ^= 1),
            ("seal 2 was changed", |s, _, _| s[1].first_event = 1 << 62),
            ("seal 2 was changed", |s, _, _| s[1].first_event = 0),
            ("seal 2 was changed", |s, _, _| s[1].count = u32::MAX),
            ("seal 2 is missing", |s, _, _| drop(s.remove(1))),
            ("its published is 5", |_, _, o| o.published = 5),
            ("its head is", |_, _, o| o.head.0[31] ^= 1),
            ("its fingerprint is not", |_, _, o| o.epoch += 1),
            ("its fingerprint is not", |_, _, o| o.fingerprint ^= 1),
        ];
        for (named, touch) in touches {
            let (mut seals, mut events, mut owner) = (seals.clone(), events.clone(), owner);
            touch(&mut seals, &mut events, &mut owner);
            let found = breaks(&seals, &events, &owner);
            assert!(
                found.first().is_some_and(|b| b.contains(named)),
                "{named}: {found:?}"
            );
        }
    }

    #[test]
    fn a_seal_that_claims_what_cannot_be_is_alone_to_blame() {
        let (mut seals, events, owner) = history();
        (seals[1].first_event, seals[1].count) = (u64::MAX, u32::MAX);
        assert_eq!(breaks(&seals, &events, &owner), ["seal 2 was changed"]);
        seals.remove(0);
        let found = breaks(&seals, &events, &owner);
        assert!(found.len() < 2 * MOST_MISSING, "{}", found.len());
    }

    #[test]
    fn a_seal_that_was_made_anew_does_not_carry_the_one_behind_it() {
        let (mut seals, mut events, owner) = history();
        events[2].evidence.push('x');
        let (seq, at, first) = (seals[1].seq, seals[1].wall_ms, seals[1].first_event);
        seals[1] = seal(seals[0].hash, seq, seq * 2, at, first, &events[2..4]);
        let found = breaks(&seals, &events, &owner);
        assert!(
            found.first().is_some_and(|b| b.contains("seal 3")),
            "{found:?}"
        );
    }

    #[test]
    fn an_event_that_was_edited_leaves_its_seal_unblamed() {
        let (seals, mut events, owner) = history();
        events[2].evidence.push('x');
        assert_eq!(breaks(&seals, &events, &owner).len(), 1);
    }
}
