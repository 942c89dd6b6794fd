//! Messages that wait: when their time has come, a copy goes to the queue they are for, once.
//!
//! The copy's mark names the waiting message, so the copy itself is the progress: a crash cannot come between the two.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::notes::{self, Change};
use super::sending::{message, waiting_queue, without_real_queue};
use crate::clock::ServerTime;
use crate::filter::tag_code;
use crate::log::{Append, AppendError, QueueEntry, QueueOffset, ReadError};
use crate::names::{QueueId, TopicName};
use crate::wire::delays::LEVELS;
use crate::wire::record::{NewRecord, RecordView};
use crate::wire::reserved;

/// Most copies of one level, and most bytes of all, in one append: small enough to leave others their turn.
const COPIES: usize = 64;
const COPIED_BYTES: usize = 1 << 20;
/// How long to wait after the log was full or could not be read.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What there is to do for delayed messages now.
#[derive(Debug, Default)]
struct Work {
    copies: Vec<Append>,
    bytes: usize,
    /// Waiting messages that cannot be delivered any more, each the first of its level.
    given_up: Vec<Change>,
    /// When the next one is due.
    next: Option<ServerTime>,
}

/// Delivers until the broker stops. Holds no handle that would keep the broker alive.
pub(super) async fn deliver(shared: Arc<super::Shared>) {
    let mut stop = shared.stop.subscribe();
    let mut round = 0;
    while !*stop.borrow_and_update() {
        round += 1;
        let wait = match shared.deliver_once(round).await {
            Ok(wait) => wait,
            Err(error @ (AppendError::Poisoned(_) | AppendError::Closed)) => {
                tracing::error!(%error, "delayed messages are no longer delivered");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "delayed messages could not be delivered; trying again");
                Some(TRY_AGAIN)
            }
        };
        let due = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stop.changed() => return,
            () = shared.delayed.notified() => {}
            () = due => {}
        }
    }
}

impl super::Shared {
    /// Delivers what is due, up to a bound; returns how long until the next, if anything waits.
    async fn deliver_once(&self, round: usize) -> Result<Option<Duration>, AppendError> {
        let now = self.journal.log.now();
        let mut work = Work::default();
        for turn in 0..LEVELS {
            let level = u8::try_from((round + turn) % LEVELS + 1).unwrap_or(1);
            if let Err(error) = self.collect(level, now, &mut work) {
                tracing::error!(%error, level, "a delay level cannot be read");
                work.next = earlier(work.next, now.after(TRY_AGAIN));
            }
        }
        let idle = work.copies.is_empty() && work.given_up.is_empty();
        if !work.copies.is_empty() {
            self.journal.deliver(work.copies).await?;
        }
        for change in work.given_up {
            self.journal.change(change).await?;
        }
        if !idle {
            return Ok(Some(Duration::ZERO));
        }
        // The clock of timers counts milliseconds; one more, so that the message is surely due then.
        Ok(work
            .next
            .map(|next| next.since(now) + Duration::from_millis(1)))
    }

    fn collect(&self, level: u8, now: ServerTime, work: &mut Work) -> Result<(), ReadError> {
        let queue = waiting_queue(level);
        let from = self.journal.known.next_delayed(level);
        // A stored record takes less than twice the bytes of a message.
        let room = self.journal.log.append_max_bytes() / 2;
        let most = COPIED_BYTES.min(usize::try_from(room).unwrap_or(usize::MAX));
        let first_kept = self.journal.log.queue_range(&queue).start.0;
        if from < first_kept {
            work.given_up.push(Change::Delayed {
                level,
                next: first_kept,
            });
            return Ok(());
        }
        for entry in self
            .journal
            .log
            .entries(&queue, QueueOffset(from), COPIES)?
        {
            let due = ServerTime(u64::try_from(entry.tag_code).unwrap_or(0));
            if due > now {
                work.next = earlier(work.next, due);
                return Ok(());
            }
            if work.bytes > 0 && work.bytes + entry.size as usize > most {
                return Ok(());
            }
            if let Some(copy) = self.copy(level, &entry)? {
                work.bytes += entry.size as usize;
                work.copies.push(copy);
            } else {
                // Those before it are not delivered yet; given up only as the first of its level.
                if entry.offset.0 == from {
                    work.given_up.push(Change::Delayed {
                        level,
                        next: from + 1,
                    });
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// The copy that delivers a waiting message; `None` when its topic is gone.
    fn copy(&self, level: u8, entry: &QueueEntry) -> Result<Option<Append>, ReadError> {
        let stored = self.journal.log.read(entry.position)?;
        let Ok(view) = RecordView::parse(&stored.bytes) else {
            tracing::error!(position = %entry.position, "a delayed message is not a record and is given up");
            return Ok(None);
        };
        let Some(queue) = self.real_queue(&view) else {
            tracing::warn!(position = %entry.position, "the topic of a delayed message is gone; it is given up");
            return Ok(None);
        };
        let properties = without_real_queue(view.properties, &[reserved::DELAY]);
        let record = NewRecord {
            flag: view.flag,
            sys_flag: view.sys_flag,
            born_ms: view.born_ms,
            born_host: view.born_host,
            store_host: view.store_host,
            reconsume_times: view.reconsume_times,
            body: view.body,
            properties: &properties,
            ..NewRecord::new(queue.topic.as_str(), queue.queue)
        };
        let body = stored.bytes.slice_ref(view.body);
        let record = record.encode_around_known(body, view.body_checksum);
        let code = view.properties.get(reserved::TAGS).map_or(0, tag_code);
        let mark = Some(notes::delivered(level, entry.offset.0));
        Ok(Some(Append {
            mark,
            ..message(record, queue.clone(), code)
        }))
    }

    fn real_queue(&self, view: &RecordView<'_>) -> Option<QueueId> {
        let topic = TopicName::new(view.properties.get(reserved::REAL_TOPIC)?).ok()?;
        let queue: u32 = view.properties.get(reserved::REAL_QUEUE)?.parse().ok()?;
        let queues = self
            .journal
            .known
            .catalog()
            .topic(&topic)?
            .config
            .write_queues;
        // A topic that has lost the queue since gets the message in one it still has.
        Some(QueueId::new(topic, queue % queues.max(1)))
    }
}

impl Broker {
    /// How many messages wait for their time.
    #[must_use]
    pub fn delayed_messages(&self) -> u64 {
        let waiting = |level: u8| {
            let end = self.log().queue_range(&waiting_queue(level)).end.0;
            end.saturating_sub(self.shared.journal.known.next_delayed(level))
        };
        (1..=LEVELS)
            .filter_map(|level| u8::try_from(level).ok())
            .map(waiting)
            .sum()
    }
}

fn earlier(one: Option<ServerTime>, other: ServerTime) -> Option<ServerTime> {
    Some(one.map_or(other, |one| one.min(other)))
}
