//! Reading one assigned queue ahead of the consumer, as far as there is room.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::received::Received;
use super::settling::{Assigned, TRY_AGAIN, Verdict};
use super::{ClientError, Transport};
use crate::exchange::{Pull, PullOutcome, Pulled};
use crate::filter::Filter;
use crate::names::GroupName;
use crate::places::Position;
use crate::wire::record::RecordView;

/// How long a pull is held at the broker, as RocketMQ's push consumer asks.
const HELD: Duration = Duration::from_secs(15);
/// Most messages of one pull.
const PULL_MESSAGES: usize = 32;

/// A message that waits for [`super::Consumer::next`]. Dropping it says nothing about it.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) received: Received,
    pub(super) assigned: Arc<Assigned>,
    /// Its part of the room for messages read ahead.
    pub(super) _room: OwnedSemaphorePermit,
}

/// What reading a queue needs.
#[derive(Debug, Clone)]
pub(super) struct Fetch {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) group: GroupName,
    pub(super) filter: Filter,
    /// Bytes that may be read ahead, over all queues.
    pub(super) room: Arc<Semaphore>,
    pub(super) room_bytes: u32,
    pub(super) out: mpsc::Sender<Result<Fetched, ClientError>>,
    /// To be woken when the broker is closed.
    pub(super) look: Arc<Notify>,
}

impl Fetch {
    /// Reads until `stop` changes or the broker refuses; a refusal is told to the consumer.
    pub(super) async fn run(
        self,
        assigned: Arc<Assigned>,
        start: u64,
        mut stop: watch::Receiver<()>,
    ) {
        // A dropped sender counts as a change: either way the queue is not ours any more.
        tokio::select! {
            _ = stop.changed() => {}
            () = self.read(assigned, start) => {}
        }
    }

    async fn read(self, assigned: Arc<Assigned>, mut offset: u64) {
        loop {
            let pull = Pull {
                group: self.group.clone(),
                queue: assigned.queue.id(),
                offset,
                filter: self.filter.clone(),
                most: PULL_MESSAGES,
                most_bytes: usize::MAX,
                wait: HELD,
            };
            match self.transport.pull(&assigned.queue.broker, pull).await {
                Ok(pulled) => {
                    offset = pulled.next;
                    if self.hand_over(pulled, &assigned).await.is_err() {
                        return;
                    }
                }
                Err(ClientError::Closed) => return self.look.notify_one(),
                Err(ClientError::Refused(why)) => {
                    // The consumer may be gone; then nobody needs to know.
                    let _ = self.out.send(Err(ClientError::Refused(why))).await;
                    return;
                }
                Err(error) => {
                    tracing::warn!(queue = %assigned.queue, %error, "pull failed; trying again");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    /// Hands messages to the consumer, waiting for room; fails when the consumer is gone.
    async fn hand_over(&self, pulled: Pulled, assigned: &Arc<Assigned>) -> Result<(), ()> {
        if pulled.outcome == PullOutcome::Moved {
            tracing::warn!(queue = %assigned.queue, to = pulled.next, "the offset was outside of the queue");
        }
        let mut wanted = Vec::with_capacity(pulled.records.len());
        let mut aside = Vec::new();
        for record in &pulled.records {
            match Received::parse(record) {
                // Hashes collide: the tag itself decides.
                Ok(received) if self.filter.matches(received.tag()) => {
                    wanted.push((record.len(), received))
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(queue = %assigned.queue, %error, "a message cannot be read; it goes to the dead letters");
                    aside.extend(
                        RecordView::parse(record)
                            .map(|view| (view.queue_offset, Position(view.position))),
                    );
                }
            }
        }
        let offsets = wanted.iter().map(|(_, received)| received.queue_offset().0);
        let aside_offsets = aside.iter().map(|(offset, _)| *offset);
        assigned.fetched(pulled.next, offsets.chain(aside_offsets));
        for (offset, position) in aside {
            // It stays there as it was sent.
            assigned.settle(offset, position, Verdict::Again(-1));
        }
        for (bytes, received) in wanted {
            let bytes = u32::try_from(bytes)
                .unwrap_or(u32::MAX)
                .min(self.room_bytes);
            let room = Arc::clone(&self.room)
                .acquire_many_owned(bytes)
                .await
                .map_err(|_| ())?;
            let fetched = Fetched {
                received,
                assigned: Arc::clone(assigned),
                _room: room,
            };
            self.out.send(Ok(fetched)).await.map_err(|_| ())?;
        }
        Ok(())
    }
}
