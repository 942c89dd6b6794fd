//! The bounded queue of appends that wait for the writer.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;

use super::{AppendError, Full, Ready, Submission, lock};

/// How often more appends are taken along before they are written.
const GATHERINGS: usize = 4;

/// Appends in the order they were accepted; the writer takes all of them at once.
#[derive(Debug)]
pub(super) struct Inbox {
    most: usize,
    most_bytes: usize,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    room: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    submissions: Vec<Submission>,
    bytes: usize,
    /// Somebody was turned away since the writer last took everything.
    full: bool,
    /// The writer waits: waking it when it does not costs a system call for nothing.
    asleep: bool,
    closed: bool,
}

/// What the writer's wait has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// There are appends.
    Arrived,
    /// The time is over.
    TimedOut,
    /// Closed, and everything was taken.
    Closed,
}

impl Inbox {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            most,
            most_bytes,
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            room: Notify::new(),
        }
    }

    pub(super) fn push(&self, submission: Submission) -> Result<(), Full> {
        let bytes = submission
            .entries
            .iter()
            .map(|append| append.entry.payload_len())
            .sum::<usize>();
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            drop(waiting);
            (submission.then)(Err(AppendError::Closed));
            return Ok(());
        }
        // One append alone may be larger than the bound, or it could never be accepted.
        let no_room = waiting.bytes + bytes > self.most_bytes && !waiting.submissions.is_empty();
        if waiting.submissions.len() >= self.most || no_room {
            waiting.full = true;
            return Err(Full(submission));
        }
        waiting.bytes += bytes;
        waiting.submissions.push(submission);
        let wake = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    pub(super) fn ready(&self) -> Ready<'_> {
        Box::pin(async {
            loop {
                let room = self.room.notified();
                let mut room = std::pin::pin!(room);
                // Registered before looking, so that room made in between is not missed.
                room.as_mut().enable();
                if !lock(&self.waiting).full {
                    return;
                }
                room.await;
            }
        })
    }

    /// Takes everything that waits into `into`, which must be empty; `false` if nothing does.
    pub(super) fn take(&self, into: &mut Vec<Submission>) -> bool {
        self.take_from(&mut lock(&self.waiting), into)
    }

    fn take_from(&self, waiting: &mut Waiting, into: &mut Vec<Submission>) -> bool {
        std::mem::swap(&mut waiting.submissions, into);
        waiting.bytes = 0;
        if std::mem::take(&mut waiting.full) {
            self.room.notify_waiters();
        }
        !into.is_empty()
    }

    /// Lets other threads go first while that brings more appends, a few times at most, and takes those along: a write and
    /// its fsync cost about the same whatever is in them. Returns at once when nobody else has anything to do.
    pub(super) fn gather(&self, into: &mut Vec<Submission>) {
        let mut more = Vec::new();
        for _ in 0..GATHERINGS {
            thread::yield_now();
            if !self.take(&mut more) {
                return;
            }
            into.append(&mut more);
        }
    }

    /// Waits, at most for `at_most` if given, and takes everything.
    pub(super) fn wait(&self, into: &mut Vec<Submission>, at_most: Option<Duration>) -> Waited {
        let mut waiting = lock(&self.waiting);
        loop {
            if !waiting.submissions.is_empty() {
                self.take_from(&mut waiting, into);
                return Waited::Arrived;
            }
            if waiting.closed {
                return Waited::Closed;
            }
            waiting.asleep = true;
            let Some(at_most) = at_most else {
                waiting = self
                    .arrived
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (guard, timeout) = self
                .arrived
                .wait_timeout(waiting, at_most)
                .unwrap_or_else(PoisonError::into_inner);
            waiting = guard;
            if timeout.timed_out() && waiting.submissions.is_empty() && !waiting.closed {
                waiting.asleep = false;
                return Waited::TimedOut;
            }
        }
    }

    /// Answers what waits, for want of a writer that will.
    pub(super) fn answer_all(&self, error: impl Fn() -> AppendError) {
        let mut left = Vec::new();
        self.take(&mut left);
        for submission in left {
            (submission.then)(Err(error()));
        }
    }

    /// Refuses whatever comes from now on; what waits is still taken.
    pub(super) fn close(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.closed = true;
        waiting.full = false;
        drop(waiting);
        self.arrived.notify_all();
        self.room.notify_waiters();
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.answer_all(|| AppendError::Closed);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::super::conformance::note;
    use super::super::{BROKER, Flush};
    use super::*;

    fn submission(bytes: usize) -> Submission {
        Submission {
            entries: vec![note(BROKER, &vec![0; bytes])],
            flush: Flush::Sync,
            then: Box::new(|_| ()),
        }
    }

    #[test]
    fn both_bounds_hold_and_ready_waits_for_the_writer() {
        let inbox = Inbox::new(3, 100);
        let mut context = Context::from_waker(Waker::noop());
        inbox
            .push(submission(500))
            .expect("one alone may be larger");
        assert!(inbox.push(submission(1)).is_err(), "by bytes");
        let mut ready = inbox.ready();
        assert!(ready.as_mut().poll(&mut context).is_pending());
        let mut taken = Vec::new();
        assert!(inbox.take(&mut taken));
        assert!(ready.as_mut().poll(&mut context).is_ready());
        drop(ready);
        for _ in 0..3 {
            inbox.push(submission(1)).unwrap();
        }
        assert!(inbox.push(submission(1)).is_err(), "by count");
    }

    #[test]
    fn what_has_come_meanwhile_is_taken_along_in_order() {
        let inbox = Inbox::new(3, 100);
        let lengths = |taken: &[Submission]| {
            let entries = taken.iter().flat_map(|one| &one.entries);
            entries
                .map(|append| append.entry.payload_len())
                .collect::<Vec<_>>()
        };
        inbox.push(submission(1)).unwrap();
        let mut taken = Vec::new();
        assert_eq!(inbox.wait(&mut taken, None), Waited::Arrived);
        inbox.push(submission(2)).unwrap();
        inbox.push(submission(3)).unwrap();
        inbox.gather(&mut taken);
        assert_eq!(lengths(&taken), [1, 2, 3]);
        inbox.gather(&mut taken);
        assert_eq!(lengths(&taken), [1, 2, 3], "and nobody waits for more");
    }

    #[test]
    fn a_closed_inbox_still_gives_what_it_has() {
        let inbox = Inbox::new(3, 100);
        inbox.push(submission(1)).unwrap();
        inbox.close();
        let mut taken = Vec::new();
        assert_eq!(inbox.wait(&mut taken, None), Waited::Arrived);
        taken.clear();
        assert_eq!(inbox.wait(&mut taken, None), Waited::Closed);
        let (tell, told) = std::sync::mpsc::channel();
        let then = Box::new(
            move |placed: Result<&[super::super::Placed], AppendError>| {
                tell.send(placed.map(|_| ())).unwrap()
            },
        );
        inbox
            .push(Submission {
                then,
                ..submission(1)
            })
            .unwrap();
        assert_eq!(told.recv().unwrap(), Err(AppendError::Closed));
    }
}
