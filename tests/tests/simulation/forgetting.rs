//! What is forgotten in SQL: at each step only what may be, and what is missing later was forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coordinator::audit::{Event, Step};
use coordinator::store::model::Model;
use coordinator::store::{Forgotten, Owner, Row, TxReader as _};
use coordinator::transaction::TransactionId;
use mq_core::log::Position;

use super::World;
use super::facts::{Book, Facts, Met, Stood};
use super::judge;

/// How far the server time in the facts may be behind that of the server.
const LATE: Duration = Duration::from_millis(50);

/// Rows and events of a store at a moment.
pub(super) struct Kept {
    owner: Owner,
    far: Forgotten,
    rows: BTreeMap<TransactionId, Row>,
    events: BTreeMap<u64, Event>,
}

impl Kept {
    /// What `store` has now.
    pub(super) async fn now(store: &Model) -> Result<Self> {
        let owner = store.owner().await?.context("the store has no owner")?;
        let events = store.history(0, u32::MAX).await?;
        Ok(Self {
            owner,
            far: store.forgotten().await?,
            rows: judge::rows(store).await?,
            events: events
                .into_iter()
                .map(|event| (event.number, event))
                .collect(),
        })
    }

    /// One step of forgetting made `after` of this: nothing is gone that is needed, and nothing of what is gone is left.
    pub(super) fn became(&self, after: &Self, facts: &Facts) -> Result<()> {
        let gone: Vec<&Row> = self
            .rows
            .values()
            .filter(|row| !after.rows.contains_key(&row.half.id))
            .collect();
        let mut book = facts.book();
        for row in &gone {
            may_go(row, after, &book)?;
        }
        let kept = self.rows.values().filter(|row| !gone.contains(row));
        for row in kept {
            let id = row.half.id;
            ensure!(
                after.rows.get(&id) == Some(row),
                "the row of {id} is changed while others are forgotten"
            );
        }
        let ids: BTreeSet<TransactionId> = gone.iter().map(|row| row.half.id).collect();
        for (number, event) in &self.events {
            let is_gone = !after.events.contains_key(number);
            let may_go = ids.contains(&event.transaction)
                || event.to == Step::Forgotten && *number < after.far.event;
            ensure!(
                is_gone == may_go,
                "event {number}, {:?} of {}, is {}",
                event.to,
                event.transaction,
                if is_gone { "forgotten" } else { "kept" }
            );
        }
        book.counts.add_many(Met::Forgotten, ids.len() as u64);
        Ok(())
    }
}

/// A row that is forgotten was decided long ago, published, and its half message is deleted from the log.
fn may_go(row: &Row, after: &Kept, book: &Book) -> Result<()> {
    let id = row.half.id;
    let decided = row
        .decided
        .with_context(|| format!("{id} is forgotten while it is {:?}", row.state))?;
    ensure!(
        decided.number <= after.owner.published && row.unpublished.is_none(),
        "{id} is forgotten and not published"
    );
    ensure!(
        decided.number <= after.far.decisions,
        "{id} is forgotten as decision {}; so far is forgotten: {:?}",
        decided.number,
        after.far
    );
    ensure!(
        row.half.position < book.begins,
        "{id} is forgotten; its half message stands at {} and the log begins at {}",
        row.half.position,
        book.begins
    );
    let keep = book.keep_history.context("everything is kept for ever")?;
    // Decisions are forgotten in their order, which is that of their times but for what a crash took from the clock.
    let age = book.server_time.since(decided.at) + LATE + book.went_back;
    ensure!(
        age > keep,
        "{id} is kept for {keep:?}, forgotten after {age:?}"
    );
    Ok(())
}

/// Why a row may be missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missing {
    far: Forgotten,
    published: u64,
    /// Where the log begins.
    begins: Position,
}

impl Missing {
    /// What may be missing beside a log that begins at `begins`.
    pub(super) async fn now(world: &World, begins: Position) -> Result<Self> {
        let owner = world.store.owner().await?;
        Ok(Self {
            far: world.store.forgotten().await?,
            published: owner.map_or(0, |owner| owner.published),
            begins,
        })
    }

    /// What was decided about a transaction that has no row; fails unless it may be missing.
    pub(super) fn stood(&self, book: &Book, id: TransactionId) -> Result<Stood> {
        let stood = book.decided.get(&id).copied();
        let stood = stood.with_context(|| format!("{id} has no row and was never decided"))?;
        let number = stood.number;
        ensure!(
            number <= self.far.decisions && number <= self.published,
            "{id} has no row, was {stood:?}, and no decision behind {} is forgotten, none published behind {}",
            self.far.decisions,
            self.published
        );
        ensure!(
            stood.half < self.begins,
            "{id} has no row, was {stood:?}, and the log begins at {}",
            self.begins
        );
        Ok(stood)
    }
}
