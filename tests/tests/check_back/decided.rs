//! How long it took until transactions were decided, and why they were asked about.

use std::collections::BTreeMap;
use std::time::Duration;

use coordinator::audit::Event;

/// Times to decision.
#[derive(Debug, Default)]
pub(super) struct Times {
    taken: Vec<Duration>,
    reasons: BTreeMap<String, u32>,
}

impl Times {
    /// Takes note of a transaction that was decided after `taken`; `decision` is the last event of its history.
    pub(super) fn add(&mut self, taken: Duration, decision: &Event) {
        self.taken.push(taken);
        let asked = decision.evidence.split("asked: ").nth(1);
        let reason = asked.and_then(|asked| asked.split(',').next());
        let who = format!("{:?}", decision.actor).to_lowercase();
        let words = reason.map_or_else(|| who.clone(), |reason| format!("{who}, {reason}"));
        *self.reasons.entry(words).or_default() += 1;
    }

    /// Prints them; none may be longer than `bound`.
    pub(super) fn conclude(mut self, what: &str, bound: Duration) {
        self.taken.sort_unstable();
        let count = self.taken.len();
        let at = |percent: usize| {
            let rank = (count * percent).div_ceil(100).max(1);
            self.taken.get(rank - 1).copied().unwrap_or_default()
        };
        let [p50, p90, p99, longest] = [50, 90, 99, 100].map(|percent| at(percent).as_millis());
        println!("{what}: {count} transactions decided after");
        println!("    p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, at most {longest} ms");
        for (reason, count) in &self.reasons {
            println!("    {count:5} by {reason}");
        }
        assert!(count > 0, "nothing was left open");
        assert!(at(100) < bound, "it takes too long");
    }
}

#[test]
fn percentiles_are_those_of_the_nearest_rank() {
    let taken = (1..=100).map(Duration::from_millis).collect();
    let times = Times {
        taken,
        ..Times::default()
    };
    times.conclude("a hundred", Duration::from_millis(101));
}
