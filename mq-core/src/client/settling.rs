//! What consumers say about messages becomes commits and messages sent back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::progress::Progress;
use super::{ClientError, MessageQueue, Transport};
use crate::exchange::SendBack;
use crate::names::GroupName;
use crate::places::Position;

/// How long to wait after the broker did not take something.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What is said about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done with.
    Done,
    /// It shall come again at this delay level; 0 leaves the level to the broker, below 0 are the dead letters.
    Again(i32),
}

/// A queue that this consumer reads.
#[derive(Debug)]
pub(super) struct Assigned {
    pub(super) queue: MessageQueue,
    state: Mutex<State>,
    /// Set once the queue is another's: nothing is said about it any more.
    revoked: AtomicBool,
    /// One flush at a time, so that commits keep their order.
    flushing: tokio::sync::Mutex<()>,
    /// Wakes whoever settles for the whole consumer.
    wake: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    again: Vec<(u64, Position, i32)>,
    committed: u64,
}

impl Assigned {
    pub(super) fn new(queue: MessageQueue, start: u64, wake: Arc<Notify>) -> Self {
        let state = State {
            progress: Progress::new(start),
            again: Vec::new(),
            committed: start,
        };
        let (revoked, flushing) = (AtomicBool::new(false), tokio::sync::Mutex::default());
        Self {
            queue,
            state: Mutex::new(state),
            revoked,
            flushing,
            wake,
        }
    }

    /// Notes what was fetched, before any of it is handed out.
    pub(super) fn fetched(&self, next: u64, wanted: impl IntoIterator<Item = u64>) {
        self.state().progress.fetched(next, wanted);
        self.wake.notify_one();
    }

    pub(super) fn settle(&self, offset: u64, position: Position, verdict: Verdict) {
        if self.is_revoked() {
            return;
        }
        match verdict {
            Verdict::Done => self.state().progress.finish(offset),
            Verdict::Again(level) => self.state().again.push((offset, position, level)),
        }
        self.wake.notify_one();
    }

    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Sends back what shall come again and, if `commit` says so, commits what is finished. Everything that fails is kept.
    ///
    /// # Errors
    /// The first error; try again later.
    pub(super) async fn flush(
        &self,
        transport: &dyn Transport,
        group: &GroupName,
        commit: bool,
    ) -> Result<(), ClientError> {
        let _one_at_a_time = self.flushing.lock().await;
        let again = std::mem::take(&mut self.state().again);
        let mut failed = None;
        for (offset, position, delay_level) in again {
            let request = SendBack {
                group: group.clone(),
                position,
                delay_level,
                retries: None,
            };
            match transport.send_back(&self.queue, request).await {
                Ok(()) => self.state().progress.finish(offset),
                Err(ClientError::Missing(why)) => {
                    tracing::warn!(queue = %self.queue, offset, why, "a message to be retried is not kept any more");
                    self.state().progress.finish(offset);
                }
                Err(error) => {
                    self.state().again.push((offset, position, delay_level));
                    failed = failed.or(Some(error));
                }
            }
        }
        if commit {
            self.commit(transport, group).await?;
        }
        failed.map_or(Ok(()), Err)
    }

    async fn commit(
        &self,
        transport: &dyn Transport,
        group: &GroupName,
    ) -> Result<(), ClientError> {
        let safe = {
            let state = self.state();
            let safe = state.progress.safe();
            if safe == state.committed {
                return Ok(());
            }
            safe
        };
        transport.commit_offset(group, &self.queue, safe).await?;
        self.state().committed = safe;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
