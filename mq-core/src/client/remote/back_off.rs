//! When to try again what has failed: a pure function.

use std::time::Duration;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause. Nobody can be asked before it is connected again, so a broker that is back must not wait long.
const LONGEST: Duration = Duration::from_secs(1);

/// How long to wait after this many failures in a row: doubling, capped, and up to a quarter longer by `chance`, so that
/// many clients do not come back in one moment.
pub(super) fn pause(failures: u32, chance: u64) -> Duration {
    let doubled = FIRST.saturating_mul(
        1_u32
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u32::MAX),
    );
    let pause = doubled.min(LONGEST);
    pause + (pause / 400) * u32::try_from(chance % 100).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_cap_and_differ_by_chance() {
        let pauses: Vec<_> = (1..9).map(|n| pause(n, 0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000, 1000, 1000]);
        assert_eq!(pause(u32::MAX, 0), LONGEST);
        for chance in 0..1000 {
            let pause = pause(3, chance);
            assert!((400..500).contains(&pause.as_millis()), "{pause:?}");
        }
    }
}
