//! Reading a queue: batches of stored records that a filter may want, held until there are some.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::{Broker, Pull, PullOutcome, Pulled};
use crate::filter::Filter;
use crate::log::{Position, QueueOffset, ReadError};
use crate::names::{GroupName, QueueId, TopicName};
use crate::wire::record::RecordView;

/// How many entries of a queue one look goes over without a match before the caller gets its say again.
const LOOK_ENTRIES: u64 = 8_192;
/// The same where each message itself must be read.
const LOOK_RECORDS: u64 = 512;
/// How many entries are read from the queue's index at once.
const CHUNK: usize = 256;

/// Why a queue cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// There is no such topic, or it is hidden.
    #[error("topic {0} does not exist")]
    NoSuchTopic(TopicName),
    /// The topic is closed for consumers.
    #[error("topic {0} does not allow consuming")]
    NotReadable(TopicName),
    /// The group is closed.
    #[error("group {0} is not allowed to consume")]
    GroupClosed(GroupName),
    /// The topic has fewer queues.
    #[error("queue {queue} does not exist; its topic has {queues} queues to read")]
    NoSuchQueue {
        /// The queue asked for.
        queue: QueueId,
        /// How many there are.
        queues: u32,
    },
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping,
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
}

impl Broker {
    /// Answers with messages from `offset` on, or waits for some. Dropping the future is harmless.
    ///
    /// A look goes over a bounded number of messages: [`PullOutcome::NoMatch`] may come back before the end of the queue
    /// or of the wait. A broker that stops, or is about to ([`Broker::stop_waiting`]), answers those who wait at once.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn pull(&self, pull: Pull) -> Result<Pulled, PullError> {
        if self.is_stopping() {
            return Err(PullError::Stopping);
        }
        let mut hurry = self.shared.hurry.subscribe();
        let wait = match *hurry.borrow_and_update() {
            true => Duration::ZERO,
            false => pull.wait.min(self.shared.settings.pull_wait),
        };
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        let mut end = self.log().watch(&pull.queue);
        let mut from = pull.offset;
        loop {
            // Seen before the look: whatever comes after it makes `changed` return at once.
            end.borrow_and_update();
            let pulled = self.look(&pull, from)?;
            let at_the_end = pulled.next >= pulled.max;
            if !matches!(pulled.outcome, PullOutcome::NoNew | PullOutcome::NoMatch)
                || !at_the_end
                || wait.is_zero()
            {
                return Ok(pulled);
            }
            from = pulled.next;
            tokio::select! {
                changed = end.changed() => if changed.is_err() { return Ok(pulled) },
                () = &mut over => return Ok(pulled),
                _ = hurry.changed() => return Ok(pulled),
            }
        }
    }

    /// Answers with what there is now, whatever `wait` says.
    ///
    /// # Errors
    /// [`PullError`].
    pub fn pull_now(&self, pull: &Pull) -> Result<Pulled, PullError> {
        if self.is_stopping() {
            return Err(PullError::Stopping);
        }
        self.look(pull, pull.offset)
    }

    fn look(&self, pull: &Pull, from: u64) -> Result<Pulled, PullError> {
        let range = self.readable_range(&pull.queue)?;
        if self.group(&pull.group).is_some_and(|group| !group.consume) {
            return Err(PullError::GroupClosed(pull.group.clone()));
        }
        let mut pulled = Pulled {
            outcome: PullOutcome::NoNew,
            records: vec![],
            next: from,
            min: range.start,
            max: range.end,
        };
        if from < range.start || from > range.end {
            pulled.outcome = PullOutcome::Moved;
            pulled.next = from.clamp(range.start, range.end);
            return Ok(pulled);
        }
        let most = pull
            .most
            .clamp(1, self.shared.settings.pull_messages.max(1));
        let most_bytes = pull.most_bytes.min(self.shared.settings.pull_bytes);
        let entries = if pull.filter.asks_properties() {
            LOOK_RECORDS
        } else {
            LOOK_ENTRIES
        };
        let (mut bytes, last) = (0, range.end.min(from.saturating_add(entries)));
        while pulled.next < last {
            let entries = match self
                .log()
                .entries(&pull.queue, QueueOffset(pulled.next), CHUNK)
            {
                Err(ReadError::Gone(_)) if pulled.records.is_empty() => {
                    return Ok(Pulled {
                        outcome: PullOutcome::Moved,
                        next: self.first_kept(&pull.queue),
                        ..pulled
                    });
                }
                Err(ReadError::Gone(_)) => break,
                entries => entries?,
            };
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let size = entry.size as usize;
                let full = pulled.records.len() == most || bytes + size > most_bytes;
                let wanted = pull.filter.may_match(entry.tag_code);
                if wanted && full && !pulled.records.is_empty() {
                    return Ok(pulled);
                }
                let record = match wanted {
                    true => self.wanted(&pull.filter, entry.position)?,
                    false => None,
                };
                if let Some(record) = record {
                    pulled.records.push(record);
                    pulled.outcome = PullOutcome::Found;
                    bytes += size;
                } else if pulled.records.is_empty() {
                    pulled.outcome = PullOutcome::NoMatch;
                }
                pulled.next = entry.offset.0 + 1;
                if pulled.next == last {
                    break;
                }
            }
        }
        Ok(pulled)
    }

    /// The record at a position, unless its properties are not wanted.
    fn wanted(&self, filter: &Filter, at: Position) -> Result<Option<Bytes>, PullError> {
        let record = self.log().read(at)?.bytes;
        let wanted = !filter.asks_properties()
            || RecordView::parse(&record).is_ok_and(|view| filter.wants(view.properties));
        Ok(wanted.then_some(record))
    }

    /// First kept and next offset of a queue that clients may read.
    ///
    /// # Errors
    /// [`PullError`] when the queue does not exist or is closed for consumers.
    pub fn queue_range(&self, queue: &QueueId) -> Result<Range<u64>, PullError> {
        self.readable_range(queue)
    }

    /// The first offset in a queue whose message was stored at or after `wall_ms`; the next offset if none was.
    ///
    /// # Errors
    /// [`PullError`].
    pub fn offset_at(&self, queue: &QueueId, wall_ms: u64) -> Result<u64, PullError> {
        let Range { mut start, mut end } = self.readable_range(queue)?;
        while start < end {
            let middle = start + (end - start) / 2;
            let stored_ms = match self.log().find(queue, QueueOffset(middle)) {
                Ok(position) => {
                    let stored = self.log().read(position)?;
                    RecordView::parse(&stored.bytes).map_or(0, |view| view.store_ms)
                }
                Err(ReadError::Gone(_)) => 0,
                Err(error) => return Err(error.into()),
            };
            if stored_ms < wall_ms {
                start = middle + 1
            } else {
                end = middle
            }
        }
        Ok(start)
    }

    pub(crate) fn readable_range(&self, queue: &QueueId) -> Result<Range<u64>, PullError> {
        let missing = || PullError::NoSuchTopic(queue.topic.clone());
        if self.is_reserved(&queue.topic) {
            return Err(missing());
        }
        let topic = self.find_topic(&queue.topic).ok_or_else(missing)?;
        if !topic.config.permission.read {
            return Err(PullError::NotReadable(queue.topic.clone()));
        }
        let queues = topic.config.read_queues;
        if queue.queue >= queues {
            return Err(PullError::NoSuchQueue {
                queue: queue.clone(),
                queues,
            });
        }
        let range = self.log().queue_range(queue);
        let begin = topic.begins.get(&queue.queue).copied().unwrap_or(0);
        let start = range.start.0.max(begin);
        Ok(start..range.end.0.max(start))
    }

    fn first_kept(&self, queue: &QueueId) -> u64 {
        self.readable_range(queue).map_or(0, |range| range.start)
    }
}
