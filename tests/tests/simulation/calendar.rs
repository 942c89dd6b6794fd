//! The clocks of a machine whose wall clock jumps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mq_core::clock::{Clock, TimerClock};

use super::dice::Dice;

/// The calendar when a run begins, ms since 1970.
const FIRST_DAY: u64 = 1_700_000_000_000;
const DAY: u64 = 86_400_000;
/// How far the wall clock goes wrong, in either direction.
const DAYS: u64 = 400;

/// Simulated time for everything; the wall clock stands anywhere.
#[derive(Debug)]
pub(super) struct Calendar {
    timer: TimerClock,
    wall_ms: AtomicU64,
}

impl Calendar {
    /// A machine that has just started, with a wall clock from the dice. Call it inside the runtime.
    pub(super) fn new(dice: &Dice) -> Self {
        Self {
            timer: TimerClock::new(0),
            wall_ms: AtomicU64::new(somewhen(dice)),
        }
    }

    /// The wall clock jumps.
    pub(super) fn jump(&self, dice: &Dice) {
        self.wall_ms.store(somewhen(dice), Ordering::Relaxed);
    }
}

fn somewhen(dice: &Dice) -> u64 {
    FIRST_DAY + dice.below(2 * DAYS) * DAY - DAYS * DAY
}

impl Clock for Calendar {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Relaxed) + self.timer.wall_ms()
    }

    fn monotonic(&self) -> Duration {
        self.timer.monotonic()
    }
}
