//! How many check-backs each connection still owes an answer, and from when on it is asked no more.
//!
//! A half-open connection swallows whatever is sent, and a Java producer holds 2,000 check-backs and rejects the others. What
//! is beyond [`MOST`] waits until some are answered or their time is up, or is asked over another connection; it costs
//! nothing and counts as nothing meanwhile.

use std::collections::HashMap;

/// Most check-backs that are unanswered over one connection.
pub const MOST: usize = 1_000;
/// Once only so many are left, whoever was passed over is looked at again.
const ROOM_AGAIN: usize = MOST / 2;

/// Counts, by the number of the connection.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    counts: HashMap<u64, usize>,
}

impl Unanswered {
    /// Takes note that what was unanswered over `before` is now unanswered over `after`; `None`: it is not. True if a
    /// connection that may have been full has room again.
    pub(super) fn moved(&mut self, before: Option<u64>, after: Option<u64>) -> bool {
        if before == after {
            return false;
        }
        if let Some(connection) = after {
            *self.counts.entry(connection).or_default() += 1;
        }
        let Some(connection) = before else {
            return false;
        };
        let left = self.counts.get(&connection).map_or(0, |count| count - 1);
        if left == 0 {
            self.counts.remove(&connection);
        } else {
            self.counts.insert(connection, left);
        }
        left == ROOM_AGAIN
    }

    /// Whether nobody is asked over this connection now.
    pub(super) fn is_full(&self, connection: u64) -> bool {
        self.counts
            .get(&connection)
            .is_some_and(|count| *count >= MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_full_until_something_is_answered() {
        let mut unanswered = Unanswered::default();
        for _ in 0..MOST {
            assert!(!unanswered.is_full(1));
            assert!(!unanswered.moved(None, Some(1)));
        }
        assert!(unanswered.is_full(1) && !unanswered.is_full(2));
        unanswered.moved(Some(1), Some(1));
        assert!(unanswered.is_full(1), "asked again over the same one");
        unanswered.moved(Some(1), Some(2));
        assert!(!unanswered.is_full(1), "asked over another one");
    }

    #[test]
    fn half_of_the_answers_make_room_again_and_all_of_them_leave_nothing() {
        let mut unanswered = Unanswered::default();
        for _ in 0..MOST {
            unanswered.moved(None, Some(1));
        }
        let made_room = (0..MOST).filter(|_| unanswered.moved(Some(1), None));
        assert_eq!(made_room.collect::<Vec<_>>(), [MOST - ROOM_AGAIN - 1]);
        assert!(unanswered.counts.is_empty());
    }
}
