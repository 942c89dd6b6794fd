//! Finding the half message that somebody names: through the half queue's index, never by a bare position, and everything
//! that identifies it is compared.

use std::fmt;

use mq_core::log::{Position, QueueOffset, ReadError, Stored};
use mq_core::names::QueueId;
use mq_core::wire::ids;
use mq_core::wire::record::RecordView;
use mq_core::wire::reserved;

use super::half::{self, Decoded};
use super::publish::Final;
use super::recent::Kept;
use super::{Coordinator, Running};
use crate::client::endpoint::{Outcome, Resolve, ResolveError};
use crate::store::{Filter, Half};
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
    /// The log does not keep it where it was stored first: SQL knows more ([`Coordinator::locate_row`]).
    Gone,
    /// The log cannot be read.
    Broken(String),
}

impl Missing {
    /// What whoever said something about it is told.
    pub(super) fn outcome(self) -> Result<Outcome, ResolveError> {
        match self {
            Self::No(why) => Ok(Outcome::NoSuchHalfMessage { why }),
            Self::Gone => Ok(Outcome::NoSuchHalfMessage {
                why: NO_LONGER.to_owned(),
            }),
            Self::Broken(why) => Err(ResolveError(why)),
        }
    }
}

pub(super) const NO_LONGER: &str = "it is no longer kept";
const OTHER_IDS: &str = "the half message there has other ids";
const OTHER_GROUP: &str = "the half message belongs to another producer group";
const OTHER_TRANSACTION: &str = "the half message belongs to another transaction";

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
            Err(ReadError::Gone(_)) => return Err(Missing::Gone),
            Err(ReadError::NoSuchOffset { .. }) => {
                return Err(missing("the half queue has no such offset"));
            }
            Err(error) => return Err(Missing::Broken(error.to_string())),
        };
        if found != named.position {
            return Err(missing(
                "position and queue offset name different half messages",
            ));
        }
        let stored = match log.read(found) {
            Ok(stored) => stored,
            Err(ReadError::Gone(_)) => return Err(Missing::Gone),
            Err(error) => return Err(Missing::Broken(error.to_string())),
        };
        let id = stored.mark.map(|mark| TransactionId(mark.key));
        let id = id
            .filter(|id| named.id.is_none_or(|named| named == *id))
            .ok_or_else(|| missing(OTHER_TRANSACTION))?;
        let mut located = judge(&stored, named, id, commit)?;
        located.half.prepared_at = stored.at;
        Ok(located)
    }

    /// Finds the half message that is `named` through its row: one that was carried forward, or that is decided and no longer
    /// kept.
    pub(super) async fn locate_row(
        &self,
        running: &Running,
        named: &Named<'_>,
        commit: bool,
    ) -> Result<Located, Missing> {
        let broken = |error: &dyn fmt::Display| Missing::Broken(error.to_string());
        let missing = |why: &str| Missing::No(why.to_owned());
        let at = Filter {
            after: named.position.0.checked_sub(1).map(Position),
            limit: 1,
            ..Filter::default()
        };
        // Once more if it is carried forward between the two looks.
        for _ in 0..2 {
            let rows = self.reader().list(&at).await;
            let row = rows.map_err(|error| broken(&error))?.pop();
            let row = row.filter(|row| {
                (row.half.position, row.half.queue_offset) == (named.position, named.queue_offset)
            });
            let Some(row) = row else {
                return Err(missing(NO_LONGER));
            };
            let half = &row.half;
            if half.group.as_str() != named.group {
                return Err(missing(OTHER_GROUP));
            }
            if named.id.is_some_and(|id| id != half.id) {
                return Err(missing(OTHER_TRANSACTION));
            }
            match half::kept(&**running.broker.log(), &row) {
                Ok(stored) => {
                    let located = judge(&stored, named, half.id, commit)?;
                    return Ok(Located {
                        half: row.half,
                        ..located
                    });
                }
                // Nobody needs the bytes of what is decided; with them went the words it was known by.
                Err(_) if row.state.is_decided() => {
                    return Ok(Located {
                        half: row.half,
                        copy: None,
                    });
                }
                Err(ReadError::Gone(_)) => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        Err(missing(NO_LONGER))
    }
}

/// Compares the half message of transaction `id` that is `stored` with what is said of it.
fn judge(
    stored: &Stored,
    named: &Named<'_>,
    id: TransactionId,
    commit: bool,
) -> Result<Located, Missing> {
    let view =
        RecordView::parse(&stored.bytes).map_err(|error| Missing::Broken(error.to_string()))?;
    let decoded = half::decode(&view, id).map_err(|error| Missing::Broken(error.to_string()))?;
    if decoded.half.group.as_str() != named.group {
        return Err(Missing::No(OTHER_GROUP.to_owned()));
    }
    if !named.fits(&view, id) {
        return Err(Missing::No(OTHER_IDS.to_owned()));
    }
    let Decoded { half, queue, .. } = decoded;
    let copy = commit.then(|| {
        let body = stored.bytes.slice_ref(view.body);
        let queue = QueueId::new(half.topic.clone(), queue);
        Final::of(&view, body, half.position, queue)
    });
    Ok(Located { half, copy })
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
