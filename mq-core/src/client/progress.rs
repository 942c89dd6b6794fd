//! How far a consumer is in one queue: pure.

use std::collections::BTreeSet;

/// What was fetched of a queue and what of it is unfinished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    next: u64,
    unfinished: BTreeSet<u64>,
}

impl Progress {
    /// Nothing fetched yet; the first offset wanted is `start`.
    pub(super) const fn new(start: u64) -> Self {
        Self {
            next: start,
            unfinished: BTreeSet::new(),
        }
    }

    /// Everything before `next` was fetched; `wanted` of it are messages for the consumer.
    pub(super) fn fetched(&mut self, next: u64, wanted: impl IntoIterator<Item = u64>) {
        self.unfinished.extend(wanted);
        self.next = next;
    }

    /// A message is done with.
    pub(super) fn finish(&mut self, offset: u64) {
        self.unfinished.remove(&offset);
    }

    /// The offset that may be committed: everything before it is finished.
    pub(super) fn safe(&self) -> u64 {
        self.unfinished.first().copied().unwrap_or(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_unfinished_message_holds_the_progress() {
        let mut progress = Progress::new(10);
        progress.fetched(15, [10, 12, 14]);
        progress.finish(12);
        progress.finish(14);
        assert_eq!(progress.safe(), 10);
        progress.finish(10);
        assert_eq!(progress.safe(), 15, "messages for nobody are passed too");
    }

    proptest! {
        #[test]
        fn progress_never_passes_an_unfinished_message(
            wanted in proptest::collection::btree_set(0..50_u64, 0..50),
            order in proptest::collection::vec(0..50_u64, 0..60),
        ) {
            let mut progress = Progress::new(0);
            progress.fetched(50, wanted.iter().copied());
            let mut open = wanted;
            for offset in order {
                progress.finish(offset);
                open.remove(&offset);
                prop_assert_eq!(progress.safe(), open.first().copied().unwrap_or(50));
            }
        }
    }
}
