//! A closed loop: so many tasks, each doing one thing after the other, measured after a warm-up.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use mq_core::clock::Clock;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;

/// How much load, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Tasks; each waits for its answer before it goes on.
    pub(super) in_flight: usize,
    /// Not measured.
    pub(super) warm_up: Duration,
    /// Measured.
    pub(super) measured: Duration,
}

/// What a closed loop did while it was measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// Finished in a second.
    pub(super) per_second: f64,
    /// Half of all took at most so long.
    pub(super) p50: Duration,
    /// 99 of 100 took at most so long.
    pub(super) p99: Duration,
    /// User and system time of this process for each, the load's own included.
    pub(super) cpu_each: Duration,
}

pub(super) const WARMING: u8 = 0;
pub(super) const MEASURING: u8 = 1;
pub(super) const DONE: u8 = 2;

/// Runs `operation` in a closed loop. The first error ends it.
pub(super) async fn closed_loop<Operation, Done>(
    load: Load,
    clock: Arc<dyn Clock>,
    operation: Operation,
) -> Result<Measured, String>
where
    Operation: Fn() -> Done + Clone + Send + 'static,
    Done: Future<Output = Result<(), String>> + Send + 'static,
{
    let phase = Arc::new(AtomicU8::new(WARMING));
    let mut slots = JoinSet::new();
    for _ in 0..load.in_flight {
        slots.spawn(slot(operation.clone(), clock.clone(), phase.clone()));
    }
    tokio::time::sleep(load.warm_up).await;
    let (began, cpu_before) = (clock.monotonic(), cpu_time());
    phase.store(MEASURING, Ordering::SeqCst);
    tokio::time::sleep(load.measured).await;
    phase.store(DONE, Ordering::SeqCst);
    let (passed, cpu) = (
        clock.monotonic().saturating_sub(began),
        cpu_time().saturating_sub(cpu_before),
    );
    let mut latencies = Vec::new();
    while let Some(ended) = slots.join_next().await {
        latencies.extend(ended.map_err(|error| error.to_string())??);
    }
    latencies.sort_unstable();
    let count = u32::try_from(latencies.len()).unwrap_or(u32::MAX);
    if count == 0 {
        return Err(format!("nothing was finished in {passed:?}"));
    }
    Ok(Measured {
        per_second: f64::from(count) / passed.as_secs_f64(),
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        cpu_each: cpu / count,
    })
}

/// One task of the loop. Returns how long everything took that ended while it was measured, in microseconds.
async fn slot<Operation, Done>(
    operation: Operation,
    clock: Arc<dyn Clock>,
    phase: Arc<AtomicU8>,
) -> Result<Vec<u32>, String>
where
    Operation: Fn() -> Done,
    Done: Future<Output = Result<(), String>>,
{
    let mut latencies = Vec::new();
    let mut began = clock.monotonic();
    loop {
        operation().await?;
        let ended = clock.monotonic();
        match phase.load(Ordering::Relaxed) {
            WARMING => {}
            MEASURING => {
                let took = ended.saturating_sub(began).as_micros();
                latencies.push(u32::try_from(took).unwrap_or(u32::MAX));
            }
            _ => return Ok(latencies),
        }
        began = ended;
    }
}

/// The value that `percent` of all values of a sorted list do not exceed.
pub(super) fn percentile(sorted: &[u32], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    Duration::from_micros(sorted.get(rank - 1).copied().unwrap_or_default().into())
}

/// User and system time of all threads of this process.
pub(super) fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mq_core::clock::SystemClock;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<u32> = (1..=200).collect();
        assert_eq!(percentile(&sorted, 50), Duration::from_micros(100));
        assert_eq!(percentile(&sorted, 99), Duration::from_micros(198));
        assert_eq!(percentile(&[7], 50), Duration::from_micros(7));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[tokio::test]
    async fn the_first_error_ends_the_loop() {
        let load = Load {
            in_flight: 2,
            warm_up: Duration::ZERO,
            measured: Duration::from_millis(1),
        };
        let ended = closed_loop(load, Arc::new(SystemClock::new()), async || {
            Err("full".to_owned())
        });
        assert_eq!(ended.await.unwrap_err(), "full");
    }
}
