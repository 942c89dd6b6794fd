//! The coordinator's settings, with their defaults and reasons.

use std::time::Duration;

use crate::transaction::MarkerIdentity;

/// Settings of a coordinator. All ages are in server time.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most half messages whose row is not in SQL yet; behind that new ones are refused as busy.
    pub waiting_halves: usize,
    /// Most resolutions that wait for the SQL writer; behind that callers wait.
    pub waiting_resolutions: usize,
    /// Most resolutions in one SQL batch. 512: larger ones make load and writer take turns.
    pub batch: usize,
    /// How long the row of a half message is held back in memory, so that most decisions meet it in one batch.
    pub hold: Duration,
    /// Check-backs.
    pub check_back: CheckBackSettings,
    /// How long decided transactions and their history are kept at least, in server time; for ever unless set. Seals stay, and
    /// so does what is open, waits to be published, or has its half message in the log.
    pub keep_history: Option<Duration>,
    /// How many contradictions of one transaction, and how many repeats of its decision, get a row in the history; further
    /// ones are only counted.
    pub recorded_contradictions: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            waiting_halves: 16_384,
            waiting_resolutions: 8_192,
            batch: 512,
            hold: Duration::from_millis(50),
            check_back: CheckBackSettings::default(),
            keep_history: None,
            recorded_contradictions: 8,
        }
    }
}

/// When and how often producers are asked.
#[derive(Debug, Clone)]
pub struct CheckBackSettings {
    /// Age before the first check-back of a producer without markers (RocketMQ `transactionTimeOut`).
    pub immunity: Duration,
    /// How long a sender must have had no connection before another instance is asked.
    pub grace: Duration,
    /// Wait before the second check-back; doubles with each.
    pub first_wait: Duration,
    /// Longest wait between check-backs (RocketMQ `transactionCheckInterval`).
    pub longest_wait: Duration,
    /// Wait after *in flight*; doubles up to [`Self::in_flight_longest`].
    pub in_flight_first: Duration,
    /// Longest wait after *in flight*.
    pub in_flight_longest: Duration,
    /// How long an answer is waited for before the check-back counts as unanswered.
    pub answer_within: Duration,
    /// How many check-backs may be answered with UNKNOWN before the transaction is parked (RocketMQ `transactionCheckMax`).
    pub budget: u32,
    /// When a sweep is due at the latest: a cron expression with seconds.
    pub cron: String,
}

impl Default for CheckBackSettings {
    fn default() -> Self {
        Self {
            immunity: Duration::from_secs(6),
            grace: Duration::from_millis(500),
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(60),
            in_flight_first: Duration::from_millis(50),
            in_flight_longest: Duration::from_secs(1),
            answer_within: Duration::from_secs(1),
            budget: 15,
            cron: "* * * * * *".into(),
        }
    }
}

impl CheckBackSettings {
    /// At what age a half message is due for its first check-back, given the age it `asked` for.
    ///
    /// A producer with a marker can answer at any time, *in flight* included; one without is left alone while it is immune.
    #[must_use]
    pub fn first_wait_of(
        &self,
        marker: Option<MarkerIdentity>,
        asked: Option<Duration>,
    ) -> Duration {
        let usual = if marker.is_some() {
            self.first_wait
        } else {
            self.immunity
        };
        asked.unwrap_or(usual)
    }
}
