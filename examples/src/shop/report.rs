//! What people are told of the books in the end.

use std::io::IsTerminal as _;

use super::reconcile::{Check, Summary};

/// Whether everything adds up.
#[must_use]
pub fn adds_up(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.found.is_empty())
}

/// The numbers, the checks, and one line that sums everything up.
#[must_use]
pub fn text(summary: &Summary, checks: &[Check]) -> String {
    let mut out = "The books\n".to_owned();
    out.push_str(&table(&numbers(summary)));
    out.push('\n');
    for check in checks {
        let sign = if check.found.is_empty() { "ok " } else { "NOT" };
        out.push_str(&format!("{sign} {}\n", check.what));
        for found in &check.found {
            out.push_str(&format!("      {found}\n"));
        }
    }
    out.push_str(&last_line(summary, checks));
    out.push('\n');
    out
}

fn numbers(summary: &Summary) -> Vec<(&'static str, String)> {
    let s = summary;
    vec![
        ("orders", s.orders.to_string()),
        ("  accepted", s.accepted.to_string()),
        ("  cancelled, no stock", s.no_stock.to_string()),
        ("  cancelled, payment refused", s.not_paid.to_string()),
        ("  rejected by a rule, rolled back", s.rejected.to_string()),
        (
            "  placing decided by check-back",
            s.placed_by_check_back.to_string(),
        ),
        ("transactions", s.transactions.to_string()),
        (
            "  committed",
            format!("{}, published {}", s.committed, s.published),
        ),
        ("  rolled back", s.rolled_back.to_string()),
        ("  decided by their producer", s.by_producer.to_string()),
        (
            "  decided by check-back",
            format!(
                "{}, {} of them with a tombstone",
                s.by_check_back, s.tombstones
            ),
        ),
        ("money captured", money(s.captured_cents)),
        (
            "units on hand",
            format!(
                "{}, after {} deliveries of {} units",
                s.on_hand, s.deliveries, s.delivered
            ),
        ),
    ]
}

/// One line that sums everything up.
#[must_use]
pub fn last_line(s: &Summary, checks: &[Check]) -> String {
    let hold = checks.iter().filter(|c| c.found.is_empty()).count();
    let verdict = if adds_up(checks) {
        "all adds up"
    } else {
        "IT DOES NOT ADD UP"
    };
    format!(
        "reconciled {} orders ({} accepted, {} without stock, {} unpaid, {} rolled back; {} decided by check-back), \
         {} transactions, {} captured, {hold} of {} checks: {verdict}",
        s.orders,
        s.accepted,
        s.no_stock,
        s.not_paid,
        s.rejected,
        s.placed_by_check_back,
        s.transactions,
        money(s.captured_cents),
        checks.len(),
    )
}

fn money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// Rows of two columns: with lines on a terminal, plain elsewhere.
#[must_use]
pub fn table(rows: &[(&'static str, String)]) -> String {
    if !std::io::stdout().is_terminal() {
        let lines = rows
            .iter()
            .map(|(left, right)| format!("{left:<36}{right}\n"));
        return lines.collect();
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
    for (left, right) in rows {
        table.add_row([*left, right]);
    }
    table.to_string() + "\n"
}
