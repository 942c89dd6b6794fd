//! The in-memory store: the whole contract without a database, and faults on demand for tests and simulations.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use mq_core::clock::ServerTime;
use mq_core::log::{LogId, Position};
use mq_core::names::{GroupName, TopicName};
use tokio::sync::{mpsc, watch};

use super::{
    Batch, Change, CommitError, Fate, Filter, Forgotten, OpenGroup, Owner, Pages, Row, StoreError,
    TxReader, TxStore, TxWriter, shape,
};
use crate::audit::seal::Seal;
use crate::audit::{Event, Step};
use crate::transaction::{Incarnation, State, TransactionId};

/// What the next commit does instead of succeeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The batch is stored, but the writer is told that the outcome is unknown.
    UnknownButDone,
    /// The batch is not stored, and the writer is told that the outcome is unknown.
    UnknownNotDone,
    /// Nothing is stored: [`CommitError::Unavailable`].
    Unavailable,
    /// Nothing is stored: [`CommitError::Refused`].
    Refused,
}

/// A store in memory. Clones share it; [`Model::copy`] does not.
#[derive(Debug, Clone, Default)]
pub struct Model {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    tables: Mutex<Tables>,
    faults: Mutex<VecDeque<Fault>>,
    stalled: watch::Sender<bool>,
}

#[derive(Debug, Clone, Default)]
struct Tables {
    owner: Option<Owner>,
    rows: BTreeMap<Position, Row>,
    ids: HashMap<TransactionId, Position>,
    decisions: BTreeMap<u64, Position>,
    /// The prepared rows, by group and next check.
    due: BTreeMap<GroupName, BTreeSet<(ServerTime, Position)>>,
    /// The prepared and parked rows.
    open: BTreeSet<Position>,
    events: Vec<Event>,
    seals: Vec<Seal>,
    forgotten: Forgotten,
}

impl Model {
    /// An empty store that belongs to no log yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next commit fail; several faults are used up one by one.
    pub fn fail_next(&self, fault: Fault) {
        lock(&self.shared.faults).push_back(fault);
    }

    /// Makes commits wait (`true`) until called again with `false`, like a database that does not answer.
    pub fn stall(&self, stalled: bool) {
        self.shared.stalled.send_replace(stalled);
    }

    /// Whether a commit to come will fail.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        !lock(&self.shared.faults).is_empty()
    }

    /// No commit to come fails any more.
    pub fn heal(&self) {
        lock(&self.shared.faults).clear();
    }

    /// A store of its own with what is stored now: a backup.
    #[must_use]
    pub fn copy(&self) -> Self {
        let tables = Mutex::new(self.tables().clone());
        Self {
            shared: Arc::new(Shared {
                tables,
                ..Shared::default()
            }),
        }
    }

    /// Puts everything back to what `earlier` has now, under the feet of whoever reads and writes: a backup that was restored,
    /// or a replica that misses the last commits.
    pub fn put_back(&self, earlier: &Self) {
        let tables = earlier.tables().clone();
        *self.tables() = tables;
    }

    /// Forgets a decided row, as retention does once nothing of it is kept elsewhere.
    pub fn prune(&self, position: Position) {
        let mut tables = self.tables();
        if let Some(row) = tables.rows.remove(&position) {
            tables.ids.remove(&row.half.id);
            if let Some(decided) = row.decided {
                tables.decisions.remove(&decided.number);
            }
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        lock(&self.shared.tables)
    }
}

/// Locks; a panic elsewhere leaves whole batches behind, so the contents are good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl TxStore for Model {
    async fn take_over(&self, log: LogId) -> Result<(Box<dyn TxWriter>, Owner), StoreError> {
        let mut tables = self.tables();
        let mut owner = tables
            .owner
            .unwrap_or_else(|| Owner::of(log))
            .for_log(log)?;
        owner = owner.taken_over();
        tables.owner = Some(owner);
        let writer = Writer {
            model: self.clone(),
            epoch: owner.epoch,
            seq: owner.seq,
            unsure: false,
        };
        Ok((Box::new(writer), owner))
    }

    fn reader(&self) -> Arc<dyn TxReader> {
        Arc::new(self.clone())
    }
}

#[derive(Debug)]
struct Writer {
    model: Model,
    epoch: u64,
    seq: u64,
    /// A commit had an unknown outcome and nobody has found out yet.
    unsure: bool,
}

impl Writer {
    /// Applies `batch` if this writer owns the store.
    fn apply(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let mut tables = self.model.tables();
        let owner = tables.owner.ok_or(CommitError::TakenOver)?;
        owner.not_older(self.epoch, self.seq)?;
        if (owner.epoch, owner.seq) != (self.epoch, self.seq) {
            return Err(CommitError::TakenOver);
        }
        let last_decision = shape::check(batch, &owner)?;
        let changed = tables.changed_by(batch)?;
        for row in changed.into_values() {
            tables.put(row);
        }
        tables.events.extend_from_slice(&batch.events);
        tables.seals.push(batch.seal.clone());
        tables.owner = Some(owner.after(batch, last_decision));
        Ok(())
    }
}

#[async_trait]
impl TxWriter for Writer {
    async fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        // The sender lives in the model this writer holds, so waiting cannot fail.
        let _ = self
            .model
            .shared
            .stalled
            .subscribe()
            .wait_for(|stalled| !stalled)
            .await;
        if self.unsure {
            return Err(CommitError::Unknown(
                "an earlier commit has an unknown outcome; find out first".into(),
            ));
        }
        let fault = lock(&self.model.shared.faults).pop_front();
        match fault {
            None => {
                self.apply(batch)?;
                self.seq = batch.seal.seq;
                Ok(())
            }
            Some(Fault::UnknownButDone) => {
                self.apply(batch)?;
                self.unsure = true;
                Err(CommitError::Unknown(
                    "the connection was lost after the commit".into(),
                ))
            }
            Some(Fault::UnknownNotDone) => {
                self.unsure = true;
                Err(CommitError::Unknown(
                    "the connection was lost before the commit".into(),
                ))
            }
            Some(Fault::Unavailable) => Err(CommitError::Unavailable("the disk is full".into())),
            Some(Fault::Refused) => Err(CommitError::Refused("a constraint failed".into())),
        }
    }

    async fn find_out(&mut self, batch: u128) -> Result<Fate, CommitError> {
        let owner = self.model.tables().owner.ok_or(CommitError::TakenOver)?;
        let fate = owner.fate_of(batch, self.epoch, self.seq)?;
        self.seq = owner.seq;
        self.unsure = false;
        Ok(fate)
    }

    async fn forget(
        &mut self,
        far: Forgotten,
        kept: Position,
        limit: u32,
    ) -> Result<u64, CommitError> {
        let mut tables = self.model.tables();
        let owner = tables.owner.ok_or(CommitError::TakenOver)?;
        if (owner.epoch, owner.seq) != (self.epoch, self.seq) {
            return Err(CommitError::TakenOver);
        }
        Ok(tables.forget(far, kept, limit as usize))
    }

    async fn rows(&mut self, positions: &[Position]) -> Result<Vec<Row>, StoreError> {
        let tables = self.model.tables();
        let wanted: BTreeSet<_> = positions.iter().collect();
        Ok(wanted
            .into_iter()
            .filter_map(|position| tables.rows.get(position).cloned())
            .collect())
    }
}

impl Tables {
    /// The rows as they are after `batch`, or why it is refused. Nothing is changed yet.
    fn changed_by(&self, batch: &Batch) -> Result<BTreeMap<Position, Row>, CommitError> {
        let mut changed = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for row in &batch.new {
            let Row { half, check_at, .. } = row;
            if self.rows.contains_key(&half.position) {
                return Err(shape::refused(format!(
                    "position {} has a row already",
                    half.position
                )));
            }
            if self.ids.contains_key(&half.id) || !ids.insert(half.id) {
                return Err(shape::refused(format!(
                    "transaction {} has a row already",
                    half.id
                )));
            }
            let row = Row {
                check_at: check_at.map(shape::check_time),
                ..row.clone()
            };
            changed.insert(half.position, row);
        }
        for (position, change) in &batch.changes {
            let before = changed
                .remove(position)
                .or_else(|| self.rows.get(position).cloned());
            let mut row =
                before.ok_or_else(|| shape::refused(format!("position {position} has no row")))?;
            change_row(&mut row, change)?;
            changed.insert(*position, row);
        }
        let mut numbers = BTreeSet::new();
        let new = changed
            .values()
            .filter_map(|row| row.decided)
            .filter(|d| !self.decisions.contains_key(&d.number));
        for decided in new {
            numbers.insert(decided.number);
        }
        let count = changed
            .iter()
            .filter(|(at, row)| row.decided.is_some() && !self.is_decided(**at))
            .count();
        if numbers.len() != count {
            return Err(shape::refused("a decision number is given twice"));
        }
        Ok(changed)
    }

    fn is_decided(&self, position: Position) -> bool {
        self.rows
            .get(&position)
            .is_some_and(|row| row.state.is_decided())
    }

    /// Stores a row in place of what was there, with everything that finds it.
    fn put(&mut self, row: Row) {
        let position = row.half.position;
        if let Some(check_at) = self.rows.get(&position).and_then(|before| before.check_at)
            && let Some(due) = self.due.get_mut(&row.half.group)
        {
            due.remove(&(check_at, position));
            if due.is_empty() {
                self.due.remove(&row.half.group);
            }
        }
        if let Some(check_at) = row.check_at {
            self.due
                .entry(row.half.group.clone())
                .or_default()
                .insert((check_at, position));
        }
        if row.state.is_decided() {
            self.open.remove(&position);
        } else {
            self.open.insert(position);
        }
        if let Some(decided) = row.decided {
            self.decisions.insert(decided.number, position);
        }
        self.ids.insert(row.half.id, position);
        self.rows.insert(position, row);
    }

    fn forget(&mut self, far: Forgotten, kept: Position, limit: usize) -> u64 {
        self.forgotten = Forgotten {
            event: self.forgotten.event.max(far.event),
            decisions: self.forgotten.decisions.max(far.decisions),
        };
        let far = self.forgotten;
        let goes_on: HashSet<TransactionId> = self
            .events
            .iter()
            .filter(|event| event.number >= far.event)
            .map(|event| event.transaction)
            .collect();
        let can_go = |row: &Row| {
            row.half.position < kept && row.unpublished.is_none() && !goes_on.contains(&row.half.id)
        };
        let decided = self.decisions.range(..=far.decisions);
        let rows: Vec<(u64, Position, TransactionId)> = decided
            .filter_map(|(number, at)| Some((*number, *at, self.rows.get(at)?)))
            .filter(|(_, _, row)| can_go(row))
            .map(|(number, at, row)| (number, at, row.half.id))
            .take(limit)
            .collect();
        for (number, at, id) in &rows {
            self.rows.remove(at);
            self.ids.remove(id);
            self.decisions.remove(number);
        }
        let gone: HashSet<TransactionId> = rows.iter().map(|(_, _, id)| *id).collect();
        let before = self.events.len();
        self.events.retain(|event| {
            let told = event.to == Step::Forgotten && event.number < far.event;
            !told && !gone.contains(&event.transaction)
        });
        (rows.len() + before - self.events.len()) as u64
    }

    fn open_rows(&self) -> impl Iterator<Item = &Row> {
        self.open
            .iter()
            .filter_map(|position| self.rows.get(position))
    }
}

/// Applies `change`, if the row's state takes it.
fn change_row(row: &mut Row, change: &Change) -> Result<(), CommitError> {
    let takes = match change {
        Change::Decide { state, .. } => !row.state.is_decided() && state.is_decided(),
        Change::Check { .. } | Change::Park { .. } => row.state == State::Prepared,
        Change::Count { .. } => true,
        Change::Unpublished(None) => row.unpublished.is_some(),
        Change::Unpublished(Some(_)) => row.state == State::Committed,
        Change::Move(to) => row.moved_to.is_none_or(|at| at <= *to),
    };
    if !takes {
        let (id, state) = (row.half.id, row.state.word());
        return Err(shape::refused(format!(
            "transaction {id} is {state} and does not take {change:?}"
        )));
    }
    match change {
        Change::Decide { state, decided } => {
            row.state = *state;
            row.decided = Some(*decided);
            row.check_at = None;
        }
        Change::Check { checks, check_at } => {
            row.checks = *checks;
            row.check_at = Some(shape::check_time(*check_at));
        }
        Change::Park { checks } => {
            row.checks = *checks;
            row.state = State::Parked;
            row.check_at = None;
        }
        Change::Count {
            repeats,
            contradictions,
        } => {
            row.repeats = row.repeats.saturating_add(*repeats);
            row.contradictions = row.contradictions.saturating_add(*contradictions);
        }
        Change::Unpublished(reason) => row.unpublished.clone_from(reason),
        Change::Move(to) => row.moved_to = Some(*to),
    }
    Ok(())
}

#[async_trait]
impl TxReader for Model {
    async fn owner(&self) -> Result<Option<Owner>, StoreError> {
        Ok(self.tables().owner)
    }

    async fn transaction(&self, id: TransactionId) -> Result<Option<Row>, StoreError> {
        let tables = self.tables();
        Ok(tables
            .ids
            .get(&id)
            .and_then(|position| tables.rows.get(position))
            .cloned())
    }

    async fn committed(&self, ids: &[TransactionId]) -> Result<Vec<TransactionId>, StoreError> {
        let tables = self.tables();
        let committed = |id: &&TransactionId| {
            let row = tables
                .ids
                .get(*id)
                .and_then(|position| tables.rows.get(position));
            row.is_some_and(|row| row.state == State::Committed)
        };
        Ok(ids.iter().filter(committed).copied().collect())
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Row>, StoreError> {
        let shown = |row: &&Row| {
            filter.state.is_none_or(|state| row.state == state)
                && filter
                    .group
                    .as_ref()
                    .is_none_or(|group| row.half.group == *group)
                && filter
                    .topic
                    .as_ref()
                    .is_none_or(|topic| row.half.topic == *topic)
                && (!filter.unpublished || row.unpublished.is_some())
        };
        let tables = self.tables();
        let rows = tables.rows.range(behind(filter.after)).map(|(_, row)| row);
        Ok(rows
            .filter(shown)
            .take(filter.limit as usize)
            .cloned()
            .collect())
    }

    async fn due(
        &self,
        group: &GroupName,
        now: ServerTime,
        after: Option<(ServerTime, Position)>,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let tables = self.tables();
        let Some(due) = tables.due.get(group) else {
            return Ok(Vec::new());
        };
        let due = due
            .range(behind(after))
            .take_while(|(at, _)| *at <= now)
            .take(limit as usize);
        Ok(due
            .filter_map(|(_, position)| tables.rows.get(position))
            .cloned()
            .collect())
    }

    async fn open_topics(&self) -> Result<Vec<(TopicName, u64)>, StoreError> {
        let tables = self.tables();
        let mut topics = BTreeMap::<TopicName, u64>::new();
        for row in tables.rows.values() {
            let open = !row.state.is_decided() || row.unpublished.is_some();
            if open {
                *topics.entry(row.half.topic.clone()).or_default() += 1;
            }
        }
        Ok(topics.into_iter().collect())
    }

    async fn open_groups(&self) -> Result<Vec<OpenGroup>, StoreError> {
        let tables = self.tables();
        let mut groups = BTreeMap::<GroupName, OpenGroup>::new();
        for row in tables.open_rows() {
            let Row { half, state, .. } = row;
            let (group, oldest) = (half.group.clone(), half.prepared_at);
            let open = OpenGroup {
                group: group.clone(),
                prepared: 0,
                parked: 0,
                oldest,
            };
            let open = groups.entry(group).or_insert(open);
            open.oldest = open.oldest.min(oldest);
            if *state == State::Parked {
                open.parked += 1;
            } else {
                open.prepared += 1;
            }
        }
        Ok(groups.into_values().collect())
    }

    async fn open_of(
        &self,
        senders: &[Incarnation],
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let tables = self.tables();
        let open = tables
            .open
            .range(behind(after))
            .filter_map(|position| tables.rows.get(position));
        let theirs = |row: &&Row| {
            row.state == State::Prepared
                && row
                    .half
                    .sender
                    .is_some_and(|sender| senders.contains(&sender))
        };
        Ok(open.filter(theirs).take(limit as usize).cloned().collect())
    }

    async fn needed(
        &self,
        before: Position,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let tables = self.tables();
        let published = tables.owner.map_or(0, |owner| owner.published);
        let rows = tables.rows.range(behind(after)).map(|(_, row)| row);
        let needed = |row: &&Row| {
            let waits = match row.decided {
                None => true,
                Some(decided) => decided.number > published || row.unpublished.is_some(),
            };
            waits && row.stored_at() < before
        };
        Ok(rows.filter(needed).take(limit as usize).cloned().collect())
    }

    async fn decided_after(&self, after: u64, limit: u32) -> Result<Vec<Row>, StoreError> {
        let tables = self.tables();
        let positions = tables
            .decisions
            .range(behind(Some(after)))
            .map(|(_, position)| position);
        Ok(positions
            .take(limit as usize)
            .filter_map(|position| tables.rows.get(position))
            .cloned()
            .collect())
    }

    async fn forgotten(&self) -> Result<Forgotten, StoreError> {
        Ok(self.tables().forgotten)
    }

    async fn events(&self, id: TransactionId) -> Result<Vec<Event>, StoreError> {
        Ok(self
            .tables()
            .events
            .iter()
            .filter(|event| event.transaction == id)
            .cloned()
            .collect())
    }

    async fn history(&self, from: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let tables = self.tables();
        Ok(tables
            .events
            .iter()
            .skip_while(|event| event.number < from)
            .take(limit as usize)
            .cloned()
            .collect())
    }

    async fn seals(&self, from: u64, limit: u32) -> Result<Vec<Seal>, StoreError> {
        let tables = self.tables();
        Ok(tables
            .seals
            .iter()
            .skip_while(|seal| seal.seq < from)
            .take(limit as usize)
            .cloned()
            .collect())
    }

    fn every_event(&self, from: u64, behind: u64) -> Pages<Event> {
        let tables = self.tables();
        let wanted = |event: &&Event| (from..behind).contains(&event.number);
        pages(tables.events.iter().filter(wanted).cloned().collect())
    }

    fn every_row(&self) -> Pages<Row> {
        pages(self.tables().rows.values().cloned().collect())
    }
}

/// All of it on one page.
fn pages<T>(all: Vec<T>) -> Pages<T> {
    let (send, receive) = mpsc::channel(1);
    // There is room for one, and somebody who listens.
    let _ = send.try_send(Ok(all));
    receive
}

/// Everything behind `after`, or everything.
fn behind<T>(after: Option<T>) -> (std::ops::Bound<T>, std::ops::Bound<T>) {
    use std::ops::Bound;
    (
        after.map_or(Bound::Unbounded, Bound::Excluded),
        Bound::Unbounded,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{self, Subject};

    #[tokio::test]
    async fn the_model_keeps_every_promise() {
        conformance::all(async || {
            let model = Model::new();
            let store = Arc::new(model.clone());
            Subject {
                store,
                fail_next: Box::new(move |fault| model.fail_next(fault)),
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_writer_stops_when_the_store_is_put_back() {
        let (model, log) = (Model::new(), LogId(1));
        let (_, owner) = model.take_over(log).await.unwrap();
        let backup = model.copy();
        let (mut writer, _) = model.take_over(log).await.unwrap();
        model.put_back(&backup);
        assert_eq!(model.reader().owner().await, Ok(Some(owner)));
        let found = writer.find_out(1).await;
        assert!(matches!(found, Err(CommitError::Older(_))), "{found:?}");
    }
}
