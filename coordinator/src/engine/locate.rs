//! Finding the half message that somebody names: through the half queue's index, never by a bare position, and everything
//! that identifies it is compared.

use mq_core::log::{Position, QueueOffset, ReadError};
use mq_core::names::QueueId;
use mq_core::wire::ids;
use mq_core::wire::record::RecordView;
use mq_core::wire::reserved;

use super::half::{self, Decoded};
use super::publish::Final;
use super::recent::Kept;
use super::{Coordinator, Running};
use crate::client::endpoint::Resolve;
use crate::store::Half;
use crate::transaction::TransactionId;

/// What somebody says about the half message that is meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    /// The producer group.
    pub(super) group: &'a str,
    /// Its position.
    pub(super) position: Position,
    /// Its number in the half queue.
    pub(super) queue_offset: QueueOffset,
    /// Its transaction, if the caller knows it.
    pub(super) id: Option<TransactionId>,
    /// Other ids the caller knows it by, empty if none: its own id of the message, the transaction's, or the record's.
    pub(super) words: [&'a str; 2],
}

impl<'a> Named<'a> {
    /// What `request` says.
    pub(super) fn of(request: &'a Resolve) -> Self {
        Self {
            group: request.group.as_str(),
            position: request.position,
            queue_offset: request.queue_offset,
            id: Some(request.id),
            words: [""; 2],
        }
    }

    /// Whether every word is an id of the half message of transaction `id` whose record is `view`.
    fn fits(&self, view: &RecordView<'_>, id: TransactionId) -> bool {
        let unique = view.properties.get(reserved::UNIQ_KEY).unwrap_or_default();
        let is_position = |word| {
            ids::parse_offset_id(word).is_some_and(|(_, position)| position == self.position.0)
        };
        self.words.iter().all(|word| {
            word.is_empty() || *word == unique || word.parse() == Ok(id) || is_position(word)
        })
    }
}

/// A half message that was found where a resolution says, and its final if that is a COMMIT.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) half: Half,
    pub(super) copy: Option<Final>,
}

/// Why a half message was not found.
#[derive(Debug)]
pub(super) enum Missing {
    /// It is not there.
    No(String),
    /// The log cannot be read.
    Broken(String),
}

const OTHER_IDS: &str = "the half message there has other ids";

impl Coordinator {
    /// Finds the half message that is `named`: among those that became durable a moment ago, or through the half queue's
    /// index. Its final is made if `commit` says so.
    pub(super) fn locate(
        &self,
        running: &Running,
        named: &Named<'_>,
        commit: bool,
    ) -> Result<Located, Missing> {
        let fits = |half: &Half| {
            half.position == named.position
                && named.id.is_none_or(|id| id == half.id)
                && half.group.as_str() == named.group
        };
        match running.recent.take(named.queue_offset, fits) {
            Some(kept) => recent(running, named, commit, kept),
            None => self.stored(running, named, commit),
        }
    }

    fn stored(
        &self,
        running: &Running,
        named: &Named<'_>,
        commit: bool,
    ) -> Result<Located, Missing> {
        let log = running.broker.log();
        let missing = |why: &str| Missing::No(why.to_owned());
        let found = match log.find(&self.shared.half_queue, named.queue_offset) {
            Ok(position) => position,
            Err(ReadError::Gone(_) | ReadError::NoSuchOffset { .. }) => {
                return Err(missing("the half queue has no such offset"));
            }
            Err(error) => return Err(Missing::Broken(error.to_string())),
        };
        if found != named.position {
            return Err(missing(
                "position and queue offset name different half messages",
            ));
        }
        let stored = log
            .read(found)
            .map_err(|error| Missing::Broken(error.to_string()))?;
        let id = stored.mark.map(|mark| TransactionId(mark.key));
        let id = id
            .filter(|id| named.id.is_none_or(|named| named == *id))
            .ok_or_else(|| missing("the half message belongs to another transaction"))?;
        let view =
            RecordView::parse(&stored.bytes).map_err(|error| Missing::Broken(error.to_string()))?;
        let decoded =
            half::decode(&view, id).map_err(|error| Missing::Broken(error.to_string()))?;
        if decoded.half.group.as_str() != named.group {
            return Err(missing(
                "the half message belongs to another producer group",
            ));
        }
        if !named.fits(&view, id) {
            return Err(missing(OTHER_IDS));
        }
        let Decoded { half, queue, .. } = decoded;
        let copy = commit.then(|| {
            let body = stored.bytes.slice_ref(view.body);
            let queue = QueueId::new(half.topic.clone(), queue);
            Final::of(&view, body, found, queue)
        });
        Ok(Located {
            half: Half {
                prepared_at: stored.at,
                ..half
            },
            copy,
        })
    }
}

/// The half message that was found among the recent ones; put back if it is not the one that is meant.
fn recent(
    running: &Running,
    named: &Named<'_>,
    commit: bool,
    kept: Kept,
) -> Result<Located, Missing> {
    if named.words != [""; 2] {
        let view = kept
            .record
            .view()
            .map_err(|error| Missing::Broken(error.to_string()))?;
        if !named.fits(&view, kept.half.id) {
            running.recent.keep(kept);
            return Err(Missing::No(OTHER_IDS.to_owned()));
        }
    }
    let made = || Missing::Broken("the record of a half message in memory is damaged".to_owned());
    let copy = commit.then(|| Final::of_kept(&kept).ok_or_else(made));
    Ok(Located {
        copy: copy.transpose()?,
        half: kept.half,
    })
}
