//! Forgetting: transactions that were decided long ago, and their history, are removed; their seals stay.
//!
//! An event says first how far, so that the chain of seals vouches for it and nobody else can make room unnoticed. Only then
//! rows go, those whose half messages the log keeps no longer: a row that is missing below the watermark means *decided*, and
//! the log must not tell of it anew. Whatever is interrupted in between is done the next time.

use std::sync::Arc;
use std::time::Duration;

use mq_core::clock::ServerTime;
use mq_core::log::{Log, Position};
use tokio::sync::{mpsc, oneshot, watch};

use super::command::Command;
use crate::store::{Forgotten, Row, StoreError, TxReader};

/// Rows removed at a time: a batch of decisions waits for that long.
const CHUNK: u32 = 200;
/// Between two looks, unless transactions are kept for less than 64 times that.
const LOOK: Duration = Duration::from_secs(3600);
/// Shortest pause between two looks.
const LOOK_SHORTEST: Duration = Duration::from_secs(1);

/// What a forgetter works with.
#[derive(Debug)]
pub(super) struct Parts {
    /// Server time, and where the log begins.
    pub(super) log: Arc<dyn Log>,
    /// Reads what was decided.
    pub(super) reader: Arc<dyn TxReader>,
    /// Has history forgotten.
    pub(super) commands: mpsc::WeakSender<Command>,
    /// How long a decision is remembered.
    pub(super) keep: Duration,
}

/// The task that forgets.
#[derive(Debug)]
pub(super) struct Forgetter {
    parts: Parts,
}

/// One step of forgetting, for the SQL writer.
#[derive(Debug, Clone, Copy)]
pub struct Forget {
    /// How far.
    pub far: Forgotten,
    /// The log keeps half messages from here on.
    pub kept: Position,
    /// At most so many rows.
    pub limit: u32,
    /// Whether the history is to say so first.
    pub tell: bool,
}

impl Forgetter {
    /// A forgetter that has forgotten nothing yet.
    pub(super) const fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Forgets until `stop` becomes true or its sender is gone.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let pause = (self.parts.keep / 64).clamp(LOOK_SHORTEST, LOOK);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(pause) => {}
            }
            // What is interrupted goes on after the next start.
            let forgotten = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                forgotten = self.forget() => forgotten,
            };
            match forgotten {
                Ok(0) => {}
                Ok(count) => {
                    tracing::info!(count, "transactions and events were forgotten");
                }
                Err(error) => {
                    tracing::warn!(%error, "history could not be forgotten; trying again")
                }
            }
        }
    }

    /// Forgets what is old enough; returns how many rows and events that were.
    async fn forget(&self) -> Result<u64, StoreError> {
        let before = self.parts.reader.forgotten().await?;
        // What a crash can bring back is kept.
        let kept = self.parts.log.deleted();
        let now = self.parts.log.now();
        let far = match self.far(before, now, kept).await? {
            Some(far) => far,
            // Something may be left over from an interruption.
            None => before,
        };
        let mut forget = Forget {
            far,
            kept,
            limit: CHUNK,
            tell: far != before,
        };
        let mut all = 0;
        while let Some(count @ 1..) = self.say(forget).await {
            all += count;
            forget.tell = false;
        }
        Ok(all)
    }

    /// Has the writer do one step; `None` when it cannot now.
    async fn say(&self, forget: Forget) -> Option<u64> {
        let commands = self.parts.commands.upgrade()?;
        let (reply, done) = oneshot::channel();
        commands.send(Command::Forget(forget, reply)).await.ok()?;
        drop(commands);
        done.await.ok()
    }

    /// How far may be forgotten at `now`; `None` if that is no further than `before`.
    async fn far(
        &self,
        before: Forgotten,
        now: ServerTime,
        kept: Position,
    ) -> Result<Option<Forgotten>, StoreError> {
        let reader = &self.parts.reader;
        let published = reader.owner().await?.map_or(0, |owner| owner.published);
        let old = |row: &Row| {
            let decided = row.decided.map_or(now, |decided| decided.at);
            now.since(decided) > self.parts.keep && row.half.position < kept
        };
        // Decisions are numbered in the order of their times: the last old one is found by halves.
        let (mut low, mut high) = (before.decisions, published);
        let mut last = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let found = reader.decided_after(middle, 1).await?.pop();
            let found = found.and_then(|row| row.decided.map(|decided| (row, decided)));
            match found {
                Some((row, decided)) if decided.number <= high && old(&row) => {
                    low = decided.number;
                    last = Some((row, decided));
                }
                _ => high = middle,
            }
        }
        let Some((row, decided)) = last else {
            return Ok(None);
        };
        let events = reader.events(row.half.id).await?;
        let decision = events.iter().find(|event| event.to.is_decision());
        Ok(decision.map(|event| Forgotten {
            event: event.number + 1,
            decisions: decided.number,
        }))
    }
}
