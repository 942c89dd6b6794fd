//! Half messages on their way into the log: what is reserved for them, and one append for all that came together.

use std::time::Duration;

use mq_core::clock::ServerTime;
use mq_core::log::layout::stored_len;
use mq_core::log::{Append, AppendError, Entry, Flush, Full, Placed, Position, Submission};
use mq_core::names::QueueId;
use mq_core::wire::encoded::EncodedRecord;
use mq_core::wire::{properties, record};
use tokio::sync::OwnedSemaphorePermit;

use super::feed::Durable;
use super::half::{self, NewHalf};
use super::holds::Hold;
use super::recent::Kept;
use super::{Coordinator, Running};
use crate::steps;
use crate::store::Half;
use crate::transaction::TransactionId;

/// A half message that may be appended. Dropped, it gives back what was reserved for it.
#[derive(Debug)]
pub(super) struct Admitted {
    half: Half,
    /// The queue of its real topic.
    pub(super) queue: u32,
    record: EncodedRecord,
    /// Bytes of its properties that its final has, too.
    of_final: usize,
    /// Hash of its tag.
    tag_code: i64,
    first_wait: Duration,
    slot: OwnedSemaphorePermit,
    hold: Hold,
}

impl Admitted {
    /// Bytes that its record takes in the log.
    pub(super) const fn stored_len(&self) -> u64 {
        stored_len(self.record.len())
    }
}

/// Why a half message may not be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAdmitted {
    /// The SQL writer is too far behind.
    #[error("the database is behind")]
    Behind,
    /// The record cannot hold its properties.
    #[error(
        "the properties have {0} bytes with those of the half message; at most {max} are allowed",
        max = properties::MAX_BYTES
    )]
    PropertiesTooLong(usize),
    /// The record cannot hold its body.
    #[error("the body has {0} bytes; at most {max} are allowed", max = record::BODY_MAX_BYTES)]
    BodyTooLong(usize),
}

impl Coordinator {
    /// Reserves a slot for `new` and makes its record. `queue` has admitted it, and `hold` was begun before that.
    pub(super) fn admit(
        &self,
        running: &Running,
        new: &NewHalf<'_>,
        id: TransactionId,
        queue: QueueId,
        hold: Hold,
    ) -> Result<Admitted, NotAdmitted> {
        if new.body.len() > record::BODY_MAX_BYTES {
            return Err(NotAdmitted::BodyTooLong(new.body.len()));
        }
        let properties = new.record_properties(queue.queue);
        let length = properties.encoded.len();
        if length > properties::MAX_BYTES {
            return Err(NotAdmitted::PropertiesTooLong(length));
        }
        let slot = running.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| NotAdmitted::Behind)?;
        let host = running.broker.host();
        let half = Half {
            id,
            position: Position::default(),
            queue_offset: Default::default(),
            group: new.group.clone(),
            topic: queue.topic,
            body_len: u32::try_from(new.body.len()).unwrap_or(u32::MAX),
            prepared_at: ServerTime::default(),
            sender: new.sender,
            marker: new.marker,
        };
        let settings = &self.shared.settings.check_back;
        steps::reach("half.admitted");
        Ok(Admitted {
            half,
            queue: queue.queue,
            record: new.record(&properties.encoded, host),
            of_final: properties.of_final,
            tag_code: half::tag_code_of(new.properties),
            first_wait: settings.first_wait_of(new.marker, new.immunity),
            slot,
            hold,
        })
    }

    /// Appends `admitted` in one piece and tells `then` in a task where they stand, once they are durable, or why not.
    ///
    /// # Errors
    /// [`Full`] when the log is behind: nothing was stored and `then` is not told.
    pub(super) fn append(
        &self,
        running: &Running,
        admitted: Vec<Admitted>,
        then: impl FnOnce(Result<&[Placed], AppendError>) + Send + 'static,
    ) -> Result<(), Full> {
        let entry = |one: &Admitted| Append {
            mark: Some(half::mark(one.half.id)),
            entry: Entry::Message {
                queue: self.shared.half_queue.clone(),
                tag_code: 0,
                record: one.record.clone(),
            },
        };
        let entries = admitted.iter().map(entry).collect();
        let (feed, recent) = (running.feed.clone(), running.recent.clone());
        let (acks, status) = (running.acks.clone(), self.shared.status.clone());
        let durable = move |result: Result<&[Placed], AppendError>| {
            let result = result.map(<[Placed]>::to_vec);
            match &result {
                Ok(placed) => {
                    let news = admitted.into_iter().zip(placed);
                    feed.push(
                        news.map(|(one, placed)| stored(one, placed, |kept| recent.keep(kept))),
                    );
                }
                Err(AppendError::Full(_) | AppendError::Refused(_)) => drop(admitted),
                // Whether they are stored is not known: the topic must stay, and the next start decides.
                Err(error) => {
                    status.fail(&error.to_string());
                    admitted.into_iter().for_each(|one| one.hold.keep());
                }
            }
            steps::reach("half.durable");
            acks.push(move || then(result.as_deref().map_err(Clone::clone)));
        };
        let submission = Submission {
            entries,
            flush: Flush::Sync,
            then: Box::new(durable),
        };
        running.broker.log().append(submission)
    }
}

/// What the feed hears about a half message that is durable.
fn stored(one: Admitted, placed: &Placed, keep: impl Fn(Kept)) -> Durable {
    let half = Half {
        position: placed.position,
        queue_offset: placed.queue_offset,
        prepared_at: placed.at,
        ..one.half
    };
    keep(Kept {
        half: half.clone(),
        queue: one.queue,
        record: one.record,
        of_final: one.of_final,
        tag_code: one.tag_code,
    });
    // The slot is free again when the writer has stored the row, the topic when it is decided.
    one.slot.forget();
    one.hold.keep();
    Durable::Half {
        half,
        first_check: placed.at.after(one.first_wait),
    }
}
