//! The SQL texts of the writer. Statements that go out in one call are written one after the other.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::encode::{EVENT_ARGUMENTS, ROW_ARGUMENTS};

/// Rows of one multi-row INSERT, largest first; what is left over travels as JSON.
pub(super) const CHUNKS: [usize; 4] = [256, 128, 64, 32];

/// Begins a batch. A writer that no longer owns the store makes `seq` NULL, which the table refuses, so that nothing
/// behind it runs.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE; UPDATE owner SET seq = CASE WHEN epoch = ? AND seq = ? THEN ? END, \
batch = ?, watermark = ?, published = ?, last_decision = ?, next_event = ?, head = ?, fingerprint = ? WHERE one = 1; ";

/// Ends a batch.
pub(super) const SEAL_AND_COMMIT: &str = "INSERT INTO seal (seq, first_event, count, published, wall_ms, hash, leaves) \
VALUES (?, ?, ?, ?, ?, ?, ?); COMMIT";

/// Stands behind a statement that must have changed exactly so many rows, and fails if it has not.
pub(super) const GUARD: &str =
    "UPDATE owner SET seq = CASE WHEN changes() = ? THEN seq END WHERE one = 1; ";

/// What SQLite says when [`GUARD`] or [`BEGIN`] fails.
pub(super) const GUARD_FAILED: &str = "NOT NULL constraint failed: owner.seq";

/// New texts: id, text.
pub(super) const NAMES: &str =
    "INSERT INTO name (id, text) SELECT value ->> 0, value ->> 1 FROM jsonb_each(?); ";

/// New identities: id, hex.
pub(super) const IDENTITIES: &str =
    "INSERT INTO identity (id, bytes) SELECT value ->> 0, unhex(value ->> 1) FROM jsonb_each(?); ";

/// New transactions with everything they may have, in the order of [`super::encode::row_json`].
pub(super) const ROWS: &str = "INSERT INTO tx (half_pos, id, grp, topic, sender, marker, status, half_off, body_len, \
prepared_at, decided_at, decision_no, check_at, checks, repeats, contradictions) \
SELECT value ->> 0, unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, \
value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, value ->> 14, value ->> 15 \
FROM jsonb_each(?); ";

/// Decisions, checks and parking: position, state, decided at, decision number, check time, checks.
pub(super) const MOVES: &str = "UPDATE tx SET status = v.value ->> 1, decided_at = v.value ->> 2, \
decision_no = v.value ->> 3, check_at = v.value ->> 4, checks = coalesce(v.value ->> 5, tx.checks) \
FROM jsonb_each(?) AS v WHERE tx.half_pos = v.value ->> 0 \
AND (tx.status = 0 OR (tx.status = 3 AND v.value ->> 1 IN (1, 2))); ";

/// Repeats and contradictions: position, repeats, contradictions.
pub(super) const COUNTS: &str = "UPDATE tx SET repeats = min(tx.repeats + (v.value ->> 1), 4294967295), \
contradictions = min(tx.contradictions + (v.value ->> 2), 4294967295) \
FROM jsonb_each(?) AS v WHERE tx.half_pos = v.value ->> 0; ";

/// Transactions that could not be published: position, reason.
pub(super) const UNPUBLISHED: &str = "INSERT INTO unpublished (half_pos, reason) SELECT value ->> 0, value ->> 1 \
FROM jsonb_each(?) WHERE true ON CONFLICT (half_pos) DO UPDATE SET reason = excluded.reason; ";

/// Transactions that were published after all: positions.
pub(super) const PUBLISHED: &str =
    "DELETE FROM unpublished WHERE half_pos IN (SELECT value ->> 0 FROM jsonb_each(?)); ";

/// Half messages that were carried forward: position, newest place.
pub(super) const MOVED: &str = "INSERT INTO moved (half_pos, position) SELECT value ->> 0, value ->> 1 \
FROM jsonb_each(?) WHERE true ON CONFLICT (half_pos) DO UPDATE SET position = excluded.position; ";

/// Begins a transaction of a writer that still owns the store: epoch, seq.
pub(super) const BEGIN_AS_OWNER: &str = "BEGIN IMMEDIATE; UPDATE owner SET seq = CASE WHEN epoch = ? AND seq = ? THEN seq END WHERE one = 1; ";

/// Says how far history is forgotten: event, decisions.
pub(super) const FORGOTTEN: &str =
    "UPDATE forgotten SET event = max(event, ?), decisions = max(decisions, ?) WHERE one = 1; ";

/// Of the transactions that are forgotten the first: where the log begins, limit.
macro_rules! forgotten_rows {
    ($column:literal) => {
        concat!(
            "SELECT t.",
            $column,
            " FROM forgotten AS f JOIN tx AS t ON t.decision_no <= f.decisions WHERE t.half_pos < ?1 ",
            "AND NOT EXISTS (SELECT 1 FROM unpublished AS u WHERE u.half_pos = t.half_pos) ",
            "AND NOT EXISTS (SELECT 1 FROM audit AS a WHERE a.tx = t.id AND a.event >= f.event) ",
            "ORDER BY t.decision_no LIMIT ?2"
        )
    };
}

/// Removes their events, where their half messages stood, and themselves, in this order.
pub(super) const FORGET: [&str; 3] = [
    concat!(
        "DELETE FROM audit WHERE tx IN (",
        forgotten_rows!("id"),
        ")"
    ),
    concat!(
        "DELETE FROM moved WHERE half_pos IN (",
        forgotten_rows!("half_pos"),
        ")"
    ),
    concat!(
        "DELETE FROM tx WHERE half_pos IN (",
        forgotten_rows!("half_pos"),
        ")"
    ),
];

/// Removes events that said before how far history is forgotten.
pub(super) const FORGET_TOLD: &str =
    "DELETE FROM audit WHERE tx = zeroblob(16) AND event < (SELECT event FROM forgotten)";

/// Events, in the order of [`super::encode::event_json`].
pub(super) const EVENTS: &str = "INSERT INTO audit (event, tx, from_step, to_step, actor, at, then_at, source, evidence, fingerprint) \
SELECT value ->> 0, unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, \
value ->> 8, value ->> 9 FROM jsonb_each(?); ";

/// The INSERT of as many new transactions as `CHUNKS` says at the same index, in the order of [`super::encode::row`].
pub(super) static ROW_CHUNKS: LazyLock<[String; CHUNKS.len()]> = LazyLock::new(|| {
    CHUNKS.map(|rows| {
        let into = "INSERT INTO tx (half_pos, id, grp, topic, sender, marker, status, half_off, body_len, prepared_at, \
                    decided_at, decision_no, check_at) VALUES ";
        values(into, rows, ROW_ARGUMENTS)
    })
});

/// The INSERT of as many events as `CHUNKS` says at the same index, in the order of [`super::encode::event`].
pub(super) static EVENT_CHUNKS: LazyLock<[String; CHUNKS.len()]> = LazyLock::new(|| {
    CHUNKS.map(|rows| {
        let into = "INSERT INTO audit (event, tx, from_step, to_step, actor, at, then_at, source, evidence, fingerprint) VALUES ";
        values(into, rows, EVENT_ARGUMENTS)
    })
});

fn values(into: &str, rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    let mut sql = String::from(into);
    for number in 0..rows {
        // Writing to a String cannot fail.
        let _ = write!(sql, "{}{row}", if number == 0 { "" } else { "," });
    }
    sql
}
