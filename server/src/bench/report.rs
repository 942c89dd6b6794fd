//! What was measured, as it is printed.

use std::borrow::Cow;

use serde::Serialize;

use super::load::Measured;
use crate::failure::Failure;
use crate::output::{Cell, Output};

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// 4 KiB writes with fdatasync on a prewritten file, median over the rounds.
    pub(super) probe_fsync_per_second: f64,
    /// Closed loops.
    pub(super) runs: Vec<Run>,
    /// Single values.
    pub(super) checks: Vec<Check>,
}

/// One closed loop; medians over the rounds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    pub(super) name: Cow<'static, str>,
    pub(super) store: &'static str,
    pub(super) flush: &'static str,
    pub(super) in_flight: usize,
    pub(super) size_bytes: usize,
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) cpu_us_each: f64,
    /// `per_second` over that of log-only with as much in flight in the same round.
    pub(super) ratio_to_log: Option<f64>,
}

impl Run {
    /// Sets the figures to the medians over `rounds`.
    pub(super) fn set(&mut self, rounds: &[Measured]) {
        let of = |figure: fn(&Measured) -> f64| median(rounds.iter().map(figure).collect());
        self.per_second = tenths(of(|round| round.per_second));
        self.p50_us = tenths(of(|round| round.p50.as_secs_f64() * 1e6));
        self.p99_us = tenths(of(|round| round.p99.as_secs_f64() * 1e6));
        self.cpu_us_each = hundredths(of(|round| round.cpu_each.as_secs_f64() * 1e6));
    }
}

/// One value.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    pub(super) name: Cow<'static, str>,
    pub(super) value: f64,
    pub(super) unit: &'static str,
}

/// The middle value, the mean of the two in the middle of an even number, 0 of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or_default();
    if values.len() % 2 == 1 {
        return upper;
    }
    let lower = values
        .get((values.len() / 2).saturating_sub(1))
        .copied()
        .unwrap_or_default();
    f64::midpoint(lower, upper)
}

/// Rounded to tenths.
pub(super) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Rounded to hundredths.
pub(super) fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl Report {
    /// Prints it as one JSON object, or as two tables.
    pub(super) fn print(&self, output: &mut Output) -> Result<(), Failure> {
        if output.is_json() {
            return output.value(self);
        }
        output.line(&format!(
            "this disk: {:.0} writes of 4 KiB with fdatasync per second",
            self.probe_fsync_per_second
        ))?;
        let headings = [
            "run",
            "store",
            "flush",
            "in flight",
            "bytes",
            "per second",
            "p50 us",
            "p99 us",
            "cpu us each",
            "ratio to log",
        ];
        let rows: Vec<_> = self.runs.iter().map(row).collect();
        output.table(&headings, &rows)?;
        let checks: Vec<_> = self
            .checks
            .iter()
            .map(|check| {
                vec![
                    Cell::from(&*check.name),
                    Cell::from(check.value.to_string()),
                    Cell::from(check.unit),
                ]
            })
            .collect();
        if !checks.is_empty() {
            output.line("")?;
            output.table(&["check", "value", "unit"], &checks)?;
        }
        Ok(())
    }
}

fn row(run: &Run) -> Vec<Cell> {
    let ratio = run.ratio_to_log.map(|ratio| format!("{ratio:.2}"));
    vec![
        Cell::from(&*run.name),
        Cell::from(run.store),
        Cell::from(run.flush),
        Cell::from(run.in_flight.to_string()),
        Cell::from(run.size_bytes.to_string()),
        Cell::from(format!("{:.0}", run.per_second)),
        Cell::from(format!("{:.0}", run.p50_us)),
        Cell::from(format!("{:.0}", run.p99_us)),
        Cell::from(format!("{:.1}", run.cpu_us_each)),
        Cell::from(ratio.unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < 1e-9);
        assert!(median(Vec::new()).abs() < 1e-9);
    }
}
