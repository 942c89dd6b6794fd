//! The store as the coordinator sees it: everything that becomes of a batch is looked at from outside.

use std::sync::Arc;

use async_trait::async_trait;
use coordinator::audit::Step;
use coordinator::store::model::Model;
use coordinator::store::{
    Batch, Change, CommitError, Fate, Forgotten, Owner, Row, SKIPPED, StoreError, TxReader,
    TxStore, TxWriter,
};
use mq_core::log::{LogId, Position};
use tokio::sync::watch;

use super::facts::{Facts, Met, Stood};
use super::forgetting::Kept;

/// A store whose batches are on record, and whose owners can be frozen.
#[derive(Debug, Clone)]
pub(super) struct Witness {
    store: Model,
    facts: Facts,
    frozen: Arc<watch::Sender<Frozen>>,
}

/// What happens to the commits of an owner that is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frozen {
    /// Nobody is.
    Nobody,
    /// Those of this one and older ones do not reach the store.
    Before(u64),
    /// They do, and their answers do not come back.
    After(u64),
}

impl Witness {
    pub(super) fn new(store: &Model, facts: &Facts) -> Self {
        Self {
            store: store.clone(),
            facts: facts.clone(),
            frozen: Arc::new(watch::Sender::new(Frozen::Nobody)),
        }
    }

    /// Freezes an owner, or nobody any more.
    pub(super) fn freeze(&self, what: Frozen) {
        self.frozen.send_replace(what);
    }
}

#[async_trait]
impl TxStore for Witness {
    async fn take_over(&self, log: LogId) -> Result<(Box<dyn TxWriter>, Owner), StoreError> {
        let (writer, owner) = self.store.take_over(log).await?;
        let mut book = self.facts.book();
        book.owners += 1;
        book.batch = owner.seq;
        let writer = Watched {
            witness: self.clone(),
            writer,
            number: book.owners,
            sent: 0,
            last: None,
        };
        Ok((Box::new(writer), owner))
    }

    fn reader(&self) -> Arc<dyn TxReader> {
        self.store.reader()
    }
}

#[derive(Debug)]
struct Watched {
    witness: Witness,
    writer: Box<dyn TxWriter>,
    /// The how many-th owner this is.
    number: u64,
    /// Number of the batch that was sent last.
    sent: u64,
    /// Id of the batch of which it is known that it came in.
    last: Option<u128>,
}

impl Watched {
    fn while_frozen(&self, is: fn(Frozen) -> Option<u64>) -> impl Future<Output = ()> + use<> {
        let (mut frozen, number) = (self.witness.frozen.subscribe(), self.number);
        async move {
            let free = |frozen: &Frozen| is(*frozen).is_none_or(|last| last < number);
            // The sender lives in the witness.
            let _ = frozen.wait_for(free).await;
        }
    }

    /// Looks whether `batch` has come in, and whether it may.
    async fn look(&mut self, batch: &Batch) {
        let owner = self.witness.store.owner().await;
        let came_in = owner.is_ok_and(|owner| owner.is_some_and(|owner| owner.batch == batch.id));
        if !came_in || self.last.replace(batch.id) == Some(batch.id) {
            return;
        }
        self.decisions(batch).await;
        let (seq, facts) = (batch.seal.seq, &self.witness.facts);
        let mut book = facts.book();
        let newest = book.owners;
        let before = std::mem::replace(&mut book.batch, seq);
        let follows = if book.repairing {
            seq >= before + SKIPPED
        } else {
            seq == before + 1
        };
        let unpublished = batch.events.iter().filter(|e| e.to == Step::Unpublished);
        book.late.extend(unpublished.map(|event| event.transaction));
        drop(book);
        if self.number != newest {
            facts.broken(format!(
                "owner {} has committed batch {seq} after owner {newest} took over",
                self.number
            ));
        }
        if !follows {
            facts.broken(format!("SQL batch {seq} follows batch {before}"));
        }
    }

    /// Takes note of the decisions in a batch that has come in.
    async fn decisions(&mut self, batch: &Batch) {
        let new = batch.new.iter().filter(|row| row.decided.is_some());
        let decides = |change: &Change| matches!(change, Change::Decide { .. });
        let changes = batch.changes.iter().filter(|(_, change)| decides(change));
        let positions: Vec<Position> = new
            .map(|row| row.half.position)
            .chain(changes.map(|(position, _)| *position))
            .collect();
        let rows = self.writer.rows(&positions).await.unwrap_or_default();
        let facts = &self.witness.facts;
        for row in rows {
            let (id, stood) = (row.half.id, Stood::of(&row));
            let mut book = facts.book();
            let before = stood.and_then(|stood| book.stood(id, stood));
            // What is lost with a database may be decided anew.
            let may_change = book.put_back;
            drop(book);
            if let Some(before) = before.filter(|_| !may_change) {
                facts.broken(format!("{id} was {before:?} and is {stood:?}"));
            }
        }
    }

    fn is_known(&self) {
        let mut book = self.witness.facts.book();
        if book.owners == self.number {
            book.known_batch = self.sent;
        }
    }

    fn failed(&self, error: &CommitError) {
        match error {
            CommitError::TakenOver => self.witness.facts.met(Met::RefusedOwner),
            CommitError::Older(_) => self.witness.facts.met(Met::FailOver),
            CommitError::Unknown(_) | CommitError::Refused(_) | CommitError::Unavailable(_) | _ => {
            }
        }
    }
}

#[async_trait]
impl TxWriter for Watched {
    async fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        self.while_frozen(|frozen| match frozen {
            Frozen::Before(number) => Some(number),
            Frozen::Nobody | Frozen::After(_) => None,
        })
        .await;
        self.sent = batch.seal.seq;
        let committed = self.writer.commit(batch).await;
        self.look(batch).await;
        self.while_frozen(|frozen| match frozen {
            Frozen::After(number) => Some(number),
            Frozen::Nobody | Frozen::Before(_) => None,
        })
        .await;
        match &committed {
            Ok(()) => self.is_known(),
            Err(error) => self.failed(error),
        }
        committed
    }

    async fn find_out(&mut self, batch: u128) -> Result<Fate, CommitError> {
        let found = self.writer.find_out(batch).await;
        match &found {
            Ok(Fate::Done) => self.is_known(),
            Ok(Fate::Redo) => {}
            Err(error) => self.failed(error),
        }
        found
    }

    async fn forget(
        &mut self,
        far: Forgotten,
        kept: Position,
        limit: u32,
    ) -> Result<u64, CommitError> {
        let before = Kept::now(&self.witness.store).await;
        let forgotten = self.writer.forget(far, kept, limit).await;
        let after = Kept::now(&self.witness.store).await;
        if let (Ok(before), Ok(after)) = (before, after)
            && let Err(why) = before.became(&after, &self.witness.facts)
        {
            self.witness.facts.broken(why.to_string());
        }
        forgotten
    }

    async fn rows(&mut self, positions: &[Position]) -> Result<Vec<Row>, StoreError> {
        self.writer.rows(positions).await
    }
}
