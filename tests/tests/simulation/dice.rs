//! Chance, from the seed alone.

use std::time::Duration;

use mq_core::random::{Random, SeededRandom};

/// Everything random in a run comes from here, in the order of the run.
#[derive(Debug)]
pub(super) struct Dice(SeededRandom);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    /// 0 to `n` - 1.
    pub(super) fn below(&self, n: u64) -> u64 {
        self.0.next_u64() % n
    }

    /// True `percent` times of a hundred.
    pub(super) fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Up to `longest`, mostly short.
    pub(super) fn time(&self, longest: Duration) -> Duration {
        let whole = u64::try_from(longest.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        let bound = 1 + self.below(whole);
        Duration::from_micros(self.below(bound))
    }
}

impl Random for Dice {
    fn next_u64(&self) -> u64 {
        self.0.next_u64()
    }
}
