//! Carrying forward: half messages that are still needed and stand where the log wants to delete are written again at its end.
//!
//! Append, fsync, row, and only then the log may delete. Whatever is interrupted in between is done again: a copy more does no
//! harm, the row names the newest. A half message keeps its first position as its identity.

use std::sync::Arc;
use std::time::Duration;

use mq_core::log::{AppendError, Flush, Full, Log, Position, ReadError, Submission};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::command::Command;
use super::feed::{Durable, Feed};
use super::half;
use super::status::Status;
use crate::steps;
use crate::store::{Row, StoreError, TxReader};

/// Half messages carried at a time.
const PAGE: u32 = 128;
/// How long to wait before what could not be done is tried again, or the rest of what was done in part.
const PAUSE: Duration = Duration::from_secs(1);

/// What a carrier works with.
#[derive(Debug)]
pub(super) struct Parts {
    /// The log.
    pub(super) log: Arc<dyn Log>,
    /// Reads which half messages are needed.
    pub(super) reader: Arc<dyn TxReader>,
    /// Hears of copies that are durable.
    pub(super) feed: Arc<Feed>,
    /// One permit for each record whose effect may be missing in SQL.
    pub(super) slots: Arc<Semaphore>,
    /// Has rows written.
    pub(super) commands: mpsc::WeakSender<Command>,
    /// Told when the log is gone.
    pub(super) status: Status,
}

/// The task that carries.
#[derive(Debug)]
pub(super) struct Carrier {
    parts: Parts,
}

/// Why not everything could be carried.
#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("the coordinator is stopping")]
    Stopping,
    #[error("rows do not say yet where their half messages stand")]
    Unwritten,
}

impl Carrier {
    /// A carrier that has carried nothing yet.
    #[must_use]
    pub(super) const fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Carries whatever the log wants to delete, until `stop` becomes true or its sender is gone.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut wanted = self.parts.log.wanted();
        let mut kept = Position(0);
        loop {
            let target = *wanted.borrow_and_update();
            if target > kept {
                // What is interrupted is done again by the next start.
                let carried = tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    carried = self.carry(target) => carried,
                };
                match carried {
                    Ok(to) => kept = kept.max(to),
                    Err(CarryError::Stopping) => return,
                    Err(error) => {
                        tracing::warn!(%error, "half messages cannot be carried forward; nothing is deleted, trying again");
                    }
                }
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                changed = wanted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PAUSE), if kept < target => {}
            }
        }
    }

    /// Carries what is needed and stands before `target`, and lets the log delete as far as that came.
    async fn carry(&self, target: Position) -> Result<Position, CarryError> {
        let (log, reader) = (&self.parts.log, &self.parts.reader);
        // Before the rows: of what stands before it each has one by then.
        let reflected = reader
            .owner()
            .await?
            .map_or(Position(0), |owner| owner.watermark);
        let (mut after, mut carried) = (None, 0);
        loop {
            let rows = reader.needed(target, after, PAGE).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.half.position);
            self.append(&rows).await?;
            carried += rows.len();
        }
        if carried > 0 {
            self.write().await?;
            if !reader.needed(target, None, 1).await?.is_empty() {
                return Err(CarryError::Unwritten);
            }
            steps::reach("carry.written");
            tracing::info!(carried, %target, "half messages were carried forward");
        }
        let to = target.min(reflected);
        log.keep_from(half::OWNER, to);
        Ok(to)
    }

    /// Writes the half messages of `rows` again. Returns once all are durable and the feed has heard of them.
    async fn append(&self, rows: &[Row]) -> Result<(), CarryError> {
        let mut waiting = Vec::with_capacity(rows.len());
        for row in rows {
            let stored = half::kept(&*self.parts.log, row)?;
            let slot = self.parts.slots.clone().acquire_owned().await;
            let slot = slot.map_err(|_| CarryError::Stopping)?;
            let (told, placed) = oneshot::channel();
            let mut submission = Submission {
                entries: vec![half::moved(&row.half, &stored.bytes)],
                flush: Flush::Along,
                then: self.then(row, slot, told),
            };
            while let Err(Full(back)) = self.parts.log.append(submission) {
                submission = back;
                self.parts.log.ready().await;
            }
            waiting.push(placed);
        }
        for placed in waiting {
            placed.await.unwrap_or(Err(AppendError::Closed))?;
        }
        Ok(())
    }

    fn then(
        &self,
        row: &Row,
        slot: OwnedSemaphorePermit,
        told: oneshot::Sender<Result<(), AppendError>>,
    ) -> mq_core::log::Then {
        let (feed, status, half) = (
            Arc::clone(&self.parts.feed),
            self.parts.status.clone(),
            row.half.clone(),
        );
        Box::new(move |placed| {
            let placed =
                placed.and_then(|placed| placed.first().copied().ok_or(AppendError::Closed));
            match &placed {
                Ok(placed) => {
                    steps::reach("carry.durable");
                    // The slot is free again when the row says so.
                    slot.forget();
                    let to = placed.position;
                    feed.push([Durable::Moved { half, to }]);
                }
                Err(AppendError::Full(_) | AppendError::Refused(_)) => {}
                Err(error) => status.fail(&error.to_string()),
            }
            // Whoever waited may be gone: the next start finds the copy.
            let _ = told.send(placed.map(|_| ()));
        })
    }

    /// Returns once the rows say what the feed has heard so far.
    async fn write(&self) -> Result<(), CarryError> {
        let commands = self.parts.commands.upgrade().ok_or(CarryError::Stopping)?;
        let (reply, done) = oneshot::channel();
        let sent = commands.send(Command::WriteHeld(reply)).await;
        drop(commands);
        sent.map_err(|_| CarryError::Stopping)?;
        done.await.map_err(|_| CarryError::Stopping)
    }
}
