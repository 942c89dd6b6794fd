//! Time, behind one trait: the only file that reads a clock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in *server time*: microseconds this broker's log has been open, over all its lives.
///
/// It grows with the monotonic clock and continues after a restart where the last durable batch left it, so a wall clock
/// that jumps, a restart included, never makes anything older or younger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ServerTime(pub u64);

impl ServerTime {
    /// This time plus `by`, ending at the largest representable time.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// How long ago `earlier` was, zero if it is later than `self`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Where the time comes from.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Wall clock in milliseconds since 1970. For people and for protocol fields, never for a decision.
    fn wall_ms(&self) -> u64;
    /// Time since some fixed moment before the first call. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the operating system.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one door to the clock"
    )]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one door to the clock"
    )]
    fn wall_ms(&self) -> u64 {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is moved, for tests and simulations.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ms: AtomicU64,
    monotonic_us: AtomicU64,
}

impl ManualClock {
    /// A clock whose wall time is `wall_ms` and whose monotonic time is zero.
    #[must_use]
    pub const fn new(wall_ms: u64) -> Self {
        Self {
            wall_ms: AtomicU64::new(wall_ms),
            monotonic_us: AtomicU64::new(0),
        }
    }

    /// Lets `by` pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.monotonic_us.fetch_add(us, Ordering::SeqCst);
        self.wall_ms.fetch_add(us / 1000, Ordering::SeqCst);
    }

    /// Sets the wall clock only, as an operator or a time server would.
    pub fn set_wall_ms(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic_us.load(Ordering::SeqCst))
    }
}

/// The time of the runtime's timers: stands still and jumps where a test has paused and advances it, so that a program's
/// sleeps and its idea of the time move together.
#[derive(Debug)]
pub struct TimerClock {
    start: tokio::time::Instant,
    wall_ms: u64,
}

impl TimerClock {
    /// A clock whose wall time is `wall_ms` now. Call it inside the runtime.
    #[must_use]
    pub fn new(wall_ms: u64) -> Self {
        Self {
            start: tokio::time::Instant::now(),
            wall_ms,
        }
    }
}

impl Clock for TimerClock {
    fn wall_ms(&self) -> u64 {
        let passed = u64::try_from(self.monotonic().as_millis()).unwrap_or(u64::MAX);
        self.wall_ms.saturating_add(passed)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
