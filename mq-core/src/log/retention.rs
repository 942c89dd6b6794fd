//! Retention: which segments are due to go, and letting them go.
//!
//! A segment is due once everything in it is old enough, or while the log has more bytes than it shall have. Owners hear of
//! it first and carry forward what they still need. Then, in this order, so that a crash between any two steps loses nothing:
//! a note in the log says where queues end of which nothing will be left; indexes and range forget the segments; a checkpoint
//! says so durably; the files are removed. A start removes what is left over.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::layout::{BATCH_HEADER_BYTES, Item};
use super::open::Settings;
use super::queue_ends;
use super::queue_index::FlushError;
use super::segments::Segment;
use super::shared::Shared;
use super::steps::{TRIM_FORGOTTEN, TRIM_NOTED, TRIM_REMOVED};
use super::window::Window;
use super::{BROKER, Flush, NOTE_MAX_BYTES, OwnerId, Position, Submission, lock};
use crate::clock::ServerTime;

/// How far retention has come.
#[derive(Debug)]
pub(super) struct Retention {
    /// What each owner wants to be kept, as far as it has said so.
    keep: Mutex<BTreeMap<OwnerId, u64>>,
    wanted: watch::Sender<Position>,
    noted: Arc<Mutex<Noted>>,
    /// Segments that nobody sees any more and whose files go once a checkpoint no longer has them.
    condemned: Mutex<Vec<Segment>>,
    /// Where the log begins according to the checkpoint that is durable.
    deleted: AtomicU64,
}

/// The note about queues of which nothing will be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    Nothing,
    /// It is with the log's writer.
    Waiting,
    /// It is durable, and good for a deletion up to this position.
    Durable(u64),
}

impl Retention {
    /// For a log that begins at `begins`.
    pub(super) fn new(begins: u64) -> Self {
        Self {
            keep: Mutex::default(),
            wanted: watch::Sender::new(Position(0)),
            noted: Arc::new(Mutex::new(Noted::Nothing)),
            condemned: Mutex::default(),
            deleted: AtomicU64::new(begins),
        }
    }

    /// As [`super::Log::deleted`].
    pub(super) fn deleted(&self) -> Position {
        Position(self.deleted.load(Ordering::Acquire))
    }

    pub(super) fn wanted(&self) -> watch::Receiver<Position> {
        self.wanted.subscribe()
    }

    /// What all `owners` together want to be kept.
    fn floor(&self, owners: &[OwnerId]) -> u64 {
        let keep = lock(&self.keep);
        let of = |owner: &OwnerId| keep.get(owner).copied().unwrap_or(0);
        owners
            .iter()
            .map(of)
            .min()
            .unwrap_or(u64::MAX)
            .min(of(&BROKER))
    }
}

/// Start of the oldest segment that stays. `all` are the segments up to the one that is written, oldest first, and `last_at`
/// says when the last record of one may have been written, at the latest.
fn due<E>(
    all: &[Segment],
    settings: &Settings,
    now: ServerTime,
    mut last_at: impl FnMut(Segment, Segment) -> Result<ServerTime, E>,
) -> Result<u64, E> {
    let mut bytes: u64 = all.iter().map(|segment| segment.length).sum();
    let mut from = all.first().map_or(0, |segment| segment.start);
    for pair in all.windows(2) {
        let [segment, next] = pair else { break };
        let too_many = settings.keep_bytes.is_some_and(|most| bytes > most);
        let too_old = |age: Duration| Ok(now.since(last_at(*segment, *next)?) > age);
        if !too_many && !settings.keep_for.map_or(Ok(false), too_old)? {
            break;
        }
        bytes -= segment.length;
        from = next.start;
    }
    Ok(from)
}

impl Shared {
    /// As [`super::Log::keep_from`].
    pub(super) fn keep_from(&self, owner: OwnerId, position: Position) {
        let mut keep = lock(&self.retention.keep);
        let kept = keep.entry(owner).or_default();
        if position.0 > *kept {
            *kept = position.0;
            drop(keep);
            self.upkeep.want_retention();
        }
    }

    /// Goes one step further: tells the owners what is due, notes what must be noted, or lets go of what nobody keeps.
    /// Whatever fails is tried again the next time.
    pub(super) fn retain(&self) {
        if self.settings.keep_for.is_none() && self.settings.keep_bytes.is_none() {
            return;
        }
        if self.failure.borrow().is_some() {
            return;
        }
        let all = self.segments_in_use();
        let due = due(&all, &self.settings, self.time.now(), |_, next| {
            self.first_at(next)
        });
        let due = match due {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "the age of a segment is not known; nothing is deleted");
                return;
            }
        };
        let rises = |wanted: &mut Position| {
            let rises = due > wanted.0;
            wanted.0 = due.max(wanted.0);
            rises
        };
        self.retention.wanted.send_if_modified(rises);
        let allowed = due.min(self.retention.floor(&self.settings.owners));
        let stays = |segment: &&Segment| segment.end() > allowed;
        let Some(from) = all.iter().find(stays).map(|segment| segment.start) else {
            return;
        };
        if all.first().is_some_and(|first| first.start < from) {
            self.delete_before(from);
        }
    }

    /// The segments from the oldest to the one that holds the end of what is visible.
    fn segments_in_use(&self) -> Vec<Segment> {
        let end = self.visible();
        let mut all = self.segments.all();
        all.retain(|segment| segment.start < end);
        all
    }

    /// Server time of the first batch of a segment.
    fn first_at(&self, segment: Segment) -> Result<ServerTime, super::ReadError> {
        let at = segment.first_batch();
        let mut window = Window::new(&self.segments, &self.codec);
        window.look(at, BATCH_HEADER_BYTES as u64)?;
        match window.item(at)? {
            Ok(Item::Batch(header)) => Ok(header.at),
            Ok(Item::Record(_)) => Err(segment.damaged(at, "a record stands where a batch should")),
            Err(why) => Err(segment.damaged(at, why)),
        }
    }

    fn delete_before(&self, from: u64) {
        let noted = *lock(&self.retention.noted);
        match noted {
            Noted::Waiting => return,
            Noted::Durable(good_for) if good_for >= from => {}
            Noted::Nothing | Noted::Durable(_) => return self.note_ends(from),
        }
        *lock(&self.retention.noted) = Noted::Nothing;
        self.steps.at(TRIM_NOTED);
        if let Err(error) = self.queues.forget_before(from) {
            tracing::warn!(%error, "the index of a queue cannot be read; nothing is deleted");
            return;
        }
        let gone = self.segments.forget_before(from);
        tracing::info!(
            segments = gone.len(),
            from,
            "the oldest segments of the log are deleted"
        );
        lock(&self.retention.condemned).extend(gone);
        if let Err(FlushError::Write(error)) = self.checkpoint(false) {
            tracing::warn!(%error, "a checkpoint could not be written; segments are deleted later");
        }
    }

    /// Notes where queues end of which nothing will be left behind `from`.
    fn note_ends(&self, from: u64) {
        let ends = match self.queues.ends_before(from) {
            Ok(ends) => ends,
            Err(error) => {
                tracing::warn!(%error, "the index of a queue cannot be read; nothing is deleted");
                return;
            }
        };
        *lock(&self.retention.noted) = Noted::Waiting;
        let most = NOTE_MAX_BYTES.min(self.settings.append_max_bytes() as usize / 2);
        let mut notes = queue_ends::notes(&ends, from, most);
        let last = notes.pop();
        let submissions = notes.into_iter().map(|note| (note, None));
        let submissions = submissions.chain(last.map(|note| (note, Some(from))));
        for (note, last) in submissions {
            let (noted, upkeep) = (Arc::clone(&self.retention.noted), Arc::clone(&self.upkeep));
            let submission = Submission {
                entries: vec![note],
                flush: Flush::Sync,
                // One that failed is followed by others that fail: nothing is deleted then.
                then: Box::new(move |placed| match (placed, last) {
                    (Ok(_), Some(from)) => {
                        *lock(&noted) = Noted::Durable(from);
                        upkeep.want_retention();
                    }
                    (Ok(_), None) => {}
                    (Err(_), _) => *lock(&noted) = Noted::Nothing,
                }),
            };
            if self.inbox.push(submission).is_err() {
                *lock(&self.retention.noted) = Noted::Nothing;
                return;
            }
        }
    }

    /// Removes the files that the checkpoint which is durable now, of a log that begins at `begins`, does not have any more.
    pub(super) fn remove_condemned(&self, begins: u64) {
        self.retention.deleted.store(begins, Ordering::Release);
        let condemned = std::mem::take(&mut *lock(&self.retention.condemned));
        if !condemned.is_empty() {
            self.steps.at(TRIM_FORGOTTEN);
        }
        for segment in condemned {
            match self.files.remove(segment.name()) {
                Ok(()) => self.steps.at(TRIM_REMOVED),
                Err(error) => {
                    tracing::warn!(%error, segment = %segment.name(), "a segment could not be removed; the next start does it");
                }
            }
        }
        self.queues.free_before();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENTS: u64 = 5;

    fn segments() -> Vec<Segment> {
        (0..SEGMENTS)
            .map(|number| Segment {
                start: number * 100,
                length: 100,
            })
            .collect()
    }

    /// What is due `now`, where segment `n` was closed at `n + 1` seconds.
    fn due_at(seconds: u64, keep_for: Option<u64>, keep_bytes: Option<u64>) -> u64 {
        let settings = Settings {
            keep_for: keep_for.map(Duration::from_secs),
            keep_bytes,
            ..Settings::default()
        };
        let closed = |_, next: Segment| Ok::<_, ()>(ServerTime(next.start / 100 * 1_000_000));
        due(
            &segments(),
            &settings,
            ServerTime(seconds * 1_000_000),
            closed,
        )
        .unwrap()
    }

    #[test]
    fn a_segment_is_due_once_everything_in_it_is_older() {
        let at = |seconds| due_at(seconds, Some(10), None);
        assert_eq!([11, 12, 13, 15, 100].map(at), [0, 100, 200, 400, 400]);
    }

    #[test]
    fn the_oldest_are_due_while_there_are_too_many_bytes() {
        let most = |bytes| due_at(0, None, Some(bytes));
        assert_eq!([500, 499, 300, 250, 1].map(most), [0, 100, 200, 300, 400]);
    }

    #[test]
    fn without_a_limit_nothing_is_due_and_the_segment_that_is_written_never() {
        assert_eq!(due_at(1_000_000, None, None), 0);
        assert_eq!(due_at(1_000_000, Some(0), Some(0)), 400);
    }
}
