//! Batches for tests: rows and changes are said, numbers, events and the seal follow.

use std::collections::HashMap;
use std::sync::Arc;

use mq_core::clock::ServerTime;
use mq_core::log::{LogId, Position, QueueOffset};
use mq_core::names::{GroupName, TopicName};

use crate::audit::{Event, Step, fingerprint, seal};
use crate::store::{Batch, Change, CommitError, Decided, Half, Owner, Row, TxStore, TxWriter};
use crate::transaction::{Actor, Decision, Incarnation, MarkerIdentity, State, TransactionId};

/// The log that the stores of the suite belong to.
pub const LOG: LogId = LogId(0x10C);

/// Wall clock of a store's first batch, ms since 1970: 2023-11-14 22:13:20.
pub const WALL_MS: u64 = 1_700_000_000_000;

/// A store's writer, the owner row as it must be, and the batch being drafted.
#[derive(Debug)]
pub struct Draft {
    writer: Box<dyn TxWriter>,
    owner: Owner,
    batches: u128,
    /// What the next commit writes, but for numbers and seal.
    pub new: Vec<Row>,
    /// What the next commit changes.
    pub changes: Vec<(Position, Change)>,
    /// The history of the next commit; the numbers are set by it.
    pub events: Vec<Event>,
    /// The owner row's `published` after the next commit.
    pub published: u64,
    /// The watermark after the next commit.
    pub watermark: Position,
    /// The wall clock of the next commit, ms since 1970; each commit moves it on by a second.
    pub wall_ms: u64,
}

/// Where a message with this number stands in the suite.
#[must_use]
pub const fn position(number: u64) -> Position {
    Position(number * 1000)
}

/// The transaction with this number in the suite.
#[must_use]
pub fn id(number: u64) -> TransactionId {
    TransactionId::new(WALL_MS + number, u128::from(number) << 64 | 0xABCD)
}

/// Half message `number` of `group`, prepared at `number` ms, first check a second later.
#[must_use]
pub fn prepared(number: u64, group: &str) -> Row {
    let prepared_at = ServerTime(number * 1000);
    Row {
        half: Half {
            id: id(number),
            position: position(number),
            queue_offset: QueueOffset(number),
            group: GroupName::new(group).expect("tests use good names"),
            topic: TopicName::new("orders").expect("the name is good"),
            body_len: 1024,
            prepared_at,
            sender: Some(Incarnation(u128::from(number % 3 + 1) << 100)),
            marker: Some(MarkerIdentity(u128::MAX)),
        },
        state: State::Prepared,
        decided: None,
        check_at: Some(ServerTime(prepared_at.0 + 1_000_000)),
        checks: 0,
        repeats: 0,
        contradictions: 0,
        unpublished: None,
        moved_to: None,
    }
}

/// The same owner row whatever connection its writer has.
#[must_use]
pub fn apart_from_link(owner: Owner) -> Owner {
    Owner { link: 0, ..owner }.signed()
}

impl Draft {
    /// Takes `store` over for [`LOG`].
    pub async fn take_over(store: &dyn TxStore) -> Self {
        let (writer, owner) = store
            .take_over(LOG)
            .await
            .expect("the store can be taken over");
        Self::continued(writer, owner)
    }

    /// Goes on with a writer that has just taken over.
    #[must_use]
    pub fn continued(writer: Box<dyn TxWriter>, owner: Owner) -> Self {
        let Owner {
            published,
            watermark,
            epoch,
            ..
        } = owner;
        Self {
            writer,
            owner,
            batches: u128::from(epoch) << 64,
            new: Vec::new(),
            changes: Vec::new(),
            events: Vec::new(),
            published,
            watermark,
            wall_ms: WALL_MS + owner.seq * 1000,
        }
    }

    /// The owner row after the last commit, apart from its link.
    #[must_use]
    pub fn owner(&self) -> Owner {
        apart_from_link(self.owner)
    }

    /// The writer itself.
    pub fn writer(&mut self) -> &mut dyn TxWriter {
        &mut *self.writer
    }

    /// Adds half message `number` of `group`, with its event.
    pub fn prepare(&mut self, number: u64, group: &str) {
        let row = prepared(number, group);
        self.event(id(number), None, Step::Prepared, row.half.prepared_at);
        self.new.push(row);
    }

    /// Adds half message `number`, decided before it had a row: one row, one event with two times.
    pub fn prepare_decided(&mut self, number: u64, group: &str, decision: Decision) {
        let mut row = prepared(number, group);
        let at = ServerTime(row.half.prepared_at.0 + 500);
        row.state = decision.state();
        row.check_at = None;
        row.decided = Some(Decided {
            at,
            number: self.next_decision(),
        });
        self.event(id(number), None, step(decision), row.half.prepared_at);
        if let Some(event) = self.events.last_mut() {
            event.then_at = Some(at);
        }
        self.new.push(row);
    }

    /// Decides half message `number`, which has a row.
    pub fn decide(&mut self, number: u64, decision: Decision, at: ServerTime) {
        let decided = Decided {
            at,
            number: self.next_decision(),
        };
        let change = Change::Decide {
            state: decision.state(),
            decided,
        };
        self.event(id(number), Some(Step::Prepared), step(decision), at);
        self.changes.push((position(number), change));
    }

    /// Adds a line of history.
    pub fn event(
        &mut self,
        transaction: TransactionId,
        from: Option<Step>,
        to: Step,
        at: ServerTime,
    ) {
        self.events.push(Event {
            number: 0,
            transaction,
            from,
            to,
            actor: Actor::Producer,
            at,
            then_at: None,
            fingerprint: None,
            source: Arc::from("10.0.0.7:40312 order-service@1"),
            evidence: String::new(),
        });
    }

    /// The batch as drafted, for [`Draft::commit`] or for doing something else with it. The draft is empty afterwards.
    pub fn batch(&mut self) -> Batch {
        self.batches += 1;
        self.new.sort_by_key(|row| row.half.position);
        let mut events = std::mem::take(&mut self.events);
        let halves: HashMap<TransactionId, &Half> = self
            .new
            .iter()
            .map(|row| (row.half.id, &row.half))
            .collect();
        for event in events.iter_mut().filter(|event| event.from.is_none()) {
            event.fingerprint = halves
                .get(&event.transaction)
                .map(|half| fingerprint::of_half(half));
        }
        for (event, number) in events.iter_mut().zip(self.owner.next_event..) {
            event.number = number;
        }
        let Owner {
            head,
            seq,
            next_event,
            ..
        } = self.owner;
        let wall_ms = self.wall_ms;
        self.wall_ms += 1000;
        Batch {
            id: self.batches,
            watermark: self.watermark,
            new: std::mem::take(&mut self.new),
            changes: std::mem::take(&mut self.changes),
            seal: seal::seal(head, seq + 1, self.published, wall_ms, next_event, &events),
            events,
        }
    }

    /// Commits what was drafted.
    ///
    /// # Errors
    /// What the writer said; the draft is empty all the same.
    pub async fn commit(&mut self) -> Result<(), CommitError> {
        let batch = self.batch();
        self.writer.commit(&batch).await?;
        self.committed(&batch);
        Ok(())
    }

    /// Takes note that `batch` is in the store.
    pub fn committed(&mut self, batch: &Batch) {
        let new = batch.new.iter().filter_map(|row| row.decided);
        let last = new
            .chain(batch.changes.iter().filter_map(decided_by))
            .map(|decided| decided.number)
            .max();
        let last_decision = last.unwrap_or(self.owner.last_decision);
        self.owner = self.owner.after(batch, last_decision);
    }

    fn next_decision(&self) -> u64 {
        let new = self.new.iter().filter(|row| row.decided.is_some()).count();
        let changed = self
            .changes
            .iter()
            .filter(|change| decided_by(change).is_some())
            .count();
        self.owner.last_decision + (new + changed) as u64 + 1
    }
}

fn decided_by((_, change): &(Position, Change)) -> Option<Decided> {
    match change {
        Change::Decide { decided, .. } => Some(*decided),
        Change::Check { .. }
        | Change::Park { .. }
        | Change::Count { .. }
        | Change::Unpublished(_)
        | Change::Move(_) => None,
    }
}

const fn step(decision: Decision) -> Step {
    match decision {
        Decision::Commit => Step::Committed,
        Decision::RollBack => Step::RolledBack,
    }
}
