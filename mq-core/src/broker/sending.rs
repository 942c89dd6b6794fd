//! Storing messages: checks, the queue, the delay, and the record.

use super::{AdmitError, Broker, Incoming, Receipt};
use crate::filter::tag_code;
use crate::log::{Append, AppendError, Entry, Flush, Placed, Submission};
use crate::names::{QueueId, TopicName};
use crate::wire::encoded::EncodedRecord;
use crate::wire::properties::{self, Properties};
use crate::wire::record::{BODY_MAX_BYTES, NewRecord};
use crate::wire::{delays, ids, reserved, system};

impl Incoming {
    /// Refuses the bits that only an extension accepts.
    pub(crate) fn check_flags(&self) -> Result<(), SendError> {
        match self.sys_flag & system::CLAIMABLE_FLAGS {
            0 => Ok(()),
            flags => Err(SendError::Flags(flags)),
        }
    }
}

/// Why a message is not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The topic or queue does not take it. Nothing was stored.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// The body is too long. Nothing was stored.
    #[error("the body has {0} bytes; at most {BODY_MAX_BYTES} are allowed")]
    BodyTooLong(usize),
    /// The properties, with those the broker adds, are too long. Nothing was stored.
    #[error("the properties have {0} bytes; at most {max} are allowed", max = properties::MAX_BYTES)]
    PropertiesTooLong(usize),
    /// The flag bits belong to an extension, which is not linked in or was not asked. Nothing was stored.
    #[error("the message carries flag bits {0:#x}, which only an extension accepts")]
    Flags(i32),
    /// The log did not acknowledge; [`AppendError::Poisoned`] leaves open whether the message is stored.
    #[error(transparent)]
    Log(#[from] AppendError),
}

impl Broker {
    /// Stores a message; returns when it is durable (or written, with the setting `flush_async`).
    ///
    /// A future that is dropped may still store the message.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, incoming: Incoming) -> Result<Receipt, SendError> {
        let mut receipts = self.send_all(vec![incoming]).await?;
        Ok(receipts.pop().expect("one message has one receipt"))
    }

    /// Stores messages that stand together in the log, all or none; one receipt for each, in order.
    ///
    /// A future that is dropped may still store them.
    ///
    /// # Errors
    /// [`SendError`] of the first message that is refused: none is stored.
    pub async fn send_all(&self, batch: Vec<Incoming>) -> Result<Vec<Receipt>, SendError> {
        let mut entries = Vec::with_capacity(batch.len());
        let mut drafts = Vec::with_capacity(batch.len());
        let mut delayed = false;
        for incoming in batch {
            incoming.check_flags()?;
            let queue = self.admit(&incoming.topic, incoming.queue).await?;
            let unique_key = Properties(&incoming.properties)
                .get(reserved::UNIQ_KEY)
                .map(str::to_owned);
            let draft = self.draft(incoming, &queue)?;
            delayed |= draft.delayed;
            entries.push(draft.entry);
            drafts.push((queue, unique_key));
        }
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let placed = self.store(entries, self.plain_flush(), delayed).await?;
        let receipts = drafts.into_iter().zip(placed);
        Ok(receipts
            .map(|((queue, unique_key), placed)| self.receipt(queue, unique_key, placed))
            .collect())
    }

    /// A message as it is to be stored, for a queue that has admitted it.
    pub(crate) fn draft(&self, incoming: Incoming, queue: &QueueId) -> Result<Draft, SendError> {
        let level = delay_level(Properties(&incoming.properties));
        Ok(Draft {
            entry: self.entry(incoming, queue, level)?,
            delayed: level > 0,
        })
    }

    /// When plain messages are acknowledged.
    pub(crate) fn plain_flush(&self) -> Flush {
        if self.shared.settings.flush_async {
            Flush::Async
        } else {
            Flush::Sync
        }
    }

    /// Hands messages to the log, waiting for room only; `then` learns what became of them, on the thread that drives the
    /// log. Whoever delivers delayed messages is woken if there are any.
    pub(crate) async fn store_then(
        &self,
        entries: Vec<Append>,
        delayed: bool,
        then: impl FnOnce(Result<&[Placed], AppendError>) + Send + 'static,
    ) {
        let broker = delayed.then(|| self.clone());
        let submission = Submission {
            entries,
            flush: self.plain_flush(),
            then: Box::new(move |placed| {
                if let Some(broker) = broker {
                    broker.shared.delayed.notify_one();
                }
                then(placed);
            }),
        };
        self.shared.journal.hand_over(submission).await;
    }

    /// Appends messages, and wakes whoever delivers delayed ones if there are any.
    pub(crate) async fn store(
        &self,
        entries: Vec<Append>,
        flush: Flush,
        delayed: bool,
    ) -> Result<Vec<Placed>, AppendError> {
        let broker = self.clone();
        let wake = move |_: &[Placed]| {
            if delayed {
                broker.shared.delayed.notify_one();
            }
        };
        self.shared.journal.append_then(entries, flush, wake).await
    }

    /// The record of a message for `queue`: in that queue, or among those that wait when `level` is not 0.
    pub(crate) fn entry(
        &self,
        incoming: Incoming,
        queue: &QueueId,
        level: u8,
    ) -> Result<Append, SendError> {
        let body = incoming.body.len();
        if body > BODY_MAX_BYTES {
            return Err(SendError::BodyTooLong(body));
        }
        let (properties, stored_in, code) = if level == 0 {
            let code = Properties(&incoming.properties)
                .get(reserved::TAGS)
                .map_or(0, tag_code);
            (incoming.properties, queue.clone(), code)
        } else {
            let due = self.log().now().after(delays::delay(level));
            let waiting = waiting_queue(level);
            (
                waiting_properties(&incoming.properties, queue),
                waiting,
                i64::try_from(due.0).unwrap_or(i64::MAX),
            )
        };
        if properties.len() > properties::MAX_BYTES {
            return Err(SendError::PropertiesTooLong(properties.len()));
        }
        let record = NewRecord {
            flag: incoming.flag,
            sys_flag: incoming.sys_flag,
            born_ms: incoming.born_ms,
            born_host: incoming.born_host,
            store_host: self.host(),
            reconsume_times: incoming.reconsume_times,
            body: &incoming.body,
            properties: &properties,
            ..NewRecord::new(stored_in.topic.as_str(), stored_in.queue)
        };
        let record = record.encode_around(incoming.body.clone());
        Ok(message(record, stored_in, code))
    }

    fn receipt(&self, queue: QueueId, unique_key: Option<String>, placed: Placed) -> Receipt {
        Receipt {
            message_id: ids::offset_id(self.host(), placed.position.0),
            unique_key,
            queue,
            queue_offset: placed.queue_offset,
            position: placed.position,
            store_ms: placed.store_ms,
        }
    }
}

/// A message that is admitted and encoded, and not stored yet.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The record for the log.
    pub(crate) entry: Append,
    /// Whether it waits before it is delivered.
    pub(crate) delayed: bool,
}

/// An unmarked message for the log.
pub(crate) const fn message(record: EncodedRecord, queue: QueueId, tag_code: i64) -> Append {
    Append {
        mark: None,
        entry: Entry::Message {
            queue,
            tag_code,
            record,
        },
    }
}

/// The queue in which messages of a delay level, 1 to 18, wait.
pub(crate) fn waiting_queue(level: u8) -> QueueId {
    let topic = TopicName::new(reserved::SCHEDULE_TOPIC)
        .expect("the name is a constant that keeps the rules");
    QueueId::new(topic, u32::from(level.max(1)) - 1)
}

/// The delay level a message asks for: 0 for none, more than the last is the last.
fn delay_level(properties: Properties<'_>) -> u8 {
    let level = properties
        .get(reserved::DELAY)
        .and_then(|level| level.trim().parse::<i64>().ok())
        .unwrap_or(0);
    u8::try_from(level.clamp(0, delays::LEVELS as i64)).unwrap_or(0)
}

/// The properties with the real queue; whatever a client says there itself is taken out.
fn waiting_properties(encoded: &[u8], queue: &QueueId) -> Vec<u8> {
    let mut kept = without_real_queue(Properties(encoded), &[]);
    properties::push(&mut kept, reserved::REAL_TOPIC, queue.topic.as_str());
    properties::push(&mut kept, reserved::REAL_QUEUE, &queue.queue.to_string());
    kept
}

/// The properties without the real queue and without `others`.
pub(crate) fn without_real_queue(encoded: Properties<'_>, others: &[&str]) -> Vec<u8> {
    let kept = |name: &str| {
        ![reserved::REAL_TOPIC, reserved::REAL_QUEUE].contains(&name) && !others.contains(&name)
    };
    properties::retain(encoded, kept)
}
