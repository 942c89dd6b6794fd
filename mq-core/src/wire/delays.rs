//! RocketMQ's delay levels (`messageDelayLevel`).

use std::time::Duration;

/// How many levels there are; a message says 1 to this.
pub const LEVELS: usize = 18;

/// Seconds of each level: `1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h`.
const SECONDS: [u64; LEVELS] = [
    1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200,
];

/// How long a level waits: level 0 not at all, levels above the last as long as the last.
#[must_use]
pub fn delay(level: u8) -> Duration {
    let Some(index) = usize::from(level).checked_sub(1) else {
        return Duration::ZERO;
    };
    let seconds = SECONDS
        .get(index)
        .or(SECONDS.last())
        .copied()
        .unwrap_or_default();
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_end_at_the_last() {
        assert_eq!(delay(0), Duration::ZERO);
        assert_eq!(delay(1), Duration::from_secs(1));
        assert_eq!(delay(4), Duration::from_secs(30));
        assert_eq!(delay(18), Duration::from_secs(7200));
        assert_eq!(delay(200), Duration::from_secs(7200));
    }
}
