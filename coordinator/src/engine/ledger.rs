//! What the next SQL batch says: a pure function of the feed, the resolutions that wait, and the rows they meet.
//!
//! The ledger holds back the rows of young half messages, numbers decisions and events, moves the watermark and seals the
//! batch. It changes nothing in itself until [`Ledger::committed`] is told that the batch is in SQL.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mq_core::clock::ServerTime;
use mq_core::log::Position;

use self::draft::Draft;
use super::feed::Durable;
use super::settings::CheckBackSettings;
use crate::store::{Batch, Forgotten, Half, Owner, Row, SKIPPED};
use crate::transaction::{Actor, Decision};

mod draft;

/// Something that is said about a transaction and may change its row.
#[derive(Debug, Clone)]
pub struct Request {
    /// The half message, as the log tells it.
    pub half: Half,
    /// What is said.
    pub what: What,
    /// Who says it.
    pub actor: Actor,
    /// Connection and client.
    pub source: Arc<str>,
    /// What proves it.
    pub evidence: String,
}

/// What a [`Request`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// COMMIT or ROLLBACK.
    Decide(Decision),
    /// The log has the record of a decision that SQL lacks.
    Rebuild {
        /// The decision.
        decision: Decision,
        /// Its number.
        number: u64,
    },
    /// A check-back was answered with UNKNOWN.
    Unknown {
        /// Wait after the first such answer; doubles with each.
        first_wait: Duration,
        /// Longest wait.
        longest_wait: Duration,
        /// How many such answers park the transaction.
        budget: u32,
    },
    /// An operator wants another check-back.
    AskAgain {
        /// When.
        check_at: ServerTime,
    },
    /// The final could not be published, or was after all.
    Unpublished {
        /// The decision's number.
        number: u64,
        /// Why not; `None` if it was after all.
        reason: Option<String>,
    },
    /// The half message was carried forward in the log.
    Move {
        /// Where it stands now.
        to: Position,
    },
}

impl What {
    /// UNKNOWN, as the settings want it treated.
    #[must_use]
    pub const fn unknown(settings: &CheckBackSettings) -> Self {
        Self::Unknown {
            first_wait: settings.first_wait,
            longest_wait: settings.longest_wait,
            budget: settings.budget,
        }
    }
}

/// What became of a request, once its batch is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It decided.
    DecidedNow(u64),
    /// The decision stood already.
    AlreadyTheSame,
    /// The opposite stood already.
    AlreadyOtherwise,
    /// The row was decided and pruned.
    Forgotten,
    /// It was noted, or was old news.
    Noted,
}

/// A batch to commit, and what follows from it.
#[derive(Debug)]
pub struct Plan {
    /// What to commit.
    pub batch: Batch,
    /// One answer for each request, in their order.
    pub answers: Vec<Answer>,
    /// New decisions in their order: index of the request, the decision, its number.
    pub decisions: Vec<(usize, Decision, u64)>,
    /// Half messages whose rows are no longer held back.
    written: Vec<Position>,
    /// Half messages whose decision came before the feed told of them.
    overtaking: Vec<Position>,
}

/// Whether the slot that a half message reserved is free again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// Its row is in SQL.
    Free,
    /// Not yet, or the news was not about a half message.
    Taken,
}

impl Plan {
    /// Whether the batch says nothing, apart from where the watermark stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.new.is_empty() && self.batch.changes.is_empty() && self.batch.events.is_empty()
    }
}

/// A half message whose row is held back.
#[derive(Debug, Clone)]
struct Held {
    half: Half,
    first_check: ServerTime,
}

/// The state between batches.
#[derive(Debug)]
pub struct Ledger {
    owner: Owner,
    held: BTreeMap<Position, Held>,
    overtaken: HashSet<Position>,
    seen_to: Position,
    published: u64,
    /// Numbers behind a gap that count as published, and where their records stand, if they have one.
    published_ahead: BTreeMap<u64, Option<Position>>,
    /// Where the records of decisions stand whose rows still say that they could not be published.
    denied: BTreeMap<u64, Position>,
    /// Where half messages stand that were carried forward and whose rows do not say so yet.
    moving: BTreeSet<Position>,
    recorded_contradictions: u32,
    /// The number of the next batch.
    next_seq: u64,
}

impl Ledger {
    /// A ledger that continues from `owner`.
    #[must_use]
    pub fn new(owner: Owner, recorded_contradictions: u32) -> Self {
        Self {
            owner,
            held: BTreeMap::new(),
            overtaken: HashSet::new(),
            seen_to: owner.watermark,
            published: owner.published,
            published_ahead: BTreeMap::new(),
            denied: BTreeMap::new(),
            moving: BTreeSet::new(),
            recorded_contradictions,
            next_seq: owner.seq + 1,
        }
    }

    /// Gives the next batch a number that marks it as one of a repair: behind `stamped`, the last one that the log has
    /// seen, and any that may have followed before the batches were lost.
    pub fn skip(&mut self, stamped: u64) {
        self.next_seq = self.owner.seq.max(stamped).saturating_add(SKIPPED);
    }

    /// The owner row as of the last committed batch.
    #[must_use]
    pub const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Takes in what became durable, in log order.
    pub fn take_in(&mut self, news: Durable) -> Slot {
        let position = match news {
            Durable::Half { half, first_check } => {
                self.seen_to = self.seen_to.max(half.position);
                if self.overtaken.remove(&half.position) {
                    return Slot::Free;
                }
                self.held.insert(half.position, Held { half, first_check });
                return Slot::Taken;
            }
            // The number counts once the reason is in SQL.
            Durable::Unpublished { .. } => return Slot::Taken,
            Durable::Decision { position, number } => {
                self.publish_at(number, Some(position));
                position
            }
            Durable::Republished {
                position, number, ..
            } => {
                self.publish_at(number, Some(position));
                self.denied.insert(number, position);
                position
            }
            Durable::Moved { to, .. } => {
                self.moving.insert(to);
                to
            }
            Durable::Known(position) => position,
        };
        self.seen_to = self.seen_to.max(position);
        Slot::Taken
    }

    /// Counts decision `number` as published although it has no record: its row says why not.
    pub fn publish(&mut self, number: u64) {
        self.publish_at(number, None);
    }

    /// Tells that the row of decision `number` no longer denies that it is published.
    pub fn admitted(&mut self, number: u64) {
        self.denied.remove(&number);
    }

    /// Tells that the half message at `to` need not be told of any more: its row does, or is gone.
    pub fn moved(&mut self, to: Position) -> bool {
        self.moving.remove(&to)
    }

    fn publish_at(&mut self, number: u64, record: Option<Position>) {
        if number > self.published {
            self.published_ahead.insert(number, record);
        }
        while self.published_ahead.remove(&(self.published + 1)).is_some() {
            self.published += 1;
        }
    }

    /// Whether the row of the half message at `position` is held back.
    #[must_use]
    pub fn holds(&self, position: Position) -> bool {
        self.held.contains_key(&position)
    }

    /// How many rows are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Server time of the oldest half message that is held back.
    #[must_use]
    pub fn oldest_held(&self) -> Option<ServerTime> {
        self.held.values().next().map(|held| held.half.prepared_at)
    }

    /// Whether the owner row lags behind what is known: something to write when there is nothing else to do.
    #[must_use]
    pub fn lags(&self) -> bool {
        self.owner.published < self.published || self.owner.watermark < self.watermark_without(&[])
    }

    /// Plans a batch: all `requests`, and the rows that were held back for `hold` or longer.
    ///
    /// `rows` are the rows in SQL of all requests that the ledger does not hold. `check_at` says when a transaction whose
    /// row is written undecided is due; it is given the half message and the time it asked for.
    #[must_use]
    pub fn plan(
        &self,
        now: Now,
        requests: &[Request],
        rows: HashMap<Position, Row>,
        hold: Duration,
        check_at: impl Fn(&Half, ServerTime) -> ServerTime,
    ) -> Plan {
        let mut draft = Draft::new(self, now, rows);
        let mut answers = vec![Answer::Noted; requests.len()];
        // Decisions first: parking, or anything else, loses to a decision that came with it.
        for decisions in [true, false] {
            for (index, request) in requests.iter().enumerate() {
                let decides = matches!(request.what, What::Decide(_) | What::Rebuild { .. });
                if decides == decisions
                    && let Some(answer) = answers.get_mut(index)
                {
                    *answer = draft.apply(index, request);
                }
            }
        }
        let due = self
            .held
            .values()
            .filter(|held| held.half.prepared_at.after(hold) <= now.at);
        for position in due.map(|held| held.half.position).collect::<Vec<_>>() {
            draft.write_held(position);
        }
        draft.finish(answers, check_at)
    }

    /// Plans a batch that says how far history is forgotten, and nothing else.
    #[must_use]
    pub fn plan_forgetting(&self, now: Now, far: &Forgotten) -> Plan {
        let mut draft = Draft::new(self, now, HashMap::new());
        draft.forget(far);
        draft.finish(Vec::new(), |_, asked| asked)
    }

    /// Whether the record of decision `number` is durable, or its row says why not.
    #[must_use]
    pub fn is_published(&self, number: u64) -> bool {
        number <= self.published || self.published_ahead.contains_key(&number)
    }

    /// The half messages whose rows are held back, in log order.
    pub fn held_halves(&self) -> impl Iterator<Item = &Half> {
        self.held.values().map(|held| &held.half)
    }

    /// Gives up the row of the half message at `position`, which SQL will never take: as if it had been decided and forgotten.
    pub fn give_up(&mut self, position: Position) -> Option<Half> {
        self.held.remove(&position).map(|held| held.half)
    }

    /// Tells that `plan`'s batch is in SQL. Returns how many rows are no longer held back.
    pub fn committed(&mut self, plan: &Plan) -> usize {
        for position in &plan.written {
            self.held.remove(position);
        }
        self.overtaken
            .extend(plan.overtaking.iter().filter(|p| **p > self.seen_to));
        self.owner.seq = plan.batch.seal.seq;
        self.next_seq = self.owner.seq + 1;
        self.owner.batch = plan.batch.id;
        self.owner.watermark = plan.batch.watermark;
        self.owner.published = plan.batch.seal.published;
        self.owner.next_event += plan.batch.events.len() as u64;
        self.owner.head = plan.batch.seal.hash;
        if let Some((_, _, number)) = plan.decisions.last() {
            self.owner.last_decision = *number;
        }
        plan.written.len()
    }

    /// The first record that SQL will not reflect: a recovery that did not meet it would do it once more.
    fn watermark_without(&self, written: &[Position]) -> Position {
        // `written` is sorted, like the held ones: the first held one that is not written holds the watermark.
        let still_held = self
            .held
            .keys()
            .find(|position| written.binary_search(position).is_err());
        let behind_a_gap = self.published_ahead.values().flatten().min();
        let denied = self.denied.values().min();
        let moving = self.moving.first();
        let first = [still_held, behind_a_gap, denied, moving]
            .into_iter()
            .flatten()
            .min();
        first
            .copied()
            .unwrap_or(self.seen_to)
            .max(self.owner.watermark)
    }
}

/// Times and id of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Server time.
    pub at: ServerTime,
    /// Wall clock, ms since 1970.
    pub wall_ms: u64,
    /// Random id for the batch.
    pub batch: u128,
}

/// `first` after the first of `times`, twice that after the second, and so on up to `longest`.
#[must_use]
pub fn doubled(first: Duration, longest: Duration, times: u32) -> Duration {
    let factor = 1_u32
        .checked_shl(times.saturating_sub(1).min(31))
        .unwrap_or(u32::MAX);
    first
        .checked_mul(factor)
        .map_or(longest, |wait| wait.min(longest))
}

#[cfg(test)]
mod tests;
