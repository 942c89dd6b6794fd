//! Puts decisions into the log: the final of a commit, the echo of a rollback, in decision order.

use std::sync::Arc;

use bytes::Bytes;
use mq_core::log::portions::portions;
use mq_core::log::{Append, AppendError, Entry, Flush, Full, Log, Placed, Position, Submission};
use mq_core::names::QueueId;
use mq_core::wire::encoded::EncodedRecord;
use mq_core::wire::record::RecordView;

use super::feed::{Durable, Feed};
use super::half;
use super::recent::Kept;
use super::status::Status;
use crate::steps;
use crate::store::Half;
use crate::transaction::Decision;

/// The final of a half message, ready to be appended should it be committed.
#[derive(Debug, Clone)]
pub struct Final {
    /// Where it goes.
    pub queue: QueueId,
    /// Hash of its tag.
    pub tag_code: i64,
    /// Its record.
    pub record: EncodedRecord,
}

impl Final {
    /// The final, in `queue`, of the half message whose record is `view`, shares `body` and stands at `position`.
    #[must_use]
    pub fn of(view: &RecordView<'_>, body: Bytes, position: Position, queue: QueueId) -> Self {
        let record = half::final_record(view, body, position, &queue);
        let tag_code = half::tag_code_of(view.properties.0);
        Self {
            queue,
            tag_code,
            record,
        }
    }

    /// The final of a half message that is still in memory, which is that of [`Self::of`]. `None` if its record is not one
    /// that was made here.
    pub(super) fn of_kept(kept: &Kept) -> Option<Self> {
        let queue = QueueId::new(kept.half.topic.clone(), kept.queue);
        let position = kept.half.position.0;
        let record = kept.record.final_copy(&queue, position, kept.of_final)?;
        Some(Self {
            queue,
            tag_code: kept.tag_code,
            record,
        })
    }
}

/// A decision whose record the log does not have yet.
#[derive(Debug)]
pub struct Decided {
    /// The half message.
    pub half: Half,
    /// The decision's number.
    pub number: u64,
    /// The final, for a commit.
    pub copy: Option<Final>,
    /// Whether the log could not take it before and the row says so.
    pub again: bool,
}

/// Hands `decisions`, which stand in decision order, to the log's writer: in one append, or in several if one has no room for
/// them. Returns once they are in its queue; the feed hears when they are durable, or that the log could not take them.
pub async fn hand_over(
    log: &Arc<dyn Log>,
    feed: &Arc<Feed>,
    status: &Status,
    decisions: Vec<Decided>,
) {
    let records = decisions.into_iter().map(|decided| {
        let Decided {
            half,
            number,
            copy,
            again,
        } = decided;
        (entry(&half, number, copy), (half, number, again))
    });
    let most = log.append_max_bytes();
    for together in portions(records.collect(), most, |(record, _)| record.stored_len()) {
        let (entries, told) = together.into_iter().unzip();
        append(log, feed, status, entries, told).await;
    }
}

/// Appends the records of decisions; `told` says for each whose it is, its number, and whether its row denies it.
async fn append(
    log: &Arc<dyn Log>,
    feed: &Arc<Feed>,
    status: &Status,
    entries: Vec<Append>,
    told: Vec<(Half, u64, bool)>,
) {
    let (feed, status) = (feed.clone(), status.clone());
    let then = Box::new(move |result: Result<&[Placed], AppendError>| match result {
        Ok(placed) => {
            steps::reach("final.durable");
            feed.push(
                placed
                    .iter()
                    .zip(told)
                    .map(|(placed, (half, number, again))| {
                        let position = placed.position;
                        if again {
                            Durable::Republished {
                                half,
                                position,
                                number,
                            }
                        } else {
                            Durable::Decision { position, number }
                        }
                    }),
            );
        }
        Err(error @ (AppendError::Full(_) | AppendError::Refused(_))) => {
            let reason = error.to_string();
            tracing::error!(
                reason,
                finals = told.len(),
                "decisions could not be published"
            );
            feed.push(
                told.into_iter()
                    .map(|(half, number, _)| Durable::Unpublished {
                        half,
                        number,
                        reason: reason.clone(),
                    }),
            );
        }
        Err(error) => status.fail(&error.to_string()),
    });
    let mut submission = Submission {
        entries,
        flush: Flush::Along,
        then,
    };
    while let Err(Full(back)) = log.append(submission) {
        submission = back;
        log.ready().await;
    }
}

fn entry(half: &Half, number: u64, copy: Option<Final>) -> Append {
    match copy {
        Some(Final {
            queue,
            tag_code,
            record,
        }) => Append {
            mark: Some(half::decision_mark(half.id, Decision::Commit, number)),
            entry: Entry::Message {
                queue,
                tag_code,
                record,
            },
        },
        None => Append {
            mark: Some(half::decision_mark(half.id, Decision::RollBack, number)),
            entry: Entry::Note {
                payload: half.position.0.to_be_bytes().to_vec(),
            },
        },
    }
}
