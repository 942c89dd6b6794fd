//! The bounded queue of appends that wait for the writer.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;

use super::{AppendError, Flush, Full, Ready, Submission, lock};

/// How often more appends are taken along before they are written.
const GATHERINGS: usize = 4;
/// So long [`Flush::Along`] waits for others.
const ALONG: Duration = Duration::from_millis(1);

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
    /// What the writer waits for: waking it for anything else costs a system call for nothing.
    wakes: Wakes,
    closed: bool,
}

/// What wakes the writer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Wakes {
    /// It is awake.
    #[default]
    Nothing,
    /// It has nothing to do.
    Anything,
    /// It has what may go along with something else.
    Company,
}

impl Wakes {
    fn by(self, flush: Flush) -> bool {
        match self {
            Self::Nothing => false,
            Self::Anything => true,
            Self::Company => flush != Flush::Along,
        }
    }
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
        let wake = waiting.wakes.by(submission.flush);
        if wake {
            waiting.wakes = Wakes::Nothing;
        }
        waiting.submissions.push(submission);
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

    /// If all of `into` may go along with something else: waits for that, not for long, and takes everything.
    pub(super) fn wait_for_company(&self, into: &mut Vec<Submission>) {
        let is_company = |one: &Submission| one.flush != Flush::Along;
        if into.iter().any(is_company) {
            return;
        }
        let mut more = Vec::new();
        let mut waiting = lock(&self.waiting);
        if !waiting.submissions.iter().any(is_company) {
            waiting.wakes = Wakes::Company;
            let woken = self.arrived.wait_timeout(waiting, ALONG);
            (waiting, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
        waiting.wakes = Wakes::Nothing;
        self.take_from(&mut waiting, &mut more);
        drop(waiting);
        into.append(&mut more);
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
            waiting.wakes = Wakes::Anything;
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
                waiting.wakes = Wakes::Nothing;
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
    fn what_nobody_waits_for_goes_along_with_something_else() {
        let along = || Submission {
            flush: Flush::Along,
            ..submission(1)
        };
        let inbox = Inbox::new(9, 100);
        inbox.push(along()).unwrap();
        let mut taken = Vec::new();
        assert_eq!(inbox.wait(&mut taken, None), Waited::Arrived);
        inbox.wait_for_company(&mut taken);
        assert_eq!(
            taken.len(),
            1,
            "nothing came, and it is written all the same"
        );
        inbox.push(along()).unwrap();
        inbox.push(submission(1)).unwrap();
        inbox.wait_for_company(&mut taken);
        assert_eq!(taken.len(), 3);
        inbox.push(submission(1)).unwrap();
        inbox.wait_for_company(&mut taken);
        assert_eq!(taken.len(), 3, "it has company");
    }

    #[test]
    fn the_writer_is_woken_for_company_only() {
        assert!(Wakes::Anything.by(Flush::Along));
        assert!(!Wakes::Company.by(Flush::Along));
        assert!(Wakes::Company.by(Flush::Sync) && Wakes::Company.by(Flush::Async));
        assert!(!Wakes::Nothing.by(Flush::Sync));
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
